//! The number of workers.

use super::*;

#[tokio::test(start_paused = true)]
async fn one_caller_after_the_other_needs_one_worker() {
    let (mut bench, mut worker) = Bench::start(settings()).await;
    for id in 2..30 {
        let call = bench.call().await;
        assert_eq!(answers(&mut worker, call).await.id, id);
    }
    bench.starts_none().await;
}

#[tokio::test(start_paused = true)]
async fn the_pool_grows_while_calls_wait_up_to_its_maximum() {
    let settings = Settings { max_workers: 2, ..settings() };
    let (mut bench, mut first) = Bench::start(settings).await;
    let calls = [bench.call().await, bench.call().await, bench.call().await];
    let mut second = bench.next_worker().await;
    bench.starts_none().await;
    let [one, two, three] = calls;
    let (request, other) = (first.request().await, second.request().await);
    second.reply(other.id, "second").await;
    assert_eq!(domain(result(two).await), "<domain>second</domain>");
    answers(&mut second, three).await;
    first.reply(request.id, "first").await;
    assert_eq!(domain(result(one).await), "<domain>first</domain>");
    // Both are free: the oldest one has the call.
    settle().await;
    bench.round_trip(&mut first).await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_reached_max_requests_is_replaced() {
    let settings = Settings { max_workers: 1, max_requests: Some(2), ..settings() };
    let (mut bench, mut first) = Bench::start(settings).await;
    bench.round_trip(&mut first).await;
    assert!(!first.was_signalled());
    bench.round_trip(&mut first).await;
    first.stdin_closes().await;
    bench.starts_none().await;
    first.exit(0);
    // Before a call asks for it.
    let mut second = bench.next_worker().await;
    bench.round_trip(&mut second).await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_never_receives_more_than_max_requests_calls() {
    let settings = Settings { max_workers: 1, max_requests: Some(2), ..settings() };
    let (mut bench, mut first) = Bench::start_with(settings, json!({"concurrency": 4})).await;
    let calls = [bench.call().await, bench.call().await, bench.call().await];
    let requests = [first.request().await, first.request().await];
    settle().await;
    for request in requests {
        first.reply(request.id, "first").await;
    }
    first.stdin_closes().await;
    first.exit(0);
    let mut second = bench.next_worker().await;
    let [one, two, three] = calls;
    answers(&mut second, three).await;
    assert_eq!(domain(result(one).await), "<domain>first</domain>");
    assert_eq!(domain(result(two).await), "<domain>first</domain>");
}

#[tokio::test(start_paused = true)]
async fn idle_workers_are_stopped_down_to_the_minimum() {
    let settings = Settings { min_workers: 1, idle_timeout: 10 * SECOND, ..settings() };
    let (mut bench, mut first) = Bench::start(settings).await;
    let calls = [bench.call().await, bench.call().await, bench.call().await];
    let mut others = [bench.next_worker().await, bench.next_worker().await];
    let [one, two, three] = calls;
    answers(&mut others[0], two).await;
    answers(&mut others[1], three).await;
    // The first one is idle for a shorter time, so it is the one that is kept.
    sleep(SECOND).await;
    answers(&mut first, one).await;
    let start = Instant::now();
    let [second, third] = &mut others;
    second.stdin_closes().await;
    assert_eq!(start.elapsed(), 9 * SECOND);
    third.stdin_closes().await;
    assert_eq!(start.elapsed(), 9 * SECOND);
    for worker in others {
        worker.exit(0);
    }
    sleep(100 * SECOND).await;
    assert!(!first.was_signalled());
    bench.round_trip(&mut first).await;
    bench.starts_none().await;
}

#[tokio::test(start_paused = true)]
async fn the_last_idle_worker_is_stopped_and_the_next_call_starts_another() {
    let settings = Settings { idle_timeout: SECOND, ..settings() };
    let (mut bench, mut worker) = Bench::start(settings).await;
    for _ in 0..2 {
        bench.round_trip(&mut worker).await;
        let start = Instant::now();
        worker.stdin_closes().await;
        assert_eq!(start.elapsed(), SECOND);
        worker.exit(0);
        sleep(100 * SECOND).await;
        bench.starts_none().await;
        let call = bench.call().await;
        worker = bench.next_worker().await;
        answers(&mut worker, call).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_minimum_is_started_at_once_and_kept() {
    let settings = Settings { min_workers: 2, ..settings() };
    let (mut bench, first) = Bench::start(settings).await;
    let second = bench.next_worker().await;
    bench.starts_none().await;
    // Those that fail are replaced without a call, after the back-off.
    let start = Instant::now();
    first.exit(1);
    bench.next_worker().await;
    assert_eq!(start.elapsed().as_millis(), 100);
    drop(second);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_exits_by_itself_without_a_call_is_replaced_for_the_minimum_after_a_delay() {
    let settings = Settings { min_workers: 1, ..settings() };
    let (mut bench, worker) = Bench::start(settings).await;
    let start = Instant::now();
    worker.exit(0);
    let mut worker = bench.next_worker().await;
    assert_eq!(start.elapsed(), SECOND);
    bench.round_trip(&mut worker).await;
    // One that has served a call is replaced at once.
    let start = Instant::now();
    worker.exit(0);
    bench.next_worker().await;
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_its_worker_did_not_start_goes_to_another() {
    // Whichever is first: the worker's exit, or the call.
    for _ in 0..50 {
        let (mut bench, worker) = Bench::start(settings()).await;
        worker.exit(0);
        let call = bench.call_with(domain_call(), LONG).await;
        let mut next = bench.next_worker().await;
        answers(&mut next, call).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_does_not_wait_behind_a_pipe_that_is_not_read() {
    let (mut bench, mut stuck) = Bench::start_with(settings(), json!({"concurrency": 2})).await;
    let large = || domain_call_with(format!("<domain>{}</domain>", "x".repeat(100_000)).into());
    let first = bench.call_with(large(), LONG).await;
    let start = Instant::now();
    let second = bench.call_with(large(), LONG).await;
    bench.starts_none().await;
    let mut next = bench.next_worker().await;
    assert_eq!(start.elapsed().as_millis(), 20, "a worker that reads needs far less");
    answers(&mut next, second).await;
    answers(&mut stuck, first).await;
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_a_worker_that_is_reading_the_call_before_it() {
    let (mut bench, mut worker) = Bench::start_with(settings(), json!({"concurrency": 2})).await;
    let large = || domain_call_with(format!("<domain>{}</domain>", "x".repeat(100_000)).into());
    let calls = [bench.call_with(large(), LONG).await, bench.call_with(large(), LONG).await];
    sleep(19 * MILLISECOND).await;
    for call in calls {
        answers(&mut worker, call).await;
    }
    sleep(SECOND).await;
    bench.starts_none().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_abandoned_on_its_way_to_a_worker_does_not_count_for_max_requests() {
    let settings = Settings { max_workers: 1, max_requests: Some(2), ..settings() };
    let (bench, mut worker) = Bench::start(settings).await;
    worker.asks_until_the_pipe_is_full().await;
    let abandoned = bench.call().await;
    abandoned.abort();
    settle().await;
    while tokio::time::timeout(SECOND, worker.try_frame()).await.is_ok() {}
    for id in [2, 3] {
        let call = bench.call().await;
        assert_eq!(answers(&mut worker, call).await.id, id);
    }
    worker.stdin_closes().await;
}
