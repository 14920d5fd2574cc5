//! The table for people: a line for each check, and what is wrong below it.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use rustix::termios::{Winsize, tcgetwinsize};

use super::catalog::Check;
use super::report::{Row, Status};

/// Maximum length of a line. Longer ones are hard to read.
const MAX_WIDTH: usize = 100;

/// The same where stdout is not a terminal: what logs and mails show without a break.
const WIDTH_WITHOUT_TERMINAL: usize = 80;

/// Minimum length of a line: narrower terminals break the lines.
const MIN_WIDTH: usize = 60;

/// Columns of the status, with which a line begins.
const STATUS_COLUMNS: usize = 6;

/// Columns before the demand of a check: the status, and the longest name.
const NAME_COLUMNS: usize = 28;

/// Columns before what was seen: the status, and a label.
const LABEL_COLUMNS: usize = 14;

#[derive(Debug, Clone, Copy)]
pub(super) struct Table {
    color: bool,
    width: usize,
}

impl Table {
    /// Returns a table as wide as the terminal.
    pub(super) fn new(color: bool) -> Self {
        let columns = |size: Winsize| usize::from(size.ws_col);
        // A terminal that reports no size has 0 columns.
        let width = tcgetwinsize(std::io::stdout()).map(columns).ok().filter(|width| *width > 0);
        let width = width.map_or(WIDTH_WITHOUT_TERMINAL, |it| it.clamp(MIN_WIDTH, MAX_WIDTH));
        Self { color, width }
    }

    /// Returns the line of a check, and below it the details of what is wrong.
    pub(super) fn row(self, row: &Row) -> String {
        let detail = row.detail.as_deref().unwrap_or_default();
        // A skipped check shows only the reason.
        let text = if row.status == Status::Skipped { detail } else { row.demands };
        let mut lines = self.first_line(row.status, row.name, text);
        if row.status == Status::Passed {
            lines.push_str(&self.hanging("", NAME_COLUMNS, detail));
        }
        let Some(why) = row.why else { return lines };
        for (label, text) in [("seen:", detail), ("why:", why), ("see:", &row.section)] {
            lines.push_str(&self.hanging(&indented(label), LABEL_COLUMNS, text));
        }
        lines + &verbatim("stderr:", &row.stderr)
    }

    fn first_line(self, status: Status, name: &str, text: &str) -> String {
        let (word, style) = status.word();
        let label = format!("{word:<STATUS_COLUMNS$}{name}");
        let columns = if name.is_empty() { STATUS_COLUMNS } else { NAME_COLUMNS };
        let lines = self.hanging(&label, columns, text);
        if self.color { lines.replacen(word, &format!("{style}{word}{style:#}"), 1) } else { lines }
    }

    /// Returns one line for all checks that were skipped because another one did not pass.
    pub(super) fn skipped(self, rows: &[Row]) -> String {
        let mut needed: Vec<&str> = rows.iter().filter_map(|row| row.needs).collect();
        needed.dedup();
        let mut lines = String::new();
        for other in needed {
            let names: Vec<_> =
                rows.iter().filter(|row| row.needs == Some(other)).map(|row| row.name).collect();
            let count = counted(names.len(), "check");
            // Without a worker that starts, the names say nothing.
            let all = names.len() + 1 >= rows.len();
            let names = if all { String::new() } else { format!(": {}", names.join(", ")) };
            let verb = if count.starts_with("1 ") { "needs" } else { "need" };
            let text = format!("{count} {verb} `{other}`{names}");
            lines.push_str(&self.first_line(Status::Skipped, "", &text));
        }
        lines
    }

    /// Returns a line of the list of all checks.
    pub(super) fn listed(self, check: &Check) -> String {
        let label = format!("{:<STATUS_COLUMNS$} {}", check.level.word(), check.name);
        self.hanging(&label, NAME_COLUMNS + 1, check.demands)
    }

    /// Returns a text beside its label, in lines of the table's width. Without a text, returns
    /// nothing. Blanks at the beginning of the text's lines stay.
    fn hanging(self, label: &str, columns: usize, text: &str) -> String {
        let mut out = String::new();
        let mut label = label;
        for line in text.lines() {
            let words = line.trim_start_matches(' ');
            let mut used = line.len() - words.len();
            let _ = write!(out, "{:<columns$}{:used$}", std::mem::take(&mut label), "");
            let mut begins = true;
            for word in words.split(' ') {
                let length = word.chars().count();
                if !begins && columns + used + 1 + length > self.width {
                    let _ = write!(out, "\n{:columns$}", "");
                    (used, begins) = (0, true);
                }
                if !begins {
                    out.push(' ');
                    used += 1;
                }
                out.push_str(word);
                used += length;
                begins = false;
            }
            out.push('\n');
        }
        out
    }
}

impl Status {
    fn word(self) -> (&'static str, Style) {
        match self {
            Self::Passed => ("ok", AnsiColor::Green.on_default()),
            Self::Warned => ("warn", AnsiColor::Yellow.on_default().bold()),
            Self::Failed => ("FAIL", AnsiColor::Red.on_default().bold()),
            Self::Skipped => ("skip", AnsiColor::Yellow.on_default()),
        }
    }
}

fn indented(label: &str) -> String {
    format!("{:STATUS_COLUMNS$}{label}", "")
}

/// Returns lines beside their label as they are: a program's indentation has a meaning, and a
/// broken line of code is hard to read. Go indents with tabs.
fn verbatim(label: &str, lines: &[String]) -> String {
    let mut out = String::new();
    let mut label = indented(label);
    for line in lines {
        let line = line.replace('\t', "    ");
        let _ = writeln!(out, "{}", format!("{label:<LABEL_COLUMNS$}{line}").trim_end());
        label.clear();
    }
    out
}

/// Returns a number with its noun.
pub(super) fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: Table = Table { color: false, width: 80 };

    #[test]
    fn long_texts_wrap_beside_their_label() {
        let text = format!("{}\nsecond", "four ".repeat(20).trim_end());
        let shown = TABLE.hanging("label", 10, &text);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[0].starts_with("label     four four"));
        assert!(lines.iter().all(|line| line.len() <= TABLE.width), "{shown}");
        assert_eq!(lines[1], "          four four four four four four");
        assert_eq!(lines[2], "          second");
        assert_eq!(TABLE.hanging("label", 10, ""), "");
        let long = "x".repeat(2 * TABLE.width);
        assert_eq!(TABLE.hanging("", 2, &long), format!("  {long}\n"), "long words stay whole");
        let long = format!("{} {long}", "four ".repeat(20).trim_end());
        assert!(TABLE.hanging("", 2, &long).lines().all(|line| !line.ends_with(' ')));
    }

    #[test]
    fn blanks_at_the_beginning_of_a_line_stay() {
        let shown = TABLE.hanging("label", 10, "one\n  two\n\n    three");
        assert_eq!(shown, "label     one\n            two\n          \n              three\n");
        let lines = ["Traceback:", "  File \"x\"", "", "\tx.go:7"].map(str::to_owned);
        let shown = verbatim("stderr:", &lines);
        assert_eq!(
            shown,
            "      stderr: Traceback:\n                File \"x\"\n\n                  x.go:7\n"
        );
    }
}
