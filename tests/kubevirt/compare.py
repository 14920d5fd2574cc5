"""Compares what this project says and does with what KubeVirt's code makes of it. `.ci/kubevirt` runs it, with a
private /run.

Each function `judge_…` is one judgement. To add an example, add a line to EXAMPLES.
"""

import copy
import os
import pathlib
import subprocess
import sys
import tempfile

from judge import (
    QEMU, ROOT, SAMPLES, SIDECARS, Judge, Refused, content, facts, fail, load, parse, read, say, shim, socket_directory
)  # fmt: skip

sys.path.insert(0, str(ROOT / "tests/manifests"))

import api  # noqa: E402
import conditions  # noqa: E402
from expressions import EXPRESSIONS  # noqa: E402
from model import judge_model  # noqa: E402

# Rounds of hooks in one boot, at most.
ROUNDS = 3

# What a VM's owner asks for: the annotation, then the path to what the hook adds, with its values in order.
# An attribute is named after `@`.
EDITS = {
    "smbios": (
        ("smbios.vm.kubevirt.io/baseBoardManufacturer", "Bell & Öre <3"),
        [("sysinfo/baseBoard/entry[@name='manufacturer']", ["Bell & Öre <3"])],
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


def machine(annotation=None):
    """The sample VM, with one annotation."""
    vmi = load(SAMPLES + "vmi.json")
    vmi["metadata"]["annotations"] = dict([annotation] if annotation else [])
    return vmi


# ---- what KubeVirt accepts


def judge_manifests(judge):
    """Every Plugin for 1.9 is admitted; broken ones and those for 1.10 are not."""
    plugins = {name: each for name, each in api.documents().items() if each["kind"] == "Plugin"}
    for name, plugin in plugins.items():
        if api.kubevirt(name) == "1.9":
            judge("admit", object=plugin)
            say(f"admitted: {name}")
        else:
            refused(judge, plugin, "unknown field")
    domain, node = api.the("plugin-domain", "Plugin"), api.the("plugin-node", "Plugin")
    for plugin, hooks, change, complaint in (
        (domain, "domainHooks", {"condition": '"x" in vmi.metadata.annotations'}, "undefined field 'metadata'"),
        (node, "nodeHooks", {"condition": '"x" in vmi.Annotations'}, "undefined field 'Annotations'"),
        (domain, "domainHooks", {"cel": {"expression": "Domain{}"}}, "exactly one of cel or sidecar"),
        (domain, "domainHooks", {"failureStrategy": "Retry"}, "failureStrategy"),
        (domain, "domainHooks", {"sidecar": {"socketPath": "/var/run/kubevirt-plugin/smbios/../x"}}, "clean path"),
        (node, "nodeHooks", {"permittedHooks": ["OnVMStop"]}, "permittedHooks"),
        (node, "nodeHooks", {"sockets": []}, "unknown field"),
    ):
        broken = copy.deepcopy(plugin)
        broken["spec"][hooks][0].update(change)
        refused(judge, broken, complaint)
    say("broken Plugins are refused")


def refused(judge, plugin, complaint):
    try:
        judge("admit", object=plugin)
    except Refused as error:
        if complaint not in str(error):
            fail(f"refused for another reason than {complaint}: {error}")
    else:
        fail(f"admitted: {plugin}")


def judge_conditions(judge):
    """tests/manifests and KubeVirt accept the same expressions, and find the same in them."""
    vmi = machine(("x", "y"))
    for kind, environment in (("domain", conditions.DOMAIN), ("node", conditions.NODE)):
        accepted = 0
        for expression in EXPRESSIONS:
            ours, theirs = own_verdict(environment, expression, vmi), kubevirts_verdict(judge, kind, expression, vmi)
            # tests/manifests/conditions.py says that it is stricter here.
            if kind == "node" and expression.endswith(" == 2"):
                ours = theirs if ours is None else fail(f"no longer stricter: {expression}")
            if ours != theirs:
                fail(f"condition of a {kind} hook {expression}: {ours}, and {theirs} in KubeVirt")
            accepted += ours is not None
        if not 0 < accepted < len(EXPRESSIONS):
            fail(f"{accepted} of {len(EXPRESSIONS)} conditions of {kind} hooks are accepted")
        say(f"{len(EXPRESSIONS)} conditions of {kind} hooks are judged alike, {accepted} of them accepted")


def own_verdict(environment, expression, vmi):
    """The value of a condition, "error" for an error in its evaluation, `None` if it is refused."""
    try:
        program = environment.env.compile(expression)
    except Exception:  # any, as in conditions.py
        return None
    if program.return_type() != conditions.cel.Type.BOOL:
        return None
    value = program.eval(data={"vmi": environment.instance(vmi)})
    return "error" if value.type() == conditions.cel.Type.ERROR else value.value()


def kubevirts_verdict(judge, kind, expression, vmi):
    try:
        judge("compile", kind=kind, expression=expression)
    except Refused:
        return None
    try:
        return judge("evaluate", kind=kind, expression=expression, vmi=vmi)["value"]
    except Refused:
        return "error"


# ---- what the examples do in a boot


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


def judge_examples(judge, log):
    """Each example changes a VM once, however often KubeVirt calls it, through each API and through both."""
    plugin = api.the("plugin-domain", "Plugin")
    socket = plugin["spec"]["domainHooks"][0]["sidecar"]["socketPath"]
    socket_directory(socket)
    sidecar = SIDECARS / "hook-sidecar-0"
    sidecar.mkdir(parents=True)
    legacy = ["--version", "v1alpha3", "--socket-dir", sidecar]
    for edit, mode, command in EXAMPLES:
        (annotation, expected) = EDITS[edit]
        plugin["spec"]["domainHooks"][0]["condition"] = f'"{annotation[0]}" in vmi.Annotations'
        for apis, options in (
            ("as a sidecar", legacy),
            ("as a Plugin", ["--plugin-socket", socket]),
            ("as both", [*legacy, "--plugin-socket", socket]),
        ):
            is_sidecar, is_plugin = "--version" in options, "--plugin-socket" in options
            variables, worker = {}, command
            if mode == "exec":
                variables, worker = {"PATH": in_path(command)}, []
            with shim(worker, *options, "--mode", mode, variables=variables, log=log) as process:
                if is_sidecar:
                    judge("collect", sidecars=1)
                domains = judge(
                    "define",
                    vmi=machine(annotation),
                    domain=with_others(read(SAMPLES + "domain.xml")),
                    plugins=[plugin] if is_plugin else [],
                    times=ROUNDS,
                )["domains"]
                if is_sidecar:
                    # That stops the shim.
                    judge("shutdown")
                    process.wait(30)
                    judge("collect", sidecars=0)
            changed_once(f"{' '.join(command)} ({mode}) {apis}", domains, expected)
        say(f"{edit}: {' '.join(command)} ({mode})")


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
        expected = {**data, "UserData": data["UserData"].replace("Etc/UTC", "Europe/Lisbon")}
        if changed != expected:
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


def main():
    with tempfile.TemporaryFile() as log:
        judge = Judge(log)
        if sys.argv[1:] == ["--record"]:
            judge_model(judge, log, record=True)
            return
        judge_manifests(judge)
        judge_conditions(judge)
        judge_sample(judge)
        judge_examples(judge, log)
        judge_cloud_init(judge, log)
        judge_node_hooks(judge, log)
        judge_model(judge, log, record=False)


if __name__ == "__main__":
    try:
        main()
    except Refused as error:
        fail(f"KubeVirt's code refuses: {error}")
