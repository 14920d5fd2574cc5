//! What a call did, for the author of the hook: a list of the changes, the diff, and one line that
//! sums up.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use sidecar_shim::hook::{ChangeKind, Changes, Detail, HookKind, HookName, changes};

use super::{CallConfig, CallFailed, Outcome, diff, json};
use crate::inputs::{Documents, STDIN};
use crate::output;

/// Separates the parts of the last line.
const SEPARATOR: &str = " · ";

/// What to show, and where.
pub(super) struct View {
    pub(super) hook: HookName,
    color: bool,
    json: bool,
    output: Option<PathBuf>,
}

impl View {
    pub(super) fn new(config: &CallConfig) -> Self {
        Self {
            hook: config.hook.clone(),
            color: output::is_colored(config.color, &std::io::stderr()),
            json: config.json,
            output: config.output.clone(),
        }
    }
}

/// Writes the report and the result.
pub(super) fn show(
    view: &View,
    documents: &Documents,
    outcome: &Outcome,
) -> Result<(), CallFailed> {
    let result = &outcome.result[..];
    let to_file = view.output.as_ref().filter(|path| path.as_os_str() != STDIN);
    if view.json {
        json::write(view, documents, outcome)?;
    } else {
        // The report goes first: on a terminal it must not interrupt the result.
        output::write_stderr(&report(view, documents, outcome));
    }
    let is_terminal = std::io::stdout().is_terminal();
    match to_file {
        Some(path) => std::fs::write(path, result)
            .map_err(|source| CallFailed::WriteFile { path: path.clone(), source }),
        None if view.json || (is_terminal && view.output.is_none()) => Ok(()),
        None if is_terminal && !result.ends_with(b"\n") => {
            output::write_stdout(&[result, b"\n"].concat()).map_err(CallFailed::Write)
        }
        None => output::write_stdout(result).map_err(CallFailed::Write),
    }
}

/// Returns the report.
fn report(view: &View, documents: &Documents, outcome: &Outcome) -> String {
    let kind = view.hook.kind();
    let [sent, returned] = [&documents.subject(kind), &outcome.result];
    let changes = changes(kind, sent, returned, Detail::Values);
    let mut report = changes.as_ref().map_or_else(String::new, |changes| list(changes, view.color));
    if kind != HookKind::Node && sent != returned {
        report += &difference(kind, [sent, returned], view.color);
    }
    if let Some(again) = &outcome.again {
        report += &again.details(view.color);
    }
    report += &summary(&view.hook, outcome, changes.as_ref(), sent == returned);
    report.push('\n');
    report
}

/// Returns what a hook made of its document, as a unified diff.
pub(super) fn difference(kind: HookKind, documents: [&[u8]; 2], color: bool) -> String {
    diff::unified(kind, ["sent", "returned"], documents, color)
}

/// Returns a line for each change.
fn list(changes: &Changes, color: bool) -> String {
    let mut lines = String::new();
    for change in &changes.listed {
        let of_kind = match change.kind {
            ChangeKind::Added => AnsiColor::Green,
            ChangeKind::Removed => AnsiColor::Red,
            ChangeKind::Altered => AnsiColor::Yellow,
        };
        let style = if color { of_kind.on_default() } else { Style::new() };
        // Writing to a string cannot fail.
        let _ = writeln!(lines, "{style}{change}{style:#}");
    }
    let more = changes.count() - changes.listed.len();
    if more > 0 {
        let _ = writeln!(lines, "and {more} more changes");
    }
    lines
}

/// Returns the last line.
fn summary(hook: &HookName, outcome: &Outcome, changes: Option<&Changes>, is_same: bool) -> String {
    let what = match (hook.kind(), changes) {
        // It returns no document.
        (HookKind::Node, _) => format!("{hook} succeeded"),
        (_, _) if is_same => "unchanged".to_owned(),
        (_, Some(changes)) if changes.count() == 0 => "unchanged, except for formatting".to_owned(),
        (_, Some(changes)) => counts(changes),
        (_, None) => "changed".to_owned(),
    };
    let mut parts = vec![what, times(&outcome.times)];
    let again = outcome.again.as_ref();
    parts.extend(again.map(|again| format!("again on its own result: {}", again.summary())));
    parts.join(SEPARATOR)
}

fn counts(changes: &Changes) -> String {
    let counts =
        [(changes.added, "added"), (changes.removed, "removed"), (changes.altered, "altered")];
    let present = counts.into_iter().filter(|(count, _)| *count > 0);
    present.map(|(count, what)| format!("{count} {what}")).collect::<Vec<_>>().join(", ")
}

/// Returns how long the calls took, each on its own connection.
fn times(times: &[Duration]) -> String {
    let Times { calls, min, p50, p99, max, per_second } = Times::of(times);
    if calls == 1 {
        return format!("{max:.1} ms");
    }
    format!(
        "{calls} calls: min {min:.3} ms, p50 {p50:.3} ms, p99 {p99:.3} ms, max {max:.3} ms, \
         {per_second:.0} calls/s"
    )
}

/// Times of calls, in milliseconds.
#[derive(Debug, PartialEq)]
pub(super) struct Times {
    pub(super) calls: usize,
    pub(super) min: f64,
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) max: f64,
    /// One after the other.
    pub(super) per_second: f64,
}

impl Times {
    pub(super) fn of(times: &[Duration]) -> Self {
        let mut sorted: Vec<_> = times.iter().map(|time| time.as_secs_f64() * 1000.0).collect();
        sorted.sort_by(f64::total_cmp);
        let at = |percent: usize| {
            let rank = (sorted.len() * percent).div_ceil(100).max(1);
            sorted.get(rank - 1).copied().unwrap_or_default()
        };
        let total: Duration = times.iter().sum();
        let calls = times.len();
        let as_number = f64::from(u32::try_from(calls).unwrap_or(u32::MAX));
        let per_second = as_number / total.as_secs_f64();
        Self { calls, min: at(0), p50: at(50), p99: at(99), max: at(100), per_second }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_in_order_and_by_the_nearest_rank() {
        let hundred: Vec<_> = (1..=100).rev().map(Duration::from_millis).collect();
        let Times { calls, min, p50, p99, max, per_second } = Times::of(&hundred);
        assert_eq!((calls, min, p50, p99, max), (100, 1.0, 50.0, 99.0, 100.0));
        assert!((per_second - 100.0 / 5.05).abs() < 1e-9, "{per_second}");
        let text = times(&hundred);
        let expected =
            "100 calls: min 1.000 ms, p50 50.000 ms, p99 99.000 ms, max 100.000 ms, 20 calls/s";
        assert_eq!(text, expected);
        assert_eq!(times(&[Duration::from_micros(1_540)]), "1.5 ms");
        let [short, long] = [1, 9].map(Duration::from_millis);
        assert_eq!((Times::of(&[long, short]).p50, Times::of(&[long, short]).p99), (1.0, 9.0));
    }
}
