-- A part of other scripts: is this key good now? Needs clock.
--
-- verdict = authenticate(secret_sha256, key, team)
--   secret_sha256  of the text that the client sent
--   key            fields of the key's record: secret_sha256, revoked_ms, expires_ms, previous_sha256, previous_until_ms;
--                  false where there is none
--   team           fields of its team's: revoked_ms
--   verdict        'ok', 'unknown', 'revoked' or 'expired'
local function authenticate(secret_sha256, key, team)
  if key.secret_sha256 ~= secret_sha256 then
    local in_overlap = key.previous_sha256 == secret_sha256 and now_ms < tonumber(key.previous_until_ms or 0)
    if not in_overlap then return 'unknown' end
  end
  if key.revoked_ms or team.revoked_ms then return 'revoked' end
  if key.expires_ms and now_ms >= tonumber(key.expires_ms) then return 'expired' end
  return 'ok'
end
