//! Second attempts: alone, on an unused worker.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_second_attempt_runs_alone_on_an_unused_worker() {
    let settings = Settings { max_workers: 1, ..settings() };
    let (mut bench, mut first) = Bench::start_with(settings, json!({"concurrency": 4})).await;
    let mut calls = Vec::new();
    for _ in 0..3 {
        calls.push(bench.call().await);
        assert_eq!(first.request().await.attempt, 1);
        settle().await;
    }
    let late = calls.pop().unwrap();
    first.reply(4, "done").await;
    assert_eq!(domain(result(late).await), "<domain>done</domain>");
    first.exit(3);
    let waiting = bench.call().await;

    let mut second = bench.next_worker().await;
    let request = second.request().await;
    assert_eq!((request.id, request.attempt), (2, 2), "its first call");
    settle().await;
    second.reply(request.id, "again").await;
    assert_eq!(domain(result(calls.remove(0)).await), "<domain>again</domain>");
    // It has been used. The pool is full, so it makes space for the next one.
    second.stdin_closes().await;
    second.exit(0);

    let mut third = bench.next_worker().await;
    let request = third.request().await;
    assert_eq!((request.id, request.attempt), (2, 2), "its first call");
    settle().await;
    third.reply(request.id, "again").await;
    assert_eq!(domain(result(calls.remove(0)).await), "<domain>again</domain>");
    // No call waits for its second attempt, so this worker serves what waits for its first.
    let request = answers(&mut third, waiting).await;
    assert_eq!((request.id, request.attempt), (3, 1));
    bench.starts_none().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_has_no_third_attempt() {
    let (mut bench, mut first) = Bench::start(settings()).await;
    let call = bench.call().await;
    first.request().await;
    first.exit(3);
    let mut second = bench.next_worker().await;
    assert_eq!(second.request().await.attempt, 2);
    second.exit(4);
    let failure = failure(result(call).await);
    assert!(failure.contains("exited with status 4"), "the last one counts: {failure}");
    // The next call should find a worker that is ready.
    let mut third = bench.next_worker().await;
    bench.round_trip(&mut third).await;
}

#[tokio::test(start_paused = true)]
async fn a_retryable_error_has_its_second_attempt_on_another_worker() {
    for capabilities in [json!({}), json!({"concurrency": 2})] {
        let settings = Settings { max_workers: 1, ..settings() };
        let (mut bench, mut first) = Bench::start_with(settings, capabilities).await;
        bench.round_trip(&mut first).await;
        let call = bench.call().await;
        let request = first.request().await;
        first.fail_retryably(request.id).await;
        first.stdin_closes().await;
        assert!(!first.was_signalled());
        first.exit(0);
        let mut second = bench.next_worker().await;
        let request = second.request().await;
        assert_eq!(request.attempt, 2);
        second.fail_retryably(request.id).await;
        assert_eq!(failure(result(call).await), "refused: the database is away");
        bench.round_trip(&mut second).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_attempt_goes_before_calls_that_wait() {
    let settings = Settings { max_workers: 1, ..settings() };
    let (mut bench, mut first) = Bench::start(settings).await;
    let call = bench.call().await;
    let waiting = bench.call().await;
    let request = first.request().await;
    first.fail_retryably(request.id).await;
    first.stdin_closes().await;
    first.exit(0);
    let mut second = bench.next_worker().await;
    assert_eq!(answers(&mut second, call).await.attempt, 2);
    assert_eq!(answers(&mut second, waiting).await.attempt, 1);
}

#[tokio::test(start_paused = true)]
async fn a_second_attempt_that_finds_no_worker_fails_as_the_first_one_did() {
    let (mut bench, mut first) = Bench::start(settings()).await;
    let call = bench.call().await;
    first.request().await;
    first.prints_to_stderr("KeyError");
    first.exit(3);
    for _ in 0..5 {
        bench.started.next().await.exit(8);
    }
    assert_eq!(
        failure(result(call).await),
        "failed: fake-worker exited with status 3; the last lines of its stderr:\nKeyError"
    );
}

#[tokio::test(start_paused = true)]
async fn a_node_hook_has_no_second_attempt_if_its_worker_dies() {
    let (mut bench, mut first) = Bench::start(settings()).await;
    let call = bench.call_with(node_call(), LONG).await;
    first.request().await;
    first.exit(3);
    assert!(failure(result(call).await).contains("exited with status 3"));
    let mut second = bench.next_worker().await;
    bench.round_trip(&mut second).await;
}

#[tokio::test(start_paused = true)]
async fn a_call_that_kills_its_workers_does_not_make_the_pool_unavailable() {
    let (mut bench, mut worker) = Bench::start(settings()).await;
    for _ in 0..6 {
        let call = bench.call().await;
        for _ in 0..2 {
            worker.request().await;
            worker.exit(3);
            worker = bench.next_worker().await;
        }
        assert!(failure(result(call).await).contains("exited with status 3"));
        bench.round_trip(&mut worker).await;
        // A used worker, so that the next call has it for its first attempt.
    }
    assert!(!bench.is_down());
}

#[tokio::test(start_paused = true)]
async fn a_second_attempt_does_not_wait_for_a_worker_to_become_idle() {
    let settings = Settings { max_workers: 1, ..settings() };
    let (mut bench, mut first) = Bench::start_with(settings, json!({"concurrency": 2})).await;
    let beside = bench.call().await;
    let beside_request = first.request().await;
    settle().await;
    let retried = bench.call().await;
    let request = first.request().await;
    settle().await;
    let waiting = bench.call().await;
    first.fail_retryably(request.id).await;
    settle().await;
    // It has a free slot, and is sent no more calls.
    first.reply(beside_request.id, "beside").await;
    assert_eq!(domain(result(beside).await), "<domain>beside</domain>");
    first.stdin_closes().await;
    first.exit(0);
    let mut second = bench.next_worker().await;
    assert_eq!(answers(&mut second, retried).await.attempt, 2);
    assert_eq!(answers(&mut second, waiting).await.attempt, 1);
}

#[tokio::test(start_paused = true)]
async fn no_call_waits_for_the_slots_of_a_worker_that_runs_a_second_attempt() {
    let settings = Settings { max_workers: 2, ..settings() };
    let (mut bench, mut first) = Bench::start_with(settings, json!({"concurrency": 2})).await;
    let large = format!("<domain>{}</domain>", "x".repeat(100_000));
    let retried = bench.call_with(domain_call_with(large.into()), LONG).await;
    first.request().await;
    settle().await;
    first.exit(3);
    let mut second = bench.next_worker().await;
    let start = Instant::now();
    // The second attempt is still being written, and runs alone after that.
    let other = bench.call().await;
    let mut third = bench.next_worker().await;
    assert_eq!(start.elapsed(), Duration::ZERO);
    answers(&mut third, other).await;
    assert_eq!(answers(&mut second, retried).await.attempt, 2);
}
