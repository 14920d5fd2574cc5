//! What is noticed during all checks. The last checks judge it.

use std::fmt::Display;

use sidecar_shim::rpc::LogLine;

const LOG_LEVELS: [&str; 4] = ["debug", "info", "warning", "error"];

/// Violations that no single check looks for.
#[derive(Debug, Default)]
pub(super) struct Observations {
    /// Responses to requests that had theirs.
    pub(super) repeated_responses: Occurrences,
    /// Messages that workers do not send.
    pub(super) unexpected_messages: Occurrences,
    /// Text between frames.
    pub(super) stray_output: Occurrences,
}

impl Observations {
    /// Notes what is wrong with a log line. The shim logs it nevertheless.
    pub(super) fn add_log(&mut self, line: &LogLine) {
        if line.unreadable {
            self.unexpected_messages.add(format!("a $/log, but {}", line.message));
        } else if !LOG_LEVELS.contains(&line.level.as_str()) {
            let levels = LOG_LEVELS.join(", ");
            self.unexpected_messages.add(format!("a $/log whose level is none of {levels}"));
        }
    }
}

/// The first violation of one kind, and the number of them.
#[derive(Debug, Default)]
pub(super) struct Occurrences {
    first: Option<String>,
    count: usize,
}

impl Occurrences {
    pub(super) fn add(&mut self, what: impl Display) {
        self.count += 1;
        self.first.get_or_insert_with(|| what.to_string());
    }

    /// Returns the text of a fault, if there was one.
    pub(super) fn summary(&self) -> Option<String> {
        let first = self.first.as_ref()?;
        Some(match self.count {
            1 => first.clone(),
            count => format!("{first} (the first of {count})"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_has_the_first_and_the_number() {
        let mut occurrences = Occurrences::default();
        assert_eq!(occurrences.summary(), None);
        occurrences.add("a");
        assert_eq!(occurrences.summary().unwrap(), "a");
        occurrences.add("b");
        assert_eq!(occurrences.summary().unwrap(), "a (the first of 2)");
    }
}
