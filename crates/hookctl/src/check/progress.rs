//! How far the checks are, in the last line of a terminal.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar on standard error, and only if that is a terminal. It is gone when it is dropped.
pub(super) struct Progress(ProgressBar);

impl Progress {
    pub(super) fn new(checks: usize) -> Self {
        let bar = ProgressBar::new(u64::try_from(checks).unwrap_or(u64::MAX));
        // The template is a constant, which can be read; if not, the bar just looks otherwise.
        let style = ProgressStyle::with_template("{bar:24} {pos}/{len} {msg}");
        Self(bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())))
    }

    /// The next check begins.
    pub(super) fn begin(&self, name: &'static str) {
        self.0.set_message(name);
    }

    /// The check, which takes long, has made so many calls.
    pub(super) fn calls(&self, name: &str, calls: usize) {
        self.0.set_message(format!("{name}, {calls} calls"));
    }

    /// The check has ended. What is printed meanwhile does not mix with the bar.
    pub(super) fn end<T>(&self, print: impl FnOnce() -> T) -> T {
        self.0.inc(1);
        self.0.suspend(print)
    }

    /// All checks have ended: the line is the user's again.
    pub(super) fn clear(&self) {
        self.0.finish_and_clear();
    }
}
