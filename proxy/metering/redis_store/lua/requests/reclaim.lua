-- Reclaim what expired leases hold, and write each to the ledger as expired; the longest ago first, a part of them a call.
-- The script declares each key that it touches, so it says what it needs to know: a call without reservations tells which
-- have expired, one without key ids and users tells whose they are, and one with all reclaims them.
--
-- KEYS[1]  leases of the team (sorted set: reservation id by the millisecond when it expires)
-- KEYS[2]  ledger of the team (stream)
-- KEYS[3]  team record (hash)
-- KEYS[4]  usage of the team (hash)
-- KEYS[5]… reservations (string); behind them, of each key the record (hash) and the usage (hash); behind them, what each end user
--          has used under the key and under the team (string)
-- ARGV[1]  an id for the call, given back in the reply
-- ARGV[2]  how long a reservation's end is remembered, milliseconds, for a settlement that comes late
-- ARGV[3]  number of reservations
-- ARGV[4]  number of keys
-- ARGV[5]… ids of the reservations; behind them the ids of the keys; behind them the end users, each a key's id, a blank and the
--          user's name
--
-- Reply: {id, number of leases reclaimed, now_us, {reservation id, …}, {key id, …}, {end user, …}}: those that have expired and are
-- yet to be reclaimed, at most 100; and the keys and users that the given reservations belong to, where one of them was not
-- among ARGV
--
-- A reservation whose facts say "expired": "charge" is charged whole, any other nothing.
--
-- @include clock
-- @include calendar
-- @include counters
-- @include usage_part
-- @include limits
-- @include users

local MOST = 100

local leases, remember_ms, given, given_keys = KEYS[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])

local first_key, first_user = 5 + given, 5 + given + given_keys
local record_at, user_at = {}, {}
for at = first_key, first_user - 1 do record_at[ARGV[at]] = first_key + 2 * (at - first_key) end
for at = first_user, #ARGV do user_at[ARGV[at]] = first_user + given_keys + 2 * (at - first_user) end

local held, owners, is_owner, people, is_known = {}, {}, {}, {}, true
for at = 1, given do
  local id = ARGV[4 + at]
  local expires_ms = redis.call('ZSCORE', leases, id)
  -- One that was settled or renewed since is left alone.
  if expires_ms and tonumber(expires_ms) <= now_ms then
    local one = {id = id, name = KEYS[4 + at]}
    one.units, one.admitted_ms, one.facts = string.match(redis.call('GET', one.name) or '', '^held (%d+) (%d+) (.+)$')
    if one.units then
      one.about, one.day = cjson.decode(one.facts), day_of(one.admitted_ms)
      one.heading = utc_day(one.day) .. ':units:' .. one.about.model
      local owner = one.about.key
      one.at = record_at[owner]
      is_known = is_known and one.at
      if not is_owner[owner] then owners[#owners + 1], is_owner[owner] = owner, true end
      local per_user = one.about.per_user
      if per_user then
        local who = owner .. ' ' .. (one.about.user or '')
        local user = user_at[who]
        is_known = is_known and user
        if not is_owner[who] then people[#people + 1], is_owner[who] = who, true end
        one.users = {per_user ~= 'team' and user or nil, per_user ~= 'key' and user and user + 1 or nil}
      end
    end
    held[#held + 1] = one
  end
end

local function rest() return redis.call('ZRANGEBYSCORE', leases, 0, now_ms, 'LIMIT', 0, MOST) end

if not is_known then return {ARGV[1], 0, now_us, rest(), owners, people} end

-- What cannot be added to is refused before the first write.
for _, one in ipairs(held) do
  if one.units then
    counters_of(KEYS[one.at])
    counters_of(KEYS[3])
    check_usage(KEYS[one.at + 1], one.heading)
    check_usage(KEYS[4], one.heading)
    for _, user in pairs(one.users or {}) do used_by(KEYS[user], now_ms) end
    redis.call('XLEN', KEYS[2])
  end
end

local count = 0
for _, one in ipairs(held) do
  if one.units then
    local about, units = one.about, one.units
    local charged = about.expired == 'charge' and units or '0'
    local facts = string.sub(one.facts, 1, -2) .. ',"reserved":' .. units .. ',"admitted_ms":' .. one.admitted_ms .. '}'
    local entry = redis.call('XADD', KEYS[2], '*', 'kind', 'request', 'key', about.key, 'request', one.id, 'outcome',
      'expired', 'images', '0', 'charged', charged, 'overage', '0', 'facts', facts)
    add_to(KEYS[one.at], counters_of(KEYS[one.at]), one.day, -units, charged + 0, 0, 0, -1)
    add_to(KEYS[3], counters_of(KEYS[3]), one.day, -units, charged + 0, 0, 0, -1)
    for _, user in pairs(one.users or {}) do add_to_user(KEYS[user], now_ms, one.day, -units, charged + 0, -1) end
    if charged ~= '0' then
      redis.call('HINCRBY', KEYS[one.at + 1], one.heading, charged)
      redis.call('HINCRBY', KEYS[4], one.heading, charged)
    end
    redis.call('SET', one.name, 'expired ' .. entry .. ' ' .. charged, 'PX', remember_ms)
    count = count + 1
  end
  redis.call('ZREM', leases, one.id)
end
return {ARGV[1], count, now_us, rest(), {}, {}}
