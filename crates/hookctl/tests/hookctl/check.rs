//! `hookctl check`: it passes good workers, and each check fails the worker with its fault, which
//! no other check does.

use std::collections::BTreeSet;
use std::process::{Output, Stdio};
use std::sync::Arc;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::hookctl;
use crate::support::{
    LIMIT, Language, PYTHON, Program, children, file, go, perl, python, read, rust,
};

/// Maximum number of runs at once: they mostly wait.
const RUNS_AT_ONCE: usize = 4;

/// Timeouts that good workers never reach, even on a slow machine.
const PATIENT: [&str; 4] = ["--timeout", "60s", "--kill-grace", "20s"];

/// Annotations that the examples act upon.
const ANNOTATIONS: [(&str, &str); 5] = [
    ("smbios.vm.kubevirt.io/baseBoardManufacturer", "Bell & Öre <3"),
    ("bootdisk.vm.kubevirt.io/order", "cloudinitdisk, rootdisk"),
    ("iommu.vm.kubevirt.io/model", "intel"),
    ("qemu.vm.kubevirt.io/options", r#"{"-rtc":"base=localtime"}"#),
    ("timezone.vm.kubevirt.io/name", "Europe/Lisbon"),
];

/// The examples of SDKs, by their names.
const EXAMPLES: [&str; 7] =
    ["smbios", "boot_disk", "iommu", "qemu_arguments", "cloud_init", "memlock", "network_binding"];

/// The optional parts of the protocol, whose checks are skipped for workers without them.
const OPTIONAL: &[&str] = &["attachments", "cancel", "concurrency"];

/// The commands of good workers, and which of [`OPTIONAL`] they may lack.
fn good_workers() -> Vec<(Vec<String>, &'static [&'static str])> {
    let without_sdk = [perl("smbios"), Some(python("bare"))].into_iter().flatten();
    let go = ["smbios", "qemu_arguments", "cloud_init"].into_iter().filter_map(go);
    let others = EXAMPLES.map(python).into_iter().chain(EXAMPLES.map(rust));
    let may_lack = |program: &Program| match program.language {
        Language::Go => &["concurrency"],
        _ => OPTIONAL,
    };
    let examples = without_sdk.chain(go).chain(others);
    let mut workers: Vec<_> = examples.map(|it| (it.words.clone(), may_lack(&it))).collect();
    let fixture = file("tests/fixtures/faulty.py").display().to_string();
    let faultless = [PYTHON.clone(), "-IS".to_owned(), fixture];
    workers.push(([&faultless[..], &["--plain".to_owned()]].concat(), OPTIONAL));
    workers.push((faultless.to_vec(), OPTIONAL));
    workers
}

/// Faults of `faulty.py`, which are named after the check that they fail, and what it reports.
const FAULTS: &[(&str, &str)] = &[
    ("handshake", "it declares no hooks"),
    ("newer-shim", "it refused initialize: unexpected params"),
    ("no-common-version", "it responded with a result"),
    ("protocol-variable", "exited with status 0"),
    ("call", "neither the field \"cloudInitData\" nor \"unchanged\":true"),
    ("unknown-fields", "unexpected params"),
    ("unknown-method", "with error -32603"),
    ("unknown-notification", "a response without the request's id"),
    ("ids", "a response to request 2, which was never sent"),
    ("useless-params", "exited with status 3 before it responded to onDefineDomain"),
    ("escapes", "another result for the same call with \\u escapes"),
    ("same-result", "two results for the same call in two processes"),
    ("text-intact", "lost white space"),
    ("minimal-document", "exited with status 3"),
    ("large-document", "exited with status 1"),
    ("idempotent", "changed its own result again"),
    ("namespaces", "something else in a domain with <commandline xmlns"),
    ("torn-writes", "exited with status 1"),
    ("joined-writes", "got no response within 5s"),
    ("whole-call", "before the last byte was sent"),
    ("bad-length", "still running 3s after a frame of length 16777216"),
    ("half-frame", "after EOF in the length of a frame it exited with status 0"),
    ("bad-json", "still running 3s after half a JSON object"),
    ("attachments", "exited with status 1"),
    ("cancel", "a response to request 1099511627776, which was never sent"),
    ("concurrency", "got another call's result"),
    ("end-of-file", "at EOF it exited with status 1"),
    ("end-of-file-in-call", "exited with status 0 before it responded to onDefineDomain"),
    ("sigterm", "still running 3s after SIGTERM"),
    ("memory", "it grew by more than 1000 KiB in every 250"),
    ("one-response", "a second response to request"),
    ("known-messages", "a notification other than $/log"),
    ("frames-alone", "outside frames: 11 bytes in 1 line, which look like text: \"got a call\\n\""),
];

/// More faults that the same checks find. One worker has several, each for another check.
const MORE_FAULTS: &[&[(&str, &str, &str)]] = &[
    &[
        ("no-common-version-data", "no-common-version", "without an array data.protocolVersions"),
        ("protocol-variable-status", "protocol-variable", "exited with status 0"),
        ("ids-as-text", "ids", "a response without the request's id"),
        (
            "same-result-hooks",
            "same-result",
            "declared onDefineDomain, preCloudInitIso, preVMStart",
        ),
        ("text-intact-attributes", "text-intact", "changed an attribute"),
        ("frames-alone-much", "frames-alone", "outside frames: 10000 bytes in"),
        ("known-messages-log", "known-messages", "a $/log whose level is none of debug, info"),
    ],
    &[
        ("no-common-version-exit", "no-common-version", "did not wait for EOF"),
        ("same-result-twice", "same-result", "two results for the same call"),
        ("text-intact-elements", "text-intact", "lost an element"),
        ("known-messages-request", "known-messages", "a request, which workers must not send"),
    ],
    &[
        ("text-intact-cloud-init", "text-intact", "letters in NetworkData"),
        ("idempotent-prefix", "idempotent", "rewritten as KubeVirt does for hook sidecars"),
    ],
    &[
        ("idempotent-default", "idempotent", "rewritten as KubeVirt does for hook sidecars"),
        ("idempotent-default", "namespaces", "something else in a domain with <commandline xmlns"),
    ],
    &[("idempotent-mark", "idempotent", "and look for what you change, not for marks")],
];

async fn check(args: &[&str], words: &[&str]) -> Output {
    let mut command = Command::new(hookctl());
    command.arg("check").args(args).arg("--").args(words).kill_on_drop(true);
    tokio::time::timeout(3 * LIMIT, command.output()).await.unwrap().unwrap()
}

/// Runs all checks, and reads the report.
async fn report(args: &[&str], words: &[&str]) -> Value {
    let output = check(&[&["--json"], args].concat(), words).await;
    let (out, errors) = (output.stdout, String::from_utf8_lossy(&output.stderr).into_owned());
    let report: Value = serde_json::from_slice(&out).unwrap_or_else(|_| panic!("{errors}"));
    assert_eq!(output.status.code(), Some(i32::from(report["passed"] != true)), "{errors}");
    assert!(errors.is_empty(), "{errors}");
    assert!(
        !report.to_string().contains("sample-vm"),
        "the report contains a document: {report:#}"
    );
    report
}

/// Returns the checks with one status, and their details.
fn with_status<'a>(report: &'a Value, status: &str) -> Vec<(&'a str, &'a str)> {
    let checks = report["checks"].as_array().unwrap().iter();
    let these = checks.filter(|check| check["status"] == status);
    these
        .map(|check| {
            (check["name"].as_str().unwrap(), check["detail"].as_str().unwrap_or_default())
        })
        .collect()
}

#[tokio::test]
async fn good_workers_pass() {
    let dir = tempfile::tempdir().unwrap();
    let mut vmi: Value =
        serde_json::from_str(&read("crates/hookctl/src/samples/vmi.json")).unwrap();
    vmi["metadata"]["annotations"] = ANNOTATIONS.into_iter().collect();
    // What the network binding plugin acts upon.
    let interface = &mut vmi["spec"]["domain"]["devices"]["interfaces"][0];
    *interface = json!({"name": "default", "binding": {"name": "passt"}});
    vmi["status"]["interfaces"] = json!([{"name": "default", "podInterfaceName": "eth0"}]);
    let vmi_file = dir.path().join("vmi.json").display().to_string();
    std::fs::write(&vmi_file, vmi.to_string()).unwrap();
    let permits = Arc::new(Semaphore::new(RUNS_AT_ONCE));
    let mut runs = JoinSet::new();
    for (words, may_lack) in good_workers() {
        let (permits, vmi_file) = (permits.clone(), vmi_file.clone());
        runs.spawn(async move {
            let _permit = permits.acquire().await.unwrap();
            let args = [&PATIENT[..], &["--vmi", &vmi_file]].concat();
            let report = report(&args, &words.iter().map(String::as_str).collect::<Vec<_>>()).await;
            assert_eq!(report["passed"], true, "{words:?}: {:#?}", with_status(&report, "failed"));
            let skipped: BTreeSet<_> =
                with_status(&report, "skipped").into_iter().map(|(name, _)| name).collect();
            let hooks = report["declared"]["hooks"].as_array().unwrap();
            let has_document =
                hooks.iter().any(|hook| *hook == "onDefineDomain" || *hook == "preCloudInitIso");
            let may_skip = |name: &&str| match *name {
                "text-intact" | "large-document" | "idempotent" => !has_document,
                "namespaces" => !hooks.iter().any(|hook| *hook == "onDefineDomain"),
                name => may_lack.contains(&name),
            };
            assert!(skipped.iter().all(may_skip), "{words:?}: {skipped:?}");
        });
    }
    while let Some(run) = runs.join_next().await {
        run.unwrap();
    }
}

#[tokio::test]
async fn every_check_fails_the_worker_with_its_fault_and_no_other_check_does() {
    let all = report(&["--skip", "memory", "--timeout", "60s"], &["false"]).await;
    let names =
        all["checks"].as_array().unwrap().iter().map(|check| check["name"].as_str().unwrap());
    let tested: Vec<_> = FAULTS.iter().map(|(fault, _)| *fault).collect();
    assert_eq!(names.collect::<Vec<_>>(), tested, "each check has a worker that fails it");

    let singles = FAULTS.iter().map(|&(fault, seen)| vec![(fault, fault, seen)]);
    let several = MORE_FAULTS.iter().map(|faults| faults.to_vec());
    let permits = Arc::new(Semaphore::new(RUNS_AT_ONCE));
    let mut runs = JoinSet::new();
    for faults in singles.chain(several) {
        let permits = permits.clone();
        runs.spawn(async move {
            let _permit = permits.acquire().await.unwrap();
            fails_as_expected(&faults).await;
        });
    }
    while let Some(run) = runs.join_next().await {
        run.unwrap();
    }
}

/// Checks a worker that has some faults.
async fn fails_as_expected(faults: &[(&str, &str, &str)]) {
    let names = faults.iter().map(|(fault, ..)| *fault).collect::<Vec<_>>().join(",");
    let state = tempfile::tempdir().unwrap();
    let state = state.path().join("made by the first process").display().to_string();
    let fixture = file("tests/fixtures/faulty.py").display().to_string();
    let words = [&*PYTHON, "-IS", &fixture, "--fault", &names, "--state", &state];
    // A fault that makes a wait reach its timeout gets a short one.
    let timeout = if names == "joined-writes" { "5s" } else { "60s" };
    let is_late = ["bad-length", "bad-json", "sigterm"].contains(&&*names);
    let grace = if is_late { "3s" } else { "20s" };
    let mut args = vec!["--timeout", timeout, "--kill-grace", grace];
    if names != "memory" {
        args.extend(["--skip", "memory"]);
    }
    let report = report(&args, &words).await;
    let failed = with_status(&report, "failed");
    let found: BTreeSet<_> = failed.iter().map(|(name, _)| *name).collect();
    let expected: BTreeSet<_> = faults.iter().map(|(_, check, _)| *check).collect();
    assert_eq!(found, expected, "{names}: {failed:#?}");
    for (_, check, seen) in faults {
        let (_, said) = failed.iter().find(|(name, _)| name == check).unwrap();
        assert!(said.contains(seen), "{names}: {said}");
    }
}

#[tokio::test]
async fn a_failure_is_shown_with_its_reason_and_the_section_of_the_page() {
    let fixture = file("tests/fixtures/faulty.py").display().to_string();
    let words = [&*PYTHON, "-IS", &fixture, "--fault", "bad-json,useless-params"];
    let output = check(&["--skip", "memory,large-document", "--kill-grace", "2s"], &words).await;
    assert_eq!(output.status.code(), Some(1));
    let table = String::from_utf8(output.stdout).unwrap();
    for part in [
        "ok    handshake  ",
        "FAIL  useless-params  ",
        "seen:   it exited with status 3 before it responded to onDefineDomain",
        "why:    a worker that exits over one call",
        "see:    protocol.md#errors\n",
        "skip  memory  ",
        "left out by --skip\n",
        "29 passed, 2 failed, 2 skipped: ",
    ] {
        assert!(table.contains(part), "no {part:?} in\n{table}");
    }
    assert!(!table.contains('\u{1b}'), "no colours where there is no terminal");
    let coloured = check(&["--color", "always", "--skip", "memory"], &["false"]).await.stdout;
    assert!(String::from_utf8(coloured).unwrap().contains("\u{1b}[1m\u{1b}[31mFAIL\u{1b}[0m"));
}

#[tokio::test]
async fn hooks_that_need_a_special_vm_get_one() {
    let fixture = file("tests/fixtures/faulty.py").display().to_string();
    let words = [&*PYTHON, "-IS", &fixture, "--needs", "gpu"];
    let refused = report(&["--skip", "memory"], &words).await;
    let failed = with_status(&refused, "failed");
    let text = "hook onDefineDomain refused: this hook needs a VMI with gpu \
                (pass other documents with --vmi, --domain and --cloud-init)";
    assert_eq!(failed, [("call", text)]);
    assert!(with_status(&refused, "skipped").contains(&("torn-writes", "`call` failed")));

    let dir = tempfile::tempdir().unwrap();
    let vmi = dir.path().join("vmi.json");
    std::fs::write(&vmi, r#"{"gpu":true}"#).unwrap();
    let args = [&PATIENT[..], &["--skip", "memory", "--vmi", vmi.to_str().unwrap()]].concat();
    let taken = report(&args, &words).await;
    // `minimal-document` sends a VMI without gpu, which the hook may refuse.
    assert_eq!(with_status(&taken, "failed"), []);
}

#[tokio::test]
async fn a_worker_that_does_not_start_fails_one_check() {
    let floods = "import os
message = b'{\"jsonrpc\":\"2.0\",\"method\":\"$/log\",\"params\":{\"message\":\"x\"}}'
while True: os.write(1, (len(message).to_bytes(4, 'big') + message) * 1000)";
    for (words, seen) in [
        (vec!["false"], "it exited with status 1 before it responded to initialize (request 1)"),
        (vec!["/no/such/worker"], "cannot run /no/such/worker"),
        (
            vec!["sh", "-c", "exec sleep 1000"],
            "initialize (request 1) got no response within 500ms",
        ),
        (vec![&PYTHON, "-c", floods], "initialize (request 1) got no response within 500ms"),
    ] {
        let report = report(&["--start-timeout", "500ms"], &words).await;
        let failed = with_status(&report, "failed");
        assert!(failed[0].1.contains(seen), "{failed:#?}");
        assert_eq!(failed[0].0, "handshake");
        // Started by hand, they fail too.
        assert!(failed[1..].iter().all(|(name, _)| *name == "protocol-variable"), "{failed:#?}");
        assert_eq!(report["declared"], Value::Null);
    }
}

#[tokio::test]
async fn unusable_arguments_are_rejected_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let broken = dir.path().join("domain.xml");
    std::fs::write(&broken, "<domain>secret").unwrap();
    for (args, status, expected) in [
        (vec!["--domain", broken.to_str().unwrap(), "--", "cat"], 1, "not a well-formed domain"),
        (vec!["--vmi", "/no/such/file", "--", "cat"], 1, "cannot read /no/such/file"),
        (vec![], 1, "no worker: give its command after `--`"),
        (vec!["--skip", "no-such-check", "--", "cat"], 2, "docs/check.md lists them"),
    ] {
        let output = Command::new(hookctl()).arg("check").args(&args).output().await.unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(status), "{errors}");
        assert!(errors.contains(expected) && !errors.contains("secret"), "{errors}");
        assert!(output.stdout.is_empty());
    }
}

#[tokio::test]
async fn an_interrupted_check_leaves_no_process_behind() {
    let hangs = "import sys, time; print('hanging', file=sys.stderr, flush=True); time.sleep(1000)";
    let mut child = Command::new(hookctl())
        .args(["check", "--log-level", "info", "--", &*PYTHON, "-c", hangs])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let pid = child.id().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let ended = async {
        let line = loop {
            let line = lines.next_line().await.unwrap().expect("it has not hung");
            if line.contains("hanging") {
                break line;
            }
        };
        let workers = children(u64::from(pid));
        assert_eq!(workers.len(), 1, "{line}");
        #[expect(clippy::disallowed_methods, reason = "tests signal the shim")]
        kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGINT).unwrap();
        let mut last = String::new();
        while let Some(line) = lines.next_line().await.unwrap() {
            last = line;
        }
        assert_eq!(last, "hookctl: interrupted");
        assert_eq!(child.wait().await.unwrap().code(), Some(130));
        assert!(!crate::support::exists(workers[0]), "it was reaped before");
    };
    tokio::time::timeout(LIMIT, ended).await.unwrap();
}
