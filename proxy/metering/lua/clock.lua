-- A part of other scripts: now_ms, the server's clock, in milliseconds. It is the only one that all gateways share.
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
