//! The calls that a worker has, from the moment they are sent until their slot is free again.

use std::future::poll_fn;
use std::task::Poll;

use tokio::time::Instant;

use super::super::job::Job;
use super::Due;
use crate::error::HookFailure;
use crate::hook::HookName;

/// One call that a worker has.
pub(super) struct InFlight {
    pub(super) id: u64,
    pub(super) job: Job,
    /// The deadline; once the call was given up, the end of the grace.
    due: Instant,
    /// The worker has answered.
    settled: bool,
    /// What it has answered, if that asks for another try.
    retryable: Option<HookFailure>,
}

impl InFlight {
    /// Answers the caller, or forgets that there was one. The worker has until `due` to end it.
    pub(super) fn give_up(&mut self, failure: Option<HookFailure>, due: Instant) {
        match failure {
            Some(failure) => self.job.answer(Err(failure)),
            None => self.job.abandon(),
        }
        self.due = due;
    }

    /// The worker has answered with an error that another one might not have.
    pub(super) fn fail_retryably(&mut self, failure: HookFailure) {
        self.retryable = Some(failure);
    }

    /// Whether the worker has asked for another try.
    pub(super) fn is_retryable(&self) -> bool {
        self.retryable.is_some()
    }

    /// The call, if it is to be tried once more.
    pub(super) fn again(self) -> Option<Job> {
        let failure = self.retryable?;
        self.job.retry(failure)
    }

    /// Whether the worker owes an answer.
    pub(super) fn is_open(&self) -> bool {
        !self.settled
    }
}

/// The calls that a worker has.
#[derive(Default)]
pub(super) struct Calls(Vec<InFlight>);

impl Calls {
    /// Takes a call that was sent as request `id`.
    pub(super) fn push(&mut self, id: u64, job: Job) {
        let due = job.deadline();
        self.0.push(InFlight { id, job, due, settled: false, retryable: None });
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The hook that request `id` calls.
    pub(super) fn hook_of(&self, id: u64) -> Option<&HookName> {
        self.0.iter().find(|call| call.id == id).map(|call| call.job.hook())
    }

    /// The call that a response with this id answers. It is settled from now on.
    pub(super) fn settle(&mut self, id: u64) -> Option<&mut InFlight> {
        let call = self.0.iter_mut().find(|call| call.id == id && !call.settled)?;
        call.settled = true;
        Some(call)
    }

    /// Takes out those that were settled.
    pub(super) fn take_settled(&mut self) -> impl Iterator<Item = InFlight> {
        self.0.extract_if(.., |call| call.settled)
    }

    /// Takes out all.
    pub(super) fn take_all(&mut self) -> Vec<InFlight> {
        std::mem::take(&mut self.0)
    }

    /// Returns the call that is due first.
    pub(super) fn next_due(&self) -> Option<(Instant, Due)> {
        self.0.iter().map(|call| (call.due, Due::Call(call.id))).min_by_key(|(at, _)| *at)
    }

    /// Waits for a caller to give up on one of the calls, and returns its id.
    pub(super) async fn caller_left(&mut self) -> u64 {
        poll_fn(|context| {
            let mut calls = self.0.iter_mut();
            let left = calls
                .find_map(|call| call.job.poll_caller_gone(context).is_ready().then_some(call.id));
            left.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// The call that was sent as request `id`.
    pub(super) fn get_mut(&mut self, id: u64) -> Option<&mut InFlight> {
        self.0.iter_mut().find(|call| call.id == id)
    }
}
