-- A part of scripts that change limits. Needs limits.
--
-- pack_limits(record)  put the limits of a key or a team together, see limits.lua
local function pack_user_limits(is)
  local function limit(name) return type(is[name]) == 'number' and is[name] or NONE end
  return struct.pack(USER_LIMITS, limit('quota_units_per_day'), limit('quota_units_per_month'), limit('images_per_minute'),
    limit('concurrent_requests'))
end

local function pack_limits(record)
  local is = redis.call('HMGET', record, 'quota_units', 'granted', 'quota_units_per_day', 'quota_units_per_month',
    'requests_per_minute', 'images_per_minute', 'concurrent_requests', 'limits_per_user')
  local total = is[1] and is[1] + (is[2] or 0) or NONE
  local packed = struct.pack(LIMITS, total, is[3] or NONE, is[4] or NONE, is[5] or NONE, is[6] or NONE, is[7] or NONE)
  if is[8] then
    local per_user = cjson.decode(is[8])
    local parts = {packed, pack_user_limits(per_user)}
    for user, own in pairs(per_user.users) do
      parts[#parts + 1] = redis.sha1hex(user) .. pack_user_limits(own)
    end
    packed = table.concat(parts)
  end
  redis.call('HSET', record, 'limits', packed)
end
