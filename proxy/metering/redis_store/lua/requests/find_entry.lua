-- Look for the settlements of several requests in a part of the ledger. Writes nothing.
--
-- KEYS[1]  ledger of the team (stream)
-- KEYS[2]  checkpoint of the team (hash)
-- ARGV[1]  an id for the call, given back in the reply
-- ARGV[2]  where to begin (stream id, or its milliseconds; "(" before it leaves that one out)
-- ARGV[3]  number of entries to look at; at most 500
-- ARGV[4…] request ids, at most 200
--
-- Reply: {id, 'none' | 'more', last, trimmed, REQUEST, found, REQUEST, found…}: last is the id of the last entry that was
-- looked at, where there may be more; trimmed the id of the last entry that was ever taken out of the ledger, or '';
-- found is 'settled ENTRY', or 'expired ENTRY CHARGED' for an expired lease. Requests without an entry in this part
-- are left out.
--
-- The entry of an expired lease is not a settlement: there may be one that corrects it, or it is yet to be made.

local wanted, found, order = {}, {}, {}
for at = 4, #ARGV do wanted[ARGV[at]] = true end

local entries = redis.call('XRANGE', KEYS[1], ARGV[2], '+', 'COUNT', ARGV[3])
for _, entry in ipairs(entries) do
  local of = {}
  for at = 1, #entry[2], 2 do of[entry[2][at]] = entry[2][at + 1] end
  if wanted[of.request] and (of.kind == 'request' or of.kind == 'late') then
    if not found[of.request] then order[#order + 1] = of.request end
    if of.outcome ~= 'expired' then
      found[of.request] = 'settled ' .. entry[1]
    elseif not found[of.request] then
      found[of.request] = 'expired ' .. entry[1] .. ' ' .. of.charged
    end
  end
end

local trimmed = redis.call('HGET', KEYS[2], 'last') or ''
local more = #entries == tonumber(ARGV[3])
local reply = {ARGV[1], more and 'more' or 'none', more and entries[#entries][1] or '', trimmed}
for _, request in ipairs(order) do
  reply[#reply + 1] = request
  reply[#reply + 1] = found[request]
end
return reply
