//! What is noticed by the way, whatever is being checked, and judged by a check of its own at the end.

use std::fmt::Display;

use sidecar_shim::rpc::LogLine;

/// The levels that a line of the log has.
const LEVELS: [&str; 4] = ["debug", "info", "warning", "error"];

/// What the worker did that no single check looks for.
#[derive(Debug, Default)]
pub(super) struct Observations {
    /// Requests that were answered more than once.
    pub(super) answered_twice: Observation,
    /// Messages that a worker does not send.
    pub(super) odd_messages: Observation,
    /// Text between frames.
    pub(super) stray_text: Observation,
}

impl Observations {
    /// A line for the log. The shim makes the best of one that is wrong.
    pub(super) fn hear_log(&mut self, line: &LogLine) {
        if line.unreadable {
            self.odd_messages.add(format!("a $/log, but {}", line.message));
        } else if !LEVELS.contains(&line.level.as_str()) {
            let levels = LEVELS.join(", ");
            self.odd_messages.add(format!("a $/log whose level is none of {levels}"));
        }
    }
}

/// One kind of thing: the first of them, and how many there were.
#[derive(Debug, Default)]
pub(super) struct Observation {
    first: Option<String>,
    count: usize,
}

impl Observation {
    pub(super) fn add(&mut self, what: impl Display) {
        self.count += 1;
        self.first.get_or_insert_with(|| what.to_string());
    }

    /// The first, and the number of them if there were more.
    pub(super) fn summary(&self) -> Option<String> {
        let first = self.first.as_ref()?;
        Some(match self.count {
            1 => first.clone(),
            count => format!("{first} (the first of {count} times)"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_and_the_others_are_counted() {
        let mut note = Observation::default();
        assert_eq!(note.summary(), None);
        note.add("a");
        assert_eq!(note.summary().unwrap(), "a");
        note.add("b");
        assert_eq!(note.summary().unwrap(), "a (the first of 2 times)");
    }
}
