//! `init`: makes the directory of a new hook, with its tests, its cases and its image.
//!
//! ```text
//! project ─┬─▶ templates, example ─▶ files
//!          └─▶ steps ─▶ README, and the end of what is printed
//! ```
//!
//! # Theory of operation
//! What a hook does is an [`Example`](example::Example), the same one in every language that can do
//! it. Its cases are made from it, so they cannot disagree with the hook. The templates are files
//! in `templates/`, with words such as `@NAME@` for what differs. The name is a DNS label, and so
//! needs no quotes in any of the languages; the path of an SDK is quoted.

mod example;
mod project;
mod sdk;
mod steps;
mod templates;

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use sidecar_shim::hook::HookKind;

use self::project::Project;
use crate::output::write_stdout;

/// What to make.
pub(crate) struct InitConfig {
    /// The hook's name, and the new directory's.
    pub(crate) name: String,
    pub(crate) language: Language,
    pub(crate) kind: HookKind,
    /// Directory of the SDK's sources.
    pub(crate) sdk: Option<PathBuf>,
}

/// A language in which a hook can be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Language {
    Python,
    Rust,
    Go,
    Perl,
    Shell,
}

/// A file of the new directory.
struct File {
    path: String,
    text: String,
    is_program: bool,
}

/// Makes the directory, and prints what to do with it.
pub(crate) fn run(config: &InitConfig) -> Result<(), String> {
    let project = Project {
        name: config.name.clone(),
        language: config.language,
        kind: config.kind,
        sdk: sdk::locate(config.language, config.sdk.as_deref())?,
    };
    let directory = Path::new(&project.name);
    fs::create_dir(directory).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => {
            format!("{} exists already: choose another name, or remove it", project.name)
        }
        _ => format!("cannot create the directory {}: {error}", project.name),
    })?;
    for file in project.files() {
        write(directory, &file).inspect_err(|_| {
            // It is ours, and half of it is worse than none.
            let _ = fs::remove_dir_all(directory);
        })?;
    }
    let printed = project.summary();
    write_stdout(printed.as_bytes()).map_err(|error| format!("cannot write to stdout: {error}"))
}

fn write(directory: &Path, file: &File) -> Result<(), String> {
    let path = directory.join(&file.path);
    let mode = if file.is_program { 0o777 } else { 0o666 };
    let parent = path.parent().unwrap_or(directory);
    fs::create_dir_all(parent)
        .and_then(|()| OpenOptions::new().write(true).create_new(true).mode(mode).open(&path))
        .and_then(|mut created| created.write_all(file.text.as_bytes()))
        .map_err(|error| format!("cannot write {}: {error}", path.display()))
}
