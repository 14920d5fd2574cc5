"""What examples/monitoring says of the daemon's pods: the patch fits the DaemonSet, and the rest what it adds."""

import copy
import json
import subprocess

import jsonschema
import kubernetes_validate
import pytest
import yaml

import api

FILES = api.ROOT / "examples/monitoring"


def documents(name):
    return {each["kind"]: each for each in yaml.safe_load_all((FILES / name).read_text())}


def patched():
    """The DaemonSet after `kubectl patch`: of lists, it merges containers and variables by their names."""
    daemon = copy.deepcopy(api.the("plugin-node", "DaemonSet"))
    patch = yaml.load((FILES / "daemonset-patch.yaml").read_text(), api.Loader)["spec"]["template"]
    assert set(patch) == {"metadata", "spec"} and set(patch["metadata"]) == {"labels"}
    template = daemon["spec"]["template"]
    template["metadata"]["labels"].update(patch["metadata"]["labels"])
    (own,), (added,) = template["spec"]["containers"], patch["spec"]["containers"]
    assert set(added) == {"name", "env", "ports"} and own["name"] == added["name"]
    names = {each["name"] for each in own["env"]}
    assert "ports" not in own and not any(each["name"] in names for each in added["env"])
    own["env"] += added["env"]
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
    daemon, found = patched(), documents("podmonitor.yaml")
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
