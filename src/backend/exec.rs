//! Exec mode: one process for each call, with the documents as arguments, as the Go shim does.
//!
//! # Theory of operation
//! A call waits for a free slot until its deadline, then a task of its own runs the process. So a
//! call whose caller has left takes the same path as one that passes its deadline: the process group
//! gets SIGTERM, the kill grace, SIGKILL, and is reaped before the slot is free again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, timeout_at};
use tokio_util::task::TaskTracker;

use super::config::{Settings, queue_full};
use super::process::{self, Child, CommandLine, Exit, Launch, Pipes, Spawn, SpawnError};
use crate::admission::Budget;
use crate::error::{HookFailure, HookResult, Termination};
use crate::hook::{HookCall, HookName, Subject};

/// Maximum number of bytes read from a program's stdout: as much as a worker's frame holds. Callers
/// accept less.
const MAX_OUTPUT_BYTES: usize = crate::frame::MAX_FRAME_BYTES;

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

    /// Runs the hook's program once.
    pub(super) async fn call(&self, call: HookCall, deadline: Instant) -> HookResult {
        let Some(command) = self.programs.get(call.hook()).cloned() else {
            return Err(HookFailure::NotServed(self.why_not_served(call.hook())));
        };
        let started = Instant::now();
        let slot = self.slot(call.bytes(), deadline).await?;
        let (reply, result) = oneshot::channel();
        let run = Run { command, call, started, deadline, settings: self.settings.clone() };
        let spawner = self.spawner.clone();
        self.running.spawn(async move {
            run.watch(&spawner, reply).await;
            drop(slot);
        });
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

    /// Fails the calls that wait, and returns when the last process was reaped. None lives longer than
    /// its call's deadline and the kill grace.
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
        let outcome = tokio::select! {
            outcome = timeout_at(self.deadline, self.run(&mut process, pipes.stdout)) => outcome.ok(),
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
            stderr: process.stderr_so_far(),
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
            hook: Some(self.call.hook()),
            memory: self.settings.worker_memory,
        };
        spawner.spawn(&launch).map_err(|error| match error {
            SpawnError::ArgumentTooLong(what) => HookFailure::TooLarge(what),
            SpawnError::CannotRun(why) => HookFailure::Unavailable(why),
        })
    }

    async fn run<C: Child>(&self, process: &mut C, mut stdout: C::Stdout) -> HookResult {
        let mut output = BytesMut::new();
        // A node hook replies through its exit status. Its output is read so that it does not block.
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
            output.reserve(16 * 1024);
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

    /// Reads what an exited program has left in the pipe. The Go shim waits for EOF without a limit;
    /// here child processes that still write (`exec > >(sed …)`) have the kill grace to finish.
    async fn drain_stdout(&self, stdout: &mut (impl AsyncRead + Unpin), output: &mut BytesMut) {
        let remaining = MAX_OUTPUT_BYTES + 1 - output.len().min(MAX_OUTPUT_BYTES);
        let mut rest = bytes::BufMut::limit(output, remaining);
        if process::read_rest(stdout, &mut rest, self.settings.kill_grace).await.is_err() {
            tracing::warn!(
                hook = %self.call.hook(),
                "the hook's program exited, but a child process of it holds its stdout open; \
                 what was written so far is taken as the answer"
            );
        }
    }

    async fn finish(&self, process: &mut impl Child, exit: Exit, output: Bytes) -> HookResult {
        if !exit.success() {
            process.kill_group();
            let stderr = process.stderr_at_end().await;
            return Err(HookFailure::Died {
                program: self.command.to_string(),
                termination: Termination { how: exit.to_string(), stderr },
            });
        }
        process.detach_stderr(self.settings.kill_grace);
        self.call
            .accept(output, self.settings.checks)
            .map_err(|fault| HookFailure::BadOutput(fault.to_string()))
    }
}
