-- Read the counters of a team and of some of its keys, together with all that they should add up to, at one moment.
--
-- KEYS[1]  leases of the team (sorted set); the names of the team's other keys follow from its name
-- ARGV[1]  an id for the call, given back in the reply
-- ARGV[2]  key id to begin after, '' for the first
-- ARGV[3]  number of keys at the most
-- ARGV[4]  number of leases that are looked at; where there are more, none is
-- ARGV[5]  number of fields of usage and checkpoints after which a page ends
--
-- Reply: {id, last ledger entry id or '0-0', id of the last entry that was trimmed or '0-0', {reservation id, …} of leases
-- that no reservation belongs to, {key, …}, 1 where there are more keys or else 0}, each key as {key id, record, usage,
-- checkpoint, reservations, {day, units held, …}}, where the three in the middle are {field, value, …} and days count from
-- the epoch. The team itself leads the first page, as a key whose id is empty. Where leases were not looked at,
-- reservations is -1.
--
-- @include calendar

local leases, count, leases_limit, fields_limit = KEYS[1], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local team = string.sub(leases, 1, -#'leases' - 1)
local trimmed = redis.call('HGET', team .. 'checkpoint', 'last') or '0-0'
local last = redis.call('XREVRANGE', team .. 'ledger', '+', '-', 'COUNT', 1)[1]

local NOTHING_HELD = {count = 0, by_day = {}}
local held, strays = {}, {}
local is_counted = redis.call('ZCARD', leases) <= leases_limit

local function hold(whose, day, units)
  local of = held[whose] or {count = 0, by_day = {}}
  of.count, of.by_day[day], held[whose] = of.count + 1, (of.by_day[day] or 0) + units, of
end

local ids = is_counted and redis.call('ZRANGE', leases, 0, leases_limit - 1) or {}
for _, id in ipairs(ids) do
  -- The key's id leads the facts, and has no character that JSON escapes.
  local units, admitted_ms, whose = string.match(redis.call('GET', team .. 'reservation:' .. id) or '',
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

local function books(id, record, usage)
  local of, by_day = held[id] or NOTHING_HELD, {}
  for day, units in pairs(of.by_day) do
    by_day[#by_day + 1], by_day[#by_day + 2] = day, units
  end
  local charged, checkpoint = redis.call('HGETALL', team .. usage), redis.call('HGETALL', team .. 'checkpoint:' .. id)
  fields = fields + #charged / 2 + #checkpoint / 2
  return {id, redis.call('HGETALL', team .. record), charged, checkpoint, is_counted and of.count or -1, by_day}
end

local keys, more = {}, 0
if ARGV[2] == '' then keys[1] = books('', 'team', 'usage') end
local start = ARGV[2] == '' and '-' or '(' .. ARGV[2]
for at, id in ipairs(redis.call('ZRANGEBYLEX', team .. 'keys', start, '+', 'LIMIT', 0, count + 1)) do
  -- At least one, or the next page would be this one again.
  if at > count or (at > 1 and fields >= fields_limit) then
    more = 1
    break
  end
  keys[#keys + 1] = books(id, 'key:' .. id, 'usage:' .. id)
end
return {ARGV[1], last and last[1] or trimmed, trimmed, strays, keys, more}
