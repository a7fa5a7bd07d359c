-- Reclaim what expired leases hold, the longest ago first, a part of them a call.
--
-- KEYS[1]  leases of the team (sorted set: reservation id by the millisecond when it expires)
-- ARGV[1]  an id for the call, given back in the reply
-- ARGV[2]  how long a reservation's end is remembered, milliseconds
--
-- Reply: {id, number of leases reclaimed, 1 where there may be more to reclaim or else 0, now_us}
--
-- @include clock
-- @include calendar
-- @include counters
-- @include usage_part
-- @include reclaim_part

local MOST = 100

local ids = run_out(KEYS[1], MOST)
return {ARGV[1], reclaim(KEYS[1], ids, ARGV[2]), #ids == MOST and 1 or 0, now_us}
