//! Output: messages to the shim, log lines, and stderr.

use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use serde_json::Value;

use crate::call::Level;
use crate::error::{clip, Failure};
use crate::frame;

/// The pipe to the shim. A lock keeps the messages of several threads apart.
pub(crate) struct Output {
    writer: Mutex<Box<dyn Write + Send>>,
    /// The first write error. After it, nothing more is written.
    fault: OnceLock<io::Error>,
}

impl Output {
    pub(crate) fn new(writer: impl Write + Send + 'static) -> Self {
        Self { writer: Mutex::new(Box::new(writer)), fault: OnceLock::new() }
    }

    /// Sends the result of a request. `result` is JSON text; `domain` is attached.
    pub(crate) fn result(&self, id: &Value, result: &str, domain: Option<&str>) {
        let attachments = domain.map_or("", |_| r#","attachments":["domain"]"#);
        let json = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}{attachments}}}"#);
        if json.len().max(domain.map_or(0, str::len)) > frame::MAX_FRAME_BYTES {
            return self.error(id, &Failure::TOO_LARGE);
        }
        self.send(&json, domain.map(str::as_bytes));
    }

    /// Sends an error response.
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

    /// Sends a line for the shim's log.
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

    /// Returns the first write error, if any.
    pub(crate) fn fault(&self) -> Option<&io::Error> {
        self.fault.get()
    }

    fn send(&self, json: &str, attached: Option<&[u8]>) {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if self.fault.get().is_some() {
            return; // the pipe may end in half a message
        }
        if let Err(error) = frame::write(&mut **writer, json, attached) {
            let _ = self.fault.set(error);
        }
    }
}

/// Formats a text as a JSON string.
pub(crate) fn quoted(text: &str) -> String {
    // `Display` of a `Value` is its JSON, and cannot fail.
    Value::from(text).to_string()
}

/// Prints a line to stderr. A write error is ignored: there is no other place to report it.
pub(crate) fn complain(message: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "{message}");
}

/// Destination of a call's log lines.
#[derive(Clone)]
pub(crate) enum Log {
    /// In argv style and in tests.
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::Call;

    /// Logs while it is logged.
    struct Chatty<'a>(&'a Call);

    impl fmt::Display for Chatty<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.log(Level::Debug, "formatted");
            f.write_str("value")
        }
    }

    struct Pipe(mpsc::Sender<Vec<u8>>);

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_value_may_log_while_it_is_logged() {
        let (sender, written) = mpsc::channel();
        let mut call = Call::new("onDefineDomain", json!({}));
        call.log = Log::Shim(Arc::new(Output::new(Pipe(sender))), json!(7));
        let logging = thread::spawn(move || call.log(Level::Info, Chatty(&call)));
        let limit = Duration::from_secs(60);
        let lines = [(); 2].map(|()| {
            let frame = written.recv_timeout(limit).expect("the lock is held while it formats");
            serde_json::from_slice::<Value>(&frame[4..]).unwrap()["params"]["message"].clone()
        });
        logging.join().unwrap();
        assert_eq!(lines, ["formatted", "value"]);
    }
}
