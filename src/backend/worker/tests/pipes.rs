//! Workers that close a pipe.

use super::*;

#[tokio::test(start_paused = true)]
async fn an_idle_worker_that_closes_its_stdin_gets_no_calls_and_is_killed() {
    let (mut bench, mut worker) = Bench::start(json!({})).await;
    let start = Instant::now();
    worker.closes_stdin();
    bench.stopping().await;
    // It was on its way.
    let mut reply = bench.call(node_call(), LONG);
    assert_eq!(bench.retried().await.attempt(), 1);
    assert!(reply.try_recv().is_err(), "it is not answered yet");
    worker.killed().await;
    assert_eq!(start.elapsed(), CLOSED_PIPE_TIMEOUT);
    let fault = bench.failed().await;
    assert_eq!(
        fault,
        "fake-worker broke the worker protocol: it closed its stdin; it wrote nothing to its stderr"
    );
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_closes_its_stdin_may_answer_the_calls_that_it_has_read() {
    let (mut bench, mut worker) = Bench::start(json!({"cancel": true})).await;
    let reply = bench.call(node_call(), LONG);
    let request = worker.request().await;
    worker.closes_stdin();
    bench.stopping().await;
    sleep(10 * CLOSED_PIPE_TIMEOUT).await;
    assert!(!worker.was_signalled(), "it has a call");
    worker.send(json!({"id": request.id, "result": {}})).await;
    assert!(result(reply).await.is_ok());
    bench.finished().await;
    let start = Instant::now();
    worker.killed().await;
    assert_eq!(start.elapsed(), CLOSED_PIPE_TIMEOUT);
    bench.failed().await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_closes_its_stdin_before_it_answers_initialize_fails_or_stops() {
    for answers in [false, true] {
        let (mut bench, mut worker) = Bench::start_with(settings()).await;
        let request = worker.request().await;
        worker.closes_stdin();
        settle().await;
        if answers {
            let result = json!({"protocolVersion": 1, "hooks": ["onDefineDomain"]});
            worker.send(json!({"id": request.id, "result": result})).await;
            assert!(matches!(bench.report().await, Report::Ready(_)));
            bench.stopping().await;
        }
        worker.killed().await;
        let fault = bench.failed().await;
        assert!(fault.contains("broke the worker protocol: it closed its stdin"), "{fault}");
    }
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
