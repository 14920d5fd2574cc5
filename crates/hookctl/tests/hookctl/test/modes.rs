//! Workers and programs: which mode a case runs in, and how they die there.

use serde_json::json;

use super::{Cases, DOMAIN, vmi};
use crate::support::{file, script};

#[tokio::test]
async fn documents_that_are_too_long_for_arguments_are_for_workers() {
    let cases = Cases::new();
    let long = vmi(&json!({"note": "x".repeat(200_000)}));
    cases.add("long", &[("vmi.json", &long), ("domain.xml", DOMAIN), ("unchanged", "")]);
    let why = "not run in exec mode: an argument of a program cannot hold the case's documents";
    cases.test(&[]).await.expect(0, &[why, "1 case: 1 passed · 2 calls"]);
    cases.test(&["--mode", "exec"]).await.expect(1, &["RESOURCE_EXHAUSTED", "1 failed"]);
}

#[tokio::test]
async fn a_program_that_is_no_worker_runs_in_exec_mode_and_a_worker_need_not() {
    let cases = Cases::new();
    cases.add("case", &[("vmi.json", &vmi(&json!({}))), ("domain.xml", DOMAIN), ("unchanged", "")]);
    let dir = tempfile::tempdir().unwrap();
    let program = script(
        dir.path(),
        "hook",
        "#!/bin/sh\n[ $# = 4 ] && { printf '%s' \"$4\"; exit; }; exit 3",
    );
    let tested = cases.test_hook(&[], &[program.to_str().unwrap()]).await;
    tested.expect(0, &["1 case: 1 passed · 2 calls"]);
    assert!(tested.stderr.contains("exec mode only"), "{}", tested.stderr);
    let bare = file("examples/python/bare.py");
    let tested = cases.test_hook(&[], &["python3", bare.to_str().unwrap()]).await;
    tested.expect(0, &["not run in exec mode: started as a program, it exits with status 2"]);
    tested.expect(0, &["1 case: 1 passed · 2 calls"]);
    // What does not start fails, and is not left out.
    let tested = cases.test_hook(&["--mode", "persistent"], &["false"]).await;
    tested.expect(1, &["cannot start hook worker", "1 case: 1 failed"]);
}

#[tokio::test]
async fn a_hook_that_is_not_in_path_is_named_with_its_directory() {
    let cases = Cases::new();
    let files = [("vmi.json", &*vmi(&json!({}))), ("domain.xml", DOMAIN), ("unchanged", "")];
    cases.add("cases/a", &files);
    script(cases.path(), "hook.py", "#!/bin/sh\nprintf %s \"$4\"\n");
    let absent = "there is no program of that name in $PATH";
    for (name, why) in [
        ("hook.py", format!("{absent}: the file in this directory is ./hook.py\n")),
        ("no-such-hook.py", format!("{absent}\n")),
    ] {
        let mut command = tokio::process::Command::new(crate::hookctl());
        command.args(["test", "--", name]).current_dir(cases.path());
        let tested = super::run(command).await;
        assert_eq!(tested.status, Some(2), "{}", tested.stdout);
        assert!(tested.stderr.ends_with(&why), "{}", tested.stderr);
    }
}

#[tokio::test]
async fn a_broken_program_does_not_refuse() {
    let cases = Cases::new();
    let files = [("domain.xml", DOMAIN), ("error.txt", "FAILED_PRECONDITION\n")];
    cases.add("a", &[&[("vmi.json", &*vmi(&json!({})))], &files[..]].concat());
    let directory = tempfile::tempdir().unwrap();
    for (name, text, why) in [
        ("signal", "kill -SEGV $$", "was killed by SIGSEGV"),
        ("child", "sh -c 'kill -SEGV $$'", "a signal has killed a program"),
        ("invalid", "echo not-xml", "can only refuse by an exit status"),
        ("empty", "exit 0", "can only refuse by an exit status"),
        ("missing", "no-such-command", "says that a program cannot be started"),
        ("file", "exec python3 nonexist.py", "fails in the same way without a call"),
        ("import", "exec python3 -c 'import nothing_of_this_name'", "without a call"),
    ] {
        let program = script(directory.path(), name, &format!("#!/bin/sh\n{text}\n"));
        let program = program.to_str().unwrap();
        for options in [&["--mode", "exec"][..], &[]] {
            let tested = cases.test_hook(options, &[program]).await;
            tested.expect(1, &[why, "fails, and does not refuse with FAILED_PRECONDITION: "]);
        }
    }
    for text in ["exit 1", "exit 2", "[ $# = 0 ] || echo not this VM >&2; exit 1"] {
        let program = script(directory.path(), "refuses", &format!("#!/bin/sh\n{text}\n"));
        let tested = cases.test_hook(&[], &[program.to_str().unwrap()]).await;
        tested.expect(0, &["1 passed · 2 calls"]);
    }
}

#[tokio::test]
async fn a_worker_that_runs_as_a_program_does_so_in_all_calls() {
    let cases = Cases::new();
    for (name, asks) in [("a", json!({"usage": "yes"})), ("b", json!({}))] {
        cases.add(name, &[("vmi.json", &vmi(&asks)), ("domain.xml", DOMAIN), ("unchanged", "")]);
    }
    let tested = cases.test(&[]).await;
    tested.expect(
        1,
        &[
            "  exec mode: domain.xml as it stands\n    the hook fails: INTERNAL: ",
            "exited with status 2",
            "2 cases: 1 passed, 1 failed · 7 calls",
        ],
    );
    assert!(!tested.stdout.contains("not run in exec mode"), "{}", tested.stdout);
    // Nothing shows that it is one.
    let tested = cases.test(&["--filter", "a"]).await;
    tested.expect(0, &["not run in exec mode: started as a program, it exits with status 2"]);
}

#[tokio::test]
async fn a_worker_that_dies_fails_the_case_though_another_one_answers() {
    let cases = Cases::new();
    for (name, refuse, file, contents) in [
        ("changes nothing", "", "unchanged", ""),
        ("refuses", "no", "error.txt", "FAILED_PRECONDITION\n"),
    ] {
        let flag = cases.path().join(format!(".{name}"));
        let mut asks = json!({"die once": flag});
        if !refuse.is_empty() {
            asks["refuse"] = refuse.into();
        }
        let files = [("vmi.json", &*vmi(&asks)), ("domain.xml", DOMAIN), (file, contents)];
        cases.add(name, &files);
    }
    let new = json!({"die once": cases.path().join(".new")});
    cases.add("new", &[("vmi.json", &vmi(&new)), ("domain.xml", DOMAIN)]);
    let tested = cases.test(&["--mode", "persistent", "--jobs", "1", "--update"]).await;
    let fault = "the worker died in this call, and another one replied";
    tested.expect(1, &["3 cases: 3 failed"]);
    assert_eq!(tested.stdout.matches(fault).count(), 3, "{}", tested.stdout);
    assert_eq!(cases.path().join("new").read_dir().unwrap().count(), 2, "nothing is written");
}
