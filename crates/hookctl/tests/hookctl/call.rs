//! `hookctl call`, and with it the examples that people copy.

use std::path::Path;
use std::process::Output;

use tokio::net::UnixListener;
use tokio::process::Command;

use crate::support::{DOMAIN, Shim, file, path_with, perl, read, script, worker};
use crate::{example, hookctl};

const MANUFACTURER: &str = "Copper Lantern Works";

/// Runs `hookctl call`.
pub async fn call(args: &[&str], with: impl FnOnce(&mut Command)) -> Output {
    let mut command = Command::new(hookctl());
    command.arg("call").args(args).current_dir(file(".")).kill_on_drop(true);
    with(&mut command);
    tokio::time::timeout(crate::support::LIMIT, command.output()).await.unwrap().unwrap()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Checks the sample domain after the hook: the manufacturer is in the right place, and the rest is
/// unchanged.
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
    // The entry is beside its parent's tags, or on its own line between them.
    assert!(matches!(changes.len(), 2 | 4), "one element is changed: {diff}");
    assert!(changes[changes.len() / 2].contains(&entry), "{diff}");
}

#[tokio::test]
async fn every_example_sets_the_manufacturer_and_is_idempotent() {
    let (smbios, bare) = (file("examples/python/smbios.py"), file("examples/python/bare.py"));
    let (smbios, bare) = (smbios.to_str().unwrap(), bare.to_str().unwrap());
    let (rust, shell) = (example("smbios"), file("examples/shell/onDefineDomain"));
    let perl_script = file("examples/perl/smbios.pl");
    let perl_script = perl_script.to_str().unwrap();
    let has_perl = perl("smbios").is_some();
    for worker in [
        &["--mode", "persistent", "--", "python3", smbios][..],
        &["--mode", "persistent", "--", "python3", bare],
        &["--mode", "persistent", "--", "perl", perl_script],
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
        let report = text(&second.stderr);
        assert!(report.starts_with("unchanged · ") && report.lines().count() == 1, "{report}");
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
    assert!(perl.lines().count() < 70, "{} lines", perl.lines().count());
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
    // The log's thread may print the worker's last lines after it.
    let line = report.lines().find(|line| line.contains(" · 20 calls: ")).unwrap();
    let number = |name: &str| -> f64 {
        let (_, behind) = line.split_once(&format!("{name} ")).unwrap();
        behind.split(' ').next().unwrap().parse().unwrap()
    };
    let times = ["min", "p50", "p99", "max"].map(number);
    assert!(0.0 < times[0] && times.is_sorted(), "{line}");
    assert!(line.ends_with(" calls/s") || line.contains(" calls/s · "), "{line}");
}

#[tokio::test]
async fn a_running_shim_can_be_called() {
    let shim = Shim::persistent("").version("v1alpha2").start().await;
    let dir = tempfile::tempdir().unwrap();
    let domain = dir.path().join("domain.xml");
    std::fs::write(&domain, DOMAIN).unwrap();
    let socket = shim.socket();
    let (socket, domain) = (socket.to_str().unwrap(), domain.to_str().unwrap());
    for socket in [socket, &format!("unix:{socket}"), &format!("unix://{socket}")] {
        let args = ["onDefineDomain", "--socket", socket, "--domain", domain];
        let output = call(&args, |_| {}).await;
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert_eq!(text(&output.stdout), DOMAIN);
    }
    assert!(Path::new(socket).exists(), "it goes on running");
    let output = call(&["onDefineDomain", "--socket", "@shim"], |_| {}).await;
    assert_eq!(output.status.code(), Some(2));
    let why = text(&output.stderr);
    assert!(why.contains("'@shim' for '--socket <PATH>': abstract sockets (@name)"), "{why}");
}

#[tokio::test]
async fn a_failed_call_reports_what_and_why_and_exits_with_status_1() {
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
async fn serves_variables_do_not_disturb_a_call() {
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
    let report = text(&output.stderr);
    assert!(report.starts_with("unchanged · ") && report.lines().count() == 1, "{report}");
}

#[tokio::test]
async fn node_hooks_and_contexts_can_be_tried() {
    let dir = tempfile::tempdir().unwrap();
    let program = "#!/bin/sh\necho \"$3 $4\" >&2\n";
    let hook = script(dir.path(), "hook", program);
    let args = ["--node", "node07", "--", hook.to_str().unwrap()];
    let output = call(&[&["preVMStart"], &args[..]].concat(), |_| {}).await;
    let report = text(&output.stderr);
    assert!(output.status.success() && output.stdout.is_empty(), "{report}");
    assert!(report.contains("--node node07"), "{report}");
    assert!(report.contains("\npreVMStart succeeded · "), "{report}");
    // The hook before a stop has two names.
    for hook in ["onVMStop", "preVMStop"] {
        let output = call(&[&[hook], &args[..]].concat(), |_| {}).await;
        let report = text(&output.stderr);
        assert!(report.contains(&format!("\n{hook} succeeded · ")), "{report}");
    }
    // A new node hook must be named, so that a misspelt one does not run.
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
async fn the_sample_domain_is_written_as_the_api_writes_it() {
    let dir = tempfile::tempdir().unwrap();
    let hook = script(dir.path(), "hook", "#!/bin/sh\nprintf '%s' \"$4\"\n");
    let file_text = read("crates/hookctl/src/samples/domain.xml");
    let sample = file_text.trim_end();
    let plugins = "<domain type=\"kvm\">\n  <name>default_sample-vm</name>\n";
    for (context, expected) in [(&[][..], sample), (&["--context", "Boot"][..], plugins)] {
        let args = [&["onDefineDomain"], context, &["--", hook.to_str().unwrap()]].concat();
        let output = call(&args, |_| {}).await;
        assert!(text(&output.stdout).starts_with(expected), "{}", text(&output.stderr));
        assert!(output.stdout.ends_with(b"\n</domain>"), "KubeVirt writes no line break there");
    }
    // A file is sent as it is.
    let args = ["onDefineDomain", "--context", "Boot", "--domain"];
    let file = file("crates/hookctl/src/samples/domain.xml");
    let args = [&args[..], &[file.to_str().unwrap(), "--", hook.to_str().unwrap()]].concat();
    assert_eq!(text(&call(&args, |_| {}).await.stdout), file_text);
}

#[tokio::test]
async fn a_hook_is_called_again_on_its_own_result() {
    let add = |to: &str, what: &str| format!("printf '%s' \"$4\" | sed 's#{to}#{what}{to}#'");
    let argument = "<qemu:commandline xmlns:qemu=\"http://libvirt.org/schemas/domain/qemu/1.0\">\
                    <qemu:arg value=\"-s\"/></qemu:commandline>";
    let (title, argument) = (add("</domain>", "<title>x</title>"), add("</domain>", argument));
    let guard = |part: &str, otherwise: &str| {
        format!("case \"$4\" in *{part}*) printf '%s' \"$4\";; *) {otherwise};; esac")
    };
    let mark = add("</metadata>", "<m:mark xmlns:m=\"urn:example:mark\"/>");
    let by_mark =
        guard("m:mark", &format!("{mark} | {}", title.replace("printf '%s' \"$4\" |", "")));
    let unchanged = " · again on its own result: unchanged\n";
    let changed = " · again on its own result: changed, so the hook is not idempotent\n";
    for (context, script, expected) in [
        (None, guard("'<title>'", &title), [unchanged; 2]),
        (Some("Boot"), guard("'<title>'", &title), [unchanged; 2]),
        (None, title.clone(), [changed, "\n--- sent again\n+++ returned again\n@@ "]),
        (None, guard("'<qemu:arg'", &argument), [unchanged; 2]),
        (Some("Boot"), guard("'<qemu:arg'", &argument), [changed, "\n+    <arg value=\"-s\"/>\n"]),
        (None, by_mark, [changed, "\n+\t<title>x</title>\n"]),
        (
            None,
            format!("case \"$4\" in *'<title>'*) exit 7;; *) {title};; esac"),
            [
                " · again on its own result: failed: INTERNAL: hook onDefineDomain failed",
                "status 7",
            ],
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let hook = crate::support::script(dir.path(), "hook", &format!("#!/bin/sh\n{script}\n"));
        let context = context.map_or(vec![], |it| vec!["--context", it]);
        let rest = ["--mode", "exec", "--repeat", "2", "--", hook.to_str().unwrap()];
        let output = call(&[&["onDefineDomain"], &context[..], &rest].concat(), |_| {}).await;
        let report = text(&output.stderr);
        for part in expected {
            assert!(report.contains(part), "no {part:?} with {script} in\n{report}");
        }
        // How it was sent matters where the hook did something.
        let says_how = report.contains("(its own result was sent as KubeVirt rewrites it");
        assert_eq!(says_how, expected != [unchanged; 2], "{report}");
        // It is the first result, and `check` is the judge.
        assert!(output.status.success(), "{report}");
        assert_eq!(text(&output.stdout).matches("</domain>").count(), 1);
        assert!(text(&output.stdout).matches("<title>").count() < 2, "{report}");
        assert!(report.contains(" · 2 calls: min "), "{report}");
    }
}

#[tokio::test]
async fn what_kubevirt_never_sends_again_is_not_sent_again() {
    let data = r#"printf '{"DataSource":"noCloud","UserData":"x"}'"#;
    for args in [
        &["onDefineDomain", "--mode", "exec", "--", "sh", "-c", "printf '%s' \"$3\""][..],
        &["preCloudInitIso", "--mode", "exec", "--", "sh", "-c", data],
        &["preVMStart", "--mode", "exec", "--", "true"],
    ] {
        let output = call(args, |_| {}).await;
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert!(!text(&output.stderr).contains("again"), "{}", text(&output.stderr));
    }
}

#[tokio::test]
async fn a_socket_of_the_other_api_is_reported() {
    let shim = Shim::builder().both_apis().start().await;
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
async fn empty_variables_count_as_unset() {
    let help = Command::new(hookctl()).args(["call", "--help"]).output().await.unwrap();
    let help = text(&help.stdout);
    let (_, shims) = help.split_once("SIDECAR_SHIM_<OPTION>").unwrap();
    let options = shims.lines().filter_map(|line| line.trim().strip_prefix("--"));
    let variable = |option: &str| option.to_uppercase().replace('-', "_");
    let empty: Vec<_> = options
        .map(|line| (format!("SIDECAR_SHIM_{}", variable(line.split(' ').next().unwrap())), ""))
        .collect();
    assert!(empty.iter().any(|(name, _)| name == "SIDECAR_SHIM_MAX_REQUESTS"), "{empty:?}");
    assert!(empty.len() > 10, "{empty:?}");

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

#[tokio::test]
async fn a_connection_that_is_closed_without_an_answer_is_explained() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.sock");
    let listener = UnixListener::bind(&path).unwrap();
    // As a shim does whose --allow-uid does not name the caller.
    let refusing = tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    let output = call(&["preVMStart", "--socket", path.to_str().unwrap()], |_| {}).await;
    assert_eq!(output.status.code(), Some(1));
    let report = text(&output.stderr);
    let user = nix::unistd::geteuid();
    let causes = format!("has stopped, or its --allow-uid does not name this user, {user}\n");
    assert!(report.contains("closed the connection without an answer"), "{report}");
    assert!(report.ends_with(&causes), "{report}");
    refusing.abort();
}

#[tokio::test]
async fn samples_are_those_that_calls_use() {
    let sample = async |args: &[&str]| {
        let output = Command::new(hookctl()).arg("sample").args(args).output().await.unwrap();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (status, domain, _) = sample(&["domain"]).await;
    assert_eq!(status, Some(0));
    assert!(
        domain.starts_with("<domain type=\"kvm\" xmlns:qemu=") && domain.ends_with("</domain>\n")
    );
    let (_, for_plugin, _) = sample(&["domain", "--plugin"]).await;
    assert!(for_plugin.starts_with("<domain type=\"kvm\">\n  <"), "{for_plugin}");
    for (name, field) in [("vmi", "\"metadata\""), ("cloud-init", "\"UserData\"")] {
        let (status, document, _) = sample(&[name]).await;
        let parsed: serde_json::Value = serde_json::from_str(&document).unwrap();
        assert!(parsed.is_object() && document.contains(field) && status == Some(0), "{document}");
    }
    let (status, _, error) = sample(&["vmi", "--plugin"]).await;
    assert!(status == Some(1) && error.contains("--plugin goes with domain only"), "{error}");
}

#[tokio::test]
async fn the_result_goes_to_a_file_if_one_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.xml");
    let smbios = file("examples/python/smbios.py");
    let command = ["--", "python3", smbios.to_str().unwrap()];
    let to = |path: &str| {
        let args = ["onDefineDomain", "--output", path];
        [&args[..], &command].concat().into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let run = async |args: Vec<String>| {
        call(&args.iter().map(String::as_str).collect::<Vec<_>>(), |_| {}).await
    };
    let output = run(to(path.to_str().unwrap())).await;
    assert!(output.status.success() && output.stdout.is_empty(), "{}", text(&output.stderr));
    let written = std::fs::read_to_string(&path).unwrap();
    assert!(written.contains("Copper Lantern Works"));
    assert_eq!(text(&run(to("-")).await.stdout), written);
    let output = run(to("/nowhere/out.xml")).await;
    assert_eq!(output.status.code(), Some(1));
    let report = text(&output.stderr);
    assert!(report.contains("cannot write the result to /nowhere/out.xml: "), "{report}");
}
