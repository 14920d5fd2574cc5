//! The report on the checks: a table for people as they end, or one JSON object for machines.

use std::fmt::Write as _;
use std::time::Duration;

use anstyle::AnsiColor;
use serde::Serialize;
use serde_json::{Value, json};

use super::catalog::Check;
use super::verdict::{NotPassed, Verdict};
use crate::output::write_stdout;
use sidecar_shim::hook::HookName;
use sidecar_shim::rpc::Declared;
use sidecar_shim::text::{escape, escape_line};

/// The page that failures point to.
const PAGE: &str = "protocol.md";

/// Maximum length of the table's lines.
const WIDTH: usize = 100;

/// Columns before the demand of a check.
const NAME_COLUMNS: usize = 28;

/// Columns before the details of a failure.
const DETAIL_COLUMNS: usize = NAME_COLUMNS + 8;

/// The outcome of the checks so far.
pub(super) struct Report {
    format: Format,
    rows: Vec<Row>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// Printed row by row.
    Table { color: bool },
    /// Printed at the end.
    Json,
}

#[derive(Serialize)]
struct Row {
    name: &'static str,
    status: Status,
    demands: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'static str>,
    section: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stderr: Vec<String>,
    milliseconds: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Passed,
    Failed,
    Skipped,
}

impl Report {
    pub(super) fn new(format: Format) -> Self {
        Self { format, rows: Vec::new() }
    }

    /// Adds the outcome of a check.
    pub(super) fn add(
        &mut self,
        check: &Check,
        verdict: Verdict,
        time: Duration,
    ) -> std::io::Result<()> {
        let (status, detail, stderr) = match verdict {
            Ok(detail) => (Status::Passed, detail, Vec::new()),
            Err(NotPassed::Failed { seen, stderr }) => (Status::Failed, Some(seen), stderr),
            Err(NotPassed::Skipped(why)) => (Status::Skipped, Some(why), Vec::new()),
        };
        // Workers write some of these texts.
        let detail = detail.map(|text| escape(&text).into_owned());
        let stderr = stderr.iter().map(|line| escape_line(line).into_owned()).collect();
        self.rows.push(Row {
            name: check.name,
            status,
            demands: check.demands,
            detail,
            why: (status == Status::Failed).then_some(check.why),
            section: format!("{PAGE}#{}", check.anchor()),
            stderr,
            milliseconds: u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
        });
        match (self.format, self.rows.last()) {
            (Format::Table { color }, Some(row)) => write_stdout(row.lines(color).as_bytes()),
            _ => Ok(()),
        }
    }

    /// Returns whether no check failed.
    pub(super) fn passed(&self) -> bool {
        self.count(Status::Failed) == 0
    }

    fn count(&self, status: Status) -> usize {
        self.rows.iter().filter(|row| row.status == status).count()
    }

    /// Prints the rest.
    pub(super) fn finish(&self, worker: &str, declared: Option<&Declared>) -> std::io::Result<()> {
        let worker = &*escape_line(worker);
        let [passed, failed, skipped] =
            [Status::Passed, Status::Failed, Status::Skipped].map(|status| self.count(status));
        match self.format {
            Format::Table { .. } => {
                let total =
                    format!("\n{passed} passed, {failed} failed, {skipped} skipped: {worker}\n");
                write_stdout(total.as_bytes())
            }
            Format::Json => {
                let report = JsonReport {
                    worker,
                    passed: self.passed(),
                    declared: declared.map(declaration),
                    checks: &self.rows,
                };
                let text = serde_json::to_string_pretty(&report)?;
                write_stdout(format!("{text}\n").as_bytes())
            }
        }
    }
}

#[derive(Serialize)]
struct JsonReport<'a> {
    worker: &'a str,
    passed: bool,
    declared: Option<Value>,
    checks: &'a [Row],
}

fn declaration(declared: &Declared) -> Value {
    let hooks: Vec<_> = declared.hooks.iter().map(HookName::as_str).collect();
    json!({
        "hooks": hooks,
        "attachments": declared.attachments,
        "cancel": declared.cancel,
        "concurrency": declared.concurrency,
    })
}

impl Row {
    /// Returns the row, followed by the details of a failure.
    fn lines(&self, color: bool) -> String {
        let (word, style) = match self.status {
            Status::Passed => ("ok", AnsiColor::Green.on_default()),
            Status::Failed => ("FAIL", AnsiColor::Red.on_default().bold()),
            Status::Skipped => ("skip", AnsiColor::Yellow.on_default()),
        };
        let detail = self.detail.as_deref().unwrap_or_default();
        // A skipped check shows only the reason: after a failed handshake that is all the others.
        let skipped = self.status == Status::Skipped;
        let text = if skipped { detail } else { self.demands };
        let mut lines = hanging(&format!("{word:<6}{}", self.name), NAME_COLUMNS, text);
        if color {
            lines = lines.replacen(word, &format!("{style}{word}{style:#}"), 1);
        }
        let labelled: &[(&str, &str)] = match self.status {
            Status::Failed => &[
                ("seen:", detail),
                ("why:", self.why.unwrap_or_default()),
                ("see:", &self.section),
                ("stderr:", &self.stderr.join("\n")),
            ],
            Status::Passed => &[("", detail)],
            Status::Skipped => &[],
        };
        for (label, text) in labelled {
            let label = format!("{:NAME_COLUMNS$}{label}", "");
            let columns = if self.status == Status::Failed { DETAIL_COLUMNS } else { NAME_COLUMNS };
            lines.push_str(&hanging(&label, columns, text));
        }
        lines
    }
}

/// Returns a text beside its label, in lines of at most [`WIDTH`]. Without a text, returns nothing.
fn hanging(label: &str, columns: usize, text: &str) -> String {
    let mut out = String::new();
    let mut label = label;
    for line in text.lines() {
        let mut used = 0;
        for word in line.split(' ') {
            let length = word.chars().count();
            if used > 0 && columns + used + 1 + length > WIDTH {
                out.push('\n');
                used = 0;
            }
            if used == 0 {
                let _ = write!(out, "{:<columns$}", std::mem::take(&mut label));
            } else {
                out.push(' ');
                used += 1;
            }
            out.push_str(word);
            used += length;
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_wrap_beside_their_label() {
        let text = format!("{}\nsecond", "four ".repeat(20).trim_end());
        let shown = hanging("label", 10, &text);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[0].starts_with("label     four four"));
        assert!(lines.iter().all(|line| line.len() <= WIDTH), "{shown}");
        assert_eq!(lines[1], "          four four");
        assert_eq!(lines[2], "          second");
        assert_eq!(hanging("label", 10, ""), "");
        let long = "x".repeat(2 * WIDTH);
        assert_eq!(hanging("", 2, &long), format!("  {long}\n"), "long words stay whole");
    }
}
