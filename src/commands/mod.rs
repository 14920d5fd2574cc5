//! The program's commands: [`serve`] KubeVirt, or ask a running shim for its [`health`] or its
//! [`status`].

pub mod health;
pub mod serve;
pub mod status;

use std::fmt::Display;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use crate::logging::Format;
use crate::text::{escape, fit};
use crate::{logging, stdio};

/// kubelet reads this much of a container's termination message.
const MAX_TERMINATION_MESSAGE_BYTES: usize = 4096;

/// Prints an error for the user, who reads it at every log level. A stderr that is full, or whose
/// reader has stalled or gone, neither fails nor blocks the program: it exits with its own status.
pub fn print_error(error: impl Display) {
    let text = format!("sidecar-shim: {error}\n");
    logging::print(escape(&text).as_bytes());
}

/// Prints a line to stdout. A caller that closes stdout does not want to read it.
fn print_line(line: &str) {
    let text = format!("{}\n", escape(line));
    let _ = stdio::write_all(std::io::stdout(), &mut text.as_bytes());
}

/// Reports why nothing is served: to the user, and with the same text in the pod's status. In a log
/// of JSON it is a line of JSON like the others.
#[track_caller]
pub fn fail_to_start(
    error: impl Display,
    log_format: Format,
    termination_log: Option<&Path>,
) -> ExitCode {
    let text = format!("sidecar-shim: {error}");
    if let Some(path) = termination_log {
        write_termination_message(path, &text);
    }
    match log_format {
        Format::Json => logging::print_error(log_format, text),
        // Without the time and level of a log line, for the person who typed the command.
        Format::Text => print_error(error),
    }
    ExitCode::FAILURE
}

/// Writes a container's termination message, if there is a file for it. Errors are ignored: stderr
/// has the message too.
pub fn write_termination_message(path: &Path, text: &str) {
    // Opening a FIFO would wait for a reader.
    if std::fs::metadata(path).is_ok_and(|found| found.is_file())
        && let Ok(mut file) = OpenOptions::new().write(true).truncate(true).open(path)
    {
        let message = fit(&escape(text.trim_end()), MAX_TERMINATION_MESSAGE_BYTES, str::len);
        let _ = file.write_all(message.as_bytes());
    }
}
