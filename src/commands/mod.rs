//! What the program does: [`serve`] KubeVirt, or [`call`] a hook once.

pub mod call;
pub mod serve;

use std::fmt::Display;
use std::process::ExitCode;

/// Tells the user why nothing came of it.
#[expect(clippy::print_stderr, reason = "this is for the user's eyes, whatever the log's level")]
pub fn fail(error: impl Display) -> ExitCode {
    eprintln!("sidecar-shim: {error}");
    ExitCode::FAILURE
}
