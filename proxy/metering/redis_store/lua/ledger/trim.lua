-- Take the oldest entries out of a ledger, and add them to the checkpoint that the books are rebuilt from. What has to be
-- shipped before stays until it is.
--
-- KEYS[1]  ledger of the team (stream)
-- KEYS[2]  checkpoint of the team (hash): how far the ledger has been trimmed, and shipped
-- KEYS[3]  refunds of the team (hash)
-- KEYS[4]  what the team's own record counts of it (hash)
-- KEYS[5]… the same of each key (hash)
-- ARGV[1]  an id for the call, given back in the reply
-- ARGV[2]  age of what is kept, milliseconds
-- ARGV[3]  number of entries at the most
-- ARGV[4]  number of shippers that must have shipped an entry before it is taken out
-- ARGV[5]… their names, and then ids of the keys
--
-- Reply: {id, number of entries taken out, {key id, …}, 1 where older entries stay because they have not been shipped,
-- else 0}: the keys of the entries, where one of them was not among ARGV; nothing is taken out then
--
-- @include clock
-- @include calendar

local shippers, oldest_ms = tonumber(ARGV[4]), now_ms - ARGV[2]
local before, shipped, shipped_ms, shipped_number = string.format('(%.0f', oldest_ms), nil, oldest_ms, 0
for at = 5, 4 + shippers do
  -- The one that is furthest behind.
  local place = redis.call('HGET', KEYS[2], 'shipped:' .. ARGV[at]) or '0-0'
  local ms, number = string.match(place, '^(%d+)-(%d+)$')
  ms, number = tonumber(ms), tonumber(number)
  if ms < shipped_ms or (shipped and ms == shipped_ms and number < shipped_number) then
    shipped, shipped_ms, shipped_number = place, ms, number
  end
end
local entries = redis.call('XRANGE', KEYS[1], '-', shipped or before, 'COUNT', ARGV[3])
local kept = shipped and #entries < tonumber(ARGV[3])
  and #redis.call('XRANGE', KEYS[1], '(' .. shipped, before, 'COUNT', 1) or 0
if #entries == 0 then return {ARGV[1], 0, {}, kept} end

-- Grants to the team have no key.
local checkpoints, owners, is_owner, is_known = {[''] = KEYS[4]}, {}, {}, true
for at = 5 + shippers, #ARGV do checkpoints[ARGV[at]] = KEYS[at - shippers] end

local function add(name, field, value)
  if value and value ~= '0' then redis.call('HINCRBY', name, field, value) end
end

-- A key of the wrong type is refused before the first write.
for at = 2, 4 do redis.call('HLEN', KEYS[at]) end
local parsed = {}
for at_entry, found in ipairs(entries) do
  local entry = {}
  for at = 1, #found[2], 2 do entry[found[2][at]] = found[2][at + 1] end
  local owner = entry.key
  if not is_owner[owner] then
    is_owner[owner] = true
    if owner ~= '' then owners[#owners + 1] = owner end
    local name = checkpoints[owner]
    if name then redis.call('HLEN', name) else is_known = false end
  end
  parsed[at_entry] = entry
end
if not is_known then return {ARGV[1], 0, owners, 0} end

for at_entry, found in ipairs(entries) do
  local entry = parsed[at_entry]
  if entry.kind == 'grant' then
    add(checkpoints[entry.key], 'granted', entry.quota_units)
  else
    local about = cjson.decode(entry.facts)
    local day = utc_day(day_of(about.admitted_ms))
    for _, whose in ipairs({entry.key, ''}) do
      local name = checkpoints[whose]
      add(name, 'posted', entry.charged)
      add(name, 'overage', entry.overage)
      add(name, 'images', entry.images)
      add(name, 'usage:' .. day .. ':units:' .. about.model, entry.charged)
      add(name, 'usage:' .. day .. ':images:' .. about.model, entry.images)
    end
  end
  redis.call('HDEL', KEYS[3], found[1])
end
local last = entries[#entries][1]
redis.call('HSET', KEYS[2], 'last', last)
redis.call('HINCRBY', KEYS[2], 'entries', #entries)
local ms, sequence = string.match(last, '^(%d+)-(%d+)$')
redis.call('XTRIM', KEYS[1], 'MINID', '=', string.format('%s-%.0f', ms, sequence + 1))
return {ARGV[1], #entries, {}, kept}
