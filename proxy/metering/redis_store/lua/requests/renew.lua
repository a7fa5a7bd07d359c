-- Renew the leases of one gateway on reservations of one team. One that has expired and was reclaimed stays so.
--
-- KEYS[1]  leases of the team (sorted set: reservation id by the millisecond when it expires)
-- ARGV[1]  an id for the call, given back in the reply
-- ARGV[2]  length of a lease, milliseconds
-- ARGV[3]… reservation ids
--
-- Reply: {id, number of leases renewed}
--
-- @include clock

local renewed = 0
for at = 3, #ARGV do
  if redis.call('ZSCORE', KEYS[1], ARGV[at]) then
    redis.call('ZADD', KEYS[1], now_ms + ARGV[2], ARGV[at])
    renewed = renewed + 1
  end
end
return {ARGV[1], renewed}
