-- A part of other scripts: what a key or a team has used, by day and model (hash: DAY:units:MODEL and DAY:images:MODEL).
--
-- check_usage(usage, ...)  what stands in these fields, false where nothing does; an error where one of them is no number that can
--                          be added to; before a script writes
local function check_usage(usage, ...)
  local numbers = redis.call('HMGET', usage, ...)
  for at = 1, #numbers do
    local number = numbers[at]
    if number and (#number > 16 or not string.find(number, '^-?%d+$')) then error('no number in ' .. usage) end
  end
  return numbers
end
