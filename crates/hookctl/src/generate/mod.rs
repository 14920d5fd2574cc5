//! `generate`: writes the manifests that bring a hook to its VMs.
//!
//! ```text
//! hooks (asks the worker) ─▶ plugin, node, sidecar, binding, dockerfile ─┬─▶ output
//!                            monitoring ─────────────────────────────────┘
//!                            selector, machine, quote
//! ```
//!
//! # Theory of operation
//! A manifest is a template with comments, and the values in it. [`names`] has validated the names
//! among them as Kubernetes does; every value still goes through [`quote`], so that a template
//! is right whatever is validated. What KubeVirt may refuse comes first in a stream,
//! because `kubectl apply` leaves what it has applied before.
//!
//! A Plugin never has a `spec.condition`: KubeVirt 1.9 has no spelling that all of its components
//! accept, and virt-handler evaluates it for every VM of the cluster.

mod binding;
mod dockerfile;
mod hooks;
mod machine;
mod monitoring;
pub(crate) mod names;
mod node;
mod output;
mod plugin;
pub(crate) mod quote;
mod selector;
mod sidecar;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

pub(crate) use self::binding::{Attachment, BindingConfig};
pub(crate) use self::dockerfile::DockerfileConfig;
pub(crate) use self::hooks::HookSource;
pub(crate) use self::machine::Machine;
pub(crate) use self::monitoring::MonitoringConfig;
pub(crate) use self::node::NodeConfig;
pub(crate) use self::plugin::PluginConfig;
pub(crate) use self::selector::{Selector, Vms};
pub(crate) use self::sidecar::{Script, SidecarConfig};

/// What to generate, and where to write it.
pub(crate) struct GenerateConfig {
    /// The hooks. `None` for a target that has nothing to do with them.
    pub(crate) source: Option<HookSource>,
    pub(crate) target: Target,
    /// Directory for one file per object. Without it, all go to stdout.
    pub(crate) output: Option<PathBuf>,
}

/// What is generated.
pub(crate) enum Target {
    Plugin(PluginConfig),
    Node(NodeConfig),
    Sidecar(SidecarConfig),
    Binding(BindingConfig),
    Dockerfile(DockerfileConfig),
    Monitoring(MonitoringConfig),
}

/// A version of KubeVirt. A Plugin is for one: each drops the fields of the other silently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KubeVirt {
    V1_9,
    V1_10,
}

impl KubeVirt {
    /// The points at which KubeVirt calls node hooks.
    fn node_points(self) -> [&'static str; 7] {
        let stop = match self {
            Self::V1_9 => "PreVMStop",
            Self::V1_10 => "OnVMStop",
        };
        let migration = ["PreMigrationSource", "PreMigrationTarget", "PostMigrationTarget"];
        let [source, target, after] = migration;
        ["PreVMStart", "PostVMStart", stop, "PostVMStop", source, target, after]
    }
}

impl fmt::Display for KubeVirt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1_9 => "1.9",
            Self::V1_10 => "1.10",
        })
    }
}

/// What a hook's Plugin says, for domain hooks and node hooks alike.
pub(crate) struct PluginOptions {
    pub(crate) name: String,
    pub(crate) image: String,
    pub(crate) kubevirt: KubeVirt,
    pub(crate) selector: Selector,
    pub(crate) timeout: Duration,
    /// Whether a VM starts without the hook if that fails.
    pub(crate) ignore_failure: bool,
}

impl PluginOptions {
    /// Returns the strategy as KubeVirt writes it.
    fn failure_strategy(&self) -> &'static str {
        if self.ignore_failure { "Ignore" } else { "Fail" }
    }

    /// Returns the timeout as Go reads it.
    fn timeout(&self) -> String {
        let millis = self.timeout.as_millis();
        if millis.is_multiple_of(1000) {
            format!("{}s", millis / 1000)
        } else {
            format!("{millis}ms")
        }
    }
}

/// Generates the manifests and writes them.
pub(crate) async fn run(config: &GenerateConfig) -> Result<(), String> {
    let hooks = match &config.source {
        Some(source) => source.hooks().await?,
        None => Vec::new(),
    };
    if let Some(image) = config.target.image()
        && !names::has_digest(image)
    {
        let advice = "name it by digest (…@sha256:…), so that every node runs what was tried";
        crate::say(format!("warning: image {image} can change: {advice}"));
    }
    let is_worker = config.source.as_ref().is_some_and(|source| source.worker.is_some());
    let manifests = match &config.target {
        Target::Plugin(target) => plugin::manifests(target, &hooks)?,
        Target::Node(target) => node::manifests(target, &hooks, is_worker)?,
        Target::Sidecar(target) => sidecar::manifests(target, &hooks)?,
        Target::Binding(target) => binding::manifests(target, &hooks)?,
        Target::Monitoring(target) => monitoring::manifests(target),
        Target::Dockerfile(target) => {
            return output::write_text(&dockerfile::text(target, &hooks, is_worker)?);
        }
    };
    manifests.write(config.output.as_deref())
}

impl Target {
    fn image(&self) -> Option<&str> {
        match self {
            Self::Plugin(config) => Some(&config.plugin.image),
            Self::Node(config) => Some(&config.plugin.image),
            Self::Sidecar(config) => Some(&config.image),
            Self::Binding(config) => Some(&config.image),
            Self::Dockerfile(config) => Some(&config.base),
            Self::Monitoring(_) => None,
        }
    }
}
