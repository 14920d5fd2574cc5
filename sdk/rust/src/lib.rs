#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod argv;
mod call;
mod error;
mod frame;
mod hook;
#[cfg(feature = "log")]
mod logger;
mod message;
mod output;
mod serve;
mod stdio;
mod steps;
mod worker;
#[cfg(feature = "xml")]
pub mod xml;

pub use call::{Call, Cancellation, Level};
pub use error::{Cancelled, InvalidParams, Refusal};
pub use serde_json;
pub use worker::Worker;

/// What a hook returns. Any error that is neither a [`Refusal`] nor [`InvalidParams`] is a fault of
/// the hook: the caller is told that there was one, and standard error has its text.
pub type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;
