//! The documents that hooks are called with: the user's files, or samples of a small virtual
//! machine.

use std::path::PathBuf;

use bytes::Bytes;
use sidecar_shim::hook::HookKind;

/// The user's files. Without one, the sample takes its place.
pub(crate) struct Inputs {
    pub(crate) vmi: Option<PathBuf>,
    pub(crate) domain: Option<PathBuf>,
    pub(crate) cloud_init: Option<PathBuf>,
    /// The node's name, for node hooks.
    pub(crate) node: String,
}

/// The documents for hooks of every kind.
#[derive(Clone)]
pub(crate) struct Documents {
    /// A VirtualMachineInstance, as Kubernetes JSON.
    pub(crate) vmi: Bytes,
    /// Its libvirt domain.
    pub(crate) domain: Bytes,
    /// Its `CloudInitData`.
    pub(crate) cloud_init: Bytes,
    pub(crate) node: String,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot read {}: {source}", path.display())]
pub(crate) struct Unreadable {
    path: PathBuf,
    source: std::io::Error,
}

impl Inputs {
    pub(crate) fn read(&self) -> Result<Documents, Unreadable> {
        Ok(Documents {
            vmi: read_or(self.vmi.as_ref(), include_bytes!("samples/vmi.json"))?,
            // KubeVirt writes no line break at the end.
            domain: read_or(
                self.domain.as_ref(),
                include_bytes!("samples/domain.xml").trim_ascii_end(),
            )?,
            cloud_init: read_or(
                self.cloud_init.as_ref(),
                include_bytes!("samples/cloud-init.json"),
            )?,
            node: self.node.clone(),
        })
    }
}

fn read_or(path: Option<&PathBuf>, sample: &'static [u8]) -> Result<Bytes, Unreadable> {
    let Some(path) = path else { return Ok(Bytes::from_static(sample)) };
    let read = std::fs::read(path).map(Bytes::from);
    read.map_err(|source| Unreadable { path: path.clone(), source })
}

impl Documents {
    /// Returns the document that a hook of this kind may change. For a node hook it is empty.
    pub(crate) fn subject(&self, kind: HookKind) -> Bytes {
        match kind {
            HookKind::Domain => self.domain.clone(),
            HookKind::CloudInit => self.cloud_init.clone(),
            HookKind::Node => Bytes::new(),
        }
    }
}
