//! What hooks are tried with: the user's files, or samples in their place.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::samples;

/// The user's choice.
pub(crate) struct Inputs {
    /// A file with the VMI, or none for the sample.
    pub(crate) vmi: Option<PathBuf>,
    /// A file with the domain.
    pub(crate) domain: Option<PathBuf>,
    /// A file with the cloud-init data.
    pub(crate) cloud_init: Option<PathBuf>,
    /// The name of the node, for node hooks.
    pub(crate) node: String,
}

/// A file that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}: {source}", path.display())]
pub(crate) struct Unreadable {
    path: PathBuf,
    source: std::io::Error,
}

impl Inputs {
    /// The VirtualMachineInstance.
    pub(crate) fn read_vmi(&self) -> Result<Bytes, Unreadable> {
        read_or(self.vmi.as_deref(), samples::VMI)
    }

    /// The libvirt domain.
    pub(crate) fn read_domain(&self) -> Result<Bytes, Unreadable> {
        read_or(self.domain.as_deref(), samples::DOMAIN)
    }

    /// `CloudInitData`.
    pub(crate) fn read_cloud_init(&self) -> Result<Bytes, Unreadable> {
        read_or(self.cloud_init.as_deref(), samples::CLOUD_INIT)
    }
}

fn read_or(path: Option<&Path>, sample: &'static str) -> Result<Bytes, Unreadable> {
    let Some(path) = path else { return Ok(Bytes::from_static(sample.as_bytes())) };
    let read = std::fs::read(path).map(Bytes::from);
    read.map_err(|source| Unreadable { path: path.to_owned(), source })
}
