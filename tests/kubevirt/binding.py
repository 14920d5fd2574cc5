"""The network binding plugins of the examples beside KubeVirt's for passt."""

import json
import pathlib
import subprocess
import tempfile

from judge import DISKS, ROOT, Refused, content, fail, machine, parse, say

PLUGINS = (["python3", "examples/python/network_binding.py"], ["target/debug/examples/network_binding"])

# Fields of the VM's interface. The last three are for a VM that is refused.
INTERFACES = (
    {},
    {"model": "e1000e", "macAddress": "02:00:00:00:00:01"},
    {"model": "virtio", "pciAddress": "0000:0a:1f.0", "acpiIndex": 7},
    {"ports": [{"port": 80}, {"port": 53, "protocol": "UDP"}, {"port": 443, "protocol": "TCP"}]},
    {"ports": [{"port": 53, "protocol": "UDP"}]},
    {"ports": [{"port": 80}], "istio": "true"},
    {"istio": "True"},
    {"transitional": True},
    {"alias": True},
    {"memory": "shared"},
    {"memory": "private"},
    {"binding": "other"},
    {"status": None},
)


def vm(disks, change):
    """A VM with its pod network bound by the plugin."""
    change = dict(change)
    vmi = machine(disks=disks)
    devices = vmi["spec"]["domain"]["devices"]
    if "istio" in change:
        vmi["metadata"]["annotations"]["sidecar.istio.io/inject"] = change.pop("istio")
    devices["useVirtioTransitional"] = change.pop("transitional", False)
    binding, status = change.pop("binding", "passt"), change.pop("status", "eth0")
    devices["interfaces"] = [{"name": "default", "binding": {"name": binding}, **change}]
    vmi["status"]["interfaces"] = [{"name": "default", "podInterfaceName": status}] if status else []
    return vmi


def judge_binding(judge):
    compared = refused = 0
    for disks in DISKS:
        for change in INTERFACES:
            change = dict(change)
            memory, has_alias = change.pop("memory", None), change.pop("alias", False)
            vmi = vm(disks, change)
            plain = vm(disks, {})
            # KubeVirt's converter makes no interface for a binding; one stands there after the first call.
            plain["spec"]["domain"]["devices"]["interfaces"] = []
            plain["spec"]["networks"] = []
            [domain] = judge("convert", vmi=plain)["domains"]
            if memory:
                backing = f'<memoryBacking><access mode="{memory}"></access></memoryBacking>'
                domain = domain.replace("<os>", f"{backing}<os>")
            if has_alias:
                interface = '<interface type="ethernet"><alias name="ua-default"></alias></interface>'
                domain = domain.replace("<devices>", f"<devices>{interface}")
            try:
                [theirs] = judge("passt", vmi=vmi, domain=domain, binding="passt")["domains"]
            except Refused:
                theirs = None
            for command in PLUGINS:
                ours = result(command, vmi, domain)
                what = f"{' '.join(command)} with {disks} disks and {change}"
                if (ours is None) != (theirs is None):
                    fail(f"{what}: refused by {'us' if ours is None else 'KubeVirt'} alone")
                if ours is not None and content(parse(ours)) != content(parse(theirs)):
                    fail(f"{what} makes\n{ours}\nand KubeVirt\n{theirs}")
                compared += ours is not None
                refused += ours is None
    if not compared or not refused:
        fail(f"{compared} domains, {refused} refusals")
    say(f"network binding: {compared} domains as KubeVirt's passt plugin makes them, {refused} refused by both")


def result(command, vmi, domain):
    """The domain after a call of the hook through the shim, or `None` if the hook refuses the VM."""
    with tempfile.TemporaryDirectory() as directory:
        files = [pathlib.Path(directory, name) for name in ("vmi.json", "domain.xml")]
        files[0].write_text(json.dumps(vmi), encoding="utf-8")
        files[1].write_text(domain, encoding="utf-8")
        call = [ROOT / "target/debug/hookctl", "call", "onDefineDomain", "--mode", "persistent"]
        words = [*call, "--vmi", files[0], "--domain", files[1], "--", *command]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode:
        if "hook onDefineDomain refused:" not in done.stderr:
            fail(f"{command}: {done.stderr}")
        return None
    if " · again on its own result: unchanged\n" not in done.stderr:
        fail(f"{command} is not idempotent: {done.stderr}")
    return done.stdout
