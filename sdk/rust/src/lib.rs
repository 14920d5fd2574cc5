#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod argv;
mod call;
mod cancellation;
pub mod cloud_init;
mod current;
mod error;
mod fault;
mod frame;
mod hook;
mod level;
#[cfg(feature = "log")]
mod logger;
mod message;
mod output;
mod serve;
mod stdio;
mod steps;
#[cfg(feature = "xml")]
pub mod testing;
mod vmi;
mod worker;
#[cfg(feature = "xml")]
pub mod xml;

pub use call::{Call, CallBuilder, Context};
pub use cancellation::Cancellation;
pub use error::{Cancelled, InvalidParams, Refused};
pub use fault::Error;
pub use level::Level;
pub use serde_json;
pub use vmi::Vmi;
pub use worker::Worker;

/// Result of a hook. An error that is neither a [`Refused`] nor an [`InvalidParams`] counts as a
/// bug in the hook: the caller gets a generic message, and the log the error's type and place.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Returns whether a text has neither control characters, most of which XML cannot represent even
/// escaped, nor Unicode noncharacters.
#[must_use]
pub fn is_plain(text: &str) -> bool {
    !text.contains(|c: char| {
        c.is_control() || matches!(c, '\u{fdd0}'..='\u{fdef}') || u32::from(c) & 0xfffe == 0xfffe
    })
}

#[cfg(test)]
mod tests {
    use super::is_plain;

    #[test]
    fn plain_text_has_no_control_characters() {
        assert!(is_plain("") && is_plain("Größe <&> 漢字 😀"));
        for text in ["a\n", "\0", "\u{85}", "\u{fdd0}", "\u{ffff}", "\u{1fffe}"] {
            assert!(!is_plain(text), "{text:?}");
        }
    }
}
