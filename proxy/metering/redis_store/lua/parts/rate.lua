-- A part of other scripts: rate limits by the generic cell rate algorithm (https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm),
-- in whole microseconds.
--
-- interval_of(per_minute)  microseconds from one to the next, rounded up so that no more than the limit pass
local function interval_of(per_minute) return math.ceil(60000000 / per_minute) end
