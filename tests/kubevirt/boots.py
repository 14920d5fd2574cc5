"""What the examples do in a boot. To add one, add a line to EXAMPLES."""

import email
import os
import pathlib
import subprocess
import tempfile

import api
from judge import (
    DISKS, QEMU, ROOT, SAMPLES, SIDECARS, STOP_SECONDS, content, facts, fail, load, machine, parse, read, say, shim,
    socket_directory,
)  # fmt: skip

# Rounds of hooks in one boot, at most.
ROUNDS = 3

# What a VM's owner asks for: the annotation, then the path to what the hook adds, with its values in order.
# An attribute is named after `@`.
EDITS = {
    "smbios": (
        ("smbios.vm.kubevirt.io/baseBoardManufacturer", "Bell & Öre <3"),
        [("sysinfo/baseBoard/entry[@name='manufacturer']", ["Bell & Öre <3"])],
    ),
    "asset tag": (
        ("example.org/asset-tag", "R-4711"),
        [("sysinfo/chassis/entry[@name='asset']", ["R-4711"])],
    ),
    "boot disk": (
        ("bootdisk.vm.kubevirt.io/order", "cloudinitdisk,rootdisk"),
        [("devices/disk/boot@order", ["2", "1"])],
    ),
    "IOMMU": (
        ("iommu.vm.kubevirt.io/model", "intel"),
        [("devices/iommu@model", ["intel"]), ("devices/iommu/driver@caching_mode", ["on"])],
    ),
    "QEMU options": (
        ("qemu.vm.kubevirt.io/options", '{"-global": "ICH9-LPC.disable_s3=0", "-rtc": "base=localtime"}'),
        [(f"{QEMU}commandline/{QEMU}arg@value", ["-global", "ICH9-LPC.disable_s3=0", "-rtc", "base=localtime"])],
    ),
}

EXAMPLES = [
    ("smbios", "persistent", ["python3", "examples/python/smbios.py"]),
    ("smbios", "exec", ["python3", "examples/python/smbios.py"]),
    ("smbios", "persistent", ["python3", "examples/python/bare.py"]),
    ("smbios", "persistent", ["perl", "examples/perl/smbios.pl"]),
    ("smbios", "exec", ["examples/shell/onDefineDomain"]),
    ("smbios", "persistent", ["target/debug/examples/smbios"]),
    ("smbios", "persistent", ["target/go/smbios"]),
    # What `hookctl init` makes: .ci/kubevirt calls it.
    ("asset tag", "persistent", ["python3", "target/kubevirt/new/in-python/hook.py"]),
    ("asset tag", "persistent", ["perl", "target/kubevirt/new/in-perl/hook.pl"]),
    ("asset tag", "exec", ["target/kubevirt/new/in-shell/onDefineDomain"]),
    ("boot disk", "persistent", ["python3", "examples/python/boot_disk.py"]),
    ("boot disk", "persistent", ["target/debug/examples/boot_disk"]),
    ("IOMMU", "persistent", ["python3", "examples/python/iommu.py"]),
    ("IOMMU", "persistent", ["target/debug/examples/iommu"]),
    ("QEMU options", "persistent", ["python3", "examples/python/qemu_arguments.py"]),
    ("QEMU options", "exec", ["python3", "examples/python/qemu_arguments.py"]),
    ("QEMU options", "persistent", ["target/debug/examples/qemu_arguments"]),
    ("QEMU options", "persistent", ["target/go/qemuarguments"]),
]

# What another hook has put on QEMU's command line.
OTHERS = ["-fw_cfg", "name=opt/org.example/note,string=kept"]
OTHERS_PATH = f"{QEMU}commandline/{QEMU}arg@value"


def judge_sample(judge):
    """hookctl's sample domain is what KubeVirt makes of it, and a VM of KubeVirt's converter has its form."""
    sample = read(SAMPLES + "domain.xml").strip()
    [written] = judge("define", vmi=machine(), domain=sample, times=1)["domains"]
    if written != sample:
        fail(f"KubeVirt writes the sample otherwise:\n{written}")
    [made] = judge("convert", vmi=machine())["domains"]
    missing = {path for path, *_ in facts(parse(made))} - {path for path, *_ in facts(parse(sample))}
    missing -= {("domain", "features", "vmport")}
    if missing:
        fail(f"KubeVirt's converter makes what the sample lacks: {missing}")
    say("the sample domain is one of KubeVirt's, byte for byte")


class Boots:
    """Boots of VMs, each with a hook as a sidecar, as a Plugin, or as both."""

    def __init__(self, judge, log):
        self.judge, self.log = judge, log
        self.plugin = api.the("plugin-domain", "Plugin")
        [self.hook] = self.plugin["spec"]["domainHooks"]
        sidecar = SIDECARS / "hook-sidecar-0"
        sidecar.mkdir(parents=True, exist_ok=True)
        socket_directory(self.hook["sidecar"]["socketPath"])
        self.sidecar = ["--version", "v1alpha3", "--socket-dir", sidecar]
        self.socket = ["--plugin-socket", self.hook["sidecar"]["socketPath"]]

    def change(self, edit, mode, command, disks=None):
        """Checks that the hook changes a VM once, however often KubeVirt calls it."""
        (annotation, expected) = EDITS[edit]
        self.hook["condition"] = f'"{annotation[0]}" in vmi.Annotations'
        vmi = machine(annotation, disks)
        domain = read(SAMPLES + "domain.xml")
        if disks is not None:
            [domain] = self.judge("convert", vmi=vmi)["domains"]
        for apis, sidecar, socket in (
            ("as a sidecar", self.sidecar, []),
            ("as a Plugin", [], self.socket),
            ("as both", self.sidecar, self.socket),
        ):
            domains = self.boot(mode, command, sidecar, socket, vmi, with_others(domain))
            changed_once(f"{' '.join(command)} ({mode}) {apis}", domains, expected)

    def boot(self, mode, command, sidecar, socket, vmi, domain):
        variables, worker = {}, command
        if mode == "exec":
            variables, worker = {"PATH": in_path(command)}, []
        with shim(worker, *sidecar, *socket, "--mode", mode, variables=variables, log=self.log) as process:
            if sidecar:
                self.judge("collect", sidecars=1)
            plugins = [self.plugin] if socket else []
            domains = self.judge("define", vmi=vmi, domain=domain, plugins=plugins, times=ROUNDS)["domains"]
            if sidecar:
                # That stops the shim.
                self.judge("shutdown")
                process.wait(STOP_SECONDS)
                self.judge("collect", sidecars=0)
        return domains


def judge_examples(judge, log):
    boots = Boots(judge, log)
    for edit, mode, command in EXAMPLES:
        boots.change(edit, mode, command)
        say(f"{edit}: {' '.join(command)} ({mode})")


def judge_sizes(judge, log):
    boots = Boots(judge, log)
    for disks in DISKS:
        for mode in ("persistent", "exec"):
            boots.change("smbios", mode, ["python3", "examples/python/smbios.py"], disks)
        say(f"VMs with {disks} disks")


def in_path(command):
    """A $PATH in which the command is onDefineDomain."""
    directory = pathlib.Path(tempfile.mkdtemp(dir="/run"))
    program = directory / "onDefineDomain"
    words = [str(ROOT / word) if "/" in word else word for word in command]
    program.write_text(f'#!/bin/sh\nexec {" ".join(words)} "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    return f"{directory}:{os.environ['PATH']}"


def with_others(domain):
    """The domain with a QEMU command line."""
    items = "".join(f'<q:arg value="{value}"/>' for value in OTHERS)
    line = f'<q:commandline xmlns:q="{QEMU.strip("{}")}">{items}</q:commandline>'
    return domain.replace("</domain>", line + "</domain>")


def changed_once(what, domains, expected):
    if len(domains) != ROUNDS:
        fail(f"{what}: {len(domains)} of {ROUNDS} domains")
    for number, domain in enumerate(map(parse, domains), 1):
        for path, values in expected:
            values = OTHERS + values if path == OTHERS_PATH else values
            found = values_at(domain, path)
            if found != values:
                fail(f"{what}, round {number}: {path} is {found}, not {values}:\n{domains[number - 1]}")
        if OTHERS_PATH not in dict(expected) and values_at(domain, OTHERS_PATH) != OTHERS:
            fail(f"{what}, round {number}: another hook's arguments are lost:\n{domains[number - 1]}")
        if content(domain) != content(parse(domains[0])):
            fail(f"{what}: round {number} differs from the first:\n{domains[0]}\n{domains[number - 1]}")


def values_at(domain, path):
    path, _, attribute = path.partition("@") if "[" not in path else (path, "", "")
    return [each.get(attribute) if attribute else each.text for each in domain.findall(path)]


def judge_cloud_init(judge, log):
    """KubeVirt's hooks manager reads what the examples make of cloud-init data."""
    sidecar = SIDECARS / "hook-sidecar-0"
    vmi = machine(("timezone.vm.kubevirt.io/name", "Europe/Lisbon"))
    data = load(SAMPLES + "cloud-init.json")
    for command in (["python3", "examples/python/cloud_init.py"], ["target/debug/examples/cloud_init"]):
        options = ["--version", "v1alpha2", "--socket-dir", sidecar, "--mode", "persistent"]
        with shim(command, *options, log=log):
            judge("collect", sidecars=1)
            changed = judge("cloudInit", vmi=vmi, cloudInit=data)["cloudInit"]
            judge("collect", sidecars=0)
        parts = [part.get_payload(decode=True).decode() for part in email.message_from_string(changed["UserData"]).walk()
                 if not part.is_multipart()]
        owners, added = parts if len(parts) == 2 else (None, "")
        if {**changed, "UserData": owners} != data or "Europe/Lisbon" not in added:
            fail(f"{' '.join(command)} makes {changed} of cloud-init data")
        say(f"cloud-init data: {' '.join(command)}")


def judge_node_hooks(judge, log):
    """virt-handler calls the hook of the manifest, for the VMs that its condition selects."""
    plugin = api.the("plugin-node", "Plugin")
    [hook] = plugin["spec"]["nodeHooks"]
    socket_directory(hook["socket"])
    calls = pathlib.Path(tempfile.mkdtemp(dir="/run")) / "calls"
    record = ["sh", "-c", f'echo "$4" >>{calls}']
    program = in_path(["examples/shell/onDefineDomain"]).partition(":")[0]
    for point in hook["permittedHooks"]:
        name = pathlib.Path(program) / (point[0].lower() + point[1:])
        name.write_text(f'#!/bin/sh\n{record[2]}\n', encoding="utf-8")
        name.chmod(0o755)
    variables = {"PATH": f"{program}:{os.environ['PATH']}"}
    selected = machine(("memlock.example/limit", "1Gi"))
    with shim([], "--plugin-socket", hook["socket"], "--mode", "exec", variables=variables, log=log) as process:
        wait_for(process, hook["socket"])
        for vmi in (selected, machine()):
            for point in hook["permittedHooks"] + ["PostVMStop"]:
                judge("node", vmi=vmi, plugins=[plugin], hookPoint=point)
    called = calls.read_text(encoding="utf-8").split()
    if called != ["node01"] * len(hook["permittedHooks"]):
        fail(f"the node hooks were called for {called}")
    say("node hooks are called by virt-handler's manager")


def wait_for(process, path):
    """Waits until a health request is answered."""
    health = [ROOT / "target/debug/sidecar-shim", "health", "--socket", path]
    while subprocess.run(health, capture_output=True, check=False).returncode:
        if process.poll() is not None:
            fail(f"the shim exited with status {process.returncode}")
