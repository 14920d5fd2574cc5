//! Many calls while much goes wrong: every one gets its own answer or an error that is documented,
//! and nothing is left over.
//!
//! `SIDECAR_SHIM_CHAOS_CALLS=1000000 cargo test --test shim chaos` takes longer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;
use tonic::Code;

use crate::support::{Client, DOMAIN, LIMIT, Shim, children, comment, descriptors};

const CLIENTS: u64 = 8;

/// For calls that hang. Nothing else has so little time.
const HANGING: Duration = Duration::from_millis(500);

/// How long a client waits after it was told that no worker is there.
const UNAVAILABLE_PAUSE: Duration = Duration::from_millis(50);

/// After so many of a client's calls it kills a worker.
const CALLS_TO_A_KILL: u64 = 100;

/// What the worker is asked to do wrong: something, in one call of twenty.
fn amiss(nonce: u64) -> Option<&'static str> {
    // Spread by a multiplication, so that no client has them all.
    let spread = nonce.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    spread
        .is_multiple_of(20)
        .then(|| ["crash", "hang", "tear"][usize::try_from(spread / 20 % 3).unwrap()])
}

#[tokio::test]
async fn ten_thousand_calls_while_workers_crash_hang_tear_frames_and_are_killed() {
    let calls = std::env::var("SIDECAR_SHIM_CHAOS_CALLS").map_or(10_000, |n| n.parse().unwrap());
    run("", calls).await;
}

#[tokio::test]
async fn the_same_with_workers_that_take_several_calls_at_once() {
    run("--concurrency 3 --attachments", 2000).await;
}

async fn run(worker_args: &str, calls: u64) {
    // Hooks' lines are left out: only the last ones are wanted, and the pipe has to be read.
    let args = ["--kill-grace", "100ms", "--idle-timeout", "1s", "--log-level", "error"];
    let mut shim = Shim::persistent_quietly(worker_args, &args).await;
    let (pid, socket) = (u64::from(shim.child.id().unwrap()), shim.socket());
    let no_workers = settled(pid, None).await;
    let shared = Arc::new(socket);
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let socket = shared.clone();
        clients.push(tokio::spawn(async move {
            let mut outcomes = BTreeMap::new();
            for nonce in (0..calls).filter(|nonce| nonce % CLIENTS == number) {
                let amiss = amiss(nonce);
                let vmi = json!({"do": "nonce", "nonce": nonce, "amiss": amiss}).to_string();
                let limit = if amiss == Some("hang") { HANGING } else { LIMIT };
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
                *outcomes.entry((amiss.unwrap_or("fine"), format!("{code:?}"))).or_insert(0) += 1;
                if nonce / CLIENTS % CALLS_TO_A_KILL == CALLS_TO_A_KILL - 1 {
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
    #[expect(clippy::print_stderr, reason = "what it ran to is worth knowing")]
    {
        eprintln!("{calls} calls: {outcomes:?}");
    }
    assert_eq!(outcomes.values().sum::<u64>(), calls, "none is missing");
    let (mut good, mut answered, mut unavailable) = (0, 0, 0);
    for ((amiss, code), count) in &outcomes {
        let expected: &[&str] = match *amiss {
            // Its worker may be killed at both tries. Idle ones that are killed count as failing
            // again and again, so there may be none for a while.
            "fine" => &["Ok", "Internal", "Unavailable"],
            "crash" | "tear" => &["Internal", "Unavailable"],
            // The client's own clock may be first where the machine is held up.
            _ => &["DeadlineExceeded", "ResourceExhausted", "Cancelled", "Internal", "Unavailable"],
        };
        assert!(expected.contains(&code.as_str()), "{amiss} gave {code} {count} times");
        if *amiss == "fine" {
            good += count;
            answered += if code == "Ok" { *count } else { 0 };
            unavailable += if code == "Unavailable" { *count } else { 0 };
        }
    }
    // How long there is no worker depends on the machine: on a busy one they take long to come up.
    assert!(answered * 100 >= good * 80, "of {good} good calls {answered} were answered");
    let others = good - answered - unavailable;
    assert!(others * 100 <= good, "of {good} good calls {others} failed though there was a worker");
    assert!(settled(pid, Some(no_workers)).await <= no_workers, "descriptors are left over");
    let parent = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
    #[expect(clippy::disallowed_methods, reason = "tests signal the shim")]
    nix::sys::signal::kill(parent, Signal::SIGTERM).unwrap();
    let mut shim = drained.await.unwrap();
    assert_eq!(shim.ended().await.code(), Some(0));
}

/// Kills one of the workers.
fn kill_one(shim: u64, seed: u64) {
    let workers = children(shim);
    if let Some(worker) = workers.get(usize::try_from(seed).unwrap() % workers.len().max(1)) {
        let worker = nix::unistd::Pid::from_raw(i32::try_from(*worker).unwrap());
        // It may have ended by itself meanwhile.
        #[expect(clippy::disallowed_methods, reason = "tests kill workers")]
        let _ = nix::sys::signal::kill(worker, Signal::SIGKILL);
    }
}

/// Waits until the idle workers have ended, and, if a number is given, until no more descriptors
/// than that are open. Returns how many are.
async fn settled(shim: u64, wanted: Option<usize>) -> usize {
    let open = || descriptors(shim);
    let settling = async {
        // Nothing outside tells when a process or a descriptor is gone.
        while !children(shim).is_empty() || wanted.is_some_and(|wanted| open() > wanted) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let in_time = tokio::time::timeout(LIMIT, settling).await;
    assert!(
        in_time.is_ok(),
        "left: {:?} and {} descriptors, wanted {wanted:?}",
        children(shim),
        open()
    );
    open()
}
