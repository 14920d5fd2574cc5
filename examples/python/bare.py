#!/usr/bin/env python3
"""The worker protocol without an SDK: sets the base board manufacturer from an annotation."""
import json, os, sys
from xml.dom import minidom

def on_define_domain(vmi, domain):
    manufacturer = vmi["metadata"].get("annotations", {}).get("smbios.vm.kubevirt.io/baseBoardManufacturer")
    if manufacturer is None:
        return {"unchanged": True}
    document = minidom.parseString(domain)
    board = document.getElementsByTagName("baseBoard")[0]  # KubeVirt always writes one
    entries = {entry.getAttribute("name"): entry for entry in board.getElementsByTagName("entry")}
    entry = entries.get("manufacturer") or board.appendChild(document.createElement("entry"))
    entry.setAttribute("name", "manufacturer")
    entry.childNodes[:] = [document.createTextNode(manufacturer)]
    return {"domain": document.documentElement.toxml()}

if "KUBEVIRT_HOOK_PROTOCOL" not in os.environ:
    print("bare.py is a worker: start it with sidecar-shim --mode persistent", file=sys.stderr)
    sys.exit(2)
while header := sys.stdin.buffer.read(4):  # the shim closes stdin to stop the worker
    length = int.from_bytes(header, "big")
    assert 1 <= length <= 16777215, "invalid frame length"
    message = {**json.loads(sys.stdin.buffer.read(length).decode())}  # fails if not an object
    try:
        if message["method"] == "onDefineDomain":
            outcome = {"result": on_define_domain(message["params"]["vmi"], message["params"]["domain"])}
        elif message["method"] != "initialize":
            outcome = {"error": {"code": -32601, "message": "unknown method"}}
        elif 1 in message["params"]["protocolVersions"]:
            outcome = {"result": {"protocolVersion": 1, "hooks": ["onDefineDomain"]}}
        else:
            outcome = {"error": {"code": -32602, "message": "no common version", "data": {"protocolVersions": [1]}}}
    except Exception as error:
        outcome = {"error": {"code": -32603, "message": f"{type(error).__name__}: {error}"}}
    if "id" in message:  # notifications get no response
        payload = json.dumps({"jsonrpc": "2.0", "id": message["id"], **outcome}).encode()
        sys.stdout.buffer.write(len(payload).to_bytes(4, "big") + payload)
        sys.stdout.buffer.flush()
