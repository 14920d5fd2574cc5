"""What examples/monitoring says of the daemon's pods: the patch fits the DaemonSet, and the rest what it adds."""

import copy
import json
import subprocess

import jsonschema
import kubernetes_validate
import pytest
import yaml

import api
import generated

FILES = api.ROOT / "examples/monitoring"


def documents(name):
    return {each["kind"]: each for each in yaml.safe_load_all((FILES / name).read_text())}


def patched():
    """The example's DaemonSet after `kubectl apply --server-side`: it merges containers and variables by their names."""
    daemon = copy.deepcopy(api.the("plugin-node", "DaemonSet"))
    return merged(daemon, yaml.load((FILES / "daemonset-patch.yaml").read_text(), api.Loader))


def merged(daemon, part):
    """The DaemonSet after the part was applied. No value of another owner changes, which would be a conflict."""
    assert {each: daemon[each] for each in ("apiVersion", "kind")} == {each: part[each] for each in ("apiVersion", "kind")}
    assert part["metadata"] == {each: daemon["metadata"][each] for each in ("name", "namespace")}
    assert set(part["spec"]) == {"template"}
    patch, template = part["spec"]["template"], daemon["spec"]["template"]
    assert set(patch) == {"metadata", "spec"} and set(patch["metadata"]) == {"labels"}
    labels = template["metadata"]["labels"]
    assert all(labels.get(key, value) == value for key, value in patch["metadata"]["labels"].items())
    labels.update(patch["metadata"]["labels"])
    (own,), (added,) = template["spec"]["containers"], patch["spec"]["containers"]
    assert set(added) == {"name", "env", "ports"} and own["name"] == added["name"]
    names = {each["name"] for each in own.get("env", [])}
    assert "ports" not in own and not any(each["name"] in names for each in added["env"])
    own.setdefault("env", []).extend(added["env"])
    own["ports"] = added["ports"]
    return daemon


@pytest.mark.parametrize("version", api.VERSIONS)
def test_the_patched_daemon_and_the_policy_fit_their_schemas(version):
    for document in (patched(), documents("podmonitor.yaml")["NetworkPolicy"]):
        api.validate(document, version)
        broken = copy.deepcopy(document)
        broken["spec"]["noSuchField"] = 1
        with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
            api.validate(broken, version)


def test_prometheus_finds_the_pods():
    finds(patched(), documents("podmonitor.yaml"))


@pytest.mark.parametrize("name", generated.NAMES)
def test_prometheus_finds_the_pods_of_any_daemon(name):
    options = [
        "--port", "65535", "--namespace", "on", "--prometheus", "on=y", "--label", "release=1e3", "--label", "null=",
        "--runbook", "https://a.example/x?y=[:]", "--dashboard",
    ]  # fmt: skip
    found = {each["kind"]: each for each in generated.monitoring(name, *options)}
    (daemon,) = (each for each in generated.node(["--all"], name=name) if each["kind"] == "DaemonSet")
    finds(merged(daemon, found["DaemonSet"]), found)
    for kind in ("PodMonitor", "PrometheusRule", "ConfigMap"):
        metadata = found[kind]["metadata"]
        assert metadata["namespace"] == "on"
        assert {"release": "1e3", "null": ""}.items() <= metadata["labels"].items()
    (peer,) = found["NetworkPolicy"]["spec"]["ingress"][0]["from"]
    assert peer["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": "on"}}
    assert peer["podSelector"] == {"matchLabels": {"on": "y"}}
    for kind in ("NetworkPolicy", "ConfigMap"):
        api.validate(found[kind], api.VERSIONS[0])
    assert found["ConfigMap"]["data"] == {"sidecar-shim.json": (FILES / "dashboard.json").read_text()}
    (group,) = found["PrometheusRule"]["spec"]["groups"]
    (example,) = documents("prometheusrule.yaml")["PrometheusRule"]["spec"]["groups"]
    for rule, other in zip(group["rules"], example["rules"], strict=True):
        url = rule["annotations"].pop("runbook_url")
        assert url == "https://a.example/x?y=[:]#" + other["annotations"].pop("runbook_url").split("#")[1]
    assert group == example


@pytest.mark.parametrize(
    "options, status, complaint",
    [
        (["--label", "a=b", "--label", "a=c"], 1, "twice"),
        (["--label", "app.kubernetes.io/name=x"], 1, "already"),
        (["--label", "a"], 2, "must be K=V"),
        (["--port", "0"], 2, "0 is not in"),
        (["--runbook", "https://a/#b"], 2, "address of a page"),
        (["--runbook", "https://a/{{ .x }}"], 2, "address of a page"),
        (["--hook", "preVMStart"], 2, "unexpected argument"),
    ],
)
def test_what_cannot_work_is_refused_in_words(options, status, complaint):
    done = generated.run("monitoring", "--name", "a", *options)
    assert (done.returncode, done.stdout) == (status, b""), done.stderr.decode()
    assert complaint in done.stderr.decode()


def finds(daemon, found):
    """Checks that the PodMonitor and the policy fit the daemon."""
    labels = daemon["spec"]["template"]["metadata"]["labels"]
    (container,) = daemon["spec"]["template"]["spec"]["containers"]
    (port,) = container["ports"]
    monitor, policy = found["PodMonitor"], found["NetworkPolicy"]
    for selector in (monitor["spec"]["selector"], policy["spec"]["podSelector"]):
        assert selector["matchLabels"].items() <= labels.items()
    assert monitor["spec"]["jobLabel"] in labels
    (endpoint,), (rule,) = monitor["spec"]["podMetricsEndpoints"], policy["spec"]["ingress"]
    assert endpoint["port"] == port["name"] == rule["ports"][0]["port"]
    assert policy["metadata"]["namespace"] == daemon["metadata"]["namespace"]
    # Kubernetes refuses longer names of ports.
    assert len(port["name"]) <= 15
    (address,) = [each["value"] for each in container["env"] if each["name"] == "SIDECAR_SHIM_METRICS_LISTEN"]
    assert address == f"0.0.0.0:{port['containerPort']}"


def test_the_alerts_and_the_dashboard_use_the_labels_that_prometheus_gives():
    (endpoint,) = documents("podmonitor.yaml")["PodMonitor"]["spec"]["podMetricsEndpoints"]
    assert [each["targetLabel"] for each in endpoint["relabelings"]] == ["node"]
    for text in ((FILES / "prometheusrule.yaml").read_text(), json.dumps(json.loads((FILES / "dashboard.json").read_text()))):
        text = text.replace('\\"', '"')
        assert f'endpoint="{endpoint["port"]}"' in text
        assert text.count('endpoint="') == text.count(f'endpoint="{endpoint["port"]}"')


def test_the_shim_knows_the_variable(shim):
    text = (FILES / "daemonset-patch.yaml").read_text()
    assert "SIDECAR_SHIM_METRICS_LISTEN" in text
    described = subprocess.run([shim, "--help"], capture_output=True, text=True, timeout=30).stdout
    assert "--metrics-listen" in described
