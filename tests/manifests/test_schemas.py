"""Every manifest fits its kind's schema, and would not if one of its fields were misspelt."""

import copy

import jsonschema
import kubernetes_validate
import pytest

import api

DOCUMENTS = api.documents()

# Objects whose keys are for the user to choose. Any name is right in them.
FREE = {"annotations", "labels", "matchLabels", "data", "limits", "nodeSelector"}
FREE_PATHS = {("resources", "requests"), ("network", "binding")}


def objects(node, path=()):
    """Every object in a document that has fields, and not free keys, with the way to it."""
    if isinstance(node, dict):
        if not (path and (path[-1] in FREE or path[-2:] in FREE_PATHS)):
            yield path, node
        for key, value in node.items():
            yield from objects(value, (*path, key))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from objects(value, (*path, index))


def at(document, path):
    for step in path:
        document = document[step]
    return document


def binding(kubevirt):
    """The one network binding plugin of a KubeVirt resource."""
    (found,) = kubevirt["spec"]["configuration"]["network"]["binding"].values()
    return found


def interface(machine):
    (found,) = machine["spec"]["template"]["spec"]["domain"]["devices"]["interfaces"]
    return found


def refused(document, kubevirt="1.9"):
    try:
        api.validate(document, api.VERSIONS[0], kubevirt)
    # A kind or version that there is no schema of
    except (jsonschema.ValidationError, kubernetes_validate.SchemaNotFoundError):
        return True
    return False


def test_the_manifests_are_found():
    files = {name.partition("/")[0] for name in DOCUMENTS}
    sidecars, plugins = {"legacy-configmap", "legacy-image"}, {"plugin-domain", "plugin-domain-1.10", "plugin-node"}
    assert files == sidecars | plugins | {"network-binding"}


@pytest.mark.parametrize("version", api.VERSIONS)
@pytest.mark.parametrize("name", DOCUMENTS)
def test_fits_its_schema(name, version):
    api.validate(DOCUMENTS[name], version, api.kubevirt(name))


@pytest.mark.parametrize("version", ["1.34", "1.35"])
@pytest.mark.parametrize("kind", ["MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding"])
def test_fits_the_beta_of_older_clusters(kind, version):
    document = copy.deepcopy(api.the("plugin-domain", kind))
    document["apiVersion"] = "admissionregistration.k8s.io/v1beta1"
    api.validate(document, version)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_misspelt_field_is_refused_wherever_it_stands(name):
    document = DOCUMENTS[name]
    tried = 0
    for path, each in objects(document):
        for key in each:
            if key in ("apiVersion", "kind"):
                continue
            changed = copy.deepcopy(document)
            target = at(changed, path)
            target[f"{key}x"] = target.pop(key)
            assert refused(changed, api.kubevirt(name)), f"{key}x passes in {'.'.join(map(str, path)) or 'the document'}"
            tried += 1
    assert tried >= len(document)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_field_of_another_type_is_refused_wherever_it_stands(name):
    document = DOCUMENTS[name]
    for path, each in objects(document):
        for key, value in each.items():
            if key in ("apiVersion", "kind"):
                continue
            changed = copy.deepcopy(document)
            at(changed, path)[key] = "text" if isinstance(value, (dict, list)) else [value]
            where = f"{key} in {'.'.join(map(str, path))}"
            assert refused(changed, api.kubevirt(name)), f"another type passes as {where}"


@pytest.mark.parametrize(
    "file, kind, change",
    [
        ("legacy-image", "VirtualMachine", lambda vm: vm["spec"].update(runStrategy="Sometimes")),
        ("plugin-domain", "Plugin", lambda plugin: plugin["metadata"].update(namespace="vms")),
        ("plugin-domain", "Plugin", lambda plugin: plugin["spec"]["domainHooks"][0].update(timeout="30")),
        (
            "plugin-domain",
            "Plugin",
            lambda plugin: plugin["spec"]["domainHooks"][0]["sidecar"].update(socketPath="/run/hook.sock"),
        ),
        ("plugin-domain", "Plugin", lambda plugin: plugin["spec"]["domainHooks"][0].update(cel={"expression": "x"})),
        ("plugin-node", "Plugin", lambda plugin: plugin["spec"]["nodeHooks"][0].update(permittedHooks=["preVMStart"])),
        ("plugin-node", "Plugin", lambda plugin: plugin["spec"]["nodeHooks"][0].update(socket="/var/../hook.sock")),
        ("plugin-node", "Plugin", lambda plugin: plugin["spec"]["nodeHooks"][0].update(socket="/" + 107 * "s")),
        ("plugin-node", "Plugin", lambda plugin: plugin.update(apiVersion="plugin.kubevirt.io/v1")),
        ("network-binding", "KubeVirt", lambda kubevirt: binding(kubevirt)["migration"].update(method="none")),
        ("network-binding", "KubeVirt", lambda kubevirt: binding(kubevirt).pop("sidecarImage")),
        ("network-binding", "KubeVirt", lambda kubevirt: binding(kubevirt).update(domainAttachmentType="passt")),
        ("network-binding", "VirtualMachine", lambda vm: interface(vm).update(masquerade={})),
        ("network-binding", "VirtualMachine", lambda vm: interface(vm).pop("binding")),
        ("network-binding", "VirtualMachine", lambda vm: interface(vm)["ports"][0].update(protocol="tcp")),
    ],
)
def test_what_kubevirt_refuses_is_refused(file, kind, change):
    document = copy.deepcopy(api.the(file, kind))
    change(document)
    assert refused(document)


def test_a_domain_hook_is_for_one_version_of_kubevirt():
    assert refused(api.the("plugin-domain", "Plugin"), "1.10")
    assert refused(api.the("plugin-domain-1.10", "Plugin"), "1.9")


@pytest.mark.parametrize("kubevirt, point", [("1.9", "PreVMStop"), ("1.10", "OnVMStop")])
def test_a_node_hook_is_for_both_if_it_is_not_called_at_the_stop(kubevirt, point):
    plugin = copy.deepcopy(api.the("plugin-node", "Plugin"))
    assert not refused(plugin, kubevirt)
    plugin["spec"]["nodeHooks"][0]["permittedHooks"].append(point)
    assert {each for each in api.KUBEVIRT if not refused(plugin, each)} == {kubevirt}


@pytest.mark.parametrize(
    "change",
    [
        lambda hook: hook["sidecar"].pop("permittedHooks"),
        lambda hook: hook["sidecar"].update(permittedHooks=[]),
        lambda hook: hook["sidecar"].update(permittedHooks=["MutateDomain"]),
        lambda hook: hook["sidecar"].update(socketPath="/run/hook.sock"),
        lambda hook: hook.update(cel={"hookPoint": "GuestDefinition", "expression": "x"}),
        lambda hook: hook.update(timeout="0s"),
        lambda hook: hook.pop("sidecar"),
    ],
)
def test_what_kubevirt_1_10_refuses_is_refused(change):
    document = copy.deepcopy(api.the("plugin-domain-1.10", "Plugin"))
    change(document["spec"]["launcherHooks"][0])
    assert refused(document, "1.10")
    document = copy.deepcopy(api.the("plugin-domain-1.10", "Plugin"))
    document["spec"]["launcherHooks"] *= 33
    assert refused(document, "1.10")


def test_what_is_for_kubevirt_1_10_says_that_it_is_provisional():
    files = [path for path in api.MANIFESTS.rglob("*-1.10.*") if path.is_file()]
    assert len(files) == 2
    assert all("PROVISIONAL" in path.read_text() for path in files)


def test_a_key_that_is_there_twice_is_refused():
    with pytest.raises(api.yaml.YAMLError, match="twice"):
        api.yaml.load("a: {b: 1, b: 2}", api.Loader)
