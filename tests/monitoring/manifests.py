"""The manifests for the Prometheus operator: types and schemas made from its own definitions judge them."""

import json
import re
import subprocess

import yaml

from common import EXAMPLES, fail, say
from typescript import compiles

OPERATOR = "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1"
# Where each kind's type is.
KINDS = {
    "PodMonitor": OPERATOR,
    "PrometheusRule": OPERATOR,
    "NetworkPolicy": "kubernetes-models/networking.k8s.io/v1",
}
FILES = ["podmonitor.yaml", "prometheusrule.yaml"]

# Faults that types or schemas must find: a pattern in a file, and what replaces it.
FAULTS = [
    ("podmonitor.yaml", "podMetricsEndpoints:", "podMetricEndpoints:"),
    ("podmonitor.yaml", "interval: 30s", "interval: 30 seconds"),
    ("podmonitor.yaml", "sampleLimit: 5000", "sampleLimit: many"),
    ("podmonitor.yaml", "action: replace", "action: replaces"),
    ("podmonitor.yaml", "protocol: TCP", "protocols: TCP"),
    ("prometheusrule.yaml", "- alert:", "- alarm:"),
    ("prometheusrule.yaml", "annotations:", "annotation:"),
    ("prometheusrule.yaml", r"\n( +)for: .*", r"\n\1for: soon"),
]

# Types find a property that is not there, schemas a text that is none of those allowed.
VALIDATE = """
import { readFileSync } from "node:fs";
for (const [name, documents] of Object.entries(JSON.parse(readFileSync("manifests.json", "utf8")))) {
  for (const document of documents) {
    const kinds = await import(MODULES[document.kind]);
    try { new kinds[document.kind](document).validate(); }
    catch (error) { console.log(JSON.stringify([name, document.kind + ": " + error.message])); }
  }
}
"""


def program(documents):
    """The documents as a program whose types must fit."""
    lines = [f'import type {{ I{kind} }} from "{module}";' for kind, module in KINDS.items()]
    for number, document in enumerate(documents):
        lines.append(f"export const document{number}: I{document['kind']} = {json.dumps(document, indent=1)};")
    return "\n".join(lines)


def invalid(modules, directory, manifests):
    """What the schemas say of each of these lists of documents, by its name."""
    places = {kind: str(modules / module / "index.js") for kind, module in KINDS.items()}
    (directory / "manifests.json").write_text(json.dumps(manifests), encoding="utf-8")
    script = f"const MODULES = {json.dumps(places)};{VALIDATE}"
    (directory / "validate.mjs").write_text(script, encoding="utf-8")
    done = subprocess.run(["node", "validate.mjs"], cwd=directory, capture_output=True, text=True, timeout=120)
    if done.returncode:
        fail(f"node: {done.stderr}")
    found = dict.fromkeys(manifests, "")
    for line in done.stdout.splitlines():
        name, text = json.loads(line)
        found[name] += text
    return found


def check(modules, directory):
    manifests = {}
    for number, (file, pattern, wrong) in enumerate([(file, None, None) for file in FILES] + FAULTS):
        text = (EXAMPLES / file).read_text(encoding="utf-8")
        if pattern:
            broken = re.sub(pattern, wrong, text, count=1)
            if broken == text:
                fail(f"{file} has no {pattern}")
            text = broken
        manifests[f"manifest{number}"] = list(yaml.safe_load_all(text))
    types = compiles(modules, directory, {name: program(documents) for name, documents in manifests.items()})
    schemas = invalid(modules, directory, manifests)
    for number, name in enumerate(manifests):
        errors = types[name] + schemas[name]
        if number < len(FILES) and errors:
            fail(f"{FILES[number]} does not fit its kinds: {errors}")
        if number >= len(FILES) and not errors:
            file, _, wrong = FAULTS[number - len(FILES)]
            fail(f"types and schemas accept a {file} with {wrong}")
    version = json.loads((modules / OPERATOR.removesuffix("/monitoring.coreos.com/v1") / "package.json").read_text(encoding="utf-8"))
    say(f"{' and '.join(FILES)} fit the definitions of {version['name']} {version['version']}, which find {len(FAULTS)} faults")
