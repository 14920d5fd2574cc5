//! Calls that a worker has not begun to read.
//!
//! # Theory of operation
//! Any worker may exit in the moment in which it is sent a call. So the task knows at which
//! position of its input each message begins, and the kernel how much of the pipe is unread, also
//! after the death of the reader. A call whose first byte was not read goes back to the pool, which
//! sends it to another worker as if it had not been sent: no hook knows of it. That is certain only
//! once no process has the other end of the pipe open, so a worker that is stopped keeps its stdin
//! until it was reaped if a call may lie in there. Of a call that was read in part, or that a
//! surviving process might still read, nothing is certain: it is in mid-call.

use tokio::time::timeout;

use super::super::job::Job;
use super::super::process::{Child, DRAIN_TIMEOUT};
use super::{Report, State, Worker};

impl<C: Child> Worker<C> {
    /// No process can read the worker's stdin any more: it closed it, or is exiting. It gets no
    /// more calls, and those that it has not begun to read go to another. It may answer the others.
    pub(super) async fn on_stdin_closed(&mut self) {
        self.stdin_closed = true;
        if !matches!(self.state, State::Starting { .. }) {
            self.report(Report::Stopping).await;
        }
        self.return_unread("closed its stdin").await;
        self.input.close();
    }

    /// Returns the calls to the pool that the worker has not begun to read, once no process can
    /// read them any more.
    pub(super) async fn return_unread(&mut self, how: &str) {
        // Its child processes have been killed with it. Others are not waited for.
        let may_be_unread = self.calls.has_unread(self.input.read());
        if !may_be_unread || timeout(DRAIN_TIMEOUT, self.input.closed()).await.is_err() {
            return;
        }
        for call in self.calls.take_unread(self.input.read()) {
            self.send_elsewhere(call.job, how).await;
        }
    }

    /// Returns a call to the pool of which the worker has read nothing.
    pub(super) async fn send_elsewhere(&self, job: Job, how: &str) {
        if let Some(job) = job.send_again(&format!("{} {how}", self.command)) {
            job.span().in_scope(|| {
                tracing::info!(
                    pid = self.process.pid(), worker = %self.command,
                    "a worker stopped before it read a call, which goes to another worker"
                );
            });
            self.report(Report::Retry(Box::new(job))).await;
        }
    }
}
