//! A logger for the `log` crate that writes to the shim's log.

use std::cell::RefCell;
use std::sync::Arc;

use log::{LevelFilter, Metadata, Record};

use crate::call::Level;
use crate::output::{Log, Output};

thread_local! {
    /// Destination of log lines while this thread runs a call.
    static CALL: RefCell<Option<Log>> = const { RefCell::new(None) };
}

struct Logger {
    /// `None` in argv style, where no shim reads messages.
    output: Option<Arc<Output>>,
}

/// Installs the logger, unless the program has installed one.
pub(crate) fn install(level: LevelFilter, output: Option<Arc<Output>>) {
    if log::set_boxed_logger(Box::new(Logger { output })).is_ok() {
        log::set_max_level(level);
    }
}

/// Guard: until it is dropped, this thread's log lines carry the id of a call.
pub(crate) struct OfCall;

impl OfCall {
    pub(crate) fn enter(log: &Log) -> Self {
        CALL.set(Some(log.clone()));
        Self
    }
}

impl Drop for OfCall {
    fn drop(&mut self) {
        CALL.set(None);
    }
}

impl log::Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let level = match record.level() {
            log::Level::Error => Level::Error,
            log::Level::Warn => Level::Warning,
            log::Level::Info => Level::Info,
            log::Level::Debug | log::Level::Trace => Level::Debug,
        };
        let message = record.args().to_string();
        match (CALL.with_borrow(Clone::clone), &self.output) {
            (Some(log), _) => log.write(level, &message),
            (None, Some(output)) => output.log(level, &message, None),
            (None, None) => Log::Stderr.write(level, &message),
        }
    }

    fn flush(&self) {}
}
