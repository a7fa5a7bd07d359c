-- A part of other scripts: the limits of a record in one field, for admit.lua, put together after each change of them.
--
-- It is six integers of eight bytes: quota_units with the grants, quota_units_per_day, quota_units_per_month,
-- requests_per_minute, images_per_minute, concurrent_requests; the least integer there is where there is no limit.
-- Where each end user has limits, behind them stand four of every user, and then of each user who has others the id and the
-- same four: quota_units_per_day, quota_units_per_month, images_per_minute, concurrent_requests. A user's id is the SHA-1 of the
-- user's name as the ledger has it, in hexadecimal.
local LIMITS = '>i8i8i8i8i8i8'
local LIMITS_BYTES = 48
local USER_LIMITS = '>i8i8i8i8'
local USER_LIMITS_BYTES = 32
local USER_ID_BYTES = 40
local NONE = -2 ^ 63
