-- Look for the settlement of a request in a part of the ledger. Writes nothing.
--
-- KEYS[1]  ledger of the team (stream)
-- ARGV[1]  an id for the call, given back in the reply
-- ARGV[2]  request id
-- ARGV[3]  where to begin (stream id, or its milliseconds; "(" before it leaves that one out)
-- ARGV[4]  number of entries to look at
--
-- Reply: {id, 'found', ledger entry id}, or {id, 'none' | 'more', expired, last}, where expired is what reservations keep of
-- a lease that ran out, 'expired ENTRY CHARGED', if the part has its entry, else ''; and last the id of the last entry that
-- was looked at
--
-- The entry of a lease that ran out is not a settlement: there may be one that corrects it, or it is yet to be made.

local entries = redis.call('XRANGE', KEYS[1], ARGV[3], '+', 'COUNT', ARGV[4])
local expired = ''
for _, entry in ipairs(entries) do
  local of = {}
  for at = 1, #entry[2], 2 do of[entry[2][at]] = entry[2][at + 1] end
  if of.request == ARGV[2] and (of.kind == 'request' or of.kind == 'late') then
    if of.outcome ~= 'expired' then return {ARGV[1], 'found', entry[1]} end
    expired = 'expired ' .. entry[1] .. ' ' .. of.charged
  end
end
if #entries < tonumber(ARGV[4]) then return {ARGV[1], 'none', expired, ''} end
return {ARGV[1], 'more', expired, entries[#entries][1]}
