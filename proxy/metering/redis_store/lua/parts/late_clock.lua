-- A part of scripts that seldom ask for the time: clock_us() is it by the store's clock, in microseconds since the epoch.
local function clock_us()
  local clock = redis.call('TIME')
  return clock[1] * 1000000 + clock[2]
end
