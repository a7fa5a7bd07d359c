-- Change fields of a record that is there, a key's or a team's; an empty value removes the field. Once for each call id: what
-- others have changed since stays.
--
-- KEYS[1]  key or team record (hash)
-- KEYS[2]  change (string), remembers that it was made
-- ARGV[1]  an id for the call, given back in the reply
-- ARGV[2]  what happens: 'update', 'revoke' or 'rotate'
-- ARGV[3]  rotate: how long the old secret stays good, milliseconds; otherwise 0
-- ARGV[4]  how long the call's id is remembered, milliseconds
-- ARGV[5]… update: name, value, name, value, …; rotate: SHA-256 of the new key's text
--
-- Reply: {id, 'ok', {field, value, …}, now_us} with the record after it, {id, 'missing'}, or {id, 'revoked'} where a revoked
-- one was to be changed
--
-- @include clock
-- @include limits
-- @include pack_limits
-- @include audit_part

local function are_equal(before, after)
  if #before ~= #after then return false end
  local values = {}
  for at = 1, #before, 2 do values[before[at]] = before[at + 1] end
  for at = 1, #after, 2 do
    if values[after[at]] ~= after[at + 1] then return false end
  end
  return true
end

local id, action = ARGV[1], ARGV[2]
if redis.call('EXISTS', KEYS[1]) == 0 then return {id, 'missing'} end
if redis.call('EXISTS', KEYS[2]) == 1 then return {id, 'ok', redis.call('HGETALL', KEYS[1]), now_us} end
local before = redis.call('HGETALL', KEYS[1])
local revoked = redis.call('HEXISTS', KEYS[1], 'revoked_ms') == 1

if action == 'revoke' then
  redis.call('HSETNX', KEYS[1], 'revoked_ms', now_ms)
elseif revoked then
  return {id, 'revoked'}
elseif action == 'rotate' then
  redis.call('HSET', KEYS[1], 'secret_sha256', ARGV[5], 'previous_sha256', redis.call('HGET', KEYS[1], 'secret_sha256'),
    'previous_until_ms', now_ms + ARGV[3])
else
  for at = 5, #ARGV, 2 do
    if ARGV[at + 1] == '' then
      redis.call('HDEL', KEYS[1], ARGV[at])
    else
      redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1])
    end
  end
  pack_limits(KEYS[1])
end
redis.call('SET', KEYS[2], action, 'PX', ARGV[4])
local after = redis.call('HGETALL', KEYS[1])
if not are_equal(before, after) then audit(before, after) end
return {id, 'ok', after, now_us}
