//! How results are written.

use std::io::{ErrorKind, IsTerminal};

use clap::ColorChoice;
use sidecar_shim::stdio;

/// Returns whether a stream's output is coloured: by default on a terminal, unless `NO_COLOR` is
/// set.
pub(crate) fn is_colored(choice: ColorChoice, stream: &impl IsTerminal) -> bool {
    match choice {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto => stream.is_terminal() && std::env::var_os("NO_COLOR").is_none(),
    }
}

/// Writes to stdout, which the reader may have closed.
pub(crate) fn write_stdout(bytes: &[u8]) -> std::io::Result<()> {
    match stdio::write_all(std::io::stdout(), &mut &bytes[..]) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Writes to stderr. If that is full, or its reader has gone, the exit status says enough.
pub(crate) fn write_stderr(text: &str) {
    let _ = stdio::write_all(std::io::stderr(), &mut text.as_bytes());
}
