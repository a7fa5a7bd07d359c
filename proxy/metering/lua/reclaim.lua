-- Take back what is held by leases that have run out, for a look at what a team has used.
--
-- KEYS[1]  leases of the team (sorted set: reservation id by the millisecond when it runs out)
-- ARGV[1]  an id for the call, given back in the reply
-- ARGV[2]  how long a reservation's end is remembered, milliseconds
--
-- Reply: {id, number of leases taken back, now_us}
--
-- @include clock
-- @include calendar
-- @include counters
-- @include reclaim_part

return {ARGV[1], reclaim(KEYS[1], ARGV[2]), now_us}
