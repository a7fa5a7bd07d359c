-- Read the counters of some keys of a team, together with all that they should add up to, at one moment. Leases that have
-- run out are taken back first.
--
-- KEYS[1]  leases of the team (sorted set); the names of the team's other keys follow from its name
-- ARGV[1]  an id for the call, given back in the reply
-- ARGV[2]  key id to begin after, '' for the first
-- ARGV[3]  number of keys
-- ARGV[4]  how long the end of a reservation is remembered, milliseconds
--
-- Reply: {id, last ledger entry id or '0-0', id of the last entry that was trimmed or '0-0', {reservation id, …} of leases
-- that no reservation belongs to, {key, …}}, each key as {key id, record, usage, checkpoint, reservations, units held},
-- where the three in the middle are {field, value, …}
--
-- @include clock
-- @include utc_day
-- @include reclaim_part

reclaim(KEYS[1], ARGV[4])
local team = string.sub(KEYS[1], 1, -#'leases' - 1)
local trimmed = redis.call('HGET', team .. 'checkpoint', 'last') or '0-0'
local last = redis.call('XREVRANGE', team .. 'ledger', '+', '-', 'COUNT', 1)[1]

local held, units_held, strays = {}, {}, {}
for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  local units, facts = string.match(redis.call('GET', team .. 'reservation:' .. id) or '', '^held (%d+) %d+ (.+)$')
  if units then
    local key = cjson.decode(facts).key
    held[key] = (held[key] or 0) + 1
    units_held[key] = (units_held[key] or 0) + tonumber(units)
  else
    strays[#strays + 1] = id
  end
end

local start = ARGV[2] == '' and '-' or '(' .. ARGV[2]
local keys = {}
for _, key in ipairs(redis.call('ZRANGEBYLEX', team .. 'keys', start, '+', 'LIMIT', 0, ARGV[3])) do
  keys[#keys + 1] = {key, redis.call('HGETALL', team .. 'key:' .. key), redis.call('HGETALL', team .. 'usage:' .. key),
    redis.call('HGETALL', team .. 'checkpoint:' .. key), held[key] or 0, units_held[key] or 0}
end
return {ARGV[1], last and last[1] or trimmed, trimmed, strays, keys}
