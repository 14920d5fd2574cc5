//! The pool of workers: which of them gets a call, how many there are, what follows when one
//! fails.

use std::collections::BTreeSet;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tonic::{Code, Status};

use crate::support::{DOMAIN, LIMIT, Meeting, Shim, comment, domain_of, worker};

/// A call that is on its way.
type Call = JoinHandle<Result<String, Status>>;

/// Starts a call, with everything that it says of itself for an answer.
async fn begin(shim: &Shim, vmi: &Value) -> Call {
    begin_within(shim, vmi, LIMIT).await
}

async fn begin_within(shim: &Shim, vmi: &Value, deadline: Duration) -> Call {
    let (client, vmi) = (shim.dial().await, vmi.to_string());
    tokio::spawn(async move { client.define_within("v1alpha3", vmi, DOMAIN, deadline).await })
}

async fn pid(shim: &Shim) -> u64 {
    let about = comment(&shim.define(&json!({"do": "about"}), DOMAIN).await.unwrap());
    about["pid"].as_u64().unwrap()
}

fn kill(pid: u64) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
    #[expect(clippy::disallowed_methods, reason = "tests kill workers")]
    nix::sys::signal::kill(pid, Signal::SIGKILL).unwrap();
}

/// Keeps a worker busy until what is returned last is dropped.
async fn keep_busy(shim: &Shim, name: &str) -> (Call, tokio::net::unix::pipe::Sender) {
    let meeting = Meeting::new(shim.dir.path().join(name));
    let call = begin(shim, &json!({"do": "meet", "path": meeting.0})).await;
    let joined = meeting.joined().await;
    (call, joined)
}

fn count(shim: &Shim, text: &str) -> usize {
    let is = |line: &&Value| line["msg"].as_str().is_some_and(|message| message.contains(text));
    shim.lines.iter().filter(is).count()
}

#[tokio::test]
async fn a_late_answer_is_thrown_away_and_the_worker_kept() {
    let args = ["--kill-grace", "10m", "--log-level", "debug", "--max-workers", "1"];
    let mut shim = Shim::persistent("--cancel", &args).await;
    let before = pid(&shim).await;
    let second = Duration::from_secs(1);
    let call = begin_within(&shim, &json!({"do": "until cancelled"}), second).await;
    let status = call.await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    shim.log_line("cancelled 3").await;
    shim.log_line("discarded a late answer").await;
    assert_eq!(pid(&shim).await, before);
}

#[tokio::test]
async fn a_call_whose_caller_left_is_cancelled_and_the_worker_kept() {
    let args = ["--kill-grace", "10m", "--log-level", "debug", "--max-workers", "1"];
    let mut shim = Shim::persistent("--cancel", &args).await;
    let before = pid(&shim).await;
    let call = begin(&shim, &json!({"do": "until cancelled"})).await;
    shim.log_line("working").await;
    call.abort();
    shim.log_line("the caller left before the hook answered").await;
    shim.log_line("cancelled 3").await;
    shim.log_line("discarded a late answer").await;
    assert_eq!(pid(&shim).await, before);
}

#[tokio::test]
async fn a_worker_that_cannot_cancel_is_ended_when_its_caller_left() {
    let mut shim = Shim::persistent("", &["--kill-grace", "100ms", "--max-workers", "1"]).await;
    let before = pid(&shim).await;
    let call = begin(&shim, &json!({"do": "hang"})).await;
    shim.log_line("hanging").await;
    call.abort();
    shim.log_line("worker lost: it was stopped because it did not finish a call in time").await;
    assert_ne!(pid(&shim).await, before);
}

#[tokio::test]
async fn a_worker_that_ignores_sigterm_is_killed() {
    let mut shim = Shim::persistent("", &["--kill-grace", "100ms", "--max-workers", "1"]).await;
    let before = pid(&shim).await;
    let call = begin(&shim, &json!({"do": "hang on"})).await;
    shim.log_line("hanging on").await;
    call.abort();
    let line = shim.log_line("worker lost").await;
    assert!(line["msg"].as_str().unwrap().contains("killed by SIGKILL"), "{line}");
    assert_ne!(pid(&shim).await, before);
}

#[tokio::test]
async fn a_large_call_that_is_given_up_leaves_no_half_frame() {
    // The first worker does not read the call, so it stays half written in the pipe.
    let dir = tempfile::tempdir().unwrap();
    let start = format!("--start 'stuck:{}'", dir.path().join("mark").display());
    // The shim's own limit: a client's deadline may be over before the shim has got the CPU to answer.
    let limit = ["--call-timeout", "5s"];
    let args = [&["--kill-grace", "100ms", "--max-workers", "1"], &limit[..]].concat();
    let mut shim = Shim::persistent(&start, &args).await;
    let large = shim.dial().await.define("v1alpha3", "{}", domain_of(4_000_000)).await;
    assert_eq!(large.unwrap_err().code(), Code::DeadlineExceeded);
    shim.log_line("worker lost: it was stopped because it did not finish a call in time").await;
    shim.still_works().await;
}

#[tokio::test]
async fn a_call_that_hangs_holds_one_worker_and_not_the_queue() {
    let shim = Shim::persistent("", &["--max-workers", "2"]).await;
    let (busy, joined) = keep_busy(&shim, "fifo").await;
    for _ in 0..5 {
        shim.still_works().await;
    }
    drop(joined);
    busy.await.unwrap().unwrap();
}

#[tokio::test]
async fn the_queue_is_bounded_in_bytes_too() {
    let shim = Shim::persistent("", &["--max-workers", "1", "--queue-bytes", "1KiB"]).await;
    let (busy, joined) = keep_busy(&shim, "fifo").await;
    // Each is more than may wait: one may all the same, or it never could.
    let vmi = json!({"filler": "x".repeat(2000)});
    let (mut first, mut second) = (begin(&shim, &vmi).await, begin(&shim, &vmi).await);
    let (refused, other) = tokio::select! {
        refused = &mut first => (refused, second),
        refused = &mut second => (refused, first),
    };
    let status = refused.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert!(status.message().contains("1024 may (--queue-bytes)"), "{status:?}");
    drop(joined);
    assert_eq!(other.await.unwrap().unwrap(), DOMAIN);
    busy.await.unwrap().unwrap();
}

#[tokio::test]
async fn in_exec_mode_the_queue_is_bounded_in_bytes_too() {
    let script = "#!/bin/sh\ncat \"$FIFO\"\necho \"$4\"\n";
    let mut shim = Shim::spawn(&["--max-workers", "1", "--queue-bytes", "1KiB"], |command, dir| {
        crate::support::script(&dir.join("bin"), "onDefineDomain", script);
        command.env("PATH", crate::support::path_with(&dir.join("bin")));
        command.env("FIFO", dir.join("fifo"));
    });
    let meeting = Meeting::new(shim.dir.path().join("fifo"));
    shim.serving().await;
    let busy = begin(&shim, &json!({})).await;
    let joined = meeting.joined().await;
    let vmi = json!({"filler": "x".repeat(2000)});
    let (mut first, mut second) = (begin(&shim, &vmi).await, begin(&shim, &vmi).await);
    let (refused, other) = tokio::select! {
        refused = &mut first => (refused, second),
        refused = &mut second => (refused, first),
    };
    let status = refused.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert!(status.message().contains("1024 may (--queue-bytes)"), "{status:?}");
    drop(joined);
    busy.await.unwrap().unwrap();
    drop(meeting.joined().await);
    other.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_call_that_waits_too_long_is_told_apart_from_one_that_takes_too_long() {
    let shim = Shim::persistent("", &["--max-workers", "1"]).await;
    let (busy, joined) = keep_busy(&shim, "fifo").await;
    let second = Duration::from_secs(1);
    let waiting = begin_within(&shim, &json!({}), second).await;
    let status = waiting.await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert!(
        status.message().contains("waited for its turn until its deadline; at most 1 workers"),
        "{status:?}"
    );
    drop(joined);
    busy.await.unwrap().unwrap();
    assert_eq!(shim.hangs().await.code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn the_last_worker_ends_when_idle_and_the_next_call_starts_another() {
    let args = ["--idle-timeout", "200ms", "--log-level", "debug"];
    let mut shim = Shim::persistent("", &args).await;
    for _ in 0..2 {
        let before = pid(&shim).await;
        shim.log_line("a worker reached --idle-timeout").await;
        shim.log_line("end of file").await;
        shim.log_line("worker stopped: it was stopped and exited with status 0").await;
        assert_ne!(pid(&shim).await, before);
    }
}

#[tokio::test]
async fn a_minimum_is_started_at_once_and_kept() {
    let args = ["--min-workers", "2", "--idle-timeout", "200ms", "--log-level", "debug"];
    let mut shim = Shim::persistent("", &args).await;
    while count(&shim, "worker started") < 2 {
        shim.log_line("worker started").await;
    }
    // Three calls at once need one worker more, which ends afterwards.
    let mut all = Vec::new();
    for number in 0..3 {
        all.push(keep_busy(&shim, &format!("fifo {number}")).await);
    }
    for (call, joined) in all {
        drop(joined);
        call.await.unwrap().unwrap();
    }
    shim.log_line("worker stopped").await;
    let mut pids = BTreeSet::new();
    let busy = keep_busy(&shim, "fifo 3").await;
    pids.insert(pid(&shim).await);
    drop(busy.1);
    pids.insert(comment(&busy.0.await.unwrap().unwrap()).as_u64().unwrap());
    assert_eq!(pids.len(), 2);
    for pid in pids {
        kill(pid);
    }
    // Those that die are made up for without a call.
    shim.log_line("hook worker failed").await;
    shim.log_line("worker started").await;
    shim.log_line("worker started").await;
    assert_eq!(count(&shim, "worker started"), 5, "two, one for the third call, two again");
}

#[tokio::test]
async fn one_caller_after_the_other_needs_one_worker() {
    let mut shim = Shim::persistent("", &["--log-level", "debug"]).await;
    let mut pids = BTreeSet::new();
    for _ in 0..30 {
        pids.insert(pid(&shim).await);
    }
    assert_eq!(pids.len(), 1);
    shim.signal(Signal::SIGTERM);
    shim.ended().await;
    assert_eq!(count(&shim, "worker started"), 1);
}

#[tokio::test]
async fn a_worker_is_replaced_after_its_share_of_calls() {
    let args = ["--max-requests", "2", "--max-workers", "1"];
    let shim = Shim::persistent("", &args).await;
    let mut pids = Vec::new();
    for _ in 0..6 {
        pids.push(pid(&shim).await);
    }
    let mut different = pids.clone();
    different.dedup();
    assert_eq!(different.len(), 3, "{pids:?}");
    assert!(pids.chunks(2).all(|pair| pair[0] == pair[1]), "{pids:?}");
}

#[tokio::test]
async fn a_worker_may_not_take_more_memory_than_its_limit() {
    let shim = Shim::persistent("", &["--worker-memory", "256MiB"]).await;
    let status = shim.fails(&json!({"do": "allocate", "bytes": 512 << 20})).await;
    assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
    assert!(status.message().contains("this VM needs too much memory"), "{status:?}");
    shim.define(&json!({"do": "allocate", "bytes": 1 << 20}), DOMAIN).await.unwrap();

    let script = "#!/bin/sh\nwhile [ \"$(ulimit -d)\" = unlimited ]; do sleep 0.01; done\n\
                  echo \"<domain>$(ulimit -d)</domain>\"\n";
    let shim = Shim::exec(&[("onDefineDomain", script)], &["--worker-memory", "256MiB"]).await;
    assert_eq!(shim.define(&json!({}), DOMAIN).await.unwrap(), "<domain>262144</domain>\n");
}

#[tokio::test]
async fn calls_wait_while_a_worker_fails_to_start_a_few_times() {
    let dir = tempfile::tempdir().unwrap();
    let mark = dir.path().join("mark");
    let mut shim = Shim::persistent(&format!("--start 'once:{}'", mark.display()), &[]).await;
    kill(pid(&shim).await);
    shim.log_line("hook worker failed, another start in 100ms").await;
    let call = begin(&shim, &json!({})).await;
    shim.log_line("hook worker failed, another start in 200ms").await;
    std::fs::remove_dir(&mark).unwrap();
    shim.log_line("a hook worker is up again").await;
    assert_eq!(call.await.unwrap().unwrap(), DOMAIN);
}

#[tokio::test]
async fn when_workers_fail_again_and_again_calls_fail_at_once_until_one_comes_up() {
    let dir = tempfile::tempdir().unwrap();
    let mark = dir.path().join("mark");
    let mut shim = Shim::persistent(&format!("--start 'once:{}'", mark.display()), &[]).await;
    kill(pid(&shim).await);
    shim.log_line("hook worker failed, another start in 100ms").await;
    // This one waits for the next worker, until there is little hope for one.
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
    std::fs::remove_dir(&mark).unwrap();
    shim.log_line("a hook worker is up again").await;
    shim.still_works().await;
}

#[tokio::test]
async fn a_worker_that_declares_other_hooks_than_the_first_is_not_taken() {
    let dir = tempfile::tempdir().unwrap();
    let mark = dir.path().join("mark");
    let mut shim = Shim::persistent(&format!("--start 'other:{}'", mark.display()), &[]).await;
    kill(pid(&shim).await);
    shim.log_line("declared other hooks than the first worker did").await;
    std::fs::remove_dir(&mark).unwrap();
    shim.log_line("a hook worker is up again").await;
    shim.still_works().await;
}

#[tokio::test]
async fn an_idle_worker_that_reads_no_answers_is_found_out() {
    let mut shim = Shim::persistent("", &["--max-workers", "1", "--kill-grace", "100ms"]).await;
    shim.define(&json!({"do": "ask when idle"}), DOMAIN).await.unwrap();
    shim.log_line("it sends requests and does not read the replies").await;
    shim.still_works().await;
}

#[tokio::test]
async fn a_pool_that_went_down_beside_a_busy_worker_comes_up_again() {
    let dir = tempfile::tempdir().unwrap();
    let mark = dir.path().join("mark");
    let start = format!("--start 'once:{}'", mark.display());
    let args = ["--idle-timeout", "200ms", "--log-level", "debug"];
    let mut shim = Shim::persistent(&start, &args).await;
    // The second call cannot get a worker, while the first has the only one.
    let (busy, joined) = keep_busy(&shim, "fifo").await;
    let waiting = begin(&shim, &json!({})).await;
    shim.log_line("hook workers keep failing").await;
    drop(joined);
    busy.await.unwrap().unwrap();
    waiting.await.unwrap().unwrap();
    shim.log_line("worker stopped").await;
    std::fs::remove_dir(&mark).unwrap();
    shim.log_line("a hook worker is up again").await;
    shim.still_works().await;
}

#[tokio::test]
async fn a_poisonous_document_does_not_make_the_pool_unavailable() {
    let mut shim = Shim::persistent("", &[]).await;
    for _ in 0..6 {
        let status = shim.fails(&json!({"do": "exit", "status": 3})).await;
        assert_eq!(status.code(), Code::Internal, "{status:?}");
        shim.still_works().await;
    }
    shim.signal(Signal::SIGTERM);
    shim.ended().await;
    assert_eq!(count(&shim, "worker lost"), 12, "two for each");
    assert!(!shim.log_text().contains("hook worker failed"));
}

#[tokio::test]
async fn a_crash_costs_the_calls_of_one_worker_a_second_try_alone_on_a_fresh_one() {
    let mut shim = Shim::persistent("--concurrency 4", &["--max-workers", "1"]).await;
    let crashing = pid(&shim).await;
    let mut calls = Vec::new();
    for number in 0..3 {
        let meeting = Meeting::new(shim.dir.path().join(format!("fifo {number}")));
        let vmi = json!({"do": "meet at first", "path": meeting.0});
        let call = begin(&shim, &vmi).await;
        calls.push((call, meeting.joined().await));
    }
    let status = shim.fails(&json!({"do": "exit", "status": 3})).await;
    assert_eq!(status.code(), Code::Internal, "{status:?}");
    let mut pids = BTreeSet::from([crashing]);
    for (call, _joined) in calls {
        let about = comment(&call.await.unwrap().unwrap());
        assert_eq!((&about["attempt"], &about["id"]), (&json!(2), &json!(2)), "{about}");
        pids.insert(about["pid"].as_u64().unwrap());
    }
    assert_eq!(pids.len(), 4, "each on a worker of its own");
    shim.log_line("worker lost: it exited with status 3").await;
}

#[tokio::test]
async fn calls_beside_one_that_hangs_are_tried_again() {
    let args = ["--max-workers", "1", "--kill-grace", "100ms"];
    let mut shim = Shim::persistent("--concurrency 2", &args).await;
    let meeting = Meeting::new(shim.dir.path().join("fifo"));
    let beside = begin(&shim, &json!({"do": "meet at first", "path": meeting.0})).await;
    let _joined = meeting.joined().await;
    let status = shim.hangs().await;
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    let about = comment(&beside.await.unwrap().unwrap());
    assert_eq!(about["attempt"], 2);
    shim.signal(Signal::SIGTERM);
    shim.ended().await;
    let hanging = shim.lines.iter().filter(|line| line["msg"] == "hanging").count();
    assert_eq!(hanging, 1, "after a deadline there is no second try");
}

#[tokio::test]
async fn calls_beside_one_that_breaks_the_protocol_are_tried_again() {
    let shim = Shim::persistent("--concurrency 2", &["--max-workers", "1"]).await;
    let meeting = Meeting::new(shim.dir.path().join("fifo"));
    let beside = begin(&shim, &json!({"do": "meet at first", "path": meeting.0})).await;
    let _joined = meeting.joined().await;
    let status = shim.fails(&json!({"do": "raw", "hex": "00000000"})).await;
    assert_eq!(status.code(), Code::Internal, "{status:?}");
    assert!(status.message().contains("a frame of length 0"), "{status:?}");
    assert_eq!(comment(&beside.await.unwrap().unwrap())["attempt"], 2);
}

#[tokio::test]
async fn an_error_that_is_retryable_is_tried_once_more_on_another_worker() {
    let mut shim = Shim::persistent("", &["--max-workers", "1"]).await;
    let before = pid(&shim).await;
    let answer = shim.define(&json!({"do": "retryable at first"}), DOMAIN).await.unwrap();
    let about = comment(&answer);
    assert_eq!((&about["attempt"], &about["id"]), (&json!(2), &json!(2)), "{about}");
    assert_ne!(about["pid"], before);
    let status = shim.fails(&json!({"do": "retryable at first", "always": true})).await;
    assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
    assert!(status.message().ends_with("refused: the database is away"), "{status:?}");
    shim.signal(Signal::SIGTERM);
    shim.ended().await;
    assert_eq!(count(&shim, "asked"), 4);
}

#[tokio::test]
async fn a_second_try_does_not_starve_behind_a_queue_that_never_ends() {
    for worker in ["", "--concurrency 2"] {
        let shim = Shim::persistent(worker, &["--max-workers", "1"]).await;
        let mut crowd = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let client = shim.dial().await;
            crowd.spawn(async move {
                while client.define("v1alpha3", "{}", DOMAIN).await.unwrap() == DOMAIN {}
            });
        }
        let answer = shim.define(&json!({"do": "retryable at first"}), DOMAIN).await.unwrap();
        assert_eq!(comment(&answer)["attempt"], 2);
        assert_eq!(crowd.len(), 4, "all others go on");
        assert!(crowd.try_join_next().is_none());
    }
}

#[tokio::test]
async fn a_second_try_that_finds_no_worker_tells_how_the_first_one_failed() {
    let dir = tempfile::tempdir().unwrap();
    let start = format!("--start 'once:{}'", dir.path().join("mark").display());
    let shim = Shim::persistent(&start, &[]).await;
    let status = shim.fails(&json!({"do": "exit", "status": 3, "stderr": ["KeyError"]})).await;
    assert_eq!(status.code(), Code::Internal, "{status:?}");
    assert!(status.message().contains("exited with status 3"), "{status:?}");
    assert!(status.message().ends_with("KeyError"), "{status:?}");
}

#[tokio::test]
async fn a_call_does_not_wait_behind_a_pipe_that_nobody_reads() {
    let dir = tempfile::tempdir().unwrap();
    let start = format!("--concurrency 2 --start 'stuck:{}'", dir.path().join("mark").display());
    let shim = Shim::persistent(&start, &["--max-workers", "2"]).await;
    // Whichever comes first, the worker that reads nothing has it; the other gets a worker of its
    // own.
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
async fn what_is_checked_of_an_answer_can_be_chosen() {
    let shim = Shim::persistent("", &["--validate", "none"]).await;
    let vmi = json!({"do": "result", "value": {"domain": "<broken"}});
    assert_eq!(shim.define(&vmi, DOMAIN).await.unwrap(), "<broken");
    let shim = Shim::persistent("", &["--validate", "well-formed"]).await;
    assert_eq!(shim.fails(&vmi).await.code(), Code::Internal);
}

#[tokio::test]
async fn a_minimum_above_the_maximum_makes_no_sense() {
    let worker = worker("");
    let args = ["--mode", "persistent", "--worker", &worker, "--min-workers", "5"];
    let mut shim = Shim::spawn(&args, |_, _| {});
    assert_eq!(shim.ended().await.code(), Some(1));
    assert!(
        shim.log_text().contains("--min-workers 5 is more than --max-workers 4"),
        "{}",
        shim.log_text()
    );
}
