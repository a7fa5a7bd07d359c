-- Take the oldest entries out of a ledger, and add them to the checkpoint that the books are rebuilt from.
--
-- KEYS[1]  ledger of the team (stream); the names of the team's other keys follow from its name
-- KEYS[2]  checkpoint of the team (hash); that of each key has the key's id behind it, and what the team's own record
--          counts has nothing there
-- KEYS[3]  refunds of the team (hash)
-- ARGV[1]  an id for the call, given back in the reply
-- ARGV[2]  age of what is kept, milliseconds
-- ARGV[3]  number of entries at the most
--
-- Reply: {id, number of entries taken out}
--
-- @include clock
-- @include calendar

local before = string.format('(%.0f', now_ms - ARGV[2])
local entries = redis.call('XRANGE', KEYS[1], '-', before, 'COUNT', ARGV[3])
if #entries == 0 then return {ARGV[1], 0} end

local function add(name, field, value)
  if value and value ~= '0' then redis.call('HINCRBY', name, field, value) end
end

-- A key of the wrong type is refused before the first write.
redis.call('HLEN', KEYS[2])
redis.call('HLEN', KEYS[2] .. ':')
redis.call('HLEN', KEYS[3])
local parsed = {}
for at_entry, found in ipairs(entries) do
  local entry = {}
  for at = 1, #found[2], 2 do entry[found[2][at]] = found[2][at + 1] end
  redis.call('HLEN', KEYS[2] .. ':' .. entry.key)
  parsed[at_entry] = entry
end

for at_entry, found in ipairs(entries) do
  local entry = parsed[at_entry]
  if entry.kind == 'grant' then
    -- One of the team has no key.
    add(KEYS[2] .. ':' .. entry.key, 'granted', entry.quota_units)
  else
    local about = cjson.decode(entry.facts)
    local day = utc_day(day_of(about.admitted_ms))
    for _, whose in ipairs({entry.key, ''}) do
      local name = KEYS[2] .. ':' .. whose
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
return {ARGV[1], #entries}
