//! The pool of workers: which worker gets a call, how many there are, and what follows when one fails.

use std::collections::BTreeSet;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;
use tonic::{Code, Status};

use crate::support::{Call, DOMAIN, Gate, InFlight, Shim, comment, domain_of, kill};

/// One worker, which gets this long after a cancellation or SIGTERM.
fn one_worker(kill_grace: &str) -> [&str; 4] {
    ["--max-workers", "1", "--kill-grace", kill_grace]
}

/// Waits until a worker has logged `seen`, and lets the caller leave.
async fn leave(shim: &mut Shim, call: Call, seen: &str) {
    shim.log_line(seen).await;
    call.abort();
}

/// Starts a shim whose workers fail in the way `start` after the first one.
async fn only_first_starts(start: &str, args: &[&str]) -> Shim {
    let builder = Shim::persistent(&format!("{start}:mark")).args(args);
    let dir = builder.dir().to_owned();
    builder.current_dir(dir).start().await
}

/// Lets the next worker start.
fn let_one_start(shim: &Shim) {
    std::fs::remove_dir(shim.dir.path().join("mark")).unwrap();
}

/// Returns the error of the first of two calls that gets an answer, and the other call.
async fn first_refused(mut first: Call, mut second: Call) -> (Status, Call) {
    let (refused, other) = tokio::select! {
        refused = &mut first => (refused, second),
        refused = &mut second => (refused, first),
    };
    (refused.unwrap().unwrap_err(), other)
}

#[tokio::test]
async fn a_late_answer_is_discarded_and_the_worker_is_kept() {
    let builder = Shim::persistent("--cancel").args(one_worker("10m"));
    let mut shim = builder.args(["--log-level", "debug"]).start().await;
    let before = shim.worker_pid().await;
    let second = Duration::from_secs(1);
    let call = shim.send_within(&json!({"do": "until cancelled"}), second).await;
    let status = call.await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    shim.log_line("cancelled 3").await;
    shim.log_line("discarded a late answer").await;
    assert_eq!(shim.worker_pid().await, before);
}

#[tokio::test]
async fn a_call_whose_caller_leaves_is_cancelled_and_the_worker_is_kept() {
    let builder = Shim::persistent("--cancel").args(one_worker("10m"));
    let mut shim = builder.args(["--log-level", "debug"]).start().await;
    let before = shim.worker_pid().await;
    let call = shim.send(&json!({"do": "until cancelled"})).await;
    leave(&mut shim, call, "working").await;
    shim.log_line("the caller left: ").await;
    shim.log_line("cancelled 3").await;
    shim.log_line("discarded a late answer").await;
    assert_eq!(shim.worker_pid().await, before);
}

#[tokio::test]
async fn a_worker_that_cannot_cancel_is_stopped_when_its_caller_leaves() {
    let mut shim = Shim::persistent("").args(one_worker("100ms")).start().await;
    let before = shim.worker_pid().await;
    let call = shim.send(&json!({"do": "hang"})).await;
    leave(&mut shim, call, "hanging").await;
    shim.log_line("worker lost: it was stopped because it did not finish a call in time").await;
    assert_ne!(shim.worker_pid().await, before);
}

#[tokio::test]
async fn a_worker_that_ignores_sigterm_is_killed() {
    let mut shim = Shim::persistent("").args(one_worker("100ms")).start().await;
    let before = shim.worker_pid().await;
    let call = shim.send(&json!({"do": "ignore SIGTERM"})).await;
    leave(&mut shim, call, "ignoring SIGTERM").await;
    let line = shim.log_line("worker lost").await;
    // By the shim, and not for want of memory.
    assert!(line["msg"].as_str().unwrap().ends_with("killed by SIGKILL"), "{line}");
    assert_ne!(shim.worker_pid().await, before);
}

#[tokio::test]
async fn a_large_call_that_times_out_leaves_no_half_frame() {
    // The first worker does not read the call, so only a part of it is in the pipe. The limit is the
    // shim's own: on a busy machine, a client's deadline may pass before the shim can answer.
    let args = [&one_worker("100ms")[..], &["--call-timeout", "1s"]].concat();
    let mut shim = only_first_starts("--start stuck", &args).await;
    let large = shim.dial().await.define("v1alpha3", "{}", domain_of(4_000_000)).await;
    assert_eq!(large.unwrap_err().code(), Code::DeadlineExceeded);
    shim.log_line("worker lost: it was stopped because it did not finish a call in time").await;
    shim.still_works().await;
}

#[tokio::test]
async fn a_call_that_hangs_occupies_one_worker_and_does_not_block_the_queue() {
    let shim = Shim::persistent("").args(["--max-workers", "2"]).start().await;
    let busy = shim.call_in_flight().await;
    for _ in 0..5 {
        shim.still_works().await;
    }
    busy.finish().await.unwrap();
}

#[tokio::test]
async fn the_queue_has_a_limit_in_bytes() {
    let builder = Shim::persistent("").args(["--max-workers", "1", "--queue-bytes", "1KiB"]);
    let shim = builder.start().await;
    let busy = shim.call_in_flight().await;
    // Each exceeds the limit: a single one may wait, because otherwise it could never be served.
    let vmi = json!({"filler": "x".repeat(2000)});
    let (status, other) = first_refused(shim.send(&vmi).await, shim.send(&vmi).await).await;
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert!(status.message().contains("1024 may (--queue-bytes)"), "{status:?}");
    busy.finish().await.unwrap();
    assert_eq!(other.await.unwrap().unwrap(), DOMAIN);
}

#[tokio::test]
async fn in_exec_mode_the_queue_has_the_same_limit() {
    let waits = "#!/bin/sh\ncat \"$GATE\"\necho \"$4\"\n";
    let builder = Shim::builder().program("onDefineDomain", waits);
    let gate = Gate::new(builder.dir().join("gate"));
    let builder = builder.args(["--max-workers", "1", "--queue-bytes", "1KiB"]);
    let shim = builder.env("GATE", &gate.0).start().await;
    let busy = InFlight::new(shim.send(&json!({})).await, &gate).await;
    let vmi = json!({"filler": "x".repeat(2000)});
    let (status, other) = first_refused(shim.send(&vmi).await, shim.send(&vmi).await).await;
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert!(status.message().contains("1024 may (--queue-bytes)"), "{status:?}");
    busy.finish().await.unwrap();
    InFlight::new(other, &gate).await.finish().await.unwrap();
}

#[tokio::test]
async fn waiting_too_long_and_running_too_long_are_different_errors() {
    let mut shim = Shim::persistent("").args(["--max-workers", "1"]).start().await;
    let running = shim.send_within(&json!({"do": "hang"}), Duration::from_millis(1200)).await;
    shim.log_line("hanging").await;
    let waiting = shim.send_within(&json!({}), Duration::from_millis(800)).await;
    let status = waiting.await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert!(
        status.message().contains("waited for its turn until its deadline; at most 1 workers"),
        "{status:?}"
    );
    let status = running.await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
}

#[tokio::test]
async fn the_last_worker_is_stopped_when_idle_and_the_next_call_starts_another() {
    let args = ["--idle-timeout", "200ms", "--log-level", "debug"];
    let mut shim = Shim::persistent("").args(args).start().await;
    for _ in 0..2 {
        let before = shim.worker_pid().await;
        shim.log_line("a worker reached --idle-timeout").await;
        shim.log_line("end of file").await;
        shim.log_line("worker stopped: it was stopped and exited with status 0").await;
        assert_ne!(shim.worker_pid().await, before);
    }
}

#[tokio::test]
async fn a_minimum_is_started_at_once_and_kept() {
    let args = ["--min-workers", "2", "--idle-timeout", "200ms", "--log-level", "debug"];
    let mut shim = Shim::persistent("").args(args).start().await;
    while shim.count("worker started") < 2 {
        shim.log_line("worker started").await;
    }
    // Three calls at once need a third worker, which is stopped afterwards.
    let mut calls = Vec::new();
    for _ in 0..3 {
        calls.push(shim.call_in_flight().await);
    }
    for call in calls {
        call.finish().await.unwrap();
    }
    shim.log_line("worker stopped").await;
    let busy = shim.call_in_flight().await;
    let idle = shim.worker_pid().await;
    let busy = comment(&busy.finish().await.unwrap()).as_u64().unwrap();
    assert_ne!(idle, busy);
    for pid in [idle, busy] {
        kill(pid);
    }
    // Killed workers are replaced without a call. That one has closed its stdin may be seen, and a
    // worker started for it, before it has exited.
    shim.log_line("hook worker failed").await;
    while shim.count("worker started") < 5 {
        shim.log_line("worker started").await;
    }
    assert_eq!(shim.count("worker started"), 5, "two, one for the third call, two replacements");
}

#[tokio::test]
async fn calls_one_after_the_other_need_one_worker() {
    let mut shim = Shim::persistent("").args(["--log-level", "debug"]).start().await;
    let mut pids = BTreeSet::new();
    for _ in 0..30 {
        pids.insert(shim.worker_pid().await);
    }
    assert_eq!(pids.len(), 1);
    shim.signal(Signal::SIGTERM);
    shim.exited().await;
    assert_eq!(shim.count("worker started"), 1);
}

#[tokio::test]
async fn a_worker_is_replaced_after_max_requests() {
    let args = ["--max-requests", "2", "--max-workers", "1"];
    let shim = Shim::persistent("").args(args).start().await;
    let mut pids = Vec::new();
    for _ in 0..6 {
        pids.push(shim.worker_pid().await);
    }
    let mut different = pids.clone();
    different.dedup();
    assert_eq!(different.len(), 3, "{pids:?}");
    assert!(pids.chunks(2).all(|pair| pair[0] == pair[1]), "{pids:?}");
}

#[tokio::test]
async fn a_worker_cannot_allocate_more_memory_than_its_limit() {
    let shim = Shim::persistent("").args(["--worker-memory", "256MiB"]).start().await;
    let status = shim.fails(&json!({"do": "allocate", "bytes": 512 << 20})).await;
    assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
    assert!(status.message().contains("this VM needs too much memory"), "{status:?}");
    shim.define(&json!({"do": "allocate", "bytes": 1 << 20}), DOMAIN).await.unwrap();

    let script = "#!/bin/sh\nwhile [ \"$(ulimit -d)\" = unlimited ]; do sleep 0.01; done\n\
                  echo \"<domain>$(ulimit -d)</domain>\"\n";
    let builder = Shim::builder().program("onDefineDomain", script);
    let shim = builder.args(["--worker-memory", "256MiB"]).start().await;
    assert_eq!(shim.define(&json!({}), DOMAIN).await.unwrap(), "<domain>262144</domain>\n");
}

#[tokio::test]
async fn calls_wait_while_a_worker_fails_to_start_a_few_times() {
    let mut shim = only_first_starts("--start once", &[]).await;
    kill(shim.worker_pid().await);
    shim.log_line("hook worker failed, another start in 100ms").await;
    let call = shim.send(&json!({})).await;
    shim.log_line("hook worker failed, another start in 200ms").await;
    let_one_start(&shim);
    shim.log_line("a hook worker is up again").await;
    assert_eq!(call.await.unwrap().unwrap(), DOMAIN);
}

#[tokio::test]
async fn when_workers_keep_failing_calls_fail_at_once_until_one_starts() {
    let mut shim = only_first_starts("--start once", &[]).await;
    kill(shim.worker_pid().await);
    shim.log_line("hook worker failed, another start in 100ms").await;
    // This call waits for the next worker, until too many have failed.
    let status = shim.fails(&json!({})).await;
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    shim.log_line("hook workers keep failing").await;
    for _ in 0..3 {
        let status = shim.fails(&json!({})).await;
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        assert!(
            status.message().contains("exited with status 8 before it answered initialize"),
            "{status:?}"
        );
        assert!(status.message().ends_with("came up before"), "{status:?}");
    }
    let_one_start(&shim);
    shim.log_line("a hook worker is up again").await;
    shim.still_works().await;
}

#[tokio::test]
async fn a_worker_that_declares_other_hooks_than_the_first_one_is_rejected() {
    let mut shim = only_first_starts("--start other", &[]).await;
    kill(shim.worker_pid().await);
    shim.log_line("declared other hooks than the first worker did").await;
    let_one_start(&shim);
    shim.log_line("a hook worker is up again").await;
    shim.still_works().await;
}

#[tokio::test]
async fn an_idle_worker_that_does_not_read_its_replies_is_stopped() {
    let mut shim = Shim::persistent("").args(one_worker("100ms")).start().await;
    shim.define(&json!({"do": "ask when idle"}), DOMAIN).await.unwrap();
    shim.log_line("it sends requests and does not read the replies").await;
    shim.still_works().await;
}

#[tokio::test]
async fn a_pool_whose_new_workers_kept_failing_recovers_after_its_busy_one_has_stopped() {
    let args = ["--idle-timeout", "200ms", "--log-level", "debug"];
    let mut shim = only_first_starts("--start once", &args).await;
    // The second call gets no worker while the first one occupies the only one.
    let busy = shim.call_in_flight().await;
    let waiting = shim.send(&json!({})).await;
    // Five starts have failed in a row.
    shim.log_line("another start in 1s 600ms").await;
    busy.finish().await.unwrap();
    waiting.await.unwrap().unwrap();
    shim.log_line("worker stopped").await;
    let_one_start(&shim);
    shim.log_line("a hook worker is up again").await;
    shim.still_works().await;
}

#[tokio::test]
async fn a_document_that_crashes_workers_does_not_make_the_pool_unavailable() {
    let mut shim = Shim::persistent("").start().await;
    for _ in 0..6 {
        let status = shim.fails(&json!({"do": "exit", "status": 3})).await;
        assert_eq!(status.code(), Code::Internal, "{status:?}");
        shim.still_works().await;
    }
    shim.signal(Signal::SIGTERM);
    shim.exited().await;
    assert_eq!(shim.count("worker lost"), 12, "two for each call");
    shim.assert_not_logged("hook worker failed");
}

#[tokio::test]
async fn after_a_crash_each_call_of_the_worker_is_retried_alone_on_a_new_one() {
    let mut shim = Shim::persistent("--concurrency 4").args(["--max-workers", "1"]).start().await;
    let crashing = shim.worker_pid().await;
    let mut calls = Vec::new();
    for _ in 0..3 {
        calls.push(shim.call_at_gate("wait at first").await);
    }
    let status = shim.fails(&json!({"do": "exit", "status": 3})).await;
    assert_eq!(status.code(), Code::Internal, "{status:?}");
    let mut pids = BTreeSet::from([crashing]);
    for call in calls {
        let about = comment(&call.answer().await.unwrap());
        assert_eq!((&about["attempt"], &about["id"]), (&json!(2), &json!(2)), "{about}");
        pids.insert(about["pid"].as_u64().unwrap());
    }
    assert_eq!(pids.len(), 4, "each on its own worker");
    shim.log_line("worker lost: it exited with status 3").await;
}

#[tokio::test]
async fn a_call_next_to_one_that_hangs_is_retried() {
    let mut shim = Shim::persistent("--concurrency 2").args(one_worker("100ms")).start().await;
    let other = shim.call_at_gate("wait at first").await;
    let status = shim.hangs().await;
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    assert_eq!(comment(&other.answer().await.unwrap())["attempt"], 2);
    shim.signal(Signal::SIGTERM);
    shim.exited().await;
    let hanging = shim.lines.iter().filter(|line| line["msg"] == "hanging").count();
    assert_eq!(hanging, 1, "after its deadline a call is not retried");
}

#[tokio::test]
async fn a_call_next_to_one_that_breaks_the_protocol_is_retried() {
    let shim = Shim::persistent("--concurrency 2").args(["--max-workers", "1"]).start().await;
    let other = shim.call_at_gate("wait at first").await;
    let status = shim.fails(&json!({"do": "raw", "hex": "00000000"})).await;
    assert_eq!(status.code(), Code::Internal, "{status:?}");
    assert!(status.message().contains("a frame of length 0"), "{status:?}");
    assert_eq!(comment(&other.answer().await.unwrap())["attempt"], 2);
}

#[tokio::test]
async fn a_call_with_a_retryable_error_is_retried_once_on_another_worker() {
    let mut shim = Shim::persistent("").args(["--max-workers", "1"]).start().await;
    let before = shim.worker_pid().await;
    let answer = shim.define(&json!({"do": "retryable at first"}), DOMAIN).await.unwrap();
    let about = comment(&answer);
    assert_eq!((&about["attempt"], &about["id"]), (&json!(2), &json!(2)), "{about}");
    assert_ne!(about["pid"], before);
    let status = shim.fails(&json!({"do": "retryable at first", "always": true})).await;
    assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
    assert!(status.message().ends_with("refused: the database is away"), "{status:?}");
    shim.signal(Signal::SIGTERM);
    shim.exited().await;
    assert_eq!(shim.count("asked"), 4);
}

#[tokio::test]
async fn a_retry_does_not_starve_behind_a_queue_that_never_empties() {
    for worker in ["", "--concurrency 2"] {
        let shim = Shim::persistent(worker).args(["--max-workers", "1"]).start().await;
        let mut crowd = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let client = shim.dial().await;
            crowd.spawn(async move {
                while client.define("v1alpha3", "{}", DOMAIN).await.unwrap() == DOMAIN {}
            });
        }
        let answer = shim.define(&json!({"do": "retryable at first"}), DOMAIN).await.unwrap();
        assert_eq!(comment(&answer)["attempt"], 2);
        assert_eq!(crowd.len(), 4, "all others continue");
        assert!(crowd.try_join_next().is_none());
    }
}

#[tokio::test]
async fn if_no_worker_starts_for_a_retry_the_caller_sees_the_first_failure() {
    let shim = only_first_starts("--start once", &[]).await;
    let status = shim.fails(&json!({"do": "exit", "status": 3, "stderr": ["KeyError"]})).await;
    assert_eq!(status.code(), Code::Internal, "{status:?}");
    assert!(status.message().contains("exited with status 3"), "{status:?}");
    assert!(status.message().ends_with("KeyError"), "{status:?}");
}

#[tokio::test]
async fn a_call_does_not_wait_behind_a_pipe_that_its_worker_does_not_read() {
    let args = ["--max-workers", "2"];
    let shim = only_first_starts("--concurrency 2 --start stuck", &args).await;
    // The first call goes to the worker that reads nothing; the other one gets a new worker.
    let mut calls = Vec::new();
    for _ in 0..2 {
        let (client, domain) = (shim.dial().await, domain_of(2_000_000));
        calls.push(tokio::spawn(async move { client.define("v1alpha3", "{}", domain).await }));
    }
    let [first, second] = &mut calls[..] else { panic!() };
    let answer = tokio::select! {
        answer = first => answer,
        answer = second => answer,
    };
    assert_eq!(answer.unwrap().unwrap().len(), 2_000_000);
}

#[tokio::test]
async fn an_option_sets_how_answers_are_validated() {
    let shim = Shim::persistent("").args(["--validate", "none"]).start().await;
    let vmi = json!({"do": "result", "value": {"domain": "<broken"}});
    assert_eq!(shim.define(&vmi, DOMAIN).await.unwrap(), "<broken");
    let shim = Shim::persistent("").args(["--validate", "well-formed"]).start().await;
    assert_eq!(shim.fails(&vmi).await.code(), Code::Internal);
}

#[tokio::test]
async fn a_minimum_above_the_maximum_is_rejected() {
    let mut shim = Shim::persistent("").args(["--min-workers", "5"]).spawn();
    assert_eq!(shim.exited().await.code(), Some(1));
    shim.assert_logged("--min-workers 5 is more than --max-workers 4");
}
