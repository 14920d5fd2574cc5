//! Texts and documents of hooks change nothing on the terminal that shows them, and results are
//! written byte for byte.

use serde_json::json;

use crate::call::{call, text};
use crate::support::worker;

/// What an XML document may hold of it.
const IN_XML: &str = "\u{9b}2J\u{7f}\u{202e}";
const SHOWN_IN_XML: &str = "\\u{9b}2J\\u{7f}\\u{202e}";

#[track_caller]
fn assert_harmless(text: &str) {
    let is_harmful = |c: char| {
        (c.is_control() && c != '\t' && c != '\n')
            || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    assert!(!text.contains(is_harmful), "{text:?}");
}

/// Calls the fixture worker with this VMI.
async fn call_with(vmi: &serde_json::Value) -> std::process::Output {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vmi.json");
    std::fs::write(&path, vmi.to_string()).unwrap();
    let args = ["onDefineDomain", "--vmi", path.to_str().unwrap(), "--mode", "persistent"];
    call(&args, |command| {
        command.env("SIDECAR_SHIM_WORKER", worker(""));
    })
    .await
}

#[tokio::test]
async fn a_changed_document_is_shown_escaped_and_written_byte_for_byte() {
    let domain = format!("<domain><name>{IN_XML}</name></domain>");
    let output = call_with(&json!({"do": "answer", "value": domain})).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), domain);
    let diff = text(&output.stderr);
    assert!(diff.contains(&format!("<name>{SHOWN_IN_XML}</name>")), "{diff}");
    assert_harmless(&diff);
}

#[tokio::test]
async fn what_a_hook_logs_and_how_it_fails_is_shown_escaped() {
    let hostile = format!("\u{1b}]0;title\u{7}{IN_XML}\r");
    let shown = format!("\\u{{1b}}]0;title\\u{{7}}{SHOWN_IN_XML}");
    let message = format!("refused {hostile}\nsecond line");
    for vmi in [
        json!({"do": "stderr", "text": format!("log {hostile}\n")}),
        json!({"do": "error", "error": {"code": -32000, "message": message}}),
        json!({"do": "exit", "status": 3, "stderr": [format!("last {hostile}")]}),
    ] {
        let stderr = text(&call_with(&vmi).await.stderr);
        assert!(stderr.contains(&shown), "{vmi}: {stderr}");
        assert_harmless(&stderr);
    }
}

#[tokio::test]
async fn a_report_shows_what_a_worker_wrote_escaped() {
    let script =
        r"printf '\033]0;out\007\302\233\n'; printf '\033]0;err\007\302\233\n' >&2; cat >&2";
    for (format, newline) in [("--color=never", "\\n"), ("--json", "\\\\n")] {
        let mut command = tokio::process::Command::new(crate::hookctl());
        command.args(["check", format, "--start-timeout", "500ms", "--", "sh", "-c", script]);
        let output = command.kill_on_drop(true).output().await.unwrap();
        assert_eq!(output.status.code(), Some(1));
        let report = text(&output.stdout);
        let backslash = &newline[..newline.len() - 1];
        for stream in ["out", "err"] {
            let shown = format!("{backslash}u{{1b}}]0;{stream}{backslash}u{{7}}{backslash}u{{9b}}");
            assert!(report.contains(&shown), "{shown} is not in {report}");
        }
        assert_harmless(&report);
        assert_harmless(&text(&output.stderr));
    }
}
