-- Read what some end users of a team have used, together with where the ledger ends. Writes nothing.
--
-- KEYS[1]  ledger of the team (stream)
-- KEYS[2]  checkpoint of the team (hash)
-- KEYS[3]  leases of the team (sorted set)
-- KEYS[4]… what a user has used (string), see users.lua
-- ARGV[1]  an id for the call, given back in the reply
--
-- Reply: {id, last ledger entry id or '0-0', number of leases, now_us, {what a user has used or false, …}}
--
-- @include clock

local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
local trimmed = redis.call('HGET', KEYS[2], 'last') or '0-0'
local used = {}
for at = 4, #KEYS do used[at - 3] = redis.call('GET', KEYS[at]) end
return {ARGV[1], last and last[1] or trimmed, redis.call('ZCARD', KEYS[3]), now_us, used}
