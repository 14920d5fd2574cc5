//! What is shown of the checks: a table for people as they end, or one JSON object for machines.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

use anstyle::AnsiColor;
use serde::Serialize;

use super::catalog::Check;
use super::verdict::{Stop, Verdict};
use sidecar_shim::rpc::Declared;

/// Where the page is that failures point to.
const PAGE: &str = "protocol.md";

/// The table's lines are broken here.
const WIDTH: usize = 100;

/// Columns before what a check demands.
const NAME_COLUMNS: usize = 28;

/// Columns before what there is to say of a failure.
const DETAIL_COLUMNS: usize = NAME_COLUMNS + 8;

/// What came of the checks so far.
pub(super) struct Report {
    style: Styling,
    rows: Vec<Row>,
}

/// How it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Styling {
    /// As a table, while the checks go on.
    Table { color: bool },
    /// As JSON, in the end.
    Json,
}

/// One check.
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
    pub(super) fn new(style: Styling) -> Self {
        Self { style, rows: Vec::new() }
    }

    /// Takes in what came of a check, and shows it if it is to be shown at once.
    pub(super) fn add(
        &mut self,
        check: &Check,
        verdict: Verdict,
        time: Duration,
    ) -> std::io::Result<()> {
        let (status, detail, stderr) = match verdict {
            Ok(detail) => (Status::Passed, detail, Vec::new()),
            Err(Stop::Failed(fault)) => (Status::Failed, Some(fault.seen), fault.stderr),
            Err(Stop::Skipped(why)) => (Status::Skipped, Some(why), Vec::new()),
        };
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
        match (self.style, self.rows.last()) {
            (Styling::Table { color }, Some(row)) => print(&row.lines(color)),
            _ => Ok(()),
        }
    }

    /// Whether no check has failed.
    pub(super) fn passed(&self) -> bool {
        self.count(Status::Failed) == 0
    }

    fn count(&self, status: Status) -> usize {
        self.rows.iter().filter(|row| row.status == status).count()
    }

    /// Shows the rest.
    pub(super) fn finish(&self, worker: &str, declared: Option<&Declared>) -> std::io::Result<()> {
        let [passed, failed, skipped] =
            [Status::Passed, Status::Failed, Status::Skipped].map(|status| self.count(status));
        match self.style {
            Styling::Table { .. } => {
                print(&format!("\n{passed} passed, {failed} failed, {skipped} skipped: {worker}\n"))
            }
            Styling::Json => {
                let whole = Whole {
                    worker,
                    passed: self.passed(),
                    declared: declared.map(Declaration::of),
                    checks: &self.rows,
                };
                let text = serde_json::to_string_pretty(&whole)?;
                print(&format!("{text}\n"))
            }
        }
    }
}

/// The one JSON object.
#[derive(Serialize)]
struct Whole<'a> {
    worker: &'a str,
    passed: bool,
    declared: Option<Declaration<'a>>,
    checks: &'a [Row],
}

#[derive(Serialize)]
struct Declaration<'a> {
    hooks: Vec<&'a str>,
    attachments: bool,
    cancel: bool,
    concurrency: usize,
}

impl<'a> Declaration<'a> {
    fn of(declared: &'a Declared) -> Self {
        let Declared { hooks, attachments, cancel, concurrency } = declared;
        Self {
            hooks: hooks.iter().map(sidecar_shim::hook::HookName::as_str).collect(),
            attachments: *attachments,
            cancel: *cancel,
            concurrency: *concurrency,
        }
    }
}

impl Row {
    /// The row, and behind a failure what there is to say of it.
    fn lines(&self, color: bool) -> String {
        let (word, style) = match self.status {
            Status::Passed => ("ok", AnsiColor::Green.on_default()),
            Status::Failed => ("FAIL", AnsiColor::Red.on_default().bold()),
            Status::Skipped => ("skip", AnsiColor::Yellow.on_default()),
        };
        let detail = self.detail.as_deref().unwrap_or_default();
        // What was not tried needs no words but why not: after a failed handshake that is all the rest.
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

/// A text beside its label, in lines that are not too long. Nothing, if there is no text.
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

/// A reader that has seen enough is no fault.
fn print(text: &str) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_hang_beside_their_label() {
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
        assert_eq!(hanging("", 2, &long), format!("  {long}\n"), "nothing is cut");
    }
}
