-- Authenticate a key and read its record and its team's, for the caller's own view of itself.
--
-- KEYS[1]  key record (hash)
-- KEYS[2]  leases of the team (sorted set)
-- KEYS[3]  team record (hash)
-- ARGV[1]  an id for the call, given back in the reply
-- ARGV[2]  SHA-256 of the key's text, in hexadecimal
-- ARGV[3]  1 where expired leases should be reclaimed first, 0 where they just have been
--
-- Reply: {id, 'ok', {field, value, …} of the key, {field, value, …} of the team, now_us}, {id, 'unknown' | 'revoked' |
-- 'expired'}, or {id, 'again'} where leases of the team have expired, for reclaim.lua to reclaim
--
-- @include clock
-- @include authenticate

local key = redis.call('HMGET', KEYS[1], 'secret_sha256', 'revoked_ms', 'expires_ms')
local verdict = authenticate(ARGV[2], KEYS[1], key[1], key[2] or redis.call('HGET', KEYS[3], 'revoked_ms'), key[3])
if verdict ~= 'ok' then return {ARGV[1], verdict} end
if ARGV[3] == '1' and redis.call('ZRANGEBYSCORE', KEYS[2], 0, now_ms, 'LIMIT', 0, 1)[1] then return {ARGV[1], 'again'} end
return {ARGV[1], 'ok', redis.call('HGETALL', KEYS[1]), redis.call('HGETALL', KEYS[3]), now_us}
