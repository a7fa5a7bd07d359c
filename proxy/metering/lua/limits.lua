-- A part of other scripts: the limits of a record in one field, for admit.lua, put together after each change of them.
--
-- The field is: quota_units with the grants, quota_units_per_day, quota_units_per_month, requests_per_minute,
-- images_per_minute, concurrent_requests; each with a blank before the next, and '-' where there is no limit.
local function pack_limits(record)
  local is = redis.call('HMGET', record, 'quota_units', 'granted', 'quota_units_per_day', 'quota_units_per_month',
    'requests_per_minute', 'images_per_minute', 'concurrent_requests')
  local total = is[1] and string.format('%d', is[1] + (is[2] or 0)) or '-'
  redis.call('HSET', record, 'limits', string.format('%s %s %s %s %s %s', total, is[3] or '-', is[4] or '-', is[5] or '-',
    is[6] or '-', is[7] or '-'))
end
