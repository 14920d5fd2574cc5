"""`hookctl generate` makes objects that fit their schemas and say what was asked for, whatever the input has."""

import copy
import json

import pytest
import yaml

import api
import generated
from conditions import DOMAIN, NODE, check
from containers import launcher_pod
from generated import DIGEST, NAMES, SELECTORS, VALUES, run
from policy import Policy

def one(documents, kind):
    (found,) = (each for each in documents if each["kind"] == kind)
    return found


def instance(metadata, namespace="vms"):
    return {"metadata": {"name": "vm", "namespace": namespace, **metadata}}


def pod(metadata):
    """The pod that KubeVirt makes of a VM with this metadata."""
    found = launcher_pod()
    found["metadata"].pop("annotations")
    for field, value in metadata.items():
        found["metadata"].setdefault(field, {}).update(value)
    return found


def test_every_object_fits_its_schema():
    count = 0
    for name, documents in generated.everything():
        version = "1.10" if "1.10" in name else "1.9"
        for document in documents:
            api.validate(document, api.VERSIONS[0], version)
            count += 1
            if document["kind"] == "Plugin":
                assert "condition" not in document["spec"], name
    assert count > 200


@pytest.mark.parametrize("name", SELECTORS)
def test_plugin_and_policy_select_the_same_vms(name):
    options, selected, other = SELECTORS[name]
    documents = generated.plugin(options)
    plugin, policy = one(documents, "Plugin"), Policy(one(documents, "MutatingAdmissionPolicy"))
    node = one(generated.node(options), "Plugin")
    (hook,), (node_hook,) = plugin["spec"]["domainHooks"], node["spec"]["nodeHooks"]
    assert ("condition" in hook, "condition" in node_hook) == (other is not None, other is not None)
    for metadata, wanted in ((selected, True), (other, False), ({}, other is None)):
        if metadata is None:
            continue
        assert policy.matches(pod(metadata)) is wanted
        if "condition" in hook:
            assert DOMAIN.compile(hook["condition"])(instance(metadata)) is wanted
            assert NODE.compile(node_hook["condition"])(instance(metadata)) is wanted
    check(plugin)
    check(node)


@pytest.mark.parametrize("name", NAMES)
def test_the_policy_injects_the_named_shim_once(name):
    documents = generated.plugin(["--all"], name=name)
    plugin, policy = one(documents, "Plugin"), Policy(one(documents, "MutatingAdmissionPolicy"))
    once = policy.mutate(launcher_pod())
    api.validate(once, api.VERSIONS[0])
    *_, container = once["spec"]["initContainers"]
    assert container["name"] == (name if name.endswith("-hook") else f"{name}-hook")
    assert container["image"] == DIGEST
    (hook,), (mount,) = plugin["spec"]["domainHooks"], container["volumeMounts"]
    assert container["args"] == ["--plugin-socket", hook["sidecar"]["socketPath"]]
    assert hook["sidecar"]["socketPath"] == f"{mount['mountPath']}/hook.sock"
    assert (plugin["metadata"]["name"], mount["subPath"]) == (name, name)
    assert policy.mutate(copy.deepcopy(once)) == once
    assert one(documents, "MutatingAdmissionPolicyBinding")["spec"] == {"policyName": container["name"]}


def test_namespaces_limit_the_conditions_and_the_binding():
    options = ["--annotation", "k", "--namespace", "on", "--namespace", "vms"]
    documents = generated.plugin(options)
    (hook,) = one(documents, "Plugin")["spec"]["domainHooks"]
    (node_hook,) = one(generated.node(options), "Plugin")["spec"]["nodeHooks"]
    for namespace, wanted in (("on", True), ("vms", True), ("off", False)):
        vmi = instance({"annotations": {"k": ""}}, namespace)
        assert DOMAIN.compile(hook["condition"])(vmi) is wanted
        assert NODE.compile(node_hook["condition"])(vmi) is wanted
        del vmi["metadata"]["annotations"]
        assert DOMAIN.compile(hook["condition"])(vmi) is False
    binding = one(documents, "MutatingAdmissionPolicyBinding")["spec"]
    (expression,) = binding["matchResources"]["namespaceSelector"]["matchExpressions"]
    assert expression == {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["on", "vms"]}


def test_a_vm_starts_without_a_hook_whose_failure_is_ignored():
    documents = generated.plugin(["--all", "--failure-strategy", "Ignore", "--timeout", "1500ms"])
    (hook,) = one(documents, "Plugin")["spec"]["domainHooks"]
    assert (hook["failureStrategy"], hook["timeout"]) == ("Ignore", "1500ms")
    policy = one(documents, "MutatingAdmissionPolicy")
    assert policy["spec"]["failurePolicy"] == "Ignore"
    assert "startupProbe" not in Policy(policy).mutate(launcher_pod())["spec"]["initContainers"][-1]


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_values_arrive_as_they_were_given(value):
    daemon = one(generated.node(["--all"], "--env", f"A={value}"), "DaemonSet")
    (container,) = daemon["spec"]["template"]["spec"]["containers"]
    # Kubernetes reads "$$" as "$".
    assert container["env"] == [{"name": "A", "value": value.replace("$(", "$$(")}]
    (machine,) = generated.sidecar("vm", value)
    assert machine["spec"]["template"]["metadata"]["annotations"]["k"] == value
    (sidecar,) = api.hook_sidecars(machine)
    assert sidecar["image"] == DIGEST
    config, machine = generated.config_map("a", value)
    assert config["data"] == {"onDefineDomain": generated.SCRIPT.read_text()}
    assert machine["spec"]["template"]["metadata"]["annotations"]["k"] == value


def test_a_part_of_a_vm_has_nothing_but_annotations():
    (machine,) = generated.sidecar("vm", "x", whole=False)
    (template,) = machine["spec"].values()
    assert template.keys() == {"metadata"} and template["metadata"].keys() == {"annotations"}


@pytest.mark.parametrize(
    "script", ["#!/bin/sh", "#!/bin/sh\nx\r\n", "#!x\n\n\n", "#!x\n \n\t\n", "#!x\n\x07\u2028", "#!x\n---\n...\n# ä\n"]
)
def test_a_script_arrives_as_it_is(directory, script):
    path = directory / "hook"
    path.write_bytes(script.encode())
    options = ["--image", DIGEST, "--vm", "a/b", "--hook", "onDefineDomain", "--script", path]
    config, _ = generated.documents("configmap", "--name", "a", *options)
    assert config["data"] == {"onDefineDomain": script}


def test_a_directory_has_numbered_files_and_a_kustomization(directory):
    options = ["--name", "a", "--image", DIGEST, "--all", "--hook", "onDefineDomain", "--output", directory / "out"]
    done = run("plugin", *options)
    assert (done.returncode, done.stdout) == (0, b""), done.stderr.decode()
    kustomization = yaml.load((directory / "out/kustomization.yaml").read_text(), api.Loader)
    files = sorted(each.name for each in (directory / "out").iterdir() if each.name != "kustomization.yaml")
    assert kustomization["resources"] == files == ["01-plugin.yaml", "02-policy.yaml", "03-policy-binding.yaml"]
    assert kustomization["sortOptions"] == {"order": "fifo"}
    loaded = [yaml.load((directory / "out" / file).read_text(), api.Loader) for file in files]
    assert loaded == generated.plugin(["--all"], name="a")
    again = run("plugin", *options)
    assert again.returncode == 1 and b"is not empty" in again.stderr


PLUGIN = ["plugin", "--image", DIGEST, "--all", "--hook", "onDefineDomain"]
NODE_HOOK = ["node", "--image", DIGEST, "--all", "--name", "a"]
VM = ["--vm", "a/b"]


@pytest.mark.parametrize(
    "args, status, complaint",
    [
        ([*PLUGIN, "--name", "a: b"], 2, "not a DNS label"),
        ([*PLUGIN, "--name", "a\nb"], 2, "not a DNS label"),
        ([*PLUGIN, "--name", "x" * 59], 2, "58 fit"),
        ([*PLUGIN, "--name", "a", "--annotation", "k"], 2, "cannot be used with"),
        ([*PLUGIN[:3], "--name", "a", "--hook", "onDefineDomain"], 2, "--annotation"),
        ([*PLUGIN[:3], "--name", "a", "--label", "k=a b", "--hook", "onDefineDomain"], 2, "a label can have"),
        ([*PLUGIN[:3], "--name", "a", "--label", "kubevirt.io/domain", "--hook", "onDefineDomain"], 2, "KubeVirt sets"),
        ([*PLUGIN, "--name", "a", "--namespace", "A"], 2, "not a DNS label"),
        ([*PLUGIN, "--name", "a", "--memory", "64MiB"], 2, "64Mi"),
        ([*PLUGIN, "--name", "a", "--timeout", "0s"], 2, "greater than zero"),
        ([*PLUGIN, "--name", "a", "--kubevirt", "1.8"], 2, "1.10"),
        ([*PLUGIN, "--name", "a", "--vm", "a/b"], 2, "--disk"),
        ([*PLUGIN, "--name", "a", "--vm", "a/b", "--disk", "x", "--vm-annotation", "k=1", "--vm-annotation", "k=2"], 1, "twice"),
        ([*PLUGIN, "--name", "a", "--hook", "preVMStart"], 1, "hookctl generate node"),
        ([*PLUGIN[:4], "--name", "a", "--hook", "preCloudInitIso"], 1, "hookctl generate sidecar"),
        ([*PLUGIN[:4], "--name", "a", "--hook", "onDefineDomian"], 2, "not a hook"),
        ([*PLUGIN[:4], "--name", "a"], 1, "no hook"),
        ([*NODE_HOOK, "--hook", "onDefineDomain"], 1, "hookctl generate plugin"),
        ([*NODE_HOOK, "--hook", "preVMStart", "--capability", "ALL"], 2, "SYS_RESOURCE"),
        ([*NODE_HOOK, "--", "python3", "examples/python/smbios.py"], 1, "does not call onDefineDomain"),
        ([*NODE_HOOK, "--hook", "postVMStop", "--", "python3", "examples/python/memlock.py"], 1, "does not have postVMStop"),
        ([*NODE_HOOK, "--", "/nowhere/worker"], 1, "/nowhere/worker"),
        ([*NODE_HOOK, "--", "false"], 1, "exited with status 1"),
        ([*NODE_HOOK, "--", "cat"], 1, "sent a request"),
        (["sidecar", "--image", DIGEST, *VM, "--hook", "preVMStart"], 1, "hookctl generate node"),
        (["sidecar", "--image", "a b", *VM, "--hook", "onDefineDomain"], 2, "not an image"),
        (["sidecar", "--image", f"{DIGEST}0", *VM, "--hook", "onDefineDomain"], 2, "not a digest"),
        (["configmap", "--name", "a", "--image", DIGEST, *VM, "--script", "README.md"], 1, "--hook onDefineDomain"),
        (["configmap", "--name", "a", "--image", DIGEST, *VM, "--script", "README.md", "--hook", "onDefineDomain"], 1, "#!"),
        (["configmap", "--name", "a", "--image", DIGEST, *VM, "--script", "x", "--", "python3"], 1, "needs an image"),
        (["network-binding", "--name", "a", "--image", DIGEST, "--hook", "preCloudInitIso"], 1, "does not call preCloudInitIso"),
        (["dockerfile", "--base", DIGEST, "--exec", "--hook", "onDefineDomain", "--", "README.md"], 1, "not executable"),
        (["dockerfile", "--base", DIGEST, "--hook", "onDefineDomain"], 1, "no file"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_in_words(args, status, complaint):
    done = run(*args)
    assert (done.returncode, done.stdout) == (status, b""), done.stderr.decode()
    assert complaint in done.stderr.decode()


@pytest.mark.parametrize("version, point", [("1.9", "PreVMStop"), ("1.10", "OnVMStop")])
@pytest.mark.parametrize("hook", ["preVMStop", "onVMStop"])
def test_the_hook_before_the_stop_has_the_versions_name(version, point, hook):
    options = ["--name", "a", "--image", DIGEST, "--all", "--kubevirt", version]
    plugin = one(generated.documents("node", *options, "--hook", "PostVMStop", "--hook", hook), "Plugin")
    assert plugin["spec"]["nodeHooks"][0]["permittedHooks"] == [point, "PostVMStop"]


def test_the_image_of_a_program_finds_it_by_its_hook(directory):
    program = directory / "hook.sh"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    done = run("dockerfile", "--base", DIGEST, "--exec", "--hook", "preCloudInitIso", "--", program)
    lines = [line for line in done.stdout.decode().splitlines() if not line.startswith("#")]
    assert lines[:2] == [f"FROM {DIGEST}", "COPY hook.sh /usr/bin/preCloudInitIso"]
    assert json.loads(lines[2].removeprefix("ENTRYPOINT ")) == ["/sidecar-shim", "--mode", "exec"]
