"""The shim starts with the arguments of the manifests, answers their probes, and runs their hooks."""

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.etree import ElementTree

import pytest

import api
import containers
from api import quantity
from image import images, name_of

CONTAINERS = containers.all_of_them()
IMAGES = images()
DEADLINE = 30
# Without what a user has set for another shim.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("SIDECAR_SHIM_")}
# The shim's image has the library for Python.
ENVIRONMENT["PYTHONPATH"] = str(api.ROOT / "sdk/python")


def vmi_of(file, directory):
    """A file with the VM of a manifest, as its instance."""
    template = api.the(file, "VirtualMachine")["spec"]["template"]
    vmi = {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", **template}
    vmi["metadata"] = {**vmi.get("metadata", {}), "name": file, "namespace": "vms"}
    path = directory / "vmi.json"
    path.write_text(json.dumps(vmi))
    return path


def manufacturer(domain):
    entries = ElementTree.fromstring(domain).findall("sysinfo[@type='smbios']/baseBoard/entry[@name='manufacturer']")
    return [entry.text for entry in entries]


def run(command, **options):
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, **{"env": ENVIRONMENT, **options})


@contextlib.contextmanager
def running(command, socket, **environment):
    """A shim that has made its socket. At the end it is told to stop, and has to end well."""
    process = subprocess.Popen(command, env={**ENVIRONMENT, **environment}, stderr=subprocess.PIPE, text=True)
    try:
        end = time.monotonic() + DEADLINE
        while not (found := list(socket.parent.glob(socket.name))):
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < end, "no socket"
            time.sleep(0.02)
        yield process, found[0]
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=DEADLINE)
        assert process.returncode == 0, log
        assert not found[0].exists()
    finally:
        process.kill()
        process.wait()


def test_every_image_has_its_dockerfile_and_every_dockerfile_its_image():
    assert {name_of(each["image"]) for each in CONTAINERS.values()} == IMAGES.keys()


@pytest.mark.parametrize("name", CONTAINERS)
def test_the_shim_knows_the_arguments(shim, name, directory):
    image = IMAGES[name_of(CONTAINERS[name]["image"])]
    command = image.command(shim, directory, CONTAINERS[name]["args"])
    for each in (command, *([str(shim), *probe[1:]] for probe in containers.probes(CONTAINERS[name]))):
        # The help is given when the arguments before it make sense.
        assert run([*each, "--help"]).returncode == 0, each
        options = [word for word in each if word.startswith("--")]
        assert options
        for option in options:
            misspelt = [f"{word}x" if word == option else word for word in each]
            assert run([*misspelt, "--help"]).returncode == 2, misspelt


@pytest.mark.parametrize("name", CONTAINERS)
def test_variables_of_the_shim_are_options(shim, name):
    known = run([shim, "--help"]).stdout
    for variable in CONTAINERS[name].get("env", []):
        if variable["name"].startswith("SIDECAR_SHIM_"):
            option = variable["name"].removeprefix("SIDECAR_SHIM_").lower().replace("_", "-")
            assert re.search(rf"^ +--{option}\b", known, re.MULTILINE), option


def test_the_script_of_the_config_map_is_the_example():
    config = api.the("legacy-configmap", "ConfigMap")
    assert config["data"] == {"onDefineDomain": (api.ROOT / "examples/shell/onDefineDomain").read_text()}


def test_the_script_of_the_config_map_runs(hookctl, directory):
    (sidecar,) = api.hook_sidecars(api.the("legacy-configmap", "VirtualMachine"))
    script = directory / Path(sidecar["configMap"]["hookPath"]).name
    script.write_text(api.the("legacy-configmap", "ConfigMap")["data"][sidecar["configMap"]["key"]])
    script.chmod(0o555)
    environment = {**ENVIRONMENT, "PATH": f"{directory}:{os.environ['PATH']}"}
    called = run([hookctl, "call", "onDefineDomain", "--vmi", vmi_of("legacy-configmap", directory)], env=environment)
    assert called.returncode == 0, called.stderr
    assert manufacturer(called.stdout) == ["Copper Lantern Works"]


def test_the_legacy_image_answers(shim, hookctl, directory):
    container = CONTAINERS["legacy-image"]
    command = IMAGES[name_of(container["image"])].command(shim, directory, container["args"])
    sockets = directory / "sockets"
    sockets.mkdir()
    with running([*command, "--socket-dir", str(sockets)], sockets / "*.sock") as (_, socket):
        called = run([hookctl, "call", "onDefineDomain", "--socket", socket, "--vmi", vmi_of("legacy-image", directory)])
    assert called.returncode == 0, called.stderr
    assert manufacturer(called.stdout) == ["Copper Lantern Works"]


def test_the_network_binding_needs_no_arguments(shim, hookctl, directory):
    container = CONTAINERS["network-binding"]
    assert container["args"] == []
    command = IMAGES[name_of(container["image"])].command(shim, directory, container["args"])
    environment = {each["name"]: each["value"] for each in container["env"]}
    sockets = directory / "sockets"
    sockets.mkdir()
    vmi = json.loads(vmi_of("network-binding", directory).read_text())
    ready, unready = directory / "ready.json", directory / "unready.json"
    unready.write_text(json.dumps(vmi))
    ready.write_text(json.dumps({**vmi, "status": {"interfaces": [{"name": "default", "podInterfaceName": "eth0"}]}}))
    environment["SIDECAR_SHIM_SOCKET_DIR"] = str(sockets)  # there is no /var/run/kubevirt-hooks here
    with running(command, sockets / "*.sock", **environment) as (_, socket):
        call = [hookctl, "call", "onDefineDomain", "--socket", socket, "--vmi"]
        called, refused = run([*call, ready]), run([*call, unready])
    assert called.returncode == 0, called.stderr
    (interface,) = ElementTree.fromstring(called.stdout).findall("devices/interface[@type='vhostuser']")
    assert interface.find("source").get("dev") == "eth0"
    assert [each.get("start") for each in interface.findall("portForward/range")] == ["8080"]
    assert refused.returncode == 1
    assert "network binding passt: the VM's status does not say" in refused.stderr


def serving(shim, name, directory):
    """The command line of a container that serves the Plugins API, its socket, and its probes, all with the
    socket in a directory of this machine: the kubelet makes the directory that is mounted, so it is there."""
    container = CONTAINERS[name]
    (mount,) = container["volumeMounts"]
    mounted, files = directory / "mounted", directory / "image"
    mounted.mkdir()
    files.mkdir()

    def here(words):
        return [word.replace(mount["mountPath"], str(mounted)) for word in words]

    command = IMAGES[name_of(container["image"])].command(shim, files, here(container["args"]))
    probes = [[str(shim), *here(probe)[1:]] for probe in containers.probes(container)]
    return command, mounted / "hook.sock", probes


def memory(process):
    """The most that the shim and its workers have taken so far, in bytes: shared pages count for each, so it
    is more than what a container's limit is compared with."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert children
    status = [Path(f"/proc/{pid}/status").read_text() for pid in (process.pid, *children)]
    return sum(int(re.search(r"VmHWM:\s+(\d+) kB", each).group(1)) * 1024 for each in status)


def test_the_injected_sidecar_answers_its_probe_and_virt_launcher(shim, hookctl, directory):
    command, socket, probes = serving(shim, "plugin-domain", directory)
    vmi = vmi_of("plugin-domain", directory)
    assert len(probes) == 1
    assert run(probes[0]).returncode != 0, "nothing is served yet"
    with running(command, socket) as (process, _):
        assert run(probes[0]).returncode == 0
        call = [hookctl, "call", "onDefineDomain", "--socket", socket, "--context", "Boot", "--vmi", vmi]
        called = run(call)
        assert memory(process) < quantity(CONTAINERS["plugin-domain"]["resources"]["limits"]["memory"])
    assert called.returncode == 0, called.stderr
    assert manufacturer(called.stdout) == ["Copper Lantern Works"]
    assert run(probes[0]).returncode != 0, "nothing is served any more"


def test_the_daemon_answers_its_probes_and_virt_handler(shim, hookctl, directory):
    command, socket, probes = serving(shim, "plugin-node", directory)
    environment = {each["name"]: each["value"] for each in CONTAINERS["plugin-node"]["env"]}
    (hook,) = api.the("plugin-node", "Plugin")["spec"]["nodeHooks"]
    assert len(probes) == 3
    with running(command, socket, **environment) as (process, _):
        for probe in probes:
            assert run(probe).returncode == 0, probe
        assert socket.stat().st_mode & 0o777 == 0o600
        for point in hook["permittedHooks"]:
            method = point[0].lower() + point[1:]
            # The sample VM has no annotation for this hook, so there is nothing to do.
            called = run([hookctl, "call", method, "--socket", socket, "--node", "node-a"])
            assert called.returncode == 0, called.stderr
        # Many VMs at once.
        with ThreadPoolExecutor(64) as clients:
            called = list(clients.map(lambda _: run([hookctl, "call", "preVMStart", "--socket", socket]), range(64)))
        assert [each.stderr for each in called if each.returncode != 0] == []
        assert memory(process) < quantity(CONTAINERS["plugin-node"]["resources"]["limits"]["memory"])
        # What the VM asks for is more than the administrator's limit, and the owner is told.
        vmi = directory / "vmi.json"
        annotations = {"memlock.example/limit": "1Ti"}
        metadata = {"name": "sample-vm", "namespace": "vms", "annotations": annotations}
        vmi.write_text(json.dumps({"metadata": metadata}))
        refused = run([hookctl, "call", "preVMStart", "--socket", socket, "--node", "node-a", "--vmi", vmi])
        assert refused.returncode == 1
        assert environment["MEMLOCK_MAX"] in refused.stderr


def test_the_daemon_is_given_the_time_that_it_takes_to_end(shim):
    described = run([shim, "--help"]).stdout
    container = CONTAINERS["plugin-node"]
    seconds = 0
    for option in ("--shutdown-grace", "--kill-grace"):
        assert option not in container["args"]
        seconds += int(re.search(rf"{option} <TIME>.*?\[default: (\d+)s\]", described, re.DOTALL).group(1))
    spec = api.the("plugin-node", "DaemonSet")["spec"]["template"]["spec"]
    # docs/failures.md has the same sum.
    assert spec["terminationGracePeriodSeconds"] >= seconds + 2


def test_a_probe_lasts_longer_than_the_program_that_it_runs(shim):
    described = run([shim, "health", "--help"]).stdout
    default = int(re.search(r"--timeout <TIME>.*?\[default: (\d+)s\]", described, re.DOTALL).group(1))
    for container in (CONTAINERS["plugin-domain"], CONTAINERS["plugin-node"]):
        for name in ("startupProbe", "readinessProbe", "livenessProbe"):
            if name in container:
                command = container[name]["exec"]["command"]
                inner = int(command[command.index("--timeout") + 1][:-1]) if "--timeout" in command else default
                assert container[name]["timeoutSeconds"] > inner
