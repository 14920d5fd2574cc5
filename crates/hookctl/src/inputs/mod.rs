//! The documents that hooks are called with: the user's files, or samples of a small virtual
//! machine.

#[cfg(test)]
mod tests;
mod vmi;

use std::io::{IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use sidecar_shim::hook::HookKind;

pub(crate) use self::vmi::{Vmi, parse as parse_vmi};
use crate::{background, say};

/// Maximum size of a file. The shim accepts 16 MiB for a document at most; a list of many VMs may
/// be larger, and a device without an end must not fill the memory.
const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;

/// The name for stdin on the command line.
pub(crate) const STDIN: &str = "-";

/// The user's files. Without one, the sample takes its place.
#[derive(Debug, Clone, Default)]
pub(crate) struct Inputs {
    pub(crate) vmi: Option<PathBuf>,
    pub(crate) domain: Option<PathBuf>,
    pub(crate) cloud_init: Option<PathBuf>,
    /// The node's name, for node hooks.
    pub(crate) node: String,
    /// Annotations and labels to set in the VMI, whether it is a file's or the sample.
    pub(crate) annotations: Vec<(String, String)>,
    pub(crate) labels: Vec<(String, String)>,
}

/// The documents for hooks of every kind.
#[derive(Clone)]
pub(crate) struct Documents {
    /// A `VirtualMachineInstance`, as Kubernetes JSON.
    pub(crate) vmi: Bytes,
    /// Its libvirt domain.
    pub(crate) domain: Bytes,
    /// Its `CloudInitData`.
    pub(crate) cloud_init: Bytes,
    pub(crate) node: String,
}

/// Why the documents cannot be had.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Unreadable {
    #[error("cannot read {}: {source}", shown(path))]
    File { path: PathBuf, source: Arc<std::io::Error> },
    #[error("{} is larger than {MAX_FILE_BYTES} bytes, the maximum for a document", shown(path))]
    TooLarge { path: PathBuf },
    #[error("cannot use {} as the VMI: {fault}", shown(path))]
    NoVmi { path: PathBuf, fault: String },
    #[error("cannot set annotations or labels: the VMI is not a JSON object with metadata")]
    NoMetadata,
    #[error("internal error (panic) while the documents were read")]
    Panicked,
}

impl Inputs {
    /// Reads the files. This may take as long as another program needs to write a pipe:
    /// [`load`](Self::load) does not block.
    pub(crate) fn read(&self) -> Result<Documents, Unreadable> {
        Ok(Documents {
            vmi: self.read_vmi()?,
            // KubeVirt writes no line break at the end.
            domain: read_or(
                self.domain.as_deref(),
                include_bytes!("../samples/domain.xml").trim_ascii_end(),
            )?,
            cloud_init: read_or(
                self.cloud_init.as_deref(),
                include_bytes!("../samples/cloud-init.json"),
            )?,
            node: self.node.clone(),
        })
    }

    /// Reads the files, in a thread that is abandoned when the future is dropped.
    pub(crate) async fn load(&self) -> Result<Documents, Unreadable> {
        let inputs = self.clone();
        let read = background::run(move || inputs.read()).await;
        read.unwrap_or(Err(Unreadable::Panicked))
    }

    /// Returns the files.
    pub(crate) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.vmi, &self.domain, &self.cloud_init].into_iter().flatten()
    }

    fn read_vmi(&self) -> Result<Bytes, Unreadable> {
        let vmi = match &self.vmi {
            None => Bytes::from_static(include_bytes!("../samples/vmi.json")),
            Some(path) => {
                let Vmi { json, note } = read_vmi(path)?;
                if let Some(note) = note {
                    say(format_args!("{}: {note}", shown(path)));
                }
                json
            }
        };
        let fields = [("annotations", &self.annotations), ("labels", &self.labels)];
        vmi::with_metadata(vmi, fields).ok_or(Unreadable::NoMetadata)
    }
}

/// Reads a file with a VMI, in JSON or YAML. A `VirtualMachine` becomes the VMI of
/// its template, and a list is taken if there is no doubt which VM is meant.
pub(crate) fn read_vmi(path: &Path) -> Result<Vmi, Unreadable> {
    let bytes = read_file(path)?;
    vmi::parse(&bytes).map_err(|fault| Unreadable::NoVmi { path: path.to_owned(), fault })
}

fn read_or(path: Option<&Path>, sample: &'static [u8]) -> Result<Bytes, Unreadable> {
    path.map_or(Ok(Bytes::from_static(sample)), read_file)
}

fn read_file(path: &Path) -> Result<Bytes, Unreadable> {
    let mut bytes = Vec::new();
    let limit = MAX_FILE_BYTES + 1;
    let read = if path.as_os_str() == STDIN {
        if std::io::stdin().is_terminal() {
            say("reading from the terminal; Ctrl-D ends the document");
        }
        std::io::stdin().take(limit).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes))
    };
    match read {
        Err(source) => Err(Unreadable::File { path: path.to_owned(), source: Arc::new(source) }),
        Ok(_) if bytes.len() as u64 > MAX_FILE_BYTES => {
            Err(Unreadable::TooLarge { path: path.to_owned() })
        }
        Ok(_) => Ok(bytes.into()),
    }
}

/// Returns a file's name for people.
fn shown(path: &Path) -> std::path::Display<'_> {
    let is_stdin = path.as_os_str() == STDIN;
    if is_stdin { Path::new("stdin") } else { path }.display()
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
