-- Authenticate a key, check every limit of it and of its team, and reserve units for one request: all of it or nothing.
-- Asked twice with the same reservation id, it gives the first answer and reserves nothing more.
-- Where leases of the team have expired, it says so, and reclaim.lua should come; and where the request does not fit beside
-- what they hold, it first asks for that. A key that is not good costs no such work.
--
-- KEYS[1]  key record (hash)
-- KEYS[2]  reservation (string)
-- KEYS[3]  leases of the team (sorted set: reservation id by the millisecond when it expires)
-- KEYS[4]  team record (hash)
-- KEYS[5]  only with an Idempotency-Key: what became of the request of that name (string: STATE BODY RESERVATION ANSWER,
--          where STATE is running, done or gone)
-- KEYS[6]  may be left out: the reservation that stands there (string), see the reply 'seen'
-- ARGV[1]  reservation id
-- ARGV[2]  SHA-256 of the key's text, in hexadecimal
-- ARGV[3]  model id
-- ARGV[4]  units to reserve
-- ARGV[5]  images asked for
-- ARGV[6]  length of the lease, milliseconds
-- ARGV[7]  facts of the request (JSON), for the ledger entry of an expired lease
-- ARGV[8]  1 where expired leases should be reclaimed before a refusal, 0 where they just have been
-- ARGV[9]  how much of a rate limit may come at once, microseconds of it
-- ARGV[10] only with an Idempotency-Key: SHA-256 of the request
-- ARGV[11] only with an Idempotency-Key: how long it is remembered, milliseconds
-- ARGV[12] may be left out: the alias by which the client asks, or ''; who may use it may use the model
-- ARGV[13] may be left out, or '': other models that may make it instead, a line each: model id, blank, units they would reserve
-- ARGV[14] may be left out: id of the end user that it is for, see limits.lua; where it is given, the last two of KEYS are what
--          this user has used under the key and under the team (string), beside those above
--
-- Reply, always led by the reservation id, and ended by 1 where leases of the team have expired, or else 0:
--   {id, 'admitted', admitted_ms, remaining units or false, rates, expired}, and with ARGV[13]
--   {id, 'admitted', admitted_ms, remaining units or false, rates, units reserved, {model id, …}, expired}: of the others,
--      those that the key may use, and has the quota for; and before expired, with ARGV[14], which of the two limit each
--      user: 'key', 'team', 'both' or ''
--   {id, 'users', expired} where the key or its team limits each user: ask again with ARGV[14]; nothing is reserved
--   {id, 'unknown' | 'revoked' | 'expired', 0}
--   {id, 'model_not_allowed', 'key' | 'team', expired}
--   {id, 'answered', answer, expired}, {id, 'in_progress' | 'answer_gone' | 'mismatch', expired} for a name seen before
--   {id, 'seen', reservation id, expired} for a name seen before: ask again with that reservation as KEYS[6]
--   {id, 'insufficient_quota', whose, name of the limit, limit, posted, reserved, day of the window, expired}
--   {id, 'rate_limited', whose, 'requests' | 'images' | 'concurrency', limit, wait_us, rates, expired}, where
--      wait_us is -1 if no waiting helps: more images at once than the rate limit ever allows
--      whose is 'key', 'team', 'key_user' or 'team_user'
--   {id, 'void', expired} where void.lua came first, or where the lease has expired since
--   {id, 'again', 1} where expired leases should be reclaimed first; nothing is reserved
-- rates are {'requests' | 'images', limit, remaining, reset_us, …}: the tighter one of the key's and the team's
--
-- @include clock
-- @include calendar
-- @include counters
-- @include limits
-- @include rate
-- @include authenticate

local user, of_team_s_user, of_key_s_user = ARGV[14], nil, nil
if user then of_team_s_user, of_key_s_user = table.remove(KEYS), table.remove(KEYS) end
local more_models = (ARGV[13] or '') ~= '' and ARGV[13]

local id, units, images, burst_us = ARGV[1], tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[9])

local function limit(value) return value ~= NONE and value end

local function read(scope, name, models, limits, counters)
  local total, per_day, per_month, requests, images_limit, concurrent = struct.unpack(LIMITS, limits or NO_LIMITS)
  local reserved, posted, overage, made, held, day, day_reserved, day_posted, month, month_reserved, month_posted,
    requests_due_us, images_due_us = struct.unpack(COUNTERS, counters or NOTHING_COUNTED)
  return {
    scope = scope, name = name, models = models,
    quota_units = limit(total), quota_units_per_day = limit(per_day), quota_units_per_month = limit(per_month),
    requests_per_minute = limit(requests), images_per_minute = limit(images_limit),
    concurrent_requests = limit(concurrent),
    reserved = reserved, posted = posted, overage = overage, images = made, held = held,
    day = day, day_reserved = day_reserved, day_posted = day_posted,
    month = month, month_reserved = month_reserved, month_posted = month_posted,
    requests_due_us = requests_due_us, images_due_us = images_due_us,
  }
end

local function holds(models, model)
  if not models or models == '*' then return true end
  for pattern in string.gmatch(models, '[^\n]+') do
    if pattern == '*' or pattern == model then return true end
    if string.sub(pattern, -2) == '/*' and string.sub(model, 1, #pattern - 1) == string.sub(pattern, 1, -2) then
      return true
    end
  end
  return false
end

local function may_use(models)
  return holds(models, ARGV[3]) or ((ARGV[12] or '') ~= '' and holds(models, ARGV[12]))
end

local before = redis.call('GET', KEYS[2])
local state, units_held, then_ms = string.match(before or '', '^(%a+) (%S+) (%S+)')
if state == 'held' then units = tonumber(units_held) end
local of_key = redis.call('HMGET', KEYS[1], 'secret_sha256', 'revoked_ms', 'expires_ms', 'previous_sha256',
  'previous_until_ms', 'models', 'limits', 'counters')
local of_team = redis.call('HMGET', KEYS[4], 'revoked_ms', 'models', 'limits', 'counters')

-- This very call made before: the first answer stands, whatever has become of the key since.
local verdict = before and 'ok' or authenticate(ARGV[2], of_key, of_team[1])
if verdict ~= 'ok' then return {id, verdict, 0} end
local expired = #redis.call('ZRANGEBYSCORE', KEYS[3], 0, now_ms, 'LIMIT', 0, 1)
-- What they hold may be what is wanted; other models take whatever room there is.
local should_reclaim = expired == 1 and ARGV[8] == '1'
if should_reclaim and (before or more_models) then return {id, 'again', 1} end
if state == 'void' or state == 'expired' then return {id, 'void', expired} end
local key = read('key', KEYS[1], of_key[6], of_key[7], of_key[8])
local team = read('team', KEYS[4], of_team[2], of_team[3], of_team[4])
if not before and not may_use(key.models) then return {id, 'model_not_allowed', 'key', expired} end
if not before and not may_use(team.models) then return {id, 'model_not_allowed', 'team', expired} end

local is_per_key, is_per_team = #(of_key[7] or NO_LIMITS) > LIMITS_BYTES, #(of_team[3] or NO_LIMITS) > LIMITS_BYTES
if (is_per_key or is_per_team) and not user then return {id, 'users', expired} end
-- What was reserved before counts where it did then.
local counts_for = state == 'held' and string.match(before, ',"per_user":"(%a+)"}$')
if not before then
  counts_for = is_per_key and (is_per_team and 'both' or 'key') or is_per_team and 'team'
end

-- --- The same request sent before ------------------------------------------------------------------------------------

local function seen_before()
  local seen = redis.call('GET', KEYS[5])
  if not seen then return nil end
  local state, body, reservation, answer = string.match(seen, '^(%a+) (%x+) (%S+) (.*)$')
  if reservation == id then return nil end
  if body ~= ARGV[10] then return {id, 'mismatch', expired} end
  if state == 'done' then return {id, 'answered', answer, expired} end
  if state == 'gone' then return {id, 'answer_gone', expired} end
  if not KEYS[6] or string.sub(KEYS[6], -#reservation - 1) ~= ':' .. reservation then
    return {id, 'seen', reservation, expired}
  end
  -- An expired lease is not in progress.
  if should_reclaim then return {id, 'again', 1} end
  local held = redis.call('GET', KEYS[6])
  local is = held and string.match(held, '^%a+')
  if is == 'void' then return nil end
  return {id, is == 'held' and 'in_progress' or 'answer_gone', expired}
end

local seen = KEYS[5] and not before and seen_before()
if seen then return seen end

-- --- Windows ---------------------------------------------------------------------------------------------------------

-- After a fail-over the clock may be a little behind: no request goes back into a window that has passed. A record that is
-- days ahead was written by a clock that was wrong.
local admitted_ms = now_ms
local began_ms = math.max(key.day, team.day) * DAY_MS
if began_ms > now_ms and began_ms - now_ms < DAY_MS then admitted_ms = began_ms end
local today = day_of(admitted_ms)

local function turn(record)
  if record.day == today then return end
  local first = first_of_month(today)
  record.day, record.day_posted, record.day_reserved = today, 0, 0
  if record.month ~= first then record.month, record.month_posted, record.month_reserved = first, 0, 0 end
end

turn(key)
turn(team)

-- --- End users -------------------------------------------------------------------------------------------------------

local users, reserve_for

if user then
-- Here, for most requests have no use for it.
-- @include users

-- What `user` may use under a key or a team, and has used.
local function read_user(scope, name, limits)
  local per_day, per_month, images_limit, concurrent = user_limits(limits, user)
  local day, day_reserved, day_posted, month, month_reserved, month_posted, held, images_due_us, since, until_ms =
    used_by(name, now_ms)
  local one = {
    scope = scope, name = name,
    quota_units_per_day = limit(per_day), quota_units_per_month = limit(per_month),
    images_per_minute = limit(images_limit), concurrent_requests = limit(concurrent),
    day = day or today, day_reserved = day_reserved or 0, day_posted = day_posted or 0,
    month = month or first_of_month(today), month_reserved = month_reserved or 0, month_posted = month_posted or 0,
    held = held or 0, images_due_us = images_due_us or 0, since = math.min(since or today, today), until_ms = until_ms or 0,
  }
  turn(one)
  users[#users + 1] = one
end

users = {}
if is_per_key then read_user('key_user', of_key_s_user, of_key[7]) end
if is_per_team then read_user('team_user', of_team_s_user, of_team[3]) end

reserve_for = function(record)
  local ends_ms = record.quota_units_per_month and end_of_month_ms(today) or (today + 1) * DAY_MS
  keep_user(record.name, now_ms, record.day, record.day_reserved + units, record.day_posted, record.month,
    record.month_reserved + units, record.month_posted, record.held + 1, record.images_next_us or record.images_due_us,
    record.since, math.max(record.until_ms, ends_ms, math.ceil((record.images_next_us or 0) / 1000)))
end
end

-- --- Other models: the dearest that the key may use and has the quota for is reserved ---------------------------------------

local function room()
  local least
  for _, record in ipairs({key, team, unpack(users or {})}) do
    for _, left in ipairs({
      record.quota_units and record.quota_units - record.posted - record.reserved or false,
      record.quota_units_per_day and record.quota_units_per_day - record.day_posted - record.day_reserved or false,
      record.quota_units_per_month and record.quota_units_per_month - record.month_posted - record.month_reserved or false,
    }) do
      if left and (not least or left < least) then least = left end
    end
  end
  return least
end

local others = more_models and {}
if others then
  -- What was reserved before is what there is room for.
  local most = before and units or room()
  for model, its_units in string.gmatch(more_models, '(%S+) (%d+)') do
    its_units = tonumber(its_units)
    if (not most or its_units <= most) and holds(key.models, model) and holds(team.models, model) then
      others[#others + 1], units = model, math.max(units, its_units)
    end
  end
end

-- --- Quota: the first limit that the units do not fit into refuses -----------------------------------------------------

local remaining = false

local function over(record, name, posted, reserved, window)
  local limit = record[name]
  if not limit then return nil end
  local left = limit - posted - reserved
  if not remaining or left < remaining then remaining = left end
  if units <= left then return nil end
  return {id, 'insufficient_quota', record.scope, name, limit, posted, reserved, window, expired}
end

local function over_any(record)
  return over(record, 'quota_units', record.posted, record.reserved, -1)
    or over(record, 'quota_units_per_day', record.day_posted, record.day_reserved, record.day)
    or over(record, 'quota_units_per_month', record.month_posted, record.month_reserved, record.month)
end

local refusal = over_any(key) or over_any(team)
if users then
  for _, record in ipairs(users) do refusal = refusal or over_any(record) end
end

-- --- Rate limits: of those that refuse, the one that takes longest to pass is reported ------------------------------------------

local rates, longest = {}, nil

local function refuse(record, kind, limit, wait_us)
  if not longest or wait_us == -1 or (longest.wait_us ~= -1 and wait_us > longest.wait_us) then
    longest = {scope = record.scope, kind = kind, limit = limit, wait_us = wait_us}
  end
end

local function keep_rate(record, kind, limit, due_us, amount)
  if not limit then return end
  local interval = interval_of(limit)
  local most = math.max(burst_us, interval)
  local due = math.max(due_us, now_us)
  local after = due + amount * interval
  rates[#rates + 1] = {kind = kind, limit = limit, interval = interval, most = most, due = due, after = after}
  if amount * interval > most then
    refuse(record, kind, limit, -1)
  elseif after - most > now_us then
    refuse(record, kind, limit, after - most - now_us)
  end
  return after
end

local function keep_all(record)
  record.requests_next_us = keep_rate(record, 'requests', record.requests_per_minute, record.requests_due_us, 1)
  record.images_next_us = keep_rate(record, 'images', record.images_per_minute, record.images_due_us, images)
  -- When one of them ends, nobody knows.
  if record.concurrent_requests and record.held >= record.concurrent_requests then
    refuse(record, 'concurrency', record.concurrent_requests, 1000000)
  end
end

keep_all(key)
keep_all(team)
if users then
  for _, record in ipairs(users) do keep_all(record) end
end

local function report_rates(which)
  local tightest, found = {}, {}
  for _, rate in ipairs(rates) do
    local reset = rate[which] - now_us
    local left = math.max(0, math.floor((rate.most - reset) / rate.interval))
    local other = tightest[rate.kind]
    if not other then
      other = #found
      tightest[rate.kind] = other
    elseif left >= found[other + 3] then
      other = nil
    end
    if other then
      found[other + 1], found[other + 2], found[other + 3], found[other + 4] = rate.kind, rate.limit, left, reset
    end
  end
  return found
end

-- --- At last the reservation -----------------------------------------------------------------------------------------

local function admitted(at_ms, left, which)
  if not (others or user) then return {id, 'admitted', at_ms, left, report_rates(which), expired} end
  local reply = {id, 'admitted', at_ms, left, report_rates(which)}
  if others then reply[6], reply[7] = units, others end
  if user then reply[#reply + 1] = counts_for or '' end
  reply[#reply + 1] = expired
  return reply
end

if before then return admitted(state == 'held' and tonumber(then_ms) or now_ms, remaining, 'due') end
if refusal then return should_reclaim and {id, 'again', 1} or refusal end
if longest then
  if should_reclaim and longest.kind == 'concurrency' then return {id, 'again', 1} end
  return {id, 'rate_limited', longest.scope, longest.kind, longest.limit, longest.wait_us, report_rates('due'), expired}
end

local function reserve(record)
  redis.call('HSET', record.name, 'counters', struct.pack(COUNTERS, record.reserved + units, record.posted,
    record.overage, record.images, record.held + 1, record.day, record.day_reserved + units, record.day_posted,
    record.month, record.month_reserved + units, record.month_posted, record.requests_next_us or record.requests_due_us,
    record.images_next_us or record.images_due_us))
end

-- Whoever ends it has to know which of the user's counters it stands in.
local facts = counts_for and string.sub(ARGV[7], 1, -2) .. ',"per_user":"' .. counts_for .. '"}' or ARGV[7]
redis.call('SET', KEYS[2], string.format('held %s %d %s', others and string.format('%.0f', units) or ARGV[4], admitted_ms, facts))
redis.call('ZADD', KEYS[3], now_ms + ARGV[6], id)
if KEYS[5] then redis.call('SET', KEYS[5], 'running ' .. ARGV[10] .. ' ' .. id .. ' ', 'PX', ARGV[11]) end
reserve(key)
reserve(team)
if users then
  for _, record in ipairs(users) do reserve_for(record) end
end
return admitted(admitted_ms, remaining and remaining - units, 'after')
