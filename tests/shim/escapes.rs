//! Processes that leave their process group, or the process that started them.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::{
    DOMAIN, PYTHON, Shim, ShimBuilder, children, eventually, exists, gone, script, stat, worker,
};

/// The fixture worker as an argv-style program: it does what the VMI says.
fn exec(program: &str) -> ShimBuilder {
    Shim::builder().program("onDefineDomain", program)
}

/// Joins the group of its parent, the shim.
fn leaves_group(more: &str) -> String {
    format!(
        "#!{}\nimport os, signal, sys, time\n{more}\nos.setpgid(0, os.getpgid(os.getppid()))\n\
         print('left', os.getpid(), file=sys.stderr, flush=True)\ntime.sleep(600)\n",
        *PYTHON
    )
}

/// Ignores SIGTERM, in its own session, and says its process id.
const STUBBORN: &str =
    r#"setsid sh -c 'trap "" TERM; echo "$0 $$" >&2; exec sleep 600 >/dev/null 2>&1'"#;

/// The number at the end of the next log line that contains this text.
async fn logged_number(shim: &mut Shim, text: &str) -> u64 {
    let line = shim.log_line(text).await;
    line["msg"].as_str().unwrap().rsplit(' ').next().unwrap().parse().unwrap()
}

/// The children of a process that was just listed, and of those.
fn family(pid: u64) -> Vec<u64> {
    let below = children(pid).into_iter().flat_map(family);
    [pid].into_iter().chain(below).collect()
}

async fn all_gone(what: &str, pids: &[u64]) {
    eventually(what, || pids.iter().all(|&pid| !exists(pid))).await;
}

const ARGS: [&str; 4] = ["--max-workers", "2", "--kill-grace", "100ms"];

#[tokio::test]
async fn a_worker_that_has_left_its_group_is_stopped_like_any_other() {
    let ignores = "signal.signal(signal.SIGTERM, signal.SIG_IGN)";
    for (builder, calls) in [
        (Shim::persistent(""), &[false, true, false][..]),
        (exec(&leaves_group("")), &[false]),
        (exec(&leaves_group(ignores)), &[true]),
    ] {
        let mut shim = builder.args(ARGS).start().await;
        let parent = u64::try_from(shim.pid().as_raw()).unwrap();
        for ignores in calls {
            let vmi = json!({"do": "leave", "ignores SIGTERM": ignores});
            let call = shim.send_within(&vmi, Duration::from_secs(1)).await;
            let pid = logged_number(&mut shim, "left ").await;
            assert!(children(parent).len() <= 2, "more processes than --max-workers");
            let status = call.await.unwrap().unwrap_err();
            assert_eq!(status.code(), tonic::Code::DeadlineExceeded, "{status:?}");
            all_gone("the worker that left its group is stopped", &[pid]).await;
        }
        // No signal went to the group that it had joined.
        assert!(!gone(parent));
    }
}

#[tokio::test]
async fn what_calls_setsid_does_not_outlive_the_calls_deadline() {
    let program = format!("#!/bin/sh\n{STUBBORN} session &\nwait\n");
    let persistent = Shim::persistent("").args(ARGS);
    // A worker below a program that has left the group itself.
    let wrapped = Shim::worker(&format!("setsid --wait {}", worker(""))).args(ARGS);
    for builder in [persistent, wrapped, exec(&program).args(ARGS)] {
        let mut shim = builder.start().await;
        let vmi = json!({"do": "session"});
        let call = shim.send_within(&vmi, Duration::from_secs(1)).await;
        let pids = family(logged_number(&mut shim, "session ").await);
        let status = call.await.unwrap().unwrap_err();
        assert_eq!(status.code(), tonic::Code::DeadlineExceeded, "{status:?}");
        all_gone("the processes in other sessions are killed", &pids).await;
    }
}

#[tokio::test]
async fn what_hooks_leave_behind_ends_with_the_shim() {
    let program = format!("#!/bin/sh\n({STUBBORN} daemon &)\nprintf '%s' \"$4\"\n");
    for builder in [Shim::persistent(""), exec(&program)] {
        let mut shim = builder.start().await;
        let parent = u64::try_from(shim.pid().as_raw()).unwrap();
        shim.define(&json!({"do": "stubborn daemon"}), DOMAIN).await.unwrap();
        let daemon = logged_number(&mut shim, "daemon ").await;
        eventually("the shim inherits it", || stat(daemon).is_some_and(|(_, of)| of == parent))
            .await;
        let pids = family(daemon);
        shim.signal(Signal::SIGTERM);
        assert_eq!(shim.exited().await.code(), Some(0));
        assert!(pids.iter().all(|&pid| !exists(pid)), "{pids:?} have outlived the shim");
        shim.assert_logged("sending SIGTERM to a process that a hook has left behind");
        shim.assert_logged("sending SIGKILL to a process that a hook has left behind");
    }
}

#[tokio::test]
async fn what_hooks_leave_behind_may_exit_at_sigterm() {
    // The shell waits for the sleep, whose exit the signal of the shim does not need.
    let program = "#!/bin/sh\n(setsid sh -c 'trap \"echo saved >$FILE; kill $!; exit\" TERM\n\
                   sleep 600 >/dev/null 2>&1 & echo \"daemon $$\" >&2; exec >/dev/null 2>&1; wait' &)\n\
                   printf '%s' \"$4\"\n";
    let builder = exec(program);
    let file = builder.dir().join("file");
    let mut shim = builder.env("FILE", &file).start().await;
    shim.still_works().await;
    let daemon = logged_number(&mut shim, "daemon ").await;
    shim.signal(Signal::SIGTERM);
    assert_eq!(shim.exited().await.code(), Some(0));
    assert_eq!(std::fs::read_to_string(file).unwrap(), "saved\n");
    assert!(!exists(daemon));
}

#[tokio::test]
async fn a_shim_that_does_not_start_leaves_no_process_either() {
    let builder = Shim::builder();
    let text = "#!/bin/sh\nmkfifo \"$FIFO\"\n\
                (setsid sh -c 'trap \"\" TERM; echo \"daemon $$\" >&2; echo >\"$FIFO\"\n\
                               exec sleep 600 >/dev/null 2>&1' &)\n\
                read -r line <\"$FIFO\"; exit 3\n";
    let path = script(builder.dir(), "worker", text);
    let builder = builder.env("FIFO", path.with_extension("fifo"));
    let mut shim = builder.worker(path.to_str().unwrap()).spawn();
    let daemon = logged_number(&mut shim, "daemon ").await;
    assert_eq!(shim.exited().await.code(), Some(1));
    assert!(!exists(daemon));
}

#[tokio::test]
async fn a_child_that_the_shim_had_before_it_was_the_shim_is_left_alone() {
    let builder = exec("#!/bin/sh\nprintf '%s' \"$4\"\n");
    let file = builder.dir().join("helper");
    let before = format!("sleep 600 >/dev/null 2>&1 & echo $! >'{}'; exec \"$@\"", file.display());
    let mut shim = builder.under(&["sh", "-c", &before, "sh"]).start().await;
    shim.still_works().await;
    let helper: u64 = std::fs::read_to_string(file).unwrap().trim().parse().unwrap();
    shim.signal(Signal::SIGTERM);
    assert_eq!(shim.exited().await.code(), Some(0));
    assert!(!gone(helper), "the shim has stopped a process that is not a hook's");
    crate::support::kill(helper);
}
