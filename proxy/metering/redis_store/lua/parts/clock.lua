-- A part of other scripts: the time by the store's clock, since the epoch. now_us is in microseconds, now_ms in milliseconds.
local clock = redis.call('TIME')
local now_us = clock[1] * 1000000 + clock[2]
local now_ms = math.floor(now_us / 1000)
