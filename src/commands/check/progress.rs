//! How far the checks are, in the last line of a terminal.

use std::io::{IsTerminal, Write};

/// The line is drawn on standard error, and only if that is a terminal.
pub(super) struct Progress {
    draws: bool,
    of: usize,
    done: usize,
    name: &'static str,
}

/// Back to the beginning of the line, and clear it.
const CLEAR: &str = "\r\u{1b}[2K";

/// Characters of the bar.
const WIDTH: usize = 24;

impl Progress {
    pub(super) fn new(of: usize) -> Self {
        Self { draws: std::io::stderr().is_terminal(), of, done: 0, name: "" }
    }

    /// The next check begins.
    pub(super) fn begin(&mut self, name: &'static str) {
        self.name = name;
        self.draw("");
    }

    /// A check that takes long has made so many calls.
    pub(super) fn calls(&self, calls: usize) {
        self.draw(&format!(", {calls} calls"));
    }

    /// The check has ended. The line is cleared, so that its result can be printed.
    pub(super) fn end(&mut self) {
        self.done += 1;
        self.write(CLEAR);
    }

    fn draw(&self, more: &str) {
        let filled = WIDTH * self.done / self.of.max(1);
        let bar = "━".repeat(filled) + &"─".repeat(WIDTH - filled);
        self.write(&format!("{CLEAR}{bar} {}/{} {}{more}", self.done, self.of, self.name));
    }

    fn write(&self, text: &str) {
        if self.draws {
            let mut stderr = std::io::stderr().lock();
            // Nobody is worse off without it.
            let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
        }
    }
}

impl Drop for Progress {
    /// Whatever it ends with, the terminal is the user's again.
    fn drop(&mut self) {
        self.write(CLEAR);
    }
}
