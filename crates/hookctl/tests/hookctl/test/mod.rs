//! `hookctl test`: what passes and what fails.

mod broken;
mod modes;
mod pages;
mod results;

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::call::text;
use crate::hookctl;
use crate::support::{LIMIT, eventually, file, gone};

/// A domain in KubeVirt's spelling for sidecars.
const DOMAIN: &str = "<domain type=\"kvm\" xmlns:qemu=\"http://libvirt.org/schemas/domain/qemu/1.0\">\n\
    \t<name>vm</name>\n\
    \t<sysinfo type=\"smbios\"></sysinfo>\n\
    </domain>";

/// One with a QEMU command line.
const WITH_ARGUMENTS: &str = "<domain type=\"kvm\" \
    xmlns:qemu=\"http://libvirt.org/schemas/domain/qemu/1.0\">\n\
    \t<name>vm</name>\n\
    \t<qemu:commandline>\n\
    \t\t<qemu:arg value=\"-old\"></qemu:arg>\n\
    \t</qemu:commandline>\n\
    </domain>";

/// Directories with cases.
struct Cases(tempfile::TempDir);

impl Cases {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Makes a case of these files.
    fn add(&self, name: &str, files: &[(&str, &str)]) -> PathBuf {
        let directory = self.path().join(name);
        std::fs::create_dir_all(&directory).unwrap();
        for (file, contents) in files {
            std::fs::write(directory.join(file), contents).unwrap();
        }
        directory
    }

    fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.path().join(file)).unwrap()
    }

    fn has(&self, file: &str) -> bool {
        self.path().join(file).exists()
    }

    /// Tests the fixture.
    async fn test(&self, options: &[&str]) -> Tested {
        let hook = file("tests/fixtures/tested.py");
        self.test_hook(options, &["python3", hook.to_str().unwrap()]).await
    }

    async fn test_hook(&self, options: &[&str], hook: &[&str]) -> Tested {
        let mut command = Command::new(hookctl());
        command.arg("test").arg(self.path()).args(options).arg("--").args(hook);
        run(command).await
    }
}

struct Tested {
    status: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Tested {
    /// Checks the exit status, and that stdout has these parts.
    #[track_caller]
    fn expect(&self, status: i32, parts: &[&str]) -> &Self {
        let Self { stdout, stderr, .. } = self;
        assert_eq!(self.status, Some(status), "{stdout}\n{stderr}");
        for part in parts {
            assert!(stdout.contains(part), "{part:?} is not in {stdout}\n{stderr}");
        }
        self
    }
}

async fn run_with(mut command: Command, with: impl FnOnce(&mut Command)) -> Tested {
    with(&mut command);
    run(command).await
}

async fn run(mut command: Command) -> Tested {
    let output = tokio::time::timeout(LIMIT, command.kill_on_drop(true).output()).await;
    let Output { status, stdout, stderr } = output.unwrap().unwrap();
    Tested { status: status.code(), stdout: text(&stdout), stderr: text(&stderr) }
}

/// A VMI that asks for something.
fn vmi(asks: &Value) -> String {
    let annotations: serde_json::Map<_, _> = asks
        .as_object()
        .unwrap()
        .iter()
        .map(|(what, value)| (format!("tested/{what}"), value.clone()))
        .collect();
    json!({"metadata": {"name": "vm", "namespace": "ns", "annotations": annotations}}).to_string()
}

fn tagged(tag: &str) -> String {
    // Written otherwise than hooks and KubeVirt write it.
    format!(
        "<domain type='kvm'><!-- by hand -->\n  <name>vm</name><sysinfo type='smbios'>\
         <entry name='tag'><![CDATA[{tag}]]></entry></sysinfo></domain>\n"
    )
}

#[tokio::test]
async fn what_documents_say_is_compared_in_every_mode_and_spelling() {
    let cases = Cases::new();
    let same = tagged("R&D");
    cases.add(
        "tag/same",
        &[
            ("vmi.json", &vmi(&json!({"tag": "R&D"}))),
            ("domain.xml", DOMAIN),
            ("expected.xml", &same),
        ],
    );
    cases.add(
        "tag/none",
        &[
            ("vmi.json", &vmi(&json!({}))),
            ("domain.xml", DOMAIN),
            ("unchanged", ""),
            ("README.md", "text"),
            (".hidden", "text"),
        ],
    );
    cases.add(
        "refused",
        &[
            ("vmi.yaml", "metadata: {annotations: {tested/refuse: not this one}}"),
            ("domain.xml", DOMAIN),
            ("error.txt", "FAILED_PRECONDITION\n\nnot this\none\n"),
        ],
    );
    cases.add(
        "cloud-init",
        &[
            ("vmi.json", &vmi(&json!({"tag": "x"}))),
            ("cloud-init.json", r##"{"UserData": "#cloud-config\n", "VolumeName": "v"}"##),
            ("expected.json", r##"{"VolumeName":"v","UserData":"#cloud-config\n# x\n"}"##),
        ],
    );
    cases.add(
        "node/done",
        &[
            ("vmi.json", &vmi(&json!({}))),
            ("args.toml", "hook = \"PreVMStart\"\n"),
            ("unchanged", ""),
        ],
    );
    cases.add(
        "node/refused",
        &[
            ("vmi.json", &vmi(&json!({"tag": "vm"}))),
            ("args.toml", "hook = \"preVMStart\"\nnode = \"n7\"\n"),
            ("error.txt", "FAILED_PRECONDITION\nvm cannot start on n7"),
        ],
    );
    // Two modes each; domains as they stand and as Plugins, and what changed once more.
    let calls = 2 * (4 + 2 + 2 + 1 + 1 + 1);
    let summary = format!("6 cases: 6 passed · {calls} calls · ");
    let tested = cases.test(&[]).await;
    tested.expect(0, &["cloud-init (", "node/done (", "tag/same (", &summary]);
    let order: Vec<_> = tested.stdout.lines().map(|line| line.contains("ok ")).collect();
    assert_eq!(order, [true, true, true, true, true, true, false]);
    let one = cases.test(&["--filter", "none", "--jobs", "1", "--mode", "exec"]).await;
    one.expect(0, &["1 case: 1 passed · 2 calls · "]);
}

#[tokio::test]
async fn a_difference_is_named_by_path_and_shown_once() {
    let cases = Cases::new();
    let expected = tagged("b");
    cases.add(
        "tag",
        &[
            ("vmi.json", &vmi(&json!({"tag": "a"}))),
            ("domain.xml", DOMAIN),
            ("expected.xml", &expected),
        ],
    );
    cases.add(
        "user data",
        &[
            ("vmi.json", &vmi(&json!({"tag": "x"}))),
            ("cloud-init.json", r#"{"UserData": ""}"#),
            ("expected.json", r##"{"UserData": "# x"}"##),
        ],
    );
    cases.add(
        "text",
        &[
            ("vmi.json", &vmi(&json!({"refuse": "one reason"}))),
            ("domain.xml", DOMAIN),
            ("error.txt", "FAILED_PRECONDITION\nanother reason"),
        ],
    );
    cases.add(
        "status",
        &[
            ("vmi.json", &vmi(&json!({"refuse": "one reason"}))),
            ("domain.xml", DOMAIN),
            ("error.txt", "DEADLINE_EXCEEDED"),
        ],
    );
    cases.add(
        "succeeds",
        &[("vmi.json", &vmi(&json!({}))), ("domain.xml", DOMAIN), ("error.txt", "INTERNAL")],
    );
    let tested = cases.test(&["--color", "always"]).await;
    tested.expect(
        1,
        &[
            "  persistent mode: domain.xml as it stands; as KubeVirt writes it for a Plugin\n",
            "  exec mode: domain.xml as it stands; as KubeVirt writes it for a Plugin\n    the result differs from expected.xml\n",
            "altered /domain/sysinfo[@type='smbios']/entry[@name='tag']: \"b\" → \"a\"",
            "\u{1b}[31m    -    <entry name=\"tag\">b</entry>\u{1b}[0m",
            "altered /UserData: \"# x\" → \"# x\\n\"",
            "the message does not contain \"another reason\": FAILED_PRECONDITION: ",
            "fails with another status than DEADLINE_EXCEEDED: ",
            "the hook succeeds, and error.txt expects that it fails with INTERNAL",
            "5 cases: 5 failed · ",
        ],
    );
    assert_eq!(tested.stdout.matches("/domain/sysinfo").count(), 1, "{}", tested.stdout);
}

#[tokio::test]
async fn a_hook_that_reads_one_spelling_only_or_changes_its_result_again_fails() {
    let cases = Cases::new();
    let with = |old: &str, new: &str| vmi(&json!({ "replace": json!([[old, new]]).to_string() }));
    let expected = WITH_ARGUMENTS.replace("-old", "-new");
    cases.add(
        "for sidecars",
        &[
            ("vmi.json", &with("-old\"></qemu:arg", "-new\"></qemu:arg")),
            ("domain.xml", WITH_ARGUMENTS),
            ("expected.xml", &expected),
        ],
    );
    cases.add(
        "undeclared",
        &[
            ("vmi.json", &with("-old\"></arg", "-old\"></arg><qemu:arg value=\"-new\"/")),
            ("domain.xml", WITH_ARGUMENTS),
            ("unchanged", ""),
        ],
    );
    cases.add(
        "by hand",
        &[
            ("vmi.json", &with("\t<name>vm", "\t<name>other")),
            ("domain.xml", "<domain type='kvm'>  <name>vm</name></domain>"),
            ("unchanged", ""),
        ],
    );
    let grown = DOMAIN.replace("vm</name", "vmm</name");
    cases.add(
        "again",
        &[
            ("vmi.json", &with("m</name", "mm</name")),
            ("domain.xml", DOMAIN),
            ("expected.xml", &grown),
        ],
    );
    let tested = cases.test(&[]).await;
    tested.expect(
        1,
        &[
            "persistent mode: the result of domain.xml as it stands, sent again; a Plugin's result, sent again\n",
            "is changed once more, so the hook is not idempotent\n",
            "altered /domain/name: \"vmm\" → \"vmmm\"",
            "hint: KubeVirt calls a hook up to three times",
            "  persistent mode: as KubeVirt writes it for a Plugin\n  exec mode: as KubeVirt",
            "hint: a Plugin gets the same domain with other indentation, and no prefix",
            "prefix \"qemu\" is not declared",
            "  persistent mode: as KubeVirt writes it for a sidecar\n  exec mode: as KubeVirt",
            "4 cases: 4 failed",
        ],
    );
}

#[tokio::test]
async fn variables_and_deadlines_are_a_cases_own() {
    let cases = Cases::new();
    for tag in ["one", "two", "three"] {
        let (expected, env) = (tagged(tag), format!("[env]\nTESTED_TAG = \"{tag}\"\n"));
        cases.add(
            tag,
            &[
                ("vmi.json", &vmi(&json!({"tag": ""}))),
                ("domain.xml", DOMAIN),
                ("args.toml", &env),
                ("expected.xml", &expected),
            ],
        );
    }
    let pids = cases.path().join(".pids");
    cases.add(
        "slow",
        &[
            ("vmi.json", &vmi(&json!({"hang": pids.to_str().unwrap()}))),
            ("domain.xml", DOMAIN),
            ("args.toml", "deadline = \"300ms\""),
            ("error.txt", "DEADLINE_EXCEEDED"),
        ],
    );
    cases.test(&["--kill-grace", "100ms"]).await.expect(0, &["4 cases: 4 passed"]);
}

#[tokio::test]
async fn a_case_with_a_context_is_a_plugins() {
    let cases = Cases::new();
    let asks = vmi(&json!({"context": "yes"}));
    for (name, context, seen) in [
        ("given", "context = \"MigrationTarget\"", "the context is MigrationTarget"),
        ("none", "", "the context is "),
    ] {
        let error = format!("FAILED_PRECONDITION\n{seen}\n");
        let files = [("domain.xml", DOMAIN), ("args.toml", context), ("error.txt", &error)];
        cases.add(name, &[&[("vmi.json", asks.as_str())], &files[..]].concat());
    }
    cases.test(&["--mode", "persistent"]).await.expect(0, &["2 cases: 2 passed · 4 calls"]);
    let error = "FAILED_PRECONDITION\nthe context is Boot\n";
    std::fs::write(cases.path().join("none/error.txt"), error).unwrap();
    let tested = cases.test(&["--filter", "none", "--mode", "exec"]).await;
    tested.expect(1, &["  exec mode: domain.xml as it stands\n", "the context is None"]);
}

#[tokio::test]
async fn a_crash_is_the_cases_failure_and_the_next_case_runs() {
    let cases = Cases::new();
    for (name, asks) in [("a", json!({"crash": "yes"})), ("b", json!({}))] {
        cases.add(name, &[("vmi.json", &vmi(&asks)), ("domain.xml", DOMAIN), ("unchanged", "")]);
    }
    let tested = cases.test(&["--jobs", "1"]).await;
    tested.expect(1, &["SIGSEGV", "2 cases: 1 passed, 1 failed"]);
}

#[tokio::test]
async fn a_signal_ends_it_at_once_and_no_hook_is_left() {
    for mode in ["persistent", "exec"] {
        let cases = Cases::new();
        let pids = cases.path().join(".pids");
        for name in ["a", "b"] {
            cases.add(
                name,
                &[
                    ("vmi.json", &vmi(&json!({"hang": pids.to_str().unwrap()}))),
                    ("domain.xml", DOMAIN),
                    ("unchanged", ""),
                ],
            );
        }
        let hook = file("tests/fixtures/tested.py");
        let mut command = Command::new(hookctl());
        command.arg("test").arg(cases.path()).args(["--mode", mode, "--jobs", "2", "--"]);
        command.arg("python3").arg(hook).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.kill_on_drop(true).spawn().unwrap();
        let read = || std::fs::read_to_string(&pids).unwrap_or_default();
        eventually("the hook hangs", || read().ends_with('\n')).await;
        let pid = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap());
        #[expect(clippy::disallowed_methods, reason = "a test signals what it has started")]
        nix::sys::signal::kill(pid, Signal::SIGINT).unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(10), child.wait_with_output()).await;
        let output = ended.unwrap().unwrap();
        assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
        for line in read().lines() {
            let pid = line.strip_prefix("pid ").unwrap().parse().unwrap();
            assert!(gone(pid), "{mode}: {pid} is left");
        }
    }
}
