//! Log lines on stderr, in the format of KubeVirt's components.
//!
//! Nothing on the shim's one thread may block. While the log's reader stalls, lines wait in a
//! bounded queue. Further ones are dropped, and the next line that is written reports how many.
//!
//! Texts of hooks are escaped here ([`crate::text`]), in JSON as well: what prints a field of the
//! log to a terminal does not escape it again.

mod hooks;
mod http2;
mod seldom;
mod span;
mod stderr;

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::panic::Location;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use serde::Serializer as _;
use serde::ser::SerializeMap as _;
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

pub use self::hooks::{HookFields, HookLine, least_hook_level, logs_hook_lines};
pub use self::seldom::Seldom;
pub use self::span::{call_span, describe_call};
use self::stderr::Stderr;
use crate::text::{MAX_LINE_BYTES, clip, escape, escape_line};

/// `component` of every line; the Go shim's is the same.
const COMPONENT: &str = "shim-sidecar";

/// Maximum length of a message as it is written; longer ones are cut. An error has at most twenty
/// lines of 1 KiB, and its hook's command.
const MAX_MESSAGE_BYTES: usize = 3 * MAX_LINE_BYTES;

/// Maximum length of any other field: the longest is a hook's command.
const MAX_FIELD_BYTES: usize = 4 * 1024;

/// Fields whose texts are JSON, and are logged as the values that they stand for. (Events have no
/// such fields.)
const JSON_FIELDS: [&str; 5] = ["fields", "workers", "programs", "limits", "changes"];

/// Initial capacity for a line: most are shorter.
const LINE_CAPACITY: usize = 256;

/// Format of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One JSON object.
    Json,
    /// For people.
    Text,
}

/// Most verbose level that is logged, for each origin of a line.
#[derive(Debug, Clone, Copy)]
pub struct Verbosity {
    /// The shim itself.
    pub shim: Level,
    /// What hooks write.
    pub hooks: Level,
    /// The outcomes of calls; `None` where the program reports them in another way.
    pub calls: Option<Level>,
}

/// Writes the lines that are still waiting when it is dropped, and says how many were dropped.
pub struct Log(Stderr);

impl Log {
    /// Returns a task that batches the lines of its thread. Without it each line is written at
    /// once.
    pub fn writer(&self) -> impl Future<Output = ()> + use<> {
        self.0.clone().batch()
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.0.finish();
        if self.0.dropped() > 0 {
            // This line names their number.
            tracing::warn!("these lines were dropped because the log was not read fast enough");
            self.0.finish();
        }
    }
}

#[must_use]
pub fn start(format: Format, verbosity: Verbosity) -> Log {
    let stderr = Stderr::default();
    let log = Log(stderr.clone());
    let lines = LogLayer { format, stderr, refusals: Mutex::default() };
    // Of what libraries log, only errors concern an administrator.
    let filter = Targets::new()
        .with_default(LevelFilter::ERROR)
        .with_target("sidecar_shim", verbosity.shim)
        .with_target(http2::TARGET, Level::DEBUG)
        .with_target("hook", verbosity.hooks)
        .with_target("call", verbosity.calls.map_or(LevelFilter::OFF, LevelFilter::from_level));
    // An error means that a logger is set already, which does as well.
    let _ = tracing_subscriber::registry().with(lines.with_filter(filter)).try_init();
    // A panic's message may contain a piece of a document, so only its place is logged.
    std::panic::set_hook(Box::new(|panic| tracing::error!("{}", describe(panic.location()))));
    log
}

/// Writes an error as one line of the log. It needs no running log, so that a program whose start
/// fails reports it in the form of its other lines.
#[track_caller]
pub fn print_error(format: Format, message: String) {
    let here = Location::caller();
    let mut fields = Fields { message, others: Vec::new() };
    fields.make_harmless(format);
    let (file, row) = (here.file(), here.line());
    let origin = Origin { level: Level::ERROR, file, row, is_hooks: false };
    print(&line_of(format, &origin, &fields));
}

/// Writes a text to stderr as the log is written: it waits for a stalled reader for a second.
pub fn print(text: &[u8]) {
    let stderr = Stderr::default();
    stderr.write(text, 0, true);
    stderr.finish();
}

/// Returns the log's message for a panic.
fn describe(panic_at: Option<&Location<'_>>) -> String {
    let place = panic_at.map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
    format!("internal error (panic) at {place}; please report it")
}

/// Where a line comes from.
struct Origin<'a> {
    level: Level,
    file: &'a str,
    row: u32,
    /// Whether a hook wrote it.
    is_hooks: bool,
}

/// Formats events as lines.
struct LogLayer {
    format: Format,
    stderr: Stderr,
    /// Requests that the HTTP/2 library refused.
    refusals: Mutex<Seldom>,
}

impl LogLayer {
    /// Makes a warning of the HTTP/2 library's line if a request was refused.
    fn take_refusal(&self, fields: &mut Fields) -> Option<Origin<'static>> {
        let message = http2::refusal(&fields.message)?;
        let suppressed = self.refusals.lock().unwrap_or_else(PoisonError::into_inner).count()?;
        *fields = Fields { message, others: vec![("suppressed", suppressed.into())] };
        Some(Origin { level: Level::WARN, file: file!(), row: line!(), is_hooks: false })
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for LogLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        fields.make_harmless(self.format);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, record: &Record<'_>, context: Context<'_, S>) {
        let mut more = Fields::default();
        record.record(&mut more);
        more.make_harmless(self.format);
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            fields.others.append(&mut more.others);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        let origin = if metadata.target() == http2::TARGET {
            let Some(origin) = self.take_refusal(&mut fields) else { return };
            origin
        } else {
            let (file, row) = (metadata.file().unwrap_or("?"), metadata.line().unwrap_or(0));
            let is_hooks = metadata.target() == "hook";
            Origin { level: *metadata.level(), file, row, is_hooks }
        };
        fields.make_harmless(self.format);
        if let Some(span) = context.event_span(event)
            && let Some(of_span) = span.extensions().get::<Fields>()
        {
            fields.others.splice(0..0, of_span.others.iter().cloned());
        }
        let dropped = self.stderr.dropped();
        if dropped > 0 {
            fields.others.push(("dropped_lines", dropped.into()));
        }
        let line = line_of(self.format, &origin, &fields);
        self.stderr.write(&line, dropped, origin.level <= Level::WARN);
    }
}

fn line_of(format: Format, origin: &Origin<'_>, fields: &Fields) -> Vec<u8> {
    match format {
        Format::Json => json_line(origin, fields),
        Format::Text => text_line(origin, fields).into_bytes(),
    }
}

/// Writes the fields of KubeVirt's components first.
fn json_line(origin: &Origin<'_>, fields: &Fields) -> Vec<u8> {
    let Origin { level, file, row, .. } = origin;
    let mut line = Vec::with_capacity(LINE_CAPACITY);
    let mut write = || {
        let mut json = serde_json::Serializer::new(&mut line);
        let mut object = json.serialize_map(None)?;
        object.serialize_entry("component", COMPONENT)?;
        object.serialize_entry("level", level_name(*level))?;
        object.serialize_entry("msg", &fields.message)?;
        object.serialize_entry("pos", &format_args!("{file}:{row}"))?;
        object.serialize_entry("timestamp", &format_args!("{}", timestamp()))?;
        for (name, value) in &fields.others {
            object.serialize_entry(name, value)?;
        }
        object.end()
    };
    // Cannot fail: it writes to memory, and keys are strings.
    let _: serde_json::Result<()> = write();
    line.push(b'\n');
    line
}

fn text_line(origin: &Origin<'_>, fields: &Fields) -> String {
    let mut line = format!("{} {:<7} ", timestamp(), level_name(origin.level));
    let text = |name| {
        let found = fields.others.iter().find(|(field, _)| *field == name);
        found.and_then(|(_, value)| value.as_str())
    };
    if let Some(hook) = text("hook") {
        line.push_str(hook);
        if let Some(name) = text("name") {
            let _ = write!(line, " {}/{name}", text("namespace").unwrap_or_default());
        }
        line.push_str(": ");
    }
    line.push_str(&fields.message);
    // The first are in the prefix, those of a VM say no more to people, and the reader of text has
    // typed the worker's command.
    let left_out = |name: &str| {
        ["hook", "namespace", "name", "kind", "uid"].contains(&name)
            || (name == "worker" && origin.is_hooks)
    };
    for (name, value) in fields.others.iter().filter(|(name, _)| !left_out(name)) {
        match value {
            Value::Object(of_hook) => {
                for (name, value) in of_hook {
                    let _ = write!(line, " {name}={value}");
                }
            }
            value => drop(write!(line, " {name}={value}")),
        }
    }
    line.push('\n');
    line
}

fn timestamp() -> impl fmt::Display {
    humantime::format_rfc3339_micros(SystemTime::now())
}

/// Returns a level's name in the log and in the worker protocol.
#[must_use]
pub fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warning",
        Level::INFO => "info",
        _ => "debug",
    }
}

/// The fields of an event.
#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, Value)>,
}

impl Fields {
    /// Escapes texts, and cuts them to their maximum length. In JSON a message may have several
    /// lines.
    fn make_harmless(&mut self, format: Format) {
        let of_message: Escape = match format {
            Format::Json => escape,
            Format::Text => escape_line,
        };
        make_harmless(&mut self.message, of_message, MAX_MESSAGE_BYTES);
        self.others.iter_mut().for_each(|(_, value)| make_value_harmless(value));
    }

    fn insert(&mut self, field: &Field, value: impl Into<Value>) {
        self.others.push((field.name(), value.into()));
    }
}

/// Does the same with the texts in a value. The names of its fields are the shim's own, or were
/// made harmless already.
fn make_value_harmless(value: &mut Value) {
    match value {
        Value::String(text) => make_harmless(text, escape_line, MAX_FIELD_BYTES),
        Value::Array(values) => values.iter_mut().for_each(make_value_harmless),
        Value::Object(values) => values.values_mut().for_each(make_value_harmless),
        _ => {}
    }
}

type Escape = fn(&str) -> Cow<'_, str>;

/// Escapes a text in place, and cuts it. Most texts stay as they are.
fn make_harmless(text: &mut String, escape: Escape, limit: usize) {
    if let Cow::Owned(escaped) = escape(text) {
        *text = escaped;
    }
    text.truncate(clip(text, limit).len());
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else if JSON_FIELDS.contains(&field.name()) {
            self.insert(
                field,
                serde_json::from_str::<Value>(&format!("{value:?}")).unwrap_or_default(),
            );
        } else {
            self.insert(field, format!("{value:?}"));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.insert(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.insert(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.insert(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.insert(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.insert(field, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_field_holds_a_control_character_or_is_longer_than_allowed() {
        let hostile = "a\nb\u{1b}[2J\u{9b}\u{7f}\u{2028}\u{202e}";
        for (format, newline) in [(Format::Json, "\n"), (Format::Text, "\\n")] {
            let mut fields = Fields {
                message: hostile.to_owned(),
                others: vec![("worker", hostile.into()), ("bytes", 7.into())],
            };
            fields.make_harmless(format);
            let escaped = "b\\u{1b}[2J\\u{9b}\\u{7f}\\u{2028}\\u{202e}";
            assert_eq!(fields.message, format!("a{newline}{escaped}"));
            assert_eq!(fields.others[0].1, format!("a\\n{escaped}"));
            let long = "\u{1b}".repeat(100_000);
            let mut fields =
                Fields { message: long.clone(), others: vec![("worker", long.into())] };
            fields.make_harmless(format);
            assert_eq!(fields.message.len(), MAX_MESSAGE_BYTES);
            assert_eq!(fields.others[0].1.as_str().unwrap().len(), MAX_FIELD_BYTES);
        }
    }

    #[test]
    fn of_a_panic_the_log_has_its_place() {
        let here = Location::caller();
        let place = format!("{}:{}:{}", file!(), here.line(), here.column());
        let expected = format!("internal error (panic) at {place}; please report it");
        assert_eq!(describe(Some(here)), expected);
    }
}
