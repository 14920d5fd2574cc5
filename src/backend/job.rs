//! A call on its way: from the queue to a worker, and, if that dies, back again.

use std::task::{Context, Poll};

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Answer;
use crate::error::CallError;
use crate::hook::{HookCall, HookName};

/// A call, and the way back to whoever waits for it.
pub(super) struct Job {
    call: HookCall,
    accepted: Instant,
    deadline: Instant,
    /// How the first try failed, if this is the second.
    first_failure: Option<CallError>,
    /// Gone once the call was answered.
    reply: Option<oneshot::Sender<Answer>>,
}

impl Job {
    /// A call that has just come, and where its answer will be.
    pub(super) fn new(call: HookCall, deadline: Instant) -> (Self, oneshot::Receiver<Answer>) {
        let (reply, answer) = oneshot::channel();
        let accepted = Instant::now();
        (Self { call, accepted, deadline, first_failure: None, reply: Some(reply) }, answer)
    }

    pub(super) fn call(&self) -> &HookCall {
        &self.call
    }

    pub(super) fn hook(&self) -> &HookName {
        self.call.hook()
    }

    pub(super) fn accepted(&self) -> Instant {
        self.accepted
    }

    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Which try this is, from 1.
    pub(super) fn attempt(&self) -> u32 {
        if self.first_failure.is_some() { 2 } else { 1 }
    }

    /// Whether nobody waits for it: it was answered, or the caller left.
    pub(super) fn is_over(&self) -> bool {
        self.reply.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    /// Ready when the caller has left. Pending for ever once the call was answered.
    pub(super) fn poll_left(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.reply.as_mut().map_or(Poll::Pending, |reply| reply.poll_closed(context))
    }

    /// Whether it was answered, or given up.
    pub(super) fn is_answered(&self) -> bool {
        self.reply.is_none()
    }

    /// Answers, unless that was done.
    pub(super) fn answer(&mut self, answer: Answer) {
        if let Some(reply) = self.reply.take() {
            let _ = reply.send(answer);
        }
    }

    /// Answers a call that has not been sent to a worker this time. If it was before, how that
    /// ended says more than why there was no second try.
    pub(super) fn refuse(mut self, error: impl FnOnce(HookName) -> CallError) {
        let error = self.first_failure.take().unwrap_or_else(|| error(self.hook().clone()));
        self.answer(Err(error));
    }

    /// Forgets whoever waits, without an answer.
    pub(super) fn give_up(&mut self) {
        self.reply = None;
    }

    /// The same call once more, after this failure. If it was tried again already, or nobody waits
    /// any more, that is the end of it.
    pub(super) fn again(mut self, failure: CallError) -> Option<Self> {
        if self.is_over() {
            return None;
        }
        if self.first_failure.is_some() {
            self.answer(Err(failure));
            return None;
        }
        self.first_failure = Some(failure);
        Some(self)
    }
}
