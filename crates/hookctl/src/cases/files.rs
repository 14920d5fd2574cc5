//! The files of a case. What is read is a regular file of a bounded length, and is not outside of
//! the directory that the user named: a case that came from a stranger must not send another file
//! of this machine to a hook, or show it in a report.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rustix::fs::OFlags;

/// Maximum length of a document: what fits into a message to a worker.
pub(super) const MAX_DOCUMENT_BYTES: usize = sidecar_shim::frame::MAX_FRAME_BYTES;

/// Maximum length of `args.toml` and `error.txt`, which people write.
pub(super) const MAX_TEXT_BYTES: usize = 64 * 1024;

/// Maximum number of entries of a directory: it is read before it is sorted.
const MAX_ENTRIES: usize = 10_000;

/// The directory that the user named, without symbolic links.
#[derive(Debug, Clone)]
pub(super) struct Root(PathBuf);

impl Root {
    pub(super) fn of(directory: &Path) -> io::Result<Self> {
        fs::canonicalize(directory).map(Self)
    }

    /// Reads a file of at most `limit` bytes. An error says what is wrong with it.
    pub(super) fn read(&self, path: &Path, limit: usize) -> Result<Bytes, String> {
        let name = file_name(path);
        let wrong = |why: &str| format!("{name} {why}");
        let cannot = |error: &io::Error| format!("cannot read {name}: {error}");
        let real = fs::canonicalize(path).map_err(|error| cannot(&error))?;
        if !real.starts_with(&self.0) {
            return Err(wrong("is a symbolic link to a file outside of the directory of cases"));
        }
        // A FIFO in its place blocks nothing.
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let opened = OpenOptions::new().read(true).custom_flags(flags).open(&real);
        let file: File = opened.map_err(|error| cannot(&error))?;
        if !file.metadata().is_ok_and(|found| found.is_file()) {
            return Err(wrong("is not a regular file"));
        }
        let mut contents = Vec::new();
        file.take(limit as u64 + 1).read_to_end(&mut contents).map_err(|error| cannot(&error))?;
        if contents.len() > limit {
            return Err(wrong(&format!("is longer than {limit} bytes")));
        }
        Ok(contents.into())
    }

    /// Reads a file that is text.
    pub(super) fn read_text(&self, path: &Path, limit: usize) -> Result<String, String> {
        let contents = self.read(path, limit)?;
        String::from_utf8(contents.into()).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            format!("{} is not UTF-8: byte {at} cannot be read", file_name(path))
        })
    }
}

/// An entry of a directory.
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) path: PathBuf,
    /// Whether it is a directory itself, and not a link to one.
    pub(super) is_directory: bool,
}

/// Whether a name is for something else than cases, which is not looked at.
pub(super) fn is_hidden(name: &str) -> bool {
    name.starts_with('.')
}

/// Lists a directory in the order of names, without what is allowed anywhere: READMEs that are
/// files, and all whose names begin with a dot.
pub(super) fn list(directory: &Path) -> Result<Vec<Entry>, String> {
    let cannot = |error: io::Error| format!("cannot read the directory: {error}");
    let mut entries = Vec::new();
    for entry in fs::read_dir(directory).map_err(cannot)? {
        let entry = entry.map_err(cannot)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // A case may be about the file README of a guest.
        let is_readme = name.starts_with("README") && !entry.path().is_dir();
        if is_hidden(&name) || is_readme {
            continue;
        }
        if entries.len() == MAX_ENTRIES {
            return Err(format!("the directory has more than {MAX_ENTRIES} entries"));
        }
        let is_directory = entry.file_type().map_err(cannot)?.is_dir();
        entries.push(Entry { name, path: entry.path(), is_directory });
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
