//! The exit status is the documented one, whatever becomes of stdout and stderr.

use crate::hookctl;
use crate::support::{Stream, exit_status, file, worker};

#[tokio::test]
async fn every_command_keeps_its_exit_status_without_its_streams() {
    let dir = tempfile::tempdir().unwrap();
    let refused_vmi = dir.path().join("vmi.json");
    let error = r#"{"do":"error","error":{"code":-32000,"message":"refused"}}"#;
    std::fs::write(&refused_vmi, error).unwrap();
    let changed_vmi = dir.path().join("changed.json");
    std::fs::write(&changed_vmi, r#"{"do":"answer","value":"<domain>changed</domain>"}"#).unwrap();
    let (refused, changed) = (refused_vmi.to_str().unwrap(), changed_vmi.to_str().unwrap());
    let worker = worker("");
    let words = shlex(&worker);
    let call = |vmi| {
        [&["call", "onDefineDomain", "--vmi", vmi, "--mode", "persistent", "--"], &words[..]]
            .concat()
    };
    let (refusal, change) = (call(refused), call(changed));
    let cases = file("examples/cases/smbios/no-annotation");
    let echo = ["--mode", "exec", "--", "sh", "-c", "printf %s \"$4\"", "hook"];
    let test = [&["test", cases.to_str().unwrap()], &echo[..]].concat();
    let json =
        [&["call", "onDefineDomain", "--json", "--mode", "persistent", "--"], &words[..]].concat();
    let list = [&["call", "--list", "--mode", "persistent", "--"], &words[..]].concat();
    let generate =
        ["generate", "sidecar", "--image", "a", "--vm", "a/b", "--hook", "onDefineDomain"];
    for (args, expected) in [
        (&["--help"][..], 0),
        (&["-V"], 0),
        (&["call", "--help"], 0),
        (&["check", "-h"], 0),
        (&[], 2),
        (&["--no-such-option"], 2),
        (&["call", "onDefineDomain", "--repeat", "none"], 2),
        (&["call", "nope", "--", "cat"], 1),
        (&["call", "onDefineDomain", "--mode", "exec", "--", "/nowhere/program"], 1),
        (&["call", "onDefineDomain", "--mode", "exec", "--", "false"], 1),
        (&refusal, 1),
        (&change, 0),
        (&json, 0),
        (&list, 0),
        (&["call", "--list", "--watch", "--", "cat"], 2),
        (&["call", "--json", "onDefineDomain", "--", "/nowhere/program"], 1),
        (&generate, 0),
        (&["generate", "plugin"], 2),
        (&test, 0),
        (&["test", "/nowhere", "--", "cat"], 2),
        (&["test"], 2),
        (&["generate", "sidecar", "--image", "a", "--vm", "a/b"], 1),
        (&["check", "--", "false"], 1),
        (&["check", "--json", "--", "false"], 1),
    ] {
        for (stdout, stderr) in Stream::pairs() {
            // A result that is lost is a failure.
            let has_result = [&change[..], &json, &list, &generate].contains(&args);
            let is_lost = stdout == Stream::Full && has_result;
            let expected = if is_lost { 1 } else { expected };
            let status = exit_status(&hookctl(), args, (stdout, stderr)).await;
            assert_eq!(status, Some(expected), "{args:?} with {stdout:?}, {stderr:?}");
        }
    }
}

/// The words of the fixture's command, none of which has a quote in it.
fn shlex(command: &str) -> Vec<&str> {
    command.split_whitespace().map(|word| word.trim_matches('\'')).collect()
}
