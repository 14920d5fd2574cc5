//! Calls that a worker has not begun to read: they go to a fresh worker, alone.

use super::*;

const UNREAD: &str = "is unavailable: 3 workers in a row stopped before they read the call; \
                      fake-worker exited with status 0";

#[tokio::test(start_paused = true)]
async fn a_node_hook_that_its_worker_has_not_read_runs_alone_on_a_fresh_one() {
    let settings = Settings { max_workers: 2, ..settings() };
    let (mut bench, mut first) = Bench::start_with(settings, json!({"concurrency": 2})).await;
    bench.round_trip(&mut first).await;
    let call = bench.call_with(node_call(), LONG).await;
    first.exit(0);
    let start = Instant::now();
    let mut second = bench.next_worker().await;
    let request = second.request().await;
    assert_eq!((request.id, request.attempt), (2, 1), "as if it had not been sent");
    let beside = bench.call().await;
    let mut third = bench.next_worker().await;
    answers(&mut third, beside).await;
    second.send(json!({"id": request.id, "result": {}})).await;
    assert!(result(call).await.is_ok());
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_not_read_still_has_its_second_attempt() {
    let (mut bench, first) = Bench::start(settings()).await;
    let call = bench.call().await;
    first.exit(0);
    let mut second = bench.next_worker().await;
    assert_eq!(second.request().await.attempt, 1);
    second.exit(3);
    let third = bench.next_worker().await;
    third.exit(0);
    let mut fourth = bench.next_worker().await;
    assert_eq!(answers(&mut fourth, call).await.attempt, 2);
}

#[tokio::test(start_paused = true)]
async fn the_third_worker_that_leaves_a_call_unread_fails_it() {
    let (mut bench, first) = Bench::start(settings()).await;
    first.prints_to_stderr("of another VM");
    let call = bench.call_with(node_call(), LONG).await;
    first.exit(0);
    bench.next_worker().await.exit(0);
    assert!(!call.is_finished());
    bench.next_worker().await.exit(0);
    assert_eq!(failure(result(call).await), UNREAD);
    // No call waits for one.
    bench.starts_none().await;
    let call = bench.call().await;
    let mut next = bench.next_worker().await;
    answers(&mut next, call).await;
}

#[tokio::test(start_paused = true)]
async fn workers_that_exit_as_soon_as_they_are_up_are_started_ever_more_slowly() {
    let (mut bench, first) = Bench::start(settings()).await;
    first.exit(0);
    let call = bench.call_with(node_call(), 2 * SECOND).await;
    let start = Instant::now();
    for wait in [100, 300, 700, 1500] {
        let mut next = bench.started.next().await;
        assert_eq!(start.elapsed().as_millis(), wait);
        next.initialize(json!({})).await;
        next.exit(0);
    }
    assert_eq!(
        failure(result(call).await),
        "is unavailable: no worker is running; fake-worker exited as soon as it had answered \
         initialize"
    );
    assert_eq!(start.elapsed(), 2 * SECOND);
    assert!(!bench.is_down());
}

#[tokio::test(start_paused = true)]
async fn calls_after_the_last_answer_of_a_worker_that_closed_its_stdin_are_not_lost() {
    let settings = Settings { max_workers: 1, ..settings() };
    let (mut bench, mut worker) = Bench::start(settings).await;
    for _ in 0..10 {
        let call = bench.call().await;
        // It is sent as soon as the first one is answered, before the worker closes its stdin.
        let next = bench.call_with(node_call(), LONG).await;
        answers(&mut worker, call).await;
        worker.closes_stdin();
        let start = Instant::now();
        let mut fresh = bench.next_worker().await;
        // It is stopped, and counts as one that was lost while it was idle.
        assert_eq!(start.elapsed(), CLOSED_PIPE_TIMEOUT + 100 * MILLISECOND);
        let request = fresh.request().await;
        fresh.send(json!({"id": request.id, "result": {}})).await;
        assert!(result(next).await.is_ok());
        worker = fresh;
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_not_read_fails_at_its_deadline_like_any_that_waits() {
    let settings = Settings { max_workers: 1, ..settings() };
    let (mut bench, first) = Bench::start(settings).await;
    let start = Instant::now();
    let call = bench.call_with(node_call(), SECOND).await;
    first.exit(0);
    let _starting = bench.started.next().await;
    assert_eq!(
        failure(result(call).await),
        "is unavailable: its worker was still starting at the call's deadline"
    );
    assert_eq!(start.elapsed(), SECOND);
}
