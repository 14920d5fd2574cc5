//! What a hook changed, as a unified diff.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Style};
use sidecar_shim::hook::HookKind;
use sidecar_shim::text::escape_line;
use similar::algorithms::{Capture, Compact, Replace, myers};
use similar::udiff::UnifiedHunkHeader;
use similar::{ChangeTag, DiffOp, group_diff_ops};

use crate::normalize::normalize;

/// Lines of context around a change.
const CONTEXT: usize = 3;

/// Time after which the diff is finished without searching for the shortest one.
const DIFF_TIMEOUT: Duration = Duration::from_secs(2);

/// Returns the changes from one document to the other, or a line that says there are none. The
/// documents are compared in their normal form: most XML libraries write `<a></a>` as `<a/>`, and a
/// diff full of that would hide what the hook did.
pub(crate) fn unified(
    kind: HookKind,
    names: [&str; 2],
    documents: [&[u8]; 2],
    color: bool,
) -> String {
    if documents[0] == documents[1] {
        return "unchanged\n".to_owned();
    }
    let [old, new] = documents.map(|document| normalize(kind, document));
    if old == new {
        return "unchanged, except for formatting\n".to_owned();
    }
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let paint = |style: Style| if color { style } else { Style::new() };
    let mut out = String::new();
    for (sign, name) in ["---", "+++"].into_iter().zip(names) {
        line(&mut out, paint(Style::new().bold()), &format!("{sign} {name}"));
    }
    for hunk in group_diff_ops(changes(&old, &new), CONTEXT) {
        let header = UnifiedHunkHeader::new(&hunk).to_string();
        line(&mut out, paint(AnsiColor::Cyan.on_default()), &header);
        for change in hunk.iter().flat_map(|change| change.iter_changes(&old[..], &new[..])) {
            let (sign, style) = match change.tag() {
                ChangeTag::Delete => ('-', AnsiColor::Red.on_default()),
                ChangeTag::Insert => ('+', AnsiColor::Green.on_default()),
                ChangeTag::Equal => (' ', Style::new()),
            };
            line(&mut out, paint(style), &format!("{sign}{}", change.value()));
        }
    }
    out
}

/// Returns the edits that turn one text's lines into the other's. The algorithm is called by name:
/// a choice at run time would put all of them into the program, 0.6 MB.
fn changes(old: &[&str], new: &[&str]) -> Vec<DiffOp> {
    let mut changes = Compact::new(Replace::new(Capture::new()), old, new);
    let until = Some(Instant::now() + DIFF_TIMEOUT);
    let Ok(()) =
        myers::diff_deadline_raw(&mut changes, old, 0..old.len(), new, 0..new.len(), until);
    changes.into_inner().into_inner().into_ops()
}

/// Adds a line. Documents may hold control characters of a terminal; only the style's stay.
fn line(out: &mut String, style: Style, text: &str) {
    let _ = writeln!(out, "{style}{}{style:#}", escape_line(text));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unified(kind: HookKind, sent: &[u8], returned: &[u8], color: bool) -> String {
        super::unified(kind, ["sent", "returned"], [sent, returned], color)
    }

    #[test]
    fn shows_changed_lines_with_their_surroundings() {
        let shown =
            unified(HookKind::Domain, b"<a>\n  <b/>\n</a>\n", b"<a>\n  <c/>\n</a>\n", false);
        assert_eq!(
            shown,
            "--- sent\n+++ returned\n@@ -1,3 +1,3 @@\n <a>\n-  <b/>\n+  <c/>\n </a>\n"
        );
    }

    #[test]
    fn colours_only_when_asked() {
        let shown = unified(HookKind::Domain, b"a\n", b"b\n", true);
        assert!(shown.contains("\u{1b}[31m-a\u{1b}[0m\n"), "{shown:?}");
        assert!(shown.contains("\u{1b}[32m+b\u{1b}[0m\n"), "{shown:?}");
    }

    #[test]
    fn control_characters_of_a_document_are_escaped() {
        let (old, new) = ("<a>\u{9b}2J\u{202e}</a>\n", "<a>\u{1b}]0;title\u{7}</a>\n");
        let shown = unified(HookKind::Domain, old.as_bytes(), new.as_bytes(), false);
        assert!(shown.contains("-<a>\\u{9b}2J\\u{202e}</a>\n"), "{shown:?}");
        assert!(shown.contains("+<a>\\u{1b}]0;title\\u{7}</a>\n"), "{shown:?}");
    }

    #[test]
    fn formatting_is_not_a_change() {
        let same = |kind, old: &str, new: &str| {
            let shown = unified(kind, old.as_bytes(), new.as_bytes(), false);
            assert!(shown.starts_with("unchanged, except"), "{shown}");
        };
        same(
            HookKind::Domain,
            "<a x='1' b=\"2\"><c></c>&amp;</a>",
            "<a b=\"2\" x=\"1\"><c/>&amp;</a>",
        );
        same(HookKind::CloudInit, "{\"a\":1,\"b\":2}", "{ \"b\": 2, \"a\": 1 }");
        assert_eq!(unified(HookKind::CloudInit, b"{}", b"{}", false), "unchanged\n");
    }

    #[test]
    fn json_strings_are_broken_into_their_lines() {
        let (old, new) = (r#"{"UserData":"a\nb\n"}"#, r#"{"UserData":"a\nc\n"}"#);
        let shown = unified(HookKind::CloudInit, old.as_bytes(), new.as_bytes(), false);
        assert!(shown.contains("\n-    b\\n\n+    c\\n\n"), "{shown}");
    }

    #[test]
    fn broken_documents_are_compared_as_text() {
        let shown = unified(HookKind::Domain, b"<a/>", b"<a", false);
        assert!(shown.contains("\n-<a/>\n+<a\n"), "{shown}");
    }
}
