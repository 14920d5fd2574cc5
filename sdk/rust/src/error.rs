//! Errors: those that a hook returns, and the error responses that the shim gets.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;

/// The hook refuses the VM, or cannot do what the VM asks for. The VM's owner reads the message in
/// the VM's status: say what is wrong and what to do. Do not include documents or secrets.
///
/// ```
/// # use kubevirt_hook::{Refusal, Result};
/// fn order(annotation: &str) -> Result<u32> {
///     let why = format!("annotation boot-order: not a number: {annotation}");
///     Ok(annotation.parse().map_err(|_| Refusal::new(why))?)
/// }
/// # assert!(order("first").unwrap_err().is::<Refusal>());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    message: String,
    retryable: bool,
}

impl Refusal {
    /// Creates a refusal with a message for the VM's owner.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), retryable: false }
    }

    /// Marks the failure as one that another worker may not have: the shim retries the call once,
    /// if there is time left.
    #[must_use]
    pub fn retryable(mut self) -> Self {
        self.retryable = true;
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Refusal {}

/// The documents of a call are invalid. This is a fault of the caller, not of the VM or the hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidParams(String);

impl InvalidParams {
    /// Creates the error. The message names the document and the reason, and does not quote it.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for InvalidParams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for InvalidParams {}

/// The call was cancelled. See [`Cancellation::check`](crate::Cancellation::check).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cancelled;

impl fmt::Display for Cancelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the call was cancelled")
    }
}

impl Error for Cancelled {}

/// An error response that has not been written yet.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: i32,
    pub(crate) message: Cow<'static, str>,
    /// The error's `data`, as JSON text.
    pub(crate) data: Option<&'static str>,
}

impl Failure {
    const fn fixed(code: i32, message: &'static str) -> Self {
        Self { code, message: Cow::Borrowed(message), data: None }
    }

    pub(crate) const TOO_LARGE: Self = Self::fixed(-32000, "the result does not fit a frame");
    pub(crate) const UNKNOWN_METHOD: Self = Self::fixed(-32601, "unknown method");
    pub(crate) const NO_COMMON_VERSION: Self = Self {
        code: -32602,
        message: Cow::Borrowed("no common protocol version"),
        data: Some(r#"{"protocolVersions":[1]}"#),
    };
    /// The cause goes to stderr only: it was not written for the VM's owner and may quote a
    /// document.
    pub(crate) const FAULT: Self =
        Self::fixed(-32603, "a fault in the hook's code; its log has the trace");
    pub(crate) const CANCELLED: Self = Self::fixed(-32800, "the call was cancelled");

    pub(crate) const fn invalid_params(message: &'static str) -> Self {
        Self::fixed(-32602, message)
    }

    /// Converts the error that a hook returned.
    pub(crate) fn of_hook(error: &(dyn Error + 'static)) -> Self {
        if let Some(refusal) = error.downcast_ref::<Refusal>() {
            let message = Cow::Owned(clip(&refusal.message).to_owned());
            let data = refusal.retryable.then_some(r#"{"retryable":true}"#);
            Self { code: -32000, message, data }
        } else if let Some(InvalidParams(message)) = error.downcast_ref() {
            Self { code: -32602, message: Cow::Owned(clip(message).to_owned()), data: None }
        } else {
            Self::FAULT
        }
    }
}

/// The shim truncates log lines at this length, and error messages at half of it.
const MAX_TEXT_BYTES: usize = 8 * 1024;

/// Truncates a text to `MAX_TEXT_BYTES`, at a character boundary.
pub(crate) fn clip(text: &str) -> &str {
    let mut end = text.len().min(MAX_TEXT_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(clip("short"), "short");
        let long = "é".repeat(MAX_TEXT_BYTES);
        assert_eq!(clip(&long).len(), MAX_TEXT_BYTES);
        assert_eq!(clip(&long[2..]).len(), MAX_TEXT_BYTES);
        assert_eq!(clip(&format!("a{long}")).len(), MAX_TEXT_BYTES - 1);
    }

    #[test]
    fn the_text_of_an_arbitrary_error_is_kept_from_the_owner() {
        let failure = Failure::of_hook(&std::io::Error::other("secret"));
        assert_eq!((failure.code, &failure.message), (-32603, &Failure::FAULT.message));
        assert!(!failure.message.contains("secret"));
    }
}
