"""Compares hookctl's model of KubeVirt's rewriting with KubeVirt's."""

import os
import pathlib
import subprocess
import tempfile

import api
from judge import QEMU, ROOT, SAMPLES, SIDECARS, content, facts, fail, load, parse, read, say, shim, socket_directory

RECORDED = ROOT / "crates/hookctl/src/rewrite/recorded"

# KubeVirt's types lack the elements of these, libvirt's do not.
ONLY_TO_THE_NEXT = {"text"}


class Kubevirt:
    """What KubeVirt sends to a hook after the hook has returned a domain."""

    def __init__(self, judge):
        self.judge = judge
        self.directory = pathlib.Path(tempfile.mkdtemp(dir="/run"))
        self.plugin = api.the("plugin-domain", "Plugin")
        [hook] = self.plugin["spec"]["domainHooks"]
        del hook["condition"]
        self.socket = hook["sidecar"]["socketPath"]
        self.twice = {**self.plugin, "spec": {"domainHooks": [hook, hook]}}

    def options(self):
        """The options of a shim for both APIs."""
        sidecar = SIDECARS / "hook-sidecar-0"
        sidecar.mkdir(parents=True, exist_ok=True)
        socket_directory(self.socket)
        # KubeVirt reads more than the shim lets through.
        both = ["--version", "v1alpha3", "--socket-dir", sidecar, "--plugin-socket", self.socket]
        return [*both, "--mode", "exec", "--validate", "none"]

    def variables(self):
        """A $PATH with a hook that returns a file, and records what it got."""
        here = self.directory
        script = f'#!/bin/sh\nprintf %s "$4" >{here}/got\ncat {here}/result\n'
        (here / "onDefineDomain").write_text(script, encoding="utf-8")
        (here / "onDefineDomain").chmod(0o755)
        return {"PATH": f"{here}:{os.environ['PATH']}"}

    def receives(self, kind, result):
        (self.directory / "result").write_bytes(result)
        self.judge("collect", sidecars=1 if kind == "same-sidecar" else 0)
        plugins = {"next-plugin": [self.twice], "same-plugin": [self.plugin], "same-sidecar": []}[kind]
        times = 1 if kind == "next-plugin" else 2
        vmi, domain = load(SAMPLES + "vmi.json"), read(SAMPLES + "domain.xml")
        self.judge("define", vmi=vmi, domain=domain, plugins=plugins, times=times)
        self.judge("collect", sidecars=0)
        return (self.directory / "got").read_text(encoding="utf-8")


def judge_model(judge, log, record):
    kubevirt = Kubevirt(judge)
    with shim([], *kubevirt.options(), variables=kubevirt.variables(), log=log):
        for sent in sorted(RECORDED.glob("*.sent.xml")):
            name = sent.name.partition(".")[0]
            for kind in ("next-plugin", "same-plugin", "same-sidecar"):
                if kind == "next-plugin" or name not in ONLY_TO_THE_NEXT:
                    recorded(kubevirt, name, kind, record)
        say("what is recorded is what KubeVirt does")
        shapes = [read("tests/fixtures/domains/libvirt.xml"), *SHAPES]
        for shape in shapes:
            for kind, context in (("same-plugin", ["--context", "Boot"]), ("same-sidecar", [])):
                modelled(kubevirt, shape, kind, context)
        say(f"hookctl rewrites {len(shapes)} more domains as KubeVirt does")


def recorded(kubevirt, name, kind, record):
    received = kubevirt.receives(kind, (RECORDED / f"{name}.sent.xml").read_bytes())
    file = RECORDED / f"{name}.{kind}.xml"
    if record:
        file.write_text(received, encoding="utf-8")
    elif file.read_text(encoding="utf-8") != received:
        fail(f"{file.name} is not what KubeVirt writes:\n{received}")


def modelled(kubevirt, result, kind, context):
    """Compares a domain, as `hookctl call` sends it again, with the real one."""
    theirs = parse(kubevirt.receives(kind, result.encode()))
    (kubevirt.directory / "got").unlink()
    call = [ROOT / "target/debug/hookctl", "call", "onDefineDomain", *context, "--mode", "exec", "--validate", "none"]
    done = subprocess.run(
        [*call, "--", kubevirt.directory / "onDefineDomain"], cwd=ROOT, capture_output=True, check=False, timeout=120
    )
    if done.returncode or b" again on its own result: " not in done.stderr:
        fail(f"hookctl call does not send it again: {done.stderr.decode()}")
    ours = parse((kubevirt.directory / "got").read_text(encoding="utf-8"))
    # The model does not know which fields KubeVirt's types lack, but invents none.
    invented = facts(theirs) - facts(ours)
    if invented:
        fail(f"the model of {kind} lacks {invented} of\n{result}")
    ours, theirs = namespaced(ours), namespaced(theirs)
    if ours != theirs:
        fail(f"the model of {kind} has {ours} where KubeVirt has {theirs}")


def namespaced(domain):
    """What is in a namespace."""
    contents = (content(each) for each in domain.iter() if each.tag.startswith("{"))
    return sorted(map(repr, filter(None, contents)))


HEAD = (
    '<domain type="kvm"><name>ns_vm1</name><memory unit="b">1</memory>'
    '<os><type arch="x86_64" machine="q35">hvm</type></os><devices/>'
)
NAMESPACE = QEMU.strip("{}")

# More domains that a hook may return. What libvirt has no element for, in whatever namespace, is not here.
SHAPES = [
    f"{HEAD}{tail}</domain>"
    for tail in (
        f'<q:commandline xmlns:q="{NAMESPACE}"><q:arg value="-a"/><!-- c --><q:env name="n" value="v"/>'
        "</q:commandline>",
        f'<commandline xmlns="{NAMESPACE}"><arg value="-a"/></commandline>',
        f'<q:commandline xmlns:q="{NAMESPACE}"><q:arg value="-a"/><q:other x="1"/></q:commandline>'
        f'<q:capabilities xmlns:q="{NAMESPACE}"><q:add capability="x"/></q:capabilities>'
        f'<q:deprecation xmlns:q="{NAMESPACE}" behavior="omit"/>',
        f'<q:commandline xmlns:q="{NAMESPACE}"><q:arg value="-a"/></q:commandline>'
        f'<p:commandline xmlns:p="{NAMESPACE}"><p:arg value="-b"/></p:commandline>',
        f'<q:commandline xmlns:q="{NAMESPACE}"/>',
        f'<q:commandline xmlns:q="{NAMESPACE}"><q:arg value="&lt;&quot;&apos;&amp;&#9;&#10;"/>'
        '<q:arg value="é Ж 中 😀"/></q:commandline>',
        '<app:note xmlns:app="urn:a">t</app:note><note>x</note>',
        '<metadata><!-- c --><k:kubevirt xmlns:k="http://kubevirt.io"><k:uid>u1</k:uid></k:kubevirt>'
        '<app:x xmlns:app="urn:a">t<![CDATA[<c>]]></app:x></metadata>',
        '<x:commandline xmlns:x="http://libvirt.org/schemas/domain/xen/1.0"><x:arg value="-a"/></x:commandline>',
        '<vcpu foo:bar="1" placement="static">2</vcpu><?target data?>',
        '<sysinfo type="smbios"><baseBoard><entry name="manufacturer">a &amp; b<!-- c --></entry></baseBoard>'
        "</sysinfo>",
        '<features><acpi/></features><cpu mode="host-model"><topology sockets="1" cores="2" threads="1"/></cpu>',
    )
] + [
    HEAD.replace("<domain", '<domain xmlns="urn:x"') + "</domain>",
    HEAD.replace("<domain", '<v:domain xmlns:v="urn:x"') + "</v:domain>",
    f"<?xml version='1.0' encoding='UTF-8'?>\n<!-- top -->{HEAD}</domain>\n<!-- end -->",
    HEAD.replace(
        "<devices/>",
        '<devices><disk type="file" device="disk"><source file="/a"/><target dev="vda" bus="virtio"/>'
        '<boot order="1"/><alias name="ua-a"/></disk><iommu model="intel"><driver intremap="on"/></iommu></devices>',
    )
    + "</domain>",
]
