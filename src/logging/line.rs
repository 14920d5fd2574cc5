//! Log lines: their two formats.

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::time::SystemTime;

use serde_json::Value;
use tracing::Level;

use super::Format;
use super::fields::Fields;

/// `component` of every line; the Go shim's is the same.
const COMPONENT: &str = "shim-sidecar";

/// Initial capacity for a line: most are shorter.
const LINE_CAPACITY: usize = 640;

/// Where a line comes from.
pub(super) struct Origin<'a> {
    pub(super) level: Level,
    pub(super) file: &'a str,
    pub(super) row: u32,
    /// Whether a hook wrote it.
    pub(super) is_hooks: bool,
}

/// Returns a line with the fields of its span, if it has one, and its own ones.
pub(super) fn line_of(
    format: Format,
    origin: &Origin<'_>,
    span: Option<&Fields>,
    fields: &Fields,
) -> Vec<u8> {
    match format {
        Format::Json => json_line(origin, span, fields),
        Format::Text => text_line(origin, span, fields).into_bytes(),
    }
}

/// Writes the fields of KubeVirt's components first.
fn json_line(origin: &Origin<'_>, span: Option<&Fields>, fields: &Fields) -> Vec<u8> {
    let Origin { level, file, row, .. } = origin;
    let mut line = Vec::with_capacity(LINE_CAPACITY);
    line.extend_from_slice(b"{\"component\":\"");
    line.extend_from_slice(COMPONENT.as_bytes());
    line.extend_from_slice(b"\",\"level\":\"");
    line.extend_from_slice(level_name(*level).as_bytes());
    line.extend_from_slice(b"\",\"msg\":");
    // Neither can fail: they write to memory. The rest of the fields needs no escapes.
    let _ = serde_json::to_writer(&mut line, &fields.message);
    let _ = write!(line, ",\"pos\":\"{file}:{row}\",\"timestamp\":\"{}\"", timestamp());
    line.extend_from_slice(span.map_or(&[], |span| &span.json));
    line.extend_from_slice(&fields.json);
    line.extend_from_slice(b"}\n");
    line
}

fn text_line(origin: &Origin<'_>, span: Option<&Fields>, fields: &Fields) -> String {
    let mut line = format!("{} {:<7} ", timestamp(), level_name(origin.level));
    let values = || span.into_iter().chain([fields]).flat_map(|fields| &fields.values);
    let text = |name: &str| {
        let found = values().find(|(field, _)| field == name);
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
    for (name, value) in values().filter(|(name, _)| !left_out(name)) {
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
