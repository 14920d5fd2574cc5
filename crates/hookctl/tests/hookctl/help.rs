//! Help, man pages and completions. How long each command's help is, unit tests check.

use tokio::process::Command;

use crate::call::text;
use crate::hookctl;

/// Runs hookctl, and returns what it prints.
async fn printed(args: &[&str]) -> String {
    let output = Command::new(hookctl()).args(args).output().await.unwrap();
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

#[tokio::test]
async fn help_and_version_exit_with_status_0() {
    for (args, expected) in [
        (&["--help"][..], "check"),
        (&["call", "--help"], "SIDECAR_SHIM_<OPTION>"),
        (&["call", "--help"], "--repeat"),
        (&["check", "--help"], "--skip"),
        (&["-V"], concat!("hookctl ", env!("CARGO_PKG_VERSION"))),
    ] {
        let output = Command::new(hookctl()).args(args).output().await.unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(text(&output.stdout).contains(expected), "{}", text(&output.stdout));
    }
    let output = Command::new(hookctl()).arg("--no-such-flag").output().await.unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[tokio::test]
async fn the_short_help_lists_what_is_used_most_and_names_the_long_one() {
    for command in ["call", "check", "test"] {
        let (short, long) = (printed(&[command, "-h"]).await, printed(&[command, "--help"]).await);
        assert!(short.lines().count() <= 24, "{short}");
        assert!(short.contains(&format!("hookctl {command} --help")), "{short}");
        assert!(long.lines().count() > short.lines().count(), "{long}");
        assert!(long.contains("\nExamples:\n  hookctl "), "{long}");
        assert!(
            long.contains("--start-timeout") && long.contains("\nOptions of sidecar-shim"),
            "{long}"
        );
    }
    // That of the hook is the hook's.
    let output = Command::new(hookctl()).args(["call", "--", "true", "-h"]).output().await.unwrap();
    assert!(text(&output.stderr).contains("hookctl call --list"), "{output:?}");
}

#[tokio::test]
async fn man_pages_of_both_programs_are_written() {
    let dir = tempfile::tempdir().unwrap();
    let pages = dir.path().join("new/pages");
    printed(&["man", pages.to_str().unwrap()]).await;
    let page = |name: &str| std::fs::read_to_string(pages.join(name)).unwrap();
    let call = page("hookctl-call.1");
    for part in
        [".TH HOOKCTL-CALL 1 ", ".SH EXAMPLES\n", "hookctl call\\fR \\-\\-list", "\\-\\-watch"]
    {
        assert!(call.contains(part), "{part}: {call}");
    }
    assert!(page("sidecar-shim.1").contains("\\-\\-plugin\\-socket"));
    assert!(page("sidecar-shim-status.1").contains("sidecar\\-shim status"));
    assert!(!pages.join("sidecar-shim-call.1").exists(), "the command has moved");
    let output = Command::new(hookctl()).args(["man", "/dev/null/x"]).output().await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("/dev/null/x"), "{}", text(&output.stderr));
}

#[tokio::test]
async fn completions_know_commands_and_options() {
    for (shell, part) in
        [("bash", "_hookctl()"), ("zsh", "#compdef hookctl"), ("fish", "complete -c hookctl")]
    {
        let script = printed(&["completions", shell]).await;
        assert!(script.contains(part) && script.contains("watch"), "{script}");
    }
}
