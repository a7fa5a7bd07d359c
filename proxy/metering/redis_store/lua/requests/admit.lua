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
-- ARGV[4]  facts of the request (JSON), for the ledger entry of an expired lease
-- ARGV[5]  five integers of eight bytes: units to reserve, images asked for, length of the lease in milliseconds, 1 where expired
--          leases should be reclaimed before a refusal and 0 where they just have been, how much of a rate limit may come at
--          once in microseconds of it
-- ARGV[6]  only with an Idempotency-Key: SHA-256 of the request
-- ARGV[7]  only with an Idempotency-Key: how long it is remembered, milliseconds
-- ARGV[8]  may be left out: the alias by which the client asks, or ''; who may use it may use the model
-- ARGV[9]  may be left out, or '': other models that may make it instead, a line each: model id, blank, units they would reserve
-- ARGV[10] may be left out: id of the end user that it is for, see limits.lua; where it is given, the last two of KEYS are what
--          this user has used under the key and under the team (string), beside those above
--
-- Reply, always led by the reservation id, and ended by 1 where leases of the team have expired, or else 0:
--   {id, 'admitted', admitted_ms, remaining units or false, rates, expired}, and with ARGV[9]
--   {id, 'admitted', admitted_ms, remaining units or false, rates, units reserved, {model id, …}, expired}: of the others,
--      those that the key may use, and has the quota for; and before expired, with ARGV[10], which of the two limit each
--      user: 'key', 'team', 'both' or ''
--   {id, 'users', expired} where the key or its team limits each user: ask again with ARGV[10]; nothing is reserved
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
-- rates are six integers of eight bytes: limit, remaining and reset_us of requests, and the same of images, of the tighter one of
-- the key's and the team's; zeros where there is no limit, and an empty string where there is none of both
--
-- @include clock
-- @include calendar
-- @include counters
-- @include limits
-- @include rate
-- @include authenticate

local user, of_team_s_user, of_key_s_user = ARGV[10], nil, nil
if user then of_team_s_user, of_key_s_user = table.remove(KEYS), table.remove(KEYS) end
local more_models = (ARGV[9] or '') ~= '' and ARGV[9]

local id = ARGV[1]
local units, images, lease_ms, may_reclaim, burst_us = struct.unpack('>i8i8i8i8i8', ARGV[5])

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

local before = redis.call('GET', KEYS[2])
local state, units_held, then_ms
if before then
  state, units_held, then_ms = string.match(before, '^(%a+) (%S+) (%S+)')
  if state == 'held' then units = tonumber(units_held) end
end
local of_key = redis.call('HMGET', KEYS[1], 'secret_sha256', 'revoked_ms', 'expires_ms', 'models', 'limits', 'counters')
local of_team = redis.call('HMGET', KEYS[4], 'revoked_ms', 'models', 'limits', 'counters')

-- This very call made before: the first answer stands, whatever has become of the key since.
if not before then
  local verdict = authenticate(ARGV[2], KEYS[1], of_key[1], of_key[2] or of_team[1], of_key[3])
  if verdict ~= 'ok' then return {id, verdict, 0} end
end
local expired = math.min(1, redis.call('ZCOUNT', KEYS[3], '0', string.format('%d', now_ms)))
-- What they hold may be what is wanted; other models take whatever room there is.
local should_reclaim = expired == 1 and may_reclaim == 1
if should_reclaim and (before or more_models) then return {id, 'again', 1} end
if state == 'void' or state == 'expired' then return {id, 'void', expired} end
local key_models, key_limits, key_counters = of_key[4], of_key[5], of_key[6] or string.rep('\0', COUNTERS_BYTES)
local team_models, team_limits, team_counters = of_team[2], of_team[3], of_team[4] or string.rep('\0', COUNTERS_BYTES)
local model, alias = ARGV[3], (ARGV[8] or '') ~= '' and ARGV[8]
if not (before or holds(key_models, model) or alias and holds(key_models, alias)) then
  return {id, 'model_not_allowed', 'key', expired}
end
if not (before or holds(team_models, model) or alias and holds(team_models, alias)) then
  return {id, 'model_not_allowed', 'team', expired}
end

local is_per_key, is_per_team = #(key_limits or '') > LIMITS_BYTES, #(team_limits or '') > LIMITS_BYTES
if (is_per_key or is_per_team) and not user then return {id, 'users', expired} end
-- What was reserved before counts where it did then.
local counts_for
if before then
  counts_for = state == 'held' and string.match(before, ',"per_user":"(%a+)"}$')
elseif is_per_key or is_per_team then
  counts_for = is_per_key and (is_per_team and 'both' or 'key') or 'team'
end

-- --- The same request sent before ------------------------------------------------------------------------------------

local seen = KEYS[5] and not before and redis.call('GET', KEYS[5])
if seen then
  local is, body, reservation, answer = string.match(seen, '^(%a+) (%x+) (%S+) (.*)$')
  if reservation ~= id then
    if body ~= ARGV[6] then return {id, 'mismatch', expired} end
    if is == 'done' then return {id, 'answered', answer, expired} end
    if is == 'gone' then return {id, 'answer_gone', expired} end
    if not KEYS[6] or string.sub(KEYS[6], -#reservation - 1) ~= ':' .. reservation then
      return {id, 'seen', reservation, expired}
    end
    -- An expired lease is not in progress.
    if should_reclaim then return {id, 'again', 1} end
    local held = redis.call('GET', KEYS[6])
    is = held and string.match(held, '^%a+')
    if is ~= 'void' then return {id, is == 'held' and 'in_progress' or 'answer_gone', expired} end
  end
end

-- --- Windows ---------------------------------------------------------------------------------------------------------

-- After a fail-over the clock may be a little behind: no request goes back into a window that has passed. A record that is
-- days ahead was written by a clock that was wrong.
local admitted_ms = now_ms
local day_of_key, day_of_team = struct.unpack('>i8', key_counters, DAY_AT), struct.unpack('>i8', team_counters, DAY_AT)
local began_ms = math.max(day_of_key, day_of_team) * DAY_MS
if began_ms > now_ms and began_ms - now_ms < DAY_MS then admitted_ms = began_ms end
local today = day_of(admitted_ms)

-- What of the last day and month with an admission counts today, where that day is another.
local function turn(month, month_reserved, month_posted)
  local first = first_of_month(today)
  if month == first then return 0, 0, month, month_reserved, month_posted end
  return 0, 0, first, 0, 0
end

local function read_limits(limits)
  if not limits then return NONE, NONE, NONE, NONE, NONE, NONE end
  return struct.unpack(LIMITS, limits)
end

-- --- Limits ----------------------------------------------------------------------------------------------------------

local refusal, remaining, longest = nil, false, nil

-- Of each kind, limit, remaining and reset_us of the tightest rate limit as it stands, and as it does after the request.
local tightest = {requests = false, images = false}

-- Of quotas, the first one that the units do not fit into refuses.
local function keep_quota(scope, name, limit, posted, reserved, window)
  local left = limit - posted - reserved
  if not remaining or left < remaining then remaining = left end
  if units > left and not refusal then
    refusal = {id, 'insufficient_quota', scope, name, limit, posted, reserved, window, expired}
  end
end

-- Of rate limits that refuse, the one that takes longest to pass is reported.
local function refuse(scope, kind, limit, wait_us)
  if not longest or wait_us == -1 or (longest.wait_us ~= -1 and wait_us > longest.wait_us) then
    longest = {scope = scope, kind = kind, limit = limit, wait_us = wait_us}
  end
end

local function keep_rate(scope, kind, limit, due_us, amount)
  local interval = interval_of(limit)
  local most = burst_us > interval and burst_us or interval
  local due = due_us > now_us and due_us or now_us
  local after = due + amount * interval
  local reset, reset_after = due - now_us, after - now_us
  local left, left_after = math.floor((most - reset) / interval), math.floor((most - reset_after) / interval)
  if left < 0 then left = 0 end
  if left_after < 0 then left_after = 0 end
  local rate = tightest[kind]
  if not rate then
    tightest[kind] = {limit, left, reset, limit, left_after, reset_after}
  else
    if left < rate[2] then rate[1], rate[2], rate[3] = limit, left, reset end
    if left_after < rate[5] then rate[4], rate[5], rate[6] = limit, left_after, reset_after end
  end
  if amount * interval > most then
    refuse(scope, kind, limit, -1)
  elseif after - most > now_us then
    refuse(scope, kind, limit, after - most - now_us)
  end
  return after
end

-- What the record counts once the request is admitted.
local function keep_limits(scope, limits, counters)
  local total, per_day, per_month, requests, images_limit, concurrent = read_limits(limits)
  local reserved, posted, overage, made, held, day, day_reserved, day_posted, month, month_reserved, month_posted,
    requests_due_us, images_due_us = struct.unpack(COUNTERS, counters)
  if day ~= today then
    day_reserved, day_posted, month, month_reserved, month_posted = turn(month, month_reserved, month_posted)
  end
  if total ~= NONE then keep_quota(scope, 'quota_units', total, posted, reserved, -1) end
  if per_day ~= NONE then keep_quota(scope, 'quota_units_per_day', per_day, day_posted, day_reserved, today) end
  if per_month ~= NONE then keep_quota(scope, 'quota_units_per_month', per_month, month_posted, month_reserved, month) end
  if requests ~= NONE then requests_due_us = keep_rate(scope, 'requests', requests, requests_due_us, 1) end
  if images_limit ~= NONE then images_due_us = keep_rate(scope, 'images', images_limit, images_due_us, images) end
  -- When one of them ends, nobody knows.
  if concurrent ~= NONE and held >= concurrent then refuse(scope, 'concurrency', concurrent, 1000000) end
  return struct.pack(COUNTERS, reserved + units, posted, overage, made, held + 1, today, day_reserved + units, day_posted,
    month, month_reserved + units, month_posted, requests_due_us, images_due_us)
end

-- --- End users -------------------------------------------------------------------------------------------------------

local users, keep_limits_of, reserve_for

if user then
-- Here, for most requests have no use for it.
-- @include users

-- What `user` may use under a key or a team, and has used.
local function read_user(scope, name, limits)
  local per_day, per_month, images_limit, concurrent = user_limits(limits, user)
  local day, day_reserved, day_posted, month, month_reserved, month_posted, held, images_due_us, since, until_ms =
    used_by(name, now_ms)
  if day ~= today then
    day_reserved, day_posted, month, month_reserved, month_posted = turn(month, month_reserved, month_posted)
  end
  users[#users + 1] = {
    scope = scope, name = name, per_day = per_day, per_month = per_month, images_limit = images_limit,
    concurrent = concurrent, day_reserved = day_reserved, day_posted = day_posted, month = month,
    month_reserved = month_reserved, month_posted = month_posted, held = held or 0, images_due_us = images_due_us or 0,
    since = math.min(since or today, today), until_ms = until_ms or 0,
  }
end

users = {}
if is_per_key then read_user('key_user', of_key_s_user, key_limits) end
if is_per_team then read_user('team_user', of_team_s_user, team_limits) end

keep_limits_of = function(one)
  if one.per_day ~= NONE then
    keep_quota(one.scope, 'quota_units_per_day', one.per_day, one.day_posted, one.day_reserved, today)
  end
  if one.per_month ~= NONE then
    keep_quota(one.scope, 'quota_units_per_month', one.per_month, one.month_posted, one.month_reserved, one.month)
  end
  if one.images_limit ~= NONE then
    one.images_due_us = keep_rate(one.scope, 'images', one.images_limit, one.images_due_us, images)
    one.until_ms = math.max(one.until_ms, math.ceil(one.images_due_us / 1000))
  end
  if one.concurrent ~= NONE and one.held >= one.concurrent then
    refuse(one.scope, 'concurrency', one.concurrent, 1000000)
  end
end

reserve_for = function(one)
  local ends_ms = one.per_month ~= NONE and end_of_month_ms(today) or (today + 1) * DAY_MS
  keep_user(one.name, now_ms, today, one.day_reserved + units, one.day_posted, one.month, one.month_reserved + units,
    one.month_posted, one.held + 1, one.images_due_us, one.since, math.max(one.until_ms, ends_ms))
end
end

-- --- Other models: the dearest that the key may use and has the quota for is reserved ---------------------------------------

local others
if more_models then
  local most = units
  -- What was reserved before is what there is room for.
  if not before then
    most = math.huge
    local function leave_room(limit, posted, reserved)
      if limit ~= NONE then most = math.min(most, limit - posted - reserved) end
    end
    for _, record in ipairs({{key_limits, key_counters}, {team_limits, team_counters}}) do
      local total, per_day, per_month = read_limits(record[1])
      local reserved, posted, _, _, _, day, day_reserved, day_posted, month, month_reserved, month_posted =
        struct.unpack(COUNTERS, record[2])
      if day ~= today then
        day_reserved, day_posted, month, month_reserved, month_posted = turn(month, month_reserved, month_posted)
      end
      leave_room(total, posted, reserved)
      leave_room(per_day, day_posted, day_reserved)
      leave_room(per_month, month_posted, month_reserved)
    end
    for _, one in ipairs(users or {}) do
      leave_room(one.per_day, one.day_posted, one.day_reserved)
      leave_room(one.per_month, one.month_posted, one.month_reserved)
    end
  end
  others = {}
  for other, its_units in string.gmatch(more_models, '(%S+) (%d+)') do
    its_units = tonumber(its_units)
    if its_units <= most and holds(key_models, other) and holds(team_models, other) then
      others[#others + 1], units = other, math.max(units, its_units)
    end
  end
end

-- --- All of them, at last with what is to be reserved ---------------------------------------------------------------

key_counters = keep_limits('key', key_limits, key_counters)
team_counters = keep_limits('team', team_limits, team_counters)
if users then
  for _, one in ipairs(users) do keep_limits_of(one) end
end

local function report_rates(is_admitted)
  local requests, images = tightest.requests, tightest.images
  if not (requests or images) then return '' end
  if not (requests and images) then
    local none = {0, 0, 0, 0, 0, 0}
    requests, images = requests or none, images or none
  end
  local at = is_admitted and 4 or 1
  return struct.pack('>i8i8i8i8i8i8', requests[at], requests[at + 1], requests[at + 2], images[at], images[at + 1],
    images[at + 2])
end

-- --- At last the reservation -----------------------------------------------------------------------------------------

local function admitted(at_ms, left, is_new)
  if not (others or user) then return {id, 'admitted', at_ms, left, report_rates(is_new), expired} end
  local reply = {id, 'admitted', at_ms, left, report_rates(is_new)}
  if others then reply[6], reply[7] = units, others end
  if user then reply[#reply + 1] = counts_for or '' end
  reply[#reply + 1] = expired
  return reply
end

if before then return admitted(state == 'held' and tonumber(then_ms) or now_ms, remaining, false) end
if refusal then return should_reclaim and {id, 'again', 1} or refusal end
if longest then
  if should_reclaim and longest.kind == 'concurrency' then return {id, 'again', 1} end
  return {id, 'rate_limited', longest.scope, longest.kind, longest.limit, longest.wait_us, report_rates(false), expired}
end

-- Whoever ends it has to know which of the user's counters it stands in.
local facts = counts_for and string.sub(ARGV[4], 1, -2) .. ',"per_user":"' .. counts_for .. '"}' or ARGV[4]
redis.call('SET', KEYS[2], string.format('held %d %d %s', units, admitted_ms, facts))
redis.call('ZADD', KEYS[3], string.format('%d', now_ms + lease_ms), id)
if KEYS[5] then redis.call('SET', KEYS[5], 'running ' .. ARGV[6] .. ' ' .. id .. ' ', 'PX', ARGV[7]) end
redis.call('HSET', KEYS[1], 'counters', key_counters)
redis.call('HSET', KEYS[4], 'counters', team_counters)
if users then
  for _, one in ipairs(users) do reserve_for(one) end
end
return admitted(admitted_ms, remaining and remaining - units, true)
