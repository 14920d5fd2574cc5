//! One shim for all VMs of a node: calls overlap, they start in the order in which they arrive, and no
//! VM stalls the others.

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::support::{Gate, InFlight, LIMIT, Shim, children, descriptors, eventually};

/// Makes the fixture worker wait at a gate.
fn wait(gate: &Gate) -> Value {
    json!({"do": "wait", "path": gate.0})
}

/// Puts calls in flight, each at its own gate: when all are there, they overlap.
async fn overlap(shim: &Shim, count: usize, vmi: fn(&Gate) -> Value) -> Vec<InFlight<()>> {
    let mut calls = Vec::new();
    for _ in 0..count {
        calls.push(shim.node_hook_in_flight(vmi).await);
    }
    calls
}

async fn finish(calls: Vec<InFlight<()>>) {
    for call in calls {
        call.finish().await.unwrap();
    }
}

#[tokio::test]
async fn as_many_calls_overlap_as_there_are_workers() {
    for count in ["1", "3", "8"] {
        let builder = Shim::persistent("--hooks preVMStart").plugin();
        let shim = builder.args(["--max-workers", count]).start().await;
        finish(overlap(&shim, count.parse().unwrap(), wait).await).await;
    }
}

#[tokio::test]
async fn as_many_programs_overlap() {
    let waits = "#!/bin/sh\npath=${2#*:\\\"}; cat \"${path%%\\\"*}\"\n";
    let builder = Shim::builder().program("preVMStart", waits).plugin();
    let shim = builder.args(["--max-workers", "4"]).start().await;
    finish(overlap(&shim, 4, |gate| json!({"path": gate.0})).await).await;
}

#[tokio::test]
async fn a_hanging_hook_of_one_vm_does_not_stall_the_others() {
    let builder = Shim::persistent("--hooks preVMStart").plugin();
    let mut shim = builder.args(["--max-workers", "2", "--kill-grace", "100ms"]).start().await;
    let hanging = shim.send_node_hook(json!({"do": "hang"})).await;
    shim.log_line("hanging").await;
    // The others are answered while it hangs …
    let other = shim.dial_plugin().await;
    for _ in 0..20 {
        other.node_hook("PreVMStart", &json!({})).await.unwrap();
    }
    assert!(!hanging.is_finished());
    // … and after its worker was stopped, because its caller has gone.
    hanging.abort();
    shim.log_line("worker lost: it was stopped because it did not finish a call in time").await;
    finish(overlap(&shim, 2, wait).await).await;
}

#[tokio::test]
async fn four_workers_answer_sixty_four_clients_in_the_order_of_their_arrival() {
    const CLIENTS: usize = 64;
    const WORKERS: usize = 4;
    let args = ["--max-workers", "4", "--min-workers", "4", "--log-level", "debug"];
    let builder = Shim::persistent("--hooks preVMStart").plugin();
    let mut shim = builder.args(args).start().await;
    // The first worker was started before the shim served.
    for _ in 1..WORKERS {
        shim.log_line("worker started").await;
    }
    let pid = shim.pid().as_raw().unsigned_abs().into();
    let before = descriptors(pid);
    let busy = overlap(&shim, WORKERS, wait).await;
    for _ in 0..WORKERS {
        shim.log_line("ExecuteNodeHook method has been called").await;
    }
    // All of these have to wait, and each has arrived before the next one is made.
    let started = shim.dir.path().join("started");
    let mut calls = Vec::new();
    for number in 0..CLIENTS {
        let vmi = json!({"do": "append", "path": started, "number": number});
        calls.push(shim.send_node_hook(vmi).await);
        shim.log_line("ExecuteNodeHook method has been called").await;
    }
    finish(busy).await;
    for call in calls {
        timeout(LIMIT, call).await.unwrap().unwrap().unwrap();
    }
    let order = std::fs::read_to_string(&started).unwrap();
    let order: Vec<usize> = order.lines().map(|line| line.parse().unwrap()).collect();
    let mut sorted = order.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (0..CLIENTS).collect::<Vec<_>>(), "each has run once");
    for (at, number) in order.iter().enumerate() {
        // Earlier calls were given to a worker before this one. At most one for each other worker may
        // not have written its number yet.
        assert!(at + WORKERS > *number, "call {number} was number {at} to run: {order:?}");
    }
    // Only the workers are left, once the connections are closed.
    assert_eq!(children(pid).len(), WORKERS);
    eventually("the descriptors are closed", || descriptors(pid) <= before).await;
    shim.signal(Signal::SIGTERM);
    assert_eq!(shim.exited().await.code(), Some(0));
    shim.assert_not_logged("call failed");
}
