//! One worker, as its pool sees it.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task;
use tokio::time::Instant;

use super::super::job::Job;
use crate::rpc::Declared;

/// How long a call may be on its way into a pipe before another worker is started for the next one.
/// A worker that reads takes it in far less.
const WRITE_PATIENCE: Duration = Duration::from_millis(20);

/// A worker of the pool. It counts as a process until it was reaped.
pub(super) struct Member {
    /// The task that owns it.
    pub(super) task: task::Id,
    state: State,
}

enum State {
    /// It has not answered `initialize` yet. Dropping the sender tells it to end.
    Starting(mpsc::Sender<Job>),
    Ready(Ready),
    /// It was told to end, or is about to.
    Leaving,
}

struct Ready {
    jobs: mpsc::Sender<Job>,
    /// How many calls it takes at once.
    concurrency: usize,
    /// How many it has.
    busy: usize,
    /// How many it was given so far.
    given: u32,
    /// Since when a call is on its way into its pipe; the next one would wait behind it.
    writing: Option<Instant>,
    /// It runs a second try, which is to be alone.
    alone: bool,
    idle_since: Instant,
}

impl Member {
    pub(super) fn starting(task: task::Id, jobs: mpsc::Sender<Job>) -> Self {
        Self { task, state: State::Starting(jobs) }
    }

    pub(super) fn is_starting(&self) -> bool {
        matches!(self.state, State::Starting(_))
    }

    pub(super) fn is_ready(&self) -> bool {
        matches!(self.state, State::Ready(_))
    }

    pub(super) fn is_leaving(&self) -> bool {
        matches!(self.state, State::Leaving)
    }

    /// It has answered `initialize`.
    pub(super) fn came_up(&mut self, declared: &Declared) {
        if let State::Starting(jobs) = &self.state {
            self.state = State::Ready(Ready {
                jobs: jobs.clone(),
                concurrency: declared.concurrency,
                busy: 0,
                given: 0,
                writing: None,
                alone: false,
                idle_since: Instant::now(),
            });
        }
    }

    /// Whether it may be given a call, after which it has been given no more than `max`.
    pub(super) fn takes(&self, max: Option<u32>) -> bool {
        let State::Ready(ready) = &self.state else { return false };
        ready.busy < ready.concurrency
            && ready.writing.is_none()
            && !ready.alone
            && max.is_none_or(|max| ready.given < max)
    }

    /// Until when the call that it was given last should be in its pipe, and how many more it will
    /// take then.
    pub(super) fn soon(&self) -> Option<(Instant, usize)> {
        let State::Ready(ready) = &self.state else { return None };
        if ready.alone {
            return None;
        }
        Some((ready.writing? + WRITE_PATIENCE, ready.concurrency - ready.busy))
    }

    /// How many calls it has.
    pub(super) fn busy(&self) -> Option<usize> {
        match &self.state {
            State::Ready(ready) => Some(ready.busy),
            _ => None,
        }
    }

    /// Whether it has not had any call yet.
    pub(super) fn is_fresh(&self) -> bool {
        matches!(&self.state, State::Ready(ready) if ready.given == 0)
    }

    /// Gives it a call. If it has ended, which the pool will hear of, the call comes back.
    pub(super) fn give(&mut self, job: Job) -> Option<Job> {
        let State::Ready(ready) = &mut self.state else { return Some(job) };
        let alone = job.attempt() > 1;
        if let Err(unsent) = ready.jobs.try_send(job) {
            self.state = State::Leaving;
            return Some(unsent.into_inner());
        }
        ready.busy += 1;
        ready.given = ready.given.saturating_add(1);
        ready.writing = (ready.concurrency > 1).then(Instant::now);
        ready.alone = alone;
        None
    }

    /// The call that it was given last is in its pipe.
    pub(super) fn taken(&mut self) {
        if let State::Ready(ready) = &mut self.state {
            ready.writing = None;
        }
    }

    /// One of its calls is over.
    pub(super) fn freed(&mut self) {
        if let State::Ready(ready) = &mut self.state {
            ready.busy = ready.busy.saturating_sub(1);
            if ready.busy == 0 {
                (ready.writing, ready.alone) = (None, false);
                ready.idle_since = Instant::now();
            }
        }
    }

    /// Since when it has had nothing to do.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        match &self.state {
            State::Ready(ready) if ready.busy == 0 => Some(ready.idle_since),
            _ => None,
        }
    }

    /// Whether it has done its share: it has had `max` calls, and all of them are over.
    pub(super) fn is_worn_out(&self, max: Option<u32>) -> bool {
        matches!(&self.state, State::Ready(ready) if ready.busy == 0 && Some(ready.given) == max)
    }

    /// Tells it to end, once its calls have.
    pub(super) fn retire(&mut self) {
        self.state = State::Leaving;
    }

    /// When it has been idle for `time`.
    pub(super) fn idle_for(&self, time: Duration) -> Option<Instant> {
        self.idle_since().map(|since| since + time)
    }
}
