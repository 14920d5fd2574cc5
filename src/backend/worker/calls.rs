//! The calls of a worker, from the moment they are sent until their slots are free.

use std::future::poll_fn;
use std::task::Poll;

use tokio::time::Instant;
use tracing::Span;

use super::super::job::Job;
use super::Due;
use crate::error::HookFailure;

/// A call that occupies one of the worker's slots.
pub(super) struct InFlight {
    id: u64,
    /// Where its message begins in the worker's input.
    begins: u64,
    pub(super) job: Job,
    /// The deadline; for an abandoned call, the end of the grace period.
    due: Instant,
    state: State,
}

enum State {
    /// The worker has not answered.
    Open,
    Answered,
    /// The worker answered with an error that another worker may not have.
    Retryable(HookFailure),
}

impl InFlight {
    /// Returns the id of the request.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Answers the caller, or drops the reply to one that left. The worker has until `due` to
    /// finish.
    pub(super) fn abandon(&mut self, failure: Option<HookFailure>, due: Instant) {
        match failure {
            Some(failure) => self.job.answer(Err(failure)),
            None => self.job.abandon(),
        }
        self.due = due;
    }

    /// Keeps an error that another worker may not have. The call is retried when its slot is free.
    pub(super) fn retry_after(&mut self, failure: HookFailure) {
        self.state = State::Retryable(failure);
    }

    /// Whether the worker has not answered.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, State::Open)
    }

    /// Whether a worker that has read up to this position has read nothing of it. An answer counts,
    /// even to a call that was not read.
    fn is_unread(&self, read: u64) -> bool {
        self.is_open() && self.begins >= read
    }

    /// Returns the job for a second attempt, if the worker's answer asks for one.
    pub(super) fn into_retry(self) -> Option<Job> {
        match self.state {
            State::Retryable(failure) => self.job.retry(failure),
            State::Open | State::Answered => None,
        }
    }

    /// Closes a call whose worker exited: returns the job for a second attempt, or fails it.
    pub(super) fn close(mut self, failure: HookFailure, may_retry: bool) -> Option<Job> {
        match self.state {
            State::Retryable(failure) => self.job.retry(failure),
            _ if may_retry && self.job.call().may_be_repeated() => self.job.retry(failure),
            _ => {
                self.job.answer(Err(failure));
                None
            }
        }
    }
}

#[derive(Default)]
pub(super) struct Calls(Vec<InFlight>);

impl Calls {
    /// Adds a call that is sent as request `id`, in a message that begins at this position.
    pub(super) fn push(&mut self, id: u64, begins: u64, job: Job) {
        let due = job.deadline();
        self.0.push(InFlight { id, begins, job, due, state: State::Open });
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns the length of their documents.
    pub(super) fn bytes(&self) -> usize {
        self.0.iter().map(|call| call.job.call().bytes()).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a caller waits for one of them.
    pub(super) fn has_waiting(&self) -> bool {
        self.0.iter().any(|call| call.is_open() && !call.job.is_answered())
    }

    /// Returns the span of request `id`.
    pub(super) fn span_of(&self, id: u64) -> Option<&Span> {
        self.0.iter().find(|call| call.id == id).map(|call| call.job.span())
    }

    /// Marks the open request `id` as answered, and returns it.
    pub(super) fn settle(&mut self, id: u64) -> Option<&mut InFlight> {
        let call = self.get_mut(id).filter(|call| call.is_open())?;
        call.state = State::Answered;
        Some(call)
    }

    /// Removes the calls that the worker has answered.
    pub(super) fn take_answered(&mut self) -> impl Iterator<Item = InFlight> {
        self.0.extract_if(.., |call| !call.is_open())
    }

    /// Whether the worker, which has read up to this position, has not begun to read one of them.
    pub(super) fn has_unread(&self, read: u64) -> bool {
        self.0.iter().any(|call| call.is_unread(read))
    }

    /// Removes the calls that it has not begun to read.
    pub(super) fn take_unread(&mut self, read: u64) -> Vec<InFlight> {
        self.0.extract_if(.., |call| call.is_unread(read)).collect()
    }

    /// Removes the other calls.
    pub(super) fn take_begun(&mut self, read: u64) -> Vec<InFlight> {
        self.0.extract_if(.., |call| !call.is_unread(read)).collect()
    }

    pub(super) fn take_all(&mut self) -> Vec<InFlight> {
        std::mem::take(&mut self.0)
    }

    /// Returns the call that is due first.
    pub(super) fn next_due(&self) -> Option<(Instant, Due)> {
        self.0.iter().map(|call| (call.due, Due::Call(call.id))).min_by_key(|(at, _)| *at)
    }

    /// Waits until the caller of one of the calls has left, and returns that call's id.
    pub(super) async fn caller_left(&mut self) -> u64 {
        poll_fn(|context| {
            let mut calls = self.0.iter_mut();
            let left = calls
                .find_map(|call| call.job.poll_caller_gone(context).is_ready().then_some(call.id));
            left.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// Returns the call that was sent as request `id`.
    pub(super) fn get_mut(&mut self, id: u64) -> Option<&mut InFlight> {
        self.0.iter_mut().find(|call| call.id == id)
    }
}
