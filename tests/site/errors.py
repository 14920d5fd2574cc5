"""Makes the errors of docs/errors.md happen: runs the programs with faulty hooks, as a user would, and reads what they print.

The headings of the page are texts. Each must be what the program prints, but for `…`. What was printed is then what a reader
pastes into the site's search.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/errors.md"
# Longer than any command below takes.
PATIENCE = 60

SCRIPT = "#!/bin/sh\n"
WORKER = f"""import os, sys, time
sys.path.insert(0, {str(ROOT / "sdk/python")!r})
import kubevirt_hook
hook = kubevirt_hook.Worker("asset-tag")
"""
DOMAIN = WORKER + "@hook.on_define_domain\ndef on_define_domain(vmi, domain):\n    {}\nhook.run()\n"
# Hooks with a fault each.
FILES = {
    "refuses.py": DOMAIN.format("raise kubevirt_hook.Refused('annotation example.org/asset-tag: not a number: abc')"),
    "exits": SCRIPT + "echo 'cannot read the annotation' >&2\nexit 1\n",
    "fault.py": DOMAIN.format("return vmi['spec']['nothing']"),
    "killed.py": DOMAIN.format("os.kill(os.getpid(), 9)"),
    "breaks.py": """import json, sys
def read():
    return json.loads(sys.stdin.buffer.read(int.from_bytes(sys.stdin.buffer.read(4), "big")))
def write(frame):
    sys.stdout.buffer.write(frame)
    sys.stdout.buffer.flush()
result = {"protocolVersion": 1, "hooks": ["onDefineDomain"]}
body = json.dumps({"jsonrpc": "2.0", "id": read()["id"], "result": result}).encode()
write(len(body).to_bytes(4, "big") + body)
read()
write(bytes(4))
sys.stdin.read()
""",
    "hangs.py": DOMAIN.format("time.sleep(100)"),
    "prefix": SCRIPT + "echo '<domain><qemu:commandline/></domain>'\n",
    "ampersand": SCRIPT + "echo '<domain><name>a & b</name></domain>'\n",
    "empty": SCRIPT,
    "debug": SCRIPT + "echo called\nprintf '%s\\n' \"$4\"\n",
    "kind.py": WORKER + "@hook.pre_cloud_init_iso\ndef f(vmi, data):\n    return {**data, 'UserData': 5}\nhook.run()\n",
    "big.json": json.dumps({"kind": "VirtualMachineInstance", "metadata": {"name": "vm", "annotations": {"big": "x" * 200000}}}),
    "returns": SCRIPT + "printf '%s\\n' \"$4\"\n",
    "prints.py": "print('called', flush=True)\n" + DOMAIN.format("pass"),
    "sleeps": SCRIPT + "exec sleep 100\n",
    "windows": "#!/bin/sh\r\necho\r\n",
    "unreadable": SCRIPT,
    "half.json": "{",
    "forgets.py": WORKER + "@hook.on_define_domain\ndef f(vmi, domain):\n    pass\nhook.run\n",
    "drops.py": WORKER + "@hook.pre_cloud_init_iso\ndef f(vmi, data):\n    data['UserData'] = ''\nhook.run()\n",
    "number.py": DOMAIN.format("return 5"),
    "path.py": WORKER + "@hook.edit_domain\ndef f(vmi, domain):\n    domain.find('devices/disk[2]')\nhook.run()\n",
}


class Made(NamedTuple):
    """How to make an error: the section, the program, its options, the hook's command."""

    section: str
    command: str
    hook: str = ""


CALL, CLOUD_INIT = "hookctl call onDefineDomain", "hookctl call preCloudInitIso"
SERVE = "sidecar-shim --version v1alpha3 --socket-dir . --mode persistent"
MADE = [
    Made("rpc error: code = FailedPrecondition desc = hook … refused: …", CALL, "python3 refuses.py"),
    Made("hook … failed: … exited with status …; the last lines of its stderr", CALL, "./exits"),
    Made("hook … failed: a fault in the hook's code; its log has the trace", CALL, "python3 fault.py"),
    Made("hook … failed: … was killed by SIGKILL (probably out of memory)", CALL, "python3 killed.py"),
    Made("hook … failed: … broke the worker protocol: …; it wrote nothing to its stderr", CALL, "python3 breaks.py"),
    Made("hook … did not answer within … s: … was stopped", CALL + " --timeout 1s", "python3 hangs.py"),
    Made('domain is not a well-formed domain: prefix "qemu" is not declared', CALL, "./prefix"),
    Made("domain is not a well-formed domain: a bare …; write …", CALL, "./ampersand"),
    Made("returned an invalid document: domain is empty; it must be the whole domain document", CALL, "./empty"),
    Made("domain is not a well-formed domain: there is text outside the element", CALL, "./debug"),
    Made("returned an invalid document: cloudInitData has a number in UserData, where KubeVirt reads a string", CLOUD_INIT, "python3 kind.py"),
    Made("exceeded a size limit: the argument --vmi is … bytes long and Linux accepts at most 131071 bytes for one argument", CALL + " --mode exec --vmi big.json", "./returns"),
    Made("hook … is not served here: the worker declares …", "hookctl call preVMStart", "python3 refuses.py"),
    Made("skipped text on the worker's stdout, which is for frames only", CALL + " --mode persistent", "python3 prints.py"),
    Made("no hook API version: give --version v1alpha1, v1alpha2 or v1alpha3", "sidecar-shim"),
    Made("cannot start hook worker: … exited with status … before it answered initialize (an argv-style program? those run with --mode exec)", SERVE, "./exits"),
    Made("cannot start hook worker: … did not answer initialize within … (--start-timeout) (does it read its stdin? argv-style programs run with --mode exec)", SERVE + " --start-timeout 1s", "./sleeps"),
    Made("cannot run …: the interpreter in the first line of … does not exist", SERVE, "./windows"),
    Made("cannot run … it or its interpreter, …, is not executable (chmod +x, or defaultMode: 0755 for a ConfigMap", SERVE, "./unreadable"),
    Made("persistent mode needs a worker: name one with --worker", SERVE),
    Made("the socket directory … does not exist or cannot be read", "sidecar-shim --version v1alpha3 --socket-dir nothing"),
    Made("… is not healthy: cannot connect to …", "sidecar-shim health --socket nothing.sock"),
    Made("invalid value … for …: time unit needed, for example 5sec or 5ms", SERVE + " --call-timeout 5", "./sleeps"),
    Made("the command is not a worker (…): it runs as a program for each call (--mode exec)", CALL, "./returns"),
    Made("unknown hook …: hooks are onDefineDomain, preCloudInitIso, node hooks such as preVMStart", "hookctl call onDefineDomian", "./returns"),
    Made("cannot use … as the VMI: it is not JSON", CALL + " --vmi half.json", "./returns"),
    Made("cannot read the cases in …: No such file or directory", "hookctl test", "./returns"),
    Made("FAIL handshake responds to initialize with its version and its hooks", "hookctl check", "./returns"),
    Made("the program has ended before run() was called", CALL, "python3 forgets.py"),
    Made("preCloudInitIso has changed the data and returned None: return the data", CLOUD_INIT, "python3 drops.py"),
    Made("kubevirt_hook._WrongResult: onDefineDomain must return a str, bytes, Document or None", CALL, "python3 number.py"),
    Made("kubevirt_xml.PathError: character …: … expected", CALL, "python3 path.py"),
]
# What other programs print, and what takes a busy cluster.
OTHERS = {
    "rpc error: code = DeadlineExceeded desc = context deadline exceeded": "context deadline exceeded",
    "fork/exec /usr/bin/onDefineDomain: argument list too long": "exceeded a size limit: the argument --vmi is … bytes long and Linux accepts at most 131071 bytes for one argument",
    "rpc error: code = ResourceExhausted desc = hook onDefineDomain is busy: 256 calls are waiting already (--queue-limit)": "hook … is busy: … calls are waiting already (--queue-limit)",
    "ModuleNotFoundError: No module named 'kubevirt_hook'": "cannot start hook worker: … exited with status … before it answered initialize (an argv-style program? those run with --mode exec)",
}


def anchor(heading):
    """The anchor of a heading, on the site and at GitHub."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def sections():
    """The texts that the page has as headings."""
    texts = re.findall(r"^### `(.+)`\n\n\S", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    if len(texts) != PAGE.read_text(encoding="utf-8").count("\n### "):
        sys.exit("docs/errors.md has a section without a text, or without an explanation")
    return set(texts)


def pattern(text):
    """Matches what a text stands for. Tables have more white space."""
    words = [r"[^\n]*?".join(map(re.escape, word.split("…"))) for word in text.split()]
    return re.compile(r"\s+".join(words))


def as_kubevirt(printed):
    """Writes a failed call as KubeVirt's events do, with grpc-go's words for an error."""
    status = re.match(r"hookctl: \w+ failed: ([A-Z_]+): ", printed)
    if not status:
        return printed
    code = status[1].title().replace("_", "")
    return f'server error. command SyncVMI failed: "rpc error: code = {code} desc = {printed[status.end():]}"'


def printed_by(made, directory):
    """What the program prints, with the messages of log lines as they are read."""
    program, *options = made.command.split()
    command = [str(ROOT / "target/debug" / program), *options, *(["--", *made.hook.split()] if made.hook else [])]
    env = {"PATH": "/usr/bin:/bin", "HOME": str(directory)}
    ran = subprocess.run(command, cwd=directory, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE)
    lines = f"{ran.stdout}\n{ran.stderr}".splitlines()
    return "\n".join(json.loads(line)["msg"] if line.startswith('{"component"') else line for line in lines)


def pasted(directory):
    """Makes all errors. Returns what a reader pastes, each with the anchor of its section, and the faults of the page."""
    for name, content in FILES.items():
        (directory / name).write_text(content, encoding="utf-8")
        (directory / name).chmod(0o644 if name == "unreadable" else 0o755)
    texts, pastes, faults = sections(), {}, []
    for made in MADE:
        printed = "\n".join(map(as_kubevirt, printed_by(made, directory).splitlines()))
        found = pattern(made.section).search(printed)
        if not found:
            faults.append(f"docs/errors.md, “{made.section}”, does not have what {made.command} prints:\n{printed}")
            continue
        # A reader pastes the whole line, but for a trace.
        start = printed.rfind("\n", 0, found.start()) + 1
        pastes[re.split(r"\n|\\n  File", printed[start:], maxsplit=1)[0] if "FAIL" not in made.section else found[0]] = anchor(made.section)
    pastes |= {text: anchor(section) for text, section in OTHERS.items()}
    if odd := {anchor(text) for text in texts} ^ set(pastes.values()):
        faults.append(f"docs/errors.md and the errors that are made differ: {sorted(odd)}")
    return pastes, faults
