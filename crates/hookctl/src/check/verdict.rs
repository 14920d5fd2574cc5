//! The outcome of one check.

use std::fmt::Display;

/// Why a check did not pass.
#[derive(Debug)]
pub(super) enum NotPassed {
    /// The worker violates a MUST of `protocol.md`.
    Failed(Fault),
    /// The worker violates a SHOULD of `protocol.md`.
    Warned(Fault),
    /// The check could not be made, and why.
    Skipped(String),
    /// The check could not be made, because this other one did not pass.
    Needs(&'static str),
}

/// What is wrong with a worker.
#[derive(Debug)]
pub(super) struct Fault {
    /// Text for the user. It contains nothing of a document.
    pub(super) seen: String,
    /// The last lines of the worker's stderr, oldest first.
    pub(super) stderr: Vec<String>,
}

/// Passed, with or without a detail; or not.
pub(super) type Verdict = Result<Option<String>, NotPassed>;

impl NotPassed {
    /// Returns a failure for which the worker's stderr does not matter.
    pub(super) fn failed(seen: impl Display) -> Self {
        Self::Failed(Fault { seen: seen.to_string(), stderr: Vec::new() })
    }

    pub(super) fn skipped(why: impl Display) -> Self {
        Self::Skipped(why.to_string())
    }

    /// Turns a failure into a warning, if `protocol.md` demands no more than that.
    pub(super) fn or_warning(self) -> Self {
        match self {
            Self::Failed(fault) => Self::Warned(fault),
            other => other,
        }
    }

    /// Returns the same failure with more behind what was seen.
    pub(super) fn with(mut self, more: impl Display) -> Self {
        if let Self::Failed(fault) | Self::Warned(fault) = &mut self {
            fault.seen.push_str(&more.to_string());
        }
        self
    }
}
