-- Void an admission whose reply never came: release what it reserved and give its place in the rate limits back, or see to
-- it that it never reserves anything.
--
-- KEYS[1]  key record (hash)
-- KEYS[2]  reservation (string)
-- KEYS[3]  leases of the team (sorted set)
-- KEYS[4]  team record (hash)
-- KEYS[5]  usage of the key (hash)
-- KEYS[6]  usage of the team (hash)
-- KEYS[7]  ledger of the team (stream)
-- KEYS[8]  refunds of the team (hash)
-- ARGV[1]  reservation id
-- ARGV[2]  how long the id is remembered, milliseconds
-- ARGV[3]  may be left out: id of the end user that it is for, see limits.lua; then there are
--          KEYS[9]  what this user has used under the key (string)
--          KEYS[10] the same under the team (string)
--
-- Reply: {id, 'void'}, or {id, 'settled'} where it has been settled; {id, 'users', user} where it counts for an end user of that
-- name: ask again with ARGV[3]
--
-- @include calendar
-- @include counters
-- @include usage_part
-- @include rate
-- @include limits
-- @include late_clock
-- @include users
local id = ARGV[1]
local reservation = redis.call('GET', KEYS[2]) or ''
local state = string.match(reservation, '^%a+')
if state == 'settled' then return {id, 'settled'} end

-- What it took of a rate limit, by the limits as they are now.
local function taken_us(record, limit, amount)
  local per_minute = redis.call('HGET', record, limit)
  return per_minute and -amount * interval_of(per_minute) or 0
end

local function taken_by_user_us(record, amount)
  local limits = redis.call('HGET', record, 'limits')
  local _, _, per_minute = user_limits(limits, ARGV[3])
  return per_minute and per_minute ~= NONE and -amount * interval_of(per_minute) or 0
end

-- Its lease expired before, and by a setting that was charged: nothing was forwarded, so that is given back.
local expired, charged = string.match(reservation, '^expired (%S+) (%S+)')
local entry
if expired and charged ~= '0' and redis.call('HEXISTS', KEYS[8], expired) == 0 then
  local found = redis.call('XRANGE', KEYS[7], expired, expired)[1]
  if found then
    entry = {}
    for at = 1, #found[2], 2 do entry[found[2][at]] = found[2][at + 1] end
  end
end
local units, admitted_ms, facts = string.match(reservation, '^held (%d+) (%d+) (.+)$')
local about = (facts or entry) and cjson.decode(facts or entry.facts)

local of_users, now_ms = {}, math.floor(clock_us() / 1000)
if about and about.per_user then
  if not ARGV[3] then return {id, 'users', about.user or ''} end
  if about.per_user ~= 'team' then of_users[1] = 9 end
  if about.per_user ~= 'key' then of_users[#of_users + 1] = 10 end
end

local function correct()
  local day = day_of(about.admitted_ms)
  local heading = utc_day(day) .. ':units:' .. about.model
  check_usage(KEYS[5], heading)
  check_usage(KEYS[6], heading)
  local late = redis.call('XADD', KEYS[7], '*', 'kind', 'late', 'key', entry.key, 'request', id, 'outcome',
    'unreachable', 'images', '0', 'charged', '-' .. charged, 'overage', '0', 'corrects', expired, 'facts', entry.facts)
  redis.call('HSET', KEYS[8], expired, late .. ' corrected')
  for at = 1, 4, 3 do add_to(KEYS[at], counters_of(KEYS[at]), day, 0, -charged, 0, 0, 0) end
  for _, at in ipairs(of_users) do add_to_user(KEYS[at], now_ms, day, 0, -charged, 0) end
  redis.call('HINCRBY', KEYS[5], heading, '-' .. charged)
  redis.call('HINCRBY', KEYS[6], heading, '-' .. charged)
end

-- What cannot be added to is refused before the first write.
for at = 1, 4, 3 do counters_of(KEYS[at]) end
for _, at in ipairs(of_users) do used_by(KEYS[at], now_ms) end
redis.call('ZCARD', KEYS[3])

if entry then correct() end
redis.call('SET', KEYS[2], 'void 0 0', 'PX', ARGV[2])
if state == 'held' then
  local images = about.requested_images
  for at = 1, 4, 3 do
    add_to(KEYS[at], counters_of(KEYS[at]), day_of(admitted_ms), -units, 0, 0, 0, -1, taken_us(KEYS[at], 'requests_per_minute', 1),
      taken_us(KEYS[at], 'images_per_minute', images))
  end
  for _, at in ipairs(of_users) do
    add_to_user(KEYS[at], now_ms, day_of(admitted_ms), -units, 0, -1, taken_by_user_us(KEYS[at == 9 and 1 or 4], images))
  end
  redis.call('ZREM', KEYS[3], id)
end
return {id, 'void'}
