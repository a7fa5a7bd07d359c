-- A part of other scripts: is this key good now? Needs clock.
--
-- verdict = authenticate(secret_sha256, key, own_sha256, revoked_ms, expires_ms)
--   secret_sha256  of the text that the client sent
--   key            key record (hash)
--   own_sha256     of the stored key, false where there is none
--   revoked_ms     of the key or of its team, false where neither is revoked
--   expires_ms     of the key, false where it never does
--   verdict        'ok', 'unknown', 'revoked' or 'expired'
local function authenticate(secret_sha256, key, own_sha256, revoked_ms, expires_ms)
  if own_sha256 ~= secret_sha256 then
    local previous = redis.call('HMGET', key, 'previous_sha256', 'previous_until_ms')
    local in_overlap = previous[1] == secret_sha256 and now_ms < tonumber(previous[2] or 0)
    if not in_overlap then return 'unknown' end
  end
  if revoked_ms then return 'revoked' end
  if expires_ms and now_ms >= tonumber(expires_ms) then return 'expired' end
  return 'ok'
end
