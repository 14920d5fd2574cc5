//! What a hook says of a call that it does not do, and the error responses that the shim gets.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use crate::fault::{Error, Verdict};

/// The hook refuses the VM, or cannot do what the VM asks for. The VM's owner reads the message in
/// the VM's status: say what is wrong and what to do. Do not include documents or secrets.
///
/// It is found wherever it is: as the error itself, as the source of another error, and, with the
/// feature `anyhow`, inside of an `anyhow::Error`. The macros [`refuse!`](crate::refuse) and
/// [`ensure!`](crate::ensure) return it.
///
/// ```
/// # use kubevirt_hook::{Refused, Result};
/// fn order(annotation: &str) -> Result<u32> {
///     let why = "annotation boot-order: not a number";
///     Ok(annotation.parse().map_err(|error| Refused::new(why).caused_by(error))?)
/// }
/// assert_eq!(order("first").unwrap_err().refused().unwrap().to_string(),
///     "annotation boot-order: not a number");
/// ```
#[derive(Debug, Clone)]
pub struct Refused {
    message: String,
    retryable: bool,
    cause: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Refused {
    /// Creates a refusal with a message for the VM's owner.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), retryable: false, cause: None }
    }

    /// Marks the failure as one that another worker may not have: the shim retries the call once,
    /// if there is time left.
    #[must_use]
    pub fn retryable(mut self) -> Self {
        self.retryable = true;
        self
    }

    /// Adds the error that is behind it, for the log.
    #[must_use]
    pub fn caused_by(mut self, error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.cause = Some(Arc::from(error.into()));
        self
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Refused {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&**self.cause.as_ref()?)
    }
}

/// Refuses the VM: returns a [`Refused`] with this message, formatted like `format!`.
///
/// ```
/// # use kubevirt_hook::{refuse, Call, Result};
/// fn pre_vm_start(_: &Call, node: &str) -> Result<()> {
///     refuse!("node {node} is in maintenance: wait, or choose another one");
/// }
/// # let call = Call::builder(serde_json::json!({})).build();
/// # assert!(pre_vm_start(&call, "a").unwrap_err().refused().unwrap().to_string().contains(" a "));
/// ```
#[macro_export]
macro_rules! refuse {
    ($($message:tt)+) => {
        return ::core::result::Result::Err(
            $crate::Refused::new(::std::format!($($message)+)).into(),
        )
    };
}

/// Refuses the VM with this message, unless the condition holds.
///
/// ```
/// # use kubevirt_hook::{ensure, Call, Result};
/// fn on_define_domain(call: &Call, _: &str) -> Result<Option<String>> {
///     let memory = call.vmi().at("spec.domain.memory.hugepages");
///     ensure!(memory.is_some(), "DPDK needs spec.domain.memory.hugepages");
///     Ok(None)
/// }
/// # let call = Call::builder(serde_json::json!({})).build();
/// # assert!(on_define_domain(&call, "").unwrap_err().refused().is_some());
/// ```
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            $crate::refuse!($($message)+)
        }
    };
}

/// The documents of a call are invalid. This is a fault of the caller, not of the VM or the hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidParams(pub(crate) String);

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

impl StdError for InvalidParams {}

/// The call was cancelled. See [`Cancellation::check`](crate::Cancellation::check).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cancelled;

impl fmt::Display for Cancelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the call was cancelled")
    }
}

impl StdError for Cancelled {}

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
    /// The cause goes to the log only: it was not written for the VM's owner and may quote a
    /// document.
    pub(crate) const FAULT: Self =
        Self::fixed(-32603, "a fault in the hook's code; its log has the trace");
    pub(crate) const CANCELLED: Self = Self::fixed(-32800, "the call was cancelled");

    pub(crate) const fn invalid_params(message: &'static str) -> Self {
        Self::fixed(-32602, message)
    }

    /// Converts the error that a hook returned.
    pub(crate) fn of_hook(error: &Error) -> Self {
        match error.verdict() {
            Verdict::Refused(refused) => Self {
                code: -32000,
                message: match clip(&refused.message, MAX_TEXT_BYTES) {
                    "" => Cow::Borrowed("the hook refuses, and gives no reason"),
                    message => Cow::Owned(message.to_owned()),
                },
                data: refused.retryable.then_some(r#"{"retryable":true}"#),
            },
            Verdict::InvalidParams(InvalidParams(message)) => {
                let message = Cow::Owned(clip(message, MAX_TEXT_BYTES).to_owned());
                Self { code: -32602, message, data: None }
            }
            Verdict::Fault => Self::FAULT,
        }
    }
}

/// The shim truncates log lines at this length, and error messages at half of it.
pub(crate) const MAX_TEXT_BYTES: usize = 8 * 1024;

/// Truncates a text, at a character boundary.
pub(crate) fn clip(text: &str, bytes: usize) -> &str {
    let mut end = text.len().min(bytes);
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
        let clip = |text| clip(text, MAX_TEXT_BYTES).to_owned();
        assert_eq!(clip("short"), "short");
        let long = "é".repeat(MAX_TEXT_BYTES);
        assert_eq!(clip(&long).len(), MAX_TEXT_BYTES);
        assert_eq!(clip(&long[2..]).len(), MAX_TEXT_BYTES);
        assert_eq!(clip(&format!("a{long}")).len(), MAX_TEXT_BYTES - 1);
    }

    #[test]
    fn the_text_of_an_arbitrary_error_is_kept_from_the_owner() {
        let failure = Failure::of_hook(&std::io::Error::other("secret").into());
        assert_eq!((failure.code, &failure.message), (-32603, &Failure::FAULT.message));
        assert!(!failure.message.contains("secret"));
    }
}
