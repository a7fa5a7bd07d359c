-- Authenticate a key and read its record and its team's, for the caller's own view of itself. A few leases of
-- the team that have expired are reclaimed first.
--
-- KEYS[1]  key record (hash)
-- KEYS[2]  leases of the team (sorted set)
-- KEYS[3]  team record (hash)
-- ARGV[1]  an id for the call, given back in the reply
-- ARGV[2]  SHA-256 of the key's text, in hexadecimal
-- ARGV[3]  how long the end of a reservation is remembered, milliseconds
--
-- Reply: {id, 'ok', {field, value, …} of the key, {field, value, …} of the team, now_us, count} or {id, 'unknown' |
-- 'revoked' | 'expired', count}, where count is the number of leases reclaimed; or {id, 'again', 0} where so many leases have
-- expired that reclaim.lua has to reclaim them first
--
-- @include clock
-- @include calendar
-- @include counters
-- @include authenticate
-- @include usage_part
-- @include reclaim_part

local MOST = 10

local key = redis.call('HMGET', KEYS[1], 'secret_sha256', 'revoked_ms', 'expires_ms', 'previous_sha256',
  'previous_until_ms')
local verdict = authenticate(ARGV[2], key, redis.call('HGET', KEYS[3], 'revoked_ms'))
if verdict ~= 'ok' then return {ARGV[1], verdict, 0} end
local ids = run_out(KEYS[2], MOST + 1)
if #ids > MOST then return {ARGV[1], 'again', 0} end
local reclaimed = reclaim(KEYS[2], ids, ARGV[3])
return {ARGV[1], 'ok', redis.call('HGETALL', KEYS[1]), redis.call('HGETALL', KEYS[3]), now_us, reclaimed}
