-- Asks the gateway whether a request may pass; for `http-request lua.authz`.
--
-- Sets txn.authz to `allowed` and the caller's identity in the request, or gives the client
-- the gateway's refusal.

local url = os.getenv("AUTHZ_URL") or "http://127.0.0.1:9091/authz"
local identity = {"x-client-id", "x-client-name", "x-token-scopes", "x-token-subject"}
-- What the decision needs of the request. Of `host` and what was sent twice, every value is
-- told, and the gateway refuses what has more than one reading.
-- Where routes of the gateway match on other fields (`match.headers`), add those.
local asked = {"authorization", "dpop", "x-request-id", "traceparent", "tracestate"}
-- In any spelling that a CGI program takes for these; the gateway refuses the request.
local overrides = {["x-http-method-override"] = true, ["x-http-method"] = true,
                   ["x-method-override"] = true}

local function refuse(txn, status, headers, body)
    local reply = txn:reply{status = status}
    for _, name in ipairs({"www-authenticate", "retry-after", "content-type", "dpop-nonce"}) do
        for _, value in pairs(headers[name] or {}) do
            reply:add_header(name, value)
        end
    end
    if body then reply:set_body(body) end
    txn:done(reply)
end

core.register_action("authz", {"http-req"}, function(txn)
    local given = txn.http:req_get_headers()
    local headers = {
        ["x-forwarded-method"] = {txn.f:method()},
        ["x-forwarded-uri"] = {txn.f:pathq()},
        ["x-forwarded-proto"] = {txn.f:ssl_fc() == 1 and "https" or "http"},
        ["x-forwarded-for"] = {txn.f:src()},
        ["x-forwarded-host"] = {},
    }
    for _, value in pairs(given["host"] or {}) do
        table.insert(headers["x-forwarded-host"], value)
    end
    for _, name in ipairs(asked) do
        if given[name] then
            headers[name] = {}
            for _, value in pairs(given[name]) do table.insert(headers[name], value) end
        end
    end
    for name, values in pairs(given) do
        if overrides[(name:lower():gsub("[^a-z0-9]", "-"))] then headers[name] = {values[0]} end
    end
    local answer = core.httpclient():get{url = url, headers = headers, timeout = 2000}
    if answer == nil or answer.status == nil or answer.status == 0 then
        refuse(txn, 503, {["retry-after"] = {"1"}})
        return
    end
    if answer.status ~= 200 then
        refuse(txn, answer.status, answer.headers, answer.body)
        return
    end
    for _, name in ipairs(identity) do
        local value = answer.headers[name] and answer.headers[name][0]
        if value and value ~= "" then txn.http:req_set_header(name, value) end
    end
    txn:set_var("txn.authz", "allowed")
end, 0)
