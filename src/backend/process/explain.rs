//! Why a program could not be started: an error number alone does not name the cause.

use std::io::Read;
use std::path::Path;

use rustix::io::Errno;
use rustix::param::page_size;

use super::{Launch, SpawnError};

/// `path` is the file that could not be started.
pub(super) fn explain(launch: &Launch<'_>, path: &Path, error: &std::io::Error) -> SpawnError {
    let command = launch.command;
    let cannot = |why: String| SpawnError::CannotRun(format!("cannot run {command}: {why}"));
    match Errno::from_io_error(error) {
        Some(Errno::TOOBIG) => SpawnError::ArgumentTooLong(explain_too_long(launch)),
        Some(Errno::NOENT) => cannot(match first_line(path) {
            Ok(line) if line.starts_with("#!") => {
                let hint =
                    if line.ends_with('\r') { ": the line ends in a carriage return" } else { "" };
                let line = line.trim_end();
                format!(
                    "the interpreter in the first line of {}, `{line}`, does not exist{hint}",
                    path.display()
                )
            }
            Ok(_) => format!("the dynamic loader of {} does not exist here", path.display()),
            Err(error) => format!("{}: {error}", path.display()),
        }),
        Some(Errno::ACCESS) => {
            let what = match first_line(path) {
                Ok(line) if line.starts_with("#!") => {
                    format!("it or its interpreter, `{}`, is not executable", line.trim_end())
                }
                _ => "it is not executable".to_owned(),
            };
            cannot(format!(
                "{}: {what} (chmod +x, or defaultMode: 0755 for a ConfigMap; or the file system \
                 is mounted noexec)",
                path.display()
            ))
        }
        Some(Errno::NOEXEC) => cannot(
            "it is neither a program for this machine nor a script that begins with `#!`"
                .to_owned(),
        ),
        _ => cannot(error.to_string()),
    }
}

/// Returns the maximum length of an argument: Linux accepts 32 pages, including the terminating
/// NUL.
pub(in crate::backend) fn max_argument_bytes() -> usize {
    page_size() * 32 - 1
}

fn explain_too_long(launch: &Launch<'_>) -> String {
    let limit = max_argument_bytes();
    let longest = launch.documents.iter().max_by_key(|(_, document)| document.len());
    let Some((flag, document)) = longest.filter(|(_, document)| document.len() > limit) else {
        return "the arguments and the environment together are longer than the kernel accepts; \
                --mode persistent has no such limit"
            .to_owned();
    };
    format!(
        "the argument {flag} is {} bytes long and Linux accepts at most {limit} bytes for one \
         argument; --mode persistent has no such limit",
        document.len()
    )
}

/// Returns the first line of a file, up to the length that the kernel reads.
fn first_line(path: &Path) -> std::io::Result<String> {
    let mut start = Vec::new();
    std::fs::File::open(path)?.take(255).read_to_end(&mut start)?;
    let line = start.split(|&byte| byte == b'\n').next().unwrap_or_default();
    Ok(String::from_utf8_lossy(line).into_owned())
}
