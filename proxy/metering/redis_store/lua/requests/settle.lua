-- Turn a reservation into a charge and a ledger entry, once. It carries all the facts, so that it posts as well where the
-- reservation has been lost. Asked twice with the same reservation id, it gives the first answer and posts nothing more.
--
-- KEYS[1]  key record (hash)
-- KEYS[2]  reservation (string)
-- KEYS[3]  leases of the team (sorted set)
-- KEYS[4]  usage of the key (hash: DAY:units:MODEL and DAY:images:MODEL)
-- KEYS[5]  ledger of the team (stream)
-- KEYS[6]  team record (hash)
-- KEYS[7]  usage of the team (hash, as the key's)
-- KEYS[8]  refunds of the team (hash)
-- KEYS[9]  only with an Idempotency-Key: what became of the request of that name (string, see admit.lua)
-- ARGV[1]  reservation id
-- ARGV[2]  units charged
-- ARGV[3]  units charged beyond the reservation
-- ARGV[4]  images generated
-- ARGV[5]  model id
-- ARGV[6]  UTC day that the request was admitted in, YYYY-MM-DD
-- ARGV[7]  how long the settled id is remembered, milliseconds
-- ARGV[8]  key id
-- ARGV[9]  outcome
-- ARGV[10] the entry's other facts (JSON); Lua takes its time for each argument, so they come in one
-- ARGV[11] when the request was admitted, milliseconds since the epoch
-- ARGV[12] may be left out, or '': what a look into the ledger has found, 'new' for nothing, 'expired ENTRY CHARGED' for a
--          lease that ran out, of which the reservation is forgotten
-- ARGV[13] to ARGV[16], only with an Idempotency-Key: SHA-256 of the request; 'free', 'gone' or 'done'; the answer; how
--          long it is remembered, milliseconds; '' where there is none and ARGV[17] is given
-- ARGV[17] only where the request counts for an end user: 'key', 'team' or 'both'; the last two of KEYS are what this user has
--          used under the key and under the team (string) then, beside those above
--
-- Where the lease expired before, the entry is of the kind 'late', names the expired one as what it corrects, and charges
-- the difference to it. A charge that no reservation covers any more is overage: others may have reserved what it held.
--
-- Reply: {id, 'settled' | 'late' | 'lost', ledger entry id, units charged}, 'lost' where the store does not know of the
-- reservation; or {id, 'old'} where it may have been settled so long ago that this is forgotten: look into the ledger,
-- see find_entry.lua
--
-- @include calendar
-- @include counters
-- @include usage_part
local id, charged, overage, images, found = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[12] or ''

local reservation = redis.call('GET', KEYS[2])
local state, first, second = string.match(reservation or found, '^(%a+) (%S+) (%S+)')
if state == 'settled' then return {id, 'settled', first, tonumber(second)} end
if not state and found == '' and redis.call('TIME')[1] * 1000 - ARGV[11] >= tonumber(ARGV[7]) then return {id, 'old'} end

-- What cannot be added to is refused here, by reads in constant time: Lua takes nothing back that it has written.
local units_heading, images_heading = ARGV[6] .. ':units:' .. ARGV[5], ARGV[6] .. ':images:' .. ARGV[5]
local of_key, of_team = counters_of(KEYS[1]), counters_of(KEYS[6])
local used_by_key = check_usage(KEYS[4], units_heading, images_heading)
local used_by_team = check_usage(KEYS[7], units_heading, images_heading)
if state == 'held' then redis.call('ZCARD', KEYS[3]) end

local add_to_users
if ARGV[17] then
-- Here, for most requests have no use for it.
-- @include limits
-- @include late_clock
-- @include users
local of_users, now_ms = {}, math.floor(clock_us() / 1000)
local of_team_s_user, of_key_s_user = table.remove(KEYS), table.remove(KEYS)
if ARGV[17] ~= 'team' then of_users[1] = of_key_s_user end
if ARGV[17] ~= 'key' then of_users[#of_users + 1] = of_team_s_user end
for _, name in ipairs(of_users) do used_by(name, now_ms) end
add_to_users = function(...)
  for _, name in ipairs(of_users) do add_to_user(name, now_ms, ...) end
end
end
local running = KEYS[9] and redis.call('GET', KEYS[9])

-- The entry comes first: of all that follows only this can be refused, and nothing may be written before a refusal.
local entry
if state == 'expired' then
  -- Its charge may have been given back since.
  if second ~= '0' and redis.call('HEXISTS', KEYS[8], first) == 1 then second = '0' end
  charged = string.format('%.0f', charged - second)
  overage = string.format('%.0f', math.max(0, tonumber(charged)))
  entry = redis.call('XADD', KEYS[5], '*', 'kind', 'late', 'key', ARGV[8], 'request', id, 'outcome', ARGV[9],
    'images', images, 'charged', charged, 'overage', overage, 'corrects', first, 'facts', ARGV[10])
  if second ~= '0' then redis.call('HSET', KEYS[8], first, entry .. ' corrected') end
else
  local facts = ARGV[10]
  if state ~= 'held' then
    overage = charged
    facts = string.sub(facts, 1, -2) .. ',"reservation":"lost"}'
  end
  entry = redis.call('XADD', KEYS[5], '*', 'kind', 'request', 'key', ARGV[8], 'request', id, 'outcome', ARGV[9],
    'images', images, 'charged', charged, 'overage', overage, 'facts', facts)
end
local day, released, held = day_of(ARGV[11]), 0, 0
if state == 'held' then
  released, held = -first, -1
  redis.call('ZREM', KEYS[3], id)
end
local charged_units, overage_units, made = tonumber(charged), tonumber(overage), tonumber(images)
add_to(KEYS[1], of_key, day, released, charged_units, overage_units, made, held)
add_to(KEYS[6], of_team, day, released, charged_units, overage_units, made, held)
if add_to_users then add_to_users(day, released, charged_units, held) end

-- Both numbers at once take half of the time that they take by themselves.
local function use(usage, used)
  if made ~= 0 and charged_units ~= 0 then
    redis.call('HSET', usage, units_heading, (used[1] or 0) + charged_units, images_heading, (used[2] or 0) + made)
  elseif made ~= 0 then
    redis.call('HINCRBY', usage, images_heading, images)
  elseif charged_units ~= 0 then
    redis.call('HINCRBY', usage, units_heading, charged)
  end
end

use(KEYS[4], used_by_key)
use(KEYS[7], used_by_team)

if KEYS[9] then
  if not running or string.match(running, '^running %x+ (%S+)') == id then
    if ARGV[14] == 'free' then
      redis.call('DEL', KEYS[9])
    else
      redis.call('SET', KEYS[9], ARGV[14] .. ' ' .. ARGV[13] .. ' ' .. id .. ' ' .. ARGV[15], 'PX', ARGV[16])
    end
  end
end
redis.call('SET', KEYS[2], 'settled ' .. entry .. ' ' .. charged, 'PX', ARGV[7])
return {id, state == 'expired' and 'late' or state == 'held' and 'settled' or 'lost', entry, charged_units}
