//! Messages of the worker protocol (`protocol.md`), to and from frames. No other module knows
//! JSON-RPC.

mod handshake;
mod read;
mod write;

use std::fmt;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::logging::HookFields;

pub use handshake::{Declared, NameAndVersion};
pub use read::{CallResult, MessageReader, read_result};
pub use write::{OutgoingCall, send_call, send_cancel, send_initialize, send_method_not_found};

/// The protocol version that this shim speaks, also the value of `KUBEVIRT_HOOK_PROTOCOL`.
pub const PROTOCOL_VERSION: &str = "1";

/// Maximum number of calls in flight in one worker, even if it declares more.
pub const MAX_CONCURRENCY: usize = 64;

/// Error code: the worker does not know the method.
pub const METHOD_NOT_FOUND: i64 = -32601;
const INVALID_PARAMS: i64 = -32602;
const HOOK_REFUSES: i64 = -32000;

/// Error code: the call was cancelled.
pub const CANCELLED: i64 = -32800;

/// A message from a worker, with its attachments.
#[derive(Debug)]
pub enum Incoming {
    Response {
        /// The request's id.
        id: u64,
        outcome: Outcome,
    },
    /// A line for the log.
    Log(LogLine),
    /// A request. Workers must not send any, so the reply is an error.
    Request {
        /// Its id, as JSON text.
        id: String,
    },
    /// An unknown notification.
    Ignored,
}

/// `$/log`.
#[derive(Debug, Deserialize)]
pub struct LogLine {
    /// `debug`, `info`, `warning` or `error`.
    #[serde(default)]
    pub level: String,
    pub message: String,
    /// The call that it belongs to.
    pub id: Option<u64>,
    #[serde(default, deserialize_with = "read::hook_fields")]
    pub fields: HookFields,
    /// Whether its parameters could not be read, which the message then says.
    #[serde(skip)]
    pub unreadable: bool,
}

/// What a response contains.
pub enum Outcome {
    /// `result`, with its attachments.
    Result(ResultParts),
    /// `error`.
    Error(ErrorObject),
}

/// A result that is not parsed yet. It contains a document, so it has no `Debug`.
pub struct ResultParts {
    json: Bytes,
    attached: Vec<(&'static str, Bytes)>,
}

impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Result(parts) => write!(f, "Result({} bytes)", parts.json.len()),
            Self::Error(error) => write!(f, "Error({})", error.code),
        }
    }
}

/// `error` of a response.
#[derive(Debug, Deserialize)]
pub struct ErrorObject {
    /// One of JSON-RPC's or of the worker protocol's.
    pub code: i64,
    /// The text for the VM's owner.
    #[serde(default)]
    pub message: String,
    data: Option<Box<RawValue>>,
}

/// The meaning of an error code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The worker does not know the method.
    MethodNotFound,
    /// The worker cannot use the parameters.
    InvalidParams,
    /// The hook rejects the VM, or failed and explains why.
    Refused,
    /// A fault in the worker's code, or an unknown code.
    Fault,
}

impl ErrorObject {
    /// Whether the worker reports that another one may succeed.
    #[must_use]
    pub fn retryable(&self) -> bool {
        #[derive(Deserialize)]
        struct Data {
            #[serde(default)]
            retryable: bool,
        }
        let data = self.data.as_ref().map(|data| data.get().as_bytes());
        data.is_some_and(|data| read::parse::<Data>(data, "data").is_ok_and(|data| data.retryable))
    }

    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self.code {
            METHOD_NOT_FOUND => ErrorKind::MethodNotFound,
            INVALID_PARAMS => ErrorKind::InvalidParams,
            HOOK_REFUSES => ErrorKind::Refused,
            _ => ErrorKind::Fault,
        }
    }
}

impl fmt::Display for ErrorObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.message.as_str() {
            "" => write!(f, "(error {} without a message)", self.code),
            message if self.kind() == ErrorKind::Fault => {
                write!(f, "{message} (error {})", self.code)
            }
            message => f.write_str(message),
        }
    }
}

/// A violation of the protocol in a message. The text contains nothing of a document.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(String);
