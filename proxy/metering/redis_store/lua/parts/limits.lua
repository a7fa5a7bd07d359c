-- A part of other scripts: the limits of a record in one field, for admit.lua, put together after each change of them.
--
-- It is six integers of eight bytes: quota_units with the grants, quota_units_per_day, quota_units_per_month,
-- requests_per_minute, images_per_minute, concurrent_requests; the least integer there is where there is no limit.
local LIMITS = '>i8i8i8i8i8i8'
local NONE = -2 ^ 63
local NO_LIMITS = struct.pack(LIMITS, NONE, NONE, NONE, NONE, NONE, NONE)

local function pack_limits(record)
  local is = redis.call('HMGET', record, 'quota_units', 'granted', 'quota_units_per_day', 'quota_units_per_month',
    'requests_per_minute', 'images_per_minute', 'concurrent_requests')
  local total = is[1] and is[1] + (is[2] or 0) or NONE
  redis.call('HSET', record, 'limits', struct.pack(LIMITS, total, is[3] or NONE, is[4] or NONE, is[5] or NONE,
    is[6] or NONE, is[7] or NONE))
end
