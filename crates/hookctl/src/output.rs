//! How results are written.

use std::ffi::OsStr;
use std::io::{ErrorKind, IsTerminal};

use clap::ColorChoice;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sidecar_shim::stdio;

/// Returns whether a stream's output is coloured: by default on a terminal that has colours, unless
/// `NO_COLOR` is set.
pub(crate) fn is_colored(choice: ColorChoice, stream: &impl IsTerminal) -> bool {
    match choice {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto => {
            let [no_color, term] = ["NO_COLOR", "TERM"].map(std::env::var_os);
            stream.is_terminal() && are_wanted(no_color.as_deref(), term.as_deref())
        }
    }
}

/// Whether a terminal with these variables gets colours. An empty `NO_COLOR` is none.
fn are_wanted(no_color: Option<&OsStr>, term: Option<&OsStr>) -> bool {
    no_color.is_none_or(OsStr::is_empty) && term.is_none_or(|term| term != "dumb")
}

/// Writes to stdout, which the reader may have closed.
pub(crate) fn write_stdout(bytes: &[u8]) -> std::io::Result<()> {
    match stdio::write_all(std::io::stdout(), &mut &bytes[..]) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Whether the reader of stdout has gone.
pub(crate) fn is_stdout_closed() -> bool {
    let stdout = std::io::stdout();
    let mut fds = [PollFd::new(&stdout, PollFlags::empty())];
    let polled = poll(&mut fds, Some(&Timespec::default()));
    polled.is_ok() && fds[0].revents().intersects(PollFlags::ERR | PollFlags::HUP)
}

/// Writes to stderr. If that is full, or its reader has gone, the exit status says enough.
pub(crate) fn write_stderr(text: &str) {
    let _ = stdio::write_all(std::io::stderr(), &mut text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_get_colours_unless_they_have_none_or_the_user_wants_none() {
        let wanted = |no_color: Option<&str>, term: Option<&str>| {
            are_wanted(no_color.map(OsStr::new), term.map(OsStr::new))
        };
        assert!(
            wanted(None, Some("xterm")) && wanted(Some(""), Some("linux")) && wanted(None, None)
        );
        assert!(!wanted(Some("1"), Some("xterm")) && !wanted(Some("0"), None));
        assert!(!wanted(None, Some("dumb")));
    }
}
