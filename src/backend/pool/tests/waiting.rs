//! Calls that wait, and deadlines.

use super::*;

#[tokio::test(start_paused = true)]
async fn after_a_late_answer_the_next_call_has_the_same_worker() {
    let settings = Settings { max_workers: 1, ..settings() };
    let (mut bench, mut worker) = Bench::start(settings).await;
    let call = bench.call_with(domain_call(), SECOND).await;
    let late = worker.request().await;
    assert!(failure(result(call).await).starts_with("did not answer within 1.0 s"));
    let waiting = bench.call().await;
    worker.reply(late.id, "late").await;
    answers(&mut worker, waiting).await;
    bench.starts_none().await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_without_a_late_answer_is_stopped_and_replaced_once_it_is_reaped() {
    let settings = Settings { max_workers: 1, ..settings() };
    let (mut bench, mut worker) = Bench::start(settings).await;
    worker.ignores_sigterm();
    let start = Instant::now();
    let call = bench.call_with(domain_call(), SECOND).await;
    worker.request().await;
    failure(result(call).await);
    assert_eq!(start.elapsed(), SECOND);
    let waiting = bench.call().await;
    // The process counts until it is gone.
    let mut next = bench.next_worker().await;
    assert_eq!(start.elapsed(), SECOND + 2 * KILL_GRACE);
    assert!(worker.has_exited());
    answers(&mut next, waiting).await;
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_fails_at_its_deadline() {
    let settings = Settings { max_workers: 1, ..settings() };
    let (bench, mut worker) = Bench::start(settings).await;
    let busy = bench.call().await;
    let request = worker.request().await;
    let start = Instant::now();
    let waiting = bench.call_with(domain_call(), SECOND).await;
    assert_eq!(
        failure(result(waiting).await),
        "is busy: the call waited for its turn until its deadline; at most 1 workers run at once \
         (--max-workers)"
    );
    assert_eq!(start.elapsed(), SECOND);
    worker.reply(request.id, "busy").await;
    assert_eq!(domain(result(busy).await), "<domain>busy</domain>");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_a_worker_that_starts_fails_at_its_deadline() {
    let settings = Settings { max_workers: 1, ..settings() };
    let (mut bench, worker) = Bench::start(settings).await;
    sleep(SECOND).await;
    worker.exit(0);
    settle().await;
    let call = bench.call_with(domain_call(), SECOND).await;
    let mut starting = bench.started.next().await;
    assert_eq!(
        failure(result(call).await),
        "is unavailable: its worker was still starting at the call's deadline"
    );
    starting.initialize(json!({})).await;
    bench.round_trip(&mut starting).await;
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_caller_left_gives_its_place_in_the_queue_back_and_is_never_sent() {
    let queue = Load { calls: 1, bytes: 1 << 20 };
    let settings = Settings { max_workers: 1, queue, ..settings() };
    let (bench, mut worker) = Bench::start(settings).await;
    let busy = bench.call().await;
    let left = bench.call_with(domain_call_with("<domain>left</domain>".into()), LONG).await;
    let refused = bench.call().await;
    assert_eq!(
        failure(result(refused).await),
        "is busy: 1 calls are waiting already (--queue-limit)"
    );
    left.abort();
    let waiting = bench.call_with(domain_call_with("<domain>waits</domain>".into()), LONG).await;
    answers(&mut worker, busy).await;
    assert_eq!(answers(&mut worker, waiting).await.domain, "<domain>waits</domain>");
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_limited_in_bytes() {
    let queue = Load { calls: 100, bytes: 1000 };
    let settings = Settings { max_workers: 1, queue, ..settings() };
    let (bench, mut worker) = Bench::start(settings).await;
    let large = || domain_call_with(format!("<domain>{}</domain>", "x".repeat(2000)).into());
    let busy = bench.call().await;
    let waiting = bench.call_with(large(), LONG).await;
    assert!(!waiting.is_finished(), "one call may wait whatever its size");
    let refused = failure(result(bench.call_with(large(), LONG).await).await);
    assert!(refused.contains("1000 may (--queue-bytes)"), "{refused}");
    answers(&mut worker, busy).await;
    answers(&mut worker, waiting).await;
}

#[tokio::test(start_paused = true)]
async fn a_call_fails_shortly_after_its_deadline_even_if_its_worker_cannot_be_killed() {
    let (bench, mut worker) = Bench::start(settings()).await;
    worker.ignores_sigkill();
    let start = Instant::now();
    let call = bench.call_with(domain_call(), SECOND).await;
    worker.request().await;
    worker.write(&[0, 0, 0, 0]).await;
    assert_eq!(
        failure(result(call).await),
        "did not answer within 1.0 s: fake-worker was being stopped at the deadline"
    );
    assert_eq!(start.elapsed(), SECOND + 10 * MILLISECOND);
    bench.stopped().await;
    assert_eq!(start.elapsed(), CLOSED_PIPE_TIMEOUT + KILL_LIMIT);
}
