-- A part of other scripts: the counters of a record, be it a key's or its team's. Needs calendar.
--
-- add_to(record, day, reserved, posted, overage, images, held)
--   record  key or team record (hash)
--   day     UTC day that the request was admitted in, in days since the epoch
--   the rest is added to the counters of these names; held is the number of reservations
--
-- What is reserved and posted counts in the windows of that day and of its month as well, if the record still counts in
-- them. A window that has passed is left alone: nothing is limited by it any more.
local function add_to(record, day, reserved, posted, overage, images, held)
  local is = redis.call('HMGET', record, 'reserved', 'posted', 'overage', 'images', 'held', 'day', 'day_reserved',
    'day_posted', 'month', 'month_reserved', 'month_posted')
  local set = {}
  local function put(field, value)
    set[#set + 1], set[#set + 2] = field, value
  end
  local function add(field, value, amount)
    if amount ~= 0 then put(field, (value or 0) + amount) end
  end
  add('reserved', is[1], reserved)
  add('posted', is[2], posted)
  add('overage', is[3], overage)
  add('images', is[4], images)
  add('held', is[5], held)
  local window, month = tonumber(is[6]), tonumber(is[9])
  if not window or day > window then
    -- The admission that began this window has been lost.
    local first = first_of_month(day)
    put('day', day)
    put('day_reserved', 0)
    put('day_posted', posted)
    if first ~= month then
      put('month', first)
      put('month_reserved', 0)
      put('month_posted', posted)
    else
      add('month_posted', is[11], posted)
    end
  else
    if day == window then
      add('day_reserved', is[7], reserved)
      add('day_posted', is[8], posted)
    end
    if day >= month then
      add('month_reserved', is[10], reserved)
      add('month_posted', is[11], posted)
    end
  end
  if #set > 0 then redis.call('HSET', record, unpack(set)) end
end
