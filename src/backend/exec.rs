//! Exec mode: one process for each call, with the documents as arguments, as the Go shim does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncReadExt;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, timeout_at};
use tokio_util::task::TaskTracker;

use super::process::{self, CommandLine, Exit, Launch, Pipes, Process, SpawnError, Stdout};
use super::{Settings, queue_full};
use crate::admission::Budget;
use crate::error::{HookFailure, HookResult, Termination};
use crate::hook::{HookCall, HookName, Subject};

/// The most that is read of a program's output: as much as a worker's frame holds. What a
/// caller can take is less.
const MAX_OUTPUT_BYTES: usize = crate::frame::MAX_FRAME_BYTES;

/// Runs argv-style programs, a bounded number of them at once.
pub(super) struct Exec {
    programs: BTreeMap<HookName, CommandLine>,
    /// The hooks for which a program was looked for.
    names: BTreeSet<HookName>,
    settings: Settings,
    slots: Arc<Semaphore>,
    waiting: Budget,
    running: TaskTracker,
}

impl Exec {
    /// Takes the hooks for which a program was looked for, and the program of each that has one.
    #[must_use]
    pub(super) fn new(
        names: BTreeSet<HookName>,
        programs: BTreeMap<HookName, CommandLine>,
        settings: Settings,
    ) -> Self {
        let slots = Arc::new(Semaphore::new(settings.max_workers));
        let (waiting, running) = (settings.queue(), TaskTracker::new());
        Self { programs, names, settings, slots, waiting, running }
    }

    /// The hooks that have a program.
    pub(super) fn hooks(&self) -> impl Iterator<Item = &HookName> {
        self.programs.keys()
    }

    /// Runs the hook's program once. The process is watched by a task of its own: a call that
    /// is dropped takes the same way out as one whose deadline has passed.
    pub(super) async fn call(&self, call: HookCall, deadline: Instant) -> HookResult {
        let Some(command) = self.programs.get(call.hook()).cloned() else {
            return Err(HookFailure::NotServed(self.why_not_served(call.hook())));
        };
        let started = Instant::now();
        let slot = self.slot(call.bytes(), deadline).await?;
        let (reply, answer) = oneshot::channel();
        let run = Run { command, call, started, deadline, settings: self.settings.clone() };
        self.running.spawn(async move {
            run.watch(reply).await;
            drop(slot);
        });
        answer.await.unwrap_or(Err(HookFailure::Cancelled))
    }

    /// `$PATH` holds more than hooks: of a name that was not looked up at start, nothing is told.
    fn why_not_served(&self, hook: &HookName) -> String {
        if !self.names.contains(hook) {
            return "exec mode runs the node hooks that it knows, and those that are named by \
                    --node-hooks"
                .to_owned();
        }
        match process::find_in_path(hook.as_str().as_ref()) {
            Err(not_found) => not_found.to_string(),
            Ok(path) => format!("{} was not there at start", path.display()),
        }
    }

    /// Waits until one process more may run.
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

    /// Waits until no process runs any more. Each is bounded by its call's deadline.
    pub(super) async fn drain(&self) {
        self.slots.close();
        self.running.close();
        self.running.wait().await;
    }
}

/// One process and the call that it is for.
struct Run {
    command: CommandLine,
    call: HookCall,
    started: Instant,
    deadline: Instant,
    settings: Settings,
}

impl Run {
    async fn watch(self, mut reply: oneshot::Sender<HookResult>) {
        let (mut process, pipes) = match self.spawn() {
            Ok(spawned) => spawned,
            Err(error) => {
                let _ = reply.send(Err(error));
                return;
            }
        };
        let outcome = tokio::select! {
            outcome = timeout_at(self.deadline, self.run(&mut process, pipes)) => outcome.ok(),
            () = reply.closed() => None,
        };
        if let Some(answer) = outcome {
            let _ = reply.send(answer);
            return;
        }
        // The caller hears of it before the process is ended, which takes a while.
        let _ = reply.send(Err(HookFailure::Deadline {
            program: self.command.to_string(),
            after: self.deadline - self.started,
            stderr: process.stderr_so_far(),
        }));
        process.stop(self.settings.kill_grace).await;
    }

    fn spawn(&self) -> Result<(Process, Pipes), HookFailure> {
        let subject = match self.call.subject() {
            Subject::Domain(domain) => ("--domain", &domain.bytes()[..]),
            Subject::CloudInitData(data) => ("--cloud-init", &data.bytes()[..]),
            Subject::Node(name) => ("--node", name.as_bytes()),
        };
        Process::spawn(&Launch {
            command: &self.command,
            // This order and no other: programs take `$4` and `sys.argv[4]`.
            documents: &[("--vmi", self.call.vmi().bytes()), subject],
            protocol: None,
            context: self.call.context(),
            stdin: false,
            hook: Some(self.call.hook()),
            memory: self.settings.worker_memory,
        })
        .map_err(|error| match error {
            SpawnError::ArgumentTooLong(what) => HookFailure::TooLarge(what),
            SpawnError::CannotRun(why) => HookFailure::Unavailable(why),
        })
    }

    async fn run(&self, process: &mut Process, pipes: Pipes) -> HookResult {
        let mut stdout = pipes.stdout;
        let mut output = BytesMut::new();
        // A node hook answers by its exit status; what it prints is read so that it does not block.
        let prints_answer = !matches!(self.call.subject(), Subject::Node(_));
        let exit = loop {
            if !prints_answer {
                output.clear();
            }
            if output.len() > MAX_OUTPUT_BYTES {
                process.kill().await;
                return Err(HookFailure::BadOutput(format!(
                    "it wrote more than {MAX_OUTPUT_BYTES} bytes to its standard output"
                )));
            }
            output.reserve(16 * 1024);
            tokio::select! {
                read = stdout.read_buf(&mut output) => if !matches!(read, Ok(count) if count > 0) {
                    break process.wait().await;
                },
                exit = process.wait() => {
                    if exit.success() && prints_answer {
                        self.take_rest(&mut stdout, &mut output).await;
                    }
                    break exit;
                }
            }
        };
        self.judge(process, exit, output.freeze()).await
    }

    /// The Go shim waits for end-of-file for as long as it takes. Here a program that leaves
    /// writers behind (`exec > >(sed …)`) has the kill grace for them to finish.
    async fn take_rest(&self, stdout: &mut Stdout, output: &mut BytesMut) {
        let room = MAX_OUTPUT_BYTES + 1 - output.len().min(MAX_OUTPUT_BYTES);
        let mut rest = bytes::BufMut::limit(output, room);
        if process::read_rest(stdout, &mut rest, self.settings.kill_grace).await.is_err() {
            tracing::warn!(
                hook = %self.call.hook(),
                "the hook's program ended, and a process that it left holds its standard output; \
                 what was written so far is taken as the answer"
            );
        }
    }

    async fn judge(&self, process: &mut Process, exit: Exit, output: Bytes) -> HookResult {
        if !exit.success() {
            process.kill_group();
            let stderr = process.stderr_at_end().await;
            return Err(HookFailure::Died {
                program: self.command.to_string(),
                termination: Termination { how: exit.to_string(), stderr },
            });
        }
        process.leave_stderr(self.settings.kill_grace);
        self.call
            .accept(output, self.settings.checks)
            .map_err(|fault| HookFailure::BadOutput(fault.to_string()))
    }
}
