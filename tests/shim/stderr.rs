//! What hooks write to stderr: whose it is in the log and in statuses, and how much of it is logged.

use std::collections::BTreeMap;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{Client, DOMAIN, Shim};

/// A call that writes so many lines at once.
fn writes(line: &str, times: usize) -> Value {
    json!({"do": "stderr", "text": format!("{line}\n"), "times": times})
}

#[tokio::test]
async fn a_status_has_no_line_of_the_call_before_however_many_there_were() {
    let builder = Shim::persistent("--hooks preVMStart").plugin().args(["--max-workers", "1"]);
    let shim = builder.start().await;
    for lines in [10, 66, 100, 1000] {
        // Node hooks: a call whose worker dies is not tried again.
        let first = shim.send_node_hook(writes("about VM A", lines)).await;
        let exits = json!({"do": "exit", "status": 3, "stderr": ["about VM B"]});
        let second = shim.send_node_hook(exits).await;
        first.await.unwrap().unwrap();
        let status = second.await.unwrap().unwrap_err();
        let expected = "exited with status 3; the last lines of its stderr:\nabout VM B";
        assert!(status.message().ends_with(expected), "{status:?}");
    }
}

#[tokio::test]
async fn every_log_line_names_the_call_that_wrote_it() {
    const CLIENTS: usize = 4;
    // The log holds them all until the test reads it.
    const CALLS: usize = 10;
    const LINES: usize = 10;
    let mut shim = Shim::persistent("").args(["--max-workers", "2"]).start().await;
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let socket = shim.socket();
        clients.spawn(async move {
            for call in 0..CALLS {
                let vmi = writes(&format!("written by {client}/{call}"), LINES).to_string();
                let client = Client::dial(&socket).await;
                client.define("v1alpha3", vmi, DOMAIN.to_owned()).await.unwrap();
            }
        });
    }
    clients.join_all().await;
    shim.signal(Signal::SIGTERM);
    shim.exited().await;
    // The numbers that the log names for each call, and how often.
    let mut named: BTreeMap<&str, BTreeMap<(u64, u64), usize>> = BTreeMap::new();
    for line in &shim.lines {
        let message = line["msg"].as_str().unwrap_or_default();
        if let Some(call) = message.strip_prefix("written by ") {
            let number = (line["pid"].as_u64().unwrap(), line["call"].as_u64().unwrap());
            *named.entry(call).or_default().entry(number).or_default() += 1;
        }
    }
    assert_eq!(named.len(), CLIENTS * CALLS);
    for (call, numbers) in &named {
        assert_eq!(numbers.values().collect::<Vec<_>>(), [&LINES], "{call}: {numbers:?}");
    }
    let mut numbers: Vec<_> = named.values().flat_map(BTreeMap::keys).collect();
    numbers.sort();
    numbers.dedup();
    assert_eq!(numbers.len(), CLIENTS * CALLS, "each has its own");
}

#[tokio::test]
async fn with_concurrency_no_status_has_a_line_that_another_call_may_have_written() {
    let builder = Shim::persistent("--concurrency 8").args(["--max-workers", "1"]);
    let shim = builder.args(["--kill-grace", "100ms"]).start().await;
    let busy = shim.call_in_flight().await;
    shim.define(&writes("vm A SECRET", 1), DOMAIN).await.unwrap();
    let status = shim.hangs().await;
    assert!(status.message().ends_with("because it may be about other VMs"), "{status:?}");
    // The worker was stopped, and the call beside it is tried again, alone.
    drop(busy);
}

#[tokio::test]
async fn a_worker_that_writes_without_end_delays_no_other_call_and_does_not_fill_the_log() {
    for to in ["stderr", "log"] {
        let mut shim = Shim::persistent("").args(["--max-workers", "2"]).start().await;
        let flood = shim.send(&json!({"do": "keep writing", "to": to})).await;
        let line = shim.log_line("were left out of the log").await;
        assert!(line["left_out"].as_u64().unwrap() > 1000, "{line}");
        assert!(shim.count("flood") < 6000, "{} lines", shim.count("flood"));
        for _ in 0..20 {
            shim.still_works().await;
            // It gets one second, as from virt-launcher.
            assert!(!shim.dial().await.info().await.versions.is_empty());
        }
        assert!(!flood.is_finished());
        flood.abort();
    }
}

#[tokio::test]
async fn what_was_not_logged_when_the_shim_stops_is_logged_then_or_counted() {
    const LINES: usize = 2000;
    let mut shim = Shim::persistent("").start().await;
    shim.define(&writes("one of many", LINES), DOMAIN).await.unwrap();
    shim.signal(Signal::SIGTERM);
    // A log reader that is late.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(shim.exited().await.success());
    let sum = |name: &str| shim.lines.iter().filter_map(|line| line[name].as_u64()).sum::<u64>();
    let lines = shim.count("one of many") as u64;
    let counted = lines + sum("dropped_lines") + sum("left_out");
    assert!(lines > 0 && counted >= LINES as u64, "{lines} of {counted}");
}
