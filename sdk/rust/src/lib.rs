#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod argv;
mod call;
pub mod cloud_init;
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

/// Result of a hook. An error that is neither a [`Refusal`] nor an [`InvalidParams`] counts as a
/// bug in the hook: the caller gets a generic message, and the error's text goes to stderr.
pub type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;
