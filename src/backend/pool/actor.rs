//! The task of a pool: it sends calls to workers, and starts and stops workers.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{self, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::super::config::Settings;
use super::super::job::Job;
use super::super::process::{CommandLine, Spawn};
use super::super::state::{Exits, PoolHealth, PoolState, WorkerState};
use super::super::worker::{self, ExitCause, Fault, Report, WorkerExit, WorkerId};
use super::CHANNEL_CAPACITY;
use super::members::{Member, Members};
use super::queue::Queue;
use super::restart::Restart;
use crate::error::{HookFailure, StartError};
use crate::hook::HookName;
use crate::rpc::{Declared, MAX_CONCURRENCY};

/// Delay before a worker that exited by itself without a single call is replaced only for
/// `--min-workers`. A worker that always does so would keep a CPU busy. If it was up for less than
/// that, its exit delays also starts for calls.
const REFILL_DELAY: Duration = Duration::from_secs(1);

pub(super) struct Actor<S> {
    spawner: S,
    command: CommandLine,
    settings: Arc<Settings>,
    /// What the first worker declared; all others must declare the same hooks.
    declared: Option<Declared>,
    /// The concurrency of the worker that started last.
    concurrency: usize,
    reporter: mpsc::Sender<(WorkerId, Report)>,
    reports: mpsc::Receiver<(WorkerId, Report)>,
    workers: JoinSet<(WorkerId, WorkerExit)>,
    members: Members,
    last_worker: WorkerId,
    queue: Queue,
    restart: Restart,
    /// Why the last worker failed, until one starts.
    last_fault: Option<Fault>,
    /// Whether `pools_down` counts this pool.
    reported_down: bool,
    pools_down: watch::Sender<usize>,
    /// Whether to start a worker even if no call waits: the last one exited over a call, failed, or
    /// reached --max-requests.
    replace: bool,
    /// When the pool is filled up to `--min-workers` again.
    refill_at: Instant,
    /// Number of workers that have exited.
    exits: Exits,
    stopping: bool,
}

impl<S: Spawn> Actor<S> {
    /// Starts the first worker, and returns once it has answered `initialize`.
    pub(super) async fn start(
        spawner: S,
        command: &CommandLine,
        settings: &Settings,
        pools_down: watch::Sender<usize>,
    ) -> Result<Self, StartError> {
        let (reporter, reports) = mpsc::channel(CHANNEL_CAPACITY);
        let mut actor = Self {
            spawner,
            command: command.clone(),
            settings: Arc::new(settings.clone()),
            declared: None,
            concurrency: 1,
            reporter,
            reports,
            workers: JoinSet::new(),
            members: Members::default(),
            last_worker: 0,
            queue: Queue::new(settings.queue),
            restart: Restart::default(),
            last_fault: None,
            reported_down: false,
            pools_down,
            replace: false,
            refill_at: Instant::now(),
            exits: Exits::default(),
            stopping: false,
        };
        actor.start_worker();
        while actor.declared.is_none() {
            tokio::select! {
                // A worker that answered and exited has started; the pool then replaces it.
                biased;
                Some((id, report)) = actor.reports.recv() => actor.on_report(id, report),
                exited = actor.workers.join_next() => {
                    return Err(StartError::Worker(match exited {
                        Some(Ok((_, WorkerExit { cause: ExitCause::Failed(fault), .. }))) => {
                            fault.to_string()
                        }
                        _ => format!("{command} exited at once"),
                    }));
                }
            }
        }
        Ok(actor)
    }

    /// Returns the hooks that the first worker declared.
    pub(super) fn hooks(&self) -> &[HookName] {
        self.declared.as_ref().map_or(&[], |declared| &declared.hooks)
    }

    /// Returns what the first worker declared.
    pub(super) fn declared(&self) -> Option<&Declared> {
        self.declared.as_ref()
    }

    #[cfg(test)]
    pub(super) fn waiting(&self) -> crate::admission::Watched<crate::admission::Load> {
        self.queue.held().clone()
    }

    /// Runs the pool until it is stopped and every worker has been reaped.
    pub(super) async fn run(
        mut self,
        mut jobs: mpsc::Receiver<Job>,
        mut questions: mpsc::Receiver<oneshot::Sender<PoolState>>,
        stop: CancellationToken,
    ) {
        loop {
            let now = Instant::now();
            self.expire(now);
            self.dispatch();
            self.shrink(now);
            self.grow(now);
            self.publish_health();
            let wake = self.next_wake(now);
            // New calls come last: however many there are, what serves them goes on. Each report
            // and each exit follows from a call or a start that came before. The order is fixed so
            // that the same events always have the same effect, which the simulation needs.
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
                Some(exited) = self.workers.join_next_with_id() => self.on_worker_exit(exited),
                Some((id, report)) = self.reports.recv() => self.on_report(id, report),
                Some(question) = questions.recv() => drop(question.send(self.state())),
                Some(job) = jobs.recv() => self.enqueue(job),
            }
        }
        self.shut_down(jobs, questions).await;
    }

    /// Fails the calls that wait, and lets every worker finish its calls and exit.
    async fn shut_down(
        mut self,
        mut jobs: mpsc::Receiver<Job>,
        mut questions: mpsc::Receiver<oneshot::Sender<PoolState>>,
    ) {
        self.stopping = true;
        jobs.close();
        while let Ok(job) = jobs.try_recv() {
            job.refuse(HookFailure::shutting_down());
        }
        self.members.retire_all();
        loop {
            self.queue.take_all().for_each(|job| job.refuse(HookFailure::shutting_down()));
            tokio::select! {
                biased;
                Some((id, report)) = self.reports.recv() => self.on_report(id, report),
                exited = self.workers.join_next_with_id() => match exited {
                    Some(exited) => self.on_worker_exit(exited),
                    None => break,
                },
                Some(question) = questions.recv() => {
                    drop(question.send(self.state()));
                }
            }
        }
    }

    /// Adds a call to the queue, or refuses it.
    fn enqueue(&mut self, job: Job) {
        if self.is_down() {
            job.refuse(self.unavailable());
            return;
        }
        self.queue.forget_abandoned();
        // The queue limit is for calls that no worker takes now or soon.
        let max = self.settings.max_requests;
        let free = self.members.count(|member| member.accepts(max));
        let startable = self.settings.max_workers.saturating_sub(self.members.ready());
        let soon = self.members.free_after_write(Instant::now());
        self.queue.push(job, free + startable * self.concurrency + soon);
    }

    fn on_report(&mut self, id: WorkerId, report: Report) {
        let Some(member) = self.members.get_mut(id) else { return };
        match report {
            Report::Spawned { pid } => member.on_spawned(pid),
            Report::Ready(declared) => self.on_ready(id, &declared),
            Report::CallWritten => member.on_call_written(),
            Report::Retry(job) => self.queue.push_retry(*job),
            Report::Stopping => member.retire(),
            Report::CallSkipped => member.on_call_skipped(),
            Report::CallFinished => {
                self.restart.call_finished();
                member.on_call_finished();
                if member.reached_max_requests(self.settings.max_requests) {
                    member.retire();
                    tracing::debug!(worker = %self.command, "a worker reached --max-requests");
                    self.replace |= self.members.running() == 0;
                }
            }
        }
    }

    fn on_ready(&mut self, id: WorkerId, declared: &Declared) {
        let Some(member) = self.members.get_mut(id) else { return };
        let first = self.declared.get_or_insert_with(|| declared.clone());
        if first.hooks != declared.hooks {
            member.retire();
            let round = member.round();
            let fault = format!("{} declared other hooks than the first worker did", self.command);
            let now = Instant::now();
            self.restart.failed_to_start(now, round);
            return self.on_failed_worker(now, fault.into());
        }
        member.on_ready(declared);
        self.concurrency = declared.concurrency;
        self.restart.came_up();
        if self.last_fault.take().is_some() {
            tracing::info!(worker = %self.command, "a hook worker is up again");
        }
    }

    /// A worker's task has ended, and its process was reaped.
    fn on_worker_exit(&mut self, exited: Result<(task::Id, (WorkerId, WorkerExit)), JoinError>) {
        // What the worker reported before it exited comes first.
        while let Ok((id, report)) = self.reports.try_recv() {
            self.on_report(id, report);
        }
        let (id, WorkerExit { cause, unsent }) = match exited {
            Ok((_, exited)) => exited,
            // The task panicked, which the panic hook has logged. Dropping it has killed the
            // process and failed the callers.
            Err(error) => {
                let Some(id) = self.members.id_of(error.id()) else { return };
                let fault = format!("{} was lost by an internal error of the shim", self.command);
                (id, WorkerExit { cause: ExitCause::Failed(fault.into()), unsent: Vec::new() })
            }
        };
        let member = self.members.remove(id);
        for job in unsent {
            let exited = format!("{} exited", self.command);
            let failed =
                if let ExitCause::Failed(fault) = &cause { fault.to_string() } else { exited };
            if let Some(job) = job.send_again(&failed) {
                self.queue.push_retry(job);
            }
        }
        let now = Instant::now();
        match cause {
            ExitCause::Requested => self.exits.stopped += 1,
            ExitCause::Idle => {
                self.exits.idle += 1;
                let unused = member.as_ref().filter(|member| member.is_unused());
                if let Some(came_up) = unused.and_then(Member::came_up) {
                    self.on_unused_exit(now, now - came_up);
                }
            }
            // The next call should find a worker that is ready.
            ExitCause::Call => {
                self.exits.call += 1;
                self.replace |= self.members.running() == 0;
            }
            ExitCause::Failed(fault) => {
                if let Some(came_up) = member.as_ref().and_then(Member::came_up) {
                    self.exits.failed_idle += 1;
                    self.restart.lost_idle(now, now - came_up);
                } else if let Some(member) = member {
                    self.exits.failed_start += 1;
                    self.restart.failed_to_start(now, member.round());
                }
                self.on_failed_worker(now, fault);
            }
        }
    }

    /// A worker exited by itself without having been sent a call, which idle ones may do. One that
    /// does so at once does not help the calls that wait.
    fn on_unused_exit(&mut self, now: Instant, was_up: Duration) {
        self.refill_at = now + REFILL_DELAY;
        if was_up < REFILL_DELAY {
            self.restart.lost_idle(now, was_up);
            let fault = format!("{} exited as soon as it had answered initialize", self.command);
            self.last_fault = Some(fault.into());
        }
    }

    /// A worker did not start, or failed while it was idle. The next one is started after a
    /// back-off.
    fn on_failed_worker(&mut self, now: Instant, fault: Fault) {
        let wait = self.restart.until(now).map_or(Duration::ZERO, |until| until - now);
        let wait = humantime::format_duration(wait);
        if self.is_down() {
            tracing::error!(
                worker = %self.command,
                "hook workers keep failing, calls fail until one starts; another start in {wait}: \
                 {fault}",
            );
        } else {
            tracing::error!(
                worker = %self.command,
                "hook worker failed, another start in {wait}: {fault}",
            );
        }
        self.last_fault = Some(fault);
        self.replace |= self.members.running() == 0;
        if self.is_down() {
            let failure = self.unavailable();
            self.queue.take_all().for_each(|job| job.refuse(failure.clone()));
        }
    }

    /// Whether the circuit breaker has tripped and no worker is left: calls fail at once.
    fn is_down(&self) -> bool {
        self.restart.tripped() && self.members.ready() == 0
    }

    /// Returns the failure of a call while no worker is running.
    fn unavailable(&self) -> HookFailure {
        HookFailure::Unavailable(match &self.last_fault {
            Some(fault) => format!("no worker is running; {fault}"),
            None => "its worker was still starting at the call's deadline".to_owned(),
        })
    }

    /// Returns what the pool is doing.
    fn state(&self) -> PoolState {
        let now = Instant::now();
        let health = if self.stopping {
            PoolHealth::Stopping
        } else if self.is_down() {
            PoolHealth::Down
        } else if self.last_fault.is_some() {
            PoolHealth::Failing
        } else {
            PoolHealth::Serving
        };
        PoolState {
            command: self.command.to_string(),
            health,
            workers: WorkerState::ALL.map(|state| self.members.in_state(state)),
            listed: self.members.statuses(now),
            max_workers: self.settings.max_workers,
            running: self.members.in_flight(),
            waiting: self.queue.load(),
            back_off: self.restart.until(now).map(|until| until - now),
            last_fault: self.last_fault.as_ref().map(|fault| fault.what.clone()),
            starts: self.last_worker,
            exits: self.exits,
        }
    }

    fn publish_health(&mut self) {
        let down = self.is_down();
        if down != self.reported_down {
            self.reported_down = down;
            self.pools_down.send_modify(|count| if down { *count += 1 } else { *count -= 1 });
        }
    }

    /// Fails calls that waited until their deadline, and drops those whose caller left.
    fn expire(&mut self, now: Instant) {
        self.queue.forget_abandoned();
        for job in self.queue.take_expired(now) {
            job.refuse(self.queue_timeout());
        }
    }

    /// Returns the failure of a call that found no free worker by its deadline.
    fn queue_timeout(&self) -> HookFailure {
        if self.members.ready() == 0 {
            return self.unavailable();
        }
        HookFailure::Busy(format!(
            "the call waited for its turn until its deadline; at most {} workers run at once \
             (--max-workers)",
            self.settings.max_workers
        ))
    }

    /// Sends waiting calls to free workers, oldest call and oldest worker first. Second attempts go
    /// to unused workers, before all other calls.
    fn dispatch(&mut self) {
        let max = self.settings.max_requests;
        while let Some(member) =
            self.members.oldest(|member| member.is_unused() && member.accepts(max))
            && let Some(job) = self.queue.next_retry()
        {
            self.queue.put_back(member.send(job).into_iter());
        }
        self.evict_for_retry();
        while let Some(member) = self.members.oldest(|member| member.accepts(max))
            && let Some(job) = self.queue.next()
        {
            self.queue.put_back(member.send(job).into_iter());
        }
    }

    /// A second attempt needs a new worker. If the pool is full, a worker is retired to make space
    /// before it is sent the next call: an idle one or, with concurrent workers that may never be
    /// idle, the least busy one.
    fn evict_for_retry(&mut self) {
        let full = self.members.len() >= self.settings.max_workers;
        if !full || self.restart.until(Instant::now()).is_some() {
            return;
        }
        let coming = self.members.starting() + self.members.stopping();
        let max_in_flight = if self.concurrency > 1 { usize::MAX } else { 0 };
        for _ in coming..self.queue.retry_len() {
            let Some(member) = self.members.least_busy(max_in_flight) else { return };
            member.retire();
        }
    }

    /// Stops workers that have been idle for `--idle-timeout`, down to the minimum.
    fn shrink(&mut self, now: Instant) {
        let timeout = self.settings.idle_timeout;
        while self.members.ready() > self.settings.min_workers
            && let Some(member) = self.members.longest_idle()
            && member.idle_for(timeout).is_some_and(|until| until <= now)
        {
            member.retire();
            tracing::debug!(worker = %self.command, "a worker reached --idle-timeout");
        }
    }

    /// Starts workers: for calls that wait, to replace one that was lost, for the minimum.
    fn grow(&mut self, now: Instant) {
        if self.restart.until(now).is_some() {
            return;
        }
        let waiting = self.queue.len().saturating_sub(self.members.free_after_write(now));
        let for_calls = self.queue.retry_len() + waiting.div_ceil(self.concurrency);
        // While the circuit breaker is tripped no call waits, and only this starts a worker.
        let replace = usize::from(self.replace || self.is_down());
        let for_calls = for_calls.max(replace).saturating_sub(self.members.starting());
        let for_minimum = if self.refill_at <= now {
            self.settings.min_workers.saturating_sub(self.members.running())
        } else {
            0
        };
        let mut remaining = self.settings.max_workers.saturating_sub(self.members.len());
        if self.restart.last_start_failed() {
            // One tries whether workers come up again, however many calls wait for them.
            remaining = remaining.min(1_usize.saturating_sub(self.members.starting()));
        }
        for _ in 0..for_calls.max(for_minimum).min(remaining) {
            self.start_worker();
        }
    }

    fn start_worker(&mut self) {
        self.replace = false;
        self.last_worker += 1;
        let id = self.last_worker;
        let (jobs, incoming) = mpsc::channel(MAX_CONCURRENCY);
        let (command, settings) = (self.command.clone(), self.settings.clone());
        let (spawner, reporter) = (self.spawner.clone(), self.reporter.clone());
        let worker = worker::run(id, spawner, command, settings, incoming, reporter);
        let task = self.workers.spawn(async move { (id, worker.await) });
        let round = self.restart.round();
        self.members.insert(id, Member::starting(task.id(), round, jobs));
    }

    /// Returns the earliest time at which something is due without another event.
    fn next_wake(&self, now: Instant) -> Option<Instant> {
        let minimum = self.settings.min_workers;
        let idle = self.members.next_idle_for(self.settings.idle_timeout);
        let idle = idle.filter(|_| self.members.ready() > minimum);
        let refill =
            Some(self.refill_at).filter(|at| *at > now && self.members.running() < minimum);
        let stall = self.members.next_write_stall(now).filter(|_| self.queue.len() > 0);
        let times = [self.queue.next_deadline(), self.restart.until(now), idle, refill, stall];
        times.into_iter().flatten().min()
    }
}
