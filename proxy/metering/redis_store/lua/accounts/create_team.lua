-- Make a team. One that was made along with its first key is there already.
--
-- KEYS[1]  team record (hash)
-- ARGV[1]  an id for the call, given back in the reply; asked twice with it, it gives the first answer
-- ARGV[2]… fields of the record: name, value, name, value, …
--
-- Reply: {id, 'created', {field, value, …}, now_us} with the record after it, or {id, 'exists'}
--
-- @include clock
-- @include limits
-- @include pack_limits
-- @include audit_part

if redis.call('EXISTS', KEYS[1]) == 1 then
  if redis.call('HGET', KEYS[1], 'made_by') ~= ARGV[1] then return {ARGV[1], 'exists'} end
else
  redis.call('HSET', KEYS[1], 'created_ms', now_ms, 'made_by', ARGV[1], unpack(ARGV, 2))
  pack_limits(KEYS[1])
  audit(false, redis.call('HGETALL', KEYS[1]))
end
return {ARGV[1], 'created', redis.call('HGETALL', KEYS[1]), now_us}
