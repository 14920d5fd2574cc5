//! `hookctl call`, and with it the examples that people copy.

use std::path::Path;
use std::process::Output;

use tokio::process::Command;

use crate::has_perl;
use crate::support::{DOMAIN, Shim, example, file, hookctl, path_with, script, worker};

const MANUFACTURER: &str = "Copper Lantern Works";

async fn call(args: &[&str], with: impl FnOnce(&mut Command)) -> Output {
    let mut command = Command::new(hookctl());
    command.arg("call").args(args).current_dir(file(".")).kill_on_drop(true);
    with(&mut command);
    tokio::time::timeout(crate::support::LIMIT, command.output()).await.unwrap().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Checks what a hook did to the sample domain: the manufacturer is in the right place, and the
/// rest says what it said.
fn assert_is_set(output: &Output) {
    assert!(output.status.success(), "{}", text(&output.stderr));
    let domain = text(&output.stdout);
    let entry = format!("<entry name=\"manufacturer\">{MANUFACTURER}</entry>");
    let board = &domain[domain.find("<baseBoard>").unwrap()..domain.find("</baseBoard>").unwrap()];
    assert!(board.contains(&entry), "{domain}");
    assert_eq!(domain.matches(&entry).count(), 1);
    for kept in [
        "<kubevirt xmlns=\"http://kubevirt.io\">",
        "xmlns:qemu=",
        "default_sample-vm",
        "mode=\"sysinfo\"",
    ] {
        assert!(domain.contains(kept), "{kept} is lost: {domain}");
    }
    let diff = text(&output.stderr);
    let changes: Vec<_> = diff
        .lines()
        .filter(|line| {
            line.starts_with(['+', '-']) && !line.starts_with("+++") && !line.starts_with("---")
        })
        .collect();
    assert_eq!(changes.len(), 2, "one line is changed: {diff}");
    assert!(changes[1].contains(&entry), "{diff}");
}

#[tokio::test]
async fn every_example_sets_the_manufacturer_and_is_idempotent() {
    let (smbios, bare) = (file("examples/python/smbios.py"), file("examples/python/bare.py"));
    let (smbios, bare) = (smbios.to_str().unwrap(), bare.to_str().unwrap());
    let (rust, shell) = (example("smbios"), file("examples/shell/onDefineDomain"));
    let perl = file("examples/perl/smbios.pl");
    let perl = perl.to_str().unwrap();
    let has_perl = has_perl("the worker in Perl");
    for worker in [
        &["--mode", "persistent", "--", "python3", smbios][..],
        &["--mode", "persistent", "--", "python3", bare],
        &["--mode", "persistent", "--", "perl", perl],
        &["--mode", "persistent", "--", &rust],
        &["--mode", "exec", "--", "python3", smbios],
        &["--mode", "exec", "--", &rust],
        &["--mode", "exec", "--", shell.to_str().unwrap()],
    ] {
        if worker.contains(&"perl") && !has_perl {
            continue;
        }
        let args = [&["onDefineDomain"], worker].concat();
        let first = call(&args, |_| {}).await;
        assert_is_set(&first);
        let dir = tempfile::tempdir().unwrap();
        let once = dir.path().join("once.xml");
        std::fs::write(&once, &first.stdout).unwrap();
        let args = [&["onDefineDomain", "--domain", once.to_str().unwrap()], worker].concat();
        let second = call(&args, |_| {}).await;
        assert!(second.status.success(), "{}", text(&second.stderr));
        assert_eq!(text(&second.stdout), text(&first.stdout), "{worker:?} is not idempotent");
        assert_eq!(text(&second.stderr), "unchanged\n");
    }
}

#[tokio::test]
async fn the_shell_example_runs_from_path_as_in_a_pod() {
    let shell = file("examples/shell");
    let output = call(&["onDefineDomain"], |command| {
        command.env("PATH", path_with(&shell));
    })
    .await;
    assert_is_set(&output);
}

#[tokio::test]
async fn bare_worker_by_hand_is_as_short_as_promised() {
    let source = std::fs::read_to_string(file("examples/python/bare.py")).unwrap();
    assert!(source.lines().count() < 40, "{} lines", source.lines().count());
    let mut bare = Command::new("python3");
    bare.arg(file("examples/python/bare.py")).env_remove("KUBEVIRT_HOOK_PROTOCOL");
    let output = bare.output().await.unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(!output.stderr.is_empty());
    let perl = std::fs::read_to_string(file("examples/perl/smbios.pl")).unwrap();
    assert!(perl.lines().count() < 60, "{} lines", perl.lines().count());
}

#[tokio::test]
async fn cloud_init_has_its_own_sample_and_diff() {
    let answer = r#"{"do":"answer","value":{"UserData":"changed\nhere","DataSource":"noCloud"}}"#;
    let dir = tempfile::tempdir().unwrap();
    let vmi = dir.path().join("vmi.json");
    std::fs::write(&vmi, answer).unwrap();
    let worker = worker("");
    let args = ["preCloudInitIso", "--vmi", vmi.to_str().unwrap(), "--mode", "persistent"];
    let output = call(&args, |command| {
        command.env("SIDECAR_SHIM_WORKER", &worker);
    })
    .await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), r#"{"UserData": "changed\nhere", "DataSource": "noCloud"}"#);
    assert!(
        text(&output.stderr).contains("+  \"UserData\": \"changed\\n"),
        "{}",
        text(&output.stderr)
    );
}

#[tokio::test]
async fn repeat_reports_percentiles() {
    let worker = worker("");
    let args = ["onDefineDomain", "--mode", "persistent", "--repeat", "20"];
    let output = call(&args, |command| {
        command.args(["--worker", &worker]);
    })
    .await;
    let report = text(&output.stderr);
    // The worker's last words may come after it, from the log's thread.
    let prefix = "20 calls, each on a connection of its own: p50 ";
    let line = report.lines().find(|line| line.starts_with(prefix)).unwrap();
    let numbers = line.strip_prefix(prefix).unwrap();
    let (p50, p99) = numbers.split_once(" ms, p99 ").unwrap();
    let (p50, p99): (f64, f64) =
        (p50.parse().unwrap(), p99.strip_suffix(" ms").unwrap().parse().unwrap());
    assert!(0.0 < p50 && p50 <= p99, "{line}");
}

#[tokio::test]
async fn a_running_shim_can_be_called() {
    let shim = Shim::persistent("", &["--version", "v1alpha2"]).await;
    let dir = tempfile::tempdir().unwrap();
    let domain = dir.path().join("domain.xml");
    std::fs::write(&domain, DOMAIN).unwrap();
    let socket = shim.socket();
    let (socket, domain) = (socket.to_str().unwrap(), domain.to_str().unwrap());
    let output = call(&["onDefineDomain", "--socket", socket, "--domain", domain], |_| {}).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), DOMAIN);
    assert!(Path::new(socket).exists(), "it goes on running");
}

#[tokio::test]
async fn a_failed_call_says_what_and_why_and_ends_with_status_1() {
    let dir = tempfile::tempdir().unwrap();
    let vmi = dir.path().join("vmi.json");
    std::fs::write(&vmi, r#"{"do":"exit","status":9,"stderr":["no such disk"]}"#).unwrap();
    let vmi = vmi.to_str().unwrap();
    let worker = worker("");
    let failing = ["onDefineDomain", "--vmi", vmi, "--mode", "persistent", "--worker", &worker];
    let once = text(&call(&failing, |_| {}).await.stderr);
    assert_eq!(
        once.matches("exited with status 9").count(),
        3,
        "two workers lost, one error: {once}"
    );
    for (args, expected) in [
        (
            &failing[..],
            &["onDefineDomain failed: INTERNAL", "exited with status 9", "no such disk"][..],
        ),
        (
            &["onDefineDomain", "--mode", "persistent", "--", "false"],
            &["cannot start hook worker: false exited with status 1"],
        ),
        (
            &["onDefineDomain", "--vmi", "/no/such/file", "--", "cat"],
            &["cannot read /no/such/file"],
        ),
        (&["onDefineDomain", "--socket", "/no/such.sock"], &["cannot connect to /no/such.sock"]),
        (&["onDefineDomain"], &["this shim does not serve onDefineDomain"]),
        (&["noSuchHook", "--", "cat"], &["unknown hook \"noSuchHook\""]),
        (
            &["preVMStart", "--context", "Boot", "--", "cat"],
            &["--context goes with onDefineDomain"],
        ),
        (
            &["preVMStart", "--domain", "d.xml", "--", "cat"],
            &["--domain goes with onDefineDomain only"],
        ),
        (
            &["onDefineDomain", "--cloud-init", "c.json", "--", "cat"],
            &["--cloud-init goes with preCloudInitIso only"],
        ),
        (
            &["preVMStart", "--", "sh", "-c", "echo 'no room' >&2; exit 4"],
            &[
                "preVMStart failed: INTERNAL: hook preVMStart failed: sh -c ",
                "exited with status 4",
                "no room",
            ],
        ),
        (
            &["postVMStop"],
            &["UNIMPLEMENTED: hook postVMStop is not served here: there is no program"],
        ),
        (&["onDefineDomain", "--socket", "/s", "--", "cat"], &["either --socket or a command"]),
    ] {
        let output = call(args, |_| {}).await;
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(output.stdout.is_empty(), "{args:?}");
        let report = text(&output.stderr);
        for part in expected {
            assert!(report.contains(part), "{args:?} gives {report}");
        }
    }
}

#[tokio::test]
async fn whether_a_command_is_a_worker_or_a_program_is_found_out() {
    let dir = tempfile::tempdir().unwrap();
    let sh = |name, text: &str| {
        let path = script(dir.path(), name, &format!("#!/bin/sh\n{text}"));
        vec![path.to_str().unwrap().to_owned()]
    };
    let python =
        |file_name: &str| vec!["python3".to_owned(), file(file_name).display().to_string()];
    let answers = "printf '%s' \"$4\"\n";
    for (command, chosen, sign) in [
        (python("examples/python/smbios.py"), "(--mode persistent)", "answers initialize"),
        (vec![example("smbios")], "(--mode persistent)", "answers initialize"),
        (sh("quiet", answers), "(--mode exec)", "(it exited with status 0)"),
        (
            sh("usage", &format!("[ $# = 4 ] || exit 2\n{answers}")),
            "(--mode exec)",
            "(it exited with status 2)",
        ),
        (
            sh("text", &format!("echo hello\n{answers}")),
            "(--mode exec)",
            "(it wrote something else)",
        ),
        (
            sh("echo", &format!("[ $# = 4 ] || exec cat\n{answers}")),
            "(--mode exec)",
            "(it wrote something else)",
        ),
        (
            sh("closes", &format!("[ $# = 4 ] || {{ exec >&-; sleep 60; }}\n{answers}")),
            "(--mode exec)",
            "(it closed its stdout)",
        ),
    ] {
        let mut args = vec!["onDefineDomain", "--"];
        args.extend(command.iter().map(String::as_str));
        let output = call(&args, |_| {}).await;
        let report = text(&output.stderr);
        let mut lines = report.lines().filter(|line| line.starts_with("hookctl: "));
        let line = lines.next().unwrap_or_else(|| panic!("{command:?} gives {report}"));
        assert!(line.contains(chosen) && line.contains(sign), "{command:?} gives {report}");
        // One of them writes no domain.
        assert_eq!(lines.next().is_none(), !command[0].ends_with("text"), "{report}");
    }
    let output = call(&["onDefineDomain", "--", "/no/such/program"], |_| {}).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).starts_with("hookctl: cannot run /no/such/program: "));
    let noisy = sh("noisy", &format!("echo no arguments >&2\n{answers}"));
    let report = text(&call(&["onDefineDomain", "--", &noisy[0]], |_| {}).await.stderr);
    assert_eq!(report.matches("no arguments").count(), 1, "the call's alone: {report}");
    // A worker declares its hooks, and may have one of any name; a program may not.
    let own = worker("--hooks postRestore");
    let output = call(&["postRestore", "--worker", &own], |_| {}).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    let output = call(&["postRestore", "--", &sh("any", answers)[0]], |_| {}).await;
    assert!(text(&output.stderr).contains("unknown hook \"postRestore\""));
}

#[tokio::test]
async fn settings_of_the_service_in_the_environment_do_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let hook = script(dir.path(), "hook", "#!/bin/sh\nprintf '%s' \"$4\"\n");
    let output =
        call(&["onDefineDomain", "--mode", "exec", "--", hook.to_str().unwrap()], |command| {
            command
                .env("SIDECAR_SHIM_VERSION", "v1alpha9")
                .env("SIDECAR_SHIM_SOCKET_DIR", "/no/such/directory")
                .env("SIDECAR_SHIM_WORKER", "no-such-worker");
        })
        .await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stderr), "unchanged\n");
}

#[tokio::test]
async fn help_and_version_are_answers() {
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
async fn node_hooks_and_why_a_domain_hook_is_called_can_be_tried() {
    let dir = tempfile::tempdir().unwrap();
    let program = "#!/bin/sh\necho \"$3 $4\" >&2\n";
    let hook = script(dir.path(), "hook", program);
    let args = ["--node", "node07", "--", hook.to_str().unwrap()];
    let output = call(&[&["preVMStart"], &args[..]].concat(), |_| {}).await;
    let report = text(&output.stderr);
    assert!(output.status.success() && output.stdout.is_empty(), "{report}");
    assert!(report.contains("--node node07"), "{report}");
    assert!(report.ends_with("preVMStart has answered: its work is done\n"), "{report}");
    // One that comes later has to be named, so that a misspelt one is not run.
    let named = ["preVMSnapshot", "--node-hooks", "preVMSnapshot"];
    let output = call(&[&named, &args[..]].concat(), |_| {}).await;
    assert!(output.status.success(), "{}", text(&output.stderr));

    let program = "#!/bin/sh\nprintf '<domain><!-- %s --></domain>' \"$KUBEVIRT_HOOK_CONTEXT\"\n";
    let hook = script(dir.path(), "hook", program);
    let args = ["onDefineDomain", "--context", "MigrationTarget", "--", hook.to_str().unwrap()];
    let output = call(&args, |_| {}).await;
    assert_eq!(
        output.stdout,
        b"<domain><!-- MigrationTarget --></domain>",
        "{}",
        text(&output.stderr)
    );
}

#[tokio::test]
async fn a_socket_of_the_other_api_is_told_in_words() {
    let shim = Shim::plugin(&["--version", "v1alpha3"], |_, _| {}).await;
    let (legacy, plugin) = (shim.socket(), shim.plugin_socket());
    for (hook, socket, method) in [
        ("onDefineDomain", plugin, "kubevirt.hooks.info.Info/Info"),
        ("preVMStart", legacy, "kubevirt.hooks.plugins.v1alpha1.NodeHookService/ExecuteNodeHook"),
    ] {
        let output = call(&[hook, "--socket", socket.to_str().unwrap()], |_| {}).await;
        let report = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{report}");
        assert!(
            report.contains(&format!("does not serve {method}: is it a socket of the other")),
            "{report}"
        );
    }
}

#[tokio::test]
async fn variables_that_are_set_to_nothing_are_not_set() {
    let help = Command::new(hookctl()).args(["call", "--help"]).output().await.unwrap();
    let help = text(&help.stdout);
    let names = help.split("[env: ").skip(1).map(|rest| rest.split(['=', ']']).next().unwrap());
    let empty: Vec<_> = names.map(|name| (name, "")).collect();
    assert!(empty.len() > 10 && empty.iter().all(|(name, _)| name.starts_with("SIDECAR_SHIM_")));

    let dir = tempfile::tempdir().unwrap();
    script(dir.path(), "onDefineDomain", "#!/bin/sh\nprintf '%s' \"$4\"\n");
    for args in [&["onDefineDomain"][..], &["--call-timeout=9s", "onDefineDomain"]] {
        let output = call(args, |command| {
            command.env("PATH", path_with(dir.path())).envs(empty.clone());
        });
        let output = output.await;
        assert!(output.status.success(), "{output:?}");
    }
}
