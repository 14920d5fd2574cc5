//! Many calls while workers fail in many ways: each call gets its own answer or a documented error,
//! and neither processes nor descriptors are left over.
//!
//! CI makes 10,000 calls: `SHIM_CHAOS_CALLS=10000 cargo test --test shim chaos`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;
use tonic::Code;

use crate::support::{Client, DOMAIN, LIMIT, Shim, children, comment, descriptors, eventually};

const CLIENTS: u64 = 8;

/// Deadline of calls that hang. All others have more time.
const HANGING: Duration = Duration::from_millis(500);

/// A client's pause after `UNAVAILABLE`.
const UNAVAILABLE_PAUSE: Duration = Duration::from_millis(250);

/// Each client kills a worker after this many of its calls, or twice in a shorter run.
const CALLS_PER_KILL: u64 = 100;

/// Calls where the environment asks for no other number: enough for every fault, few enough for each
/// run of the tests.
const DEFAULT_CALLS: u64 = 300;

fn calls() -> u64 {
    std::env::var("SHIM_CHAOS_CALLS").map_or(DEFAULT_CALLS, |calls| calls.parse().unwrap())
}

/// The fault of a call: one call in twenty has one.
fn fault(nonce: u64) -> Option<&'static str> {
    // The multiplication spreads the faults over all clients.
    let spread = nonce.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    spread
        .is_multiple_of(20)
        .then(|| ["crash", "hang", "tear"][usize::try_from(spread / 20 % 3).unwrap()])
}

#[tokio::test]
async fn many_calls_while_workers_crash_hang_tear_frames_and_are_killed() {
    run("", calls()).await;
}

#[tokio::test]
async fn the_same_with_workers_that_run_several_calls_at_once() {
    run("--concurrency 3 --attachments", calls().min(2000)).await;
}

async fn run(worker_args: &str, calls: u64) {
    let args = ["--kill-grace", "100ms", "--idle-timeout", "500ms", "--log-level", "error"];
    let mut shim = Shim::persistent(worker_args).args(args).spawn();
    // At this level no line says that it serves.
    shim.has_socket().await;
    let (pid, socket) = (u64::from(shim.child.id().unwrap()), shim.socket());
    let no_workers = settled(pid, None).await;
    let shared = Arc::new(socket);
    let calls_per_kill = CALLS_PER_KILL.min(calls / CLIENTS / 2);
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let socket = shared.clone();
        clients.push(tokio::spawn(async move {
            let mut outcomes = BTreeMap::new();
            for nonce in (0..calls).filter(|nonce| nonce % CLIENTS == number) {
                let fault = fault(nonce);
                let vmi = json!({"do": "nonce", "nonce": nonce, "fault": fault}).to_string();
                let limit = if fault == Some("hang") { HANGING } else { LIMIT };
                let client = Client::dial(&socket).await;
                let answer = client.define_within("v1alpha3", vmi, DOMAIN, limit).await;
                let code = match answer {
                    Ok(domain) => {
                        assert_eq!(comment(&domain), nonce, "another call's answer");
                        Code::Ok
                    }
                    Err(status) => {
                        assert!(!status.message().is_empty(), "{status:?}");
                        status.code()
                    }
                };
                if code == Code::Unavailable {
                    tokio::time::sleep(UNAVAILABLE_PAUSE).await;
                }
                *outcomes.entry((fault.unwrap_or("none"), format!("{code:?}"))).or_insert(0) += 1;
                if nonce / CLIENTS % calls_per_kill == calls_per_kill - 1 {
                    kill_one(pid, nonce);
                }
            }
            outcomes
        }));
    }
    let drained = tokio::spawn(async move {
        shim.drain_log().await;
        shim
    });
    let mut outcomes: BTreeMap<_, u64> = BTreeMap::new();
    for client in clients {
        for (outcome, count) in client.await.unwrap() {
            *outcomes.entry(outcome).or_default() += count;
        }
    }
    #[expect(clippy::print_stderr, reason = "the outcomes are worth knowing")]
    {
        eprintln!("{calls} calls: {outcomes:?}");
    }
    assert_eq!(outcomes.values().sum::<u64>(), calls, "each call has an outcome");
    let (mut good, mut answered, mut unavailable) = (0, 0, 0);
    for ((fault, code), count) in &outcomes {
        let expected: &[&str] = match *fault {
            // Its worker may be killed at both attempts. Killed idle workers count as failures of the
            // pool, which may then be without a worker for a while.
            "none" => &["Ok", "Internal", "Unavailable"],
            "crash" | "tear" => &["Internal", "Unavailable"],
            // The client's own clock may be first on a busy machine.
            _ => &["DeadlineExceeded", "ResourceExhausted", "Cancelled", "Internal", "Unavailable"],
        };
        assert!(expected.contains(&code.as_str()), "fault {fault} gave {code} {count} times");
        if *fault == "none" {
            good += count;
            answered += if code == "Ok" { *count } else { 0 };
            unavailable += if code == "Unavailable" { *count } else { 0 };
        }
    }
    // The time without a worker depends on the machine: on a busy one, workers start slowly.
    assert!(answered * 100 >= good * 80, "of {good} good calls {answered} were answered");
    let others = good - answered - unavailable;
    // A call may lose the workers of both its attempts to kills, of which short runs have many.
    assert!(
        others <= good / 100 + 5,
        "of {good} good calls {others} failed although a worker was running"
    );
    assert!(settled(pid, Some(no_workers)).await <= no_workers, "descriptors are left over");
    let parent = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
    #[expect(clippy::disallowed_methods, reason = "tests signal the shim")]
    nix::sys::signal::kill(parent, Signal::SIGTERM).unwrap();
    let mut shim = drained.await.unwrap();
    assert_eq!(shim.exited().await.code(), Some(0));
}

/// Kills one of the workers, if there is one.
fn kill_one(shim: u64, seed: u64) {
    let workers = children(shim);
    if let Some(worker) = workers.get(usize::try_from(seed).unwrap() % workers.len().max(1)) {
        let worker = nix::unistd::Pid::from_raw(i32::try_from(*worker).unwrap());
        // It may have exited in the meantime.
        #[expect(clippy::disallowed_methods, reason = "tests kill workers")]
        let _ = nix::sys::signal::kill(worker, Signal::SIGKILL);
    }
}

/// Waits until the idle workers have exited and, if `wanted` is given, until at most that many
/// descriptors are open. Returns the number of open descriptors.
async fn settled(shim: u64, wanted: Option<usize>) -> usize {
    let what = format!("no workers, and descriptors: {wanted:?}");
    eventually(&what, || {
        children(shim).is_empty() && wanted.is_none_or(|wanted| descriptors(shim) <= wanted)
    })
    .await;
    descriptors(shim)
}
