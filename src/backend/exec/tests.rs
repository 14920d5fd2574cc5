//! Exec mode with programs that tests play, on a paused clock.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::task::JoinHandle;

use super::super::fake::{
    DOMAIN, FakeSpawner, FakeWorker, Holder, KILL_GRACE, SECOND, Started, command, domain,
    domain_call, domain_call_with, failure, node_call, settings, settle, soon,
};
use super::run::MAX_OUTPUT_BYTES;
use super::*;
use crate::admission::Load;
use crate::hook::HookReply;

struct Bench {
    exec: Arc<Exec<FakeSpawner>>,
    started: Started,
}

impl Bench {
    /// One process at a time, and `waiting` more calls.
    fn new(waiting: Load) -> Self {
        let (spawner, started) = FakeSpawner::new();
        let settings = Settings { max_workers: 1, queue: waiting, ..settings() };
        let hooks = [domain_call().hook().clone(), node_call().hook().clone()];
        let programs = hooks.into_iter().map(|hook| (hook, command())).collect();
        let exec = Arc::new(Exec::new(spawner, BTreeSet::new(), programs, settings));
        Self { exec, started }
    }

    fn with_queue_of(calls: usize) -> Self {
        Self::new(Load { calls, bytes: usize::MAX })
    }

    /// Starts a call that has `time`, and lets it get as far as it can.
    async fn call(&self, call: HookCall, time: Duration) -> JoinHandle<HookResult> {
        let (exec, deadline) = (self.exec.clone(), Instant::now() + time);
        let result = tokio::spawn(async move { exec.call(call, deadline, Arc::default()).await });
        settle().await;
        result
    }

    /// Starts a call, and returns the process that runs it.
    async fn run(
        &mut self,
        call: HookCall,
        time: Duration,
    ) -> (JoinHandle<HookResult>, FakeWorker) {
        let result = self.call(call, time).await;
        (result, self.started.next().await)
    }
}

async fn result(call: JoinHandle<HookResult>) -> HookResult {
    soon(call).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_program_gets_the_documents_in_order_and_its_stdout_is_the_answer() {
    let mut bench = Bench::with_queue_of(0);
    let (call, mut process) = bench.run(domain_call(), 10 * SECOND).await;
    let expected = [("--vmi", b"{}".to_vec()), ("--domain", DOMAIN.into())];
    assert_eq!(process.documents, expected);
    process.write(b"<domain>chan").await;
    process.write(b"ged</domain>").await;
    // It may close its stdout long before it exits.
    process.closes_stdout();
    settle().await;
    assert!(!call.is_finished());
    process.exit(0);
    assert_eq!(domain(result(call).await), "<domain>changed</domain>");
}

#[tokio::test(start_paused = true)]
async fn at_the_deadline_the_caller_has_its_answer_and_the_process_the_kill_grace() {
    let mut bench = Bench::with_queue_of(1);
    let start = Instant::now();
    let (call, process) = bench.run(domain_call(), 5 * SECOND).await;
    process.prints_to_stderr("waiting for the database");
    process.ignores_sigterm();
    let next = bench.call(domain_call(), 60 * SECOND).await;
    assert_eq!(
        failure(result(call).await),
        "did not answer within 5.0 s: fake-worker was stopped; the last lines of its stderr:\n\
         waiting for the database"
    );
    assert_eq!(start.elapsed(), 5 * SECOND);
    process.terminated().await;
    settle().await;
    // The slot is free when the process is reaped.
    assert!(bench.started.try_next().is_none());
    process.killed().await;
    assert_eq!(start.elapsed(), 5 * SECOND + KILL_GRACE);
    bench.started.next().await.exit(1);
    assert!(failure(result(next).await).contains("exited with status 1"));
}

#[tokio::test(start_paused = true)]
async fn the_process_of_a_caller_that_left_is_stopped() {
    let mut bench = Bench::with_queue_of(0);
    let (call, process) = bench.run(domain_call(), 60 * SECOND).await;
    let start = Instant::now();
    call.abort();
    process.terminated().await;
    assert_eq!(start.elapsed(), Duration::ZERO);
    settle().await;
    let (next, process) = bench.run(domain_call(), 60 * SECOND).await;
    process.exit(1);
    assert!(result(next).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_a_slot_until_its_deadline_and_in_a_queue_that_has_a_limit() {
    let mut bench = Bench::with_queue_of(1);
    let start = Instant::now();
    let (running, process) = bench.run(domain_call(), 60 * SECOND).await;
    let waiting = bench.call(domain_call(), 5 * SECOND).await;
    let refused = bench.call(domain_call(), 5 * SECOND).await;
    assert_eq!(
        failure(result(refused).await),
        "is busy: 1 calls are waiting already (--queue-limit)"
    );
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(
        failure(result(waiting).await),
        "is busy: the call waited for its turn until its deadline; 1 processes run at once \
         (--max-workers)"
    );
    assert_eq!(start.elapsed(), 5 * SECOND);
    // Its place is free again, also when a caller leaves it.
    let left = bench.call(domain_call(), 60 * SECOND).await;
    left.abort();
    settle().await;
    let next = bench.call(domain_call(), 60 * SECOND).await;
    assert!(bench.started.try_next().is_none());
    process.exit(1);
    assert!(result(running).await.is_err());
    bench.started.next().await.exit(1);
    assert!(failure(result(next).await).contains("exited with status 1"));
}

#[tokio::test(start_paused = true)]
async fn documents_that_wait_have_a_limit_in_all() {
    let mut bench = Bench::new(Load { calls: 9, bytes: 100 });
    let (_running, process) = bench.run(domain_call(), 60 * SECOND).await;
    let long = format!("<domain>{}</domain>", "x".repeat(200));
    // One call may wait whatever its size.
    let waiting = bench.call(domain_call_with(long.into()), 60 * SECOND).await;
    let refused = bench.call(domain_call(), 60 * SECOND).await;
    assert_eq!(
        failure(result(refused).await),
        "is busy: with this call, documents of 242 bytes would be waiting, and 100 may \
         (--queue-bytes)"
    );
    assert!(!waiting.is_finished());
    process.exit(1);
    bench.started.next().await.exit(1);
    assert!(failure(result(waiting).await).contains("exited with status 1"));
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_fails_calls_that_wait_and_lets_those_that_run_finish() {
    let mut bench = Bench::with_queue_of(1);
    let (running, mut process) = bench.run(domain_call(), 60 * SECOND).await;
    let waiting = bench.call(domain_call(), 60 * SECOND).await;
    let exec = bench.exec.clone();
    let drained = tokio::spawn(async move { exec.drain().await });
    assert_eq!(failure(result(waiting).await), "is unavailable: the shim is shutting down");
    let late = bench.call(domain_call(), 60 * SECOND).await;
    assert_eq!(failure(result(late).await), "is unavailable: the shim is shutting down");
    assert!(!drained.is_finished());
    process.write(b"<domain>last</domain>").await;
    process.exit(0);
    assert_eq!(domain(result(running).await), "<domain>last</domain>");
    soon(drained).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_failed_program_is_reported_with_its_stderr() {
    let mut bench = Bench::with_queue_of(0);
    let (call, mut process) = bench.run(domain_call(), 60 * SECOND).await;
    process.write(b"<domain>ignored</domain>").await;
    process.prints_to_stderr("disk vda is not allowed");
    process.exit(3);
    assert_eq!(
        failure(result(call).await),
        "failed: fake-worker exited with status 3; the last lines of its stderr:\n\
         disk vda is not allowed"
    );
}

#[tokio::test(start_paused = true)]
async fn output_without_an_end_stops_the_program() {
    let mut bench = Bench::with_queue_of(0);
    let (call, mut process) = bench.run(domain_call(), 60 * SECOND).await;
    process.write(&vec![b' '; MAX_OUTPUT_BYTES]).await;
    settle().await;
    assert!(!process.was_signalled());
    process.write(b"x").await;
    process.killed().await;
    assert_eq!(
        failure(result(call).await),
        format!(
            "returned an invalid document: it wrote more than {MAX_OUTPUT_BYTES} bytes to its \
             stdout"
        )
    );
}

#[tokio::test(start_paused = true)]
async fn the_output_of_a_node_hook_has_no_limit_and_no_meaning() {
    let mut bench = Bench::with_queue_of(0);
    let (call, mut process) = bench.run(node_call(), 60 * SECOND).await;
    assert_eq!(process.documents[1], ("--node", b"node01".to_vec()));
    process.write(&vec![b' '; MAX_OUTPUT_BYTES + 1]).await;
    process.exit(0);
    assert!(matches!(result(call).await, Ok(HookReply::Done)));
}

#[tokio::test(start_paused = true)]
async fn a_process_that_holds_stdout_has_the_kill_grace_to_finish_the_answer() {
    for finishes in [true, false] {
        let mut bench = Bench::with_queue_of(0);
        let (call, mut process) = bench.run(domain_call(), 60 * SECOND).await;
        let start = Instant::now();
        process.write(b"<domain>its").await;
        let mut held = process.exit_with_stdout_held(0, Holder::OutsideGroup);
        held.write_all(b"</domain>").await.unwrap();
        settle().await;
        assert!(!call.is_finished());
        if finishes {
            drop(held);
            assert_eq!(domain(result(call).await), "<domain>its</domain>");
            assert_eq!(start.elapsed(), Duration::ZERO);
        } else {
            assert_eq!(domain(result(call).await), "<domain>its</domain>");
            assert_eq!(start.elapsed(), KILL_GRACE);
        }
    }
}
