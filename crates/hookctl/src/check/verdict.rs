//! The outcome of one check.

use std::fmt::Display;

/// Why a check did not pass.
#[derive(Debug)]
pub(super) enum NotPassed {
    /// The worker violates the protocol.
    Failed {
        /// Text for the user. It contains nothing of a document.
        seen: String,
        /// The last lines of the worker's stderr, oldest first.
        stderr: Vec<String>,
    },
    /// The check could not be made, and why.
    Skipped(String),
}

/// Passed, with or without a detail; or not.
pub(super) type Verdict = Result<Option<String>, NotPassed>;

impl NotPassed {
    /// Returns a failure for which the worker's stderr does not matter.
    pub(super) fn failed(seen: impl Display) -> Self {
        Self::Failed { seen: seen.to_string(), stderr: Vec::new() }
    }

    pub(super) fn skipped(why: impl Display) -> Self {
        Self::Skipped(why.to_string())
    }
}
