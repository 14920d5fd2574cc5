"""The containers of the manifests that run the shim."""

import copy

import yaml

import api
from policy import Policy


def launcher_pod():
    """The pod of a VM that wants a hook, before the policy has seen it."""
    return yaml.load((api.ROOT / "tests/manifests/virt-launcher-pod.yaml").read_text(), api.Loader)


def injected():
    """The container that the policy puts into such a pod."""
    policy = Policy(api.the("plugin-domain", "MutatingAdmissionPolicy"))
    return policy.mutate(launcher_pod())["spec"]["initContainers"][-1]


def daemon():
    """The node hook's."""
    (container,) = api.the("plugin-node", "DaemonSet")["spec"]["template"]["spec"]["containers"]
    return copy.deepcopy(container)


def legacy(file):
    """What KubeVirt makes of the annotation of a VM, with the fields that matter here."""
    (sidecar,) = api.hook_sidecars(api.the(file, "VirtualMachine"))
    return {"image": sidecar["image"], "args": sidecar["args"]}


def network_binding():
    """What KubeVirt makes of a registered network binding: neither arguments nor a command."""
    kubevirt = api.the("network-binding", "KubeVirt")
    ((name, plugin),) = kubevirt["spec"]["configuration"]["network"]["binding"].items()
    environment = {"CONTAINER_NAME": "hook-sidecar-0", "NETWORK_BINDING_PLUGIN_NAME": name}
    return {
        "image": plugin["sidecarImage"],
        "args": [],
        "env": [{"name": name, "value": value} for name, value in environment.items()],
    }


def all_of_them():
    """By a name for people."""
    return {
        "legacy-configmap": legacy("legacy-configmap"),
        "legacy-image": legacy("legacy-image"),
        "plugin-domain": injected(),
        "plugin-node": daemon(),
        "network-binding": network_binding(),
    }


def probes(container):
    """The commands of a container's probes."""
    names = ("startupProbe", "readinessProbe", "livenessProbe")
    return [container[name]["exec"]["command"] for name in names if name in container]
