//! One process for one call: its output, its exit, and its end at the deadline.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use tracing::Span;

use super::super::config::Settings;
use super::super::process::{self, Child, CommandLine, Exit, Launch, Pipes, Spawn, SpawnError};
use super::super::progress::Progress;
use crate::error::{HookFailure, HookResult, Termination};
use crate::hook::{HookCall, Subject};

/// Maximum number of bytes read from a program's stdout: as much as a worker's frame holds. Callers
/// accept less.
pub(super) const MAX_OUTPUT_BYTES: usize = crate::frame::MAX_FRAME_BYTES;

/// Bytes that are read in one step, at least.
const STEP_BYTES: usize = 16 * 1024;

/// What an output may hold without asking, beside as much as the call's documents: its own share
/// covers that.
const FREE_BYTES: usize = 64 * 1024;

/// A call and the command of the process that runs it.
pub(super) struct Run {
    pub(super) command: CommandLine,
    pub(super) call: HookCall,
    pub(super) started: Instant,
    pub(super) deadline: Instant,
    pub(super) settings: Settings,
    pub(super) progress: Arc<Progress>,
}

impl Run {
    /// Starts the process, sends the call's result, and returns when the process is reaped.
    pub(super) async fn watch(self, spawner: &impl Spawn, mut reply: oneshot::Sender<HookResult>) {
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
