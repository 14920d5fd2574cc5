"""The conditions of the Plugins compile as KubeVirt compiles them, and fail no VM."""

import copy

import pytest

import api
from conditions import DOMAIN, NODE, ConditionError, check

PLUGINS = {name: each for name, each in api.documents().items() if each["kind"] == "Plugin"}

VM = {
    "kind": "VirtualMachineInstance",
    "metadata": {"name": "vm1", "namespace": "vms", "labels": {"x": "y"}, "annotations": {"x": "y"}},
    "spec": {
        "domain": {
            "cpu": {"cores": 2, "dedicatedCpuPlacement": True},
            "memory": {"guest": "1Gi"},
            "devices": {
                "disks": [{"name": "root", "disk": {"bus": "virtio"}}],
                "interfaces": [{"name": "default", "masquerade": {}}],
            },
        },
        "terminationGracePeriodSeconds": 60,
    },
    "status": {"phase": "Running", "nodeName": "node01"},
}


def test_there_is_a_plugin_for_each_kind_of_hook():
    hooks = {hook for plugin in PLUGINS.values() for hook in plugin["spec"]}
    assert {"domainHooks", "launcherHooks", "nodeHooks"} <= hooks


@pytest.mark.parametrize("name", PLUGINS)
def test_the_manifests_conditions_are_accepted(name):
    check(PLUGINS[name])


@pytest.mark.parametrize("name", PLUGINS)
@pytest.mark.parametrize("condition", ['"x" in vmi.Annotations', '"x" in vmi.metadata.annotations'])
def test_a_condition_of_the_whole_plugin_is_refused(name, condition):
    plugin = copy.deepcopy(PLUGINS[name])
    plugin["spec"]["condition"] = condition
    with pytest.raises(ConditionError, match="no spelling"):
        check(plugin)


@pytest.mark.parametrize("name", PLUGINS)
def test_the_spelling_of_the_other_kind_of_hook_is_refused(name):
    others = {
        "domainHooks": 'has(vmi.metadata.annotations) && "x" in vmi.metadata.annotations',
        "launcherHooks": 'has(vmi.metadata.annotations) && "x" in vmi.metadata.annotations',
        "nodeHooks": '"x" in vmi.Annotations',
    }
    for hooks in others.keys() & PLUGINS[name]["spec"].keys():
        plugin = copy.deepcopy(PLUGINS[name])
        plugin["spec"][hooks][0]["condition"] = others[hooks]
        with pytest.raises(ConditionError, match="undefined field"):
            check(plugin)


@pytest.mark.parametrize(
    "domain, node",
    [
        ('"x" in vmi.Annotations', '"x" in vmi.metadata.annotations'),
        ('"x" in vmi.ObjectMeta.Annotations', '"x" in vmi.metadata.annotations'),
        ('"x" in vmi.Labels && vmi.Labels["x"] == "y"', '"x" in vmi.metadata.labels && vmi.metadata.labels["x"] == "y"'),
        ("has(vmi.Labels.x) && vmi.Labels.x == 'y'", "has(vmi.metadata.labels.x) && vmi.metadata.labels.x == 'y'"),
        ('vmi.Labels.exists(key, key == "x")', 'vmi.metadata.labels.exists(key, key == "x")'),
        ('vmi.Namespace.startsWith("vm")', 'vmi.metadata.namespace.startsWith("vm")'),
        ("vmi.Spec.Domain.CPU.Cores == 2u", "vmi.spec.domain.cpu.cores == 2u"),
        ("vmi.Spec.Domain.CPU.DedicatedCPUPlacement", "vmi.spec.domain.cpu.dedicatedCpuPlacement"),
        ("vmi.Spec.TerminationGracePeriodSeconds > 30", "vmi.spec.terminationGracePeriodSeconds > 30"),
        ('vmi.Spec.Domain.Devices.Disks.exists(d, d.Name == "root")', 'vmi.spec.domain.devices.disks.size() == 1'),
        ('vmi.Spec.Domain.Devices.Disks.all(d, d.Disk.Bus == "virtio")', 'vmi.status.phase == "Running"'),
        ("has(vmi.Spec.Domain.Memory.Guest)", "has(vmi.spec.domain.memory.guest)"),
        ('vmi.Kind == "VirtualMachineInstance"', 'vmi.status.nodeName == "node01"'),
    ],
)
def test_conditions_hold_for_a_vm(domain, node):
    assert DOMAIN.compile(domain)(VM) is True
    assert NODE.compile(node)(VM) is True


@pytest.mark.parametrize("environment", [DOMAIN, NODE], ids=["domain hook", "node hook"])
@pytest.mark.parametrize(
    "condition, complaint",
    [
        ('"x" in vmi.Annotation', "undefined field 'Annotation'"),
        ('"x" in vmi.annotations', "undefined field 'annotations'"),
        ('"x" in vmi.metadata.Annotations', "undefined field"),
        ('"x" in vmi.ObjectMeta.annotations', "undefined field"),
        ('vmi.name == "vm1"', "undefined field 'name'"),
        ('vmi.kind == "VirtualMachineInstance"', "undefined field 'kind'"),
        ("vmi.Spec.domain.cpu.cores == 2u", "undefined field"),
        ("vmi.spec.Domain.CPU.Cores == 2u", "undefined field"),
        ("instance.Name == 'x'", "undeclared reference to 'instance"),
        ("'x' in ", "Syntax error"),
        ("1", "no bool"),
    ],
)
def test_a_field_that_is_not_there_is_refused(environment, condition, complaint):
    with pytest.raises(ConditionError, match=complaint):
        environment.compile(condition)


@pytest.mark.parametrize(
    "domain, node, complaint",
    [
        ("vmi.Name", "vmi.metadata.name", "no bool"),
        ("vmi.Spec.Domain.CPU.Cores == 2", "vmi.spec.domain.cpu.cores == 2", r"\(uint, int\)"),
        ("vmi.Labels == 'x'", "vmi.metadata.labels == 'x'", "no matching overload"),
        ('vmi.Labels["x"] == "y"', 'vmi.metadata.labels["x"] == "y"', "a VM without"),
        ("vmi.Labels['x'] == 'y'", "vmi.metadata.labels['x'] == 'y'", "a VM without"),
        ("vmi.Labels.x == 'y'", "vmi.metadata.labels.x == 'y'", "a VM without"),
        (
            # What stands before is false for most VMs, so that few of them fail.
            'vmi.Name == "a" && vmi.Annotations["x"] == "y"',
            'vmi.metadata.name == "a" && vmi.metadata.annotations["x"] == "y"',
            "a VM without",
        ),
        (
            'has(vmi.Annotations) && vmi.Annotations["x"] == "y"',
            'has(vmi.metadata.annotations) && vmi.metadata.annotations["x"] == "y"',
            "a VM without",
        ),
        (
            '!("x" in vmi.Labels) && vmi.Labels["x"] == "y"',
            '!("x" in vmi.metadata.labels) && vmi.metadata.labels["x"] == "y"',
            "not found in map",
        ),
        (
            'vmi.Spec.Domain.Devices.Disks[0].Name == "root"',
            'vmi.spec.domain.devices.disks[0].name == "root"',
            "a VM without",
        ),
    ],
)
def test_a_condition_that_would_fail_vms_is_refused(domain, node, complaint):
    for environment, condition in ((DOMAIN, domain), (NODE, node)):
        with pytest.raises(ConditionError, match=complaint):
            environment.compile(condition)
