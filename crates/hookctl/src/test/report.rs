//! What is printed: a line for each case in the order of names, below it what failed, and one line
//! that sums up.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::IsTerminal;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressStyle};
use sidecar_shim::hook::{Detail, changes};
use sidecar_shim::text::{escape, escape_line};

use super::says::Difference;
use super::shims::Mode;
use super::{Done, Fault, Tested, Verdict, Way};
use crate::call::diff;
use crate::output;

/// Maximum number of lines of one diff: some screens. Two domains that have nothing in common would
/// fill more.
const MAX_DIFF_LINES: usize = 200;

/// Collects the cases that are done.
pub(super) struct Report {
    /// Of all cases.
    names: Vec<String>,
    color: bool,
    /// By the case's place.
    done: Vec<Option<Done>>,
    /// Number of cases that are printed.
    printed: usize,
    bar: ProgressBar,
    counts: Counts,
    /// Why exec mode was left out.
    no_exec: BTreeSet<String>,
}

#[derive(Default)]
struct Counts {
    passed: usize,
    written: usize,
    failed: usize,
    broken: usize,
    calls: usize,
}

impl Report {
    pub(super) fn new(names: Vec<String>, color: bool) -> Self {
        let bar = ProgressBar::new(names.len() as u64);
        // The template is a constant that can be parsed.
        let style = ProgressStyle::with_template("{bar:24} {pos}/{len} {msg}");
        let bar = bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        let done = names.iter().map(|_| None).collect();
        let counts = Counts::default();
        Self { names, color, done, printed: 0, bar, counts, no_exec: BTreeSet::new() }
    }

    /// Takes a case that is done, and prints those whose turn it is.
    pub(super) fn end(&mut self, done: Done) {
        self.bar.inc(1);
        let index = done.index;
        if let Some(place) = self.done.get_mut(index) {
            *place = Some(done);
        }
        let mut text = String::new();
        while let Some(done) = self.done.get(self.printed).and_then(Option::as_ref) {
            self.counts.add(&done.verdict);
            if let Verdict::Ran(outcome) | Verdict::Written(_, outcome) = &done.verdict {
                self.no_exec.extend(outcome.no_exec.clone());
            }
            text += &self.case(&self.names[self.printed], done);
            self.printed += 1;
        }
        if !text.is_empty() {
            self.print(&text);
        }
    }

    /// Prints the last line. Returns what the exit status says.
    pub(super) fn finish(&self, took: Duration) -> Tested {
        self.bar.finish_and_clear();
        let counts = &self.counts;
        let mut text = String::new();
        for why in &self.no_exec {
            let _ = writeln!(text, "not run in exec mode: {}", escape_line(why));
        }
        let parts: Vec<_> = [
            (counts.passed, "passed"),
            (counts.written, "written"),
            (counts.failed, "failed"),
            (counts.broken, "broken"),
        ]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
        let (cases, calls) = (self.names.len(), counts.calls);
        let _ = writeln!(
            text,
            "{cases} {}: {} · {calls} {} · {:.1} s",
            if cases == 1 { "case" } else { "cases" },
            parts.join(", "),
            if calls == 1 { "call" } else { "calls" },
            took.as_secs_f64()
        );
        self.print(&text);
        match (counts.broken, counts.failed) {
            (0, 0) => Tested::Passed,
            (0, _) => Tested::Failed,
            (_, _) => Tested::Broken,
        }
    }

    /// Returns the cases with their names.
    pub(super) fn cases(&self) -> impl Iterator<Item = (&str, &Done)> + Clone {
        let cases = self.names.iter().zip(&self.done);
        cases.filter_map(|(name, done)| Some((name.as_str(), done.as_ref()?)))
    }

    fn print(&self, text: &str) {
        let write = || {
            // If its reader has gone, the exit status says enough.
            let _ = output::write_stdout(text.as_bytes());
        };
        if std::io::stderr().is_terminal() { self.bar.suspend(write) } else { write() }
    }

    fn case(&self, name: &str, done: &Done) -> String {
        let name = escape_line(name);
        let line = |color: AnsiColor, word: &str, rest: &str| {
            let style = if self.color { color.on_default() } else { Style::new() };
            format!("{style}{word:<8}{style:#} {name}{rest}\n")
        };
        match &done.verdict {
            Verdict::Broken(why) => {
                line(AnsiColor::Red, "broken", &format!(": {}", escape_line(why)))
            }
            Verdict::Written(file, _) => line(AnsiColor::Yellow, "written", &format!("/{file}")),
            Verdict::Ran(outcome) if outcome.faults.is_empty() => {
                let milliseconds = done.took.as_secs_f64() * 1000.0;
                line(AnsiColor::Green, "ok", &format!(" ({milliseconds:.0} ms)"))
            }
            Verdict::Ran(outcome) => {
                line(AnsiColor::Red, "FAILED", "") + &faults(&outcome.faults, self.color)
            }
        }
    }
}

impl Counts {
    fn add(&mut self, verdict: &Verdict) {
        match verdict {
            Verdict::Broken(_) => self.broken += 1,
            Verdict::Written(..) => self.written += 1,
            Verdict::Ran(outcome) if outcome.faults.is_empty() => self.passed += 1,
            Verdict::Ran(_) => self.failed += 1,
        }
        if let Verdict::Ran(outcome) | Verdict::Written(_, outcome) = verdict {
            self.calls += outcome.calls;
        }
    }
}

/// Describes what failed. The same fault is described once, with all the ways in which it was seen.
pub(super) fn faults(faults: &[(Way, Fault)], color: bool) -> String {
    let mut text = String::new();
    for (index, (_, fault)) in faults.iter().enumerate() {
        if faults[..index].iter().any(|(_, earlier)| earlier == fault) {
            continue;
        }
        for mode in [Mode::Persistent, Mode::Exec] {
            let alike = faults.iter().filter(|(way, other)| way.mode == mode && other == fault);
            let ways: Vec<_> = alike.map(|(way, _)| way).collect();
            let sent: Vec<_> = ways.iter().filter_map(|way| way.sent()).collect();
            if !ways.is_empty() {
                let separator = if sent.is_empty() { "" } else { ": " };
                let _ = writeln!(text, "  {mode}{separator}{}", sent.join("; "));
            }
        }
        text += &indented(&match fault {
            Fault::Text(what) => format!("{}\n", escape(what).trim_end()),
            Fault::Differs { what, difference } => {
                format!("the result {what}\n{}", details(difference, color))
            }
        });
    }
    text
}

/// Returns the first fault in one line.
pub(super) fn headline(faults: &[(Way, Fault)]) -> String {
    let Some((way, fault)) = faults.first() else { return String::new() };
    let what = match fault {
        Fault::Text(what) => what.lines().next().unwrap_or_default().to_owned(),
        Fault::Differs { what, .. } => format!("the result {what}"),
    };
    format!("{way}: {what}")
}

/// Lists a difference by path, and shows it.
fn details(difference: &Difference, color: bool) -> String {
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
    let diff = diff::unified(*kind, ["expected", "returned"], [expected, returned], color);
    let mut lines = diff.lines();
    for line in lines.by_ref().take(MAX_DIFF_LINES) {
        let _ = writeln!(text, "{line}");
    }
    let more = lines.count();
    if more > 0 {
        let _ = writeln!(text, "… and {more} more lines: `hookctl call` shows them");
    }
    text
}

fn indented(text: &str) -> String {
    text.lines().fold(String::new(), |all, line| all + "    " + line + "\n")
}
