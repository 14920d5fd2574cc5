//! Whose lines of stderr are.

use super::*;

/// More lines than are logged without a pause.
const BURST: usize = 300;

const ONLY_IN_THE_LOG: &str = "its stderr is only in the log, because it may be about other VMs";

#[tokio::test(start_paused = true)]
async fn a_burst_of_one_call_is_in_no_other_calls_error_however_fast_that_follows() {
    let logged = Logged::start();
    let (bench, mut worker) = Bench::start(json!({})).await;
    let first = bench.call(node_call(), LONG);
    let second = bench.call(node_call(), LONG);
    let id = worker.request().await.id;
    for number in 0..BURST {
        worker.prints_to_stderr(&format!("first {number}"));
    }
    worker.begins_a_line_on_stderr("first, and ");
    worker.reply(id, "done").await;
    // It reads on at once, and dies.
    assert_eq!(worker.request().await.id, id + 1);
    worker.prints_to_stderr("half of a line");
    worker.prints_to_stderr("second");
    worker.exit(3);
    soon(first).await.unwrap().unwrap();
    assert_eq!(
        failure(result(second).await),
        "failed: fake-worker exited with status 3; the last lines of its stderr:\nsecond"
    );
    bench.exited().await;
    // The log gets them at its own pace.
    sleep(SECOND).await;
    let begun_by_first = logged.beginning("first");
    assert_eq!(begun_by_first.len(), BURST + 1, "all are logged");
    assert!(begun_by_first.iter().all(|line| line.call == Some(id)), "{begun_by_first:?}");
    assert_eq!(begun_by_first[BURST].message, "first, and half of a line");
    assert_eq!(logged.beginning("second")[0].call, Some(id + 1));
}

#[tokio::test(start_paused = true)]
async fn lines_after_the_answer_belong_to_the_call_before() {
    let logged = Logged::start();
    let (mut bench, mut worker) = Bench::start(json!({})).await;
    let first = bench.call(domain_call(), LONG);
    let id = worker.request().await.id;
    worker.reply(id, "done").await;
    soon(first).await.unwrap().unwrap();
    bench.finished().await;
    worker.prints_to_stderr("closed the first call");
    let second = bench.call(domain_call(), SECOND);
    worker.request().await;
    assert_eq!(
        failure(result(second).await),
        "did not answer within 1.0 s: fake-worker was stopped; it wrote nothing to its stderr"
    );
    let lines = logged.beginning("closed the first call");
    assert_eq!((lines.len(), lines[0].call), (1, Some(id)));
}

#[tokio::test(start_paused = true)]
async fn at_the_deadline_the_error_has_what_was_written_just_before_it() {
    let (bench, mut worker) = Bench::start(json!({})).await;
    let reply = bench.call(domain_call(), SECOND);
    worker.request().await;
    // Waits for a timer, which comes before the shim's.
    sleep(Duration::from_millis(999)).await;
    for number in 0..BURST {
        worker.prints_to_stderr(&format!("{number}"));
    }
    worker.begins_a_line_on_stderr("password for the database: ");
    let text = failure(result(reply).await);
    let last: Vec<_> = (BURST - 19..BURST).map(|number| number.to_string()).collect();
    let last = format!("stderr:\n{}\npassword for the database:", last.join("\n"));
    assert!(text.ends_with(&last), "{text}");
}

#[tokio::test(start_paused = true)]
async fn with_concurrency_a_line_is_in_no_error_unless_its_call_was_alone() {
    let logged = Logged::start();
    let (bench, mut worker) = Bench::start(json!({"concurrency": 8})).await;
    let busy = bench.call(node_call(), LONG);
    worker.request().await;
    let over = bench.call(node_call(), LONG);
    let id = worker.request().await.id;
    worker.prints_to_stderr("vm A: SECRET");
    worker.reply(id, "done").await;
    soon(over).await.unwrap().unwrap();
    settle().await;
    // Another call hangs until its deadline, a third one until the worker dies.
    let hangs = bench.call(node_call(), SECOND);
    let dies = bench.call(node_call(), LONG);
    for _ in 0..2 {
        worker.request().await;
    }
    let text = failure(result(hangs).await);
    assert!(text.ends_with(ONLY_IN_THE_LOG), "{text}");
    worker.prints_to_stderr("vm B: SECRET");
    worker.exit(3);
    for call in [busy, dies] {
        let text = failure(result(call).await);
        assert!(text.ends_with(ONLY_IN_THE_LOG), "{text}");
    }
    let lines = logged.beginning("vm ");
    assert_eq!(lines.len(), 2);
    assert!(lines.iter().all(|line| line.call.is_none()), "{lines:?}");
}

#[tokio::test(start_paused = true)]
async fn with_concurrency_a_call_that_was_alone_has_its_lines() {
    let (mut bench, mut worker) = Bench::start(json!({"concurrency": 8})).await;
    for _ in 0..2 {
        let over = bench.call(node_call(), LONG);
        let id = worker.request().await.id;
        worker.prints_to_stderr("SECRET");
        worker.reply(id, "done").await;
        soon(over).await.unwrap().unwrap();
        assert!(matches!(bench.report().await, Report::CallWritten));
        bench.finished().await;
    }
    let alone = bench.call(node_call(), LONG);
    worker.request().await;
    worker.prints_to_stderr("no disk");
    worker.exit(3);
    let text = failure(result(alone).await);
    assert!(text.ends_with("the last lines of its stderr:\nno disk"), "{text}");
}

/// Calls of other VMs fail with the text of an idle worker's failure.
#[tokio::test(start_paused = true)]
async fn a_failed_worker_shows_what_it_wrote_before_its_first_call_and_nothing_later() {
    let (bench, worker) = Bench::start(json!({})).await;
    worker.prints_to_stderr("no database");
    worker.exit(3);
    let expected = "fake-worker exited with status 3; the last lines of its stderr:\nno database";
    assert_eq!(bench.failed().await, expected);

    let (mut bench, mut worker) = Bench::start(json!({})).await;
    let over = bench.call(domain_call(), LONG);
    let id = worker.request().await.id;
    worker.reply(id, "done").await;
    soon(over).await.unwrap().unwrap();
    bench.finished().await;
    worker.prints_to_stderr("SECRET");
    worker.exit(3);
    assert_eq!(
        bench.failed().await,
        format!("fake-worker exited with status 3; {ONLY_IN_THE_LOG}")
    );
}

#[tokio::test(start_paused = true)]
async fn a_first_call_shows_why_its_worker_failed_while_it_started() {
    let (bench, mut worker) = Bench::start(json!({})).await;
    worker.prints_to_stderr("no database");
    let reply = bench.call(node_call(), LONG);
    worker.request().await;
    worker.exit(3);
    assert_eq!(
        failure(result(reply).await),
        "failed: fake-worker exited with status 3; the last lines of its stderr:\nno database"
    );
}
