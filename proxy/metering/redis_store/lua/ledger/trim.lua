-- Take the oldest entries out of a ledger, and add them to the checkpoint that the books are rebuilt from.
--
-- KEYS[1]  ledger of the team (stream)
-- KEYS[2]  checkpoint of the team (hash): how far the ledger has been trimmed
-- KEYS[3]  refunds of the team (hash)
-- KEYS[4]  what the team's own record counts of it (hash)
-- KEYS[5]… the same of each key (hash)
-- ARGV[1]  an id for the call, given back in the reply
-- ARGV[2]  age of what is kept, milliseconds
-- ARGV[3]  number of entries at the most
-- ARGV[4]… ids of the keys
--
-- Reply: {id, number of entries taken out, {key id, …}}: the keys of the entries, where one of them was not among ARGV;
-- nothing is taken out then
--
-- @include clock
-- @include calendar

local before = string.format('(%.0f', now_ms - ARGV[2])
local entries = redis.call('XRANGE', KEYS[1], '-', before, 'COUNT', ARGV[3])
if #entries == 0 then return {ARGV[1], 0, {}} end

-- Grants to the team have no key.
local checkpoints, owners, is_owner, is_known = {[''] = KEYS[4]}, {}, {}, true
for at = 4, #ARGV do checkpoints[ARGV[at]] = KEYS[at + 1] end

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
if not is_known then return {ARGV[1], 0, owners} end

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
return {ARGV[1], #entries, {}}
