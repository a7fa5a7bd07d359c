-- A part of other scripts: is this key good now? Needs clock.
--
-- verdict = authenticate(secret_sha256, key, team_revoked_ms)
--   secret_sha256    of the text that the client sent
--   key              {secret_sha256, revoked_ms, expires_ms, previous_sha256, previous_until_ms} of the stored key, false
--                    where there is none
--   team_revoked_ms  of its team's record
--   verdict          'ok', 'unknown', 'revoked' or 'expired'
local function authenticate(secret_sha256, key, team_revoked_ms)
  if key[1] ~= secret_sha256 then
    local in_overlap = key[4] == secret_sha256 and now_ms < tonumber(key[5] or 0)
    if not in_overlap then return 'unknown' end
  end
  if key[2] or team_revoked_ms then return 'revoked' end
  if key[3] and now_ms >= tonumber(key[3]) then return 'expired' end
  return 'ok'
end
