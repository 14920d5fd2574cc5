//! Errors of calls as gRPC statuses: the code, and a text that every client can take.

use tonic::{Code, Status};

use crate::error::CallError;
use crate::text::fit;

/// The longest text, counted as it is sent. Clients drop the whole status if its headers are
/// longer than 8 to 16 KiB, and with it every word of explanation.
const MAX_ENCODED_BYTES: usize = 4 * 1024;

/// The status for an error.
pub(super) fn of(error: &CallError) -> Status {
    let code = match error {
        CallError::BadRequest(_) | CallError::BadParams { .. } => Code::InvalidArgument,
        CallError::TooLarge { .. } | CallError::Busy { .. } => Code::ResourceExhausted,
        CallError::NotServed { .. } | CallError::NoSuchHook { .. } => Code::Unimplemented,
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
    Status::new(code, fit(&error.to_string(), MAX_ENCODED_BYTES, encoded_len))
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
    use crate::hook::HookName;

    #[test]
    fn a_long_text_fits_as_it_is_sent() {
        let line = "é % \u{7f} of a stack trace\n".repeat(4000);
        let error = CallError::Fault { hook: HookName::ON_DEFINE_DOMAIN, message: line };
        let status = of(&error);
        let bytes = encoded_len(status.message());
        assert!((MAX_ENCODED_BYTES * 9 / 10..=MAX_ENCODED_BYTES).contains(&bytes), "{bytes}");
        assert!(status.message().starts_with("hook onDefineDomain failed: é"), "{status:?}");
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
            CallError::NoSuchHook { point: "../sh".to_owned() },
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
