"""What `hookctl generate` makes of odd inputs. `.ci/kubevirt` gives the same objects to KubeVirt's code."""

import os
import subprocess
import tempfile
from pathlib import Path

import yaml

import api

DEADLINE = 30
DIGEST = "registry.example:5000/a_b/hook-x.y@sha256:" + "0123456789abcdef" * 4
SCRIPT = api.ROOT / "examples/shell/onDefineDomain"

# Values of annotations that a sloppy writer of YAML, JSON or CEL changes, or lets out of their quotes.
VALUES = {
    "quotes": "it's \"quoted\"",
    "an expression": '" || true || "',
    "backslashes": "C:\\new\\table\\u0041 \\",
    "a mapping": "a: b, c: {d: e} # f",
    "a block": "line\n  - item\n--- \n",
    "spaces": "  two  spaces\tand a tab  ",
    "Unicode": "Kupfer-Wärme 電源 🙂 e\u0301",
    "line breaks of Unicode": "a\u0085b\u2028c\u2029d",
    "invisible": "a\u200bb\u202ec\ufeffd\x7f\x01",
    "templates": "$(HOME) ${HOME} {{ .Values.x }} %s",
    "a word of YAML": "yes",
    "a number": "1e3",
    "a date": "2026-11-27",
    "nothing": "",
    "an anchor": "*a &b !c |",
    "long": "ä" * 2000,
}
LONG_KEY = ".".join(["a" * 62] * 4) + "/" + "K" * 63


def pair(field, key, value):
    return {field: {key: value}}


# By a name for people: how VMs are selected, metadata that is selected, and metadata that is not.
SELECTORS = {
    **{
        name: (["--annotation", f"k={value}"], pair("annotations", "k", value), pair("annotations", "k", value + "x"))
        for name, value in VALUES.items()
    },
    "a long key": (["--annotation", LONG_KEY], pair("annotations", LONG_KEY, ""), pair("annotations", "K", "")),
    "a label": (["--label", "example.com/tier"], pair("labels", "example.com/tier", ""), pair("annotations", "example.com/tier", "")),
    "a label's value": (["--label", "tier=gold"], pair("labels", "tier", "gold"), {}),
    "a label that YAML reads as true": (["--label", "on=y"], pair("labels", "on", "y"), pair("labels", "on", "true")),
    "an empty label": (["--label", "k="], pair("labels", "k", ""), pair("labels", "k", "x")),
    "all": (["--all"], {}, None),
}

# Names that are DNS labels, and something else for YAML, or long.
NAMES = ["true", "null", "1e3", "0x1f", "a", "x" + "-y" * 28, "my-hook"]


def hookctl():
    return Path(os.environ.get("HOOKCTL", api.ROOT / "target/debug/hookctl")).resolve()


def run(*args):
    command = [hookctl(), "generate", *map(str, args)]
    environment = {**os.environ, "PYTHONPATH": str(api.ROOT / "sdk/python")}
    return subprocess.run(command, capture_output=True, timeout=DEADLINE, cwd=api.ROOT, env=environment)


def documents(*args):
    """The objects, as Kubernetes reads them."""
    done = run(*args)
    assert done.returncode == 0, done.stderr.decode()
    return list(yaml.load_all(done.stdout.decode(), api.Loader))


def plugin(selector, *more, name="odd", image=DIGEST):
    return documents(
        "plugin", "--name", name, "--image", image, *selector, *more, "--hook", "onDefineDomain"
    )  # fmt: skip


def node(selector, *more, name="odd"):
    return documents("node", "--name", name, "--image", DIGEST, *selector, *more, "--hook", "preVMStart")


def sidecar(name, annotation, whole=True):
    disk = ["--disk", "registry.example/disk:1"] if whole else []
    options = ["--vm", f"on/{name}", "--vm-annotation", f"k={annotation}", *disk]
    return documents("sidecar", "--image", DIGEST, *options, "--hook", "preCloudInitIso")


def config_map(name, annotation):
    options = ["--vm", f"123/{name}", "--vm-annotation", f"k={annotation}", "--disk", "registry.example/disk:1"]
    return documents("configmap", "--name", name, "--image", DIGEST, "--script", SCRIPT, *options)


def network_binding(name):
    options = [
        "--memory-overhead", "1.5Gi", "--attachment", "managed-tap", "--network-attachment", "on/null",
        "--device-info", "--migration", "--vm", f"true/{name}", "--disk", DIGEST,
    ]  # fmt: skip
    return documents("network-binding", "--name", name, "--image", DIGEST, *options, "--hook", "onDefineDomain")


def monitoring(name, *options):
    return documents("monitoring", "--name", name, *options)


def sample(selector, value):
    """Options for a sample VM that is selected."""
    return ["--vm", "on/yes", "--disk", DIGEST, "--vm-annotation", f"other={value}"]


def started(kind):
    """The objects that the README of a new hook leads to."""
    environment = {**os.environ, "PATH": f"{hookctl().parent}:{os.environ['PATH']}"}
    with tempfile.TemporaryDirectory() as directory:
        init = [hookctl(), "init", "new", "--lang", "python", *kind]
        subprocess.run(init, cwd=directory, check=True, capture_output=True, timeout=DEADLINE)
        new = Path(directory, "new")
        commands = (new / "README.md").read_text().split("```")[1]
        command = commands[commands.index("hookctl generate") :]
        done = subprocess.run(["sh", "-c", command], cwd=new, env=environment, capture_output=True, timeout=DEADLINE)
    assert done.returncode == 0, done.stderr.decode()
    return list(yaml.load_all(done.stdout.decode(), api.Loader))


def everything():
    """All objects that are made of the odd inputs, and of new hooks, by a name for people."""
    # That of a cloud-init hook is a part of a VM.
    for kind in ([], ["--node"]):
        yield f"a new hook {kind}", started(kind)
    for name, (selector, selected, _) in SELECTORS.items():
        value = next(iter(next(iter(selected.values()), {}).values()), "")
        yield f"plugin, {name}", plugin(selector, *sample(selector, value))
        yield f"node, {name}", node(selector, "--env", f"A={value}")
    for number, name in enumerate(NAMES):
        value = list(VALUES.values())[number]
        for version in ("1.9", "1.10"):
            options = ["--all", "--namespace", "on", "--namespace", name, "--kubevirt", version]
            yield f"plugin for {version} named {name}", plugin(options, name=name)
            yield f"node for {version} named {name}", node(options, name=name)
        yield f"failure ignored, {name}", plugin(["--all", "--failure-strategy", "Ignore", "--timeout", "1500ms"], name=name)
        yield f"sidecar of {name}", sidecar(name, value)
        yield f"configmap named {name}", config_map(name, value)
        yield f"network binding named {name}", network_binding(name)
