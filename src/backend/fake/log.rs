//! The log of a test.

use std::cell::RefCell;
use std::fmt;
use std::sync::Once;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

/// A log line.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::backend) struct LogLine {
    pub(in crate::backend) message: String,
    pub(in crate::backend) call: Option<u64>,
    pub(in crate::backend) left_out: Option<u64>,
}

thread_local! {
    static LINES: RefCell<Vec<LogLine>> = const { RefCell::new(Vec::new()) };
}

/// What this thread logs from now on. All tasks of a test run in its thread.
pub(in crate::backend) struct Logged(());

impl Logged {
    pub(in crate::backend) fn start() -> Self {
        static SUBSCRIBER: Once = Once::new();
        // One for all threads: what tracing caches of it is shared by all.
        SUBSCRIBER.call_once(|| tracing_subscriber::registry().with(Capture).init());
        LINES.take();
        Self(())
    }

    /// The lines whose message begins so.
    #[expect(clippy::unused_self, reason = "it shows that the lines are captured")]
    pub(in crate::backend) fn beginning(&self, text: &str) -> Vec<LogLine> {
        let is = |line: &&LogLine| line.message.starts_with(text);
        LINES.with_borrow(|lines| lines.iter().filter(is).cloned().collect())
    }

    /// The number of lines that were left out, as far as the log says so.
    pub(in crate::backend) fn left_out(&self) -> u64 {
        self.beginning("").iter().filter_map(|line| line.left_out).sum()
    }
}

struct Capture;

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Capture {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut line = LogLine::default();
        attributes.record(&mut line);
        context.span(id).unwrap().extensions_mut().insert(line);
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let span = context.event_span(event);
        let of_span = span.and_then(|span| span.extensions().get::<LogLine>().cloned());
        let mut line = of_span.unwrap_or_default();
        event.record(&mut line);
        LINES.with_borrow_mut(|lines| lines.push(line));
    }
}

impl Visit for LogLine {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "call" => self.call = Some(value),
            "left_out" => self.left_out = Some(value),
            _ => {}
        }
    }
}
