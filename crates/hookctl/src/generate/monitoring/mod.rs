//! What Prometheus needs to watch the shims of node hooks: for the Prometheus operator.
//!
//! The alerts and the dashboard are those of `examples/monitoring`, whose tests run them.

use std::fmt::Write as _;

use super::names::{KeyValue, object_name};
use super::output::Manifests;
use super::quote::scalar;
use super::sidecar::block;

const RULES: &str = include_str!("prometheusrule.yaml");
const DASHBOARD: &str = include_str!("dashboard.json");

/// The line of [`RULES`] from which on they are the alerts.
const GROUPS: &str = "  groups:\n";

/// The name of the objects that are for all node hooks.
const NAME: &str = "sidecar-shim";

/// The label of the daemons' pods by which Prometheus finds them, and the name of their port. The
/// alerts and the dashboard look for the port's.
pub(super) const COMPONENT: &str = "kubevirt-node-hook";
const PORT: &str = "shim-metrics";

/// The label by which Grafana's sidecar finds dashboards.
const DASHBOARD_LABEL: &str = "grafana_dashboard";

/// What to generate.
pub(crate) struct MonitoringConfig {
    /// The node hook's name.
    pub(crate) name: String,
    pub(crate) port: u16,
    /// Namespace of Prometheus and of what it reads, and the label of its pods.
    pub(crate) namespace: String,
    pub(crate) prometheus: KeyValue,
    /// Labels that the Prometheus resource asks of what it reads.
    pub(crate) labels: Vec<KeyValue>,
    /// Address of the page about the alerts.
    pub(crate) runbook: String,
    /// Whether to add a `ConfigMap` with the dashboard.
    pub(crate) dashboard: bool,
}

impl MonitoringConfig {
    /// Checks the labels that the user gives: a key that is there twice is an error in YAML.
    pub(crate) fn check_labels(labels: &[KeyValue]) -> Result<(), String> {
        for (index, KeyValue { key, .. }) in labels.iter().enumerate() {
            if labels[..index].iter().any(|other| other.key == *key) {
                return Err(format!("--label {key} is given twice"));
            }
            if LABELS.contains(&format!(" {key}: ")) || key == DASHBOARD_LABEL {
                return Err(format!("--label {key}: the objects have this label already"));
            }
        }
        Ok(())
    }
}

pub(super) fn manifests(config: &MonitoringConfig) -> Manifests {
    let mut manifests = Manifests::new(
        "# Metrics and alerts for a node hook, for the Prometheus operator. Apply this with
#
#   kubectl apply --server-side --field-manager sidecar-shim-monitoring -f …
#
# The DaemonSet is only the part that is new in yours, and server-side apply leaves the other fields
# alone. It comes first, because it is refused if there is no such DaemonSet. It and the
# NetworkPolicy are for this node hook; the others are the same for all node hooks.

",
    );
    manifests.push("daemon-set", daemon_set(config));
    manifests.push("pod-monitor", pod_monitor(config));
    manifests.push("network-policy", network_policy(config));
    manifests.push("prometheus-rule", prometheus_rule(config));
    if config.dashboard {
        manifests.push("dashboard", dashboard(config));
    }
    manifests
}

fn daemon_set(config: &MonitoringConfig) -> String {
    let name = scalar(&object_name(&config.name));
    format!(
        "# What the DaemonSet of `hookctl generate node` needs in addition, so that Prometheus finds and
# scrapes its pods.
apiVersion: apps/v1
kind: DaemonSet
metadata:
  name: {name}
  namespace: {name}
spec:
  template:
    metadata:
      labels:
        # The PodMonitor selects this label, in all namespaces.
        app.kubernetes.io/component: {COMPONENT}
    spec:
      containers:
        - name: shim
          env:
            # The option --metrics-listen. In a cluster with only IPv6: \"[::]:{port}\".
            - name: SIDECAR_SHIM_METRICS_LISTEN
              value: {address}
          ports:
            # The alerts and the dashboard find the shims by this name.
            - name: {PORT}
              containerPort: {port}
              protocol: TCP
",
        port = config.port,
        address = scalar(&format!("0.0.0.0:{}", config.port)),
    )
}

/// Returns the metadata of an object that is for all node hooks.
fn metadata(config: &MonitoringConfig, name: &str, namespace_comment: &str) -> String {
    let mut yaml = format!(
        "metadata:
  name: {name}
{namespace_comment}  namespace: {namespace}
{labels}",
        name = scalar(name),
        namespace = scalar(&config.namespace),
        labels = LABELS,
    );
    for KeyValue { key, value } in &config.labels {
        let value = scalar(value.as_deref().unwrap_or_default());
        let _ = writeln!(yaml, "    {}: {value}", scalar(key));
    }
    yaml
}

const LABELS: &str = "  labels:
    app.kubernetes.io/name: sidecar-shim
    app.kubernetes.io/component: monitoring
";

fn pod_monitor(config: &MonitoringConfig) -> String {
    let comment = "  # One that your Prometheus resource selects. If its podMonitorSelector wants a label, add that.\n";
    format!(
        "# Scrapes the shims of all node hooks.
apiVersion: monitoring.coreos.com/v1
kind: PodMonitor
{metadata}spec:
  namespaceSelector:
    any: true
  selector:
    matchLabels:
      app.kubernetes.io/component: {COMPONENT}
  # The label `job` becomes the name of the daemon, such as memlock-hook.
  jobLabel: app.kubernetes.io/name
  # A shim has about 50 series, and 50 for each hook. This stops one that has gone wrong.
  sampleLimit: 5000
  podMetricsEndpoints:
    - port: {PORT}
      path: /metrics
      interval: 30s
      scrapeTimeout: 10s
      relabelings:
        # The node whose VMs the shim serves.
        - action: replace
          sourceLabels: [__meta_kubernetes_pod_node_name]
          targetLabel: node
",
        metadata = metadata(config, NAME, comment),
    )
}

fn network_policy(config: &MonitoringConfig) -> String {
    let KeyValue { key, value } = &config.prometheus;
    format!(
        "# Lets Prometheus in, and nothing else: the daemon's namespace has a policy that denies all.
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: allow-prometheus
  namespace: {namespace}
{LABELS}spec:
  podSelector:
    matchLabels:
      app.kubernetes.io/component: {COMPONENT}
  policyTypes: [Ingress]
  ingress:
    - from:
        - namespaceSelector:
            matchLabels:
              kubernetes.io/metadata.name: {prometheus}
          podSelector:
            matchLabels:
              {key}: {value}
      ports:
        - port: {PORT}
          protocol: TCP
",
        namespace = scalar(&object_name(&config.name)),
        prometheus = scalar(&config.namespace),
        key = scalar(key),
        value = scalar(value.as_deref().unwrap_or_default()),
    )
}

fn prometheus_rule(config: &MonitoringConfig) -> String {
    let comment = "  # One that your Prometheus resource selects. If its ruleSelector wants a label, add that.\n";
    let mut yaml = format!(
        "# Alerts on the shims of all node hooks. docs/runbook.md of sidecar-shim has a section for each.
#
# `critical`: VMs that need the hook do not start on a node. `warning`: some do not, or soon will
# not. No label names a VM, because none of the shim's metrics has one.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
{}spec:
",
        metadata(config, NAME, comment),
    );
    let (_, alerts) = RULES.split_once(GROUPS).unwrap_or_default();
    yaml += GROUPS;
    for line in alerts.lines() {
        // A section's address ends with the alert's name.
        match line.split_once("runbook_url: ") {
            Some((indentation, address)) => {
                let (_, section) =
                    address.trim_end_matches('"').split_once('#').unwrap_or_default();
                let address = scalar(&format!("{}#{section}", config.runbook));
                let _ = writeln!(yaml, "{indentation}runbook_url: {address}");
            }
            None => {
                let _ = writeln!(yaml, "{line}");
            }
        }
    }
    yaml
}

fn dashboard(config: &MonitoringConfig) -> String {
    format!(
        "# A dashboard for Grafana 11 or later, which Grafana's sidecar loads by this label.
apiVersion: v1
kind: ConfigMap
{metadata}    {DASHBOARD_LABEL}: \"1\"
data:
  sidecar-shim.json: {text}",
        metadata = metadata(config, "sidecar-shim-dashboard", ""),
        text = block(DASHBOARD, 4),
    )
}
