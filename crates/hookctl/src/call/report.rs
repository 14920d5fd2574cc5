//! What a call did, for the author of the hook: a list of the changes, the diff, and one line that
//! sums up.

use std::fmt::Write as _;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use sidecar_shim::hook::{ChangeKind, Changes, Detail, HookKind, changes};

use super::{CallConfig, Outcome, diff};
use crate::inputs::Documents;

/// Separates the parts of the last line.
const SEPARATOR: &str = " · ";

/// Returns the report.
pub(super) fn report(
    config: &CallConfig,
    documents: &Documents,
    outcome: &Outcome,
    color: bool,
) -> String {
    let kind = config.hook.kind();
    let [sent, returned] = [&documents.subject(kind), &outcome.result];
    let changes = changes(kind, sent, returned, Detail::Values);
    let mut report = changes.as_ref().map_or_else(String::new, |changes| list(changes, color));
    if kind != HookKind::Node && sent != returned {
        report += &diff::unified(kind, ["sent", "returned"], [sent, returned], color);
    }
    if let Some(again) = &outcome.again {
        report += &again.details(color);
    }
    report += &summary(config, outcome, changes.as_ref(), sent == returned);
    report.push('\n');
    report
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
fn summary(
    config: &CallConfig,
    outcome: &Outcome,
    changes: Option<&Changes>,
    is_same: bool,
) -> String {
    let what = match (config.hook.kind(), changes) {
        // It returns no document.
        (HookKind::Node, _) => format!("{} succeeded", config.hook),
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
    let mut sorted: Vec<_> = times.iter().map(|time| time.as_secs_f64() * 1000.0).collect();
    sorted.sort_by(f64::total_cmp);
    let at = |percent: usize| {
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).copied().unwrap_or_default()
    };
    if let [time] = sorted[..] {
        return format!("{time:.1} ms");
    }
    let seconds = sorted.iter().sum::<f64>() / 1000.0;
    let calls = u32::try_from(sorted.len()).unwrap_or(u32::MAX);
    format!(
        "{calls} calls: min {:.3} ms, p50 {:.3} ms, p99 {:.3} ms, max {:.3} ms, {:.0} calls/s",
        at(0),
        at(50),
        at(99),
        at(100),
        f64::from(calls) / seconds
    )
}
