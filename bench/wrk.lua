-- What wrk sends, and what it tells at the end.
--   wrk ... -s wrk.lua URL -- METHOD BODY_BYTES VARIES TOKEN TOKEN_FILE
-- VARIES is "nothing"; "head" (path, query, one of 50 tokens, request id and traceparent differ from
-- request to request); or "token" (another token of the file each time).

local number = 0
local VARIED_TOKENS = 50

local function fields_of(body_bytes)
  local fields = "Host: " .. wrk.headers["Host"] .. "\r\n"
  for name, value in pairs(wrk.headers) do
    if name ~= "Host" then fields = fields .. name .. ": " .. value .. "\r\n" end
  end
  if body_bytes > 0 then fields = fields .. "Content-Length: " .. body_bytes .. "\r\n" end
  return fields
end

local function read_tokens(path, most)
  local tokens = {}
  for line in io.lines(path) do
    tokens[#tokens + 1] = line
    if #tokens == most then break end
  end
  return tokens
end

function init(args)
  local method, body_bytes, varies, token, file = args[1], tonumber(args[2]), args[3], args[4], args[5]
  local body = string.rep("x", body_bytes)
  if varies == "nothing" then
    -- Without a function named request, wrk makes the request once and calls no Lua for it.
    wrk.method, wrk.headers["Authorization"] = method, "Bearer " .. token
    if body_bytes > 0 then wrk.body = body end
    return
  end
  local fields, path = fields_of(body_bytes), wrk.path
  if varies == "token" then
    local tokens = read_tokens(file)
    local head = method .. " " .. path .. " HTTP/1.1\r\n" .. fields
    function request()
      number = number % #tokens + 1
      return head .. "Authorization: Bearer " .. tokens[number] .. "\r\n\r\n" .. body
    end
    return
  end
  local tokens = read_tokens(file, VARIED_TOKENS)
  local count = #tokens
  function request()
    number = number + 1
    return string.format(
      "%s %s/%d?page=%d&order=%x HTTP/1.1\r\n%sAuthorization: Bearer %s\r\n"
        .. "traceparent: 00-4bf92f3577b34da6%016x-%016x-01\r\nX-Request-Id: bench-%d\r\n\r\n%s",
      method, path, number, number % 97, number * 7919, fields, tokens[number % count + 1],
      number, number * 31, number, body)
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
