"""The admission policy puts the shim into the pods of the VMs that the Plugin selects, and changes no others."""

import copy

import pytest

import api
from conditions import DOMAIN, NODE
from containers import launcher_pod
from policy import Policy, PolicyError

MANIFEST = api.the("plugin-domain", "MutatingAdmissionPolicy")
PLUGIN = api.the("plugin-domain", "Plugin")
POD = launcher_pod()
ANNOTATION = "smbios.vm.kubevirt.io/baseBoardManufacturer"
SOCKET = "/var/run/kubevirt-plugin/smbios/hook.sock"

INJECTED = {
    "name": "smbios-hook",
    "image": "registry.example/smbios-hook:1.0.0",
    "imagePullPolicy": "IfNotPresent",
    "args": ["--plugin-socket", SOCKET],
    "restartPolicy": "Always",
    "startupProbe": {
        "exec": {"command": ["/sidecar-shim", "health", "--socket", SOCKET]},
        "periodSeconds": 1,
        "timeoutSeconds": 2,
        "failureThreshold": 60,
    },
    "resources": {
        "requests": {"cpu": "200m", "memory": "64Mi"},
        "limits": {"cpu": "200m", "memory": "64Mi"},
    },
    "securityContext": {
        "runAsNonRoot": True,
        "runAsUser": 107,
        "runAsGroup": 107,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    },
    "volumeMounts": [
        {
            "name": "kubevirt-plugin-sockets",
            "mountPath": "/var/run/kubevirt-plugin/smbios",
            "subPath": "smbios",
        }
    ],
}


@pytest.fixture(scope="module")
def policy():
    return Policy(MANIFEST)


@pytest.fixture
def pod():
    return copy.deepcopy(POD)


def changed(change):
    """The policy after a change to its text."""
    manifest = copy.deepcopy(MANIFEST)
    change(manifest["spec"])
    return Policy(manifest)


def replaced(old, new):
    """The policy with other words in its patch."""

    def change(spec):
        patch = spec["mutations"][0]["jsonPatch"]
        assert old in patch["expression"]
        patch["expression"] = patch["expression"].replace(old, new)

    return changed(change)


@pytest.mark.parametrize("version", api.VERSIONS)
def test_the_sample_is_a_pod(pod, version):
    api.validate(pod, version)


@pytest.mark.parametrize("version", api.VERSIONS)
def test_injects_the_shim_as_the_last_sidecar(policy, pod, version):
    result = policy.mutate(pod)
    api.validate(result, version)
    *others, ours = result["spec"]["initContainers"]
    assert ours == INJECTED
    assert others == POD["spec"]["initContainers"]
    del result["spec"]["initContainers"], pod["spec"]["initContainers"]
    assert result == pod, "nothing else is changed"


def test_makes_the_list_of_a_pod_without_init_containers(policy, pod):
    del pod["spec"]["initContainers"]
    assert policy.mutate(pod)["spec"]["initContainers"] == [INJECTED]


def test_is_idempotent(policy, pod):
    once = policy.mutate(pod)
    assert once != POD
    assert policy.mutate(once) == once


@pytest.mark.parametrize(
    "change",
    [
        lambda pod: pod["metadata"].pop("annotations"),
        lambda pod: pod["metadata"]["annotations"].pop(ANNOTATION),
        lambda pod: pod["metadata"].pop("labels"),
        lambda pod: pod["metadata"]["labels"].update({"kubevirt.io": "hotplug-disk"}),
        lambda pod: pod["spec"].pop("volumes"),
        lambda pod: pod["spec"]["volumes"].pop(),
    ],
    ids=["no annotations", "no annotation", "no labels", "another pod of KubeVirt", "no volumes", "no sockets"],
)
def test_leaves_other_pods_alone(policy, pod, change):
    change(pod)
    assert policy.mutate(copy.deepcopy(pod)) == pod


def quality_of_service(pod):
    """The class that Kubernetes gives a pod, by the rules of its documentation."""
    containers = pod["spec"]["containers"] + pod["spec"].get("initContainers", [])
    limits = [each.get("resources", {}).get("limits", {}) for each in containers]
    requests = [each.get("resources", {}).get("requests", {}) for each in containers]
    pairs = [(name, want, most) for name in ("cpu", "memory") for want, most in zip(requests, limits, strict=True)]
    if all(name in most and want.get(name, most[name]) == most[name] for name, want, most in pairs):
        return "Guaranteed"
    return "Burstable" if any(name in each for name, *both in pairs for each in both) else "BestEffort"


def test_a_pod_with_dedicated_cpus_stays_guaranteed(policy, pod):
    assert quality_of_service(pod) == "Burstable"
    assert quality_of_service(policy.mutate(pod)) == "Burstable"
    for each in pod["spec"]["initContainers"] + pod["spec"]["containers"]:
        each["resources"] = {"limits": {"cpu": "2", "memory": "64M"}, "requests": {"cpu": "2", "memory": "64M"}}
    assert quality_of_service(pod) == "Guaranteed"
    assert quality_of_service(policy.mutate(pod)) == "Guaranteed"
    assert quality_of_service(replaced('limits: {"cpu": "200m"', 'limits: {"cpu": "400m"').mutate(pod)) == "Burstable"


@pytest.mark.parametrize("annotations", [None, {}, {ANNOTATION: "x"}, {ANNOTATION: ""}, {"other": "x"}])
def test_the_plugin_selects_the_vms_whose_pods_get_the_shim(policy, pod, annotations):
    vmi = {"metadata": {"name": "sample-vm", "namespace": "vms"}}
    pod["metadata"].pop("annotations")
    if annotations is not None:
        pod["metadata"]["annotations"] = vmi["metadata"]["annotations"] = annotations
    (hook,) = PLUGIN["spec"]["domainHooks"]
    assert DOMAIN.compile(hook["condition"])(vmi) == policy.matches(pod)


def test_the_node_plugin_selects_by_annotation():
    (hook,) = api.the("plugin-node", "Plugin")["spec"]["nodeHooks"]
    selects = NODE.compile(hook["condition"])
    for metadata, selected in (
        ({"annotations": {"memlock.example/limit": "1Gi"}}, True),
        ({"annotations": {"other": "x"}}, False),
        ({"annotations": {}}, False),
        ({}, False),
    ):
        assert selects({"metadata": {"name": "vm", "namespace": "vms", **metadata}}) is selected


@pytest.mark.parametrize(
    "old, new, complaint",
    [
        ("imagePullPolicy", "imagePulPolicy", "undefined field 'imagePulPolicy'"),
        ("runAsNonRoot", "runAsNotRoot", "undefined field 'runAsNotRoot'"),
        ("securityContext.capabilities{", "securityContext.capability{", "undeclared reference"),
        ("runAsUser: 107", 'runAsUser: "107"', "expected type of field 'runAsUser' is 'int'"),
        ('drop: ["ALL"]', 'drop: "ALL"', "expected type of field 'drop' is 'list"),
        ("startupProbe.exec{", "livenessProbe.exec{", "expected type of field 'exec'"),
        ("has(object.spec.initContainers)", "has(object.spec.initContainer)", "undefined field 'initContainer'"),
        ('path: "/spec/initContainers/-"', 'paht: "/spec/initContainers/-"', "undefined field 'paht'"),
    ],
)
def test_a_patch_that_does_not_fit_a_pod_is_refused(old, new, complaint):
    with pytest.raises(PolicyError) as error:
        replaced(old, new)
    assert complaint in str(error.value)


def test_a_condition_that_does_not_fit_a_pod_is_refused():
    def misspelt(spec):
        spec["matchConditions"][0]["expression"] = "has(object.metadata.annotation)"

    def no_answer(spec):
        spec["matchConditions"][0]["expression"] = "object.metadata.name"

    for change in (misspelt, no_answer):
        with pytest.raises(PolicyError):
            changed(change)


def test_a_patch_of_something_that_is_not_there_fails(pod):
    with pytest.raises(Exception, match="sidecars"):
        replaced("/spec/initContainers/-", "/spec/sidecars/-").mutate(pod)
