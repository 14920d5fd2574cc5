//! A logger for the `log` crate that writes to the shim's log.

use std::sync::{Arc, OnceLock};

use log::kv::{Error, Key, Value, VisitSource};
use log::{LevelFilter, Metadata, Record};

use crate::current;
use crate::error::clip;
use crate::level::{is_logged, Level};
use crate::output::{on_stderr, Fields, Output};

/// The shim takes up to this many fields of a line.
const MAX_FIELDS: usize = 32;
/// The shim truncates names and texts of fields at these lengths.
const MAX_NAME_BYTES: usize = 64;
const MAX_VALUE_BYTES: usize = 1024;

/// Where lines go that no call logs, once `run` has begun. Before that, and in argv style, they go
/// to stderr.
static SHIM: OnceLock<Arc<Output>> = OnceLock::new();

struct Logger;

/// Installs the logger, unless the program has installed one.
pub(crate) fn install() {
    if log::set_logger(&Logger).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
}

pub(crate) fn connect(output: Arc<Output>) {
    let _ = SHIM.set(output);
}

/// Sets the `log` crate's level, so that it formats nothing else. That of another logger stays.
pub(crate) fn set_least(level: Level) {
    let is_ours = std::ptr::addr_eq(std::ptr::from_ref(log::logger()), std::ptr::from_ref(&Logger));
    if is_ours {
        log::set_max_level(match level {
            Level::Debug => LevelFilter::Debug,
            Level::Info => LevelFilter::Info,
            Level::Warning => LevelFilter::Warn,
            Level::Error => LevelFilter::Error,
        });
    }
}

fn level_of(level: log::Level) -> Level {
    match level {
        log::Level::Error => Level::Error,
        log::Level::Warn => Level::Warning,
        log::Level::Info => Level::Info,
        log::Level::Debug | log::Level::Trace => Level::Debug,
    }
}

impl log::Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level() && is_logged(level_of(metadata.level()))
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let (level, message) = (level_of(record.level()), record.args().to_string());
        let mut fields = Collected(Fields::new());
        // The visitor does not fail, and a source that fails has no more fields.
        let _ = record.key_values().visit(&mut fields);
        match (current::log(), SHIM.get()) {
            (Some(log), _) => log.write_fields(level, &message, &fields.0),
            (None, Some(output)) => output.log(level, &message, None, &fields.0),
            (None, None) => on_stderr(level, &message, &fields.0),
        }
    }

    fn flush(&self) {}
}

struct Collected(Fields);

impl<'kvs> VisitSource<'kvs> for Collected {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        if self.0.len() < MAX_FIELDS {
            let name = clip(key.as_str(), MAX_NAME_BYTES).to_owned();
            let value = if let Some(value) = value.to_bool() {
                value.into()
            } else if let Some(value) = value.to_i64() {
                value.into()
            } else if let Some(value) = value.to_u64() {
                value.into()
            } else if let Some(value) = value.to_f64().filter(|value| value.is_finite()) {
                value.into()
            } else {
                clip(&value.to_string(), MAX_VALUE_BYTES).into()
            };
            self.0.push((name, value));
        }
        Ok(())
    }
}
