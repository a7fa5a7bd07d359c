-- A part of other scripts: UTC days and months. Redis gives its scripts no calendar; this is civil_from_days of
-- http://howardhinnant.github.io/date_algorithms.html
--
-- day_of(at_ms)         the day of a moment in milliseconds since the epoch, in days since the epoch
-- utc_day(day)          its name, YYYY-MM-DD
-- first_of_month(day)   the first day of its month
local DAY_MS = 86400000

local function day_of(at_ms) return math.floor(at_ms / DAY_MS) end

local function civil(day)
  local shifted = day + 719468
  local era = math.floor(shifted / 146097)
  local day_of_era = shifted - era * 146097
  local year_of_era = math.floor((day_of_era - math.floor(day_of_era / 1460) + math.floor(day_of_era / 36524)
    - math.floor(day_of_era / 146096)) / 365)
  local day_of_year = day_of_era - (365 * year_of_era + math.floor(year_of_era / 4) - math.floor(year_of_era / 100))
  local month_from_march = math.floor((5 * day_of_year + 2) / 153)
  local day_of_month = day_of_year - math.floor((153 * month_from_march + 2) / 5) + 1
  local month = month_from_march < 10 and month_from_march + 3 or month_from_march - 9
  return year_of_era + era * 400 + (month <= 2 and 1 or 0), month, day_of_month
end

local function utc_day(day) return string.format('%04d-%02d-%02d', civil(day)) end

local function first_of_month(day)
  local _, _, day_of_month = civil(day)
  return day - day_of_month + 1
end
