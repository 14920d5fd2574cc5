//! Log lines on standard error, in the form that KubeVirt's components write.
//!
//! Nothing on the shim's one thread may block, so lines go through a bounded queue to a thread
//! that writes them. While nobody reads standard error, lines beyond the queue are dropped; the
//! next line that is written says how many.

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::panic::Location;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::text::clip;

/// `component` of every line, as the Go shim names itself.
const COMPONENT: &str = "shim-sidecar";

/// Lines that may wait to be written.
const QUEUED_LINES: usize = 512;

/// A longer message is cut here: a hook's line has at most 8 KiB, an error twenty of 1 KiB.
const MAX_MESSAGE_BYTES: usize = 24 * 1024;

/// What a line looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One JSON object.
    Json,
    /// For people.
    Text,
}

/// What is logged.
#[derive(Debug, Clone, Copy)]
pub struct Verbosity {
    /// The shim's own lines.
    pub shim: Level,
    /// What hooks write.
    pub hooks: Level,
    /// How calls ended, if that is not told in another way.
    pub calls: Option<Level>,
}

/// Starts logging. Lines that wait are written when the guard is dropped.
pub fn start(format: Format, verbosity: Verbosity) -> WorkerGuard {
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(QUEUED_LINES)
        .lossy(true)
        .thread_name("log")
        .finish(std::io::stderr());
    let dropped = writer.error_counter();
    let lines = Lines { format, writer: Mutex::new(writer), dropped, told: AtomicUsize::new(0) };
    // Libraries have nothing to say to the owner of a VM.
    let filter = Targets::new()
        .with_default(LevelFilter::ERROR)
        .with_target("sidecar_shim", verbosity.shim)
        .with_target("hook", verbosity.hooks)
        .with_target("call", verbosity.calls.map_or(LevelFilter::OFF, LevelFilter::from_level));
    // An error means that a logger runs already, which is as good.
    let _ = tracing_subscriber::registry().with(lines.with_filter(filter)).try_init();
    // What a panic says may hold a piece of a document, so only its place is told.
    std::panic::set_hook(Box::new(|panic| tracing::error!("{}", fault(panic.location()))));
    guard
}

/// What is told of a panic.
fn fault(place: Option<&Location<'_>>) -> String {
    let place = place.map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
    format!("a fault in sidecar-shim itself at {place}; please report it")
}

/// Turns events into lines.
struct Lines {
    format: Format,
    writer: Mutex<NonBlocking>,
    dropped: ErrorCounter,
    /// Dropped lines that a later line has told of.
    told: AtomicUsize,
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        fields.cut();
        let dropped = self.dropped.dropped_lines();
        let untold = dropped - self.told.load(Ordering::Relaxed);
        if untold > 0 {
            fields.others.insert("dropped_lines".to_owned(), untold.into());
        }
        let line = match self.format {
            Format::Json => json_line(event, fields),
            Format::Text => text_line(event, &fields),
        };
        // The writer is a queue: this neither blocks nor fails.
        if let Ok(mut writer) = self.writer.lock() {
            let _ = writer.write_all(line.as_bytes());
        }
        // Unless this line was dropped itself.
        if self.dropped.dropped_lines() == dropped {
            self.told.store(dropped, Ordering::Relaxed);
        }
    }
}

fn json_line(event: &Event<'_>, fields: Fields) -> String {
    let metadata = event.metadata();
    let mut line = fields.others;
    line.insert("component".to_owned(), COMPONENT.into());
    line.insert("level".to_owned(), level_name(*metadata.level()).into());
    line.insert("msg".to_owned(), fields.message.into());
    let file = metadata.file().unwrap_or("?");
    line.insert("pos".to_owned(), format!("{file}:{}", metadata.line().unwrap_or(0)).into());
    line.insert("timestamp".to_owned(), timestamp().to_string().into());
    let mut line = Value::Object(line).to_string();
    line.push('\n');
    line
}

fn text_line(event: &Event<'_>, fields: &Fields) -> String {
    let is_hooks = event.metadata().target() == "hook";
    let mut line = format!("{} {:<7} ", timestamp(), level_name(*event.metadata().level()));
    if let Some(Value::String(hook)) = fields.others.get("hook") {
        let _ = write!(line, "{hook}: ");
    }
    line.push_str(&fields.message);
    // Whoever reads text knows what was started; what it said is what counts.
    let left_out = |name: &str| name == "hook" || (name == "worker" && is_hooks);
    for (name, value) in fields.others.iter().filter(|(name, _)| !left_out(name)) {
        let _ = write!(line, " {name}={value}");
    }
    line.push('\n');
    line
}

fn timestamp() -> impl fmt::Display {
    humantime::format_rfc3339_micros(SystemTime::now())
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warning",
        Level::INFO => "info",
        _ => "debug",
    }
}

/// An event's fields, as JSON has them.
#[derive(Default)]
struct Fields {
    message: String,
    others: Map<String, Value>,
}

impl Fields {
    /// Holds what is queued to its limit, whatever a hook's words were.
    fn cut(&mut self) {
        self.message.truncate(clip(&self.message, MAX_MESSAGE_BYTES).len());
    }

    fn insert(&mut self, field: &Field, value: impl Into<Value>) {
        self.others.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
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

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.insert(field, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_told_by_its_place() {
        let here = Location::caller();
        let place = format!("{}:{}:{}", file!(), here.line(), here.column());
        let expected = format!("a fault in sidecar-shim itself at {place}; please report it");
        assert_eq!(fault(Some(here)), expected);
    }
}
