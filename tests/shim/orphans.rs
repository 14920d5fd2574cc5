//! What hooks leave behind falls to the shim, and is reaped.

use std::io::Write;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{
    Client, DOMAIN, LIMIT, Meeting, Shim, exists, path_with, script, stat, worker,
};

/// A hook that leaves a process behind, in a session of its own, until `$FIFO` was opened.
const LEAVES_ONE: &str = "#!/bin/sh\n\
    setsid sh -c 'echo \"orphan $$\" >&2; exec >/dev/null 2>&1; exec <\"$FIFO\"; read -r line\n\
                  cut -d\" \" -f4 /proc/$$/stat >\"$FIFO.parent\"; exit 3' &\n\
    printf '%s' \"$4\"\n";

/// Starts exec mode with this script, under another program.
fn exec_under(words: &[&str], text: &str, args: &[&str]) -> Shim {
    Shim::spawn_under(words, args, |command, dir| {
        script(&dir.join("bin"), "onDefineDomain", text);
        command.env("PATH", path_with(&dir.join("bin"))).env("FIFO", dir.join("fifo"));
    })
}

/// The number that a log line ends with.
fn number(line: &Value) -> u64 {
    line["msg"].as_str().unwrap().rsplit(' ').next().unwrap().parse().unwrap()
}

/// Waits until an orphan is reaped.
async fn reaped(shim: &mut Shim, orphan: u64, how: &str) {
    loop {
        let line = shim.log_line("reaped an orphan").await;
        if line["pid"] == orphan {
            assert_eq!(line["msg"], format!("reaped an orphan: it {how}"));
            return;
        }
    }
}

/// Waits until the shim has no children, dead or alive.
async fn childless(shim: &Shim) {
    let parent = u64::try_from(shim.pid().as_raw()).unwrap();
    let children = || {
        let processes = std::fs::read_dir("/proc").unwrap();
        let pids = processes.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
        pids.filter(|pid: &u64| stat(*pid).is_some_and(|(_, of)| of == parent)).count()
    };
    let waiting = async {
        while children() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LIMIT, waiting).await.expect("there are children left");
}

#[tokio::test]
async fn what_a_program_leaves_behind_falls_to_the_shim_and_is_reaped() {
    let mut shim = exec_under(&[], LEAVES_ONE, &["--log-level", "debug"]);
    let meeting = Meeting::new(shim.dir.path().join("fifo"));
    shim.serving().await;
    shim.still_works().await;
    let orphan = number(&shim.log_line("orphan ").await);
    let parent = u64::try_from(shim.pid().as_raw()).unwrap();
    assert_eq!(stat(orphan).map(|(_, parent)| parent), Some(parent), "it fell to someone else");
    drop(meeting.joined().await);
    reaped(&mut shim, orphan, "exited with status 3").await;
    assert!(!exists(orphan));
    childless(&shim).await;
}

#[tokio::test]
async fn what_a_worker_leaves_behind_falls_to_the_shim_and_is_reaped() {
    let mut shim = Shim::persistent("", &["--log-level", "debug"]).await;
    let meeting = Meeting::new(shim.dir.path().join("fifo"));
    let vmi = json!({"do": "daemon", "path": meeting.0});
    shim.define(&vmi, DOMAIN).await.unwrap();
    let orphan = number(&shim.log_line("daemon ").await);
    let parent = u64::try_from(shim.pid().as_raw()).unwrap();
    assert_eq!(stat(orphan).map(|(_, parent)| parent), Some(parent), "it fell to someone else");
    drop(meeting.joined().await);
    reaped(&mut shim, orphan, "exited with status 0").await;
    assert!(!exists(orphan));
    shim.still_works().await;
}

#[tokio::test]
async fn many_exits_at_once_lose_no_status() {
    // Every third call is answered, fails or is killed, and each leaves two processes behind.
    let text = "#!/bin/sh\nn=${2#*:}; n=${n%?}\n\
                setsid sh -c 'sleep 0.05' >/dev/null 2>&1 &\nsetsid true >/dev/null 2>&1 &\n\
                case $((n % 3)) in\n\
                0) printf '<domain><!-- %s --></domain>' \"$n\";;\n\
                1) exit \"$n\";;\n\
                2) kill -9 $$;;\nesac\n";
    let mut shim = exec_under(&[], text, &["--max-workers", "30"]);
    shim.serving().await;
    let socket = shim.socket();
    let calls: Vec<_> = (1..=30)
        .map(|n| {
            let socket = socket.clone();
            tokio::spawn(async move {
                let client = Client::dial(&socket).await;
                (n, client.define("v1alpha3", format!("{{\"n\":{n}}}"), DOMAIN).await)
            })
        })
        .collect();
    for call in calls {
        let (n, answer) = call.await.unwrap();
        let answer = answer.map_err(|status| status.message().to_owned());
        match n % 3 {
            0 => assert_eq!(answer, Ok(format!("<domain><!-- {n} --></domain>"))),
            1 => {
                let expected = format!("exited with status {n};");
                assert!(answer.as_ref().unwrap_err().contains(&expected), "{n}: {answer:?}");
            }
            _ => assert!(answer.as_ref().unwrap_err().contains("was killed by SIGKILL")),
        }
    }
    childless(&shim).await;
}

#[tokio::test]
async fn an_orphan_that_was_killed_by_a_signal_without_a_name_is_in_nobodys_way() {
    let text = "#!/bin/sh\nsetsid sh -c 'kill -40 $$' &\nsetsid sh -c 'kill -9 $$' &\n\
                printf '%s' \"$4\"\n";
    let mut shim = exec_under(&[], text, &[]);
    shim.serving().await;
    shim.still_works().await;
    childless(&shim).await;
    shim.still_works().await;
    childless(&shim).await;
}

#[tokio::test]
async fn of_an_orphan_that_was_killed_by_a_signal_without_a_name_the_log_has_its_number() {
    // It outlives its parent, which would reap it otherwise.
    let text = LEAVES_ONE.replace("exit 3", "kill -40 $$");
    let mut shim = exec_under(&[], &text, &["--log-level", "debug"]);
    let meeting = Meeting::new(shim.dir.path().join("fifo"));
    shim.serving().await;
    shim.still_works().await;
    let orphan = number(&shim.log_line("orphan ").await);
    drop(meeting.joined().await);
    reaped(&mut shim, orphan, "ended with signal: 40").await;
    childless(&shim).await;
}

#[tokio::test]
async fn as_the_first_process_it_reaps_and_ends_in_order() {
    let words = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"];
    let tried = std::process::Command::new(words[0]).args(&words[1..]).arg("true").output();
    if !tried.is_ok_and(|output| output.status.success()) {
        let note = "skipped: the test as process 1, because unshare --pid does not work here\n";
        std::io::stderr().write_all(note.as_bytes()).unwrap();
        return;
    }
    let mut shim = exec_under(&words, LEAVES_ONE, &["--log-level", "debug"]);
    let meeting = Meeting::new(shim.dir.path().join("fifo"));
    shim.serving().await;
    shim.still_works().await;
    let orphan = number(&shim.log_line("orphan ").await);
    drop(meeting.joined().await);
    reaped(&mut shim, orphan, "exited with status 3").await;
    let parent = std::fs::read_to_string(shim.dir.path().join("fifo.parent")).unwrap();
    assert_eq!(parent.trim(), "1");
    shim.dial().await.shutdown().await.unwrap();
    assert_eq!(shim.ended().await.code(), Some(0));

    // A worker, too, is ended and reaped before its shim, on whose end all others are killed.
    let worker = worker("");
    let args = ["--mode", "persistent", "--worker", &worker];
    let mut shim = Shim::spawn_under(&words, &args, |_, _| {});
    shim.serving().await;
    shim.still_works().await;
    shim.dial().await.shutdown().await.unwrap();
    assert_eq!(shim.ended().await.code(), Some(0));
    assert!(shim.log_text().contains("end of file"), "the worker was told by end-of-file");
}
