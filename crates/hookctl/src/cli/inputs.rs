//! The options for the documents that hooks are called with.

use std::path::PathBuf;

use clap::Args;
use sidecar_shim::cli::values::usage;
use sidecar_shim::error::StartError;
use sidecar_shim::hook::HookName;

use crate::inputs::Inputs;

/// Options of `call` and `check`.
#[derive(Args)]
pub(super) struct InputArgs {
    /// VMI as JSON (default: a built-in sample)
    #[arg(long, value_name = "FILE")]
    vmi: Option<PathBuf>,

    /// libvirt domain as XML, for onDefineDomain (default: a built-in sample)
    #[arg(long, value_name = "FILE")]
    domain: Option<PathBuf>,

    /// `CloudInitData` as JSON, for preCloudInitIso (default: a built-in sample)
    #[arg(long, value_name = "FILE")]
    cloud_init: Option<PathBuf>,

    /// Node name, for node hooks
    #[arg(long, value_name = "NAME", default_value = "node01")]
    node: String,
}

impl InputArgs {
    /// Rejects a document that this hook does not receive.
    pub(super) fn check_for(&self, hook: &HookName) -> Result<(), StartError> {
        for (flag, given, whose) in [
            ("--domain", &self.domain, HookName::ON_DEFINE_DOMAIN),
            ("--cloud-init", &self.cloud_init, HookName::PRE_CLOUD_INIT_ISO),
        ] {
            if given.is_some() && *hook != whose {
                return Err(usage(format!("{flag} goes with {whose} only")));
            }
        }
        Ok(())
    }
}

impl From<InputArgs> for Inputs {
    fn from(args: InputArgs) -> Self {
        let InputArgs { vmi, domain, cloud_init, node } = args;
        Self { vmi, domain, cloud_init, node }
    }
}
