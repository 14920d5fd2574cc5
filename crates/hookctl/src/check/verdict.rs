//! What comes of one check.

use std::fmt::Display;

/// What was seen that must not be.
#[derive(Debug)]
pub(super) struct Fault {
    /// In words. They hold nothing of a document.
    pub(super) seen: String,
    /// The last lines of the worker's standard error, oldest first.
    pub(super) stderr: Vec<String>,
}

/// Why a check did not pass.
#[derive(Debug)]
pub(super) enum Stop {
    /// The worker does not do what it has to.
    Failed(Fault),
    /// It could not be found out, and this is why.
    Skipped(String),
}

/// Passed, perhaps with something to say; or not.
pub(super) type Verdict = Result<Option<String>, Stop>;

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Failed(fault)
    }
}

impl Stop {
    /// A fault that the worker's standard error has nothing to do with.
    pub(super) fn failed(seen: impl Display) -> Self {
        Self::Failed(Fault { seen: seen.to_string(), stderr: Vec::new() })
    }

    pub(super) fn skipped(why: impl Display) -> Self {
        Self::Skipped(why.to_string())
    }
}
