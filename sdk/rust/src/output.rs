//! Output: messages to the shim, log lines, and stderr.

use std::env;
use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use serde_json::Value;

use crate::error::{clip, Failure, MAX_TEXT_BYTES};
use crate::frame;
use crate::level::{is_logged, Level};

/// Names and values that a log line has beside its text.
pub(crate) type Fields = Vec<(String, Value)>;

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
    pub(crate) fn log(&self, level: Level, message: &str, id: Option<&Value>, fields: &Fields) {
        let message = quoted(clip(message, MAX_TEXT_BYTES));
        let mut json = format!(
            r#"{{"jsonrpc":"2.0","method":"$/log","params":{{"level":"{}","message":{message}"#,
            level.as_str()
        );
        if let Some(id) = id {
            let _ = write!(json, r#","id":{id}"#);
        }
        for (number, (name, value)) in fields.iter().enumerate() {
            let start = if number == 0 { r#","fields":{"# } else { "," };
            let _ = write!(json, "{start}{}:{value}", quoted(name));
        }
        json.push_str(if fields.is_empty() { "}}" } else { "}}}" });
        self.send(&json, None);
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

/// Set to `1` if the shim reads levels at the beginning of lines on stderr.
const LEVELS: &str = "SIDECAR_SHIM_STDERR_LEVELS";

/// Prints a line to stderr. A write error is ignored: there is no other place to report it.
pub(crate) fn complain(message: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "{message}");
}

/// A line as a test sees it.
type Captured = (Level, String);

/// Destination of a call's log lines.
#[derive(Clone)]
pub(crate) enum Log {
    /// In argv style.
    Stderr,
    /// To the shim, with the id of the call.
    Shim(Arc<Output>, Value),
    /// In tests of hooks.
    Memory(Arc<Mutex<Vec<Captured>>>),
}

impl Log {
    /// Whether lines of a level are logged.
    pub(crate) fn takes(&self, level: Level) -> bool {
        matches!(self, Self::Memory(_)) || is_logged(level)
    }

    pub(crate) fn write(&self, level: Level, message: &str) {
        self.write_fields(level, message, &Fields::new());
    }

    pub(crate) fn write_fields(&self, level: Level, message: &str, fields: &Fields) {
        match self {
            Self::Memory(lines) => {
                let line = (level, with_fields(message, fields));
                lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
            _ if !is_logged(level) => {}
            Self::Stderr => on_stderr(level, message, fields),
            Self::Shim(output, id) => output.log(level, message, Some(id), fields),
        }
    }

    /// Returns the lines of a test.
    pub(crate) fn captured(&self) -> Vec<Captured> {
        match self {
            Self::Memory(lines) => lines.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            _ => Vec::new(),
        }
    }
}

/// Prints a log line to stderr, with its level as the shim reads it, or else as people do.
pub(crate) fn on_stderr(level: Level, message: &str, fields: &Fields) {
    static HAS_LEVELS: OnceLock<bool> = OnceLock::new();
    let text = with_fields(clip(message, MAX_TEXT_BYTES), fields);
    let text = text.trim_end_matches('\n');
    if !*HAS_LEVELS.get_or_init(|| env::var_os(LEVELS).is_some_and(|value| value == "1")) {
        return complain(format_args!("{}: {text}", level.as_str().to_uppercase()));
    }
    let mut lines = String::with_capacity(text.len() + 8);
    for line in text.split('\n') {
        let _ = writeln!(lines, "<{}>{line}", level.syslog());
    }
    let _ = io::stderr().write_all(lines.as_bytes());
}

fn with_fields(message: &str, fields: &Fields) -> String {
    let mut text = message.to_owned();
    for (name, value) in fields {
        let _ = match value {
            Value::String(value) => write!(text, " {name}={value}"),
            value => write!(text, " {name}={value}"),
        };
    }
    text
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stderr => "Stderr",
            Self::Shim(..) => "Shim",
            Self::Memory(_) => "Memory",
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
            self.0.log(Level::Warning, "formatted");
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
        let mut call = Call::builder(json!({})).build();
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
