-- Take an admission back whose reply never came: release what it reserved, or see to it that it never reserves anything.
--
-- KEYS[1]  key record (hash)
-- KEYS[2]  reservation (string)
-- KEYS[3]  leases of the team (sorted set)
-- ARGV[1]  reservation id
-- ARGV[2]  how long the id is remembered, milliseconds
--
-- Reply: {id, 'void'}, or {id, 'settled'} where it has ended otherwise
local id = ARGV[1]
local state, units = string.match(redis.call('GET', KEYS[2]) or '', '^(%a+) (%S+)')
if state == 'settled' or state == 'expired' then return {id, 'settled'} end

redis.call('SET', KEYS[2], 'void 0 0', 'PX', ARGV[2])
if state == 'held' then
  if units ~= '0' then redis.call('HINCRBY', KEYS[1], 'reserved', '-' .. units) end
  redis.call('ZREM', KEYS[3], id)
end
return {id, 'void'}
