//! Workers that fail: back-off, circuit breaker, and a panic in a worker's task.

use super::*;

#[tokio::test(start_paused = true)]
async fn the_back_off_doubles_until_the_circuit_breaker_trips_and_beyond() {
    let (mut bench, worker) = Bench::start(settings()).await;
    worker.exit(1);
    settle().await;
    let mut last = Instant::now();
    let waits = [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000];
    for (failures, wait) in (1..).zip(waits) {
        // The first one had come up.
        assert_eq!(bench.is_down(), failures > 5, "after {failures} failures");
        let next = bench.started.next().await;
        assert_eq!(last.elapsed().as_millis(), wait);
        last = Instant::now();
        next.exit(8);
        settle().await;
    }
}

#[tokio::test(start_paused = true)]
async fn calls_fail_at_once_while_the_circuit_breaker_is_tripped_and_succeed_after_it() {
    let (mut bench, worker) = Bench::start(settings()).await;
    worker.exit(1);
    settle().await;
    let waiting = bench.call().await;
    for _ in 0..5 {
        assert!(!waiting.is_finished());
        let next = bench.started.next().await;
        next.prints_to_stderr("no configuration file");
        next.exit(8);
        settle().await;
    }
    let expected = "is unavailable: no worker is running; fake-worker exited with status 8 before \
         it answered initialize (an argv-style program? those run with --mode exec); the last lines \
         of its stderr:\nno configuration file";
    assert_eq!(failure(result(waiting).await), expected);
    assert!(bench.is_down());
    let start = Instant::now();
    for _ in 0..3 {
        assert_eq!(failure(result(bench.call().await).await), expected);
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
    let mut worker = bench.next_worker().await;
    assert!(!bench.is_down());
    bench.round_trip(&mut worker).await;
}

#[tokio::test(start_paused = true)]
async fn calls_wait_through_a_few_failures() {
    let (mut bench, worker) = Bench::start(settings()).await;
    worker.exit(1);
    settle().await;
    let call = bench.call().await;
    bench.started.next().await.exit(8);
    bench.started.next().await.exit(8);
    let mut worker = bench.next_worker().await;
    answers(&mut worker, call).await;
}

#[tokio::test(start_paused = true)]
async fn a_call_that_finished_ends_the_back_off() {
    let (mut bench, worker) = Bench::start(settings()).await;
    worker.exit(1);
    let mut next = bench.next_worker().await;
    bench.round_trip(&mut next).await;
    let start = Instant::now();
    next.exit(1);
    bench.next_worker().await;
    assert_eq!(start.elapsed().as_millis(), 100, "not 200");
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_went_down_beside_a_busy_worker_starts_another_when_that_is_gone() {
    let settings = Settings { idle_timeout: 300 * MILLISECOND, ..settings() };
    let (mut bench, mut worker) = Bench::start(settings).await;
    let busy = bench.call().await;
    let request = worker.request().await;
    let waiting = bench.call().await;
    for _ in 0..6 {
        bench.started.next().await.exit(8);
        settle().await;
    }
    assert!(!bench.is_down(), "one worker serves");
    assert!(!waiting.is_finished());
    worker.reply(request.id, "busy").await;
    assert_eq!(domain(result(busy).await), "<domain>busy</domain>");
    answers(&mut worker, waiting).await;
    worker.stdin_closes().await;
    worker.exit(0);
    settle().await;
    assert!(bench.is_down(), "the last worker is gone, and the others failed");
    let mut next = bench.next_worker().await;
    assert!(!bench.is_down());
    bench.round_trip(&mut next).await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_workers_task_fails_its_calls_and_the_pool_goes_on() {
    let settings = Settings { max_workers: 1, ..settings() };
    let (mut bench, worker) = Bench::start_with(settings, json!({"concurrency": 2})).await;
    let mut worker = worker;
    let in_flight = bench.call().await;
    worker.request().await;
    settle().await;
    worker.panics_with_the_next_call();
    let panics = bench.call().await;
    let waiting = bench.call().await;
    for call in [in_flight, panics] {
        assert_eq!(
            failure(result(call).await),
            "failed: internal error in sidecar-shim; its log has the details"
        );
    }
    assert!(worker.has_exited(), "its process was killed");
    let start = Instant::now();
    let mut next = bench.next_worker().await;
    assert_eq!(start.elapsed().as_millis(), 100, "it counts as a failure");
    answers(&mut next, waiting).await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_declares_other_hooks_than_the_first_counts_as_a_failed_start() {
    let (mut bench, worker) = Bench::start(settings()).await;
    sleep(SECOND).await;
    worker.exit(0);
    settle().await;
    let call = bench.call().await;
    let mut other = bench.started.next().await;
    other.initialize_with(&["onDefineDomain"], json!({})).await;
    other.stdin_closes().await;
    let start = Instant::now();
    other.exit(0);
    let mut worker = bench.next_worker().await;
    assert_eq!(start.elapsed().as_millis(), 100);
    answers(&mut worker, call).await;
}

/// However it exits, and whichever the pool sees first.
#[tokio::test(start_paused = true)]
async fn a_first_worker_that_answers_and_exits_has_started() {
    for status in [0, 3].repeat(20) {
        let (mut bench, worker) = Bench::start(settings()).await;
        worker.exit(status);
        let call = bench.call().await;
        let mut next = bench.next_worker().await;
        answers(&mut next, call).await;
    }
}

#[tokio::test(start_paused = true)]
async fn calls_show_why_workers_that_answer_and_exit_do_so() {
    for lets_the_pool_see_it in [true, false] {
        let (mut bench, worker) = Bench::start(settings()).await;
        worker.exit(3);
        let mut call = bench.call_with(node_call(), 10 * SECOND).await;
        let result = loop {
            let mut next = tokio::select! {
                result = &mut call => break result.unwrap(),
                next = bench.started.next() => next,
            };
            next.prints_to_stderr("no database");
            next.initialize(json!({})).await;
            if lets_the_pool_see_it {
                settle().await;
            }
            next.exit(3);
        };
        let text = failure(result);
        assert!(text.contains("fake-worker exited with status 3"), "{text}");
        // Of one that was sent a call, what it wrote is not certain to be harmless.
        let shown = text.ends_with("; the last lines of its stderr:\nno database");
        assert!(shown || lets_the_pool_see_it, "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pool_whose_first_worker_fails_does_not_start() {
    let (spawner, mut started) = FakeSpawner::new();
    let (command, settings, pools_down) = (command(), settings(), watch::Sender::default());
    let (pool, ()) = tokio::join!(Pool::start(spawner, &command, &settings, &pools_down), async {
        started.next().await.exit(7);
    });
    let error = pool.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(
        error.starts_with("cannot start hook worker: fake-worker exited with status 7 before"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn idle_workers_that_are_killed_make_no_call_fail_while_workers_come_up() {
    let (mut bench, mut worker) = Bench::start(settings()).await;
    for _ in 0..40 {
        sleep(1500 * MILLISECOND).await;
        worker.is_killed();
        settle().await;
        assert!(!bench.is_down());
        let start = Instant::now();
        let call = bench.call_with(node_call(), SECOND).await;
        worker = bench.next_worker().await;
        assert_eq!(start.elapsed().as_millis(), 100, "the back-off stays");
        let request = worker.request().await;
        worker.send(json!({"id": request.id, "result": {}})).await;
        assert!(result(call).await.is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn idle_workers_that_are_killed_without_any_call_leave_a_pool_that_serves() {
    let (mut bench, mut worker) = Bench::start(settings()).await;
    for _ in 0..40 {
        sleep(1500 * MILLISECOND).await;
        worker.is_killed();
        settle().await;
        let start = Instant::now();
        worker = bench.next_worker().await;
        assert_eq!(start.elapsed().as_millis(), 100);
    }
    bench.round_trip(&mut worker).await;
}

#[tokio::test(start_paused = true)]
async fn after_a_failed_start_one_worker_is_started_however_many_calls_wait() {
    let settings = Settings { max_workers: 4, ..settings() };
    let (mut bench, worker) = Bench::start(settings).await;
    sleep(SECOND).await;
    worker.exit(0);
    settle().await;
    let mut calls = Vec::new();
    let mut starting = Vec::new();
    for _ in 0..4 {
        calls.push(bench.call().await);
        starting.push(bench.started.next().await);
    }
    // All that were started before the first one failed count once.
    for worker in starting {
        worker.exit(8);
    }
    settle().await;
    for wait in [100, 200, 400] {
        assert!(!bench.is_down());
        let start = Instant::now();
        let next = bench.started.next().await;
        assert_eq!(start.elapsed().as_millis(), wait);
        bench.starts_none().await;
        next.exit(8);
        settle().await;
    }
    let mut worker = bench.next_worker().await;
    for _ in 0..3 {
        bench.next_worker().await;
    }
    assert!(calls.iter().all(|call| !call.is_finished()));
    answers(&mut worker, calls.remove(0)).await;
}

#[tokio::test(start_paused = true)]
async fn what_an_idle_worker_wrote_is_in_no_calls_failure() {
    let (mut bench, mut worker) = Bench::start(settings()).await;
    bench.round_trip(&mut worker).await;
    worker.prints_to_stderr("of another VM");
    worker.exit(1);
    let call = bench.call_with(domain_call(), 50 * MILLISECOND).await;
    let text = failure(result(call).await);
    assert!(text.contains("no worker is running; fake-worker exited with status 1"), "{text}");
    assert!(!text.contains("of another VM"), "{text}");
    drop(bench.next_worker().await);
}
