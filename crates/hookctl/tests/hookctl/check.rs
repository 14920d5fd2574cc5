//! `hookctl check`: it passes good workers, and shows what is wrong with others. `check_faults` has
//! the faults that it finds.

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
    LIMIT, Language, PYTHON, Program, children, file, go, perl, python, read, rust, skipped,
};

/// Maximum number of runs at once: they mostly wait.
pub(crate) const RUNS_AT_ONCE: usize = 4;

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
const EXAMPLES: [&str; 8] = [
    "smbios",
    "boot_disk",
    "iommu",
    "qemu_arguments",
    "cloud_init",
    "memlock",
    "network_binding",
    "vhost_user",
];

/// The workers of `examples/bare`, what their languages must be able to run, and the packages.
const BARE: [(&str, &[&str], &str); 4] = [
    ("worker.js", &["node", "-e", "0"], "nodejs"),
    ("worker.rb", &["ruby", "-rjson", "-e", "0"], "ruby"),
    ("worker.lua", &["lua5.4", "-e", "require 'dkjson'"], "lua5.4 and lua-dkjson"),
    ("worker.php", &["php", "-r", "json_encode(0);"], "php-cli"),
];

/// The optional parts of the protocol, whose checks are skipped for workers without them.
const OPTIONAL: &[&str] = &["attachments", "cancel", "concurrency"];

/// The commands of good workers, and which of [`OPTIONAL`] they may lack.
fn good_workers() -> Vec<(Vec<String>, &'static [&'static str])> {
    let without_sdk = [perl("smbios"), Some(python("bare"))].into_iter().flatten();
    let go = ["smbios", "qemu_arguments", "cloud_init", "vhost_user"].into_iter().filter_map(go);
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
    // A heap that grows up to a limit does not leak.
    let heap = ["--heap", "48"].map(str::to_owned);
    workers.push(([&faultless[..], &heap].concat(), OPTIONAL));
    let shell = file("tests/fixtures/worker.sh").display().to_string();
    workers.push((vec!["sh".to_owned(), shell], OPTIONAL));
    workers.extend(bare_workers().map(|words| (words, OPTIONAL)));
    workers
}

/// The commands of `examples/bare` whose languages this machine has.
fn bare_workers() -> impl Iterator<Item = Vec<String>> {
    let found = BARE.iter().filter(|(name, probe, package)| {
        let output = std::process::Command::new(probe[0]).args(&probe[1..]).output();
        let found = output.is_ok_and(|output| output.status.success());
        if !found {
            skipped(name, &format!("'{}' fails (Debian's {package})", probe.join(" ")));
        }
        found
    });
    found.map(|(name, probe, _)| {
        vec![probe[0].to_owned(), file(&format!("examples/bare/{name}")).display().to_string()]
    })
}

pub(crate) async fn check(args: &[&str], words: &[&str]) -> Output {
    let mut command = Command::new(hookctl());
    command.arg("check").args(args).arg("--").args(words).kill_on_drop(true);
    tokio::time::timeout(3 * LIMIT, command.output()).await.unwrap().unwrap()
}

/// Runs all checks, and reads the report.
pub(crate) async fn report(args: &[&str], words: &[&str]) -> Value {
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
pub(crate) fn with_status<'a>(report: &'a Value, status: &str) -> Vec<(&'a str, &'a str)> {
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
    // What the vhost-user example acts upon.
    vmi["metadata"]["labels"]["vhost-user.example/disk"] = "scratch-1".into();
    vmi["spec"]["domain"]["memory"] = json!({"guest": "1Gi", "hugepages": {"pageSize": "2Mi"}});
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
            let mut args = [&PATIENT[..], &["--vmi", &vmi_file]].concat();
            // The longest one: once for each language and SDK.
            if !words.iter().any(|word| word.contains("smbios") || word.contains("faulty")) {
                args.extend(["--skip", "memory"]);
            }
            let report = report(&args, &words.iter().map(String::as_str).collect::<Vec<_>>()).await;
            assert_eq!(report["passed"], true, "{words:?}: {:#?}", with_status(&report, "failed"));
            assert_eq!(with_status(&report, "warned"), [], "{words:?}");
            let skipped: BTreeSet<_> =
                with_status(&report, "skipped").into_iter().map(|(name, _)| name).collect();
            let hooks = report["declared"]["hooks"].as_array().unwrap();
            let changes_nothing = words[1..].iter().any(|word| word.contains("worker."));
            let reads_annotation = !["binding", "vhost", "memlock"]
                .iter()
                .any(|name| words.iter().any(|word| word.contains(name)));
            let has_hook = |name: &str| hooks.iter().any(|hook| hook == name);
            let has_document = has_hook("onDefineDomain") || has_hook("preCloudInitIso");
            let may_skip = |name: &&str| match *name {
                "text-intact" | "idempotent" | "namespaces" if changes_nothing => true,
                "text-intact" | "large-document" | "idempotent" => !has_document,
                // Those of the network binding and of vhost-user read other fields.
                "annotation-text" => changes_nothing || !reads_annotation,
                "cloud-init-kinds" => !has_hook("preCloudInitIso"),
                "namespaces" => !has_hook("onDefineDomain"),
                "memory" => args.contains(&"memory"),
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
async fn a_failure_is_shown_with_its_reason_and_the_section_of_the_page() {
    let fixture = file("tests/fixtures/faulty.py").display().to_string();
    let words = [&*PYTHON, "-IS", &fixture, "--fault", "bad-json,useless-params"];
    let output = check(&["--skip", "memory,large-document", "--kill-grace", "2s"], &words).await;
    assert_eq!(output.status.code(), Some(1));
    let table = String::from_utf8(output.stdout).unwrap();
    for part in [
        "ok    handshake  ",
        "FAIL  useless-params  ",
        "\n      seen:   it exited with status 3 before it responded to onDefineDomain",
        "\n      why:    a worker that exits over one call",
        "\n      see:    protocol.md#errors\n",
        "skip  memory  ",
        "left out by --skip\n",
        "36 passed, 0 warnings, 2 failed, 2 skipped in ",
    ] {
        assert!(table.contains(part), "no {part:?} in\n{table}");
    }
    assert!(!table.contains('\u{1b}'), "no colours where there is no terminal");
    let coloured = check(&["--color", "always", "--skip", "memory"], &["false"]).await.stdout;
    assert!(String::from_utf8(coloured).unwrap().contains("\u{1b}[1m\u{1b}[31mFAIL\u{1b}[0m"));
}

#[tokio::test]
async fn only_some_checks_run_on_demand() {
    let fixture = file("tests/fixtures/faulty.py").display().to_string();
    let words = [&*PYTHON, "-IS", &fixture];
    let report = report(&["--only", "escapes,ids"], &words).await;
    let ran: Vec<_> = with_status(&report, "passed").into_iter().map(|(name, _)| name).collect();
    assert_eq!(ran, ["handshake", "call", "ids", "escapes"]);
    assert_eq!(report["checks"].as_array().unwrap().len(), ran.len());
}

#[tokio::test]
async fn a_failed_handshake_is_one_failure_and_one_line_in_eighty_columns() {
    let words = r#"import sys; sys.exit("Traceback:\n  File 'hook.py'\n\tx = 1")"#;
    let output = check(&[], &[&PYTHON, "-c", words]).await;
    assert_eq!(output.status.code(), Some(1));
    let table = String::from_utf8(output.stdout).unwrap();
    let table = &table[..table.find(" s: ").unwrap()];
    assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
    let stderr =
        "      stderr: Traceback:\n                File 'hook.py'\n                  x = 1\n";
    assert!(table.contains(stderr), "{table}");
    let statuses: Vec<_> = table.lines().filter(|line| !line.starts_with(' ')).collect();
    assert!(statuses[0].starts_with("FAIL  handshake  "), "{table}");
    assert!(statuses[1].starts_with("skip  ") && statuses[1].ends_with(" checks need `handshake`"));
    assert_eq!((statuses[2], statuses.len()), ("", 4), "{table}");
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
    assert!(with_status(&refused, "skipped").contains(&("torn-writes", "it needs `call`")));

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
        assert_eq!(failed.len(), 1, "{failed:#?}");
        assert_eq!(failed[0].0, "handshake");
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
        (vec!["--skip", "no-such-check", "--", "cat"], 2, "`hookctl check --list` shows them"),
        (vec!["--only", "no-such-check", "--", "cat"], 2, "`hookctl check --list` shows them"),
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
