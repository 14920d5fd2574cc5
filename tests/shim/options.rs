//! Options whose effect is seen from outside.

use serde_json::json;

use crate::support::{DOMAIN, Meeting, Shim, binary, comment, path_with, script, worker};

#[tokio::test]
async fn hooks_cannot_gain_privileges_if_that_is_wanted() {
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
        let mut shim = Shim::spawn(args, |command, dir| {
            script(&dir.join("bin"), "onDefineDomain", text);
            command.env("PATH", path_with(&dir.join("bin")));
            command.envs(variable.map(|value| ("SIDECAR_SHIM_NO_NEW_PRIVS", value)));
        });
        shim.serving().await;
        let seen = comment(&shim.define(&json!({}), DOMAIN).await.unwrap());
        assert_eq!(seen.to_string(), expected, "{args:?} {variable:?}");
    }
}

/// Lets a start fail with these arguments, and returns the termination message.
async fn message(args: &[&str], status: i32) -> String {
    let mut shim = Shim::spawn(args, |command, dir| {
        let path = dir.join("message");
        std::fs::write(&path, "what was there before, ".repeat(1000)).unwrap();
        command.env("SIDECAR_SHIM_TERMINATION_LOG", path);
    });
    assert_eq!(shim.ended().await.code(), Some(status), "{}", shim.log_text());
    std::fs::read_to_string(shim.dir.path().join("message")).unwrap()
}

#[tokio::test]
async fn why_it_does_not_start_is_in_the_termination_message() {
    let failing = worker("--start exit");
    let args = ["--mode", "persistent", "--worker", &failing];
    let text = message(&args, 1).await;
    assert!(text.starts_with("sidecar-shim: cannot start hook worker: /"), "{text}");
    assert!(text.ends_with("stderr:\nno configuration file"), "{text}");

    let text = message(&["--version", "v1alpha9"], 1).await;
    assert!(text.starts_with("sidecar-shim: unknown hook API version \"v1alpha9\""), "{text}");

    let text = message(&["--max-workers", "none"], 2).await;
    assert!(text.starts_with("error: invalid value 'none' for '--max-workers <N>'"), "{text}");

    let nowhere = message(&["--socket-dir", "/nowhere"], 1).await;
    assert!(nowhere.starts_with("sidecar-shim: the socket directory /nowhere"), "{nowhere}");
}

#[tokio::test]
async fn a_long_termination_message_keeps_its_first_and_its_last_lines() {
    let script = "i=0; while [ $i -lt 20 ]; do i=$((i + 1)); \
                  printf \"%0900d and line $i\\n\" 0 >&2; done; exit 7";
    let worker = format!("sh -c '{script}'");
    let text = message(&["--mode", "persistent", "--worker", &worker], 1).await;
    assert!((3500..=4096).contains(&text.len()), "{}", text.len());
    assert!(text.starts_with("sidecar-shim: cannot start hook worker: sh -c "), "{text}");
    assert!(text.contains("\n[…]\n") && text.ends_with("and line 20"), "{text}");
}

#[tokio::test]
async fn the_termination_message_is_left_alone_without_a_failed_start_or_a_file() {
    let mut shim = Shim::spawn(&["--version", "v1alpha9"], |command, dir| {
        command.arg("--termination-log").arg(dir.join("message"));
    });
    assert_eq!(shim.ended().await.code(), Some(1));
    assert!(!shim.dir.path().join("message").exists(), "there was no file for it");

    let fifo = Meeting::new(shim.dir.path().join("fifo"));
    let mut shim = Shim::spawn(&["--version", "v1alpha9"], |command, _| {
        command.arg("--termination-log").arg(fifo.0);
    });
    assert_eq!(shim.ended().await.code(), Some(1), "it does not wait for a reader");

    for args in [&["call", "onDefineDomain"][..], &["check"], &["health"], &["--help"]] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("message");
        std::fs::write(&path, "before").unwrap();
        let mut command = tokio::process::Command::new(binary());
        command.args(args).env("PATH", dir.path()).env("SIDECAR_SHIM_TERMINATION_LOG", &path);
        let output = command.output().await.unwrap();
        assert_eq!(output.status.success(), args == ["--help"]);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "before", "{args:?}");
    }

    let mut shim = Shim::spawn(&[], |command, dir| {
        std::fs::write(dir.join("message"), "before").unwrap();
        command.arg("--termination-log").arg(dir.join("message"));
    });
    shim.serving().await;
    shim.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(shim.ended().await.code(), Some(0));
    assert_eq!(std::fs::read_to_string(shim.dir.path().join("message")).unwrap(), "before");
}

#[tokio::test]
async fn commands_that_have_moved_say_where_to() {
    for (args, command) in [
        (&["call", "--help"][..], "call"),
        (&["--mode", "exec", "call", "onDefineDomain", "--", "cat"], "call"),
        (&["check", "--json", "--", "python3", "--version"], "check"),
    ] {
        let output = tokio::process::Command::new(binary()).args(args).output().await.unwrap();
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{complaint}");
        let moved = format!("sidecar-shim: `{command}` has moved to hookctl");
        assert!(complaint.starts_with(&moved), "{complaint}");
        assert!(output.stdout.is_empty());
    }
}

#[tokio::test]
async fn variables_that_are_set_to_nothing_are_not_set() {
    let help = tokio::process::Command::new(binary()).arg("--help").output().await.unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    assert!(help.contains("SIDECAR_SHIM_<OPTION>"), "{help}");
    let options = help.lines().filter_map(|line| line.trim().strip_prefix("--"));
    let variable = |option: &str| option.to_uppercase().replace('-', "_");
    let empty: Vec<_> = options
        .map(|line| (format!("SIDECAR_SHIM_{}", variable(line.split(' ').next().unwrap())), ""))
        .collect();
    assert!(empty.iter().any(|(name, _)| name == "SIDECAR_SHIM_MAX_WORKERS"), "{empty:?}");
    assert!(empty.len() > 10, "{empty:?}");

    let text = "#!/bin/sh\nprintf '%s' \"$4\"\n";
    let mut shim = Shim::spawn(&[], |command, dir| {
        script(&dir.join("bin"), "onDefineDomain", text);
        command.env("PATH", path_with(&dir.join("bin"))).envs(empty.clone());
    });
    shim.serving().await;
    shim.still_works().await;

    // Not even the one that has to be there.
    let mut command = tokio::process::Command::new(binary());
    let output = command.envs(empty).output().await.unwrap();
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{complaint}");
    assert!(complaint.contains("no hook API version: give --version"), "{complaint}");
}

#[tokio::test]
async fn help_fits_one_screen() {
    for args in [&["-h"][..], &["--help"], &["health", "--help"]] {
        let help = tokio::process::Command::new(binary()).args(args).output().await.unwrap();
        let help = String::from_utf8(help.stdout).unwrap();
        assert!((10..=50).contains(&help.lines().count()), "{help}");
        assert!(help.lines().all(|line| line.chars().count() <= 100), "{help}");
    }
}
