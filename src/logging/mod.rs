//! Log lines on stderr, in the format of KubeVirt's components.
//!
//! Nothing on the shim's one thread may block. While the log's reader stalls, lines wait in a
//! bounded queue. Further ones are dropped, and the next line that is written reports how many.
//!
//! Texts of hooks are escaped here ([`crate::text`]), in JSON as well: what prints a field of the
//! log to a terminal does not escape it again.

mod fields;
mod hooks;
mod http2;
mod line;
mod seldom;
mod span;
mod stderr;

use std::panic::Location;
use std::sync::{Mutex, PoisonError};

use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use self::fields::Fields;
pub use self::hooks::{HookFields, HookLine, least_hook_level, logs_hook_lines};
pub use self::line::level_name;
use self::line::{Origin, line_of};
pub use self::seldom::Seldom;
pub use self::span::{About, call_span, describe_call};
use self::stderr::Stderr;

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

    /// Writes the lines that are still waiting, before something else is written to stderr. If the
    /// reader stalls, it waits for a second.
    pub fn flush(&self) {
        self.0.finish();
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
    // Its lines become the shim's own warnings.
    let refusals =
        if verbosity.shim >= Level::WARN { LevelFilter::DEBUG } else { LevelFilter::OFF };
    // Of what libraries log, only errors concern an administrator.
    let filter = Targets::new()
        .with_default(LevelFilter::ERROR)
        .with_target("sidecar_shim", verbosity.shim)
        .with_target(http2::TARGET, refusals)
        .with_target("hook", verbosity.hooks)
        .with_target("call", verbosity.calls.map_or(LevelFilter::OFF, LevelFilter::from_level));
    // It is the filter of all layers, which is asked once for each place that logs; one of this
    // layer would be asked for each line. An error means that a logger is set already, which does
    // as well.
    let _ = tracing_subscriber::registry().with(lines).with(filter).try_init();
    // A panic's message may contain a piece of a document, so only its place is logged.
    std::panic::set_hook(Box::new(|panic| tracing::error!("{}", describe(panic.location()))));
    log
}

/// Writes an error as one line of the log. It needs no running log, so that a program whose start
/// fails reports it in the form of its other lines.
#[track_caller]
pub fn print_error(format: Format, message: String) {
    let here = Location::caller();
    let mut fields = Fields::new(format);
    fields.set_message(message);
    let (file, row) = (here.file(), here.line());
    let origin = Origin { level: Level::ERROR, file, row, is_hooks: false };
    print(&line_of(format, &origin, None, &fields));
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
        *fields = Fields::new(self.format);
        fields.set_message(message);
        fields.insert("suppressed", suppressed);
        Some(Origin { level: Level::WARN, file: file!(), row: line!(), is_hooks: false })
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for LogLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::new(self.format);
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, record: &Record<'_>, context: Context<'_, S>) {
        let mut more = Fields::new(self.format);
        record.record(&mut more);
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            fields.append(more);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::new(self.format);
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
        let dropped = self.stderr.dropped();
        if dropped > 0 {
            fields.insert("dropped_lines", dropped);
        }
        let span = context.event_span(event);
        let extensions = span.as_ref().map(tracing_subscriber::registry::SpanRef::extensions);
        let of_span = extensions.as_ref().and_then(|extensions| extensions.get::<Fields>());
        let line = line_of(self.format, &origin, of_span, &fields);
        self.stderr.write(&line, dropped, origin.level <= Level::WARN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_panic_the_log_has_its_place() {
        let here = Location::caller();
        let place = format!("{}:{}:{}", file!(), here.line(), here.column());
        let expected = format!("internal error (panic) at {place}; please report it");
        assert_eq!(describe(Some(here)), expected);
    }
}
