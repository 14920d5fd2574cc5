//! Options whose effect is visible from outside.

use std::path::Path;
use std::process::Output;

use nix::sys::signal::Signal;
use serde_json::json;
use tokio::process::Command;

use crate::support::{
    DOMAIN, ECHO, Gate, Shim, ShimBuilder, binary, comment, program, wordy_options,
};

/// Runs the shim with these arguments to its end.
async fn run(args: &[&str], with: impl FnOnce(&mut Command)) -> Output {
    let mut command = Command::new(binary());
    with(command.args(args).kill_on_drop(true));
    command.output().await.unwrap()
}

#[tokio::test]
async fn an_option_keeps_hooks_from_gaining_privileges() {
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    let own = own.lines().find_map(|line| line.strip_prefix("NoNewPrivs:\t")).unwrap();
    for (args, variable, expected) in [
        (&[][..], None, own),
        (&["--no-new-privs"], None, "1"),
        (&[], Some("true"), "1"),
        (&[], Some("1"), "1"),
        (&[], Some("false"), own),
        (&[], Some("0"), own),
        (&["--no-new-privs"], Some("false"), "1"),
    ] {
        let text = "#!/bin/sh\nprivs=$(grep NoNewPrivs /proc/self/status)\n\
                    printf '<domain><!-- %d --></domain>' ${privs##*:}\n";
        let mut builder = Shim::builder().program("onDefineDomain", text).args(args);
        if let Some(value) = variable {
            builder = builder.env("SIDECAR_SHIM_NO_NEW_PRIVS", value);
        }
        let shim = builder.start().await;
        let seen = comment(&shim.define(&json!({}), DOMAIN).await.unwrap());
        assert_eq!(seen.to_string(), expected, "{args:?} {variable:?}");
    }
}

/// Starts a shim that must fail, and returns the termination message.
async fn message(builder: ShimBuilder, status: i32) -> String {
    let path = builder.dir().join("message");
    std::fs::write(&path, "an older and longer message, ".repeat(1000)).unwrap();
    let mut shim = builder.env("SIDECAR_SHIM_TERMINATION_LOG", &path).spawn();
    assert_eq!(shim.exited().await.code(), Some(status));
    std::fs::read_to_string(path).unwrap()
}

#[tokio::test]
async fn why_it_does_not_start_is_in_the_termination_message() {
    let text = message(Shim::persistent("--start exit"), 1).await;
    assert!(text.starts_with("sidecar-shim: cannot start hook worker: /"), "{text}");
    assert!(text.ends_with("stderr:\nno configuration file"), "{text}");

    let text = message(Shim::builder().version("v1alpha9"), 1).await;
    assert!(text.starts_with("sidecar-shim: unknown hook API version \"v1alpha9\""), "{text}");

    let text = message(Shim::builder().args(["--max-workers", "none"]), 2).await;
    assert!(text.starts_with("error: invalid value 'none' for '--max-workers <N>'"), "{text}");

    let text = message(Shim::builder().args(["--socket-dir", "/nowhere"]), 1).await;
    assert!(text.starts_with("sidecar-shim: the socket directory /nowhere"), "{text}");
}

#[tokio::test]
async fn a_command_line_that_cannot_be_parsed_is_reported_where_it_says() {
    let dir = tempfile::tempdir().unwrap();
    let [named, other] = ["named", "other"].map(|name| dir.path().join(name));
    let option = |path: &Path| format!("--termination-log={}", path.display());
    for (args, is_in_named) in [
        (&["--max-worker=1", "--termination-log", named.to_str().unwrap()][..], true),
        (&[&option(&other), &option(&named), "--max-workers=none"], true),
        (&[&option(&named), "--no-such-option"], true),
        (&["--no-such-option", "--", &option(&named)], false),
        (&["--no-such-option", "--termination-log"], false),
    ] {
        std::fs::write(&named, "before").unwrap();
        std::fs::write(&other, "before").unwrap();
        let output = run(args, |command| {
            command.env("SIDECAR_SHIM_TERMINATION_LOG", &other);
        })
        .await;
        assert_eq!(output.status.code(), Some(2));
        let [is_named, is_other] = [&named, &other]
            .map(|path| std::fs::read_to_string(path).unwrap().starts_with("error: "));
        assert_eq!((is_named, is_other), (is_in_named, !is_in_named), "{args:?}");
    }
}

#[tokio::test]
async fn a_long_termination_message_keeps_its_first_and_its_last_lines() {
    let script = "i=0; while [ $i -lt 20 ]; do i=$((i + 1)); \
                  printf \"%0900d and line $i\\n\" 0 >&2; done; exit 7";
    let text = message(Shim::worker(&format!("sh -c '{script}'")), 1).await;
    assert!((3500..=4096).contains(&text.len()), "{}", text.len());
    assert!(text.starts_with("sidecar-shim: cannot start hook worker: sh -c "), "{text}");
    assert!(text.contains("\n[…]\n") && text.ends_with("and line 20"), "{text}");
}

#[tokio::test]
async fn the_termination_message_is_written_only_by_a_failed_start_and_into_an_existing_file() {
    let builder = Shim::builder().version("v1alpha9");
    let path = builder.dir().join("message");
    let mut shim = builder.env("SIDECAR_SHIM_TERMINATION_LOG", &path).spawn();
    assert_eq!(shim.exited().await.code(), Some(1));
    assert!(!path.exists(), "the file was created");

    let fifo = Gate::new(path);
    let args = ["--termination-log".as_ref(), fifo.0.as_os_str()];
    let mut shim = Shim::builder().version("v1alpha9").args(args).spawn();
    assert_eq!(shim.exited().await.code(), Some(1), "it does not wait for a reader");

    for args in [&["call", "onDefineDomain"][..], &["check"], &["health"], &["status"], &["--help"]]
    {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("message");
        std::fs::write(&path, "before").unwrap();
        let output = run(args, |command| {
            command.env("PATH", dir.path()).env("SIDECAR_SHIM_TERMINATION_LOG", &path);
        });
        assert_eq!(output.await.status.success(), args == ["--help"]);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "before", "{args:?}");
    }

    let builder = Shim::builder();
    let path = builder.dir().join("message");
    std::fs::write(&path, "before").unwrap();
    let args = ["--termination-log".as_ref(), path.as_os_str()];
    let mut shim = builder.args(args).start().await;
    shim.signal(Signal::SIGTERM);
    assert_eq!(shim.exited().await.code(), Some(0));
    assert_eq!(std::fs::read_to_string(path).unwrap(), "before");
}

#[tokio::test]
async fn commands_that_have_moved_to_hookctl_say_so() {
    for (args, command) in [
        (&["call", "--help"][..], "call"),
        (&["--mode", "exec", "call", "onDefineDomain", "--", "cat"], "call"),
        (&["check", "--json", "--", "python3", "--version"], "check"),
    ] {
        let output = run(args, |_| {}).await;
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{complaint}");
        let moved = format!("sidecar-shim: `{command}` has moved to hookctl");
        assert!(complaint.starts_with(&moved), "{complaint}");
        assert!(output.stdout.is_empty());
    }
}

#[tokio::test]
async fn empty_variables_count_as_unset() {
    let help = String::from_utf8(run(&["--help"], |_| {}).await.stdout).unwrap();
    assert!(help.contains("SIDECAR_SHIM_<OPTION>"), "{help}");
    let options = help.lines().filter_map(|line| line.trim().strip_prefix("--"));
    let variable = |option: &str| option.to_uppercase().replace('-', "_");
    let empty: Vec<_> = options
        .map(|line| (format!("SIDECAR_SHIM_{}", variable(line.split(' ').next().unwrap())), ""))
        .collect();
    assert!(empty.iter().any(|(name, _)| name == "SIDECAR_SHIM_MAX_WORKERS"), "{empty:?}");
    assert!(empty.len() > 10, "{empty:?}");

    let builder = Shim::builder().program("onDefineDomain", ECHO);
    let builder = empty.iter().fold(builder, |builder, (name, value)| builder.env(name, value));
    builder.start().await.still_works().await;

    // Even the variable that is needed.
    let output = run(&[], |command| {
        command.envs(empty);
    });
    let output = output.await;
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{complaint}");
    assert!(complaint.contains("no hook API version: give --version"), "{complaint}");
}

#[tokio::test]
async fn short_help_fits_one_screen_and_long_help_two() {
    for (args, lines) in [
        (&["-h"][..], 24),
        (&["--help"], 80),
        (&["health", "-h"], 24),
        (&["health", "--help"], 48),
        (&["status", "-h"], 24),
    ] {
        let help = String::from_utf8(run(args, |_| {}).await.stdout).unwrap();
        assert!((10..=lines).contains(&help.lines().count()), "{help}");
        assert!(help.lines().all(|line| line.chars().count() <= 100), "{help}");
    }
}

#[tokio::test]
async fn a_bad_value_from_the_environment_names_its_variable() {
    let output = run(&["--version", "v1alpha3"], |command| {
        command.env("SIDECAR_SHIM_MAX_WORKERS", "many");
    })
    .await;
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("'many' for '--max-workers <N>'"), "{text}");
    assert!(text.contains("(the variable SIDECAR_SHIM_MAX_WORKERS)"), "{text}");
    let output = run(&["--version", "v1alpha3", "--max-workers", "some"], |command| {
        command.env("SIDECAR_SHIM_MAX_WORKERS", "many");
    })
    .await;
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("'some'") && !text.contains("variable"), "{text}");
    let text = message(Shim::builder().env("SIDECAR_SHIM_MAX_WORKERS", "many"), 2).await;
    assert!(text.contains("(the variable SIDECAR_SHIM_MAX_WORKERS)"), "{text}");
    // The worker's options are not the shim's, and a value may have several lines.
    let worker = ["--version", "v1alpha3", "--", "worker", "--max-workers", "3"];
    for (variable, value) in [("MAX_WORKERS", "ma\nny"), ("MODE", "ex\nec")] {
        let output = run(&worker, |command| {
            command.env(format!("SIDECAR_SHIM_{variable}"), value);
        });
        let text = String::from_utf8(output.await.stderr).unwrap();
        let line = text.lines().find(|line| line.contains(" for '--")).unwrap();
        assert!(line.ends_with(&format!(" (the variable SIDECAR_SHIM_{variable})")), "{text}");
    }
}

#[tokio::test]
async fn a_variable_that_no_option_reads_is_reported_without_its_value() {
    let builder = Shim::persistent("")
        .env("SIDECAR_SHIM_CALL_TIMEOUTS", "hunter2")
        .env("SIDECAR_SHIM_SERVICE_HOST", "10.0.0.1");
    let mut shim = builder.spawn();
    let line = shim.log_line("no option reads the variable SIDECAR_SHIM_CALL_TIMEOUTS").await;
    assert_eq!(line["level"], "warning");
    assert!(line["msg"].as_str().unwrap().ends_with("did you mean SIDECAR_SHIM_CALL_TIMEOUT?"));
    shim.serving().await;
    shim.assert_not_logged("hunter2");
    shim.assert_not_logged("SERVICE_HOST");
}

#[tokio::test]
async fn a_workers_command_is_given_once_and_the_command_line_wins() {
    let args = ["--version", "v1alpha3", "--mode", "persistent", "--worker", "a", "--", "b"];
    let output = run(&args, |_| ()).await;
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("given twice: by --worker and after `--`"), "{text}");
    let output = run(&["--version", "v1alpha3", "--mode", "persistent", "--", "b"], |command| {
        command.env("SIDECAR_SHIM_WORKER", "a").env("SIDECAR_SHIM_SOCKET_DIR", "/tmp");
    })
    .await;
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("cannot run b: "), "{text}");
}

#[test]
fn the_help_of_an_option_is_read_at_a_glance() {
    assert_eq!(wordy_options(&program("sidecar-shim")), Vec::<String>::new());
}
