//! Shutdown, with calls in flight.

use super::*;

#[tokio::test(start_paused = true)]
async fn shutdown_fails_the_calls_that_wait_and_lets_those_in_flight_finish() {
    let settings = Settings { max_workers: 1, ..settings() };
    let (bench, mut worker) = Bench::start(settings).await;
    let in_flight = bench.call().await;
    let request = worker.request().await;
    let waiting = bench.call().await;
    bench.pool.stop();
    assert_eq!(failure(result(waiting).await), "is unavailable: the shim is shutting down");
    let refused = bench.call().await;
    assert_eq!(failure(result(refused).await), "is unavailable: the shim is shutting down");
    sleep(10 * KILL_GRACE).await;
    assert!(!worker.was_signalled(), "it has a call");
    worker.reply(request.id, "the last one").await;
    assert_eq!(domain(result(in_flight).await), "<domain>the last one</domain>");
    worker.stdin_closes().await;
    worker.exit(0);
    bench.stopped().await;
}

#[tokio::test(start_paused = true)]
async fn shutdown_terminates_workers_that_ignore_eof_and_starts_no_second_attempts() {
    let settings = Settings { max_workers: 2, ..settings() };
    let (mut bench, mut first) = Bench::start(settings).await;
    let one = bench.call().await;
    let two = bench.call().await;
    let mut second = bench.next_worker().await;
    first.request().await;
    second.request().await;
    bench.pool.stop();
    settle().await;
    first.exit(3);
    let text = failure(result(one).await);
    assert!(text.contains("exited with status 3"), "its first failure: {text}");
    second.reply(2, "done").await;
    assert_eq!(domain(result(two).await), "<domain>done</domain>");
    let start = Instant::now();
    second.stdin_closes().await;
    bench.stopped().await;
    assert_eq!(start.elapsed(), KILL_GRACE / 2);
    assert!(second.has_exited());
    bench.starts_none().await;
}

#[tokio::test(start_paused = true)]
async fn shutdown_ends_even_if_a_workers_task_panics() {
    let (bench, worker) = Bench::start_with(settings(), json!({"concurrency": 2})).await;
    worker.panics_with_the_next_call();
    let call = bench.call().await;
    bench.pool.stop();
    assert!(failure(result(call).await).contains("internal error"));
    bench.stopped().await;
    assert!(worker.has_exited());
}

#[tokio::test(start_paused = true)]
async fn shutdown_with_hung_calls_takes_one_grace() {
    let settings = Settings { max_workers: 3, ..settings() };
    let (mut bench, mut hung) = Bench::start(settings).await;
    let call = bench.call().await;
    hung.request().await;
    let other = bench.call().await;
    let mut overdue = bench.next_worker().await;
    overdue.request().await;
    let third = bench.call().await;
    let starting = bench.started.next().await;
    for worker in [&hung, &overdue, &starting] {
        worker.ignores_sigterm();
    }
    // This one is being stopped already when the shutdown comes.
    other.abort();
    overdue.terminated().await;
    // The server drops its calls, then stops the pool.
    call.abort();
    third.abort();
    settle().await;
    let start = Instant::now();
    bench.pool.stop();
    bench.stopped().await;
    assert_eq!(start.elapsed(), KILL_GRACE);
    assert!([hung, overdue, starting].iter().all(FakeWorker::has_exited));
}
