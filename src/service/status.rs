//! Errors of calls as gRPC statuses: the code, and a text that every client can take.

use tonic::{Code, Status};

use crate::error::CallError;

/// The longest text, counted as it is sent. Clients drop the whole status if its headers are
/// longer than 8 to 16 KiB, and with it every word of explanation.
const MAX_ENCODED_BYTES: usize = 4 * 1024;

/// What stands where lines were left out.
const GAP: &str = "[…]";

/// The status for an error.
pub(super) fn of(error: &CallError) -> Status {
    let code = match error {
        CallError::BadRequest(_) | CallError::BadParams { .. } => Code::InvalidArgument,
        CallError::TooLarge { .. } | CallError::Busy { .. } => Code::ResourceExhausted,
        CallError::NotServed { .. } => Code::Unimplemented,
        CallError::Refused { .. } => Code::FailedPrecondition,
        CallError::Fault { .. }
        | CallError::Died { .. }
        | CallError::Protocol { .. }
        | CallError::Dropped { .. }
        | CallError::BadOutput { .. } => Code::Internal,
        CallError::Deadline { .. } | CallError::Stalled { .. } => Code::DeadlineExceeded,
        CallError::Cancelled { .. } => Code::Cancelled,
        CallError::Unavailable { .. } => Code::Unavailable,
    };
    Status::new(code, fit(&error.to_string()))
}

/// Leaves lines out of the middle until the text fits: the first says what happened, the last
/// ones are where a stack trace has its message.
fn fit(text: &str) -> String {
    if encoded_len(text) <= MAX_ENCODED_BYTES {
        return text.to_owned();
    }
    let mut lines = text.lines();
    let head = cut(lines.next().unwrap_or_default(), MAX_ENCODED_BYTES / 2);
    let mut left = MAX_ENCODED_BYTES - encoded_len(head) - encoded_len("\n") - encoded_len(GAP);
    let mut tail = Vec::new();
    for line in lines.rev() {
        let Some(room) = left.checked_sub(encoded_len("\n")).filter(|room| *room > 0) else {
            break;
        };
        let kept = cut(line, room);
        left = room - encoded_len(kept);
        tail.push(kept);
        if kept.len() < line.len() {
            break;
        }
    }
    let tail: String = tail.iter().rev().flat_map(|line| ["\n", line]).collect();
    format!("{head}\n{GAP}{tail}")
}

/// The longest beginning of `text` that is sent in `room` bytes.
fn cut(text: &str, room: usize) -> &str {
    let mut used = 0;
    let end = text.char_indices().find(|(_, c)| {
        used += encoded_len(c.encode_utf8(&mut [0; 4]));
        used > room
    });
    end.map_or(text, |(at, _)| &text[..at])
}

/// Bytes on the wire, at most: what is neither a letter, a digit nor plain punctuation is sent
/// as `%` and two digits.
fn encoded_len(text: &str) -> usize {
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/,;=()[]|'!*+&@$~^\\".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { 1 } else { 3 }).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_texts_stay_as_they_are() {
        assert_eq!(fit("hook x failed:\nline 1\nline 2"), "hook x failed:\nline 1\nline 2");
    }

    #[test]
    fn long_texts_keep_their_first_and_their_last_lines() {
        let lines: Vec<String> = (0..400).map(|n| format!("line {n} of a stack trace")).collect();
        let text = format!("hook x failed:\n{}", lines.join("\n"));
        let fitted = fit(&text);
        assert!(encoded_len(&fitted) <= MAX_ENCODED_BYTES);
        assert!(encoded_len(&fitted) > MAX_ENCODED_BYTES * 9 / 10);
        assert!(fitted.starts_with("hook x failed:\n[…]\n"), "{fitted}");
        assert!(fitted.ends_with("line 398 of a stack trace\nline 399 of a stack trace"));
    }

    #[test]
    fn one_endless_line_is_cut_between_characters() {
        for text in ["é".repeat(10_000), format!("head\n{}", "é".repeat(10_000))] {
            let fitted = fit(&text);
            assert!(encoded_len(&fitted) <= MAX_ENCODED_BYTES);
            assert!(encoded_len(&fitted) > MAX_ENCODED_BYTES / 3, "{}", fitted.len());
        }
    }

    /// One error of every kind.
    fn every_error() -> Vec<CallError> {
        use std::time::Duration;

        use crate::error::Failure;
        use crate::hook::{BadDocument, HookName};

        let hook = HookName::ON_DEFINE_DOMAIN;
        let (why, program) = ("words".to_owned(), "worker.py".to_owned());
        let (what, message, fault, seen) = (why.clone(), why.clone(), why.clone(), why.clone());
        let failure = Failure { how: "exited with status 1".to_owned(), stderr: Vec::new() };
        let (after, stderr) = (Duration::from_secs(1), Vec::new());
        vec![
            CallError::BadRequest(BadDocument::new("vmi", "is empty".to_owned())),
            CallError::TooLarge { hook: hook.clone(), what },
            CallError::NotServed { hook: hook.clone(), why: why.clone() },
            CallError::Refused { hook: hook.clone(), message: message.clone() },
            CallError::BadParams { hook: hook.clone(), message: message.clone() },
            CallError::Fault { hook: hook.clone(), message },
            CallError::Died { hook: hook.clone(), program: program.clone(), failure },
            CallError::Protocol { hook: hook.clone(), program: program.clone(), seen },
            CallError::BadOutput { hook: hook.clone(), fault },
            CallError::Deadline { hook: hook.clone(), program: program.clone(), after, stderr },
            CallError::Stalled { hook: hook.clone(), program, after },
            CallError::Dropped { hook: hook.clone() },
            CallError::Busy { hook: hook.clone(), why: why.clone() },
            CallError::Unavailable { hook: hook.clone(), why },
            CallError::Cancelled { hook },
        ]
    }

    /// Whether a text is what a pattern with `…` for anything says.
    fn fits(pattern: &str, text: &str) -> bool {
        let mut pieces = pattern.split('…');
        let Some(mut rest) = text.strip_prefix(pieces.next().unwrap_or_default()) else {
            return false;
        };
        for piece in pieces {
            let Some(at) = rest.find(piece) else { return false };
            rest = &rest[at + piece.len()..];
        }
        pattern.ends_with('…') || rest.is_empty()
    }

    #[test]
    fn the_page_of_failures_has_every_error_with_its_status() {
        let page = include_str!("../../docs/failures.md");
        let rows: Vec<(&str, &str)> = page
            .lines()
            .filter_map(|line| {
                let mut cells = line.strip_prefix("| `")?.split("` | `");
                Some((cells.next()?, cells.next()?.split("` |").next()?))
            })
            .collect();
        let mut used = vec![false; rows.len()];
        for error in every_error() {
            let (text, code) = (error.to_string(), of(&error).code());
            let code = format!("{code:?}").to_uppercase();
            let mut fitting = rows
                .iter()
                .enumerate()
                .filter(|(_, (status, text_of))| {
                    status.replace('_', "") == code && fits(text_of, &text)
                })
                .peekable();
            assert!(fitting.peek().is_some(), "{code}: {text} is not in docs/failures.md");
            fitting.for_each(|(row, _)| used[row] = true);
        }
        let unused = rows.iter().zip(used).find(|(_, used)| !used);
        assert_eq!(unused, None, "docs/failures.md has a failure that there is not");
    }
}
