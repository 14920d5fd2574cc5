//! `hookctl check` finds what is wrong with a worker: mutants of a correct one, each of which one
//! check reports, in words that say what to do, and no other check does.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::process::Command;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::check::{RUNS_AT_ONCE, report, with_status};
use crate::hookctl;
use crate::support::{PYTHON, file};

/// How a check ends that finds the fault.
const FAIL: &str = "failed";
const WARN: &str = "warned";

/// The switch of `faulty.py`, the check that finds the fault, how it ends, and what it reports.
type Fault = (&'static str, &'static str, &'static str, &'static str);

/// Workers with one or several faults, each for another check.
const MUTANTS: &[&[Fault]] = &[
    // ---- The start, and frames ----
    &[("handshake", "handshake", FAIL, "it declares no hooks")],
    &[(
        "handshake-unflushed",
        "handshake",
        FAIL,
        "it wrote 0 bytes to stdout within 5s; it responds when its stdin is closed: flush stdout \
         after each message",
    )],
    &[(
        "handshake-little",
        "handshake",
        FAIL,
        "it responds if the length is in little-endian order: read and write it in big-endian",
    )],
    &[(
        "handshake-little-output",
        "handshake",
        FAIL,
        "write the length of each message in big-endian order",
    )],
    &[(
        "handshake-lines",
        "handshake",
        FAIL,
        "it responds to a line of JSON (newline-delimited JSON): read and write the length",
    )],
    &[(
        "handshake-lines-output",
        "handshake",
        FAIL,
        "lines of JSON without a length (newline-delimited JSON): \"{",
    )],
    &[(
        "handshake-content-length",
        "handshake",
        FAIL,
        "it responds to a message with a `Content-Length` header (the framing of LSP): read",
    )],
    &[("handshake-byte-order-mark", "handshake", FAIL, "it begins with a byte order mark")],
    &[(
        "handshake-length",
        "handshake",
        FAIL,
        "bytes: the length of a frame counts only the bytes behind it",
    )],
    &[(
        "handshake-two-values",
        "handshake",
        FAIL,
        "behind the first value: write each message in a separate frame",
    )],
    &[("handshake-id", "handshake", FAIL, "a response to request 2, which was never sent")],
    &[("torn-writes", "torn-writes", FAIL, "exited with status 1")],
    &[("joined-writes", "joined-writes", FAIL, "got no response within 5s")],
    &[("whole-call", "whole-call", FAIL, "before the last byte was sent")],
    &[("bad-length", "bad-length", FAIL, "still running 3s after a frame of length 16777216")],
    &[("bad-json", "bad-json", FAIL, "still running 3s after two JSON objects in one frame")],
    &[("bad-json-two", "bad-json", FAIL, "two JSON objects in one frame")],
    // ---- Calls ----
    &[("call", "call", FAIL, "neither the field \"cloudInitData\" nor \"unchanged\":true")],
    &[("call-kind", "call", FAIL, "has an array in UserData, where KubeVirt reads a string")],
    &[(
        "call-child",
        "call",
        FAIL,
        "(cat) has its stdin: a child process that inherits stdin reads the shim's messages: give \
         it /dev/null",
    )],
    &[("call-loop", "call", FAIL, "it is still computing: does a loop never end")],
    &[("call-late", "call", FAIL, "the response came after ")],
    &[("call-held", "call", FAIL, "it responded when more input came: read exactly the length")],
    &[("child-stdin", "child-stdin", FAIL, "a child process that inherits stdin reads the shim's")],
    &[("utf-8", "utf-8", FAIL, "the length of a frame counts bytes, not characters")],
    &[("utf-8-input", "utf-8", FAIL, "the length of a frame counts bytes, not characters")],
    &[("utf-8-ascii", "utf-8", FAIL, "messages are in UTF-8")],
    &[("unknown-fields", "unknown-fields", FAIL, "unexpected params")],
    &[("unknown-notification", "unknown-notification", FAIL, "a response without the request's")],
    &[("large-document", "large-document", FAIL, "exited with status 1")],
    // ---- Documents ----
    &[("annotation-text", "annotation-text", FAIL, "write text into XML with a library or an SDK")],
    &[("same-result", "same-result", WARN, "two results for the same call in two processes")],
    &[("text-intact", "text-intact", WARN, "lost white space")],
    &[("text-intact-beside", "text-intact", WARN, "lost white space")],
    &[("namespaces", "namespaces", WARN, "something else in a domain with <commandline xmlns")],
    &[("idempotent-mark", "idempotent", FAIL, "and look for what you change, not for marks")],
    &[
        ("idempotent-default", "idempotent", FAIL, "rewritten as KubeVirt does for hook sidecars"),
        (
            "idempotent-default",
            "namespaces",
            WARN,
            "something else in a domain with <commandline xmlns",
        ),
    ],
    // ---- Optional parts, and the end ----
    &[("attachments", "attachments", FAIL, "exited with status 1")],
    &[("concurrency", "concurrency", FAIL, "got another call's result")],
    &[("end-of-file-never", "end-of-file", FAIL, "still running 1s 500ms after EOF")],
    &[("sigterm", "sigterm", WARN, "still running 3s after SIGTERM")],
    &[("memory", "memory", WARN, "it grew by 64.")],
    &[("memory-little", "memory", WARN, "it grew by 1.")],
    // ---- Several, each for another check ----
    &[
        ("newer-shim", "newer-shim", FAIL, "it refused initialize: unexpected params"),
        ("unknown-method", "unknown-method", FAIL, "with error -32603"),
        ("nested-json", "nested-json", FAIL, "that was a VMI with arrays nested 100 deep"),
        ("end-of-file", "end-of-file", FAIL, "at EOF it exited with status 1"),
        ("known-messages", "known-messages", FAIL, "a notification other than $/log"),
        ("idempotent", "idempotent", FAIL, "changed its own result again"),
    ],
    &[
        ("no-common-version", "no-common-version", FAIL, "it responded with a result"),
        ("ids", "ids", FAIL, "a response to request 2, which was never sent"),
        (
            "useless-params",
            "useless-params",
            FAIL,
            "status 3 before it responded to onDefineDomain",
        ),
        ("half-frame", "half-frame", FAIL, "EOF in the length of a frame it exited with status 0"),
        ("one-response", "one-response", FAIL, "a second response to request"),
    ],
    &[
        ("escapes", "escapes", FAIL, "another result for the same call with \\u escapes"),
        ("minimal-document", "minimal-document", FAIL, "exited with status 3"),
        (
            "end-of-file-in-call",
            "end-of-file-in-call",
            FAIL,
            "exited with status 0 before it responded to onDefineDomain",
        ),
        ("cancel", "cancel", FAIL, "a response to request 1099511627776, which was never sent"),
        (
            "frames-alone",
            "frames-alone",
            FAIL,
            "outside frames: 11 bytes in 1 line, which look like text: \"got a call\\n\"",
        ),
    ],
    &[
        ("no-common-version-data", "no-common-version", FAIL, "without an array data.protocol"),
        ("protocol-variable", "protocol-variable", WARN, "exited with status 0"),
        ("ids-as-text", "ids", FAIL, "a response without the request's id"),
        ("same-hooks", "same-hooks", FAIL, "declared onDefineDomain, preCloudInitIso, preVMStart"),
        ("text-intact-attributes", "text-intact", WARN, "changed an attribute"),
        ("frames-alone-much", "frames-alone", FAIL, "outside frames: 10000 bytes in"),
        ("known-messages-log", "known-messages", FAIL, "a $/log whose level is none of debug"),
        ("annotation-text-twice", "annotation-text", FAIL, "escaped it twice"),
        ("leftovers", "leftovers", WARN, "more open descriptors: close what a call opens"),
    ],
    &[
        ("no-common-version-exit", "no-common-version", FAIL, "did not wait for EOF"),
        ("same-result-twice", "same-result", WARN, "two results for the same call"),
        ("text-intact-elements", "text-intact", WARN, "lost an element"),
        ("known-messages-request", "known-messages", FAIL, "a request, which workers must not"),
        ("annotation-text-encoding", "annotation-text", FAIL, "it reads UTF-8 as another encoding"),
        (
            "cloud-init-kinds",
            "cloud-init-kinds",
            FAIL,
            "has an array in ConfigDriveMetaData.public_keys",
        ),
        ("leftovers-zombies", "leftovers", WARN, "child processes that have exited: wait for"),
    ],
    &[
        ("protocol-variable-status", "protocol-variable", WARN, "exited with status 0"),
        ("text-intact-cloud-init", "text-intact", WARN, "letters in NetworkData, which it kept"),
        ("idempotent-prefix", "idempotent", FAIL, "rewritten as KubeVirt does for hook sidecars"),
        ("annotation-text-lost", "annotation-text", FAIL, "wrote a question mark"),
        ("cloud-init-kinds-missing", "cloud-init-kinds", FAIL, "FieldOfANewerKubeVirt is missing"),
        ("leftovers-threads", "leftovers", WARN, "more threads: end or reuse those"),
        (
            "large-document-refused",
            "large-document",
            WARN,
            "responded with an error: a large domain",
        ),
    ],
    &[
        ("text-intact-user-data", "text-intact", WARN, "letters in UserData, to which it adds"),
        ("annotation-text-other", "annotation-text", WARN, "wrote something else than that text"),
        ("leftovers-processes", "leftovers", WARN, "more processes: let no child process outlive"),
        ("frames-alone-start", "frames-alone", FAIL, "outside frames: 9 bytes in 1 line"),
    ],
    &[("annotation-text-refused", "annotation-text", WARN, "refuse a value with -32000")],
];

#[tokio::test]
async fn every_mutant_is_found_by_the_check_for_its_fault_and_by_no_other() {
    let list = Command::new(hookctl()).args(["check", "--list"]).output().await.unwrap();
    let list = String::from_utf8(list.stdout).unwrap();
    let checks: BTreeSet<_> = list
        .lines()
        .filter(|line| !line.starts_with(' '))
        .map(|line| line.split_whitespace().nth(1).unwrap())
        .collect();
    let tested: BTreeSet<_> =
        MUTANTS.iter().copied().flatten().map(|(_, check, ..)| *check).collect();
    assert_eq!(checks, tested, "each check has a mutant that it finds");

    let permits = Arc::new(Semaphore::new(RUNS_AT_ONCE));
    let mut runs = JoinSet::new();
    for faults in MUTANTS {
        let permits = permits.clone();
        runs.spawn(async move {
            let _permit = permits.acquire().await.unwrap();
            is_found(faults).await
        });
    }
    let results = runs.join_all().await;
    let wrong: Vec<_> = results.into_iter().filter_map(Result::err).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// Checks a worker that has some faults. An error says what was found instead.
async fn is_found(faults: &[Fault]) -> Result<(), String> {
    let names = faults.iter().map(|(fault, ..)| *fault).collect::<Vec<_>>().join(",");
    let state = tempfile::tempdir().unwrap();
    let state = state.path().join("made by the first process").display().to_string();
    let fixture = file("tests/fixtures/faulty.py").display().to_string();
    let words = [&*PYTHON, "-IS", &fixture, "--fault", &names, "--state", &state];
    // A fault that makes a wait reach its timeout gets a short one.
    let timeout = match &*names {
        "joined-writes" | "call-child" | "child-stdin" | "call-held" | "utf-8-input" => "5s",
        "call-late" | "call-loop" => "2s",
        _ => "60s",
    };
    let is_late = ["bad-length", "bad-json", "bad-json-two", "sigterm", "end-of-file-never"];
    let grace = match &*names {
        late if is_late.contains(&late) => "3s",
        "call-held" | "utf-8-input" | "joined-writes" | "call-late" | "call-loop" => "2s",
        _ => "20s",
    };
    let mut args = vec!["--timeout", timeout, "--kill-grace", grace];
    if !names.starts_with("memory") {
        args.extend(["--skip", "memory"]);
    }
    let report = report(&args, &words).await;
    let found: Vec<_> = [FAIL, WARN]
        .into_iter()
        .flat_map(|status| with_status(&report, status).into_iter().map(move |it| (status, it)))
        .collect();
    let ended: BTreeSet<_> = found.iter().map(|(status, (name, _))| (*name, *status)).collect();
    let expected: BTreeSet<_> =
        faults.iter().map(|(_, check, ended, _)| (*check, *ended)).collect();
    if ended != expected {
        return Err(format!("{names}: {found:#?}"));
    }
    for (_, check, _, seen) in faults {
        let (_, (_, said)) = found.iter().find(|(_, (name, _))| name == check).unwrap();
        if !said.contains(seen) {
            return Err(format!("{names}: {said}"));
        }
    }
    Ok(())
}
