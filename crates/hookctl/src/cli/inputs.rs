//! Options for the documents that hooks are called with.

use std::path::PathBuf;

use clap::Args;
use sidecar_shim::cli::values::usage;
use sidecar_shim::error::StartError;
use sidecar_shim::hook::{HookKind, HookName};

use crate::inputs::{Inputs, STDIN};

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

    /// Annotation to set in the VMI; repeatable
    #[arg(long, value_name = "K=V", value_parser = parse_pair)]
    annotation: Vec<(String, String)>,

    /// Label to set in the VMI; repeatable
    #[arg(long, value_name = "K=V", value_parser = parse_pair)]
    label: Vec<(String, String)>,

    /// Node name, for node hooks
    #[arg(long, value_name = "NAME", default_value = "node01")]
    node: String,
}

impl InputArgs {
    /// Rejects stdin where it cannot be read: it has one document, and once.
    pub(super) fn check_stdin(&self, reads_again: bool) -> Result<(), StartError> {
        let files = [&self.vmi, &self.domain, &self.cloud_init].into_iter().flatten();
        match files.filter(|path| path.as_os_str() == STDIN).count() {
            2.. => Err(usage("stdin (`-`) is one document: give the others as files")),
            1 if reads_again => {
                Err(usage("--watch reads documents again, and stdin (`-`) ends: give files"))
            }
            _ => Ok(()),
        }
    }

    /// Rejects a key with two values: the second one would silently win.
    pub(super) fn check_keys(&self) -> Result<(), StartError> {
        for (flag, pairs) in [("--annotation", &self.annotation), ("--label", &self.label)] {
            for (index, (key, _)) in pairs.iter().enumerate() {
                if pairs[..index].iter().any(|(other, _)| other == key) {
                    return Err(usage(format!("{flag} {key} is given twice")));
                }
            }
        }
        Ok(())
    }

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
        let InputArgs { vmi, domain, cloud_init, annotation, label, node } = args;
        Self { vmi, domain, cloud_init, node, annotations: annotation, labels: label }
    }
}

/// Parses a key of a VMI's metadata, which is not checked otherwise, and its value.
fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("must be KEY=VALUE, such as example.com/name=web".to_owned()),
    }
}
