-- A part of other scripts: the counters of a record, be it a key's or its team's. Needs calendar.
--
-- They stand in one field of thirteen integers of eight bytes, in this order: Redis looks for each field that is asked for, and
-- every request changes most of them. Texts would take four times as long.
--
--   reserved posted overage images held     units, images and reservations in all
--   day day_reserved day_posted             the UTC day of the last admission, in days since the epoch, and what counts in it
--   month month_reserved month_posted       the first day of its month, and the same
--   requests_due_us images_due_us           when the next one would be due if all came evenly, microseconds since the epoch
local COUNTERS = '>i8i8i8i8i8i8i8i8i8i8i8i8i8'
local COUNTERS_BYTES = 104

-- Where the day of the last admission begins.
local DAY_AT = 41

-- counters_of(record)   what stands there; an error where it is nothing of this kind, which a script asks for before it writes
-- add_to(record, counters, day, reserved, posted, overage, images, held, requests_us, images_us)
--   record       key or team record (hash)
--   counters     what stands there
--   day          UTC day that the request was admitted in, in days since the epoch
--   requests_us  and images_us may be left out
--
-- What is reserved and posted counts in the windows of that day and of its month as well, if the record still counts in
-- them. A window that has passed is left alone: nothing is limited by it any more.
local function counters_of(record)
  local counters = redis.call('HGET', record, 'counters') or string.rep('\0', COUNTERS_BYTES)
  if #counters ~= COUNTERS_BYTES then error('the counters of ' .. record .. ' are none: ' .. #counters .. ' bytes') end
  return counters
end

local function add_to(record, counters, day, reserved, posted, overage, images, held, requests_us, images_us)
  local is_reserved, is_posted, is_overage, is_images, is_held, window, day_reserved, day_posted, month, month_reserved,
    month_posted, requests_due_us, images_due_us =
    struct.unpack(COUNTERS, counters)
  if day > window and held == 0 then
    -- The admission that began this window has been lost: what is held still knows of none later than the record.
    window, day_reserved, day_posted = day, 0, posted
    local first = first_of_month(day)
    if first ~= month then
      month, month_reserved, month_posted = first, 0, posted
    else
      month_posted = month_posted + posted
    end
  else
    if day == window then day_reserved, day_posted = day_reserved + reserved, day_posted + posted end
    -- A clock that was days ahead may have admitted it in a month that has not come.
    if day >= month and (day <= window or first_of_month(day) == month) then
      month_reserved, month_posted = month_reserved + reserved, month_posted + posted
    end
  end
  redis.call('HSET', record, 'counters', struct.pack(COUNTERS, is_reserved + reserved, is_posted + posted,
    is_overage + overage, is_images + images, is_held + held, window, day_reserved, day_posted, month, month_reserved,
    month_posted, requests_due_us + (requests_us or 0), images_due_us + (images_us or 0)))
end
