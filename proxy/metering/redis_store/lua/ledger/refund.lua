-- Reverse a charge: give the key and its team their units back, and write that to the ledger. Once for each entry.
--
-- KEYS[1]  ledger of the team (stream); the names of the team's other keys follow from its name
-- KEYS[2]  refunds of the team (hash: ledger entry id to the refund's entry id and the call's id, or to the id of the entry
--          that corrects it and 'corrected')
-- ARGV[1]  an id for the call, given back in the reply; asked twice with it, it gives the first answer
-- ARGV[2]  ledger entry id
-- ARGV[3]  reason, as a JSON string
--
-- Reply: {id, 'refunded', refund's entry id}, {id, 'already', refund's entry id}, {id, 'missing'}, {id, 'nothing'}
-- where the entry charged nothing, or {id, 'corrected', late entry's id} where a later one has replaced its charge
--
-- @include calendar
-- @include counters
-- @include usage_part
-- @include audit_part

local made = redis.call('HGET', KEYS[2], ARGV[2])
if made then
  local refund, call = string.match(made, '^(%S+) (.+)$')
  if call == 'corrected' then return {ARGV[1], 'corrected', refund} end
  return {ARGV[1], call == ARGV[1] and 'refunded' or 'already', refund}
end
local found = redis.call('XRANGE', KEYS[1], ARGV[2], ARGV[2])[1]
if not found then return {ARGV[1], 'missing'} end

local entry = {}
for at = 1, #found[2], 2 do entry[found[2][at]] = found[2][at + 1] end
local is_charge = entry.kind == 'request' or entry.kind == 'late'
if not is_charge or tonumber(entry.charged) <= 0 then return {ARGV[1], 'nothing'} end

local about = cjson.decode(entry.facts)
local facts = string.format('{"model":%s,"admitted_ms":%.0f,"reason":%s}', cjson.encode(about.model),
  about.admitted_ms, ARGV[3])
local overage = entry.overage == '0' and '0' or '-' .. entry.overage
-- What cannot be added to is refused before the first write.
local team = string.sub(KEYS[1], 1, -#'ledger' - 1)
local before = redis.call('HGETALL', team .. 'key:' .. entry.key)
local of_key, of_team = counters_of(team .. 'key:' .. entry.key), counters_of(team .. 'team')
local day = day_of(about.admitted_ms)
local heading = utc_day(day) .. ':units:' .. about.model
check_usage(team .. 'usage:' .. entry.key, heading)
check_usage(team .. 'usage', heading)
local refund = redis.call('XADD', KEYS[1], '*', 'kind', 'refund', 'key', entry.key, 'request', entry.request, 'refunds',
  ARGV[2], 'images', '0', 'charged', '-' .. entry.charged, 'overage', overage, 'facts', facts)
add_to(team .. 'key:' .. entry.key, of_key, day, 0, -entry.charged, overage + 0, 0, 0)
add_to(team .. 'team', of_team, day, 0, -entry.charged, overage + 0, 0, 0)
redis.call('HINCRBY', team .. 'usage:' .. entry.key, heading, '-' .. entry.charged)
redis.call('HINCRBY', team .. 'usage', heading, '-' .. entry.charged)
redis.call('HSET', KEYS[2], ARGV[2], refund .. ' ' .. ARGV[1])
audit(before, redis.call('HGETALL', team .. 'key:' .. entry.key), entry.key)
return {ARGV[1], 'refunded', refund}
