//! The options of `generate monitoring`.

use clap::Args;
use sidecar_shim::cli::values::usage;
use sidecar_shim::error::StartError;

use super::OutputArgs;
use crate::generate::names::{
    KeyValue, parse_address, parse_label, parse_label_of_object, parse_name,
};
use crate::generate::{GenerateConfig, MonitoringConfig, Target};

#[derive(Args)]
pub(super) struct MonitoringArgs {
    /// Node hook's name, as for the target node
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    name: String,

    /// Port for the metrics in the daemon's pods
    #[arg(
        long,
        value_name = "PORT",
        default_value_t = 9105,
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    port: u16,

    /// Namespace of Prometheus, its monitors and rules
    #[arg(long, value_name = "NAMESPACE", default_value = "monitoring", value_parser = parse_label)]
    namespace: String,

    /// Prometheus's pods
    #[arg(
        long,
        value_name = "K=V",
        default_value = "app.kubernetes.io/name=prometheus",
        value_parser = parse_label_of_object
    )]
    prometheus: KeyValue,

    /// Label that your Prometheus resource selects, repeatable
    #[arg(long = "label", value_name = "K=V", value_parser = parse_label_of_object)]
    labels: Vec<KeyValue>,

    /// Address of your docs/runbook.md (default: an example)
    #[arg(
        long,
        hide_default_value = true,
        value_name = "URL",
        default_value = "https://docs.example/sidecar-shim/runbook.md",
        value_parser = parse_address
    )]
    runbook: String,

    // As `help`, so that it has no backticks.
    #[arg(long, help = "Add the dashboard's ConfigMap for Grafana's sidecar")]
    dashboard: bool,

    #[command(flatten)]
    output: OutputArgs,
}

impl MonitoringArgs {
    pub(super) fn resolve(self) -> Result<GenerateConfig, StartError> {
        MonitoringConfig::check_labels(&self.labels).map_err(usage)?;
        let target = Target::Monitoring(MonitoringConfig {
            name: self.name,
            port: self.port,
            namespace: self.namespace,
            prometheus: self.prometheus,
            labels: self.labels,
            runbook: self.runbook,
            dashboard: self.dashboard,
        });
        Ok(GenerateConfig { source: None, target, output: self.output.output })
    }
}
