//! Calls that a worker has not begun to read.

use super::*;

/// The length of the message that the worker is sent next.
fn large(bytes: usize) -> HookCall {
    domain_call_with(format!("<domain>{}</domain>", "x".repeat(bytes)).into())
}

#[tokio::test(start_paused = true)]
async fn a_call_that_a_worker_has_not_read_goes_to_another_however_that_one_ends() {
    for end in ["exit 0", "exit 3", "killed", "closed stdin", "a broken rule"] {
        let (mut bench, mut worker) = Bench::start(json!({})).await;
        let mut reply = bench.call(node_call(), LONG);
        settle().await;
        match end {
            "exit 0" => worker.exit(0),
            "exit 3" => worker.exit(3),
            "killed" => worker.is_killed(),
            "closed stdin" => {
                worker.closes_stdin();
                bench.stopping().await;
            }
            _ => worker.write(&[0, 0, 0, 0]).await,
        }
        let job = bench.retried().await;
        assert_eq!((job.attempt(), job.runs_alone()), (1, true), "{end}: no hook has seen it");
        assert!(reply.try_recv().is_err(), "{end}: it is not answered yet");
        let cause = bench.exited().await.cause;
        let idle = matches!(cause, ExitCause::Idle) == (end == "exit 0");
        assert!(idle && !matches!(cause, ExitCause::Call), "{end}: {cause:?}: it had no call");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_of_which_a_worker_has_read_a_byte_is_in_mid_call() {
    // The second length does not fit into the pipe.
    for length in [10, 2 * PIPE_BYTES] {
        for read in [0, 1, 4, 5, 100] {
            let (mut bench, mut worker) = Bench::start(json!({})).await;
            let _reply = bench.call(large(length), LONG);
            settle().await;
            assert_eq!(worker.read(&mut vec![0; read]).await, read);
            settle().await;
            worker.exit(0);
            assert_eq!(bench.retried().await.attempt(), if read > 0 { 2 } else { 1 }, "{read}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn attachments_belong_to_the_call() {
    for frames in [0, 1] {
        let (mut bench, mut worker) = Bench::start(json!({"attachments": true})).await;
        let _reply = bench.call(domain_call(), LONG);
        settle().await;
        if frames == 1 {
            let mut header = [0; 4];
            worker.read(&mut header).await;
            let length = usize::try_from(u32::from_be_bytes(header)).unwrap();
            assert_eq!(
                worker.read(&mut vec![0; length]).await,
                length,
                "no byte of the attachment"
            );
        }
        worker.exit(0);
        assert_eq!(bench.retried().await.attempt(), frames + 1);
    }
}

#[tokio::test(start_paused = true)]
async fn of_several_calls_the_last_ones_may_be_unread() {
    let capabilities = json!({"concurrency": 4, "cancel": true});
    let (mut bench, mut worker) = Bench::start(capabilities).await;
    let mut replies = Vec::new();
    for _ in 0..3 {
        replies.push(bench.call(node_call(), LONG));
        assert!(matches!(bench.report().await, Report::CallWritten));
    }
    // The caller of the last one leaves, so a cancellation stands behind it.
    drop(replies.pop());
    settle().await;
    let mut header = [0; 4];
    worker.read(&mut header).await;
    worker.read(&mut [0; 5]).await;
    worker.exit(0);
    let read = failure(result(replies.remove(0)).await);
    assert!(read.starts_with("failed: fake-worker"), "{read}");
    assert_eq!(bench.retried().await.attempt(), 1);
    assert!(replies[0].try_recv().is_err(), "it is not answered yet");
    assert!(matches!(bench.exited().await.cause, ExitCause::Call));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_a_surviving_process_may_still_read_is_in_mid_call() {
    let (bench, worker) = Bench::start(json!({})).await;
    let reply = bench.call(node_call(), LONG);
    settle().await;
    worker.shares_stdin();
    let start = Instant::now();
    worker.exit(3);
    assert!(failure(result(reply).await).contains("exited with status 3"));
    assert_eq!(start.elapsed(), DRAIN_TIMEOUT);
    assert!(matches!(bench.exited().await.cause, ExitCause::Call));
}

#[tokio::test(start_paused = true)]
async fn what_is_read_while_the_worker_is_being_stopped_is_in_mid_call() {
    for reads in [false, true] {
        let (mut bench, mut worker) = Bench::start(json!({"concurrency": 2})).await;
        worker.ignores_sigterm();
        let overdue = bench.call(domain_call(), SECOND);
        worker.request().await;
        let mut node = bench.call(node_call(), LONG);
        for _ in 0..2 {
            assert!(matches!(bench.report().await, Report::CallWritten));
        }
        failure(result(overdue).await);
        worker.terminated().await;
        bench.stopping().await;
        settle().await;
        assert!(node.try_recv().is_err(), "whether it is read is not certain");
        if reads {
            worker.request().await;
            let failure = failure(result(node).await);
            assert!(failure.contains("did not finish another call in time"), "{failure}");
        } else {
            assert_eq!(bench.retried().await.attempt(), 1);
        }
        assert!(matches!(bench.exited().await.cause, ExitCause::Call));
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_a_call_that_was_not_read_counts() {
    let (mut bench, mut worker) = Bench::start(json!({})).await;
    let reply = bench.call(domain_call(), LONG);
    settle().await;
    worker.reply(2, "blind").await;
    assert_eq!(domain(result(reply).await), "<domain>blind</domain>");
    bench.finished().await;
    worker.exit(0);
    assert!(matches!(bench.exited().await.cause, ExitCause::Idle));
}
