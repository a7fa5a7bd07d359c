-- Reverse a charge: give the key and its team their units back, and write that to the ledger. Once for each entry.
--
-- KEYS[1]  ledger of the team (stream)
-- KEYS[2]  refunds of the team (hash: ledger entry id to the refund's entry id and the call's id, or to the id of the entry
--          that corrects it and 'corrected')
-- KEYS[3]  team record (hash)
-- KEYS[4]  usage of the team (hash)
-- KEYS[5]  record of the entry's key (hash)
-- KEYS[6]  usage of the entry's key (hash)
-- ARGV[1]  an id for the call, given back in the reply; asked twice with it, it gives the first answer
-- ARGV[2]  ledger entry id
-- ARGV[3]  reason, as a JSON string
-- ARGV[4]  id of the entry's key
-- Where the entry counts for an end user, there are also
-- KEYS[7]  what this user has used under the key (string)
-- KEYS[8]  the same under the team (string)
--
-- Reply: {id, 'key', key id, user or false} where the entry is of another key than ARGV[4]; user is the name of the end user that it
-- counts for; {id, 'refunded', refund's entry id}, {id, 'already', refund's entry id}, {id, 'missing'}, {id, 'nothing'}
-- where the entry charged nothing, or {id, 'corrected', late entry's id} where a later one has replaced its charge
--
-- @include calendar
-- @include counters
-- @include usage_part
-- @include audit_part
-- @include limits
-- @include late_clock
-- @include users

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
if entry.key ~= ARGV[4] then return {ARGV[1], 'key', entry.key, about.per_user and (about.user or '') or false} end

local person = (about.user and ',"user":' .. cjson.encode(about.user) or '')
  .. (about.tags and ',"tags":' .. cjson.encode(about.tags) or '')
  .. (about.per_user and ',"per_user":' .. cjson.encode(about.per_user) or '')
local facts = string.format('{"model":%s,"admitted_ms":%.0f,"reason":%s', cjson.encode(about.model),
  about.admitted_ms, ARGV[3]) .. person .. '}'
local overage = entry.overage == '0' and '0' or '-' .. entry.overage
-- What cannot be added to is refused before the first write.
local before = redis.call('HGETALL', KEYS[5])
local of_key, of_team = counters_of(KEYS[5]), counters_of(KEYS[3])
local day = day_of(about.admitted_ms)
local heading = utc_day(day) .. ':units:' .. about.model
check_usage(KEYS[6], heading)
check_usage(KEYS[4], heading)
local of_users, now_ms = {}, math.floor(clock_us() / 1000)
if about.per_user then
  if about.per_user ~= 'team' then of_users[1] = 7 end
  if about.per_user ~= 'key' then of_users[#of_users + 1] = 8 end
end
for _, at in ipairs(of_users) do used_by(KEYS[at], now_ms) end
local refund = redis.call('XADD', KEYS[1], '*', 'kind', 'refund', 'key', entry.key, 'request', entry.request, 'refunds',
  ARGV[2], 'images', '0', 'charged', '-' .. entry.charged, 'overage', overage, 'facts', facts)
add_to(KEYS[5], of_key, day, 0, -entry.charged, overage + 0, 0, 0)
add_to(KEYS[3], of_team, day, 0, -entry.charged, overage + 0, 0, 0)
for _, at in ipairs(of_users) do add_to_user(KEYS[at], now_ms, day, 0, -entry.charged, 0) end
redis.call('HINCRBY', KEYS[6], heading, '-' .. entry.charged)
redis.call('HINCRBY', KEYS[4], heading, '-' .. entry.charged)
redis.call('HSET', KEYS[2], ARGV[2], refund .. ' ' .. ARGV[1])
audit(before, redis.call('HGETALL', KEYS[5]), entry.key)
return {ARGV[1], 'refunded', refund}
