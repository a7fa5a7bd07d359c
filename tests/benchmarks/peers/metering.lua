-- nginx that meters: it reserves what a request asks for before it is forwarded, and settles when it has been answered.
--
-- One round trip to admit. Settlements go together: the first that is due sends all that have come until its timer runs.
-- It charges what was asked for, since nginx does not read what came. A reservation has no lease: that of a worker that
-- is killed stays, and so does one whose settlement the store did not take.

local cjson = require "cjson.safe"
local redis = require "nginx.redis"

local UNITS_OF_IMAGE = 7500
local TIMEOUT_MS = 1000
local IDLE_MS = 60000
local POOL_SIZE = 256

-- 1: reserved, 0: the limit has no room for it, -1: nobody knows the key.
local RESERVE = [[
local account = redis.call("HMGET", KEYS[1], "limit", "posted", "reserved")
if not account[1] then return -1 end
local units = tonumber(ARGV[1])
if tonumber(account[2]) + tonumber(account[3]) + units > tonumber(account[1]) then return 0 end
redis.call("HINCRBY", KEYS[1], "reserved", units)
return 1
]]

local SETTLE = [[
redis.call("HINCRBY", KEYS[1], "reserved", -tonumber(ARGV[1]))
redis.call("HINCRBY", KEYS[1], "posted", ARGV[2])
return 1
]]

local _M = {}
local store
local sha_of = {}
local due = {}
local is_scheduled = false

local function sha1(text)
    return (ngx.sha1_bin(text):gsub(".", function(byte) return string.format("%02x", byte:byte()) end))
end

local function connect()
    local connection = redis:new()
    connection:set_timeout(TIMEOUT_MS)
    local connected, problem = connection:connect(store)
    if not connected then return nil, problem end
    return connection
end

local function refuse(status, code)
    ngx.status = status
    ngx.header["Content-Type"] = "application/json"
    ngx.print('{"error":{"message":"', code, '","type":"invalid_request_error","param":null,"code":"', code, '"}}')
    return ngx.exit(status)
end

function _M.init(address)
    store = address
    for _, script in ipairs { RESERVE, SETTLE } do
        sha_of[script] = sha1(script)
    end
end

function _M.admit()
    ngx.req.read_body()
    local request = cjson.decode(ngx.req.get_body_data() or "")
    if type(request) ~= "table" then return refuse(400, "invalid_request") end
    local key = (ngx.var.http_authorization or ""):match("^Bearer (%S+)$")
    if not key then return refuse(401, "invalid_api_key") end
    local account, units = "account:" .. key, (tonumber(request.n) or 1) * UNITS_OF_IMAGE
    local connection = connect()
    if not connection then return refuse(503, "store_unavailable") end
    local admitted, problem = connection:evalsha(sha_of[RESERVE], 1, account, units)
    if not admitted and problem and problem:find("NOSCRIPT", 1, true) then
        admitted = connection:eval(RESERVE, 1, account, units)
    end
    if not admitted then return refuse(503, "store_unavailable") end
    connection:set_keepalive(IDLE_MS, POOL_SIZE)
    if admitted == -1 then return refuse(401, "invalid_api_key") end
    if admitted == 0 then return refuse(429, "insufficient_quota") end
    ngx.ctx.account, ngx.ctx.units = account, units
end

local function settle_due()
    is_scheduled = false
    local batch = due
    due = {}
    local connection, problem = connect()
    if not connection then
        ngx.log(ngx.ERR, "not settled: ", problem)
        return
    end
    connection:init_pipeline(#batch)
    for _, each in ipairs(batch) do
        connection:eval(SETTLE, 1, each.account, each.units, each.charged)
    end
    local settled, trouble = connection:commit_pipeline()
    if not settled then
        ngx.log(ngx.ERR, "not settled: ", trouble)
        return
    end
    connection:set_keepalive(IDLE_MS, POOL_SIZE)
end

-- No socket may be opened where a request is logged, so a timer settles.
function _M.settle()
    local account, units = ngx.ctx.account, ngx.ctx.units
    if not account then return end
    due[#due + 1] = { account = account, units = units, charged = ngx.status == 200 and units or 0 }
    if not is_scheduled then
        is_scheduled = ngx.timer.at(0, settle_due) and true or false
    end
end

return _M
