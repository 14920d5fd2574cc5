//! The report on the checks: a table for people as they end, or one JSON object for machines.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use super::catalog::{Check, Level};
use super::table::{self, Table};
use super::verdict::{NotPassed, Verdict};
use crate::output::write_stdout;
use sidecar_shim::hook::HookName;
use sidecar_shim::rpc::Declared;
use sidecar_shim::text::{escape, escape_line};

/// The page that failures point to.
const PAGE: &str = "protocol.md";

/// The outcome of the checks so far.
pub(super) struct Report {
    format: Format,
    rows: Vec<Row>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Format {
    /// Printed row by row.
    Table(Table),
    /// Printed at the end.
    Json,
}

/// The outcome of one check.
#[derive(Serialize)]
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) status: Status,
    level: Level,
    pub(super) demands: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) detail: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) why: Option<&'static str>,
    pub(super) section: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) stderr: Vec<String>,
    milliseconds: u64,
    /// The check that did not pass, for which this one was skipped.
    #[serde(skip)]
    pub(super) needs: Option<&'static str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    Passed,
    Warned,
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
        let (mut stderr, mut needs) = (Vec::new(), None);
        let (status, detail) = match verdict {
            Ok(detail) => (Status::Passed, detail),
            Err(NotPassed::Failed(fault)) => {
                stderr = fault.stderr;
                (Status::Failed, Some(fault.seen))
            }
            Err(NotPassed::Warned(fault)) => {
                stderr = fault.stderr;
                (Status::Warned, Some(fault.seen))
            }
            Err(NotPassed::Skipped(why)) => (Status::Skipped, Some(why)),
            Err(NotPassed::Needs(other)) => {
                needs = Some(other);
                (Status::Skipped, Some(format!("it needs `{other}`")))
            }
        };
        let is_fault = matches!(status, Status::Failed | Status::Warned);
        self.rows.push(Row {
            name: check.name,
            status,
            level: check.level,
            demands: check.demands,
            // Workers write some of these texts.
            detail: detail.map(|text| escape(&text).into_owned()),
            why: is_fault.then_some(check.why),
            section: format!("{PAGE}#{}", check.anchor()),
            stderr: stderr.iter().map(|line| escape_line(line).into_owned()).collect(),
            milliseconds: u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
            needs,
        });
        match (self.format, self.rows.last()) {
            (Format::Table(table), Some(row)) if row.needs.is_none() => {
                write_stdout(table.row(row).as_bytes())
            }
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
    pub(super) fn finish(
        &self,
        worker: &str,
        declared: Option<&Declared>,
        time: Duration,
    ) -> std::io::Result<()> {
        let worker = &*escape_line(worker);
        let text = match self.format {
            Format::Table(table) => table.skipped(&self.rows) + &self.total(worker, time),
            Format::Json => {
                let report = JsonReport {
                    worker,
                    passed: self.passed(),
                    declared: declared.map(declaration),
                    milliseconds: u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
                    checks: &self.rows,
                };
                serde_json::to_string_pretty(&report)? + "\n"
            }
        };
        write_stdout(text.as_bytes())
    }

    fn total(&self, worker: &str, time: Duration) -> String {
        let [passed, warned, failed, skipped] =
            [Status::Passed, Status::Warned, Status::Failed, Status::Skipped]
                .map(|status| self.count(status));
        let warnings = table::counted(warned, "warning");
        let seconds = time.as_secs_f64();
        format!(
            "\n{passed} passed, {warnings}, {failed} failed, {skipped} skipped in {seconds:.1} s: \
             {worker}\n"
        )
    }
}

#[derive(Serialize)]
struct JsonReport<'a> {
    worker: &'a str,
    passed: bool,
    declared: Option<Value>,
    milliseconds: u64,
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
