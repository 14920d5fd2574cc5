//! Workers that exit or break the protocol, and what becomes of their calls.

use super::*;

#[tokio::test(start_paused = true)]
async fn an_answer_counts_even_if_the_worker_exits_behind_it() {
    // Whichever event is seen first.
    for _ in 0..20 {
        let (mut bench, mut worker) = Bench::start(json!({})).await;
        let reply = bench.call(domain_call(), LONG);
        let request = worker.request().await;
        worker.reply(request.id, "the last one").await;
        worker.exit(3);
        assert_eq!(domain(result(reply).await), "<domain>the last one</domain>");
        let mut reports = Vec::new();
        while let Some((_, report)) = soon(bench.reports.recv()).await {
            reports.push(name(&report));
        }
        assert!(!reports.contains(&"Retry"), "{reports:?}");
        assert!(bench.failed().await.starts_with("fake-worker exited with status 3"));
    }
}

#[tokio::test(start_paused = true)]
async fn calls_in_flight_when_the_worker_dies_are_retried_except_for_node_hooks() {
    let (mut bench, mut worker) = Bench::start(json!({"concurrency": 2})).await;
    let mut domain = bench.call(domain_call(), LONG);
    worker.request().await;
    let node = bench.call(node_call(), LONG);
    worker.request().await;
    for _ in 0..2 {
        assert!(matches!(bench.report().await, Report::CallWritten));
    }
    worker.prints_to_stderr("KeyError");
    worker.exit(3);
    let job = bench.retried().await;
    assert_eq!((job.attempt(), job.call().hook().as_str()), (2, "onDefineDomain"));
    assert!(domain.try_recv().is_err(), "it is not answered yet");
    assert_eq!(
        failure(result(node).await),
        "failed: fake-worker exited with status 3; its stderr is only in the log, because it may \
         be about other VMs"
    );
    assert!(matches!(bench.exited().await.cause, ExitCause::Call));
}

#[tokio::test(start_paused = true)]
async fn half_a_frame_is_a_crash_if_the_exit_says_so_and_a_broken_rule_otherwise() {
    for (status, expected) in [
        (4, "failed: fake-worker exited with status 4;"),
        (0, "its output ended inside a frame: 6 of 13 bytes; then it exited with status 0"),
    ] {
        let (bench, mut worker) = Bench::start(json!({})).await;
        let reply = bench.call(node_call(), LONG);
        worker.request().await;
        worker.write(b"\0\0\0\x09{\"").await;
        worker.exit(status);
        let failure = failure(result(reply).await);
        assert!(failure.contains(expected), "{failure}");
        assert!(matches!(bench.exited().await.cause, ExitCause::Call));
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_is_blamed_for_a_broken_rule_only_if_it_was_alone() {
    let (mut bench, mut worker) = Bench::start(json!({"concurrency": 2})).await;
    let alone = bench.call(domain_call(), LONG);
    worker.request().await;
    assert!(matches!(bench.report().await, Report::CallWritten));
    worker.reply(99, "whose?").await;
    let text = failure(result(alone).await);
    assert!(text.contains("a response to request 99, which is not open"), "{text}");
    worker.killed().await;

    let (mut bench, mut worker) = Bench::start(json!({"concurrency": 2})).await;
    let replies = [bench.call(domain_call(), LONG), bench.call(domain_call(), LONG)];
    for _ in &replies {
        worker.request().await;
        assert!(matches!(bench.report().await, Report::CallWritten));
    }
    worker.reply(99, "whose?").await;
    for _ in &replies {
        assert_eq!(bench.retried().await.attempt(), 2);
    }
    assert!(matches!(bench.exited().await.cause, ExitCause::Call));
}

#[tokio::test(start_paused = true)]
async fn a_second_answer_costs_the_worker_and_no_call() {
    let (mut bench, mut worker) = Bench::start(json!({})).await;
    let reply = bench.call(domain_call(), LONG);
    let request = worker.request().await;
    worker.reply(request.id, "first").await;
    worker.reply(request.id, "second").await;
    assert_eq!(domain(result(reply).await), "<domain>first</domain>");
    bench.stop();
    worker.killed().await;
    let fault = bench.failed().await;
    assert!(fault.contains("a response to request 2, which is not open"), "{fault}");
}

#[tokio::test(start_paused = true)]
async fn an_idle_worker_may_exit_with_status_0() {
    let (bench, worker) = Bench::start(json!({})).await;
    worker.exit(0);
    assert!(matches!(bench.exited().await.cause, ExitCause::Idle));
}

#[tokio::test(start_paused = true)]
async fn jobs_that_were_not_started_go_back_to_the_pool() {
    let (bench, mut worker) = Bench::start(json!({})).await;
    let _open = bench.call(domain_call(), LONG);
    worker.request().await;
    // The worker has one slot, so this one stays in the channel.
    let mut waiting = bench.call(node_call(), LONG);
    worker.exit(3);
    let exit = bench.exited().await;
    let unsent: Vec<_> = exit.unsent.iter().map(|job| job.call().hook().as_str()).collect();
    assert_eq!(unsent, ["preVMStart"]);
    assert!(waiting.try_recv().is_err(), "it is not answered yet");
}

#[tokio::test(start_paused = true)]
async fn a_job_waits_for_the_send_buffer_and_goes_back_to_the_pool_from_there() {
    let (bench, mut worker) = Bench::start(json!({})).await;
    worker.asks_until_the_pipe_is_full().await;
    let mut waiting = bench.call(node_call(), LONG);
    settle().await;
    worker.exit(3);
    assert_eq!(bench.exited().await.unsent.len(), 1, "it was not sent");
    assert!(waiting.try_recv().is_err(), "it is not answered yet");
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_worker_asked_for_a_retry_and_died_is_retried() {
    let (mut bench, mut worker) = Bench::start(json!({})).await;
    let mut reply = bench.call(node_call(), LONG);
    let request = worker.request().await;
    worker.asks_until_the_pipe_is_full().await;
    worker.fail_retryably(request.id).await;
    settle().await;
    assert!(bench.no_report(), "its slot is not free");
    worker.exit(3);
    assert_eq!(bench.retried().await.attempt(), 2, "though it calls a node hook");
    assert!(reply.try_recv().is_err(), "it is not answered yet");
}

#[tokio::test(start_paused = true)]
async fn processes_that_hold_the_stdout_of_a_dead_worker_are_killed_or_not_waited_for() {
    for (holder, time) in [(Holder::InGroup, Duration::ZERO), (Holder::OutsideGroup, DRAIN_TIMEOUT)]
    {
        let (bench, mut worker) = Bench::start(json!({})).await;
        let reply = bench.call(node_call(), LONG);
        worker.request().await;
        let start = Instant::now();
        let _held = worker.exit_with_stdout_held(4, holder);
        let failure = failure(result(reply).await);
        assert!(failure.contains("exited with status 4"), "{failure}");
        assert_eq!(start.elapsed(), time);
        assert!(matches!(bench.exited().await.cause, ExitCause::Call));
    }
}
