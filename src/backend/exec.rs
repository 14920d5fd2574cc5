//! Exec mode: one process for each call, with the documents as arguments, as the Go shim does.
//!
//! # Theory of operation
//! A call waits for a free slot until its deadline, then a separate task runs the process. So a
//! call whose caller has left takes the same path as one that passes its deadline: the process
//! group gets SIGTERM, the kill grace, SIGKILL, and is reaped before the slot is free again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, timeout_at};
use tokio_util::task::TaskTracker;
use tracing::{Instrument, Span};

use super::config::{Settings, queue_full};
use super::process::{self, Child, CommandLine, Exit, Launch, Pipes, Spawn, SpawnError};
use super::progress::Progress;
use super::state::ExecState;
use crate::admission::Budget;
use crate::error::{HookFailure, HookResult, Termination};
use crate::hook::{HookCall, HookName, Subject};

/// Maximum number of bytes read from a program's stdout: as much as a worker's frame holds. Callers
/// accept less.
const MAX_OUTPUT_BYTES: usize = crate::frame::MAX_FRAME_BYTES;

/// Bytes that are read in one step, at least.
const STEP_BYTES: usize = 16 * 1024;

/// What an output may hold without asking, beside as much as the call's documents: its own share
/// covers that.
const FREE_BYTES: usize = 64 * 1024;

/// Runs argv-style programs, at most `max_workers` at once.
pub(super) struct Exec<S> {
    spawner: S,
    programs: BTreeMap<HookName, CommandLine>,
    /// The hooks whose programs were looked up at start.
    names: BTreeSet<HookName>,
    settings: Settings,
    slots: Arc<Semaphore>,
    waiting: Budget,
    running: TaskTracker,
}

impl<S: Spawn> Exec<S> {
    /// `names` are the hooks that were looked up at start, `programs` those that were found.
    #[must_use]
    pub(super) fn new(
        spawner: S,
        names: BTreeSet<HookName>,
        programs: BTreeMap<HookName, CommandLine>,
        settings: Settings,
    ) -> Self {
        let slots = Arc::new(Semaphore::new(settings.max_workers));
        let (waiting, running) = (Budget::new(settings.queue), TaskTracker::new());
        Self { spawner, programs, names, settings, slots, waiting, running }
    }

    /// Returns the hooks that have a program.
    pub(super) fn hooks(&self) -> impl Iterator<Item = &HookName> {
        self.programs.keys()
    }

    pub(super) fn commands(&self) -> impl Iterator<Item = &CommandLine> {
        self.programs.values()
    }

    /// Runs the hook's program once.
    pub(super) async fn call(
        &self,
        call: HookCall,
        deadline: Instant,
        progress: Arc<Progress>,
    ) -> HookResult {
        let Some(command) = self.programs.get(call.hook()).cloned() else {
            return Err(HookFailure::NotServed(self.why_not_served(call.hook())));
        };
        let started = Instant::now();
        let slot = self.slot(call.bytes(), deadline).await?;
        let (reply, result) = oneshot::channel();
        let settings = self.settings.clone();
        let run = Run { command, call, started, deadline, settings, progress };
        let spawner = self.spawner.clone();
        let watch = async move {
            run.watch(&spawner, reply).await;
            drop(slot);
        };
        self.running.spawn(watch.in_current_span());
        result.await.unwrap_or(Err(HookFailure::Cancelled))
    }

    /// Explains why a hook has no program. `$PATH` contains more than hooks, and which is not
    /// revealed: names that were not looked up at start get a generic answer.
    fn why_not_served(&self, hook: &HookName) -> String {
        if !self.names.contains(hook) {
            return "exec mode runs the node hooks that it knows and those that --node-hooks names"
                .to_owned();
        }
        match process::find_in_path(hook.as_str().as_ref()) {
            Err(not_found) => not_found.to_string(),
            Ok(path) => format!("{} was not there at start", path.display()),
        }
    }

    /// Waits until another process may run.
    async fn slot(
        &self,
        bytes: usize,
        deadline: Instant,
    ) -> Result<tokio::sync::OwnedSemaphorePermit, HookFailure> {
        if let Ok(slot) = self.slots.clone().try_acquire_owned() {
            return Ok(slot);
        }
        let _place = self.waiting.admit(bytes, 0).map_err(queue_full)?;
        match timeout_at(deadline, self.slots.clone().acquire_owned()).await {
            Ok(Ok(slot)) => Ok(slot),
            Ok(Err(_)) => Err(HookFailure::shutting_down()),
            Err(_) => Err(HookFailure::Busy(format!(
                "the call waited for its turn until its deadline; {} processes run at once \
                 (--max-workers)",
                self.settings.max_workers
            ))),
        }
    }

    /// Returns what runs and what waits.
    pub(super) fn state(&self) -> ExecState {
        let max_processes = self.settings.max_workers;
        let running = max_processes.saturating_sub(self.slots.available_permits());
        ExecState { running, max_processes, waiting: *self.waiting.held().borrow() }
    }

    /// Fails the calls that wait, and returns when the last process was reaped. None lives longer
    /// than its call's deadline and the kill grace.
    pub(super) async fn drain(&self) {
        self.slots.close();
        self.running.close();
        self.running.wait().await;
    }
}

/// A call and the command of the process that runs it.
struct Run {
    command: CommandLine,
    call: HookCall,
    started: Instant,
    deadline: Instant,
    settings: Settings,
    progress: Arc<Progress>,
}

impl Run {
    async fn watch(self, spawner: &impl Spawn, mut reply: oneshot::Sender<HookResult>) {
        let (mut process, pipes) = match self.spawn(spawner) {
            Ok(started) => started,
            Err(error) => {
                let _ = reply.send(Err(error));
                return;
            }
        };
        self.progress.began(process.pid(), 1);
        let outcome = tokio::select! {
            outcome = timeout_at(self.deadline, self.run(&mut process, pipes.stdout)) => {
                outcome.ok()
            }
            () = reply.closed() => None,
        };
        if let Some(answer) = outcome {
            let _ = reply.send(answer);
            return;
        }
        // The caller learns it first: to stop the process takes up to the kill grace.
        let _ = reply.send(Err(HookFailure::Deadline {
            program: self.command.to_string(),
            after: self.deadline - self.started,
            stdout: None,
            stderr: process.last_lines(None),
        }));
        process.stop(self.settings.kill_grace).await;
    }

    fn spawn<S: Spawn>(&self, spawner: &S) -> Result<(S::Child, Pipes<S::Child>), HookFailure> {
        let subject = match self.call.subject() {
            Subject::Domain(domain) => ("--domain", &domain.bytes()[..]),
            Subject::CloudInitData(data) => ("--cloud-init", &data.bytes()[..]),
            Subject::Node(name) => ("--node", name.as_bytes()),
        };
        let launch = Launch {
            command: &self.command,
            // In this order: programs read `$4` and `sys.argv[4]`.
            documents: &[("--vmi", self.call.vmi().bytes()), subject],
            protocol: None,
            context: self.call.context(),
            stdin: false,
            span: Some(Span::current()),
            memory: self.settings.worker_memory,
        };
        spawner.spawn(&launch).map_err(|error| match error {
            SpawnError::ArgumentTooLong(what) => HookFailure::TooLarge(what),
            SpawnError::CannotRun(why) => HookFailure::Unavailable(why),
        })
    }

    async fn run<C: Child>(&self, process: &mut C, mut stdout: C::Stdout) -> HookResult {
        let mut output = BytesMut::new();
        let mut share = self.settings.memory.empty();
        // A node hook replies through its exit status. Its output is read so that it does not
        // block.
        let prints_answer = !matches!(self.call.subject(), Subject::Node(_));
        let exit = loop {
            if !prints_answer {
                output.clear();
            }
            if output.len() > MAX_OUTPUT_BYTES {
                process.kill().await;
                return Err(HookFailure::BadOutput(format!(
                    "it wrote more than {MAX_OUTPUT_BYTES} bytes to its stdout"
                )));
            }
            if output.capacity() - output.len() < STEP_BYTES {
                let more = output.capacity().max(STEP_BYTES);
                let covered = FREE_BYTES + self.call.bytes();
                let needed = (output.capacity() + more).saturating_sub(covered);
                if needed > share.limit() {
                    process.kill().await;
                    return Err(HookFailure::TooLarge(format!(
                        "its stdout of more than {} bytes does not fit into the memory budget of \
                         {} bytes (--memory-budget)",
                        output.len(),
                        share.limit()
                    )));
                }
                share.grow(needed.saturating_sub(share.bytes())).await;
                output.reserve(more);
            }
            tokio::select! {
                read = stdout.read_buf(&mut output) => if !matches!(read, Ok(count) if count > 0) {
                    break process.wait().await;
                },
                exit = process.wait() => {
                    if exit.success() && prints_answer {
                        self.drain_stdout(&mut stdout, &mut output).await;
                    }
                    break exit;
                }
            }
        };
        self.finish(process, exit, output.freeze()).await
    }

    /// Reads what an exited program has left in the pipe. The Go shim waits for EOF without a
    /// limit; here child processes that still write (`exec > >(sed …)`) have the kill grace to
    /// finish.
    async fn drain_stdout(&self, stdout: &mut (impl AsyncRead + Unpin), output: &mut BytesMut) {
        let remaining = MAX_OUTPUT_BYTES + 1 - output.len().min(MAX_OUTPUT_BYTES);
        let mut rest = bytes::BufMut::limit(output, remaining);
        if process::read_rest(stdout, &mut rest, self.settings.kill_grace).await.is_err() {
            tracing::warn!(
                "the hook's program exited, but a child process of it holds its stdout open; \
                 what was written so far is taken as the answer"
            );
        }
    }

    async fn finish(&self, process: &mut impl Child, exit: Exit, output: Bytes) -> HookResult {
        if !exit.success() {
            process.kill_group();
            process.read_stderr_to_end().await;
            let stderr = process.last_lines(None);
            return Err(HookFailure::Died {
                program: self.command.to_string(),
                termination: Termination { how: exit.to_string(), stdout: None, stderr },
            });
        }
        process.detach_stderr(self.settings.kill_grace);
        self.call
            .accept(output, self.settings.checks)
            .map_err(|fault| HookFailure::BadOutput(fault.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncWriteExt;
    use tokio::task::JoinHandle;

    use super::super::fake::{
        DOMAIN, FakeSpawner, FakeWorker, Holder, KILL_GRACE, SECOND, Started, command, domain,
        domain_call, domain_call_with, failure, node_call, settings, settle, soon,
    };
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
            let result =
                tokio::spawn(async move { exec.call(call, deadline, Arc::default()).await });
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
}
