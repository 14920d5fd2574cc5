//! Requests of a worker, whose replies it has to read.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_request_of_the_worker_gets_an_error() {
    let (_bench, mut worker) = Bench::start(json!({})).await;
    worker.send(json!({"id": "q-1", "method": "shim/ask"})).await;
    let reply = worker.message().await;
    assert_eq!((&reply["id"], &reply["error"]["code"]), (&json!("q-1"), &json!(-32601)));
}

#[tokio::test(start_paused = true)]
async fn an_idle_worker_that_does_not_read_the_replies_is_killed_after_the_grace() {
    let (bench, mut worker) = Bench::start(json!({})).await;
    let start = Instant::now();
    worker.asks_until_the_pipe_is_full().await;
    worker.killed().await;
    assert_eq!(start.elapsed(), KILL_GRACE);
    let fault = bench.failed().await;
    assert!(fault.contains("it sends requests and does not read the replies"), "{fault}");
}

#[tokio::test(start_paused = true)]
async fn a_busy_worker_has_until_the_deadline_to_read_the_replies() {
    let (mut bench, mut worker) = Bench::start(json!({})).await;
    let reply = bench.call(domain_call(), LONG);
    let request = worker.request().await;
    worker.asks_until_the_pipe_is_full().await;
    sleep(10 * KILL_GRACE).await;
    assert!(!worker.was_signalled());
    worker.reply(request.id, "done").await;
    assert_eq!(domain(result(reply).await), "<domain>done</domain>");
    assert!(bench.no_report(), "its slot is not free before it has read them");
    assert!(worker.message().await["error"].is_object());
    bench.finished().await;
    sleep(10 * KILL_GRACE).await;
    assert!(!worker.was_signalled(), "the last reply fits into the pipe now");
}

#[tokio::test(start_paused = true)]
async fn too_many_unread_replies_break_the_protocol() {
    let (bench, mut worker) = Bench::start(json!({})).await;
    let reply = bench.call(domain_call(), LONG);
    worker.request().await;
    worker.asks_until_the_pipe_is_full().await;
    // One does not fit into the pipe already.
    for number in 1..MAX_UNREAD_REPLIES {
        worker.send(json!({"id": number, "method": "shim/ask"})).await;
    }
    sleep(10 * KILL_GRACE).await;
    assert!(!worker.was_signalled(), "this number is allowed");
    worker.send(json!({"id": 0, "method": "shim/ask"})).await;
    let failure = failure(result(reply).await);
    assert!(failure.contains("it sends requests and does not read the replies"), "{failure}");
    worker.killed().await;
}
