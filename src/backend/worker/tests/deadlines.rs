//! Deadlines, late answers, and callers that leave.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_late_answer_within_the_grace_is_discarded_and_the_worker_kept() {
    let (mut bench, mut worker) = Bench::start(json!({})).await;
    let start = Instant::now();
    let reply = bench.call(domain_call(), SECOND);
    let request = worker.request().await;
    worker.prints_to_stderr("waiting for the database");
    assert_eq!(
        failure(result(reply).await),
        "did not answer within 1.0 s: fake-worker was stopped; the last lines of its stderr:\n\
         waiting for the database"
    );
    assert_eq!(start.elapsed(), SECOND, "at the deadline, not after the grace");
    sleep(KILL_GRACE.mul_f64(0.9)).await;
    assert!(bench.no_report(), "its slot is not free before it has answered");
    worker.reply(request.id, "late").await;
    bench.finished().await;
    let reply = bench.call(domain_call(), SECOND);
    let next = worker.request().await;
    assert_eq!((request.id, next.id), (2, 3));
    worker.reply(next.id, "in time").await;
    assert_eq!(domain(result(reply).await), "<domain>in time</domain>");
    assert!(!worker.was_signalled());
}

#[tokio::test(start_paused = true)]
async fn a_short_deadline_is_told_exactly() {
    let (bench, mut worker) = Bench::start(json!({})).await;
    let reply = bench.call(domain_call(), Duration::from_millis(45));
    worker.request().await;
    let text = failure(result(reply).await);
    assert!(text.starts_with("did not answer within 0.045 s: "), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_does_not_finish_within_the_grace_is_stopped() {
    let (mut bench, mut worker) = Bench::start(json!({})).await;
    let start = Instant::now();
    let reply = bench.call(domain_call(), SECOND);
    worker.request().await;
    failure(result(reply).await);
    worker.terminated().await;
    assert_eq!(start.elapsed(), SECOND + KILL_GRACE);
    assert!(matches!(bench.report().await, Report::Stopping));
    assert!(bench.no_report(), "after a deadline there is no second attempt");
    assert!(matches!(bench.exited().await.cause, ExitCause::Call));
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_ignores_sigterm_is_killed_after_another_grace() {
    let (bench, mut worker) = Bench::start(json!({})).await;
    worker.ignores_sigterm();
    let start = Instant::now();
    let _reply = bench.call(domain_call(), SECOND);
    worker.request().await;
    worker.terminated().await;
    assert!(!worker.has_exited());
    worker.killed().await;
    assert_eq!(start.elapsed(), SECOND + 2 * KILL_GRACE);
    assert!(matches!(bench.exited().await.cause, ExitCause::Call));
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_can_cancel_is_asked_to_at_the_deadline() {
    let (mut bench, mut worker) = Bench::start(json!({"cancel": true})).await;
    let reply = bench.call(domain_call(), SECOND);
    let request = worker.request().await;
    failure(result(reply).await);
    let cancel = worker.message().await;
    assert_eq!(
        (&cancel["method"], &cancel["params"]["id"]),
        (&json!("$/cancelRequest"), &json!(request.id))
    );
    let error = json!({"code": -32800, "message": "cancelled"});
    worker.send(json!({"id": request.id, "error": error})).await;
    bench.finished().await;
    assert!(!worker.was_signalled());
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_caller_left_has_the_grace_to_finish() {
    let (mut bench, mut worker) = Bench::start(json!({"cancel": true})).await;
    let reply = bench.call(domain_call(), LONG);
    let request = worker.request().await;
    drop(reply);
    assert_eq!(worker.message().await["method"], "$/cancelRequest");
    worker.reply(request.id, "too late").await;
    bench.finished().await;
    assert!(!worker.was_signalled());
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_does_not_finish_when_its_caller_left_is_stopped_after_the_grace() {
    let (mut bench, mut worker) = Bench::start(json!({})).await;
    let reply = bench.call(domain_call(), LONG);
    worker.request().await;
    let left = Instant::now();
    drop(reply);
    worker.terminated().await;
    assert_eq!(left.elapsed(), KILL_GRACE);
    assert!(matches!(bench.report().await, Report::Stopping));
    assert!(bench.no_report(), "the caller has its answer, so there is no second attempt");
    assert!(matches!(bench.exited().await.cause, ExitCause::Call));
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_caller_left_before_it_was_sent_is_skipped() {
    for concurrency in [1, 2] {
        let (mut bench, mut worker) = Bench::start(json!({"concurrency": concurrency})).await;
        let (job, reply) = Job::new(domain_call(), Instant::now() + LONG, Arc::default());
        drop(reply);
        assert!(bench.jobs.as_ref().unwrap().try_send(job).is_ok());
        if concurrency > 1 {
            assert!(matches!(bench.report().await, Report::CallWritten));
        }
        bench.skipped().await;
        let _reply = bench.call(domain_call(), LONG);
        assert_eq!(worker.request().await.id, 2, "it used no id");
    }
}

#[tokio::test(start_paused = true)]
async fn calls_beside_one_that_is_overdue_are_retried_before_the_worker_has_exited() {
    let (mut bench, mut worker) = Bench::start(json!({"concurrency": 3})).await;
    worker.ignores_sigterm();
    let overdue = bench.call(domain_call(), SECOND);
    worker.request().await;
    let mut beside = bench.call(domain_call(), LONG);
    worker.request().await;
    let node = bench.call(node_call(), LONG);
    worker.request().await;
    for _ in 0..3 {
        assert!(matches!(bench.report().await, Report::CallWritten));
    }
    failure(result(overdue).await);
    assert!(matches!(bench.report().await, Report::Stopping));
    let job = bench.retried().await;
    assert_eq!(job.attempt(), 2);
    assert!(!worker.has_exited());
    assert!(beside.try_recv().is_err(), "it is not answered yet");
    assert_eq!(
        failure(result(node).await),
        "failed: fake-worker was stopped because it did not finish another call in time; it wrote \
         nothing to its stderr"
    );
}
