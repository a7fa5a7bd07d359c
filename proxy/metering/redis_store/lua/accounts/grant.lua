-- Top up the quota of a key or of a team, or with a negative number take back of it; and write it to the ledger. Once for each grant id.
--
-- KEYS[1]  key or team record (hash)
-- KEYS[2]  grant (string), remembers that it was made
-- KEYS[3]  ledger of the team (stream)
-- ARGV[1]  grant id, given back in the reply
-- ARGV[2]  units
-- ARGV[3]  the largest sum of grants there may be
-- ARGV[4]  how long the grant id is remembered, milliseconds
-- ARGV[5]  key id, '' for the team
-- ARGV[6]  the entry's other facts (JSON)
--
-- Reply: {id, 'ok', ledger entry id, {field, value, …}, now_us} with the record after it, {id, 'missing'}, {id, 'revoked'},
-- {id, 'no_quota'} where there is no quota in total that it could go to, or {id, 'too_much', sum of the grants so far}
--
-- @include clock
-- @include limits
-- @include pack_limits
-- @include audit_part
local id = ARGV[1]
local made = redis.call('GET', KEYS[2])
if made then return {id, 'ok', made, redis.call('HGETALL', KEYS[1]), now_us} end
if redis.call('EXISTS', KEYS[1]) == 0 then return {id, 'missing'} end
if redis.call('HEXISTS', KEYS[1], 'revoked_ms') == 1 then return {id, 'revoked'} end
if redis.call('HEXISTS', KEYS[1], 'quota_units') == 0 then return {id, 'no_quota'} end

local sum = tonumber(redis.call('HGET', KEYS[1], 'granted') or 0)
if math.abs(sum + ARGV[2]) > tonumber(ARGV[3]) then return {id, 'too_much', sum} end

local before = redis.call('HGETALL', KEYS[1])
local entry = redis.call('XADD', KEYS[3], '*', 'kind', 'grant', 'key', ARGV[5], 'grant', id, 'quota_units', ARGV[2],
  'facts', ARGV[6])
redis.call('HINCRBY', KEYS[1], 'granted', ARGV[2])
pack_limits(KEYS[1])
redis.call('SET', KEYS[2], entry, 'PX', ARGV[4])
local after = redis.call('HGETALL', KEYS[1])
audit(before, after)
return {id, 'ok', entry, after, now_us}
