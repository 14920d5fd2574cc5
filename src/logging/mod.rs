//! Log lines on standard error, in the form that KubeVirt's components write.
//!
//! Nothing on the shim's one thread may block. While nobody reads standard error, lines wait in a
//! bounded queue, and those beyond it are dropped; the next line that is written says
//! how many.

mod stderr;

use std::fmt::{self, Write as _};
use std::panic::Location;
use std::time::SystemTime;

use serde::Serializer as _;
use serde::ser::SerializeMap as _;
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use self::stderr::Stderr;
use crate::text::clip;

/// `component` of every line, as the Go shim names itself.
const COMPONENT: &str = "shim-sidecar";

/// A longer message is cut here: a hook's line has at most 8 KiB, an error twenty of 1 KiB.
const MAX_MESSAGE_BYTES: usize = 24 * 1024;

/// Room for an ordinary line.
const LINE_BYTES: usize = 256;

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

/// Logging that was started. Lines that wait are written when it is dropped.
pub struct Log(Stderr);

impl Log {
    /// What gathers the lines of the thread that it runs on, and writes several together. Without it
    /// each is written by itself, at once.
    pub fn writer(&self) -> impl Future<Output = ()> + use<> {
        self.0.clone().gather()
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.0.finish();
    }
}

/// Starts logging.
#[must_use]
pub fn start(format: Format, verbosity: Verbosity) -> Log {
    let stderr = Stderr::default();
    let log = Log(stderr.clone());
    let lines = Lines { format, stderr };
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
    log
}

/// What is told of a panic.
fn fault(place: Option<&Location<'_>>) -> String {
    let place = place.map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
    format!("a fault in sidecar-shim itself at {place}; please report it")
}

/// Turns events into lines.
struct Lines {
    format: Format,
    stderr: Stderr,
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        fields.cut();
        let lost = self.stderr.lost();
        if lost > 0 {
            fields.others.push(("dropped_lines", lost.into()));
        }
        let line = match self.format {
            Format::Json => json_line(event, &fields),
            Format::Text => text_line(event, &fields).into_bytes(),
        };
        let is_urgent = *event.metadata().level() <= Level::WARN;
        self.stderr.write(&line, lost, is_urgent);
    }
}

/// The members that KubeVirt's components write come first.
fn json_line(event: &Event<'_>, fields: &Fields) -> Vec<u8> {
    let metadata = event.metadata();
    let (file, row) = (metadata.file().unwrap_or("?"), metadata.line().unwrap_or(0));
    let mut line = Vec::with_capacity(LINE_BYTES);
    let mut write = || {
        let mut json = serde_json::Serializer::new(&mut line);
        let mut object = json.serialize_map(None)?;
        object.serialize_entry("component", COMPONENT)?;
        object.serialize_entry("level", level_name(*metadata.level()))?;
        object.serialize_entry("msg", &fields.message)?;
        object.serialize_entry("pos", &format_args!("{file}:{row}"))?;
        object.serialize_entry("timestamp", &format_args!("{}", timestamp()))?;
        for (name, value) in &fields.others {
            object.serialize_entry(name, value)?;
        }
        object.end()
    };
    // Memory takes all, and names are text: this cannot fail.
    let _: serde_json::Result<()> = write();
    line.push(b'\n');
    line
}

fn text_line(event: &Event<'_>, fields: &Fields) -> String {
    let is_hooks = event.metadata().target() == "hook";
    let mut line = format!("{} {:<7} ", timestamp(), level_name(*event.metadata().level()));
    if let Some((_, Value::String(hook))) = fields.others.iter().find(|(name, _)| *name == "hook") {
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
    others: Vec<(&'static str, Value)>,
}

impl Fields {
    /// Holds what is queued to its limit, whatever a hook's words were.
    fn cut(&mut self) {
        self.message.truncate(clip(&self.message, MAX_MESSAGE_BYTES).len());
    }

    fn insert(&mut self, field: &Field, value: impl Into<Value>) {
        self.others.push((field.name(), value.into()));
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
