-- Read where a team's ledger ends, and how far it has been trimmed and shipped. Writes nothing.
--
-- KEYS[1]  ledger of the team (stream)
-- KEYS[2]  checkpoint of the team (hash)
-- KEYS[3]  leases of the team (sorted set)
-- ARGV[1]  an id for the call, given back in the reply
-- ARGV[2]  name of the shipper
--
-- Reply: {id, last ledger entry id, id of the last entry that was trimmed, id of the last entry that this shipper has
-- shipped, number of expired leases that are not reclaimed yet, the store's time in milliseconds}; an id is '0-0' where
-- there is none. A ledger that was trimmed to its end ends with its last entry all the same.
--
-- @include clock

local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
local at = redis.call('HMGET', KEYS[2], 'last', 'shipped:' .. ARGV[2])
local trimmed = at[1] or '0-0'
return {ARGV[1], last and last[1] or trimmed, trimmed, at[2] or '0-0', redis.call('ZCOUNT', KEYS[3], '-inf', now_ms),
  now_ms}
