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
        CallError::NotServed { .. } => Code::Unimplemented,
        CallError::Refused { .. } => Code::FailedPrecondition,
        CallError::Fault { .. }
        | CallError::Died { .. }
        | CallError::Protocol { .. }
        | CallError::BadOutput { .. } => Code::Internal,
        CallError::Deadline { .. } => Code::DeadlineExceeded,
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
}
