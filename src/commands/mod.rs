//! What the program does: [`serve`] KubeVirt, [`call`] a hook once, [`check`] a worker, or ask for a
//! shim's [`health`].

pub mod call;
pub mod check;
pub mod health;
pub mod inputs;
mod readable;
pub mod serve;

use std::fmt::Display;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

use crate::text::fit;

/// kubelet reads this much of a container's termination message.
const MAX_TERMINATION_MESSAGE_BYTES: usize = 4096;

/// Tells the user why nothing came of it.
#[expect(clippy::print_stderr, reason = "this is for the user's eyes, whatever the log's level")]
pub fn fail(error: impl Display) -> ExitCode {
    eprintln!("sidecar-shim: {error}");
    ExitCode::FAILURE
}

/// Tells the user, and whoever looks at the pod, why nothing is served.
pub fn fail_to_start(error: impl Display, termination_log: Option<&Path>) -> ExitCode {
    if let Some(path) = termination_log {
        leave_message(path, &format!("sidecar-shim: {error}"));
    }
    fail(error)
}

/// Writes a container's termination message, if there is a file for it. What cannot be written is
/// on standard error anyway.
pub fn leave_message(path: &Path, text: &str) {
    // Opening a FIFO would wait for a reader.
    if std::fs::metadata(path).is_ok_and(|found| found.is_file())
        && let Ok(mut file) = OpenOptions::new().write(true).truncate(true).open(path)
    {
        let message = fit(text.trim_end(), MAX_TERMINATION_MESSAGE_BYTES, str::len);
        let _ = file.write_all(message.as_bytes());
    }
}

/// Waits for the user to lose patience.
async fn interrupted() {
    match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
        (Ok(mut interrupt), Ok(mut terminate)) => {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        }
        _ => std::future::pending().await,
    }
}
