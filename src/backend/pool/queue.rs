//! Calls that wait for a worker, in the order in which they came.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::super::config::queue_full;
use super::super::job::Job;
use crate::admission::{Budget, Load};

/// One FIFO of calls, and another of those that are to be tried once more.
pub(super) struct Queue {
    again: VecDeque<Job>,
    first: VecDeque<Job>,
    /// What `first` may hold.
    budget: Budget,
}

impl Queue {
    pub(super) fn new(limit: Load) -> Self {
        Self { again: VecDeque::new(), first: VecDeque::new(), budget: Budget::new(limit) }
    }

    /// Adds a call that has just arrived, or refuses it. The first `exempt` calls of the queue have a
    /// worker already and do not count.
    pub(super) fn push(&mut self, mut job: Job, exempt: usize) {
        match self.budget.admit(job.call().bytes(), exempt) {
            Ok(place) => {
                job.set_place(Some(place));
                self.first.push_back(job);
            }
            Err(refused) => job.refuse(queue_full(refused)),
        }
    }

    /// Takes calls back that a worker was given and has not begun; the oldest stands first.
    pub(super) fn put_back(&mut self, jobs: impl DoubleEndedIterator<Item = Job>) {
        for mut job in jobs.rev() {
            if job.attempt() > 1 {
                self.again.push_front(job);
            } else {
                job.set_place(Some(self.budget.count(job.call().bytes())));
                self.first.push_front(job);
            }
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
        let mut job = queue.pop_front()?;
        job.set_place(None);
        if !job.is_closed() {
            return Some(job);
        }
    }
}
