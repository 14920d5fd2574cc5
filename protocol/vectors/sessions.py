"""Sessions: what the shim writes to the vector worker, and what that has to write back.

A call is written here as the shim writes it, unless it is the point of a session that it could be
written in another way.
"""

import json

from frames import frame, shown

SHIM = {"name": "sidecar-shim", "version": "0.1.0"}
WORKER = {"name": "vectors", "version": "1.0.0"}
# Stands for what each SDK writes about itself: README.md, "What differs between SDKs".
SDK = {"name": "SDK", "version": "VERSION"}
ANY = "ANY"
HOOKS = ["onDefineDomain", "preCloudInitIso", "preVMStart"]
INVOCATION = {"deadlineMs": 54000, "attempt": 1}
DOMAIN = '<domain type="kvm">\n\t<name>ns_vm1</name>\n</domain>\n'
# In ASCII order, so that it makes no difference whether a worker keeps the order or sorts.
CLOUD_INIT = {
    "ConfigDriveMetaData": None,
    "DataSource": "noCloud",
    "NoCloudMetaData": {"instance-id": "vm1.ns", "local-hostname": "vm1"},
    "UserData": "#cloud-config\n",
    "VolumeName": "cloudinit",
}
# Every kind of character on whose JSON text Python, Go and serde_json agree.
TEXT = "\t\r\n  \"quoted\" back\\slash sla/sh <&>' \x01\x1f\x7f é ß € \u00a0\ufeff 漢字 😀🏳️‍🌈 \U0010ffff "
FAULT = "a fault in the hook's code; its log has the trace"

# How deeply JSON may be nested in a document: protocol.md, "Limits".
DEEPEST = 100

ALL = {}


def deep(depth):
    """JSON text of arrays in each other."""
    return "[" * depth + "]" * depth


def nested(depth):
    """Arrays in each other."""
    return [nested(depth - 1)] if depth > 1 else []


def compact(value):
    """JSON as all workers write it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


class Session:
    """One run of the vector worker. It adds itself to the vectors."""

    def __init__(self, name, section, about, concurrency=1, shim=None):
        """`shim` says whether all of the input is as the shim writes it; None: it is, so far."""
        self.about, self.section, self.concurrency = about, section, concurrency
        self.shim, self.exit, self.stderr, self.faults = shim is not False, "success", [], False
        self.input, self.output, self.steps = b"", b"", []
        self.read, self.written = [], []
        ALL[name] = self

    def facts(self):
        return {
            "about": self.about,
            "section": f"protocol.md#{self.section}",
            "concurrency": self.concurrency,
            "exit": self.exit,
            "stderr": self.stderr,
            "faults": self.faults,
            "shim": self.shim,
            "steps": self.steps,
            "in": self.read,
            "out": self.written,
        }

    def says(self, message, *attached):
        """The shim writes this: an object, or JSON text."""
        text = message if isinstance(message, str) else compact(message)
        self.input += frame(text.encode()) + b"".join(map(frame, attached))
        self.read += [json.loads(text), *map(shown, attached)]
        return self

    def long(self, text, about, *attached):
        """The shim writes JSON text that is too long to show, or that Python cannot read."""
        self.input += b"".join(frame(it.encode()) for it in (text, *attached))
        self.read.append({"about": about})
        return self

    def bytes(self, data):
        """The shim writes bytes that are no message."""
        self.input += data
        self.read.append(shown(data))
        return self

    def hears(self, message, *attached):
        """The worker writes this before it gets anything else."""
        self.output += frame(compact(message).encode()) + b"".join(map(frame, attached))
        self.written += [message, *map(shown, attached)]
        return self

    def step(self):
        """What was written so far is to be answered before anything else is written."""
        self.steps.append({"write": len(self.input), "await": len(self.output)})
        return self

    # ---- messages of the protocol

    def start(self, attachments=True, **changes):
        """`initialize`, answered. With a `logLevel` of `None`, that member is left out."""
        params = {
            "protocolVersions": [1],
            "shim": SHIM,
            "maxFrameBytes": 16777215,
            "logLevel": "info",
            "capabilities": {"attachments": attachments, "cancel": True},
            **changes,
        }
        if params["logLevel"] is None:
            del params["logLevel"]
        self.shim &= attachments and not changes.keys() - {"logLevel"}
        self.says({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params})
        return self.result(1, initialized(self.concurrency)).step()

    def define(self, ident, vector=None, domain=DOMAIN, invocation=INVOCATION):
        """A call of onDefineDomain by a shim that attaches."""
        params = {"vmi": vmi(vector), "invocation": invocation}
        message = request(ident, "onDefineDomain", params)
        if domain == "":
            params["domain"] = ""
            params["invocation"] = params.pop("invocation")
            return self.says(message)
        return self.says({**message, "attachments": ["domain"]}, domain.encode())

    def define_inline(self, ident, vector=None, domain=DOMAIN):
        """A call of onDefineDomain by a shim that does not."""
        params = {"vmi": vmi(vector), "domain": domain, "invocation": INVOCATION}
        return self.says(request(ident, "onDefineDomain", params))

    def cloud_init(self, ident, vector=None, data=None):
        params = {"vmi": vmi(vector), "cloudInitData": data or CLOUD_INIT, "invocation": INVOCATION}
        return self.says(request(ident, "preCloudInitIso", params))

    def node(self, ident, vector=None, invocation=INVOCATION):
        params = {"vmi": vmi(vector), "nodeName": "node-a", "invocation": invocation}
        return self.says(request(ident, "preVMStart", params))

    def cancel(self, ident):
        return self.says({"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": ident}})

    def result(self, ident, result, *attached):
        message = {"jsonrpc": "2.0", "id": ident, "result": result}
        if attached:
            message["attachments"] = ["domain"]
        return self.hears(message, *attached)

    def unchanged(self, ident):
        return self.result(ident, {"unchanged": True})

    def domain(self, ident, domain):
        return self.result(ident, {}, domain.encode())

    def error(self, ident, code, message, **data):
        error = {"code": code, "message": message, **({"data": data} if data else {})}
        return self.hears({"jsonrpc": "2.0", "id": ident, "error": error})

    def log(self, level, message, ident, fields=None):
        """The worker logs this in a call."""
        params = {"level": level, "message": message, "id": ident, **({"fields": fields} if fields else {})}
        return self.hears({"jsonrpc": "2.0", "method": "$/log", "params": params})

    def breaks(self, data):
        """The shim breaks the protocol, and the worker gives up."""
        self.shim, self.exit = False, "failure"
        return self.bytes(data)


def request(ident, method, params):
    return {"jsonrpc": "2.0", "id": ident, "method": method, "params": params}


def vmi(vector):
    return {"metadata": {"name": "vm1", "namespace": "ns"}, **({"vector": vector} if vector else {})}


def initialized(concurrency=1):
    capabilities = {"attachments": True, "cancel": True, "concurrency": concurrency}
    return {"protocolVersion": 1, "worker": WORKER, "sdk": SDK, "hooks": HOOKS, "capabilities": capabilities}


# ---- start and stop

Session("initialize", "initialize", "The handshake, then end-of-file").start()

Session("initialize-newer-shim", "initialize", "Of several versions the worker takes its own").start(
    protocolVersions=[3, 1, 2], maxFrameBytes=33554431, colour="green"
)

session = Session("initialize-no-common-version", "initialize", "The worker refuses, and waits for end-of-file", shim=False)
session.says(request(1, "initialize", {"protocolVersions": [2, 3], "shim": SHIM, "maxFrameBytes": 16777215}))
session.error(1, -32602, "no common protocol version", protocolVersions=[1]).step()

Session("no-input", "stop", "End-of-file before anything else", shim=False).step()

session = Session("end-of-file", "stop", "What was read is answered before the worker stops")
session.start().define(2, {"do": "append", "text": "<!-- last -->"}).step().domain(2, DOMAIN + "<!-- last -->")

# ---- hooks

session = Session("unchanged", "hooks", "A hook that changes nothing, or returns the very document that it got")
session.start().define(2).unchanged(2).step().cloud_init(3).unchanged(3).step().node(4).result(4, {}).step()
session.define(5, {"do": "append", "text": ""}).unchanged(5).step()

session = Session("cloud-init", "hooks", "User data are replaced, and everything else stays")
session.start().cloud_init(2, {"do": "answer", "text": "#cloud-config\nhostname: vm1\n"})
session.result(2, {"cloudInitData": {**CLOUD_INIT, "UserData": "#cloud-config\nhostname: vm1\n"}}).step()
more = {"AMember": [1, True, None, {"a": ""}], **CLOUD_INIT, "ZMember": 9007199254740991}
session.cloud_init(3, {"do": "answer", "text": TEXT}, more)
session.result(3, {"cloudInitData": {**more, "UserData": TEXT}}).step()

session = Session("node-hook", "hooks", "A node hook has a node, and an empty result", shim=True)
session.start().node(2).result(2, {}).step()
session.node(3, {"do": "invocation"}, {**INVOCATION, "attempt": 2, "context": "Boot"})
session.error(3, -32000, "attempt 2, context Boot, node node-a").step()
session.node(4, {"do": "refuse", "text": "no room on this node", "retryable": True})
session.error(4, -32000, "no room on this node", retryable=True).step()

session = Session("invocation", "calls", "What a call says of itself reaches the hook; left out, it is a first attempt", shim=False)
session.start()
session.define(2, {"do": "invocation"}, invocation={**INVOCATION, "context": "MigrationTarget"})
session.error(2, -32000, "attempt 1, context MigrationTarget, node none").step()
session.define(3, {"do": "invocation"}, invocation={**INVOCATION, "attempt": 2})
session.error(3, -32000, "attempt 2, context none, node none").step()
session.says(request(4, "onDefineDomain", {"vmi": vmi({"do": "invocation"}), "domain": DOMAIN}))
session.error(4, -32000, "attempt 1, context none, node none").step()
session.says(request(5, "preVMStart", {"vmi": vmi({"do": "invocation"}), "nodeName": "", "invocation": None}))
session.error(5, -32000, "attempt 1, context none, node ").step()

# ---- texts

session = Session("text-attached", "attachments", "A document passes byte for byte, attached both ways")
session.start().define(2, {"do": "append", "text": TEXT}, TEXT).domain(2, TEXT + TEXT).step()
session.define(3, {"do": "answer", "text": "<domain/>"}).domain(3, "<domain/>").step()

session = Session("text-inline", "calls", "A shim that takes no attachments gets the document inline")
session.start(attachments=False).define_inline(2, {"do": "append", "text": TEXT}, TEXT)
session.result(2, {"domain": TEXT + TEXT}).step()
session.define_inline(3).unchanged(3).step()

session = Session("text-inline-to-attaching-worker", "attachments", "The worker attaches even where the shim did not", shim=False)
session.start().define_inline(2, {"do": "append", "text": "<!-- é -->"}).domain(2, DOMAIN + "<!-- é -->").step()

session = Session("text-empty", "attachments", "A frame holds at least one byte, so an empty document stays inline")
session.start().define(2, domain="").unchanged(2).step()
session.define(3, {"do": "append", "text": "x"}, domain="").domain(3, "x").step()
session.define(4, {"do": "answer", "text": ""}).result(4, {"domain": ""}).step()

session = Session("text-escaped", "messages", "Every way to write a character in JSON is the same character", shim=False)
session.start().says(
    r'{"jsonrpc":"2.0","id":2,"method":"onDefineDomain","params":{"vmi":{"\u0076ector":{"do":"append","text":'
    r'"\u00e9\u20AC\ud83d\ude00\uD83D\uDE00\/\"\\\n\r\t\u0022\u005c\u001f\u003c\u0026\ud7ff\ue000\uffff"}},'
    r'"domain":"<domain name=\"\u00e9\"\/>","invocation":{"deadlineMs":54000,"attempt":1}}}'
)
session.domain(2, '<domain name="é"/>' + 'é€😀😀/"\\\n\r\t"\\\x1f<&\ud7ff\ue000\uffff').step()

session = Session("text-white-space", "messages", "JSON may hold white space, and members in any order", shim=False)
session.start().says(
    ' \t\r\n{ "params" : { "domain" : " <domain/> " ,\n "invocation" : { } , "vmi" : { } } , "method" : "onDefineDomain"'
    ' , "id" : 2 , "jsonrpc" : "2.0" } \n'
).unchanged(2).step()

session = Session("text-too-large", "limits", "A result that does not fit a frame is an error, and the worker goes on")
session.start().define(2, {"do": "grow", "bytes": 16777216}).error(2, -32000, "the result does not fit a frame").step()
session.define(3).unchanged(3).step()

# ---- attachments

session = Session("attachments-all", "attachments", "Every document may be attached, in any order", shim=False)
session.start()
message = request(2, "onDefineDomain", {"invocation": INVOCATION})
vector = compact(vmi({"do": "append", "text": "<!-- é -->"})).encode()
session.says({**message, "attachments": ["domain", "vmi"]}, DOMAIN.encode(), vector).domain(2, DOMAIN + "<!-- é -->").step()
message = {**message, "id": 3}
session.says({**message, "attachments": ["vmi", "domain"]}, vector, DOMAIN.encode()).domain(3, DOMAIN + "<!-- é -->").step()
vector = compact(vmi({"do": "answer", "text": "new"})).encode()
message = {**request(4, "preCloudInitIso", {}), "attachments": ["cloudInitData", "vmi"]}
session.says(message, compact(CLOUD_INIT).encode(), vector)
session.result(4, {"cloudInitData": {**CLOUD_INIT, "UserData": "new"}}).step()

session = Session(
    "attachments-skipped", "attachments", "The frames of an attachment are read even where nobody needs them", shim=False
)
session.start().says({"jsonrpc": "2.0", "method": "$/later", "attachments": ["a", "b"]}, b"{}", b"\x00\x01")
session.says({**request(2, "later", {}), "attachments": ["domain"]}, b"x").error(2, -32601, "unknown method").step()
message = {**request(3, "onDefineDomain", {"vmi": vmi(None)}), "attachments": ["later", "domain"]}
session.says(message, b"\xff", DOMAIN.encode()).unchanged(3).step()
session.says({**request(4, "preVMStart", {"vmi": {}, "nodeName": "a"}), "attachments": None}).result(4, {}).step()
session.says({**request(5, "preVMStart", {"vmi": {}, "nodeName": "a"}), "attachments": []}).result(5, {}).step()

# ---- messages

session = Session("unknown-members", "messages", "Members that are not described are ignored, whatever they hold", shim=False)
session.start(capabilities={"attachments": True, "later": {"attachments": False}}, later=None)
message = request(2, "onDefineDomain", {"later": [None], "vmi": vmi(None), "domain": DOMAIN, "result": 1})
message["params"]["invocation"] = {**INVOCATION, "later": {}, "context": None}
session.says({"later": {"id": 7}, **message, "trace": "é"}).unchanged(2).step()

session = Session("unknown-methods", "messages", "A request gets an error, a notification nothing", shim=False)
session.start().says(request(2, "noSuchHook", {"vmi": {}})).error(2, -32601, "unknown method").step()
session.says({"jsonrpc": "2.0", "id": 3, "method": "$/later"}).error(3, -32601, "unknown method").step()
session.says({"jsonrpc": "2.0", "method": "$/later", "params": [1]}).says({"jsonrpc": "2.0", "method": "noSuchHook"})
session.says({"jsonrpc": "2.0", "method": "onDefineDomain", "params": {"vmi": {}, "domain": DOMAIN}})
session.says({"jsonrpc": "2.0", "id": 9, "error": {"code": -32601, "message": "the shim takes no requests"}})
session.define(4).unchanged(4).step()

session = Session("ids", "messages", "An answer has the id of its request, up to 2^53 - 1")
session.start().define(2147483648).unchanged(2147483648).step().define(4294967297, {"do": "refuse", "text": "no"})
session.error(4294967297, -32000, "no").step().node(9007199254740991).result(9007199254740991, {}).step()

# ---- errors

session = Session("errors", "errors", "What a hook throws becomes the error of its call, and the worker goes on")
session.start().define(2, {"do": "refuse", "text": "disk vda is not allowed"})
session.error(2, -32000, "disk vda is not allowed").step()
session.define(3, {"do": "refuse", "text": TEXT, "retryable": True}).error(3, -32000, TEXT, retryable=True).step()
session.define(4, {"do": "refuse", "text": "final", "retryable": False}).error(4, -32000, "final").step()
session.cloud_init(5, {"do": "reject", "text": "no user data"}).error(5, -32602, "no user data").step()
session.define(6).unchanged(6).step()

session = Session("faults", "errors", "A fault is one record of the log, without the words of the exception")
session.faults = True
session.start()
session.define(2, {"do": "fail", "text": "vector fault"}).log("error", ANY, 2).error(2, -32603, FAULT).step()
session.cloud_init(3, {"do": "fail", "text": "vector fault"}).log("error", ANY, 3).error(3, -32603, FAULT).step()
session.node(4, {"do": "fail", "text": "vector fault"}).log("error", ANY, 4).error(4, -32603, FAULT).step()
session.define(5).unchanged(5).step()

session = Session("faults-debug", "errors", "For its author, a second record has the words of the exception")
session.faults = True
session.start(logLevel="debug").define(2, {"do": "fail", "text": "vector fault"})
session.log("error", ANY, 2).log("debug", ANY, 2).error(2, -32603, FAULT).step()

session = Session("invalid-params", "errors", "Params that cannot be used", shim=False)
session.start()
for ident, (method, params, member, kind) in enumerate(
    [
        ("onDefineDomain", {"domain": DOMAIN}, "vmi", "an object"),
        ("onDefineDomain", {"vmi": [1], "domain": DOMAIN}, "vmi", "an object"),
        ("onDefineDomain", {"vmi": {}}, "domain", "a string"),
        ("onDefineDomain", {"vmi": {}, "domain": None}, "domain", "a string"),
        ("preCloudInitIso", {"vmi": {}, "cloudInitData": "{}"}, "cloudInitData", "an object"),
        ("preCloudInitIso", {"vmi": None, "cloudInitData": {}}, "vmi", "an object"),
        ("preVMStart", {"vmi": {}, "nodeName": 7}, "nodeName", "a string"),
        ("onDefineDomain", [{}, DOMAIN], "params", "an object"),
        ("onDefineDomain", None, "params", "an object"),
    ],
    2,
):
    session.says(request(ident, method, params)).error(ident, -32602, f"{member} is missing or not {kind}").step()
message = {**request(20, "onDefineDomain", {"vmi": {}}), "attachments": ["domain"]}
session.says(message, b"<domain>\xff</domain>").error(20, -32602, "domain is not UTF-8").step()
message = {**request(21, "onDefineDomain", {"domain": DOMAIN}), "attachments": ["vmi"]}
session.says(message, b"{").error(21, -32602, "vmi is missing or not an object").step()
session.define(22).unchanged(22).step()

# ---- documents that a parser may refuse

session = Session("json-deepest", "limits", "JSON that is nested as deeply as the shim lets pass")
session.start()
# The VMI is an object, and around it are the message and its params.
session.define(2, {"do": "append", "text": "<!-- deep -->", "more": nested(DEEPEST - 2)}).domain(2, DOMAIN + "<!-- deep -->").step()

session = Session("json-too-deep", "limits", "JSON beyond every parser's depth is the call's fault, and the worker goes on", shim=False)
session.start()
text = compact(request(2, "onDefineDomain", {"domain": DOMAIN, "vmi": "@"})).replace('"@"', '{"more":%s}' % deep(50000))
session.long(text, "a call of onDefineDomain whose vmi has 50,000 arrays in each other")
session.error(2, -32602, "vmi is missing or not an object").step()
message = {**request(3, "preVMStart", {"nodeName": "node-a"}), "attachments": ["vmi"]}
session.long(compact(message), "a call of preVMStart with such a vmi in an attachment", '{"more":%s}' % deep(50000))
session.error(3, -32602, "vmi is missing or not an object").step()
# What no hook reads does no harm.
session.long(compact({"jsonrpc": "2.0", "method": "$/later", "params": {"more": nested(200)}}), "a notification with 200 arrays in each other").step()
session.define(4).unchanged(4).step()

# ---- log and standard output

LEVELS = ["debug", "info", "warning", "error"]


def logs(session, least):
    """A line of every level, of which the worker sends those from `least` on."""
    for ident, level in enumerate(LEVELS, 2):
        session.define(ident, {"do": "log", "level": level, "text": f"{level}: {TEXT}"})
        if LEVELS.index(level) >= LEVELS.index(least):
            session.log(level, f"{level}: {TEXT}", ident)
        session.unchanged(ident).step()


session = Session("log", "log-lines", "A line with its level and the call that it belongs to")
logs(session.start(logLevel="debug"), "debug")

for level in LEVELS[1:]:
    session = Session(f"log-{level}", "log-lines", f"The shim logs from level {level} on, and the worker sends no other lines")
    logs(session.start(logLevel=level), level)

session = Session("log-older-shim", "log-lines", "A shim that says no level, as if it said info", shim=False)
logs(session.start(logLevel=None), "info")

session = Session("log-unknown-level", "log-lines", "A level that the worker does not know, as if the shim said info", shim=False)
logs(session.start(logLevel="notice"), "info")

session = Session("log-fields", "log-lines", "Fields stay apart from the text")
session.start()
fields = {"count": 3, "disk": TEXT, "ratio": 1.5, "seen": True}
session.define(2, {"do": "log", "level": "info", "text": "attached", "fields": fields})
session.log("info", "attached", 2, fields).unchanged(2).step()
session.define(3, {"do": "log", "level": "warning", "text": "none", "fields": {}}).log("warning", "none", 3).unchanged(3).step()
fields = {f"field{number:02}": number for number in range(40)}
session.define(4, {"do": "log", "level": "error", "text": "many", "fields": fields})
session.log("error", "many", 4, dict(list(fields.items())[:32])).unchanged(4).step()

session = Session("print", "start", "What a hook prints does not get between the frames, but to standard error")
session.start().define(2, {"do": "print", "text": "printed by vector 2"}).unchanged(2).step()
session.stderr = ["printed by vector 2"]

# ---- cancellation and concurrency

session = Session("cancel", "cancellation", "A call that is cancelled before its hook returns, whatever that does then")
session.start()
for ident, then in enumerate([None, {"do": "answer", "text": "late"}, {"do": "refuse", "text": "late"}], 2):
    session.define(ident, {"do": "wait", **({"then": then} if then else {})}).step()
    session.cancel(ident).error(ident, -32800, "the call was cancelled").step()
session.node(5, {"do": "wait"}).step().cancel(5).error(5, -32800, "the call was cancelled").step()
session.define(6).unchanged(6).step()

session = Session("cancel-unknown", "cancellation", "An id that is unknown, or was answered already, is ignored", shim=False)
session.start().cancel(1).cancel(7).define(2).unchanged(2).step().cancel(2).define(3).unchanged(3).step()
session.says({"jsonrpc": "2.0", "method": "$/cancelRequest"})
session.says({"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": "4"}}).cancel(5)
session.define(4).unchanged(4).step()

session = Session("concurrency", "concurrency", "Two calls at once, answered in another order", concurrency=2)
session.start().define(2, {"do": "wait"}).step().define(3, {"do": "append", "text": "3"}).domain(3, DOMAIN + "3").step()
session.node(4).result(4, {}).step().cancel(2).error(2, -32800, "the call was cancelled").step()
session.define(5, {"do": "wait"}).define(6, {"do": "wait"}).step()
session.cancel(6).error(6, -32800, "the call was cancelled").step()
session.cancel(5).error(5, -32800, "the call was cancelled").step()

# ---- what cannot be read

for name, about, data in [
    ("zero-length", "A frame of length 0", bytes(4)),
    ("too-long", "A frame of 16,777,216 bytes", b"\x01\x00\x00\x00"),
    ("text", "Text where a frame should be", b"{}\n\n"),
    ("torn-header", "Half a header", b"\x00\x00"),
    ("torn-body", "Half a message", b'\x00\x00\x00\x20{"jsonrpc":"2.0"'),
    ("not-json", "A frame that is not JSON", frame(b"<domain/>")),
    ("half-json", "A frame with half an object", frame(b'{"jsonrpc":"2.0","id":2')),
    ("two-objects", "A frame with something behind its object", frame(b"{}{}")),
    ("array", "A batch", frame(b'[{"jsonrpc":"2.0","id":2,"method":"noSuchHook"}]')),
    ("number", "A message that is not an object", frame(b"7")),
    ("null", "A message that is null", frame(b"null")),
    ("nan", "A number that JSON does not know", frame(b'{"jsonrpc":"2.0","method":"$/later","params":{"a":NaN}}')),
    ("control-character", "A line break inside a JSON string", frame(b'{"jsonrpc":"2.0","method":"$/la\nter"}')),
    ("not-utf-8", "A message that is not UTF-8", frame(b'{"jsonrpc":"2.0","method":"$/later\xff"}')),
    ("utf-16", "A message in UTF-16", frame('{"jsonrpc":"2.0","method":"$/later"}'.encode("utf-16-le"))),
    ("byte-order-mark", "A byte order mark", frame(b'\xef\xbb\xbf{"jsonrpc":"2.0","method":"$/later"}')),
    (
        "missing-attachment",
        "The input ends before an attachment that was announced",
        frame(b'{"jsonrpc":"2.0","id":2,"method":"onDefineDomain","params":{"vmi":{}},"attachments":["domain"]}'),
    ),
]:
    Session(f"broken-{name}", "frames", about).start().breaks(data).step()
