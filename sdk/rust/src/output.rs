//! Where messages and lines of the log go.

use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use serde_json::Value;

use crate::call::Level;
use crate::error::{clip, Failure};
use crate::frame;

/// The way to the shim. Messages of several threads do not mix.
pub(crate) struct Output {
    writer: Mutex<Box<dyn Write + Send>>,
    /// Why a message could not be written. Then nobody reads any more.
    fault: OnceLock<io::Error>,
}

impl Output {
    pub(crate) fn new(writer: impl Write + Send + 'static) -> Self {
        Self { writer: Mutex::new(Box::new(writer)), fault: OnceLock::new() }
    }

    /// Answers a request. `result` is JSON text; `domain` is attached.
    pub(crate) fn result(&self, id: &Value, result: &str, domain: Option<&str>) {
        let attachments = domain.map_or("", |_| r#","attachments":["domain"]"#);
        let json = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}{attachments}}}"#);
        if json.len().max(domain.map_or(0, str::len)) > frame::MAX_FRAME_BYTES {
            return self.error(id, &Failure::TOO_LARGE);
        }
        self.send(&json, domain.map(str::as_bytes));
    }

    /// Answers a request that failed.
    pub(crate) fn error(&self, id: &Value, failure: &Failure) {
        let Failure { code, message, data } = failure;
        let message = quoted(message);
        let data = data.map(|data| format!(r#","data":{data}"#)).unwrap_or_default();
        self.send(
            &format!(
                r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":{message}{data}}}}}"#
            ),
            None,
        );
    }

    /// A line for the shim's log.
    pub(crate) fn log(&self, level: Level, message: &str, id: Option<&Value>) {
        let (level, message) = (level.as_str(), quoted(clip(message)));
        let id = id.map(|id| format!(r#","id":{id}"#)).unwrap_or_default();
        self.send(
            &format!(
                r#"{{"jsonrpc":"2.0","method":"$/log","params":{{"level":"{level}","message":{message}{id}}}}}"#
            ),
            None,
        );
    }

    /// Why a message could not be written, if one could not.
    pub(crate) fn fault(&self) -> Option<&io::Error> {
        self.fault.get()
    }

    fn send(&self, json: &str, attached: Option<&[u8]>) {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if self.fault.get().is_some() {
            return; // half a message may stand there
        }
        if let Err(error) = frame::write(&mut **writer, json, attached) {
            let _ = self.fault.set(error);
        }
    }
}

/// A string of JSON.
pub(crate) fn quoted(text: &str) -> String {
    // `Display` of a `Value` is its JSON, and cannot fail.
    Value::from(text).to_string()
}

/// A line on standard error. If nobody reads that either, there is nothing left to do.
pub(crate) fn complain(message: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "{message}");
}

/// Where a call's lines go.
#[derive(Clone)]
pub(crate) enum Log {
    /// Without a shim.
    Stderr,
    /// To the shim, with the id of the call.
    Shim(Arc<Output>, Value),
}

impl Log {
    pub(crate) fn write(&self, level: Level, message: &str) {
        match self {
            Self::Stderr => {
                complain(format_args!("{}: {}", level.as_str().to_uppercase(), clip(message)));
            }
            Self::Shim(output, id) => output.log(level, message, Some(id)),
        }
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stderr => "Stderr",
            Self::Shim(..) => "Shim",
        })
    }
}
