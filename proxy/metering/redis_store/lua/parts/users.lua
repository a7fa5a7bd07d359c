-- A part of other scripts: limits of each end user of a key or a team, and what one of them has used. Needs calendar and limits.
--
-- What a user has used under a key or a team stands in one string, which expires when its windows are over. It is of ten integers
-- of eight bytes, in this order:
--
--   day day_reserved day_posted        the UTC day of the last admission, in days since the epoch, and what counts in it
--   month month_reserved month_posted  the first day of its month, and the same
--   held                               reservations
--   images_due_us                      as in counters
--   since                              the UTC day from which on it counts
--   until_ms                           when all of it is over, milliseconds since the epoch; never while something is held
--
-- user_limits(limits, user)   a user's quota_units_per_day, quota_units_per_month, images_per_minute, concurrent_requests, NONE
--                             where there is no limit; or nil where the account has no limits of each user
--   limits  of the key or the team, see limits.lua
--   user    the user's id
-- used_by(name, now_ms)       the ten integers; nil where nothing counts any more, an error where it is nothing of this kind
--   name    of the string
-- keep_user(name, now_ms, day, …)  write the ten integers
-- end_of_month_ms(day)        when the month of a day is over
-- add_to_user(name, now_ms, day, reserved, posted, held, images_us)
--   day     UTC day that the request was admitted in, as in counters
local USER = '>i8i8i8i8i8i8i8i8i8i8'
local USER_BYTES = 80

-- After its windows are over, for a clock that is behind after a fail-over.
local USER_KEPT_MS = 3600000

local function user_limits(limits, user)
  if not limits or #limits == LIMITS_BYTES then return nil end
  local at = string.find(limits, user, LIMITS_BYTES + USER_LIMITS_BYTES + 1, true)
  -- A number may look like an id, where no id begins.
  while at and (at - LIMITS_BYTES - USER_LIMITS_BYTES - 1) % (USER_ID_BYTES + USER_LIMITS_BYTES) ~= 0 do
    at = string.find(limits, user, at + 1, true)
  end
  return struct.unpack(USER_LIMITS, limits, at and at + USER_ID_BYTES or LIMITS_BYTES + 1)
end

local function used_by(name, now_ms)
  local used = redis.call('GET', name)
  if not used then return nil end
  if #used ~= USER_BYTES then error('what a user has used in ' .. name .. ' is none: ' .. #used .. ' bytes') end
  local day, day_reserved, day_posted, month, month_reserved, month_posted, held, images_due_us, since, until_ms =
    struct.unpack(USER, used)
  if held == 0 and until_ms + USER_KEPT_MS <= now_ms then return nil end
  return day, day_reserved, day_posted, month, month_reserved, month_posted, held, images_due_us, since, until_ms
end

local function keep_user(name, now_ms, day, day_reserved, day_posted, month, month_reserved, month_posted, held,
  images_due_us, since, until_ms)
  local used = struct.pack(USER, day, day_reserved, day_posted, month, month_reserved, month_posted, held, images_due_us,
    since, until_ms)
  if held ~= 0 then
    redis.call('SET', name, used)
  else
    redis.call('SET', name, used, 'PX', string.format('%.0f', math.max(1, until_ms + USER_KEPT_MS - now_ms)))
  end
end

local function end_of_month_ms(day) return first_of_month(first_of_month(day) + 31) * DAY_MS end

local function add_to_user(name, now_ms, day, reserved, posted, held, images_us)
  local window, day_reserved, day_posted, month, month_reserved, month_posted, is_held, images_due_us, since, until_ms =
    used_by(name, now_ms)
  if not window then
    -- Its windows are over; or the admission has been lost, and with it all that this user had used.
    if day < day_of(now_ms) then return end
    window, day_reserved, day_posted, month, month_reserved, month_posted = day, 0, 0, first_of_month(day), 0, 0
    is_held, images_due_us, since, until_ms, reserved, held = 0, 0, day, end_of_month_ms(day), 0, 0
  elseif day < since then
    -- So is what a request used that counted before.
    return
  end
  if day > window and held == 0 then
    -- As in counters.
    window, day_reserved, day_posted, until_ms = day, 0, posted, math.max(until_ms, end_of_month_ms(day))
    local first = first_of_month(day)
    if first ~= month then
      month, month_reserved, month_posted = first, 0, posted
    else
      month_posted = month_posted + posted
    end
  else
    if day == window then day_reserved, day_posted = day_reserved + reserved, day_posted + posted end
    if day >= month and (day <= window or first_of_month(day) == month) then
      month_reserved, month_posted = month_reserved + reserved, month_posted + posted
    end
  end
  keep_user(name, now_ms, window, day_reserved, day_posted, month, month_reserved, month_posted,
    math.max(0, is_held + held), images_due_us + (images_us or 0), since, until_ms)
end
