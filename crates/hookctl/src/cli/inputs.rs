//! Options for the documents that hooks are called with.

use std::path::PathBuf;

use clap::Args;
use sidecar_shim::cli::values::usage;
use sidecar_shim::error::StartError;
use sidecar_shim::hook::{HookKind, HookName};

use crate::inputs::Inputs;

/// Options of `call` and `check`.
#[derive(Args)]
#[command(next_help_heading = "Documents (default: samples)")]
pub(super) struct InputArgs {
    /// VMI, or its VM, as JSON or YAML
    #[arg(long, value_name = "FILE")]
    vmi: Option<PathBuf>,

    /// libvirt domain as XML, for onDefineDomain
    #[arg(long, value_name = "FILE")]
    domain: Option<PathBuf>,

    // As `help`, so that it has no backticks.
    #[arg(long, value_name = "FILE", help = "CloudInitData as JSON, for preCloudInitIso")]
    cloud_init: Option<PathBuf>,

    /// Node name, for node hooks
    #[arg(long, value_name = "NAME", default_value = "node01")]
    node: String,
}

impl InputArgs {
    /// Rejects a document that this hook does not receive.
    pub(super) fn check_for(&self, hook: &HookName) -> Result<(), StartError> {
        let domain = ("--domain", &self.domain, HookName::ON_DEFINE_DOMAIN);
        let cloud_init = ("--cloud-init", &self.cloud_init, HookName::PRE_CLOUD_INIT_ISO);
        let useless = match hook.kind() {
            HookKind::Domain => vec![cloud_init],
            HookKind::CloudInit => vec![domain],
            HookKind::Node => vec![domain, cloud_init],
        };
        match useless.into_iter().find(|(_, file, _)| file.is_some()) {
            Some((flag, _, owner)) => Err(usage(format!("{flag} goes with {owner} only"))),
            None => Ok(()),
        }
    }
}

impl From<InputArgs> for Inputs {
    fn from(args: InputArgs) -> Self {
        let InputArgs { vmi, domain, cloud_init, node } = args;
        Self { vmi, domain, cloud_init, node, ..Self::default() }
    }
}
