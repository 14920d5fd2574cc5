"""Compiles and evaluates the conditions of a Plugin's hooks as KubeVirt does.

KubeVirt has two typed environments, in which a field has different names: see vmi.py. This implementation of
CEL takes its types from protocol buffers, so each environment is a set of messages with those names. An unset
field means the same in Go and in protocol buffers: it has its zero value, and `has` is false.

One thing is stricter here: a node hook's condition may compare `vmi.spec.domain.cpu.cores > 1` in KubeVirt,
but not `== 1`. Here both need `1u`, as they do in a domain hook.
"""

import itertools
import re

from cel_expr_python import cel
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

import vmi

FIELD = descriptor_pb2.FieldDescriptorProto
SCALARS = {
    vmi.STRING: FIELD.TYPE_STRING,
    vmi.BOOL: FIELD.TYPE_BOOL,
    vmi.INT: FIELD.TYPE_INT64,
    vmi.UINT: FIELD.TYPE_UINT64,
}

# What is looked up in a map or a list: `vmi.Labels["x"]`.
INDEX = re.compile(r"([\w.]+)\[([^\[\]]+)\]")

# A VM without anything that may be absent.
EMPTY = {"metadata": {"name": "vm", "namespace": "vms"}}


class ConditionError(Exception):
    """A condition that KubeVirt refuses, or that would fail VMs."""


def check(plugin):
    """Raises ConditionError if KubeVirt would refuse a condition of the Plugin, or if one could fail a VM."""
    spec = plugin["spec"]
    if "condition" in spec:
        raise ConditionError(
            "spec.condition works in no spelling: virt-launcher wants Go's names, and virt-handler, which "
            "evaluates it for every VM of the cluster, wants those of JSON. Give each hook its condition"
        )
    for hooks, environment in HOOKS.items():
        for hook in spec.get(hooks, []):
            if "condition" in hook:
                environment.compile(hook["condition"])


class Environment:
    """One of KubeVirt's evaluators. `names` is `go` or `json`."""

    def __init__(self, names):
        self.names = names
        self.maps = set()
        self.numbers = itertools.count()
        self.file = descriptor_pb2.FileDescriptorProto(name=f"{names}.proto", syntax="proto3")
        root = self._add_message(vmi.VMI)
        pool = descriptor_pool.DescriptorPool()
        pool.Add(self.file)
        self.message = message_factory.GetMessageClass(pool.FindMessageTypeByName(root))
        self.env = cel.NewEnv(descriptor_pool=pool, variables={"vmi": cel.Type(root)})

    def compile(self, condition):
        """Returns a function from a VMI's JSON to a bool. Raises ConditionError for a condition that KubeVirt
        refuses, and for one that fails VMs without an annotation or a label."""
        try:
            program = self.env.compile(condition)
        except Exception as error:
            raise ConditionError(str(error)) from None
        if program.return_type() != cel.Type.BOOL:
            raise ConditionError(f"the condition is no bool: {condition}")

        def evaluate(instance):
            value = program.eval(data={"vmi": self.instance(instance)})
            if value.type() == cel.Type.ERROR:
                raise ConditionError(f"{value.value()}: {condition}")
            return value.value()

        self._check_guards(condition)
        evaluate(EMPTY)
        return evaluate

    def instance(self, json):
        """A VMI's JSON as a message, without the fields that vmi.py does not have."""
        message = self.message()
        self._fill(message, vmi.VMI, json)
        if self.names == "go":
            self._fill(message, vmi.METADATA, json["metadata"])
        return message

    def _check_guards(self, condition):
        """Checks that the condition asks for every key before it looks it up. An evaluation does not find all
        of them: on the VM at hand, what stands before may be false already."""
        text = condition.replace("'", '"')
        guards = {f"{operand}[{key}]": f"{key} in {operand}" for operand, key in INDEX.findall(text)}
        for name in self.maps:
            for access in re.findall(rf"[\w.]+\.{name}\.\w+\b(?!\()", text):
                guards[access] = f"has({access})"
        for access, guard in guards.items():
            if guard not in text:
                raise ConditionError(f"a VM without {access} fails: write `{guard} && ...`: {condition}")

    def _name(self, field):
        if self.names == "go":
            return field.go
        return None if field.go_only else field.json

    def _add_message(self, fields):
        """The message for an object. Returns its name."""
        message = descriptor_pb2.DescriptorProto(name=f"Object{next(self.numbers)}")
        for number, field in enumerate((each for each in fields if self._name(each)), 1):
            name = self._name(field)
            added = message.field.add(name=name, number=number, label=FIELD.LABEL_OPTIONAL)
            type_ = field.type
            if isinstance(type_, list):
                added.label = FIELD.LABEL_REPEATED
                (type_,) = type_
            if type_ == vmi.STRINGS:
                self.maps.add(name)
                entry = message.nested_type.add(name=f"{name[0].upper()}{name[1:]}Entry")
                entry.options.map_entry = True
                for part, each in enumerate(("key", "value"), 1):
                    entry.field.add(name=each, number=part, label=FIELD.LABEL_OPTIONAL, type=FIELD.TYPE_STRING)
                added.label, added.type = FIELD.LABEL_REPEATED, FIELD.TYPE_MESSAGE
                added.type_name = f".{message.name}.{entry.name}"
            elif isinstance(type_, str):
                added.type = SCALARS[type_]
            else:
                added.type, added.type_name = FIELD.TYPE_MESSAGE, "." + self._add_message(type_)
        self.file.message_type.append(message)
        return message.name

    def _fill(self, message, fields, json):
        for field in fields:
            name, value = self._name(field), json.get(field.json)
            if name is None or value is None:
                continue
            there = getattr(message, name)
            if field.type == vmi.STRINGS:
                there.update(value)
            elif isinstance(field.type, str):
                setattr(message, name, value)
            elif isinstance(field.type, tuple):
                # An empty struct is not there for `has`, unless Go has a pointer to it.
                if not field.type:
                    there.SetInParent()
                self._fill(there, field.type, value)
            elif isinstance(field.type[0], str):
                there.extend(value)
            else:
                for each in value:
                    self._fill(there.add(), field.type[0], each)


# The evaluator of each kind of hook. `launcherHooks` is the name of `domainHooks` in KubeVirt 1.10, which is
# assumed to evaluate their conditions in the same way.
DOMAIN, NODE = Environment("go"), Environment("json")
HOOKS = {"domainHooks": DOMAIN, "launcherHooks": DOMAIN, "nodeHooks": NODE}
