//! Programs: their command lines, and the search in `$PATH`.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Access, AtFlags, CWD, accessat};

/// A program and its fixed arguments.
#[derive(Clone, PartialEq, Eq)]
pub struct CommandLine {
    pub(super) program: OsString,
    pub(super) args: Vec<OsString>,
    /// Variables that it gets beside those that it inherits.
    pub(super) variables: Arc<Vec<(OsString, OsString)>>,
}

impl CommandLine {
    /// The first word is the program. Returns `None` if there are no words.
    #[must_use]
    pub fn from_words(words: impl IntoIterator<Item = OsString>) -> Option<Self> {
        let mut words = words.into_iter();
        let program = words.next()?;
        Some(Self { program, args: words.collect(), variables: Arc::default() })
    }

    /// Adds environment variables. Those that the shim sets itself win.
    #[must_use]
    pub fn with_variables(self, variables: Vec<(OsString, OsString)>) -> Self {
        Self { variables: Arc::new(variables), ..self }
    }

    /// Returns the file to run. A name with a slash is a path; others are looked up in `$PATH`.
    pub(super) fn resolve(&self) -> Result<PathBuf, NotFound> {
        if self.program.as_bytes().contains(&b'/') {
            return Ok(PathBuf::from(&self.program));
        }
        find_in_path(&self.program)
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
    /// There is a program, but what it is depends on the working directory.
    #[error(
        "{} is not used: only absolute directories of $PATH are searched", .0.display()
    )]
    Relative(PathBuf),
}

/// Looks up a program in `$PATH`, as a shell does, but in absolute directories only. What was found
/// is to be started by its path: a second search, by the system, would include the others.
pub(in crate::backend) fn find_in_path(name: &OsStr) -> Result<PathBuf, NotFound> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    find_in(std::env::split_paths(&path), name)
}

fn find_in(directories: impl Iterator<Item = PathBuf>, name: &OsStr) -> Result<PathBuf, NotFound> {
    let mut unusable = None;
    for directory in directories.filter(|_| !name.is_empty()) {
        let candidate = directory.join(name);
        if !std::fs::metadata(&candidate).is_ok_and(|found| found.is_file()) {
            continue;
        }
        match (directory.is_absolute(), is_executable(&candidate)) {
            (true, true) => return Ok(candidate),
            (true, false) => unusable = Some(NotFound::NotExecutable(candidate)),
            (false, true) => unusable = unusable.or(Some(NotFound::Relative(candidate))),
            (false, false) => {}
        }
    }
    Err(unusable.unwrap_or(NotFound::Absent))
}

/// Whether this process may execute the file.
fn is_executable(path: &Path) -> bool {
    accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS).is_ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn file(directory: &Path, name: &str, mode: u32) -> PathBuf {
        let path = directory.join(name);
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn the_first_executable_file_in_an_absolute_directory_is_found() {
        let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let [first, second] = dirs.each_ref().map(tempfile::TempDir::path);
        let find = |name: &str| {
            let directories = [first, second].map(Path::to_owned);
            find_in(directories.into_iter(), name.as_ref()).map_err(|error| error.to_string())
        };
        let not_executable = file(first, "hook", 0o644);
        assert_eq!(
            find("hook"),
            Err(format!(
                "{} is not executable (chmod +x, or defaultMode: 0755 for a ConfigMap)",
                not_executable.display()
            ))
        );
        let found = file(second, "hook", 0o755);
        assert_eq!(find("hook"), Ok(found));
        std::fs::create_dir(first.join("directory")).unwrap();
        for name in ["directory", "other", ""] {
            let absent = "there is no program of that name in $PATH";
            assert_eq!(find(name), Err(absent.to_owned()), "{name:?}");
        }
    }

    #[test]
    fn a_relative_directory_is_skipped_and_named() {
        let directory = tempfile::tempdir().unwrap();
        let program = file(directory.path(), "hook", 0o755);
        let here = std::env::current_dir().unwrap();
        let mut relative: PathBuf = here.components().skip(1).map(|_| "..").collect();
        relative.push(directory.path().strip_prefix("/").unwrap());
        assert!(relative.is_relative() && relative.join("hook").exists(), "{program:?}");
        let absolute = tempfile::tempdir().unwrap();
        let find =
            || find_in([relative.clone(), absolute.path().to_owned()].into_iter(), "hook".as_ref());
        let without = find().map_err(|error| error.to_string());
        let found = file(absolute.path(), "hook", 0o755);
        let with = find();
        let expected = format!(
            "{} is not used: only absolute directories of $PATH are searched",
            relative.join("hook").display()
        );
        assert_eq!(without, Err(expected));
        assert_eq!(with.ok(), Some(found));
    }
}
