-- Make a key, and its team where that is new.
--
-- KEYS[1]  key record (hash)
-- KEYS[2]  keys of the team (sorted set, all of score 0, so that they list in order)
-- KEYS[3]  team record (hash)
-- ARGV[1]  an id for the call, given back in the reply
-- ARGV[2]  key id
-- ARGV[3]… fields of the record: name, value, name, value, …
--
-- Reply: {id, 'created'}, {id, 'exists'} where the key id is taken, or {id, 'team_revoked'}
--
-- @include clock
-- @include limits
-- @include pack_limits
-- @include audit_part

if redis.call('EXISTS', KEYS[1]) == 1 then
  local secret = redis.call('HGET', KEYS[1], 'secret_sha256')
  for at = 3, #ARGV, 2 do
    -- The same call again, after a lost reply.
    if ARGV[at] == 'secret_sha256' and ARGV[at + 1] == secret then return {ARGV[1], 'created'} end
  end
  return {ARGV[1], 'exists'}
end
if redis.call('HEXISTS', KEYS[3], 'revoked_ms') == 1 then return {ARGV[1], 'team_revoked'} end
redis.call('HSET', KEYS[1], 'created_ms', now_ms, unpack(ARGV, 3))
pack_limits(KEYS[1])
redis.call('ZADD', KEYS[2], 0, ARGV[2])
if redis.call('HSETNX', KEYS[3], 'created_ms', now_ms) == 1 then audit_new_team(redis.call('HGETALL', KEYS[3])) end
audit(false, redis.call('HGETALL', KEYS[1]))
return {ARGV[1], 'created'}
