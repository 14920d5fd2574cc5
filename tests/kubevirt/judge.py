"""KubeVirt's code as a process, shims for it to call, and what a domain contains."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
from xml.etree import ElementTree

ROOT = pathlib.Path(__file__).resolve().parents[2]
SAMPLES = "crates/hookctl/src/samples/"
QEMU = "{http://libvirt.org/schemas/domain/qemu/1.0}"

# Where KubeVirt looks for the sockets of sidecars, in a directory for each.
SIDECARS = pathlib.Path("/var/run/kubevirt-hooks")

# Numbers of disks: the size of a domain, from 3 kB to 126 kB.
DISKS = (1, 16, 256)

# The time for a shim to stop.
STOP_SECONDS = 30


def fail(text):
    sys.exit(f"kubevirt: FAILED: {text}")


def say(text):
    print(f"kubevirt: {text}", flush=True)


def read(path):
    return (ROOT / path).read_text(encoding="utf-8")


def load(path):
    return json.loads(read(path))


def machine(annotation=None, disks=None):
    """The sample VM, with one annotation, and with a number of disks instead of its own."""
    vmi = load(SAMPLES + "vmi.json")
    vmi["metadata"]["annotations"] = dict([annotation] if annotation else [])
    if disks is not None:
        names = [f"disk{number}" for number in range(disks)]
        image = {"image": "registry.example/disk"}
        vmi["spec"]["domain"]["devices"]["disks"] = [{"name": name, "disk": {"bus": "virtio"}} for name in names]
        vmi["spec"]["volumes"] = [{"name": name, "containerDisk": image} for name in names]
    return vmi


class Refused(Exception):
    """KubeVirt's code returned an error."""


class Judge:
    """The program of judge.go. `judge("admit", object=…)` makes a request."""

    def __init__(self, log):
        self.process = subprocess.Popen(
            [ROOT / "target/kubevirt/judge"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        )

    def __call__(self, do, **fields):
        self.process.stdin.write(json.dumps({"do": do, **fields}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            fail(f"the judge has exited with status {self.process.wait()} at {do}")
        reply = json.loads(line)
        if "error" in reply:
            raise Refused(reply["error"])
        return reply


@contextlib.contextmanager
def shim(command, *options, variables=(), log=None):
    """A running shim. With a sidecar's socket it is stopped by KubeVirt, or else here."""
    environment = {**os.environ, **dict(variables), "CONTAINER_NAME": "hook-sidecar-0"}
    words = [ROOT / "target/debug/sidecar-shim", *options, *(["--", *command] if command else [])]
    process = subprocess.Popen(words, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stderr=log)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            fail(f"the shim did not stop: {words}")
    if process.returncode:
        fail(f"the shim exited with status {process.returncode}: {words}")


def socket_directory(path):
    """Makes the directory of a socket."""
    directory = pathlib.Path(path).parent
    directory.mkdir(parents=True, exist_ok=True)


def parse(domain):
    try:
        return ElementTree.fromstring(domain)
    except ElementTree.ParseError as error:
        fail(f"not a document ({error}):\n{domain}")


def content(element):
    """What an element contains, without the order of elements and attributes and without empty elements. `None`
    if that is nothing."""
    children = sorted(filter(None, map(content, element)), key=repr)
    text = "" if children else (element.text or "").strip()
    if not (children or element.attrib or text):
        return None
    return (element.tag, sorted(element.attrib.items()), text, children)


def facts(element, path=()):
    """The same as a set of facts: attributes and texts, each with the path to it."""
    path = (*path, element.tag)
    children = [each for each in element if content(each) is not None]
    found = {(path, name, value) for name, value in element.attrib.items()}
    if not children and (element.text or "").strip():
        found.add((path, "", element.text.strip()))
    return found.union(*(facts(each, path) for each in children)) if children else found
