-- What wrk sends, and what it tells at the end.
--   wrk ... -s wrk.lua URL -- METHOD BODY_BYTES VARIES TOKEN_OR_FILE
-- VARIES is "nothing", "head" (another traceparent and request id each time) or "token"
-- (another token each time, from a file with one a line).

local number = 0

local function head_of(method, body_bytes)
  local head = method .. " " .. wrk.path .. " HTTP/1.1\r\nHost: " .. wrk.headers["Host"] .. "\r\n"
  for name, value in pairs(wrk.headers) do
    if name ~= "Host" then head = head .. name .. ": " .. value .. "\r\n" end
  end
  if body_bytes > 0 then head = head .. "Content-Length: " .. body_bytes .. "\r\n" end
  return head
end

function init(args)
  local method, body_bytes, varies, token = args[1], tonumber(args[2]), args[3], args[4]
  local body = string.rep("x", body_bytes)
  if varies == "nothing" then
    -- Without a function named request, wrk makes the request once and calls no Lua for it.
    wrk.method, wrk.headers["Authorization"] = method, "Bearer " .. token
    if body_bytes > 0 then wrk.body = body end
    return
  end
  local head = head_of(method, body_bytes)
  if varies == "token" then
    local tokens = {}
    for line in io.lines(token) do tokens[#tokens + 1] = line end
    function request()
      number = number % #tokens + 1
      return head .. "Authorization: Bearer " .. tokens[number] .. "\r\n\r\n" .. body
    end
    return
  end
  head = head .. "Authorization: Bearer " .. token .. "\r\n"
  if varies == "head" then
    function request()
      number = number + 1
      return head .. string.format(
        "traceparent: 00-4bf92f3577b34da6%016x-%016x-01\r\nX-Request-Id: bench-%d\r\n\r\n%s",
        number, number, number, body)
    end
    return
  end
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    'bench: {"duration_us": %d, "requests": %d, "bytes": %d, "p50_us": %d, "p99_us": %d, '
      .. '"max_us": %d, "socket_errors": %d, "status_errors": %d}\n',
    summary.duration, summary.requests, summary.bytes, latency:percentile(50),
    latency:percentile(99), latency.max, errors.connect + errors.read + errors.write
      + errors.timeout, errors.status))
end
