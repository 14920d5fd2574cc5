//! The end of a worker: its process is ended and reaped, and every call that it had is answered or
//! goes back to the pool.

use super::super::process::{CommandLine, Exit};
use super::{Cause, Ending, Job, Life, Worker};
use crate::error::{CallError, Failure};
use crate::hook::HookName;

/// How often a call is sent: once more after a worker has died over it.
const MAX_ATTEMPTS: u32 = 2;

/// Why a worker's task ends.
pub(super) enum End {
    /// It was told to stop. It may not have exited yet.
    Drained,
    /// It exited by itself.
    Exited(Exit),
    /// It broke the protocol.
    Broke(String),
    /// It did not end a call that was given up.
    Overdue,
    /// It did not answer `initialize` in time.
    StartTimeout,
}

impl Worker {
    /// Ends and reaps the process, and sees to the calls that it still had.
    pub(super) async fn finish(mut self, end: End) -> Ending {
        self.stdin = None;
        let grace = self.settings.kill_grace;
        let exit = match &end {
            End::Exited(exit) => *exit,
            End::Broke(_) => self.process.kill().await,
            End::Drained | End::Overdue | End::StartTimeout => self.process.stop(grace).await,
        };
        // What the worker has started itself goes with it.
        self.process.kill_group();
        let stderr = self.process.stderr_at_end().await;
        let how = match &end {
            End::Drained => format!("was told to stop and {exit}"),
            End::Exited(exit) => exit.to_string(),
            End::Broke(what) => format!("broke the worker protocol: {what}"),
            End::Overdue => format!("was ended, because it did not end a call in time, and {exit}"),
            End::StartTimeout => format!(
                "did not answer initialize within {} (--start-timeout)",
                humantime::format_duration(self.settings.start_timeout)
            ),
        };
        let failure = Failure { how, stderr };
        let cause = self.cause(&end, exit, &failure);
        let unsent = self.give_back(&end, &failure);
        Ending { cause, unsent }
    }

    fn cause(&self, end: &End, exit: Exit, failure: &Failure) -> Cause {
        let (pid, worker) = (self.process.pid(), &self.command);
        let idle = self.calls.iter().all(|call| call.settled);
        if matches!(end, End::Drained) {
            tracing::debug!(pid, %worker, "worker stopped: it {exit}");
            return Cause::Quiet;
        }
        if matches!(self.life, Life::Starting { .. }) {
            let (how, hint, said) = (&failure.how, start_hint(end), failure.last_lines());
            return Cause::Start(format!("{worker} {how}{hint}{said}"));
        }
        if idle && matches!(end, End::Exited(exit) if exit.success()) {
            tracing::info!(pid, %worker, "an idle worker exited by itself");
            return Cause::Quiet;
        }
        tracing::warn!(pid, %worker, "worker lost: it {}", failure.how);
        if idle { Cause::Idle(format!("{worker} {failure}")) } else { Cause::Call }
    }

    /// Fails the calls that the worker still had, but for those that may be tried once more: the
    /// worker has died, by whatever cause, and hooks are idempotent.
    fn give_back(&mut self, end: &End, failure: &Failure) -> Vec<Job> {
        let mut again = Vec::new();
        for call in self.calls.drain(..) {
            let Some(reply) = call.reply else { continue };
            if matches!(end, End::Exited(_)) && call.attempt < MAX_ATTEMPTS {
                again.push(Job {
                    call: call.call,
                    accepted: call.accepted,
                    deadline: call.due,
                    attempt: call.attempt + 1,
                    reply,
                });
            } else {
                let error = call_error(&self.command, call.call.hook(), end, failure);
                let _ = reply.send(Err(error));
            }
        }
        again
    }
}

/// What a call that a worker had when it ended is told.
fn call_error(command: &CommandLine, hook: &HookName, end: &End, failure: &Failure) -> CallError {
    let (hook, program) = (hook.clone(), command.to_string());
    match end {
        End::Broke(what) => {
            let seen = format!("{what}{}", failure.last_lines());
            CallError::Protocol { hook, program, seen }
        }
        _ => CallError::Died { hook, program, failure: failure.clone() },
    }
}

/// The likeliest cause of a worker that never came up.
fn start_hint(end: &End) -> &'static str {
    match end {
        End::Exited(_) => {
            " before it answered initialize (an argv-style program? those run with --mode exec)"
        }
        End::StartTimeout => {
            " (does it read its standard input? argv-style programs run with --mode exec)"
        }
        _ => "",
    }
}
