-- Authenticate a key and read its record, for the caller's own view of itself. Writes nothing.
--
-- KEYS[1]  key record (hash)
-- ARGV[1]  an id for the call, given back in the reply
-- ARGV[2]  SHA-256 of the key's text, in hexadecimal
--
-- Reply: {id, 'ok', {field, value, …}} or {id, 'unknown' | 'revoked' | 'expired'}
--
-- @include authenticate

local record = redis.call('HMGET', KEYS[1], 'secret_sha256', 'revoked_ms', 'expires_ms', 'previous_sha256',
  'previous_until_ms')
local verdict = authenticate(ARGV[2], record)
if verdict ~= 'ok' then return {ARGV[1], verdict} end
return {ARGV[1], 'ok', redis.call('HGETALL', KEYS[1])}
