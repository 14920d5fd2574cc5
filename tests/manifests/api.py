"""The manifests, and the schemas that they have to fit."""

import functools
import json
import re
from pathlib import Path

import jsonschema
import kubernetes_validate
import yaml
from kubernetes_validate.utils import schema_contents

ROOT = Path(__file__).resolve().parents[2]
MANIFESTS = ROOT / "examples" / "kubernetes"

# MutatingAdmissionPolicy has been v1 since the first; the other is the newest that there are schemas of.
VERSIONS = ["1.36", "1.37"]

# KubeVirt's kinds differ between its versions. 1.10 is not released, so its schema is provisional.
STABLE = {
    ("kubevirt.io/v1", "KubeVirt"): "kubevirt-v1.json",
    ("kubevirt.io/v1", "VirtualMachine"): "virtualmachine-v1.json",
}
KUBEVIRT = {
    "1.9": {**STABLE, ("plugin.kubevirt.io/v1alpha1", "Plugin"): "plugin-v1alpha1.json"},
    "1.10": {**STABLE, ("plugin.kubevirt.io/v1alpha1", "Plugin"): "plugin-v1alpha1-kubevirt-1.10.json"},
}


class Loader(yaml.SafeLoader):
    """YAML as Kubernetes reads it: no key twice in one mapping."""

    def construct_mapping(self, node, deep=False):
        keys = [key.value for key, _ in node.value]
        if len(keys) != len(set(keys)):
            raise yaml.constructor.ConstructorError(None, None, f"a key twice in {keys}", node.start_mark)
        return super().construct_mapping(node, deep)


def documents():
    """Every manifest, by a name for people: its file, kind and name."""
    found = {}
    for path in sorted(MANIFESTS.glob("*.yaml")):
        for document in yaml.load_all(path.read_text(), Loader):
            name = f"{path.stem}/{document['kind']}/{document['metadata']['name']}"
            assert name not in found, f"{name} is there twice"
            found[name] = document
    return found


def the(file, kind):
    """The one manifest of this kind in this file."""
    (found,) = (each for name, each in documents().items() if name.startswith(f"{file}/{kind}/"))
    return found


def schema(name):
    """One of the schemas in the manifests' folder."""
    content = json.loads((MANIFESTS / "schemas" / name).read_text())
    jsonschema.Draft202012Validator.check_schema(content)
    return content


def kubevirt(name):
    """The version of KubeVirt that a manifest of `documents` is for: its file's name says it."""
    return "1.10" if name.partition("/")[0].endswith("-1.10") else "1.9"


def validate(document, version, kubevirt="1.9"):
    """Raises jsonschema.ValidationError for a document that does not fit its kind's schema, unknown fields
    included. `version` is the version of Kubernetes; KubeVirt's kinds depend on `kubevirt` instead."""
    own = KUBEVIRT[kubevirt].get((document["apiVersion"], document["kind"]))
    if own is None:
        kubernetes_validate.validate(document, version, strict=True)
    else:
        jsonschema.Draft202012Validator(schema(own)).validate(document)


@functools.cache
def _definitions():
    return schema_contents(f"kubernetes-json-schema/v{VERSIONS[0]}.0-local-strict/_definitions.json", VERSIONS[0])


def definition(name):
    """The schema of one of Kubernetes's types, such as `io.k8s.api.core.v1.Pod`."""
    return _definitions()["$defs"][name]


def hook_sidecars(machine):
    """What the annotation of a VirtualMachine says, or an empty list."""
    annotations = machine["spec"]["template"].get("metadata", {}).get("annotations", {})
    text = annotations.get("hooks.kubevirt.io/hookSidecars")
    if text is None:
        return []
    sidecars = json.loads(text)
    jsonschema.Draft202012Validator(schema("hooksidecars.json")).validate(sidecars)
    return sidecars


UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "m": 1e-3, "": 1, "k": 1e3, "M": 1e6, "G": 1e9}


def quantity(text):
    """The number that a quantity stands for. Raises ValueError for one that Kubernetes does not read."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(Ki|Mi|Gi|m|k|M|G|)", text)
    if found is None:
        raise ValueError(f"not a quantity: {text}")
    return float(found[1]) * UNITS[found[2]]
