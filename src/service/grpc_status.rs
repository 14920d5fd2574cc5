//! Errors of calls as gRPC statuses: the code, and a text that every client accepts.

use tonic::{Code, Status};

use crate::error::{CallError, HookFailure, RequestFault};
use crate::text::{escape, fit};

/// Maximum length of the text as it is sent, in which most bytes take three: 6 KiB for the hook's
/// own text, at least 2,000 characters of ASCII or 680 of Chinese, and some for the words around
/// it. Clients whose limit for headers (8 to 16 KiB) is exceeded drop the whole status, and the
/// explanation with it.
const MAX_ENCODED_BYTES: usize = 6 * 1024 + 256;

/// Returns the status for an error.
pub(super) fn of(error: &CallError) -> Status {
    // The ends of lines stay: the last lines of a hook's stderr are read as lines.
    Status::new(code_of(error), fit(&escape(&error.to_string()), MAX_ENCODED_BYTES, encoded_len))
}

/// Returns the code for an error.
pub(super) fn code_of(error: &CallError) -> Code {
    match error {
        CallError::BadRequest(_) => Code::InvalidArgument,
        CallError::NoSuchHook { .. } => Code::Unimplemented,
        CallError::Request(fault) => code_of_request(fault),
        CallError::Hook { failure, .. } => code_of_hook(failure),
    }
}

/// Returns a code's name as gRPC spells it.
pub(super) fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

fn code_of_request(fault: &RequestFault) -> Code {
    match fault {
        RequestFault::NotGrpc { .. }
        | RequestFault::BadPrefix { .. }
        | RequestFault::NoMessage
        | RequestFault::SecondMessage
        | RequestFault::Torn { .. }
        | RequestFault::NotDecoded(_) => Code::InvalidArgument,
        RequestFault::UnknownMethod { .. }
        | RequestFault::UnknownPluginMethod { .. }
        | RequestFault::Compressed => Code::Unimplemented,
        RequestFault::UnknownService(_) => Code::NotFound,
        RequestFault::TooLarge { .. }
        | RequestFault::TooLargeForArguments { .. }
        | RequestFault::OverBudget { .. }
        | RequestFault::NoMemory { .. }
        | RequestFault::NoMemoryForReply { .. }
        | RequestFault::TooSlow => Code::ResourceExhausted,
        RequestFault::NotReceived { .. } => Code::DeadlineExceeded,
        RequestFault::ShuttingDown | RequestFault::WatchEnded => Code::Unavailable,
        RequestFault::ClientLeft(_) => Code::Cancelled,
    }
}

fn code_of_hook(failure: &HookFailure) -> Code {
    match failure {
        HookFailure::BadParams(_) => Code::InvalidArgument,
        HookFailure::TooLarge(_) | HookFailure::Busy(_) => Code::ResourceExhausted,
        HookFailure::NotServed(_) => Code::Unimplemented,
        HookFailure::Refused(_) => Code::FailedPrecondition,
        HookFailure::Fault(_)
        | HookFailure::Died { .. }
        | HookFailure::Protocol { .. }
        | HookFailure::Dropped
        | HookFailure::BadOutput(_) => Code::Internal,
        HookFailure::Deadline { .. } | HookFailure::Stalled { .. } | HookFailure::NoTime => {
            Code::DeadlineExceeded
        }
        HookFailure::Cancelled => Code::Cancelled,
        HookFailure::Unavailable(_) => Code::Unavailable,
    }
}

/// Returns an upper bound of the bytes on the wire: what is neither a letter, a digit nor plain
/// punctuation is sent as `%` and two digits.
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
        let error = HookFailure::Fault(line).of(&HookName::ON_DEFINE_DOMAIN);
        let status = of(&error);
        let bytes = encoded_len(status.message());
        assert!((MAX_ENCODED_BYTES * 9 / 10..=MAX_ENCODED_BYTES).contains(&bytes), "{bytes}");
        assert!(status.message().starts_with("hook onDefineDomain failed: é"), "{status:?}");
    }

    #[test]
    fn a_hooks_text_of_the_documented_length_is_not_cut() {
        for (text, hook) in [
            (" ".repeat(2000), HookName::PRE_CLOUD_INIT_ISO),
            ("磁".repeat(680), HookName::ON_DEFINE_DOMAIN),
        ] {
            let text = format!("{text}.");
            for failure in [HookFailure::Refused(text.clone()), HookFailure::Fault(text.clone())] {
                assert!(of(&failure.of(&hook)).message().ends_with(&text));
            }
        }
    }

    #[test]
    fn control_characters_of_a_hook_are_escaped_and_lines_stay() {
        let text = "no\u{1b}[2J\u{9b}\u{7f}\rway\nsecond line\u{202e}\u{2028}";
        let status = of(&HookFailure::Refused(text.to_owned()).of(&HookName::ON_DEFINE_DOMAIN));
        assert_eq!(
            status.message(),
            "hook onDefineDomain refused: no\\u{1b}[2J\\u{9b}\\u{7f}\\rway\nsecond \
             line\\u{202e}\\u{2028}"
        );
        let long = of(&HookFailure::Fault("\u{1b}".repeat(10_000)).of(&HookName::ON_DEFINE_DOMAIN));
        assert!(encoded_len(long.message()) <= MAX_ENCODED_BYTES);
        assert!(!long.message().contains('\u{1b}'), "{long:?}");
    }

    /// Returns one error of every kind.
    fn every_error() -> Vec<CallError> {
        use std::time::Duration;

        use crate::error::{LastLines, Termination};
        use crate::hook::BadDocument;

        let text = || "words".to_owned();
        let program = || "worker.py".to_owned();
        let stderr = LastLines::Unattributed;
        let termination = Termination {
            how: "exited with status 1".to_owned(),
            stdout: None,
            stderr: stderr.clone(),
        };
        let after = Duration::from_secs(1);
        let of_hooks = [
            HookFailure::TooLarge(text()),
            HookFailure::NotServed(text()),
            HookFailure::Refused(text()),
            HookFailure::BadParams(text()),
            HookFailure::Fault(text()),
            HookFailure::Died { program: program(), termination },
            HookFailure::Protocol { program: program(), seen: text() },
            HookFailure::BadOutput(text()),
            HookFailure::Deadline { program: program(), after, stdout: None, stderr },
            HookFailure::Stalled { program: program(), after },
            HookFailure::NoTime,
            HookFailure::Dropped,
            HookFailure::Busy(text()),
            HookFailure::Unavailable(text()),
            HookFailure::Cancelled,
        ];
        let mut errors = vec![
            CallError::BadRequest(BadDocument::new("vmi", "is empty".to_owned())),
            CallError::NoSuchHook { point: "../sh".to_owned() },
        ];
        let (bytes, max, budget) = (9, 8, 7);
        let of_requests = [
            RequestFault::NotGrpc { method: text(), content_type: text() },
            RequestFault::UnknownMethod { method: text(), served: text() },
            RequestFault::UnknownPluginMethod { method: text(), served: text() },
            RequestFault::UnknownService(text()),
            RequestFault::Compressed,
            RequestFault::BadPrefix { byte: 80 },
            RequestFault::NoMessage,
            RequestFault::SecondMessage,
            RequestFault::Torn { have: 1, want: 2 },
            RequestFault::NotDecoded(text()),
            RequestFault::TooLarge { bytes, max },
            RequestFault::TooLargeForArguments { bytes, max },
            RequestFault::OverBudget { bytes, budget },
            RequestFault::NoMemory { bytes, budget },
            RequestFault::NoMemoryForReply { bytes, budget },
            RequestFault::ShuttingDown,
            RequestFault::WatchEnded,
            RequestFault::TooSlow,
            RequestFault::NotReceived { after },
            RequestFault::ClientLeft(text()),
        ];
        errors.extend(of_requests.map(CallError::from));
        errors.extend(of_hooks.map(|failure| failure.of(&HookName::ON_DEFINE_DOMAIN)));
        errors
    }

    /// Whether a text matches a pattern in which `…` stands for anything.
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
        assert_eq!(unused, None, "docs/failures.md lists a failure that does not exist");
    }
}
