//! The options that say what hooks are tried with.

use std::path::PathBuf;

use clap::Args;

use crate::commands::inputs::Inputs;

/// Of `call` and `check`.
#[derive(Args)]
pub(super) struct InputArgs {
    /// VMI as JSON (default: a built-in sample)
    #[arg(long, value_name = "FILE")]
    vmi: Option<PathBuf>,

    /// libvirt domain as XML (default: a built-in sample)
    #[arg(long, value_name = "FILE")]
    domain: Option<PathBuf>,

    /// `CloudInitData` as JSON (default: a built-in sample)
    #[arg(long, value_name = "FILE")]
    cloud_init: Option<PathBuf>,

    /// Name of the node, for node hooks
    #[arg(long, value_name = "NAME", default_value = "node01")]
    node: String,
}

impl From<InputArgs> for Inputs {
    fn from(args: InputArgs) -> Self {
        let InputArgs { vmi, domain, cloud_init, node } = args;
        Self { vmi, domain, cloud_init, node }
    }
}
