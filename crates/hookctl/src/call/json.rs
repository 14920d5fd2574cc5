//! The report as one JSON object on one line. `docs/writing-hooks.md` defines it: fields may be
//! added, and none changes its meaning.

use serde::Serialize;
use sidecar_shim::hook::{Change, ChangeKind, Changes, Detail, HookKind, HookName, changes};

use super::again::Again;
use super::report::{Times, View, difference};
use super::{CallFailed, Outcome};
use crate::inputs::Documents;
use crate::output;

/// A call that succeeded.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report<'a> {
    hook: &'a str,
    ok: bool,
    status: &'a str,
    times: TimesReport,
    #[serde(flatten)]
    document: Option<DocumentReport<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    again: Option<AgainReport>,
}

/// What became of the document. A node hook has none.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DocumentReport<'a> {
    changed: bool,
    /// None if the documents are too long or cannot be read.
    changes: Option<ChangesReport<'a>>,
    diff: Option<String>,
    result: std::borrow::Cow<'a, str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TimesReport {
    calls: usize,
    min_ms: f64,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    calls_per_second: f64,
}

#[derive(Serialize)]
struct ChangesReport<'a> {
    added: usize,
    removed: usize,
    altered: usize,
    /// The first ones.
    listed: Vec<ChangeReport<'a>>,
}

#[derive(Serialize)]
struct ChangeReport<'a> {
    kind: &'static str,
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    values: Option<&'a str>,
}

#[derive(Serialize)]
struct AgainReport {
    changed: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    diff: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// A call that failed, or could not be made.
#[derive(Serialize)]
struct Failure<'a> {
    hook: &'a str,
    ok: bool,
    /// As gRPC spells it. None if there was no reply.
    status: Option<&'a str>,
    error: String,
}

/// Writes the report on a call that succeeded.
pub(super) fn write(
    view: &View,
    documents: &Documents,
    outcome: &Outcome,
) -> Result<(), CallFailed> {
    let kind = view.hook.kind();
    let sent = documents.subject(kind);
    let returned = &outcome.result[..];
    let found = changes(kind, &sent, returned, Detail::Values);
    let document = (kind != HookKind::Node).then(|| DocumentReport {
        changed: sent != returned && found.as_ref().is_none_or(|changes| changes.count() > 0),
        changes: found.as_ref().map(ChangesReport::new),
        diff: (sent != returned).then(|| difference(kind, [&sent, returned], false)),
        result: String::from_utf8_lossy(returned),
    });
    let Times { calls, min, p50, p99, max, per_second } = Times::of(&outcome.times);
    write_line(&Report {
        hook: view.hook.as_str(),
        ok: true,
        status: "OK",
        times: TimesReport {
            calls,
            min_ms: min,
            p50_ms: p50,
            p99_ms: p99,
            max_ms: max,
            calls_per_second: per_second,
        },
        document,
        again: outcome.again.as_ref().map(AgainReport::new),
    })
}

/// Writes the report on a call that failed.
pub(super) fn write_failure(hook: &HookName, error: &CallFailed) -> Result<(), CallFailed> {
    write_line(&Failure {
        hook: hook.as_str(),
        ok: false,
        status: error.status(),
        error: error.to_string(),
    })
}

fn write_line(report: &impl Serialize) -> Result<(), CallFailed> {
    let mut line = serde_json::to_vec(report).map_err(|error| CallFailed::Write(error.into()))?;
    line.push(b'\n');
    output::write_stdout(&line).map_err(CallFailed::Write)
}

impl CallFailed {
    /// Returns the name of the status of the reply, if there was one.
    fn status(&self) -> Option<&'static str> {
        match self {
            Self::Call(failed) => Some(failed.source.status()?.0),
            Self::Client(source) => Some(source.status()?.0),
            _ => None,
        }
    }
}

impl<'a> ChangesReport<'a> {
    fn new(changes: &'a Changes) -> Self {
        let Changes { listed, added, removed, altered } = changes;
        let listed = listed.iter().map(ChangeReport::new).collect();
        Self { added: *added, removed: *removed, altered: *altered, listed }
    }
}

impl<'a> ChangeReport<'a> {
    fn new(Change { kind, path, values }: &'a Change) -> Self {
        let kind = match kind {
            ChangeKind::Added => "added",
            ChangeKind::Removed => "removed",
            ChangeKind::Altered => "altered",
        };
        Self { kind, path, values: values.as_deref() }
    }
}

impl AgainReport {
    fn new(again: &Again) -> Self {
        let error = again.error().map(ToString::to_string);
        let diff = again.difference(false);
        Self { changed: error.is_none().then_some(diff.is_some()), diff, error }
    }
}
