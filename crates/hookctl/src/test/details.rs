//! What is said of a case that has failed: which calls, what is wrong with their results, and what
//! to do.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use sidecar_shim::hook::{Detail, changes};
use sidecar_shim::text::{clip, escape};

use super::run::{Spelling, Way};
use super::says::Difference;
use super::shims::Mode;
use super::{Fault, INDENT};
use crate::call::diff;

/// What is said of a [`Fault::WorkerDied`].
pub(super) const WORKER_DIED: &str = "the worker died in this call, and another one replied: with \
     --log-level warning the log says how";

/// Maximum number of lines of one diff: some screens. Two domains that have nothing in common would
/// fill more.
const MAX_DIFF_LINES: usize = 100;

/// Maximum length of a line of a diff. Lines of domains have about 100 bytes.
const MAX_LINE_BYTES: usize = 500;

/// Describes what failed. The same fault is described once, with all the calls that met it.
pub(super) fn describe(faults: &[(Way, Fault)]) -> String {
    let mut text = String::new();
    for (index, (_, fault)) in faults.iter().enumerate() {
        if faults[..index].iter().any(|(_, earlier)| earlier == fault) {
            continue;
        }
        let alike = faults.iter().filter(|(_, other)| other == fault);
        let ways: Vec<_> = alike.map(|(way, _)| *way).collect();
        for mode in [Mode::Persistent, Mode::Exec] {
            let mut in_mode = ways.iter().filter(|way| way.mode == mode).peekable();
            if in_mode.peek().is_some() {
                let sent: Vec<_> = in_mode.filter_map(|way| way.sent()).collect();
                let separator = if sent.is_empty() { "" } else { ": " };
                let _ = writeln!(text, "  {mode}{separator}{}", sent.join("; "));
            }
        }
        let what = match fault {
            Fault::Text(what) => format!("{}\n", escape(what).trim_end()),
            Fault::WorkerDied => format!("{WORKER_DIED}\n"),
            Fault::Differs { what, with, difference } => {
                format!("the result {what}\n{}", show(with, difference))
            }
        };
        for line in what.lines() {
            let _ = writeln!(text, "{INDENT}{line}");
        }
        if *fault != Fault::WorkerDied
            && let Some(hint) = hint(faults, &ways)
        {
            let _ = writeln!(text, "{INDENT}{hint}");
        }
    }
    text
}

/// Returns the first fault in one line.
pub(super) fn headline(faults: &[(Way, Fault)]) -> String {
    let Some((way, fault)) = faults.first() else { return String::new() };
    let what = match fault {
        Fault::Text(what) => what.lines().next().unwrap_or_default().to_owned(),
        Fault::WorkerDied => WORKER_DIED.to_owned(),
        Fault::Differs { what, .. } => format!("the result {what}"),
    };
    format!("{way}: {what}")
}

/// Says what these calls have in common that others of the case have not.
fn hint(faults: &[(Way, Fault)], ways: &[Way]) -> Option<&'static str> {
    let all = |is: fn(&Way) -> bool| ways.iter().all(is);
    let others_pass = |is: fn(&Way) -> bool| faults.iter().all(|(way, _)| is(way));
    if all(|way| way.again) {
        return Some(
            "hint: KubeVirt calls a hook up to three times for a boot, also with its own result: \
             leave that as it is",
        );
    }
    if all(|way| way.spelling == Spelling::Plugin)
        && others_pass(|way| way.spelling == Spelling::Plugin)
    {
        return Some(
            "hint: a Plugin gets the same domain with other indentation, and no prefix `qemu`: \
             read it as XML, not as text",
        );
    }
    None
}

/// Lists a difference by path, and shows it.
fn show(with: &str, difference: &Difference) -> String {
    let Difference { kind, expected, returned } = difference;
    let mut text = String::new();
    if let Some(changes) = changes(*kind, expected, returned, Detail::Values) {
        for change in &changes.listed {
            let _ = writeln!(text, "{change}");
        }
        let more = changes.count() - changes.listed.len();
        if more > 0 {
            let _ = writeln!(text, "and {more} more differences");
        }
    }
    let diff = diff::unified(*kind, [with, "returned"], [expected, returned], false);
    let mut lines = diff.lines();
    for line in lines.by_ref().take(MAX_DIFF_LINES) {
        let _ = writeln!(text, "{}", clip(line, MAX_LINE_BYTES));
    }
    let more = lines.count();
    if more > 0 {
        let _ = writeln!(text, "… and {more} more lines");
    }
    text
}

/// Colours the diffs in a description.
pub(super) fn painted(details: &str, color: bool) -> String {
    if !color {
        return details.to_owned();
    }
    let mut text = String::with_capacity(details.len());
    for line in details.lines() {
        let style = match line.strip_prefix(INDENT).unwrap_or_default() {
            line if line.starts_with("--- ") || line.starts_with("+++ ") => Style::new().bold(),
            line if line.starts_with("@@ ") => AnsiColor::Cyan.on_default(),
            line if line.starts_with('-') => AnsiColor::Red.on_default(),
            line if line.starts_with('+') => AnsiColor::Green.on_default(),
            _ => Style::new(),
        };
        let _ = writeln!(text, "{style}{line}{style:#}");
    }
    text
}
