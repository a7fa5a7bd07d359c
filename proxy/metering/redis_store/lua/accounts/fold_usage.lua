-- Sum up what a part of a usage hash, or of a checkpoint, has of days that are long past: under 'earlier' in place of the day.
-- Asked twice, it finds nothing more to sum up.
--
-- KEYS[1]  usage of a key or a team (hash: DAY:units:MODEL and DAY:images:MODEL), or its checkpoint (hash)
-- ARGV[1]  an id for the call, given back in the reply
-- ARGV[2]  the first day that is kept, YYYY-MM-DD
-- ARGV[3]  what stands before the day in the names of fields: '', or 'usage:' in a checkpoint
-- ARGV[4]  where to go on: the cursor of the call before, or 0
-- ARGV[5]  number of fields that are left alone, whatever their days
-- ARGV[6]  about how many fields to look at
--
-- Reply: {id, cursor to go on with, '0' at the end}. In a usage hash, the field 'from' holds the first day that is kept.

local from, prefix = ARGV[2], ARGV[3]
if redis.call('HLEN', KEYS[1]) <= tonumber(ARGV[5]) then return {ARGV[1], '0'} end
if prefix == '' then
  local kept = redis.call('HGET', KEYS[1], 'from')
  -- A gateway whose clock is behind does not bring days back.
  if kept and kept > from then from = kept end
  redis.call('HSET', KEYS[1], 'from', from)
end

local cursor, found = unpack(redis.call('HSCAN', KEYS[1], ARGV[4], 'COUNT', ARGV[6]))
for at = 1, #found, 2 do
  local day, heading = string.match(found[at], '^' .. prefix .. '(%d%d%d%d%-%d%d%-%d%d)(:.+)$')
  if day and day < from and redis.call('HDEL', KEYS[1], found[at]) == 1 then
    redis.call('HINCRBY', KEYS[1], prefix .. 'earlier' .. heading, found[at + 1])
  end
end
return {ARGV[1], cursor}
