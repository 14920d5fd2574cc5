"""Evaluates a MutatingAdmissionPolicy on pods, as the API server would.

CEL itself is Google's implementation. What Kubernetes adds to it is made here: the types `JSONPatch` and
`Object`, whose fields are those of the Pod schema. So every expression is compiled against the schema, and a
misspelt field is refused before anything is evaluated.
"""

import re

import jsonpatch
from cel_expr_python import cel
from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, json_format, message_factory, struct_pb2

from api import definition

FIELD = descriptor_pb2.FieldDescriptorProto
SCALARS = {
    "string": FIELD.TYPE_STRING,
    "integer": FIELD.TYPE_INT64,
    "number": FIELD.TYPE_DOUBLE,
    "boolean": FIELD.TYPE_BOOL,
}
PODS = {"apiGroups": "", "apiVersions": "v1", "operations": "CREATE", "resources": "pods"}


class PolicyError(Exception):
    """An expression that the API server would not accept, or could not evaluate."""


class Policy:
    """One MutatingAdmissionPolicy for pods that are created. Raises PolicyError for an expression that does
    not fit the Pod schema, or does not have the type that its place asks for."""

    def __init__(self, manifest):
        spec = manifest["spec"]
        self.constraints = spec["matchConstraints"]
        self.types = PodTypes()
        self.conditions = [self.types.compile(each["expression"], "BOOL") for each in spec.get("matchConditions", [])]
        self.mutations = [
            self.types.compile(each["jsonPatch"]["expression"], "LIST<JSONPatch>") for each in spec["mutations"]
        ]

    def matches(self, pod):
        """Whether the policy applies to the creation of this pod."""
        rules = self.constraints["resourceRules"]
        selector = self.constraints.get("objectSelector", {})
        assert set(selector) <= {"matchLabels"}, "only matchLabels is evaluated here"
        labels = pod["metadata"].get("labels", {})
        return (
            any(all(value in rule[name] for name, value in PODS.items()) for rule in rules)
            and all(labels.get(name) == value for name, value in selector.get("matchLabels", {}).items())
            and all(condition(pod) for condition in self.conditions)
        )

    def mutate(self, pod):
        """The pod as it is stored. It is the same one if the policy does not apply to it."""
        if not self.matches(pod):
            return pod
        for mutation in self.mutations:
            pod = jsonpatch.apply_patch(pod, [self.types.to_json(patch) for patch in mutation(pod)])
        return pod


class PodTypes:
    """The types that an expression about a pod may use.

    Protocol buffers cannot name a message and the scope of others alike, as `Object.spec` and
    `Object.spec.initContainers` are. So the messages are called `Object_spec_initContainers`, and the
    expressions are rewritten to that before they are compiled.
    """

    def __init__(self):
        self.file = descriptor_pb2.FileDescriptorProto(name="pod.proto", syntax="proto2")
        self.file.dependency.extend([struct_pb2.DESCRIPTOR.name, any_pb2.DESCRIPTOR.name])
        self._add_message(["Object"], definition("io.k8s.api.core.v1.Pod"))
        patch = self.file.message_type.add(name="JSONPatch")
        for number, name in enumerate(["op", "path", "from"], 1):
            patch.field.add(name=name, number=number, label=FIELD.LABEL_OPTIONAL, type=FIELD.TYPE_STRING)
        any_type = f".{any_pb2.Any.DESCRIPTOR.full_name}"
        patch.field.add(
            name="value", number=4, label=FIELD.LABEL_OPTIONAL, type=FIELD.TYPE_MESSAGE, type_name=any_type
        )
        self.pool = descriptor_pool.DescriptorPool()
        for known in (struct_pb2, any_pb2):
            self.pool.AddSerializedFile(known.DESCRIPTOR.serialized_pb)
        self.pool.Add(self.file)
        # A message always has all of its fields, and `has` is false for an empty list. So the typed variable
        # is for the check alone, and what is evaluated is the pod's JSON.
        self.typed = cel.NewEnv(descriptor_pool=self.pool, variables={"object": cel.Type("Object")})
        self.untyped = cel.NewEnv(descriptor_pool=self.pool, variables={"object": cel.Type.DYN})

    def compile(self, expression, wanted):
        """A function from a pod to the expression's value."""
        rewritten = re.sub(
            r"\bObject(?:\.\w+)+(?=\s*\{)", lambda match: match.group().replace(".", "_"), expression
        )
        try:
            seen = self.typed.compile(rewritten).return_type().name()
            program = self.untyped.compile(rewritten)
        except Exception as error:
            raise PolicyError(str(error)) from None
        if seen != wanted:
            raise PolicyError(f"the expression is of type {seen}, not {wanted}: {expression}")

        def evaluate(pod):
            value = program.eval(data={"object": pod})
            if value.type() == cel.Type.ERROR:
                raise PolicyError(f"{value.value()}: {expression}")
            return value.plain_value()

        return evaluate

    def to_json(self, message):
        """What a message says as JSON: the fields that were set."""
        name = message.DESCRIPTOR.full_name
        if name == any_pb2.Any.DESCRIPTOR.full_name:
            inner = message.type_url.rpartition("/")[2]
            packed = message_factory.GetMessageClass(self.pool.FindMessageTypeByName(inner))()
            packed.ParseFromString(message.value)
            return self.to_json(packed)
        if name.startswith("google.protobuf."):
            return json_format.MessageToDict(message, descriptor_pool=self.pool)
        return {field.name: self._field_to_json(field, value) for field, value in message.ListFields()}

    def _field_to_json(self, field, value):
        if field.message_type is None:
            return list(value) if field.is_repeated else value
        if field.message_type.GetOptions().map_entry:
            of_messages = field.message_type.fields_by_name["value"].message_type
            return {key: self.to_json(each) if of_messages else each for key, each in value.items()}
        return [self.to_json(each) for each in value] if field.is_repeated else self.to_json(value)

    def _add_message(self, path, schema):
        """The message for an object with named fields, and those for what is in it."""
        message = self.file.message_type.add(name="_".join(path))
        for number, (name, each) in enumerate(sorted(schema["properties"].items()), 1):
            field = message.field.add(name=name, number=number, label=FIELD.LABEL_OPTIONAL)
            values = self._set_type(field, [*path, name], each)
            if values is not None:
                entry = message.nested_type.add(name=f"{name[0].upper()}{name[1:]}Entry")
                entry.options.map_entry = True
                entry.field.add(name="key", number=1, label=FIELD.LABEL_OPTIONAL, type=FIELD.TYPE_STRING)
                value = entry.field.add(name="value", number=2, label=FIELD.LABEL_OPTIONAL)
                self._set_type(value, [*path, name], values)
                field.label, field.type = FIELD.LABEL_REPEATED, FIELD.TYPE_MESSAGE
                field.type_name = f".{message.name}.{entry.name}"

    def _set_type(self, field, path, schema):
        """Sets a field's type. Returns the schema of the values if it is a map, and then has set nothing."""
        if "$ref" in schema:
            schema = definition(schema["$ref"].rpartition("/")[2])
        kind = [each for each in schema.get("type", []) if each != "null"]
        kind = kind[0] if kind else None
        if kind == "array":
            field.label = FIELD.LABEL_REPEATED
            return self._set_type(field, path, schema["items"])
        if kind in SCALARS:
            field.type = SCALARS[kind]
        elif "properties" in schema:
            self._add_message(path, schema)
            field.type, field.type_name = FIELD.TYPE_MESSAGE, "." + "_".join(path)
        elif isinstance(schema.get("additionalProperties"), dict):
            return schema["additionalProperties"]
        else:  # quantities, ports that are a number or a name: anything
            field.type, field.type_name = FIELD.TYPE_MESSAGE, f".{struct_pb2.Value.DESCRIPTOR.full_name}"
        return None
