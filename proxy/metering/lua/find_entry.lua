-- Look for a request in a part of the ledger. Writes nothing.
--
-- KEYS[1]  ledger of the team (stream)
-- ARGV[1]  an id for the call, given back in the reply
-- ARGV[2]  request id
-- ARGV[3]  where to begin (stream id, or its milliseconds; "(" before it leaves that one out)
-- ARGV[4]  number of entries to look at
--
-- Reply: {id, 'found', ledger entry id}, {id, 'more', id of the last entry that was looked at}, or {id, 'none'}

local entries = redis.call('XRANGE', KEYS[1], ARGV[3], '+', 'COUNT', ARGV[4])
for _, entry in ipairs(entries) do
  local fields = entry[2]
  for at = 1, #fields, 2 do
    if fields[at] == 'request' and fields[at + 1] == ARGV[2] then return {ARGV[1], 'found', entry[1]} end
  end
end
if #entries < tonumber(ARGV[4]) then return {ARGV[1], 'none'} end
return {ARGV[1], 'more', entries[#entries][1]}
