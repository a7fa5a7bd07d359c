-- A part of other scripts: what a key or a team has used, by day and model (hash: DAY:units:MODEL and DAY:images:MODEL).
--
-- check_usage(usage, ...)  an error where one of these fields is no number that can be added to; before a script writes
local function check_usage(usage, ...)
  for _, number in ipairs(redis.call('HMGET', usage, ...)) do
    if number and (#number > 16 or not string.find(number, '^-?%d+$')) then error('no number in ' .. usage) end
  end
end
