-- Reclaim what expired leases hold, and write each to the ledger as expired; the longest ago first, a part of them a call.
-- The script declares each key that it touches, so it says what it needs to know: a call without reservations tells which
-- have expired, one without key ids tells whose they are, and one with both reclaims them.
--
-- KEYS[1]  leases of the team (sorted set: reservation id by the millisecond when it expires)
-- KEYS[2]  ledger of the team (stream)
-- KEYS[3]  team record (hash)
-- KEYS[4]  usage of the team (hash)
-- KEYS[5]… reservations (string); behind them, of each key the record (hash) and the usage (hash)
-- ARGV[1]  an id for the call, given back in the reply
-- ARGV[2]  how long a reservation's end is remembered, milliseconds, for a settlement that comes late
-- ARGV[3]  number of reservations
-- ARGV[4]… their ids; behind them the ids of the keys
--
-- Reply: {id, number of leases reclaimed, now_us, {reservation id, …}, {key id, …}}: those that have expired and are yet to be
-- reclaimed, at most 100; and the keys that the given reservations belong to, where one of them was not among ARGV
--
-- A reservation whose facts say "expired": "charge" is charged whole, any other nothing.
--
-- @include clock
-- @include calendar
-- @include counters
-- @include usage_part

local MOST = 100

local leases, remember_ms, given = KEYS[1], ARGV[2], tonumber(ARGV[3])

local record_at = {}
for at = 4 + given, #ARGV do record_at[ARGV[at]] = 5 + given + 2 * (at - 4 - given) end

local held, owners, is_owner, is_known = {}, {}, {}, true
for at = 1, given do
  local id = ARGV[3 + at]
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
    end
    held[#held + 1] = one
  end
end

local function rest() return redis.call('ZRANGEBYSCORE', leases, 0, now_ms, 'LIMIT', 0, MOST) end

if not is_known then return {ARGV[1], 0, now_us, rest(), owners} end

-- What cannot be added to is refused before the first write.
for _, one in ipairs(held) do
  if one.units then
    counters_of(KEYS[one.at])
    counters_of(KEYS[3])
    check_usage(KEYS[one.at + 1], one.heading)
    check_usage(KEYS[4], one.heading)
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
    if charged ~= '0' then
      redis.call('HINCRBY', KEYS[one.at + 1], one.heading, charged)
      redis.call('HINCRBY', KEYS[4], one.heading, charged)
    end
    redis.call('SET', one.name, 'expired ' .. entry .. ' ' .. charged, 'PX', remember_ms)
    count = count + 1
  end
  redis.call('ZREM', leases, one.id)
end
return {ARGV[1], count, now_us, rest(), {}}
