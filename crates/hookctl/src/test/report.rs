//! What is printed: a line for each case in the order of names, below it what failed, and one line
//! that sums up.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::IsTerminal;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressStyle};
use sidecar_shim::text::escape_line;

use super::details;
use super::{Done, Fault, Tested, Verdict};
use crate::output;

/// Maximum number of failed cases that are described. The author of a hook that fails more looks at
/// the first ones, and all of them would take much memory.
const MAX_DESCRIBED: usize = 200;

/// Collects the cases that are done.
pub(super) struct Report {
    /// Of all cases.
    names: Vec<String>,
    color: bool,
    /// The command that writes what the hook does, unless this is it.
    update: Option<String>,
    /// By the case's place.
    ended: Vec<Option<Ended>>,
    /// Number of cases that are printed.
    printed: usize,
    bar: ProgressBar,
    counts: Counts,
    /// Number of failed cases that are described.
    described: usize,
    /// Whether a result differs from what is expected.
    has_difference: bool,
    /// Why exec mode was left out.
    no_exec: BTreeSet<String>,
}

/// A case, with what is said of it. The documents are gone.
pub(super) struct Ended {
    pub(super) took: Duration,
    pub(super) result: CaseResult,
}

pub(super) enum CaseResult {
    Passed,
    Written(&'static str),
    Failed { headline: String, details: String },
    Broken(String),
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
    pub(super) fn new(names: Vec<String>, color: bool, update: Option<String>) -> Self {
        let bar = ProgressBar::new(names.len() as u64);
        // The template is a constant that can be parsed.
        let style = ProgressStyle::with_template("{bar:24} {pos}/{len} cases {elapsed}");
        let bar = bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.tick();
        let ended = names.iter().map(|_| None).collect();
        Self {
            names,
            color,
            update,
            ended,
            printed: 0,
            bar,
            counts: Counts::default(),
            described: 0,
            has_difference: false,
            no_exec: BTreeSet::new(),
        }
    }

    /// Takes a case that is done, and prints those whose turn it is.
    pub(super) fn end(&mut self, done: Done) {
        self.bar.inc(1);
        let Done { index, verdict, took } = done;
        let result = self.result(verdict);
        self.counts.add(&result);
        if let Some(place) = self.ended.get_mut(index) {
            *place = Some(Ended { took, result });
        }
        let mut text = String::new();
        while let Some(ended) = self.ended.get(self.printed).and_then(Option::as_ref) {
            text += &self.case(&self.names[self.printed], ended);
            self.printed += 1;
        }
        if !text.is_empty() {
            self.print(&text);
        }
    }

    fn result(&mut self, verdict: Verdict) -> CaseResult {
        let (file, outcome) = match verdict {
            Verdict::Broken(why) => return CaseResult::Broken(why),
            Verdict::Written(file, outcome) => (Some(file), outcome),
            Verdict::Ran(outcome) => (None, outcome),
        };
        self.counts.calls += outcome.calls;
        self.no_exec.extend(outcome.no_exec);
        let faults = outcome.faults;
        match file {
            _ if !faults.is_empty() => {
                let differs = |(_, fault): &_| matches!(fault, Fault::Differs { .. });
                self.has_difference |= faults.iter().any(differs);
                self.described += 1;
                let details = if self.described > MAX_DESCRIBED {
                    "  not described: too many cases have failed\n".to_owned()
                } else {
                    let not_written = outcome.not_written.iter();
                    let not_written = not_written.map(|why| format!("  not written: {why}\n"));
                    not_written.collect::<String>() + &details::describe(&faults)
                };
                CaseResult::Failed { headline: details::headline(&faults), details }
            }
            Some(file) => CaseResult::Written(file),
            None => CaseResult::Passed,
        }
    }

    /// Prints the last line. Returns what the exit status says.
    pub(super) fn finish(&mut self, took: Duration) -> Tested {
        while let Some(index) = self.ended.iter().position(Option::is_none) {
            let why = "internal error (panic) in hookctl: its result is lost".to_owned();
            self.end(Done { index, verdict: Verdict::Broken(why), took: Duration::ZERO });
        }
        self.bar.finish_and_clear();
        let counts = &self.counts;
        let mut text = String::new();
        for why in &self.no_exec {
            let _ = writeln!(text, "not run in exec mode: {}", escape_line(why));
        }
        if let (true, Some(update)) = (self.has_difference, &self.update) {
            let update = escape_line(update);
            let _ = writeln!(
                text,
                "if a difference is meant, this command writes what the hook returns:\n  {update}"
            );
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
    pub(super) fn cases(&self) -> impl Iterator<Item = (&str, &Ended)> + Clone {
        let cases = self.names.iter().zip(&self.ended);
        cases.filter_map(|(name, ended)| Some((name.as_str(), ended.as_ref()?)))
    }

    fn print(&self, text: &str) {
        let write = || {
            // If its reader has gone, the exit status says enough.
            let _ = output::write_stdout(text.as_bytes());
        };
        if std::io::stderr().is_terminal() { self.bar.suspend(write) } else { write() }
    }

    fn case(&self, name: &str, ended: &Ended) -> String {
        let name = escape_line(name);
        let line = |color: AnsiColor, word: &str, rest: &str| {
            let style = if self.color { color.on_default() } else { Style::new() };
            format!("{style}{word:<8}{style:#} {name}{rest}\n")
        };
        match &ended.result {
            CaseResult::Broken(why) => {
                line(AnsiColor::Red, "broken", &format!(": {}", escape_line(why)))
            }
            CaseResult::Written(file) => line(AnsiColor::Yellow, "written", &format!("/{file}")),
            CaseResult::Passed => {
                let milliseconds = ended.took.as_secs_f64() * 1000.0;
                line(AnsiColor::Green, "ok", &format!(" ({milliseconds:.0} ms)"))
            }
            CaseResult::Failed { details, .. } => {
                line(AnsiColor::Red, "FAILED", "") + &details::painted(details, self.color)
            }
        }
    }
}

impl Counts {
    fn add(&mut self, result: &CaseResult) {
        *match result {
            CaseResult::Broken(_) => &mut self.broken,
            CaseResult::Written(_) => &mut self.written,
            CaseResult::Failed { .. } => &mut self.failed,
            CaseResult::Passed => &mut self.passed,
        } += 1;
    }
}
