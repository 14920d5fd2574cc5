//! One shim for all VMs of a node: calls overlap, in the order in which they come, and no VM stalls
//! the others.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tonic::Status;

use crate::support::{LIMIT, Meeting, Shim, children, descriptors, path_with, script};

/// A call that is on its way.
type Call = JoinHandle<Result<(), Status>>;

async fn begin(shim: &Shim, vmi: Value) -> Call {
    let plugin = shim.dial_plugin().await;
    tokio::spawn(async move { plugin.node_hook("PreVMStart", &vmi).await })
}

/// Keeps `workers` busy, each at a FIFO of its own: that all have come shows that they overlap.
async fn keep_busy(
    shim: &Shim,
    workers: usize,
    vmi: impl Fn(&Meeting) -> Value,
) -> Vec<(Call, tokio::net::unix::pipe::Sender)> {
    let mut calls = Vec::new();
    for number in 0..workers {
        let meeting = Meeting::new(shim.dir.path().join(format!("fifo-{number}")));
        let call = begin(shim, vmi(&meeting)).await;
        calls.push((call, meeting.joined().await));
    }
    calls
}

#[tokio::test]
async fn as_many_calls_overlap_as_there_are_workers() {
    for count in ["1", "3", "8"] {
        let shim = Shim::plugin_worker("--hooks preVMStart", &["--max-workers", count]).await;
        let meet = |meeting: &Meeting| json!({"do": "meet", "path": meeting.0});
        let busy = keep_busy(&shim, count.parse().unwrap(), meet).await;
        for (call, joined) in busy {
            drop(joined);
            call.await.unwrap().unwrap();
        }
    }
}

#[tokio::test]
async fn as_many_programs_overlap() {
    let wait = "#!/bin/sh\nfifo=${2#*:\\\"}; cat \"${fifo%%\\\"*}\"\n";
    let shim = Shim::plugin(&["--max-workers", "4"], |command, dir| {
        script(&dir.join("bin"), "preVMStart", wait);
        command.env("PATH", path_with(&dir.join("bin")));
    })
    .await;
    let busy = keep_busy(&shim, 4, |meeting| json!({"path": meeting.0})).await;
    for (call, joined) in busy {
        drop(joined);
        call.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn the_hanging_hook_of_one_vm_does_not_stall_the_others() {
    let args = ["--max-workers", "2", "--kill-grace", "100ms"];
    let mut shim = Shim::plugin_worker("--hooks preVMStart", &args).await;
    let plugin = shim.dial_plugin().await;
    let hanging =
        tokio::spawn(async move { plugin.node_hook("PreVMStart", &json!({"do": "hang"})).await });
    shim.log_line("hanging").await;
    // The others are answered while it hangs …
    let other = shim.dial_plugin().await;
    for _ in 0..20 {
        other.node_hook("PreVMStart", &json!({})).await.unwrap();
    }
    assert!(!hanging.is_finished());
    // … and after it was ended, which it is when its caller leaves: no clock runs against the others.
    hanging.abort();
    shim.log_line("worker lost: it was stopped because it did not finish a call in time").await;
    let busy = keep_busy(&shim, 2, |meeting| json!({"do": "meet", "path": meeting.0})).await;
    for (call, joined) in busy {
        drop(joined);
        call.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn sixty_four_clients_are_answered_by_four_workers_in_the_order_in_which_they_came() {
    const CLIENTS: usize = 64;
    const WORKERS: usize = 4;
    let args = ["--max-workers", "4", "--min-workers", "4", "--log-level", "debug"];
    let mut shim = Shim::plugin_worker("--hooks preVMStart", &args).await;
    // The first was started before it served.
    for _ in 1..WORKERS {
        shim.log_line("worker started").await;
    }
    let pid = shim.pid().as_raw().unsigned_abs().into();
    let before = descriptors(pid);
    let meet = |meeting: &Meeting| json!({"do": "meet", "path": meeting.0});
    let busy = keep_busy(&shim, WORKERS, meet).await;
    for _ in 0..WORKERS {
        shim.log_line("ExecuteNodeHook method has been called").await;
    }
    // All of these have to wait, and each has come before the next is made.
    let started = shim.dir.path().join("started");
    let mut calls = Vec::new();
    for number in 0..CLIENTS {
        let vmi = json!({"do": "append", "path": started, "number": number});
        calls.push(begin(&shim, vmi).await);
        shim.log_line("ExecuteNodeHook method has been called").await;
    }
    for (call, joined) in busy {
        drop(joined);
        call.await.unwrap().unwrap();
    }
    for call in calls {
        tokio::time::timeout(LIMIT, call).await.unwrap().unwrap().unwrap();
    }
    let order = std::fs::read_to_string(&started).unwrap();
    let order: Vec<usize> = order.lines().map(|line| line.parse().unwrap()).collect();
    let mut sorted = order.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (0..CLIENTS).collect::<Vec<_>>(), "each has run once");
    for (at, number) in order.iter().enumerate() {
        // When it was given out, all before it were; of those, the other workers may not have begun
        // one each.
        assert!(at + WORKERS > *number, "{number} was the {at}th: {order:?}");
    }
    // Nothing is left but the workers, once the connections are closed.
    assert_eq!(children(pid).len(), WORKERS);
    let closed = async {
        while descriptors(pid) > before {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(LIMIT, closed).await.expect("descriptors are left over");
    shim.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(shim.ended().await.code(), Some(0));
    assert!(!shim.log_text().contains("call failed"), "{}", shim.log_text());
}
