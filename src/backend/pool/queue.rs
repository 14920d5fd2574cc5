//! Calls that wait for a worker, in the order in which they arrived.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::super::config::queue_full;
use super::super::job::Job;
use crate::admission::{Budget, Load};

/// One FIFO of calls that wait for any worker, and one of those that need an unused one.
pub(super) struct Queue {
    pending: VecDeque<Job>,
    retries: VecDeque<Job>,
    /// Limit of `pending`.
    budget: Budget,
}

impl Queue {
    pub(super) fn new(limit: Load) -> Self {
        Self { pending: VecDeque::new(), retries: VecDeque::new(), budget: Budget::new(limit) }
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> &crate::admission::Watched<Load> {
        self.budget.held()
    }

    /// Adds a call that has just arrived, or refuses it. The first `exempt` calls of the queue have
    /// a worker already and do not count.
    pub(super) fn push(&mut self, mut job: Job, exempt: usize) {
        match self.budget.admit(job.call().bytes(), exempt) {
            Ok(place) => {
                job.set_place(Some(place));
                self.pending.push_back(job);
            }
            Err(refused) => job.refuse(queue_full(refused)),
        }
    }

    /// Puts calls back that could not be sent, the oldest first.
    pub(super) fn put_back(&mut self, jobs: impl DoubleEndedIterator<Item = Job>) {
        for mut job in jobs.rev() {
            if job.runs_alone() {
                self.retries.push_front(job);
            } else {
                job.set_place(Some(self.budget.count(job.call().bytes())));
                self.pending.push_front(job);
            }
        }
    }

    pub(super) fn push_retry(&mut self, job: Job) {
        self.retries.push_back(job);
    }

    /// Returns the oldest call. Skips calls whose caller has left.
    pub(super) fn next(&mut self) -> Option<Job> {
        next_open(&mut self.pending)
    }

    /// Returns the oldest call that needs an unused worker. Skips calls whose caller has left.
    pub(super) fn next_retry(&mut self) -> Option<Job> {
        next_open(&mut self.retries)
    }

    /// Number of calls that wait for any worker.
    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }

    /// Returns all calls that wait, and the bytes of their documents.
    pub(super) fn load(&self) -> Load {
        let jobs = self.pending.iter().chain(&self.retries);
        Load {
            calls: self.len() + self.retry_len(),
            bytes: jobs.map(|job| job.call().bytes()).sum(),
        }
    }

    /// Number of calls that wait for an unused worker.
    pub(super) fn retry_len(&self) -> usize {
        self.retries.len()
    }

    /// Drops calls whose caller has left.
    pub(super) fn forget_abandoned(&mut self) {
        self.retries.retain(|job| !job.is_closed());
        self.pending.retain(|job| !job.is_closed());
    }

    /// Removes the calls whose deadline has passed.
    pub(super) fn take_expired(&mut self, now: Instant) -> Vec<Job> {
        let mut expired = Vec::new();
        for queue in [&mut self.retries, &mut self.pending] {
            for job in std::mem::take(queue) {
                if job.deadline() > now { queue.push_back(job) } else { expired.push(job) }
            }
        }
        expired
    }

    /// Removes every call.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = Job> {
        std::mem::take(&mut self.retries).into_iter().chain(std::mem::take(&mut self.pending))
    }

    /// Returns the earliest deadline.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.retries.iter().chain(&self.pending).map(Job::deadline).min()
    }
}

fn next_open(queue: &mut VecDeque<Job>) -> Option<Job> {
    loop {
        let mut job = queue.pop_front()?;
        job.set_place(None);
        if !job.is_closed() {
            return Some(job);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::sync::oneshot;

    use super::super::super::fake::{domain_call_with, failure};
    use super::*;
    use crate::error::{HookFailure, HookResult};

    const LIMIT: Load = Load { calls: 2, bytes: 1 << 20 };

    fn job(name: &str) -> (Job, oneshot::Receiver<HookResult>) {
        let deadline = Instant::now() + Duration::from_secs(1);
        Job::new(domain_call_with(name.to_owned().into()), deadline, Arc::default())
    }

    fn name(job: &Job) -> String {
        match job.call().subject() {
            crate::hook::Subject::Domain(domain) => domain.as_str().to_owned(),
            _ => String::new(),
        }
    }

    #[test]
    fn calls_that_were_not_started_stand_before_all_others_and_count_again() {
        let mut queue = Queue::new(LIMIT);
        let (jobs, _replies): (Vec<_>, Vec<_>) = ["a", "b", "c", "d"].map(job).into_iter().unzip();
        let [a, b, c, d] = <[Job; 4]>::try_from(jobs).ok().unwrap();
        queue.push(a, 0);
        queue.push(b, 0);
        let sent = [queue.next().unwrap(), queue.next().unwrap()];
        queue.push(c, 0);
        queue.put_back(sent.into_iter());
        let (refused, answer) = job("refused");
        queue.push(refused, 0);
        assert_eq!(
            failure(answer.blocking_recv().unwrap()),
            "is busy: 2 calls are waiting already (--queue-limit)"
        );
        queue.push_retry(d.retry(HookFailure::Dropped).unwrap());
        assert_eq!((queue.len(), queue.retry_len()), (3, 1));
        let order: Vec<_> = std::iter::from_fn(|| queue.next()).map(|job| name(&job)).collect();
        assert_eq!(order, ["a", "b", "c"]);
        assert_eq!(queue.next_retry().map(|job| name(&job)).as_deref(), Some("d"));
    }
}
