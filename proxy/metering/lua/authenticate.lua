-- A part of other scripts: is this key good now? Needs clock.
--
-- verdict = authenticate(secret_sha256, record)
--   secret_sha256  of the text that the client sent
--   record         {secret_sha256, revoked_ms, expires_ms, previous_sha256, previous_until_ms} of the stored key, false
--                  where there is none
--   verdict        'ok', 'unknown', 'revoked' or 'expired'
local function authenticate(secret_sha256, record)
  if record[1] ~= secret_sha256 then
    local in_overlap = record[4] == secret_sha256 and now_ms < tonumber(record[5] or 0)
    if not in_overlap then return 'unknown' end
  end
  if record[2] then return 'revoked' end
  if record[3] and now_ms >= tonumber(record[3]) then return 'expired' end
  return 'ok'
end
