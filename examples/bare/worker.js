const fs = require("fs"); // a worker without an SDK, written from protocol.md
const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

function die(reason, status = 1) {
  console.error(`worker: ${reason}`);
  process.exit(status);
}

function read(length) {
  const bytes = Buffer.alloc(length);
  let have = 0, count;
  while (have < length && (count = fs.readSync(0, bytes, have, length - have)) > 0) have += count;
  return bytes.subarray(0, have);
}

function respond({ method, params }) {
  if (method === "onDefineDomain") return { result: { unchanged: true } }; // your hook
  if (method !== "initialize") return { error: { code: -32601, message: "unknown method" } };
  if (params.protocolVersions.includes(1))
    return { result: { protocolVersion: 1, hooks: ["onDefineDomain"] } };
  return { error: { code: -32602, message: "no common version", data: { protocolVersions: [1] } } };
}

if (!process.env.KUBEVIRT_HOOK_PROTOCOL) die("start me with sidecar-shim --mode persistent", 2);
for (let header; (header = read(4)).length > 0; ) {
  const length = header.length === 4 ? header.readUInt32BE() : 0;
  if (length < 1 || length > 16777215) die("half a frame, or an invalid length");
  const body = read(length);
  if (body.length < length) die("half a frame");
  let message, response;
  try { message = JSON.parse(utf8.decode(body)); } catch { die("a message is not JSON in UTF-8"); }
  if (!message || typeof message !== "object" || Array.isArray(message)) die("not a JSON object");
  if (!("id" in message)) continue;
  try { response = respond(message); }
  catch (error) { response = { error: { code: -32603, message: error.name } }; }
  const text = JSON.stringify({ jsonrpc: "2.0", id: message.id, ...response });
  header.writeUInt32BE(Buffer.byteLength(text));
  fs.writeFileSync(1, Buffer.concat([header, Buffer.from(text)]));
}
