//! `hookctl generate` prints the manifests of `examples/kubernetes`, by the commands in their
//! README. `tests/manifests` has odd inputs, which need Python libraries to judge.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Output};

use crate::hookctl;
use crate::support::{file, read, script};

/// The README's commands: the arguments, and the file that the output goes to.
fn commands() -> Vec<(Vec<String>, String)> {
    let page = read("examples/kubernetes/README.md").replace("\\\n", " ");
    let lines = page.lines().filter_map(|line| line.strip_prefix("hookctl "));
    lines
        .map(|line| {
            let (command, file) = line.rsplit_once(" >").unwrap();
            (shlex::split(command).unwrap(), file.to_owned())
        })
        .collect()
}

fn run(args: &[String]) -> Output {
    Command::new(hookctl()).args(args).current_dir(file(".")).output().unwrap()
}

#[test]
fn every_manifest_is_what_its_command_prints() {
    let commands = commands();
    for (args, name) in &commands {
        let output = run(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {stderr}");
        // The images of the examples have no digests.
        assert!(stderr.starts_with("hookctl: warning: image registry.example/"), "{stderr}");
        let path = format!("examples/kubernetes/{name}");
        let printed = String::from_utf8(output.stdout).unwrap();
        assert_eq!(printed, read(&path), "write it again: hookctl {} >{path}", args.join(" "));
    }
    let named: BTreeSet<_> = commands.into_iter().map(|(_, name)| name).collect();
    let there: BTreeSet<_> = fs::read_dir(file("examples/kubernetes"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|it| it == "yaml" || it == "Dockerfile"))
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(named, there);
}

#[test]
fn an_image_with_a_digest_causes_no_warning() {
    let image = format!("registry.example/hook@sha256:{}", "0".repeat(64));
    let args = ["generate", "sidecar", "--vm", "a/b", "--hook", "onDefineDomain", "--image"];
    let output =
        run(&[&args[..], &[&image]].concat().into_iter().map(Into::into).collect::<Vec<_>>());
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

/// Windows' line ends: Linux takes the carriage return for a part of the interpreter's name.
#[test]
fn a_script_that_linux_cannot_start_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let script = script(scratch.path(), "onDefineDomain", "#!/bin/sh\r\ncat\r\n");
    let script = script.to_str().unwrap();
    let image = format!("registry.example/shim@sha256:{}", "0".repeat(64));
    for args in [
        &["configmap", "--name", "a", "--vm", "a/b", "--image", &image, "--script", script][..],
        &["dockerfile", "--exec", "--hook", "onDefineDomain", "--base", &image, "--", script],
    ] {
        let args = ["generate"].iter().chain(args.iter()).map(ToString::to_string);
        let output = run(&args.collect::<Vec<_>>());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        let why = "the first line, `#!/bin/sh`, ends in a carriage return";
        assert!(stderr.contains(script) && stderr.contains(why), "{stderr}");
    }
}

/// A program that is taken for a worker: what the error says to do works.
#[test]
fn a_program_that_is_no_worker_gets_an_image_as_the_error_says() {
    let scratch = tempfile::tempdir().unwrap();
    script(scratch.path(), "onDefineDomain", "#!/bin/sh\nexit 3\n");
    let dockerfile = |words: &str| {
        let words = format!("generate dockerfile --base registry.example/shim:1 {words}");
        let mut command = Command::new(hookctl());
        let output = command.args(words.split(' ')).current_dir(scratch.path()).output().unwrap();
        let [stdout, stderr] =
            [output.stdout, output.stderr].map(|it| String::from_utf8(it).unwrap());
        (output.status.success(), stdout, stderr)
    };
    for words in ["-- ./onDefineDomain", "--hook onDefineDomain"] {
        let (success, _, complaint) = dockerfile(words);
        assert!(!success, "{complaint}");
        let (_, advice) = complaint.split_once("is started for each call: ").unwrap();
        let advice = advice.lines().next().unwrap().replace("NAME", "onDefineDomain");
        let (success, stdout, stderr) =
            dockerfile(&advice.replace("./program", "./onDefineDomain"));
        assert!(success, "{advice}: {stderr}");
        assert!(stdout.contains("COPY onDefineDomain /usr/bin/onDefineDomain\n"), "{stdout}");
        assert!(!stdout.contains("Python"), "{stdout}");
    }
}

/// What it wrote to stderr stands below the error, and not among it with times and levels.
#[test]
fn a_worker_that_does_not_start_is_quoted() {
    let fails = "echo no module named hooks >&2; exit 1";
    let args = ["generate", "node", "--name", "a", "--image", "a", "--all", "--"];
    let worker = ["sh", "-c", fails];
    let quoted = |more: &[&str]| {
        let args = args[..2].iter().chain(more).chain(&args[2..]).chain(&worker);
        let output = run(&args.map(ToString::to_string).collect::<Vec<_>>());
        String::from_utf8(output.stderr).unwrap()
    };
    let stderr = quoted(&[]);
    assert!(stderr.starts_with("hookctl: the worker sh -c "), "{stderr}");
    assert!(stderr.ends_with("\nits stderr:\n  no module named hooks\n"), "{stderr}");
    assert_eq!(stderr.matches("it exited with status 1").count(), 1, "{stderr}");
    let logged = quoted(&["--log-level", "debug"]);
    assert!(logged.contains(" info    no module named hooks"), "{logged}");
}

/// The files of `examples/monitoring`, by the command in its README.
#[test]
fn the_monitoring_is_what_its_command_prints() {
    let page = read("examples/monitoring/README.md");
    let line = page.lines().find_map(|line| line.strip_prefix("hookctl "));
    let command = line.unwrap().strip_suffix(" >monitoring.yaml").unwrap();
    let output = run(&shlex::split(command).unwrap());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(output.stdout).unwrap();
    let (_, documents) = printed.split_once("\n\n").unwrap();
    let files = ["daemonset-patch.yaml", "podmonitor.yaml", "prometheusrule.yaml"];
    let files = files.map(|name| read(&format!("examples/monitoring/{name}")));
    assert_eq!(documents, files.join("---\n"));
}
