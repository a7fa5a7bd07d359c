-- Authenticate a key, check its limits and reserve units for one request: all of it or nothing.
-- Asked twice with the same reservation id, it gives the first answer and reserves nothing more.
-- Leases of the team that have run out are taken back first, so that what a dead gateway held can be reserved again.
--
-- KEYS[1]  key record (hash)
-- KEYS[2]  reservation (string)
-- KEYS[3]  leases of the team (sorted set: reservation id by the millisecond when it runs out)
-- KEYS[4]  only with an Idempotency-Key: what became of the request of that name (string: STATE BODY RESERVATION ANSWER,
--          where STATE is running, done or gone)
-- ARGV[1]  reservation id
-- ARGV[2]  SHA-256 of the key's text, in hexadecimal
-- ARGV[3]  model id
-- ARGV[4]  units to reserve
-- ARGV[5]  length of the lease, milliseconds
-- ARGV[6]  facts of the request (JSON), for the ledger entry of a lease that runs out
-- ARGV[7]  how long the end of a reservation is remembered, milliseconds
-- ARGV[8]  only with an Idempotency-Key: SHA-256 of the request
-- ARGV[9]  only with an Idempotency-Key: how long it is remembered, milliseconds
--
-- Reply, always led by the reservation id, and ended by the number of leases taken back:
--   {id, 'admitted', now_ms, remaining units or false, count}
--   {id, 'unknown' | 'revoked' | 'expired', count}
--   {id, 'model_not_allowed', count}
--   {id, 'answered', answer, count}, {id, 'in_progress' | 'answer_gone' | 'mismatch', count} for a name seen before
--   {id, 'insufficient_quota', limit, posted, reserved, count}
--   {id, 'void', count} where void.lua came first, or where the lease has run out since
--
-- @include clock
-- @include authenticate
-- @include utc_day
-- @include reclaim_part

local id, units = ARGV[1], tonumber(ARGV[4])

local function may_use(models, model)
  if not models or models == '*' then return true end
  for pattern in string.gmatch(models, '[^\n]+') do
    if pattern == '*' or pattern == model then return true end
    if string.sub(pattern, -2) == '/*' and string.sub(model, 1, #pattern - 1) == string.sub(pattern, 1, -2) then
      return true
    end
  end
  return false
end

local reclaimed = reclaim(KEYS[3], ARGV[7])
local record = redis.call('HMGET', KEYS[1], 'secret_sha256', 'revoked_ms', 'expires_ms', 'previous_sha256',
  'previous_until_ms', 'models', 'quota_units', 'granted', 'posted', 'reserved')
local verdict = authenticate(ARGV[2], record)
if verdict ~= 'ok' then return {id, verdict, reclaimed} end
if not may_use(record[6], ARGV[3]) then return {id, 'model_not_allowed', reclaimed} end

local function seen_before()
  local seen = redis.call('GET', KEYS[4])
  if not seen then return nil end
  local state, body, reservation, answer = string.match(seen, '^(%a+) (%x+) (%S+) (.*)$')
  -- This very call, made once more.
  if reservation == id then return nil end
  if body ~= ARGV[8] then return {id, 'mismatch', reclaimed} end
  if state == 'done' then return {id, 'answered', answer, reclaimed} end
  if state == 'gone' then return {id, 'answer_gone', reclaimed} end
  local held = redis.call('GET', string.sub(KEYS[2], 1, -#id - 1) .. reservation)
  local is = held and string.match(held, '^%a+')
  if is == 'void' then return nil end
  return {id, is == 'held' and 'in_progress' or 'answer_gone', reclaimed}
end

local seen = KEYS[4] and seen_before()
if seen then return seen end

local posted, reserved = tonumber(record[9] or 0), tonumber(record[10] or 0)
local limit = record[7] and tonumber(record[7]) + tonumber(record[8] or 0)
local remaining = limit and limit - posted - reserved

local before = redis.call('GET', KEYS[2])
if before then
  local state, _, admitted_ms = string.match(before, '^(%a+) (%S+) (%S+)')
  if state == 'void' or state == 'expired' then return {id, 'void', reclaimed} end
  return {id, 'admitted', state == 'held' and tonumber(admitted_ms) or now_ms, remaining, reclaimed}
end
if limit and units > remaining then return {id, 'insufficient_quota', limit, posted, reserved, reclaimed} end

redis.call('SET', KEYS[2], 'held ' .. ARGV[4] .. ' ' .. now_ms .. ' ' .. ARGV[6])
redis.call('ZADD', KEYS[3], now_ms + ARGV[5], id)
if KEYS[4] then redis.call('SET', KEYS[4], 'running ' .. ARGV[8] .. ' ' .. id .. ' ', 'PX', ARGV[9]) end
redis.call('HINCRBY', KEYS[1], 'reserved', ARGV[4])
return {id, 'admitted', now_ms, remaining and remaining - units, reclaimed}
