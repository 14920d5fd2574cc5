//! Texts of hooks change nothing on the terminal or in the log viewer that shows them.

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::{DOMAIN, Shim};

/// Sets a terminal's title, clears the screen, ends lines, reverses the order of characters, and
/// forges a log line.
const HOSTILE: &str = "\u{1b}]0;x\u{7}\u{9b}2J\u{7f}\u{8}\u{2028}\u{202e}\u{2066}\u{200f}\r\
                       2026-01-01T00:00:00.000000Z error forged";

/// How it is shown.
const SHOWN: &str = "\\u{1b}]0;x\\u{7}\\u{9b}2J\\u{7f}\\u{8}\\u{2028}\\u{202e}\\u{2066}\\u{200f}\\r\
                     2026-01-01T00:00:00.000000Z error forged";

fn is_harmful(c: char) -> bool {
    let reorders =
        matches!(c, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    (c.is_control() && c != '\t' && c != '\n') || reorders
}

#[track_caller]
fn assert_harmless(text: &str) {
    assert!(!text.contains(is_harmful), "{text:?}");
}

/// Makes the fixture worker say the text in each way that it can.
async fn say_everything(shim: &Shim) {
    let lines = json!([{"level": "info", "message": format!("log {HOSTILE}\n{HOSTILE}")}]);
    for vmi in [
        json!({"do": "stderr", "text": format!("stderr {HOSTILE}\n")}),
        json!({"do": "log", "lines": lines}),
    ] {
        assert_eq!(shim.define(&vmi, DOMAIN).await.unwrap(), DOMAIN);
    }
    let error = json!({"code": -32000, "message": format!("refused {HOSTILE}\nsecond line")});
    for (vmi, expected) in [
        (json!({"do": "error", "error": error}), format!("refused {SHOWN}\nsecond line")),
        (
            json!({"do": "exit", "status": 3, "stderr": [format!("last {HOSTILE}"), "end"]}),
            format!("stderr:\nlast {SHOWN}\nend"),
        ),
    ] {
        let status = shim.fails(&vmi).await;
        assert!(status.message().ends_with(&expected), "{status:?}");
        assert_harmless(status.message());
    }
}

#[tokio::test]
async fn neither_statuses_nor_json_logs_hold_control_characters() {
    let mut shim = Shim::persistent("").start().await;
    say_everything(&shim).await;
    shim.signal(Signal::SIGTERM);
    shim.exited().await;
    for text in ["stderr", "log", "refused", "last"] {
        assert_eq!(shim.count(&format!("{text} {SHOWN}")).min(1), 1, "{text}");
    }
    for line in &shim.lines {
        let fields = line.as_object().unwrap();
        fields.values().filter_map(Value::as_str).for_each(assert_harmless);
    }
}

#[tokio::test]
async fn a_text_log_has_one_line_for_each_event() {
    let mut shim = Shim::persistent("").args(["--log-format", "text"]).start().await;
    say_everything(&shim).await;
    shim.signal(Signal::SIGTERM);
    shim.exited().await;
    let lines: Vec<_> = shim.lines.iter().map(|line| line.as_str().unwrap()).collect();
    assert!(lines.iter().any(|line| line.contains(&format!("log {SHOWN}\\n{SHOWN}"))), "{lines:?}");
    for line in lines {
        assert_harmless(line);
        // No hook can write the start of a line.
        assert!(line.starts_with("20"), "{line:?}");
        assert!(!line.starts_with("2026-01-01T00:00:00.000000Z"), "{line:?}");
    }
}

#[tokio::test]
async fn a_failed_start_is_reported_without_control_characters() {
    let text = HOSTILE.bytes().map(|byte| format!("\\{byte:03o}")).collect::<String>();
    let builder = Shim::worker(&format!("sh -c 'printf \"{text}\" >&2; exit 7'"));
    let path = builder.dir().join("message");
    std::fs::write(&path, "").unwrap();
    let mut shim = builder.env("SIDECAR_SHIM_TERMINATION_LOG", &path).spawn();
    assert_eq!(shim.exited().await.code(), Some(1));
    let message = std::fs::read_to_string(path).unwrap();
    assert!(message.ends_with(SHOWN), "{message:?}");
    assert_harmless(&message);
    shim.assert_logged("sidecar-shim: cannot start hook worker");
    for line in &shim.lines {
        let fields = line.as_object().unwrap();
        fields.values().filter_map(Value::as_str).for_each(assert_harmless);
    }
}
