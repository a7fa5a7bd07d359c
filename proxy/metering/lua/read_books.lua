-- Read the counters of a team and of some of its keys, together with all that they should add up to, at one moment. Leases that have
-- run out are taken back first.
--
-- KEYS[1]  leases of the team (sorted set); the names of the team's other keys follow from its name
-- ARGV[1]  an id for the call, given back in the reply
-- ARGV[2]  key id to begin after, '' for the first
-- ARGV[3]  number of keys
-- ARGV[4]  how long the end of a reservation is remembered, milliseconds
--
-- Reply: {id, last ledger entry id or '0-0', id of the last entry that was trimmed or '0-0', {reservation id, …} of leases
-- that no reservation belongs to, {key, …}}, each key as {key id, record, usage, checkpoint, reservations, {day, units
-- held, …}}, where the three in the middle are {field, value, …} and days count from the epoch. The team itself leads the
-- first page, as a key whose id is empty.
--
-- @include clock
-- @include calendar
-- @include counters
-- @include reclaim_part

reclaim(KEYS[1], ARGV[4])
local team = string.sub(KEYS[1], 1, -#'leases' - 1)
local trimmed = redis.call('HGET', team .. 'checkpoint', 'last') or '0-0'
local last = redis.call('XREVRANGE', team .. 'ledger', '+', '-', 'COUNT', 1)[1]

local held, strays = {}, {}

local function hold(whose, day, units)
  local of = held[whose] or {count = 0, by_day = {}}
  of.count, of.by_day[day], held[whose] = of.count + 1, (of.by_day[day] or 0) + units, of
end

for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  local units, admitted_ms, facts =
    string.match(redis.call('GET', team .. 'reservation:' .. id) or '', '^held (%d+) (%d+) (.+)$')
  if units then
    hold(cjson.decode(facts).key, day_of(admitted_ms), tonumber(units))
    hold('', day_of(admitted_ms), tonumber(units))
  else
    strays[#strays + 1] = id
  end
end

local function books(id, record, usage)
  local of, by_day = held[id] or {count = 0, by_day = {}}, {}
  for day, units in pairs(of.by_day) do
    by_day[#by_day + 1], by_day[#by_day + 2] = day, units
  end
  return {id, redis.call('HGETALL', team .. record), redis.call('HGETALL', team .. usage),
    redis.call('HGETALL', team .. 'checkpoint:' .. id), of.count, by_day}
end

local keys = {}
if ARGV[2] == '' then keys[1] = books('', 'team', 'usage') end
local start = ARGV[2] == '' and '-' or '(' .. ARGV[2]
for _, id in ipairs(redis.call('ZRANGEBYLEX', team .. 'keys', start, '+', 'LIMIT', 0, ARGV[3])) do
  keys[#keys + 1] = books(id, 'key:' .. id, 'usage:' .. id)
end
return {ARGV[1], last and last[1] or trimmed, trimmed, strays, keys}
