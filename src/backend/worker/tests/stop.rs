//! Workers that the pool stops, and workers that survive it.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_worker_that_is_stopped_finishes_its_calls_first() {
    let (mut bench, mut worker) = Bench::start(json!({"concurrency": 2})).await;
    let first = bench.call(domain_call(), LONG);
    let first_request = worker.request().await;
    let second = bench.call(domain_call(), LONG);
    let second_request = worker.request().await;
    bench.stop();
    sleep(10 * KILL_GRACE).await;
    worker.reply(second_request.id, "second").await;
    assert_eq!(domain(result(second).await), "<domain>second</domain>");
    sleep(10 * KILL_GRACE).await;
    assert!(!worker.was_signalled(), "a call is in flight");
    worker.reply(first_request.id, "first").await;
    assert_eq!(domain(result(first).await), "<domain>first</domain>");
    worker.stdin_closes().await;
    assert!(!worker.was_signalled());
    worker.exit(0);
    assert!(matches!(bench.exited().await.cause, ExitCause::Requested));
}

#[tokio::test(start_paused = true)]
async fn from_eof_to_sigkill_it_is_one_grace_with_sigterm_in_its_middle() {
    let (mut bench, mut worker) = Bench::start(json!({})).await;
    worker.ignores_sigterm();
    let start = Instant::now();
    bench.stop();
    worker.stdin_closes().await;
    worker.terminated().await;
    assert_eq!(start.elapsed(), KILL_GRACE / 2);
    worker.killed().await;
    assert_eq!(start.elapsed(), KILL_GRACE);
    assert!(matches!(bench.exited().await.cause, ExitCause::Requested));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_no_caller_waits_for_does_not_lengthen_the_stop() {
    // The caller leaves before the stop or after it, or its deadline passes.
    for leaves in [0, 1, 2] {
        let (mut bench, mut worker) = Bench::start(json!({"cancel": true})).await;
        worker.ignores_sigterm();
        let mut reply = Some(bench.call(domain_call(), 5 * SECOND));
        let id = worker.request().await.id;
        if leaves == 1 {
            bench.stop();
        }
        if leaves < 2 {
            drop(reply.take());
        } else {
            sleep(5 * SECOND).await;
        }
        settle().await;
        let start = Instant::now();
        if leaves != 1 {
            bench.stop();
        }
        assert_eq!(worker.message().await["params"]["id"], id, "it is cancelled first");
        worker.stdin_closes().await;
        worker.killed().await;
        assert_eq!(start.elapsed(), KILL_GRACE);
        assert!(matches!(bench.exited().await.cause, ExitCause::Requested));
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_exits_at_eof_over_an_abandoned_call_was_stopped_and_not_lost() {
    let (mut bench, mut worker) = Bench::start(json!({})).await;
    let reply = bench.call(domain_call(), LONG);
    worker.request().await;
    drop(reply);
    bench.stop();
    worker.stdin_closes().await;
    worker.exit(0);
    assert!(matches!(bench.exited().await.cause, ExitCause::Requested));
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_answers_without_reading_the_call_has_one_grace_from_then_on() {
    let (mut bench, mut worker) = Bench::start(json!({})).await;
    let large = Bytes::from(format!("<domain>{}</domain>", "x".repeat(2 * PIPE_BYTES)));
    let reply = bench.call(domain_call_with(large), LONG);
    settle().await;
    worker.reply(2, "not read").await;
    assert_eq!(domain(result(reply).await), "<domain>not read</domain>");
    let start = Instant::now();
    bench.stop();
    // Not at the deadline of the call, whose caller has its answer.
    worker.terminated().await;
    assert_eq!(start.elapsed(), KILL_GRACE / 2);
    assert!(matches!(bench.exited().await.cause, ExitCause::Requested));
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_survives_sigkill_is_waited_for_no_longer_than_the_limit() {
    let (bench, mut worker) = Bench::start(json!({})).await;
    worker.ignores_sigkill();
    let start = Instant::now();
    let reply = bench.call(domain_call(), LONG);
    worker.request().await;
    worker.write(&[0, 0, 0, 0]).await;
    let failure = failure(result(reply).await);
    assert!(failure.contains("broke the worker protocol: a frame of length 0"), "{failure}");
    assert_eq!(start.elapsed(), CLOSED_PIPE_TIMEOUT + KILL_LIMIT);
    assert!(matches!(bench.exited().await.cause, ExitCause::Call));
}
