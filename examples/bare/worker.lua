local json = require("dkjson") -- a worker without an SDK, written from protocol.md

local function die(reason, status)
  io.stderr:write("worker: ", reason, "\n")
  os.exit(status or 1)
end

local function respond(method, params)
  if method == "onDefineDomain" then return { result = { unchanged = true } } end -- your hook
  if method ~= "initialize" then
    return { error = { code = -32601, message = "unknown method" } }
  end
  for _, version in ipairs(params.protocolVersions) do
    if version == 1 then
      return { result = { protocolVersion = 1, hooks = { "onDefineDomain" } } }
    end
  end
  return { error = { code = -32602, message = "no common version",
                     data = { protocolVersions = { 1 } } } }
end

if not os.getenv("KUBEVIRT_HOOK_PROTOCOL") then die("start me with sidecar-shim", 2) end
for header in io.stdin:lines(4) do
  local length = #header == 4 and string.unpack(">I4", header) or 0
  if length < 1 or length > 16777215 then die("half a frame, or an invalid length") end
  local body = io.read(length)
  if not body or #body < length then die("half a frame") end
  local message, stop = json.decode(body)
  if not utf8.len(body) or not body:find("^%s*{") or not message or body:find("%S", stop) then
    die("a message is not a JSON object in UTF-8")
  end
  if message.id then
    local ok, response = pcall(respond, message.method, message.params)
    if not ok then response = { error = { code = -32603, message = "a fault in the hook" } } end
    response.jsonrpc, response.id = "2.0", message.id
    io.write(string.pack(">s4", json.encode(response)))
    io.flush()
  end
end
