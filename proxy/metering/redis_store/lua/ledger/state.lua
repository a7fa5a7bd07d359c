-- Write down how far a team's statements have come, and those that have ended. A statement is never written twice.
--
-- KEYS[1]  statements of the team (hash: book, version, call, and one field for each month)
-- KEYS[2]  checkpoint of the team (hash)
-- ARGV[1]  an id for the call, given back in the reply; asked twice with it, it gives the first answer
-- ARGV[2]  version of the book that this goes on from, 0 for the first
-- ARGV[3]  id of the last entry that had been trimmed when the ledger was read, or '0-0'
-- ARGV[4]  the book (JSON)
-- ARGV[5]… MONTH, statement (JSON), MONTH, statement…: those that have ended
--
-- Reply: {id, 'stated'}, or {id, 'moved'} where somebody else has stated or trimmed meanwhile: read, and try again

local at = redis.call('HMGET', KEYS[1], 'version', 'call')
if at[2] == ARGV[1] then return {ARGV[1], 'stated'} end
if (at[1] or '0') ~= ARGV[2] then return {ARGV[1], 'moved'} end
if (redis.call('HGET', KEYS[2], 'last') or '0-0') ~= ARGV[3] then return {ARGV[1], 'moved'} end
for place = 5, #ARGV, 2 do
  if redis.call('HEXISTS', KEYS[1], ARGV[place]) == 1 then return {ARGV[1], 'moved'} end
end
redis.call('HSET', KEYS[1], 'version', string.format('%.0f', ARGV[2] + 1), 'call', ARGV[1], 'book', ARGV[4])
for place = 5, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[place], ARGV[place + 1]) end
return {ARGV[1], 'stated'}
