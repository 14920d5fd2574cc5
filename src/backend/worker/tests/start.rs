//! From the spawn to the answer to `initialize`.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_worker_that_does_not_answer_initialize_is_stopped_after_the_start_timeout() {
    let (bench, worker) = Bench::start_with(settings()).await;
    let start = Instant::now();
    worker.terminated().await;
    assert_eq!(start.elapsed(), settings().start_timeout);
    assert_eq!(
        bench.failed().await,
        "fake-worker did not answer initialize within 1m (--start-timeout) (does it read its \
         stdin? argv-style programs run with --mode exec); it wrote nothing to its stderr"
    );
}

#[tokio::test(start_paused = true)]
async fn an_exit_before_initialize_was_answered_is_a_failed_start() {
    let (bench, worker) = Bench::start_with(settings()).await;
    worker.prints_to_stderr("no configuration file");
    worker.exit(7);
    assert_eq!(
        bench.failed().await,
        "fake-worker exited with status 7 before it answered initialize (an argv-style program? \
         those run with --mode exec); the last lines of its stderr:\nno configuration file"
    );
}

#[tokio::test(start_paused = true)]
async fn an_exit_before_initialize_was_answered_names_the_limit_of_memory() {
    let settings = Settings { worker_memory: Some(24), ..settings() };
    let (bench, worker) = Bench::start_with(settings).await;
    worker.exit(127);
    let fault = bench.failed().await;
    let expected = "exited with status 127 before it answered initialize, with at most 24 bytes \
                    of memory for data (--worker-memory) (an argv-style program?";
    assert!(fault.contains(expected), "{fault}");
}

#[tokio::test(start_paused = true)]
async fn a_bad_answer_to_initialize_is_a_failed_start() {
    let (bench, mut worker) = Bench::start_with(settings()).await;
    worker.initialize_with(&[], json!({})).await;
    worker.killed().await;
    let fault = bench.failed().await;
    assert!(fault.contains("broke the worker protocol: it declares no hooks"), "{fault}");
}

#[tokio::test(start_paused = true)]
async fn a_program_that_cannot_be_started_is_a_failed_start() {
    let (spawner, started) = FakeSpawner::new();
    drop(started);
    let (_jobs, incoming) = mpsc::channel(1);
    let (reporter, _reports) = mpsc::channel(1);
    let exit = run(7, spawner, command(), Arc::new(settings()), incoming, reporter).await;
    assert!(
        matches!(exit.cause, ExitCause::Failed(fault) if fault.what.contains("no more workers"))
    );
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_is_stopped_while_it_starts_may_still_answer_initialize() {
    let (mut bench, mut worker) = Bench::start_with(settings()).await;
    bench.stop();
    settle().await;
    worker.initialize(json!({})).await;
    worker.stdin_closes().await;
    assert!(!worker.was_signalled());
    worker.exit(0);
    assert!(matches!(bench.exited().await.cause, ExitCause::Requested));
}
