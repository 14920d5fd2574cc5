"""What KubeVirt accepts: the manifests, and conditions on VMs."""

import copy

import api
import conditions
import generated
import vmi as fields
from expressions import EXPRESSIONS
from judge import Refused, fail, machine, say


def cluster():
    """The configuration of a cluster for the manifests: feature gates, and the part that one of them adds."""
    addition = api.the("network-binding", "KubeVirt")["spec"]["configuration"]
    return {"developerConfiguration": {"featureGates": ["Plugins", "Sidecar"]}, **addition}


KINDS = ("Plugin", "VirtualMachine", "KubeVirt")


def judge_manifests(judge):
    """Every object of KubeVirt's kinds is admitted; broken ones and Plugins for 1.10 are not."""
    for name, document in api.documents().items():
        if document["kind"] not in KINDS:
            continue
        if document["kind"] == "Plugin" and api.kubevirt(name) != "1.9":
            refused(judge, document, "unknown field")
            continue
        judge("admit", object=document, cluster=cluster())
        say(f"admitted: {name}")
    domain, node = api.the("plugin-domain", "Plugin"), api.the("plugin-node", "Plugin")
    for plugin, hooks, change, complaint in (
        (domain, "domainHooks", {"condition": '"x" in vmi.metadata.annotations'}, "undefined field 'metadata'"),
        (node, "nodeHooks", {"condition": '"x" in vmi.Annotations'}, "undefined field 'Annotations'"),
        (domain, "domainHooks", {"cel": {"expression": "Domain{}"}}, "exactly one of cel or sidecar"),
        (domain, "domainHooks", {"failureStrategy": "Retry"}, "failureStrategy"),
        (domain, "domainHooks", {"sidecar": {"socketPath": "/var/run/kubevirt-plugin/smbios/../x"}}, "clean path"),
        (node, "nodeHooks", {"permittedHooks": ["OnVMStop"]}, "permittedHooks"),
        (node, "nodeHooks", {"sockets": []}, "unknown field"),
    ):
        broken = copy.deepcopy(plugin)
        broken["spec"][hooks][0].update(change)
        refused(judge, broken, complaint)
    say("broken Plugins are refused")
    machine_, binding = api.the("legacy-image", "VirtualMachine"), api.the("network-binding", "VirtualMachine")
    annotations = machine_["spec"]["template"]["metadata"]["annotations"]
    annotations["hooks.kubevirt.io/hookSidecars"] = "[{]"
    refused(judge, machine_, "invalid character")
    binding["spec"]["template"]["spec"]["domain"]["devices"]["interfaces"][0]["masquerade"] = {}
    refused(judge, binding, "exactly one binding method")
    say("broken VMs are refused")


def judge_generated(judge):
    """What `hookctl generate` makes of odd inputs is admitted, and its conditions select what they should."""
    admitted = 0
    for name, documents in generated.everything():
        configuration = cluster()
        for document in documents:
            if document["kind"] == "KubeVirt":
                configuration.update(document["spec"]["configuration"])
            if document["kind"] not in KINDS:
                continue
            if document["kind"] == "Plugin" and "launcherHooks" in document["spec"]:
                refused(judge, document, "unknown field")
                continue
            try:
                judge("admit", object=document, cluster=configuration)
            except Refused as error:
                fail(f"generated, {name}: KubeVirt refuses its {document['kind']}: {error}")
            admitted += 1
    if admitted < 50:
        fail(f"only {admitted} generated objects are judged")
    say(f"{admitted} objects that hookctl generate makes of odd inputs are admitted")
    whole = api.the("legacy-image", "VirtualMachine")
    judge("admit", object=merged(whole, generated.sidecar("vm", "'\"", whole=False)[0]), cluster=cluster())
    say("a VM with a part that hookctl generate made is admitted")
    judge_selectors(judge)


def merged(whole, part):
    """An object after a part of it was applied."""
    if not isinstance(part, dict):
        return part
    return {**whole, **{key: merged(whole.get(key, {}), value) for key, value in part.items()}}


def judge_selectors(judge):
    for name, (options, selected, other) in generated.SELECTORS.items():
        if other is None:
            continue
        (plugin, *_), (*_, node) = generated.plugin(options), generated.node(options)
        hooks = (("domain", plugin["spec"]["domainHooks"]), ("node", node["spec"]["nodeHooks"]))
        for kind, (hook,) in hooks:
            for metadata, wanted in ((selected, True), (other, False), ({}, False)):
                vmi = machine()
                vmi["metadata"].update({"annotations": {}, "labels": {}, **metadata})
                if not metadata:
                    del vmi["metadata"]["annotations"], vmi["metadata"]["labels"]
                seen = judge("evaluate", kind=kind, expression=hook["condition"], vmi=vmi)["value"]
                if seen is not wanted:
                    fail(f"generated, {name}: the condition of the {kind} hook is {seen} for {metadata}")
    say(f"the conditions of {len(generated.SELECTORS) - 1} generated Plugins select the right VMs")


def refused(judge, document, complaint):
    try:
        judge("admit", object=document, cluster=cluster())
    except Refused as error:
        if complaint not in str(error):
            fail(f"refused for another reason than {complaint}: {error}")
    else:
        fail(f"admitted: {document}")


def judge_conditions(judge):
    """tests/manifests and KubeVirt accept the same expressions, and find the same in them."""
    vmi = machine(("x", "y"))
    for kind, environment in (("domain", conditions.DOMAIN), ("node", conditions.NODE)):
        accepted = 0
        for expression in EXPRESSIONS:
            ours, theirs = own_verdict(environment, expression, vmi), kubevirts_verdict(judge, kind, expression, vmi)
            # tests/manifests/conditions.py says that it is stricter here.
            if kind == "node" and expression.endswith(" == 2"):
                ours = theirs if ours is None else fail(f"no longer stricter: {expression}")
            if ours != theirs:
                fail(f"condition of a {kind} hook {expression}: {ours}, and {theirs} in KubeVirt")
            accepted += ours is not None
        if not 0 < accepted < len(EXPRESSIONS):
            fail(f"{accepted} of {len(EXPRESSIONS)} conditions of {kind} hooks are accepted")
        say(f"{len(EXPRESSIONS)} conditions of {kind} hooks are judged alike, {accepted} of them accepted")


# A comparison that is right for one type alone.
COMPARISONS = {
    fields.STRING: '{} == ""',
    fields.BOOL: "{} == false",
    fields.INT: "{} == 0",
    fields.UINT: "{} == 0u",
    fields.STRINGS: '"x" in {}',
}


def judge_fields(judge):
    """KubeVirt has every field of tests/manifests/vmi.py, by both names and with its type."""
    for kind, name in (("domain", "go"), ("node", "json")):
        conditions_ = list(field_conditions(fields.VMI, "vmi", name))
        for condition in conditions_:
            try:
                judge("compile", kind=kind, expression=condition)
            except Refused as error:
                fail(f"KubeVirt refuses a field of tests/manifests/vmi.py: {error}")
        say(f"KubeVirt has all {len(conditions_)} fields that conditions of {kind} hooks may name")


def field_conditions(table, prefix, name):
    for field in table:
        if name == "json" and field.go_only:
            continue
        path, type_ = f"{prefix}.{getattr(field, name)}", field.type
        if isinstance(type_, str):
            yield COMPARISONS[type_].format(path)
        elif isinstance(type_, tuple):
            yield f"has({path})"
            yield from field_conditions(type_, path, name)
        elif isinstance(type_[0], str):
            yield f"{path}.all(item, {COMPARISONS[type_[0]].format('item')})"
        else:
            yield from (f"{path}.all(item, {each})" for each in field_conditions(type_[0], "item", name))


def own_verdict(environment, expression, vmi):
    """The value of a condition, "error" for an error in its evaluation, `None` if it is refused."""
    try:
        program = environment.env.compile(expression)
    except Exception:  # any, as in conditions.py
        return None
    if program.return_type() != conditions.cel.Type.BOOL:
        return None
    value = program.eval(data={"vmi": environment.instance(vmi)})
    return "error" if value.type() == conditions.cel.Type.ERROR else value.value()


def kubevirts_verdict(judge, kind, expression, vmi):
    try:
        judge("compile", kind=kind, expression=expression)
    except Refused:
        return None
    try:
        return judge("evaluate", kind=kind, expression=expression, vmi=vmi)["value"]
    except Refused:
        return "error"
