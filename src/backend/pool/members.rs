//! The workers of a pool, as the pool sees them.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task;
use tokio::time::Instant;

use super::super::job::Job;
use super::super::state::{MAX_LISTED_WORKERS, WorkerState, WorkerStatus};
use super::super::worker::WorkerId;
use crate::rpc::Declared;

/// Time for the write of a call into a worker's pipe, after which another worker is started for the
/// next call. A worker that reads needs far less.
const WRITE_STALL_TIMEOUT: Duration = Duration::from_millis(20);

/// A worker. It counts as a process until it has been reaped.
pub(super) struct Member {
    /// The task that owns it.
    task: task::Id,
    started: Instant,
    /// Its process, once that is started.
    pid: Option<i32>,
    /// How often workers had failed to come up when it was started.
    round: u64,
    /// Number of calls that it has been sent so far.
    sent: u32,
    /// When it answered `initialize`.
    came_up: Option<Instant>,
    state: State,
}

enum State {
    /// It has not answered `initialize`. Dropping the sender stops it.
    Starting(mpsc::Sender<Job>),
    Ready(Ready),
    /// It is being stopped, or exits by itself, and accepts no more calls.
    Stopping,
}

struct Ready {
    jobs: mpsc::Sender<Job>,
    /// Maximum number of calls in flight.
    concurrency: usize,
    in_flight: usize,
    /// When the write of a call into its pipe began. The next call would wait behind it.
    write_began: Option<Instant>,
    /// Whether it runs a call alone.
    exclusive: bool,
    idle_since: Instant,
    /// When it was sent a call after it had none.
    busy_since: Instant,
}

impl Member {
    pub(super) fn starting(task: task::Id, round: u64, jobs: mpsc::Sender<Job>) -> Self {
        let (started, state) = (Instant::now(), State::Starting(jobs));
        Self { task, started, pid: None, round, sent: 0, came_up: None, state }
    }

    pub(super) fn on_spawned(&mut self, pid: i32) {
        self.pid = Some(pid);
    }

    fn worker_state(&self) -> WorkerState {
        match &self.state {
            State::Starting(_) => WorkerState::Starting,
            State::Ready(Ready { in_flight: 0, .. }) => WorkerState::Ready,
            State::Ready(_) => WorkerState::Busy,
            State::Stopping => WorkerState::Stopping,
        }
    }

    fn status(&self, now: Instant) -> WorkerStatus {
        let running = self.ready().map_or(0, |ready| ready.in_flight);
        let busy = self.ready().filter(|ready| ready.in_flight > 0);
        WorkerStatus {
            pid: self.pid,
            state: self.worker_state(),
            age: now - self.started,
            calls: self.sent,
            running,
            busy_for: busy.map(|ready| now - ready.busy_since),
            resident_bytes: None,
        }
    }

    pub(super) fn round(&self) -> u64 {
        self.round
    }

    /// When it answered `initialize`.
    pub(super) fn came_up(&self) -> Option<Instant> {
        self.came_up
    }

    fn ready(&self) -> Option<&Ready> {
        let State::Ready(ready) = &self.state else { return None };
        Some(ready)
    }

    fn ready_mut(&mut self) -> Option<&mut Ready> {
        let State::Ready(ready) = &mut self.state else { return None };
        Some(ready)
    }

    pub(super) fn on_ready(&mut self, declared: &Declared) {
        let now = Instant::now();
        self.came_up = Some(now);
        if let State::Starting(jobs) = &self.state {
            self.state = State::Ready(Ready {
                jobs: jobs.clone(),
                concurrency: declared.concurrency,
                in_flight: 0,
                write_began: None,
                exclusive: false,
                idle_since: now,
                busy_since: now,
            });
        }
    }

    /// Whether it can be sent a call. It never receives more than `max` in all.
    pub(super) fn accepts(&self, max: Option<u32>) -> bool {
        self.ready().is_some_and(|ready| {
            ready.in_flight < ready.concurrency
                && ready.write_began.is_none()
                && !ready.exclusive
                && max.is_none_or(|max| self.sent < max)
        })
    }

    /// Whether it has not been sent any call.
    pub(super) fn is_unused(&self) -> bool {
        self.came_up.is_some() && self.sent == 0
    }

    /// Whether it has received `max` calls, and all of them have finished.
    pub(super) fn reached_max_requests(&self, max: Option<u32>) -> bool {
        Some(self.sent) == max && self.ready().is_some_and(|ready| ready.in_flight == 0)
    }

    /// When it has been idle for `time`.
    pub(super) fn idle_for(&self, time: Duration) -> Option<Instant> {
        self.idle_since().map(|since| since + time)
    }

    fn idle_since(&self) -> Option<Instant> {
        self.ready().filter(|ready| ready.in_flight == 0).map(|ready| ready.idle_since)
    }

    /// Returns when the write of its last call counts as stalled, and how many more calls it
    /// accepts once that call is written.
    fn free_after_write(&self) -> Option<(Instant, usize)> {
        let ready = self.ready().filter(|ready| !ready.exclusive)?;
        Some((ready.write_began? + WRITE_STALL_TIMEOUT, ready.concurrency - ready.in_flight))
    }

    /// Sends it a call. Returns the call if the worker has exited, which it will report.
    pub(super) fn send(&mut self, job: Job) -> Option<Job> {
        let State::Ready(ready) = &mut self.state else { return Some(job) };
        let exclusive = job.runs_alone();
        if let Err(unsent) = ready.jobs.try_send(job) {
            self.state = State::Stopping;
            return Some(unsent.into_inner());
        }
        if ready.in_flight == 0 {
            ready.busy_since = Instant::now();
        }
        ready.in_flight += 1;
        ready.write_began = (ready.concurrency > 1).then(Instant::now);
        ready.exclusive = exclusive;
        self.sent = self.sent.saturating_add(1);
        None
    }

    /// The call that it was sent last is in its pipe.
    pub(super) fn on_call_written(&mut self) {
        if let Some(ready) = self.ready_mut() {
            ready.write_began = None;
        }
    }

    pub(super) fn on_call_finished(&mut self) {
        if let Some(ready) = self.ready_mut() {
            ready.in_flight = ready.in_flight.saturating_sub(1);
            if ready.in_flight == 0 {
                (ready.write_began, ready.exclusive) = (None, false);
                ready.idle_since = Instant::now();
            }
        }
    }

    /// A call that was on its way to it was abandoned first.
    pub(super) fn on_call_skipped(&mut self) {
        self.sent = self.sent.saturating_sub(1);
        self.on_call_finished();
    }

    /// Stops it, once its calls have finished.
    pub(super) fn retire(&mut self) {
        self.state = State::Stopping;
    }
}

/// The workers of a pool, oldest first.
#[derive(Default)]
pub(super) struct Members(BTreeMap<WorkerId, Member>);

impl Members {
    pub(super) fn insert(&mut self, id: WorkerId, member: Member) {
        self.0.insert(id, member);
    }

    pub(super) fn get_mut(&mut self, id: WorkerId) -> Option<&mut Member> {
        self.0.get_mut(&id)
    }

    pub(super) fn remove(&mut self, id: WorkerId) -> Option<Member> {
        self.0.remove(&id)
    }

    /// Returns what the workers do, oldest first. Of many, the first ones.
    pub(super) fn statuses(&self, now: Instant) -> Vec<WorkerStatus> {
        self.0.values().take(MAX_LISTED_WORKERS).map(|member| member.status(now)).collect()
    }

    /// Number of workers that are in a state.
    pub(super) fn in_state(&self, state: WorkerState) -> usize {
        self.count(|member| member.worker_state() == state)
    }

    /// Number of calls that workers have.
    pub(super) fn in_flight(&self) -> usize {
        self.0.values().filter_map(Member::ready).map(|ready| ready.in_flight).sum()
    }

    /// Returns the worker that a task owns.
    pub(super) fn id_of(&self, task: task::Id) -> Option<WorkerId> {
        self.0.iter().find(|(_, member)| member.task == task).map(|(&id, _)| id)
    }

    /// Number of processes.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Number of workers that have not answered `initialize`.
    pub(super) fn starting(&self) -> usize {
        self.count(|member| matches!(member.state, State::Starting(_)))
    }

    /// Number of workers that serve calls.
    pub(super) fn ready(&self) -> usize {
        self.count(|member| member.ready().is_some())
    }

    /// Number of workers that are not being stopped.
    pub(super) fn running(&self) -> usize {
        self.len() - self.stopping()
    }

    /// Number of workers that are being stopped and have not exited.
    pub(super) fn stopping(&self) -> usize {
        self.count(|member| matches!(member.state, State::Stopping))
    }

    pub(super) fn count(&self, is: impl Fn(&Member) -> bool) -> usize {
        self.0.values().filter(|member| is(member)).count()
    }

    pub(super) fn oldest(&mut self, is: impl Fn(&Member) -> bool) -> Option<&mut Member> {
        self.0.values_mut().find(|member| is(member))
    }

    pub(super) fn longest_idle(&mut self) -> Option<&mut Member> {
        let idle = self.0.values_mut().filter_map(|member| Some((member.idle_since()?, member)));
        idle.min_by_key(|(since, _)| *since).map(|(_, member)| member)
    }

    /// Returns the worker with the fewest calls in flight, if it has no more than `max`.
    pub(super) fn least_busy(&mut self, max: usize) -> Option<&mut Member> {
        let busy =
            self.0.values_mut().filter_map(|member| Some((member.ready()?.in_flight, member)));
        let least = busy.min_by_key(|(in_flight, _)| *in_flight);
        least.filter(|(in_flight, _)| *in_flight <= max).map(|(_, member)| member)
    }

    /// When the first worker has been idle for `time`.
    pub(super) fn next_idle_for(&self, time: Duration) -> Option<Instant> {
        self.0.values().filter_map(|member| member.idle_for(time)).min()
    }

    /// Number of calls that will have a free slot as soon as the calls before them are written.
    pub(super) fn free_after_write(&self, now: Instant) -> usize {
        self.writes(now).map(|(_, free)| free).sum()
    }

    /// When the first write into a worker's pipe counts as stalled.
    pub(super) fn next_write_stall(&self, now: Instant) -> Option<Instant> {
        self.writes(now).map(|(stalled_at, _)| stalled_at).min()
    }

    fn writes(&self, now: Instant) -> impl Iterator<Item = (Instant, usize)> {
        let writes = self.0.values().filter_map(Member::free_after_write);
        writes.filter(move |(stalled_at, _)| *stalled_at > now)
    }

    /// Stops all workers, once their calls have finished.
    pub(super) fn retire_all(&mut self) {
        self.0.values_mut().for_each(Member::retire);
    }
}
