//! Programs: their command lines, and the search in `$PATH`.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A program and its fixed arguments.
#[derive(Clone, PartialEq, Eq)]
pub struct CommandLine {
    pub(super) program: OsString,
    pub(super) args: Vec<OsString>,
}

impl CommandLine {
    /// The first word is the program. Returns `None` if there are no words.
    #[must_use]
    pub fn from_words(words: impl IntoIterator<Item = OsString>) -> Option<Self> {
        let mut words = words.into_iter();
        let program = words.next()?;
        Some(Self { program, args: words.collect() })
    }

    /// Returns the file that would be run.
    pub(super) fn resolve(&self) -> Option<PathBuf> {
        if Path::new(&self.program).components().count() > 1 {
            return Some(PathBuf::from(&self.program));
        }
        find_in_path(&self.program).ok()
    }
}

impl fmt::Display for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = std::iter::once(&self.program).chain(&self.args);
        for (index, word) in words.enumerate() {
            let word = word.to_string_lossy();
            let quoted = shlex::try_quote(&word).unwrap_or(std::borrow::Cow::Borrowed("?"));
            write!(f, "{}{quoted}", if index == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

impl fmt::Debug for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a program was not found in `$PATH`.
#[derive(Debug, thiserror::Error)]
pub(in crate::backend) enum NotFound {
    /// No directory has a file of that name.
    #[error("there is no program of that name in $PATH")]
    Absent,
    /// There is a file, but it is not executable.
    #[error("{} is not executable (chmod +x, or defaultMode: 0755 for a ConfigMap)", .0.display())]
    NotExecutable(PathBuf),
}

/// Looks up a program in `$PATH`, as a shell does.
pub(in crate::backend) fn find_in_path(name: &OsStr) -> Result<PathBuf, NotFound> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut unusable = None;
    for directory in std::env::split_paths(&path).filter(|directory| directory.is_absolute()) {
        let candidate = directory.join(name);
        match std::fs::metadata(&candidate) {
            Ok(found) if found.is_file() && found.permissions().mode() & 0o111 != 0 => {
                return Ok(candidate);
            }
            Ok(found) if found.is_file() => unusable = unusable.or(Some(candidate)),
            _ => {}
        }
    }
    Err(unusable.map_or(NotFound::Absent, NotFound::NotExecutable))
}
