//! Workers that close a pipe.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_worker_that_closes_its_stdin_is_killed_before_the_deadline() {
    let (bench, mut worker) = Bench::start(json!({})).await;
    worker.closes_stdin();
    let start = Instant::now();
    let reply = bench.call(domain_call(), LONG);
    let failure = failure(result(reply).await);
    assert!(failure.contains("broke the worker protocol: it closed its stdin"), "{failure}");
    assert_eq!(start.elapsed(), CLOSED_PIPE_TIMEOUT);
    worker.killed().await;
    assert!(matches!(bench.exited().await.cause, ExitCause::Call));
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_a_worker_that_has_closed_its_stdin_counts() {
    let (mut bench, mut worker) = Bench::start(json!({"cancel": true})).await;
    let reply = bench.call(domain_call(), LONG);
    let request = worker.request().await;
    worker.closes_stdin();
    worker.reply(request.id, "the last one").await;
    assert_eq!(domain(result(reply).await), "<domain>the last one</domain>");
    bench.finished().await;
    // The shim finds out with the next call. What is written within the time is still read.
    let reply = bench.call(domain_call(), LONG);
    settle().await;
    sleep(CLOSED_PIPE_TIMEOUT / 2).await;
    worker.reply(request.id + 1, "blind").await;
    assert_eq!(domain(result(reply).await), "<domain>blind</domain>");
    bench.finished().await;
    worker.exit(0);
    assert!(matches!(bench.exited().await.cause, ExitCause::Idle));
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_closes_its_stdout_is_killed() {
    let (bench, mut worker) = Bench::start(json!({})).await;
    let reply = bench.call(domain_call(), LONG);
    worker.request().await;
    let start = Instant::now();
    worker.closes_stdout();
    let failure = failure(result(reply).await);
    assert!(failure.contains("it closed its stdout"), "{failure}");
    assert_eq!(start.elapsed(), CLOSED_PIPE_TIMEOUT);
    worker.killed().await;
}
