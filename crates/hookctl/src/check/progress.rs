//! The progress of the checks, on the last line of a terminal.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar on stderr, if that is a terminal. Removed when dropped.
pub(super) struct Progress(ProgressBar);

impl Progress {
    pub(super) fn new(checks: usize) -> Self {
        let bar = ProgressBar::new(u64::try_from(checks).unwrap_or(u64::MAX));
        // The template is a constant that can be parsed.
        let style = ProgressStyle::with_template("{bar:24} {pos}/{len} {msg}");
        Self(bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())))
    }

    /// Shows which check runs.
    pub(super) fn begin(&self, name: &'static str) {
        self.0.set_message(name);
    }

    /// Shows how many calls a long check has made.
    pub(super) fn calls(&self, name: &str, calls: usize) {
        self.0.set_message(format!("{name}, {calls} calls"));
    }

    /// Counts a check, and prints its outcome without mixing it with the bar.
    pub(super) fn end<T>(&self, print: impl FnOnce() -> T) -> T {
        self.0.inc(1);
        self.0.suspend(print)
    }

    pub(super) fn clear(&self) {
        self.0.finish_and_clear();
    }
}
