//! Messages of the worker protocol, to and from frames. This is the one room that knows JSON-RPC;
//! `protocol.md` is what it implements.

mod handshake;
mod read;
mod write;

use std::fmt;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

pub use handshake::Declared;
pub use read::{CallResult, MessageReader, read_result};
pub use write::{OutgoingCall, send_call, send_cancel, send_initialize, send_method_not_found};

/// The protocol version that this shim speaks, as `KUBEVIRT_HOOK_PROTOCOL` has it too.
pub const PROTOCOL_VERSION: &str = "1";

/// More calls at once than this are never sent to one worker, whatever it declares.
pub const MAX_CONCURRENCY: usize = 64;

/// The error code for a method that a worker does not know.
pub const METHOD_NOT_FOUND: i64 = -32601;
const INVALID_PARAMS: i64 = -32602;
const HOOK_REFUSES: i64 = -32000;

/// The error code for a call that was cancelled.
pub const CANCELLED: i64 = -32800;

/// What a worker sent, read to the end of the message, its attachments included.
#[derive(Debug)]
pub enum Incoming {
    /// The answer to a request of ours.
    Response {
        /// The request's id.
        id: u64,
        /// The answer.
        outcome: Outcome,
    },
    /// A line for the log.
    Log(LogLine),
    /// A request. There are none that a worker may send, so it is owed an error.
    Request {
        /// Its id, as JSON text.
        id: String,
    },
    /// A notification that means nothing here.
    Ignored,
}

/// `$/log`.
#[derive(Debug, Deserialize)]
pub struct LogLine {
    /// `debug`, `info`, `warning` or `error`.
    #[serde(default)]
    pub level: String,
    /// The text.
    pub message: String,
    /// The call that it belongs to.
    pub id: Option<u64>,
    /// Whether it came as something that cannot be read, which the text then says.
    #[serde(skip)]
    pub unreadable: bool,
}

/// The two kinds of answer.
pub enum Outcome {
    /// `result`, with the values that were attached to it.
    Result(ResultParts),
    /// `error`.
    Error(ErrorObject),
}

/// A result as it came. It holds a document, so it has no `Debug` of its own.
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
    /// What kind of error, by JSON-RPC's and the protocol's numbers.
    pub code: i64,
    /// Words for the VM's owner.
    #[serde(default)]
    pub message: String,
    data: Option<Box<RawValue>>,
}

/// What an error code means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The worker does not know the method.
    MethodNotFound,
    /// The params cannot be used.
    InvalidParams,
    /// The hook refuses or failed, and says why.
    Refused,
    /// A fault of the worker's code, or a number that means nothing here.
    Fault,
}

impl ErrorObject {
    /// Whether the worker says that another one may succeed.
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

    /// What the code means.
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

/// A message that breaks the rules. The text never holds anything of a document.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(String);
