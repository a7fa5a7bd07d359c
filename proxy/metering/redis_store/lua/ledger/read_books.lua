-- Read the counters of a team and of some of its keys, together with all that they should add up to, at one moment.
-- The script declares each key that it touches: a call that does not name what is there now is told, and made again.
--
-- KEYS[1]  leases of the team (sorted set)
-- KEYS[2]  checkpoint of the team (hash)
-- KEYS[3]  ledger of the team (stream)
-- KEYS[4]  keys of the team (sorted set)
-- KEYS[5]  team record (hash)
-- KEYS[6]  usage of the team (hash)
-- KEYS[7]  what the team's own record counts in the checkpoint (hash)
-- KEYS[8]… of each key the record (hash), the usage (hash) and the checkpoint (hash); behind them reservations (string)
-- ARGV[1]  an id for the call, given back in the reply
-- ARGV[2]  key id to begin after, '' for the first
-- ARGV[3]  number of keys at the most
-- ARGV[4]  number of leases that are looked at; where there are more, none is
-- ARGV[5]  number of fields of usage and checkpoints after which a page ends
-- ARGV[6]  number of keys named here
-- ARGV[7]… their ids, those after ARGV[2] in their order; behind them the ids of reservations
--
-- Reply: {id, 'again', {key id, …}, {reservation id, …}} with those that are there, where they are others; or {id, 'books',
-- last ledger entry id or '0-0', id of the last entry that was trimmed or '0-0', {reservation id, …} of leases that no
-- reservation belongs to, {key, …}, 1 where there are more keys or else 0}, each key as {key id, record, usage, checkpoint,
-- reservations, {day, units held, …}}, where the three in the middle are {field, value, …} and days count from the epoch. The
-- team itself leads the first page, as a key whose id is empty. Where leases were not looked at, reservations is -1.
--
-- @include calendar

local leases, count, leases_limit, fields_limit = KEYS[1], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local given = tonumber(ARGV[6])
local is_first = ARGV[2] == ''

local names = redis.call('ZRANGEBYLEX', KEYS[4], is_first and '-' or '(' .. ARGV[2], '+', 'LIMIT', 0, count + 1)
local is_more = #names > count
if is_more then names[count + 1] = nil end
local is_counted = redis.call('ZCARD', leases) <= leases_limit
local ids = is_counted and redis.call('ZRANGE', leases, 0, leases_limit - 1) or {}

local reservation_at = {}
for at = 7 + given, #ARGV do reservation_at[ARGV[at]] = 8 + 3 * given + at - 7 - given end

local is_known = #names == given
for at, name in ipairs(names) do is_known = is_known and ARGV[6 + at] == name end
for _, id in ipairs(ids) do is_known = is_known and reservation_at[id] end
if not is_known then return {ARGV[1], 'again', names, ids} end

local trimmed = redis.call('HGET', KEYS[2], 'last') or '0-0'
local last = redis.call('XREVRANGE', KEYS[3], '+', '-', 'COUNT', 1)[1]

local NOTHING_HELD = {count = 0, by_day = {}}
local held, strays = {}, {}

local function hold(whose, day, units)
  local of = held[whose] or {count = 0, by_day = {}}
  of.count, of.by_day[day], held[whose] = of.count + 1, (of.by_day[day] or 0) + units, of
end

for _, id in ipairs(ids) do
  -- The key's id leads the facts, and has no character that JSON escapes.
  local units, admitted_ms, whose = string.match(redis.call('GET', KEYS[reservation_at[id]]) or '',
    '^held (%d+) (%d+) {"key":"([^"]+)"')
  if units then
    local day = day_of(admitted_ms)
    hold(whose, day, tonumber(units))
    hold('', day, tonumber(units))
  else
    strays[#strays + 1] = id
  end
end

local fields = 0

local function books(id, record, usage, checkpoint)
  local of, by_day = held[id] or NOTHING_HELD, {}
  for day, units in pairs(of.by_day) do
    by_day[#by_day + 1], by_day[#by_day + 2] = day, units
  end
  local charged, trimmed_fields = redis.call('HGETALL', usage), redis.call('HGETALL', checkpoint)
  fields = fields + #charged / 2 + #trimmed_fields / 2
  return {id, redis.call('HGETALL', record), charged, trimmed_fields, is_counted and of.count or -1, by_day}
end

local keys = {}
if is_first then keys[1] = books('', KEYS[5], KEYS[6], KEYS[7]) end
for at, id in ipairs(names) do
  -- At least one, or the next page would be this one again.
  if at > 1 and fields >= fields_limit then
    is_more = true
    break
  end
  keys[#keys + 1] = books(id, KEYS[5 + 3 * at], KEYS[6 + 3 * at], KEYS[7 + 3 * at])
end
return {ARGV[1], 'books', last and last[1] or trimmed, trimmed, strays, keys, is_more and 1 or 0}
