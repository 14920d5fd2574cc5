require "json" # a worker without an SDK, written from protocol.md

def die(reason, status = 1)
  warn "worker: #{reason}"
  exit status
end

def respond(method, params)
  return { result: { unchanged: true } } if method == "onDefineDomain" # your hook
  return { error: { code: -32601, message: "unknown method" } } if method != "initialize"
  if params["protocolVersions"].include? 1
    return { result: { protocolVersion: 1, hooks: ["onDefineDomain"] } }
  end
  { error: { code: -32602, message: "no common version", data: { protocolVersions: [1] } } }
end

die "start me with sidecar-shim --mode persistent", 2 unless ENV["KUBEVIRT_HOOK_PROTOCOL"]
$stdin.binmode
$stdout.binmode
while (header = $stdin.read(4))
  length = header.unpack1("N") || 0
  die "half a frame, or an invalid length" unless (1..16_777_215) === length
  body = $stdin.read(length).to_s.force_encoding("UTF-8")
  die "half a frame" if body.bytesize < length
  message = (JSON.parse(body, max_nesting: 200) if body.valid_encoding?) rescue nil
  die "a message is not a JSON object in UTF-8" unless message.is_a? Hash
  next unless message.key? "id"
  begin
    response = respond(message["method"], message["params"])
  rescue StandardError => error
    response = { error: { code: -32603, message: error.class.name } }
  end
  body = JSON.generate({ jsonrpc: "2.0", id: message["id"], **response })
  $stdout.write([body.bytesize].pack("N") + body)
  $stdout.flush
end
