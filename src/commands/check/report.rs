//! What is shown of the checks: a table for people as they end, or one JSON object for machines.

use std::io::Write;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use super::catalog::Check;
use super::verdict::{Stop, Verdict};
use crate::rpc::Declared;

/// Where the page is that failures point to.
const PAGE: &str = "protocol.md";

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
            hooks: hooks.iter().map(crate::hook::HookName::as_str).collect(),
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
        let style = if color { style } else { Style::new() };
        let Self { name, demands, .. } = self;
        let mut lines = format!("{style}{word:<4}{style:#}  {name:<20}  {demands}\n");
        let mut more = |label: &str, text: &str| {
            for (index, line) in text.lines().enumerate() {
                let label = if index == 0 { label } else { "" };
                lines.push_str(&format!("{:28}{label:<8}{line}\n", ""));
            }
        };
        let detail = self.detail.as_deref().unwrap_or_default();
        match self.status {
            Status::Passed => more("", detail),
            Status::Skipped => more("", detail),
            Status::Failed => {
                more("seen:", detail);
                more("why:", self.why.unwrap_or_default());
                more("see:", &self.section);
                more("stderr:", &self.stderr.join("\n"));
            }
        }
        lines
    }
}

/// A reader that has seen enough is no fault.
fn print(text: &str) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
