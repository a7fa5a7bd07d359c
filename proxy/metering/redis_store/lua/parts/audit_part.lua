-- A part of scripts that an operator changes something with: who did it, and what was changed. It is written in the same
-- step as the change, and only where there is one: a call that comes twice changes nothing the second time.
--
-- It takes its own off the ends of KEYS and ARGV, so that the script's stay where they are:
--   the last of KEYS  audit record of the team (stream)
--   the last of ARGV  JSON: {by: name of the token, request: id of the request, team: id, action: what was asked,
--                     target: of what}
--
-- audit(before, after, owner)
--   before, after  {field, value, …} of what was changed, before is false where there was none; secrets are left out
--   owner          whose fields they are, a key's id or a team's; left out, the target's
-- audit_new_team(after)
--   after          {field, value, …} of a team that was made because its first key was
local AUDIT_LENGTH = 100000
local HIDDEN = {secret_sha256 = true, previous_sha256 = true, made_by = true, limits = true}

local audit_stream, audit_about = table.remove(KEYS), cjson.decode(table.remove(ARGV))

-- Refuses a stream of the wrong type before the script writes anything.
redis.call('XLEN', audit_stream)

if type(audit_about) ~= 'table' then error('the last argument should say who asks') end

local function write_audit(action, target, owner, before, after)
  local entry = {'by', audit_about.by, 'request', audit_about.request, 'action', action, 'target', target, 'owner', owner}
  -- Each field of the records as one of the entry, byte for byte: counters are no text.
  local function add(prefix, record)
    for at = 1, #record, 2 do
      if not HIDDEN[record[at]] then
        entry[#entry + 1], entry[#entry + 2] = prefix .. record[at], record[at + 1]
      end
    end
  end
  add('before.', before or {})
  add('after.', after)
  redis.call('XADD', audit_stream, 'MAXLEN', '~', AUDIT_LENGTH, '*', unpack(entry))
end

local function audit(before, after, owner)
  write_audit(audit_about.action, audit_about.target, owner or audit_about.target, before, after)
end

local function audit_new_team(after)
  write_audit('team.create', audit_about.team, audit_about.team, false, after)
end
