"""What one manifest says of another, or of itself elsewhere, is so."""

import re
from pathlib import PurePosixPath

import pytest

import api
from api import quantity

DOCUMENTS = api.documents()
MACHINES = {name: each for name, each in DOCUMENTS.items() if each["kind"] == "VirtualMachine"}
DAEMON = api.the("plugin-node", "DaemonSet")
POD = DAEMON["spec"]["template"]["spec"]
(SHIM,) = POD["containers"]

def option(name):
    """The value of one of the shim's options in the DaemonSet."""
    return SHIM["args"][SHIM["args"].index(name) + 1]


@pytest.mark.parametrize("name", MACHINES)
def test_disks_have_volumes_and_interfaces_have_networks(name):
    spec = MACHINES[name]["spec"]["template"]["spec"]
    devices = spec["domain"]["devices"]
    for used, there in ((devices["disks"], spec["volumes"]), (devices["interfaces"], spec["networks"])):
        assert {each["name"] for each in used} == {each["name"] for each in there}


def test_the_hook_of_the_config_map_is_there():
    config = api.the("legacy-configmap", "ConfigMap")
    machine = api.the("legacy-configmap", "VirtualMachine")
    (sidecar,) = api.hook_sidecars(machine)
    wanted = sidecar["configMap"]
    assert wanted["name"] == config["metadata"]["name"]
    assert machine["metadata"]["namespace"] == config["metadata"]["namespace"]
    assert wanted["key"] in config["data"]
    # Where $PATH of the image leads, under the name that the shim looks for.
    assert PurePosixPath(wanted["hookPath"]).parent == PurePosixPath("/usr/bin")
    assert PurePosixPath(wanted["hookPath"]).name in ("onDefineDomain", "preCloudInitIso")


@pytest.mark.parametrize("file, sidecars", [("legacy-configmap", 1), ("legacy-image", 1), ("plugin-domain", 0), ("network-binding", 0)])
def test_legacy_vms_name_their_sidecars_and_others_do_not(file, sidecars):
    assert len(api.hook_sidecars(api.the(file, "VirtualMachine"))) == sidecars


def test_the_vm_of_the_plugin_is_the_legacy_one_without_the_sidecar():
    legacy, plugin = (api.the(file, "VirtualMachine")["spec"] for file in ("legacy-image", "plugin-domain"))
    del legacy["template"]["metadata"]["annotations"]["hooks.kubevirt.io/hookSidecars"]
    assert legacy == plugin


def test_the_vm_uses_the_network_binding_that_is_registered_and_no_other_object_is_needed():
    assert kinds("network-binding") == ["KubeVirt", "VirtualMachine"]
    bindings = api.the("network-binding", "KubeVirt")["spec"]["configuration"]["network"]["binding"]
    spec = api.the("network-binding", "VirtualMachine")["spec"]["template"]["spec"]
    (interface,), (network,) = spec["domain"]["devices"]["interfaces"], spec["networks"]
    assert interface["binding"]["name"] in bindings
    # The plugin is for the pod network.
    assert (interface["name"], network["pod"]) == (network["name"], {})
    assert not any("networkAttachmentDefinition" in each for each in bindings.values())


def test_the_policy_is_bound_and_the_plugin_knows_it():
    policy = api.the("plugin-domain", "MutatingAdmissionPolicy")["metadata"]["name"]
    assert api.the("plugin-domain", "MutatingAdmissionPolicyBinding")["spec"]["policyName"] == policy
    assert api.the("plugin-domain", "Plugin")["spec"]["mutatingAdmissionPolicies"] == [{"name": policy}]


def test_the_sidecars_socket_is_where_kubevirt_lets_it_be():
    plugin = api.the("plugin-domain", "Plugin")
    (hook,) = plugin["spec"]["domainHooks"]
    socket = PurePosixPath(hook["sidecar"]["socketPath"])
    assert socket.parent == PurePosixPath("/var/run/kubevirt-plugin", plugin["metadata"]["name"])
    # test_policy.py has what the policy injects: the same path, and a mount of that directory.
    (patch,) = api.the("plugin-domain", "MutatingAdmissionPolicy")["spec"]["mutations"]
    expression = patch["jsonPatch"]["expression"]
    assert f'args: ["--plugin-socket", "{socket}"]' in expression
    assert f'mountPath: "{socket.parent}"' in expression
    assert f'subPath: "{plugin["metadata"]["name"]}"' in expression


def test_the_plugin_for_kubevirt_1_10_is_the_same_one():
    old, new = (api.the(file, "Plugin") for file in ("plugin-domain", "plugin-domain-1.10"))
    (hook,) = new["spec"]["launcherHooks"]
    # The only point of virt-launcher that the shim serves.
    assert hook["sidecar"].pop("permittedHooks") == ["GuestDefinition"]
    new["spec"]["domainHooks"] = new["spec"].pop("launcherHooks")
    assert new == old


def kinds(file):
    """The kinds of a file's documents, in its order."""
    return [each.split("/")[1] for each in DOCUMENTS if each.startswith(f"{file}/")]


def test_the_plugin_comes_before_the_policy():
    # KubeVirt may refuse the Plugin. What was applied before it would stay.
    order = kinds("plugin-domain")
    for later in ("MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding"):
        assert order.index("Plugin") < order.index(later)


def test_the_daemon_comes_before_the_plugin():
    # Until it serves, the Plugin fails the VMs that it selects.
    order = kinds("plugin-node")
    for earlier in ("Namespace", "DaemonSet"):
        assert order.index(earlier) < order.index("Plugin")


def test_the_daemon_is_in_its_namespace():
    namespace = api.the("plugin-node", "Namespace")["metadata"]
    assert namespace["labels"]["pod-security.kubernetes.io/enforce"] == "privileged"
    for kind in ("ServiceAccount", "NetworkPolicy", "DaemonSet"):
        assert api.the("plugin-node", kind)["metadata"]["namespace"] == namespace["name"]
    assert POD["serviceAccountName"] == api.the("plugin-node", "ServiceAccount")["metadata"]["name"]


def test_the_daemon_finds_its_own_pods():
    labels = DAEMON["spec"]["template"]["metadata"]["labels"]
    assert DAEMON["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_the_daemons_socket_is_in_the_directory_of_the_host():
    (hook,) = api.the("plugin-node", "Plugin")["spec"]["nodeHooks"]
    (mount,), (volume,) = SHIM["volumeMounts"], POD["volumes"]
    assert option("--plugin-socket") == hook["socket"]
    assert mount["name"] == volume["name"]
    # virt-handler has the same path of the host.
    directory = str(PurePosixPath(hook["socket"]).parent)
    assert mount["mountPath"] == volume["hostPath"]["path"] == directory
    assert directory.startswith("/var/run/kubevirt/plugins/")


def test_the_probes_ask_the_socket_that_is_served():
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        command = SHIM[name]["exec"]["command"]
        assert command[:2] == ["/sidecar-shim", "health"]
        assert command[-2:] == ["--socket", option("--plugin-socket")]


def test_the_daemons_pod_has_no_more_rights_than_it_needs():
    security = SHIM["securityContext"]
    assert security["capabilities"] == {"drop": ["ALL"], "add": ["SYS_RESOURCE"]}
    assert security["allowPrivilegeEscalation"] is False
    assert security["readOnlyRootFilesystem"] is True
    assert "privileged" not in security
    assert POD["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert POD["automountServiceAccountToken"] is False
    assert POD["enableServiceLinks"] is False
    assert not {"hostNetwork", "hostIPC"} & POD.keys()


def test_an_update_ends_the_old_pod_before_it_starts_the_new_one():
    rolling = DAEMON["spec"]["updateStrategy"]["rollingUpdate"]
    assert rolling["maxSurge"] == 0 and rolling["maxUnavailable"] > 0


def test_memory_is_enough_for_all_workers_and_no_request_is_over_its_limit():
    resources = SHIM["resources"]
    for name, wanted in resources["requests"].items():
        assert quantity(wanted) <= quantity(resources["limits"].get(name, wanted))
    # A worker that takes too much fails alone, before the container does.
    worker = quantity(option("--worker-memory").removesuffix("B"))
    assert quantity(resources["limits"]["memory"]) >= int(option("--max-workers")) * worker + 16 * 2**20


def test_quantities_are_what_kubernetes_reads():
    for text in ("64Mi", "10m", "1.5Gi", "200"):
        assert quantity(text) > 0
    for text in ("64MB", "64mib", "x", "", "1 Gi"):
        with pytest.raises(ValueError):
            quantity(text)


def test_images_have_a_version():
    texts = [path.read_text() for path in api.MANIFESTS.glob("*.yaml")]
    images = [image for text in texts for image in re.findall(r"registry\.example/[^\s\"]+", text)]
    assert images
    for image in images:
        assert re.fullmatch(r"registry\.example/[a-z/-]+:[0-9.]+", image), image
