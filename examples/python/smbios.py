#!/usr/bin/env python3
"""Sets the base board manufacturer that a guest sees in its SMBIOS tables.

It is taken from the VM's annotation smbios.vm.kubevirt.io/baseBoardManufacturer. One file serves
both modes: with KUBEVIRT_HOOK_PROTOCOL in the environment it is a persistent worker; without, it is
run once for each call, as `onDefineDomain --vmi JSON --domain XML`, and prints the result.
"""

import json
import os
import re
import sys
from xml.etree import ElementTree
from xml.parsers import expat

# ---- The hook: documents in, a document out. This is the part to replace. ----

ANNOTATION = "smbios.vm.kubevirt.io/baseBoardManufacturer"
# Control characters, surrogates and noncharacters: not for XML, still less for an SMBIOS string.
UNFIT = re.compile("[^ -~\xa0-\ud7ff\ue000-\ufdcf\ufdf0-\ufffd\U00010000-\U0010ffff]")


class Failure(Exception):
    """Ends a call: -32000 with a message for the VM's owner, -32602 for params that are unusable."""

    def __init__(self, code, message, **data):
        super().__init__(message)
        self.error = {"code": code, "message": message, **({"data": data} if data else {})}


def on_define_domain(vmi, domain):
    """The domain with the manufacturer set, or None where it is right as it stands."""
    manufacturer = ((vmi.get("metadata") or {}).get("annotations") or {}).get(ANNOTATION)
    if manufacturer is None:
        return None
    if UNFIT.search(manufacturer):
        raise Failure(-32000, f"annotation {ANNOTATION}: a character that SMBIOS cannot hold")
    root = parse(domain)
    if root.tag != "domain":
        raise Failure(-32602, "domain: the root element is not <domain>")
    smbios = child(child(root, "os"), "smbios")
    entry = child(child(child(root, "sysinfo", type="smbios"), "baseBoard"), "entry", name="manufacturer")
    if smbios.get("mode") == "sysinfo" and (entry.text or "") == manufacturer:
        return None  # a later call of the same boot, on our own result
    smbios.set("mode", "sysinfo")
    entry.text = manufacturer
    # What stands around the root is no part of the tree.
    head = re.match(r"\s*(<\?xml\s.*?\?>\s*)?", domain, re.DOTALL).group()
    # `<a></a>` for an empty element is how KubeVirt writes it.
    text = ElementTree.tostring(root, encoding="unicode", short_empty_elements=False)
    return head + text + domain[len(domain.rstrip()):]


def parse(text):
    """The root element. ElementTree's own parser knows namespaces, and so writes `ns0:kubevirt` for
    `<kubevirt xmlns="http://kubevirt.io">` and drops an unused `xmlns:qemu`. Without them every
    prefix and declaration stays as it is written."""
    tree = ElementTree.TreeBuilder(insert_comments=True, insert_pis=True)
    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = tree.start, tree.end
    parser.CharacterDataHandler, parser.CommentHandler = tree.data, tree.comment
    parser.ProcessingInstructionHandler = tree.pi
    try:
        parser.Parse(text, True)
    except expat.ExpatError as error:
        raise Failure(-32602, f"domain: {error}") from None
    return tree.close()


def child(parent, tag, **attributes):
    """The first child element with this tag and these attributes; the last is a new one if none is."""
    for node in parent.iterfind(tag):
        if all(node.get(name) == value for name, value in attributes.items()):
            return node
    node = ElementTree.SubElement(parent, tag, attributes)
    if len(parent) > 1:  # the end tag keeps its own line
        before = parent[-2]
        before.tail, node.tail = None, before.tail
    return node


# ---- The protocol: frames of a 4-byte big-endian length and one JSON-RPC message. ----

MAX_FRAME = 16 * 1024 * 1024 - 1


def serve():
    # Only frames may leave by the descriptor that the shim reads: what this process or its
    # children print goes to stderr instead.
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    for message in messages(sys.stdin.buffer):
        if "id" not in message:
            continue  # a notification: none concerns this worker
        try:
            outcome = {"result": answer(message.get("method"), message.get("params"))}
        except Failure as failure:
            outcome = {"error": failure.error}
        except Exception as error:
            sys.excepthook(*sys.exc_info())  # prints the trace to stderr
            text = f"{type(error).__name__} in the hook; its log has the trace"
            outcome = {"error": {"code": -32603, "message": text}}
        send(output, message["id"], outcome)


def answer(method, params):
    """The result of one request."""
    if method not in ("initialize", "onDefineDomain"):
        raise Failure(-32601, f"unknown method {method}")
    if not isinstance(params, dict):
        raise Failure(-32602, "params is not an object")
    if method == "initialize":
        if 1 not in params.get("protocolVersions", []):
            raise Failure(-32602, "no common protocol version", protocolVersions=[1])
        worker = {"name": "smbios", "version": "1.0.0"}
        return {"protocolVersion": 1, "worker": worker, "hooks": ["onDefineDomain"]}
    vmi, domain = params.get("vmi"), params.get("domain")
    if not isinstance(vmi, dict) or not isinstance(domain, str):
        raise Failure(-32602, "onDefineDomain takes vmi, an object, and domain, a string")
    result = on_define_domain(vmi, domain)
    return {"unchanged": True} if result is None else {"domain": result}


def messages(stream):
    """Every message up to end-of-file. There is no way back after a frame that cannot be read."""
    while header := stream.read(4):  # a buffered stream returns less only at end-of-file
        length = int.from_bytes(header, "big")
        if len(header) < 4 or not 1 <= length <= MAX_FRAME:
            sys.exit(f"smbios: not the length of a frame: {header.hex(' ')}")
        payload = stream.read(length)
        if len(payload) < length:
            sys.exit("smbios: standard input ended inside a frame")
        try:
            message = json.loads(payload.decode())
        except (ValueError, RecursionError) as error:
            sys.exit(f"smbios: a frame that is not JSON: {error}")
        if not isinstance(message, dict):
            sys.exit("smbios: a message that is not an object")
        yield message


def send(output, request, outcome):
    payload = json.dumps({"jsonrpc": "2.0", "id": request, **outcome}).encode()
    if len(payload) > MAX_FRAME:
        error = {"code": -32000, "message": "the result is too large for a frame"}
        payload = json.dumps({"jsonrpc": "2.0", "id": request, "error": error}).encode()
    output.write(len(payload).to_bytes(4, "big") + payload)
    output.flush()


# ---- Argv style: one process for each call. ----


def run_once():
    if len(sys.argv) != 5 or sys.argv[1::2] != ["--vmi", "--domain"]:
        print("usage: onDefineDomain --vmi JSON --domain XML", file=sys.stderr)
        sys.exit(2)
    try:
        # The arguments' own bytes, whatever the locale made of them.
        vmi, domain = (os.fsencode(text).decode() for text in sys.argv[2::2])
        result = on_define_domain(json.loads(vmi), domain)
    except (Failure, ValueError) as error:
        sys.exit(f"smbios: {error}")
    sys.stdout.buffer.write((domain if result is None else result).encode())


if __name__ == "__main__":
    # Removed, so that no program started from here takes itself for a worker.
    if os.environ.pop("KUBEVIRT_HOOK_PROTOCOL", None) is None:
        run_once()
    else:
        serve()
