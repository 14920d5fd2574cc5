//! A call on its way: from the queue to a worker and, if that worker dies, back.

use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::Span;

use super::progress::Progress;
use crate::admission::Permit;
use crate::error::{HookFailure, HookResult};
use crate::hook::HookCall;

/// Number of workers that may leave a call unread. Any healthy worker may exit in the moment in
/// which it is sent a call. Each further one has just been started for this call alone: if that
/// happens twice in a row, the worker is to blame, and each try costs a start.
pub(super) const MAX_UNREAD: u32 = 3;

/// A call, and the channel back to its caller.
pub(super) struct Job {
    call: HookCall,
    /// What the log names in lines about it: the span in which it was created.
    span: Span,
    progress: Arc<Progress>,
    accepted: Instant,
    deadline: Instant,
    /// Why the first attempt failed, if this is the second.
    first_failure: Option<HookFailure>,
    /// Number of workers that left it unread.
    unread: u32,
    /// Its place in the queue, while it waits there for its first attempt.
    place: Option<Permit>,
    /// `None` once the call was answered or abandoned.
    reply: Option<oneshot::Sender<HookResult>>,
}

impl Job {
    /// Wraps a call that has just arrived, and returns where its result will be.
    pub(super) fn new(
        call: HookCall,
        deadline: Instant,
        progress: Arc<Progress>,
    ) -> (Self, oneshot::Receiver<HookResult>) {
        let (reply, result) = oneshot::channel();
        let job = Self {
            call,
            span: Span::current(),
            progress,
            accepted: Instant::now(),
            deadline,
            first_failure: None,
            unread: 0,
            place: None,
            reply: Some(reply),
        };
        (job, result)
    }

    pub(super) fn call(&self) -> &HookCall {
        &self.call
    }

    pub(super) fn span(&self) -> &Span {
        &self.span
    }

    /// Notes that it is being sent to a worker.
    pub(super) fn begins(&self, pid: i32) {
        self.progress.began(pid, self.attempt());
    }

    pub(super) fn accepted(&self) -> Instant {
        self.accepted
    }

    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Keeps its place in the queue, or with `None` gives it back.
    pub(super) fn set_place(&mut self, place: Option<Permit>) {
        self.place = place;
    }

    /// Returns the number of this attempt, from 1.
    pub(super) fn attempt(&self) -> u32 {
        if self.first_failure.is_some() { 2 } else { 1 }
    }

    /// Whether it needs an unused worker, and runs alone there: a worker has failed it already.
    pub(super) fn runs_alone(&self) -> bool {
        self.first_failure.is_some() || self.unread > 0
    }

    /// Whether an answer would reach no caller: it was answered or abandoned, or the caller left.
    pub(super) fn is_closed(&self) -> bool {
        self.reply.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    /// Ready when the caller has left; never, once the call was answered or abandoned.
    pub(super) fn poll_caller_gone(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.reply.as_mut().map_or(Poll::Pending, |reply| reply.poll_closed(context))
    }

    /// Whether it was answered or abandoned.
    pub(super) fn is_answered(&self) -> bool {
        self.reply.is_none()
    }

    /// Sends the result to the caller, unless one was sent before.
    pub(super) fn answer(&mut self, result: HookResult) {
        if let Some(reply) = self.reply.take() {
            let _ = reply.send(result);
        }
    }

    /// Fails a call that was not sent to a worker in this attempt. The failure of an earlier
    /// attempt says more than the reason why there was no second one.
    pub(super) fn refuse(mut self, failure: HookFailure) {
        let failure = self.first_failure.take().unwrap_or(failure);
        self.answer(Err(failure));
    }

    /// Drops the caller without an answer.
    pub(super) fn abandon(&mut self) {
        self.reply = None;
    }

    /// Returns the job for a second attempt after this failure. `None` if this was the second,
    /// which the caller then learns, or if the caller has left.
    pub(super) fn retry(mut self, failure: HookFailure) -> Option<Self> {
        if self.is_closed() {
            return None;
        }
        if self.first_failure.is_some() {
            self.answer(Err(failure));
            return None;
        }
        self.first_failure = Some(failure);
        Some(self)
    }

    /// Returns the job if it may be sent to another worker after one that has read nothing of it:
    /// no hook has seen the call, so this attempt has not begun. `None` if the caller has left, or
    /// learns that too many workers did not read the call: `last` says which the last one was, and
    /// how it stopped.
    pub(super) fn send_again(mut self, last: &str) -> Option<Self> {
        self.unread += 1;
        if self.unread < MAX_UNREAD {
            return (!self.is_closed()).then_some(self);
        }
        self.refuse(HookFailure::Unavailable(format!(
            "{MAX_UNREAD} workers in a row stopped before they read the call; {last}"
        )));
        None
    }
}
