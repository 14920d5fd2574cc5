//! The end of a worker: its process is ended and reaped, and every call that it had is answered or
//! goes back to the pool.

use super::super::job::Job;
use super::super::process::Exit;
use super::calls::InFlight;
use super::{Cause, Ending, Life, Report, Worker};
use crate::error::{HookFailure, Termination};

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
        let calls = self.calls.take_all();
        let idle = !calls.iter().any(InFlight::is_open);
        if matches!(end, End::Overdue) {
            // To end it takes a while, and the other calls are not to blame.
            let how = "was ended because it did not end another call in time".to_owned();
            let termination = Termination { how, stderr: self.process.stderr_so_far() };
            let again = self.give_back(calls, &end, &termination);
            self.reporter.report(Report::Leaving { again }).await;
            let exit = self.stop_and_reap(&end).await;
            tracing::warn!(
                pid = self.process.pid(), worker = %self.command,
                "worker lost: it was ended because it did not end a call in time, and {exit}"
            );
            return Ending { cause: Cause::Call, unsent: Vec::new(), again: Vec::new() };
        }
        let exit = self.stop_and_reap(&end).await;
        let stderr = self.process.stderr_at_end().await;
        let how = match &end {
            End::Exited(exit) => exit.to_string(),
            End::Broke(what) => format!("broke the worker protocol: {what}"),
            End::StartTimeout => format!(
                "did not answer initialize within {} (--start-timeout)",
                humantime::format_duration(self.settings.start_timeout)
            ),
            End::Drained | End::Overdue => format!("was told to stop and {exit}"),
        };
        let termination = Termination { how, stderr };
        let cause = self.cause(&end, idle, &termination);
        let again = self.give_back(calls, &end, &termination);
        Ending { cause, unsent: Vec::new(), again }
    }

    async fn stop_and_reap(&mut self, end: &End) -> Exit {
        let exit = match end {
            End::Exited(exit) => *exit,
            End::Broke(_) => self.process.kill().await,
            End::Drained | End::Overdue | End::StartTimeout => {
                self.process.stop(self.settings.kill_grace).await
            }
        };
        // What the worker has started itself goes with it.
        self.process.kill_group();
        exit
    }

    fn cause(&self, end: &End, idle: bool, termination: &Termination) -> Cause {
        let (pid, worker) = (self.process.pid(), &self.command);
        if matches!(end, End::Drained) {
            tracing::debug!(pid, %worker, "worker stopped: it {}", termination.how);
            return Cause::Told;
        }
        if matches!(self.life, Life::Starting { .. }) {
            let (how, hint, said) = (&termination.how, start_hint(end), termination.last_lines());
            return Cause::Start(format!("{worker} {how}{hint}{said}"));
        }
        if idle && matches!(end, End::Exited(exit) if exit.success()) {
            tracing::info!(pid, %worker, "an idle worker exited by itself");
            return Cause::Quiet;
        }
        tracing::warn!(pid, %worker, "worker lost: it {}", termination.how);
        if idle { Cause::Idle(format!("{worker} {termination}")) } else { Cause::Call }
    }

    /// Fails the calls that the worker still had, but for those that may be tried once more: those
    /// that it has died over, whatever the cause, and those of which it is not known whether they
    /// made it break the protocol.
    fn give_back(&self, calls: Vec<InFlight>, end: &End, termination: &Termination) -> Vec<Job> {
        let several = calls.iter().filter(|call| call.is_open()).count() > 1;
        let may_try_again = match end {
            End::Broke(_) => several,
            End::Exited(_) | End::Overdue => true,
            End::Drained | End::StartTimeout => false,
        };
        let mut again = Vec::new();
        for call in calls {
            if call.is_retryable() {
                again.extend(call.again());
                continue;
            }
            let InFlight { mut job, .. } = call;
            let failure = self.failure(end, termination);
            if may_try_again && job.call().may_be_repeated() {
                again.extend(job.retry(failure));
            } else {
                job.answer(Err(failure));
            }
        }
        again
    }

    /// What a call that the worker had when it ended is told.
    fn failure(&self, end: &End, termination: &Termination) -> HookFailure {
        let program = self.command.to_string();
        match end {
            End::Broke(what) => {
                let seen = format!("{what}{}", termination.last_lines());
                HookFailure::Protocol { program, seen }
            }
            _ => HookFailure::Died { program, termination: termination.clone() },
        }
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
