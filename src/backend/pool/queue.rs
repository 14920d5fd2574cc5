//! Calls that wait for a worker, in the order in which they came.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::super::job::Job;

/// One FIFO of calls, and another of those that are to be tried once more.
#[derive(Default)]
pub(super) struct Queue {
    again: VecDeque<Job>,
    first: VecDeque<Job>,
}

impl Queue {
    /// Takes a call that has just come.
    pub(super) fn push(&mut self, job: Job) {
        self.first.push_back(job);
    }

    /// Takes the call back that was pushed last, if it is waiting still.
    pub(super) fn pop_last(&mut self) -> Option<Job> {
        self.first.pop_back()
    }

    /// Takes calls back that a worker was given and has not begun; the oldest stands first.
    pub(super) fn put_back(&mut self, jobs: impl DoubleEndedIterator<Item = Job>) {
        for job in jobs.rev() {
            let again = job.attempt() > 1;
            if again { &mut self.again } else { &mut self.first }.push_front(job);
        }
    }

    /// Takes a call that is to be tried once more.
    pub(super) fn push_again(&mut self, job: Job) {
        self.again.push_back(job);
    }

    /// The oldest call. Those that nobody waits for any more are passed over.
    pub(super) fn next(&mut self) -> Option<Job> {
        next_wanted(&mut self.first)
    }

    /// The oldest call that is to be tried once more.
    pub(super) fn next_again(&mut self) -> Option<Job> {
        next_wanted(&mut self.again)
    }

    /// How many wait for their first try.
    pub(super) fn len(&self) -> usize {
        self.first.len()
    }

    /// How many wait for their second.
    pub(super) fn len_again(&self) -> usize {
        self.again.len()
    }

    /// Bytes of all that wait for their first try.
    pub(super) fn bytes(&self) -> usize {
        self.first.iter().map(|job| job.call().bytes()).sum()
    }

    /// Forgets calls that nobody waits for any more.
    pub(super) fn forget_abandoned(&mut self) {
        self.again.retain(|job| !job.is_closed());
        self.first.retain(|job| !job.is_closed());
    }

    /// Takes out the calls whose deadline has come.
    pub(super) fn take_expired(&mut self, now: Instant) -> Vec<Job> {
        let mut expired = Vec::new();
        for queue in [&mut self.again, &mut self.first] {
            for job in std::mem::take(queue) {
                if job.deadline() > now { queue.push_back(job) } else { expired.push(job) }
            }
        }
        expired
    }

    /// Takes out every call.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = Job> {
        std::mem::take(&mut self.again).into_iter().chain(std::mem::take(&mut self.first))
    }

    /// When the next call's time is over.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.again.iter().chain(&self.first).map(Job::deadline).min()
    }
}

fn next_wanted(queue: &mut VecDeque<Job>) -> Option<Job> {
    loop {
        let job = queue.pop_front()?;
        if !job.is_closed() {
            return Some(job);
        }
    }
}
