//! Stopping a worker: its process is stopped and reaped, and every call that it had is answered,
//! retried, or sent to another worker if this one has not read it.
//!
//! A worker that the pool stops has one kill grace from EOF to SIGKILL, with SIGTERM in its middle.
//! So a shim that stops takes one grace as well, from the moment when no caller waits any more.

use std::time::Duration;

use super::super::process::{Child, Exit};
use super::calls::InFlight;
use super::{ExitCause, Fault, Report, State, Worker};
use crate::error::{HookFailure, Termination};

/// Returns the part of the kill grace that lies between EOF and SIGTERM. Workers that react to
/// either need a fraction of it.
pub(super) fn time_at_eof(kill_grace: Duration) -> Duration {
    kill_grace / 2
}

/// Why a worker's task ends.
pub(super) enum StopReason {
    /// The pool stopped it. If it has not exited yet, its time at EOF is over.
    Requested,
    /// It exited by itself.
    Exited(Exit),
    /// It broke the worker protocol.
    Protocol(String),
    /// It did not finish an abandoned call within the kill grace.
    CallOverdue,
    /// It did not answer `initialize` in time.
    StartTimeout,
}

impl<C: Child> Worker<C> {
    /// Stops and reaps the process, and closes the calls that it still had.
    pub(super) async fn finish(mut self, reason: StopReason) -> ExitCause {
        let stdout = self.unfinished_output(&reason);
        let read = self.input.read();
        if !self.calls.has_unread(read) {
            self.input.close();
        }
        if matches!(reason, StopReason::CallOverdue) {
            let calls = self.calls.take_begun(read);
            // Stopping takes up to the kill grace, and the other calls are not to blame.
            self.report(Report::Stopping).await;
            let how = "was stopped because it did not finish another call in time".to_owned();
            let termination = Termination { how, stdout, stderr: self.process.last_lines(None) };
            self.close_calls(calls, &reason, &termination).await;
            let exit = self.stop_and_reap(&reason).await.of_stopped();
            self.return_unread(&termination.how).await;
            // It has begun these while it was being stopped.
            let calls = self.calls.take_all();
            self.close_calls(calls, &reason, &termination).await;
            tracing::warn!(
                pid = self.process.pid(), worker = %self.command,
                "worker lost: it was stopped because it did not finish a call in time, and {exit}"
            );
            return ExitCause::Call;
        }
        let exit = self.stop_and_reap(&reason).await;
        self.process.read_stderr_to_end().await;
        let how = match &reason {
            StopReason::Exited(exit) => exit.to_string(),
            StopReason::Protocol(what) => format!("broke the worker protocol: {what}"),
            StopReason::StartTimeout => format!(
                "did not answer initialize within {} (--start-timeout)",
                humantime::format_duration(self.settings.start_timeout)
            ),
            StopReason::Requested | StopReason::CallOverdue => {
                format!("was stopped and {}", exit.of_stopped())
            }
        };
        let termination = Termination { how, stdout, stderr: self.process.last_lines(None) };
        self.return_unread(&termination.how).await;
        let calls = self.calls.take_all();
        let idle = !calls.iter().any(InFlight::is_open);
        let cause = self.exit_cause(&reason, idle, &termination);
        self.close_calls(calls, &reason, &termination).await;
        cause
    }

    /// Describes what was read from its stdout since the last message and is none. Stray output
    /// also explains a broken rule; half a frame is broken itself.
    fn unfinished_output(&self, reason: &StopReason) -> Option<String> {
        match reason {
            StopReason::Requested => None,
            StopReason::Protocol(_) if self.output.stray().is_empty() => None,
            _ => self.output.unfinished(),
        }
    }

    async fn stop_and_reap(&mut self, reason: &StopReason) -> Exit {
        let exit = match reason {
            StopReason::Exited(exit) => *exit,
            StopReason::Protocol(_) => self.process.kill().await,
            StopReason::Requested => {
                // The other half.
                self.process.stop(time_at_eof(self.settings.kill_grace)).await
            }
            StopReason::CallOverdue | StopReason::StartTimeout => {
                self.process.stop(self.settings.kill_grace).await
            }
        };
        // Its child processes are killed with it.
        self.process.kill_group();
        exit
    }

    fn exit_cause(&self, reason: &StopReason, idle: bool, termination: &Termination) -> ExitCause {
        let (pid, worker) = (self.process.pid(), &self.command);
        if matches!(reason, StopReason::Requested) {
            tracing::debug!(pid, %worker, "worker stopped: it {}", termination.how);
            return ExitCause::Requested;
        }
        if matches!(self.state, State::Starting { .. }) {
            let (how, written) = (&termination.how, termination.written());
            let memory = self.settings.worker_memory;
            let hint = start_hint(reason, termination.stdout.is_some(), memory);
            return ExitCause::Failed(Fault { what: format!("{worker} {how}{hint}"), written });
        }
        if idle && matches!(reason, StopReason::Exited(exit) if exit.success()) {
            tracing::info!(pid, %worker, "an idle worker exited by itself");
            return ExitCause::Idle;
        }
        tracing::warn!(pid, %worker, "worker lost: it {}", termination.how);
        if !idle {
            return ExitCause::Call;
        }
        let what = format!("{worker} {}", termination.how);
        ExitCause::Failed(Fault { what, written: termination.written() })
    }

    /// Fails the remaining calls, except those that can be retried: calls in flight when the worker
    /// died, and calls that cannot be blamed for a protocol error because several were in flight.
    async fn close_calls(
        &self,
        calls: Vec<InFlight>,
        reason: &StopReason,
        termination: &Termination,
    ) {
        let several = calls.iter().filter(|call| call.is_open()).count() > 1;
        let may_retry = match reason {
            StopReason::Protocol(_) => several,
            StopReason::Exited(_) | StopReason::CallOverdue => true,
            StopReason::Requested | StopReason::StartTimeout => false,
        };
        for call in calls {
            let stderr = self.process.last_lines(Some(call.id()));
            let failure = self.failure(reason, Termination { stderr, ..termination.clone() });
            if let Some(job) = call.close(failure, may_retry) {
                self.report(Report::Retry(Box::new(job))).await;
            }
        }
    }

    /// Returns the failure of a call that was in flight when the worker exited.
    fn failure(&self, reason: &StopReason, termination: Termination) -> HookFailure {
        let program = self.command.to_string();
        match reason {
            StopReason::Protocol(what) => {
                let seen = format!("{what}{}", termination.written());
                HookFailure::Protocol { program, seen }
            }
            _ => HookFailure::Died { program, termination },
        }
    }
}

/// Names the likeliest causes of a failed start, unless the worker's output shows it. One is a
/// limit of `memory`, such as 24 bytes where 24 MiB were meant: programs then die in many ways.
fn start_hint(reason: &StopReason, has_written: bool, memory: Option<u64>) -> String {
    match reason {
        StopReason::Exited(_) => {
            let memory = memory.map(|bytes| {
                format!(", with at most {bytes} bytes of memory for data (--worker-memory)")
            });
            format!(
                " before it answered initialize{} (an argv-style program? those run with --mode \
                 exec)",
                memory.unwrap_or_default()
            )
        }
        StopReason::StartTimeout if !has_written => {
            " (does it read its stdin? argv-style programs run with --mode exec)".to_owned()
        }
        _ => String::new(),
    }
}
