//! Bytes of stderr in, lines out, each with the call that it belongs to. It does no I/O.

use std::collections::VecDeque;

use bytes::{Buf, BytesMut};
use tracing::{Level, Span};

use super::super::child::Sharing;
use crate::error::LastLines;
use crate::text::{MAX_LINE_BYTES, clip, hook_line};

/// Number of lines that are kept for the text of an error.
const KEPT_LINES: usize = 20;

/// Maximum number of bytes kept of each line. 20 such lines are five times as long as a gRPC status
/// message may be.
const KEPT_LINE_BYTES: usize = 1024;

/// Whose lines are.
#[derive(Clone, Default)]
pub(super) struct Author {
    /// The call in whose error they may appear.
    owner: Owner,
    /// The span of the call that the log names.
    pub(super) span: Option<Span>,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Owner {
    /// The child, before its first call: they are about no VM, or about the only one.
    #[default]
    Child,
    /// A call that has been alone since it began.
    Call {
        id: u64,
        /// Whether it is the child's first.
        first: bool,
    },
    /// Any of several calls.
    Unknown,
}

/// A line of stderr, without its end.
pub(super) struct Line {
    pub(super) author: Author,
    pub(super) level: Level,
    /// Without the prefix that stated the level.
    pub(super) text: String,
}

/// What a child wrote to stderr and was not taken as lines yet, and the last lines of its call.
///
/// Bytes are read later than they are written. So a change of the author is noted with the number
/// of bytes that are still before it, in `unread` and in the pipe.
#[derive(Clone, Default)]
pub(super) struct Lines {
    unread: BytesMut,
    author: Author,
    /// The next authors, and the number of bytes before each, after the change before it.
    changes: VecDeque<(usize, Author)>,
    has_begun: bool,
    /// Whether the child wrote anything.
    has_written: bool,
    /// The line that has not ended, and the author of its beginning.
    line: Vec<u8>,
    line_author: Option<Author>,
    cut: usize,
    /// The last lines of `author`.
    kept: VecDeque<String>,
    /// The last lines before the first call, during that call.
    at_start: Vec<String>,
}

impl Lines {
    /// All lines are about this call, if there is one.
    pub(super) fn of(span: Option<Span>) -> Self {
        let author = Author { span, ..Author::default() };
        Self { author, ..Self::default() }
    }

    /// What was read, and where to add more.
    pub(super) fn unread(&mut self) -> &mut BytesMut {
        &mut self.unread
    }

    /// What is written from now on belongs to another call. `piped` bytes, which were written
    /// before, are in the pipe.
    pub(super) fn begin_call(&mut self, span: Span, id: u64, sharing: Sharing, piped: usize) {
        let first = !std::mem::replace(&mut self.has_begun, true);
        let author = match sharing {
            Sharing::Never => Author { owner: Owner::Call { id, first }, span: Some(span) },
            Sharing::NotYet => Author { owner: Owner::Call { id, first }, ..Author::default() },
            Sharing::Now => Author { owner: Owner::Unknown, ..Author::default() },
        };
        let noted: usize = self.changes.iter().map(|(bytes, _)| bytes).sum();
        let bytes = (self.unread.len() + piped).saturating_sub(noted);
        match self.changes.back_mut() {
            // The call before wrote nothing.
            Some((_, last)) if bytes == 0 => *last = author,
            _ => self.changes.push_back((bytes, author)),
        }
        self.change_author();
    }

    /// Makes the changes that have no byte before them any more.
    fn change_author(&mut self) {
        while self.changes.front().is_some_and(|(bytes, _)| *bytes == 0) {
            let Some((_, author)) = self.changes.pop_front() else { return };
            let lines = self.kept.drain(..);
            self.at_start = match (self.author.owner, author.owner) {
                (Owner::Child, Owner::Call { first: true, .. }) => lines.collect(),
                _ => Vec::new(),
            };
            self.author = author;
        }
    }

    /// Takes the next whole line.
    pub(super) fn next(&mut self) -> Option<Line> {
        while !self.unread.is_empty() {
            let end = self.changes.front().map_or(usize::MAX, |(bytes, _)| *bytes);
            let part = &self.unread[..self.unread.len().min(end)];
            let newline = part.iter().position(|&byte| byte == b'\n');
            let text = &part[..newline.unwrap_or(part.len())];
            let kept = text.len().min(MAX_LINE_BYTES - self.line.len());
            self.line.extend_from_slice(&text[..kept]);
            self.cut += text.len() - kept;
            self.line_author.get_or_insert_with(|| self.author.clone());
            let used = text.len() + newline.iter().len();
            self.unread.advance(used);
            let line = newline.and_then(|_| self.end_line());
            if let Some((bytes, _)) = self.changes.front_mut() {
                *bytes -= used;
            }
            self.change_author();
            if line.is_some() {
                return line;
            }
        }
        None
    }

    /// Takes the line that has not ended.
    pub(super) fn end_line(&mut self) -> Option<Line> {
        let author = self.line_author.take()?;
        self.has_written = true;
        let (level, line) = split_level(&self.line);
        let text = hook_line(line, self.cut);
        self.line.clear();
        self.cut = 0;
        // A line that the call before has begun is not in the error of this one.
        // Lines of level debug may quote documents, and are for the hook's author.
        if author.owner == self.author.owner && level != Level::DEBUG {
            if self.kept.len() == KEPT_LINES {
                self.kept.pop_front();
            }
            self.kept.push_back(clip(&text, KEPT_LINE_BYTES).to_owned());
        }
        Some(Line { author, level, text })
    }

    /// Returns the last lines that may appear in the error of a call, or of the child itself, once
    /// everything that was read is taken.
    pub(super) fn last(&self, call: Option<u64>) -> LastLines {
        let author = self.changes.back().map_or(&self.author, |(_, author)| author);
        let is_authors = match author.owner {
            Owner::Child => call.is_none(),
            Owner::Call { id, .. } => call == Some(id),
            Owner::Unknown => false,
        };
        if !is_authors {
            let has_written =
                self.has_written || self.line_author.is_some() || !self.unread.is_empty();
            return if has_written { LastLines::Unattributed } else { LastLines::Own(Vec::new()) };
        }
        let mut all = self.clone();
        while all.next().is_some() {}
        all.end_line();
        if all.author.owner != author.owner {
            // The lines of this author are still in the pipe.
            return LastLines::Unattributed;
        }
        LastLines::Own(if all.kept.is_empty() { all.at_start } else { all.kept.into() })
    }
}

/// Splits a line into its level and its text. The level may be stated as in systemd's journal, by a
/// number of syslog in angle brackets: `<4>disk vda is missing`.
fn split_level(line: &[u8]) -> (Level, &[u8]) {
    let (level, text) = match line {
        [b'<', number @ b'0'..=b'7', b'>', text @ ..] => (*number, text),
        text => (b'6', text),
    };
    let level = match level {
        b'0'..=b'3' => Level::ERROR,
        b'4' => Level::WARN,
        b'7' => Level::DEBUG,
        _ => Level::INFO,
    };
    (level, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The call that each line names, and the line.
    fn all(lines: &mut Lines) -> Vec<(Option<u64>, String)> {
        let call = |author: &Author| match author.owner {
            Owner::Call { id, .. } => author.span.as_ref().map(|_| id),
            _ => None,
        };
        std::iter::from_fn(|| lines.next()).map(|line| (call(&line.author), line.text)).collect()
    }

    fn last(lines: &Lines, call: impl Into<Option<u64>>) -> Vec<String> {
        match lines.last(call.into()) {
            LastLines::Own(lines) => lines,
            LastLines::Unattributed => vec!["unattributed".to_owned()],
        }
    }

    #[test]
    fn a_line_belongs_to_the_call_in_which_it_began_wherever_the_bytes_are() {
        let written = b"start\na1\na2\nhalf of a\nb1\n";
        let (start, a) = ("start\n".len(), "a1\na2\nhalf".len());
        // The number of bytes that are read when the calls begin.
        for read in 0..=written.len() {
            let mut lines = Lines::default();
            let before = |at: usize| (at.min(read), at.saturating_sub(read));
            for (id, from, to) in [(2, 0, start), (3, start, start + a)] {
                lines.unread().extend_from_slice(&written[before(from).0..before(to).0]);
                lines.begin_call(Span::none(), id, Sharing::Never, before(to).1);
            }
            let rest = before(start + a).0;
            lines.unread().extend_from_slice(&written[rest..]);
            assert_eq!(last(&lines, 3), ["b1"], "the half line is not its");
            let expected = [(None, "start"), (Some(2), "a1"), (Some(2), "a2")];
            let expected = expected.into_iter().chain([(Some(2), "half of a"), (Some(3), "b1")]);
            let expected: Vec<_> = expected.map(|(call, text)| (call, text.to_owned())).collect();
            assert_eq!(all(&mut lines), expected, "{read} bytes read");
            assert_eq!(last(&lines, 3), ["b1"]);
            assert_eq!(last(&lines, 2), ["unattributed"]);
            assert_eq!(last(&lines, None), ["unattributed"]);
        }
    }

    #[test]
    fn a_line_may_state_its_level() {
        let mut lines = Lines::default();
        let written = "<0>a\n<3>b\n<4>c\n<5>d\n<6>e\n<7>f\ng\n<8>h\n<44>i\n <3>j\n<3\n<3>\n";
        lines.unread().extend_from_slice(written.as_bytes());
        let all: Vec<_> = std::iter::from_fn(|| lines.next())
            .map(|line| format!("{} {}", line.level, line.text))
            .collect();
        let expected = [
            "ERROR a",
            "ERROR b",
            "WARN c",
            "INFO d",
            "INFO e",
            "DEBUG f",
            "INFO g",
            "INFO <8>h",
            "INFO <44>i",
            "INFO  <3>j",
            "INFO <3",
            "ERROR ",
        ];
        assert_eq!(all, expected);
        let kept = ["a", "b", "c", "d", "e", "g"];
        assert_eq!(last(&lines, None)[..6], kept, "of an error, the texts alone, none of debug");
    }

    #[test]
    fn calls_that_wrote_nothing_take_no_memory() {
        let mut lines = Lines::default();
        for id in 2..1000 {
            lines.begin_call(Span::none(), id, Sharing::Never, 5);
        }
        assert_eq!(lines.changes.len(), 1);
        lines.unread().extend_from_slice(b"four\nmore\n");
        assert_eq!(all(&mut lines), [(None, "four".to_owned()), (Some(999), "more".to_owned())]);
    }

    #[test]
    fn lines_from_before_the_first_call_are_its_own_unless_it_writes_any() {
        let mut lines = Lines::default();
        lines.unread().extend_from_slice(b"no database\n");
        assert_eq!(last(&lines, None), ["no database"]);
        lines.begin_call(Span::none(), 2, Sharing::Never, 0);
        assert_eq!(last(&lines, 2), ["no database"]);
        assert_eq!(last(&lines, None), ["unattributed"]);
        lines.unread().extend_from_slice(b"no disk");
        assert_eq!(last(&lines, 2), ["no disk"]);
        lines.begin_call(Span::none(), 3, Sharing::Never, 0);
        assert_eq!(last(&lines, 3), [""; 0]);
    }

    #[test]
    fn with_several_calls_a_line_is_nobodys_and_alone_it_is_the_calls() {
        let mut lines = Lines::default();
        let begin = |lines: &mut Lines, id, sharing, text: &[u8]| {
            lines.begin_call(Span::none(), id, sharing, 0);
            lines.unread().extend_from_slice(text);
        };
        begin(&mut lines, 2, Sharing::NotYet, b"two\n");
        assert_eq!(last(&lines, 2), ["two"]);
        begin(&mut lines, 3, Sharing::Now, b"two or three\n");
        begin(&mut lines, 4, Sharing::Now, b"any\n");
        for id in 2..5 {
            assert_eq!(last(&lines, id), ["unattributed"]);
        }
        begin(&mut lines, 5, Sharing::NotYet, b"five\n");
        assert_eq!(last(&lines, 5), ["five"]);
        assert!(all(&mut lines).iter().all(|(call, _)| call.is_none()));
    }

    #[test]
    fn the_last_lines_are_kept_and_long_ones_are_cut() {
        let mut lines = Lines::default();
        for number in 0..50 {
            lines.unread().extend_from_slice(format!("{number}\n").as_bytes());
        }
        assert_eq!(last(&lines, None), (30..50).map(|n| n.to_string()).collect::<Vec<_>>());
        lines.unread().extend_from_slice(&[b'x'; MAX_LINE_BYTES + 7]);
        lines.unread().extend_from_slice(b"\n");
        // As many bytes that are not UTF-8, each of which becomes three.
        lines.unread().extend_from_slice(&[0xff; MAX_LINE_BYTES]);
        lines.unread().extend_from_slice(b"\n");
        let all = all(&mut lines);
        assert!(all[50].1.ends_with("more bytes]"), "{}", all[50].1);
        assert!(all[50..].iter().all(|(_, line)| line.len() <= MAX_LINE_BYTES));
        assert!(last(&lines, None).iter().all(|line| line.len() <= KEPT_LINE_BYTES));
    }
}
