-- A part of other scripts: reclaim what expired leases hold, and write each to the ledger as expired.
-- Needs clock, calendar, counters and usage_part.
--
-- ids = run_out(leases, most)
--   leases       leases of the team (sorted set); the names of the team's other keys follow from its name
--   most         number of ids; no other call of the store should wait long for what is done with them
-- count = reclaim(leases, ids, remember_ms)
--   ids          of expired leases
--   remember_ms  how long the reservation's end is remembered, for a settlement that comes late
--
-- A reservation whose facts say "expired": "charge" is charged whole, any other nothing.
local function run_out(leases, most)
  return redis.call('ZRANGEBYSCORE', leases, 0, now_ms, 'LIMIT', 0, most)
end

local function reclaim(leases, ids, remember_ms)
  local count = 0
  local team = string.sub(leases, 1, -#'leases' - 1)
  local held = {}
  -- What cannot be added to is refused before the first write.
  for at, id in ipairs(ids) do
    held[at] = redis.call('GET', team .. 'reservation:' .. id) or ''
    local admitted_ms, facts = string.match(held[at], '^held %d+ (%d+) (.+)$')
    if facts then
      local about = cjson.decode(facts)
      local heading = utc_day(day_of(admitted_ms)) .. ':units:' .. about.model
      counters_of(team .. 'key:' .. about.key)
      counters_of(team .. 'team')
      check_usage(team .. 'usage:' .. about.key, heading)
      check_usage(team .. 'usage', heading)
      redis.call('XLEN', team .. 'ledger')
    end
  end
  for at, id in ipairs(ids) do
    local name = team .. 'reservation:' .. id
    local units, admitted_ms, facts = string.match(held[at], '^held (%d+) (%d+) (.+)$')
    if units then
      local about, day = cjson.decode(facts), day_of(admitted_ms)
      local charged = about.expired == 'charge' and units or '0'
      facts = string.sub(facts, 1, -2) .. ',"reserved":' .. units .. ',"admitted_ms":' .. admitted_ms .. '}'
      local entry = redis.call('XADD', team .. 'ledger', '*', 'kind', 'request', 'key', about.key, 'request', id,
        'outcome', 'expired', 'images', '0', 'charged', charged, 'overage', '0', 'facts', facts)
      for _, record in ipairs({team .. 'key:' .. about.key, team .. 'team'}) do
        add_to(record, counters_of(record), day, -units, charged + 0, 0, 0, -1)
      end
      if charged ~= '0' then
        local heading = utc_day(day) .. ':units:' .. about.model
        redis.call('HINCRBY', team .. 'usage:' .. about.key, heading, charged)
        redis.call('HINCRBY', team .. 'usage', heading, charged)
      end
      redis.call('SET', name, 'expired ' .. entry .. ' ' .. charged, 'PX', remember_ms)
      count = count + 1
    end
    redis.call('ZREM', leases, id)
  end
  return count
end
