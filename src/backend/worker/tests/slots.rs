//! When a call has finished, and its slot is free.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_call_keeps_its_slot_until_the_worker_has_read_all_of_it() {
    let (mut bench, mut worker) = Bench::start(json!({"concurrency": 2})).await;
    let large = Bytes::from(format!("<domain>{}</domain>", "x".repeat(2 * PIPE_BYTES)));
    let reply = bench.call(domain_call_with(large.clone()), LONG);
    settle().await;
    worker.reply(2, "not read").await;
    assert_eq!(domain(result(reply).await), "<domain>not read</domain>");
    settle().await;
    assert!(bench.no_report());
    assert_eq!(worker.request().await.domain, large);
    assert!(matches!(bench.report().await, Report::CallWritten));
    bench.finished().await;
}

#[tokio::test(start_paused = true)]
async fn a_retryable_error_is_reported_before_its_slot_is_free() {
    let (mut bench, mut worker) = Bench::start(json!({})).await;
    let mut reply = bench.call(node_call(), LONG);
    let request = worker.request().await;
    worker.fail_retryably(request.id).await;
    let job = bench.retried().await;
    assert_eq!(
        (job.attempt(), job.call().hook().as_str()),
        (2, "preVMStart"),
        "the worker asked for it"
    );
    bench.finished().await;
    assert!(reply.try_recv().is_err(), "it is not answered yet");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_no_frame_holds_fails_and_the_worker_is_kept() {
    let (mut bench, mut worker) = Bench::start(json!({"attachments": true})).await;
    let large = vec![b'x'; MAX_FRAME_BYTES + 1];
    let reply = bench.call(domain_call_with(large.into()), LONG);
    let failure = failure(result(reply).await);
    assert!(failure.starts_with("exceeded a size limit: the call would be 16777216"), "{failure}");
    bench.skipped().await;
    let reply = bench.call(domain_call(), LONG);
    let request = worker.request().await;
    assert_eq!((request.id, request.domain.as_str()), (2, ""));
    assert_eq!(worker.frame().await, DOMAIN.as_bytes(), "attached");
    worker.reply(request.id, "fine").await;
    assert_eq!(domain(result(reply).await), "<domain>fine</domain>");
}

#[tokio::test(start_paused = true)]
async fn stray_text_and_log_lines_cost_nothing() {
    let (bench, mut worker) = Bench::start(json!({})).await;
    let reply = bench.call(domain_call(), LONG);
    let request = worker.request().await;
    worker.write(b"Hello, I am a print\n").await;
    let log = json!({"level": "info", "message": "hello", "id": request.id});
    worker.send(json!({"method": "$/log", "params": log})).await;
    worker.send(json!({"method": "$/later"})).await;
    worker.reply(request.id, "fine").await;
    assert_eq!(domain(result(reply).await), "<domain>fine</domain>");
    sleep_until(Instant::now() + 10 * KILL_GRACE).await;
    assert!(!worker.was_signalled());
}
