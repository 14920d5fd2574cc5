//! Prints the documents that hooks are tried with, for unit tests and for files to start from.

use std::io;

use clap::ValueEnum;

use crate::inputs::{Documents, Inputs};
use crate::output;
use crate::rewrite::Receiver;

/// A sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sample {
    Vmi,
    Domain,
    CloudInit,
}

/// Prints a sample. A domain for a Plugin is spelt as KubeVirt's Plugins API spells it.
pub(crate) fn print(sample: Sample, for_plugin: bool) -> io::Result<()> {
    let inputs = Inputs::default();
    let Documents { vmi, domain, cloud_init, .. } = inputs.read().map_err(io::Error::other)?;
    let document = match sample {
        Sample::Vmi => vmi,
        Sample::Domain if for_plugin => {
            Receiver::SamePlugin.rewrite_document(&domain).unwrap_or(domain)
        }
        Sample::Domain => domain,
        Sample::CloudInit => cloud_init,
    };
    let document = document.trim_ascii_end();
    output::write_stdout(&[document, b"\n"].concat())
}
