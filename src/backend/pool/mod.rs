//! A pool of workers that are all started with the same command: which worker gets a call,
//! which call waits, when another worker is started and when one is told to end.
//!
//! # Theory of operation
//! One task, the actor, owns the queue and knows of each worker how many calls it has. Handlers
//! send it jobs; workers send it reports; it never waits for either, so nothing can hold it up. A
//! worker is free for the next call only after its report, or after its confirmed end.
//!
//! The queue is one FIFO, bounded in calls and in bytes, and a call waits in it until its deadline
//! at most. The pool grows while calls wait. Calls go to the oldest worker that is free, so that
//! those which the load does not need stay idle, and end after a while.
//!
//! A call that is tried once more goes, alone, to a worker that has had no call before. If there is
//! no room for one, an idle worker makes it.
//!
//! A worker that does not come up, or dies idle, is followed by another after a back-off that
//! doubles. If that happens too often, calls that find no worker fail at once, and the pool goes on
//! trying slowly.

mod member;
mod queue;
mod restart;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{self, JoinError, JoinSet, yield_now};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::member::Member;
use self::queue::Queue;
use self::restart::Restart;
use super::config::Settings;
use super::job::Job;
use super::process::CommandLine;
use super::worker::{self, Cause, Ending, Report, WorkerId};
use crate::error::{HookFailure, HookResult, StartError};
use crate::hook::{HookCall, HookName};
use crate::rpc::{Declared, MAX_CONCURRENCY};

/// Messages that may lie between two tasks. The receivers never wait for anything but their
/// next message, so this needs not be large.
const CHANNEL_CAPACITY: usize = 32;

/// How long after its deadline a call is answered by the pool itself. Half of the least margin that
/// the caller's own deadline leaves.
const BACKSTOP: Duration = Duration::from_millis(10);

/// The wait before a worker that has ended by itself without a single call is replaced for the sake
/// of `--min-workers` alone: one that does so every time would keep a CPU busy.
const REFILL_WAIT: Duration = Duration::from_secs(1);

/// Workers started with one command, and the way to them.
pub(super) struct Pool {
    command: CommandLine,
    jobs: mpsc::Sender<Job>,
    hooks: Vec<HookName>,
    stop: CancellationToken,
    actor: TaskTracker,
}

impl Pool {
    /// Starts the first worker, and returns once it has answered `initialize`. While calls fail at
    /// once, the pool counts itself to those that are down.
    pub(super) async fn start(
        command: &CommandLine,
        settings: &Settings,
        pools_down: &watch::Sender<usize>,
    ) -> Result<Self, StartError> {
        let (jobs, incoming) = mpsc::channel(CHANNEL_CAPACITY);
        let (stop, tracker) = (CancellationToken::new(), TaskTracker::new());
        let (mut actor, mut reports) = Actor::new(command, settings, pools_down.clone());
        actor.start_worker();
        tokio::select! {
            Some((id, report)) = reports.recv() => if let Report::Ready(declared) = report {
                actor.hooks.clone_from(&declared.hooks);
                actor.admit(id, &declared);
            },
            ended = actor.workers.join_next() => {
                return Err(StartError::Worker(match ended {
                    Some(Ok((_, Ending { cause: Cause::Start(fault), .. }))) => fault,
                    _ => format!("{command} ended at once"),
                }));
            }
        }
        let hooks = actor.hooks.clone();
        tracker.spawn(actor.run(incoming, reports, stop.clone()));
        tracker.close();
        Ok(Self { command: command.clone(), jobs, hooks, stop, actor: tracker })
    }

    /// The hooks that the first worker has declared.
    pub(super) fn hooks(&self) -> &[HookName] {
        &self.hooks
    }

    /// Gives a call to a worker, after those that came before it.
    pub(super) async fn call(&self, call: HookCall, deadline: Instant) -> HookResult {
        let (job, answer) = Job::new(call, deadline);
        let accepted = job.accepted();
        if self.jobs.send(job).await.is_err() {
            return Err(HookFailure::shutting_down());
        }
        tokio::select! {
            biased;
            answer = answer => answer.unwrap_or_else(|_| Err(HookFailure::Dropped)),
            () = backstop(deadline) => Err(HookFailure::Stalled {
                program: self.command.to_string(),
                after: deadline - accepted,
            }),
        }
    }

    /// Tells the pool to end. Calls that wait fail, calls that workers have are let end.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits until every worker is reaped.
    pub(super) async fn stopped(&self) {
        self.actor.wait().await;
    }
}

/// Waits for the time by which whoever has a call must have answered it, unless it is stuck itself,
/// with a worker that is being ended.
async fn backstop(deadline: Instant) {
    sleep_until(deadline + BACKSTOP).await;
    // Where the whole machine was held up, both times have come at once: the better answer first.
    for _ in 0..3 {
        yield_now().await;
    }
}

type Reports = mpsc::Receiver<(WorkerId, Report)>;

struct Actor {
    command: CommandLine,
    settings: Arc<Settings>,
    /// What the first worker has declared; all others must declare the same.
    hooks: Vec<HookName>,
    /// How many calls the last worker that came up takes at once.
    concurrency: usize,
    reporter: mpsc::Sender<(WorkerId, Report)>,
    workers: JoinSet<(WorkerId, Ending)>,
    members: BTreeMap<WorkerId, Member>,
    last_worker: WorkerId,
    queue: Queue,
    restart: Restart,
    /// What was wrong with the worker that failed last, until one comes up.
    last_fault: Option<String>,
    /// Whether this pool is one of those in `pools_down`.
    counts_as_down: bool,
    pools_down: watch::Sender<usize>,
    /// A worker is to be started though no call waits for it: the last one has ended over a call,
    /// has failed, or has done its share.
    replace: bool,
    /// Before this the minimum is not made up for.
    refill_at: Instant,
}

impl Actor {
    fn new(
        command: &CommandLine,
        settings: &Settings,
        pools_down: watch::Sender<usize>,
    ) -> (Self, Reports) {
        let (reporter, reports) = mpsc::channel(CHANNEL_CAPACITY);
        let actor = Self {
            command: command.clone(),
            settings: Arc::new(settings.clone()),
            hooks: Vec::new(),
            concurrency: 1,
            reporter,
            workers: JoinSet::new(),
            members: BTreeMap::new(),
            last_worker: 0,
            queue: Queue::new(settings.queue),
            restart: Restart::default(),
            last_fault: None,
            counts_as_down: false,
            pools_down,
            replace: false,
            refill_at: Instant::now(),
        };
        (actor, reports)
    }

    async fn run(
        mut self,
        mut jobs: mpsc::Receiver<Job>,
        mut reports: Reports,
        stop: CancellationToken,
    ) {
        loop {
            let now = Instant::now();
            self.expire(now);
            self.dispatch();
            self.shrink(now);
            self.grow(now);
            self.tell_health();
            let wake = self.next_wake(now);
            tokio::select! {
                Some(job) = jobs.recv() => self.enqueue(job),
                Some((id, report)) = reports.recv() => self.hear(id, report),
                Some(ended) = self.workers.join_next_with_id() => self.bury(ended),
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
                () = stop.cancelled() => break,
            }
        }
        jobs.close();
        while let Ok(job) = jobs.try_recv() {
            job.refuse(HookFailure::shutting_down());
        }
        // A worker whose sender is gone ends its calls, and then itself.
        self.members.values_mut().for_each(Member::retire);
        loop {
            self.queue.take_all().for_each(|job| job.refuse(HookFailure::shutting_down()));
            tokio::select! {
                Some((id, report)) = reports.recv() => self.hear(id, report),
                ended = self.workers.join_next_with_id() => match ended {
                    Some(ended) => self.bury(ended),
                    None => break,
                },
            }
        }
        while let Ok((id, report)) = reports.try_recv() {
            self.hear(id, report);
        }
        self.queue.take_all().for_each(|job| job.refuse(HookFailure::shutting_down()));
    }

    /// Takes a call, if a worker is free for it, can be started for it, or it may wait.
    fn enqueue(&mut self, job: Job) {
        if self.is_down() {
            job.refuse(self.unavailable());
            return;
        }
        self.queue.forget_abandoned();
        // The queue is for calls that no worker takes now or soon.
        let max = self.settings.max_requests;
        let free = self.members.values().filter(|member| member.takes(max)).count();
        let startable = self.settings.max_workers.saturating_sub(self.ready());
        let soon: usize = self.soon(Instant::now()).map(|(_, calls)| calls).sum();
        self.queue.push(job, free + startable * self.concurrency + soon);
    }

    fn hear(&mut self, id: WorkerId, report: Report) {
        match report {
            Report::Ready(declared) if declared.hooks != self.hooks => {
                if let Some(member) = self.members.get_mut(&id) {
                    member.retire();
                }
                self.failed(format!(
                    "{} declared other hooks than the first worker did",
                    self.command
                ));
            }
            Report::Ready(declared) => self.admit(id, &declared),
            Report::Taken => {
                if let Some(member) = self.members.get_mut(&id) {
                    member.taken();
                }
            }
            Report::Leaving { again } => {
                if let Some(member) = self.members.get_mut(&id) {
                    member.retire();
                }
                self.queue_again(again);
            }
            Report::Freed { again } => {
                self.restart.answered();
                self.queue_again(again.map(|job| *job));
                if let Some(member) = self.members.get_mut(&id) {
                    member.freed();
                    if member.is_worn_out(self.settings.max_requests) {
                        member.retire();
                        tracing::debug!(worker = %self.command, "a worker has had its share of calls");
                        self.replace |= self.running() == 0;
                    }
                }
            }
        }
    }

    /// A worker's task has ended, and its process was reaped.
    fn bury(&mut self, ended: Result<(task::Id, (WorkerId, Ending)), JoinError>) {
        let (id, Ending { cause, unsent, again }) = match ended {
            Ok((_, (id, ending))) => (id, ending),
            // A fault of this program's, which was logged where it was. The process has been
            // killed, and the calls that it had have lost their way back, which answers them.
            Err(error) => {
                let task = error.id();
                let found = self.members.iter().find(|(_, member)| member.task == task);
                let Some((&id, _)) = found else { return };
                let fault = format!("{} was lost by a fault of the shim itself", self.command);
                (id, Ending { cause: Cause::Idle(fault), unsent: Vec::new(), again: Vec::new() })
            }
        };
        let member = self.members.remove(&id);
        self.queue.put_back(unsent.into_iter());
        self.queue_again(again);
        match cause {
            Cause::Told => {}
            Cause::Quiet => {
                if member.is_some_and(|member| member.is_fresh()) {
                    self.refill_at = Instant::now() + REFILL_WAIT;
                }
            }
            // The next call should find a worker that is up.
            Cause::Call => self.replace |= self.running() == 0,
            Cause::Idle(fault) | Cause::Start(fault) => self.failed(fault),
        }
    }

    fn queue_again(&mut self, jobs: impl IntoIterator<Item = Job>) {
        for job in jobs {
            self.queue.push_again(job);
        }
    }

    /// Takes a worker that is ready.
    fn admit(&mut self, id: WorkerId, declared: &Declared) {
        if let Some(member) = self.members.get_mut(&id) {
            member.came_up(declared);
            self.concurrency = declared.concurrency;
            self.restart.came_up();
            if self.last_fault.take().is_some() {
                tracing::info!(worker = %self.command, "a hook worker is up again");
            }
        }
    }

    /// A worker did not come up, or died while it had nothing to do. The next one is started
    /// after a while.
    fn failed(&mut self, fault: String) {
        let wait = humantime::format_duration(self.restart.failed(Instant::now()));
        if self.restart.tripped() {
            tracing::error!(
                worker = %self.command,
                "hook workers fail again and again, calls fail until one comes up; another start \
                 in {wait}: {fault}",
            );
        } else {
            tracing::error!(
                worker = %self.command,
                "hook worker failed, another start in {wait}: {fault}",
            );
        }
        self.last_fault = Some(fault);
        self.replace |= self.running() == 0;
        if self.is_down() {
            let failure = self.unavailable();
            self.queue.take_all().for_each(|job| job.refuse(failure.clone()));
        }
    }

    /// Whether calls fail at once.
    fn is_down(&self) -> bool {
        self.restart.tripped() && self.ready() == 0
    }

    /// Returns the failure of a call while no worker is running.
    fn unavailable(&self) -> HookFailure {
        HookFailure::Unavailable(match &self.last_fault {
            Some(fault) => format!("no worker is running; {fault}"),
            None => "its worker was still starting at the call's deadline".to_owned(),
        })
    }

    /// Tells whoever watches, if this pool has gone down or has come up again.
    fn tell_health(&mut self) {
        let down = self.is_down();
        if down != self.counts_as_down {
            self.counts_as_down = down;
            self.pools_down.send_modify(|count| if down { *count += 1 } else { *count -= 1 });
        }
    }

    /// Answers calls that have waited until their deadline, and forgets those whose caller left.
    fn expire(&mut self, now: Instant) {
        self.queue.forget_abandoned();
        for job in self.queue.take_expired(now) {
            job.refuse(self.queue_timeout());
        }
    }

    /// Returns the failure of a call that found no free worker by its deadline.
    fn queue_timeout(&self) -> HookFailure {
        if self.ready() == 0 {
            return self.unavailable();
        }
        HookFailure::Busy(format!(
            "the call waited for its turn until its deadline; at most {} workers run at once \
             (--max-workers)",
            self.settings.max_workers
        ))
    }

    /// Gives waiting calls to free workers, oldest call and oldest worker first.
    fn dispatch(&mut self) {
        let max = self.settings.max_requests;
        while let Some(member) =
            self.members.values_mut().find(|member| member.is_fresh() && member.takes(max))
            && let Some(job) = self.queue.next_again()
        {
            self.queue.put_back(member.give(job).into_iter());
        }
        self.make_room();
        while let Some(member) = self.members.values_mut().find(|member| member.takes(max))
            && let Some(job) = self.queue.next()
        {
            self.queue.put_back(member.give(job).into_iter());
        }
    }

    /// Tells workers to end that were idle for long enough, down to the minimum.
    fn shrink(&mut self, now: Instant) {
        let limit = self.settings.idle_timeout;
        while self.ready() > self.settings.min_workers {
            let longest = self.idle().min_by_key(|(since, _)| *since).map(|(_, member)| member);
            let Some(member) =
                longest.filter(|member| member.idle_for(limit).is_some_and(|end| end <= now))
            else {
                return;
            };
            member.retire();
            tracing::debug!(worker = %self.command, "a worker has been idle for long and is told to stop");
        }
    }

    /// Starts workers: for calls that wait, to replace one that was lost, for the minimum.
    fn grow(&mut self, now: Instant) {
        if self.restart.until(now).is_some() {
            return;
        }
        let again = self.queue.len_again();
        let soon: usize = self.soon(now).map(|(_, calls)| calls).sum();
        let waiting = self.queue.len().saturating_sub(soon);
        let for_calls = again + waiting.div_ceil(self.concurrency);
        // While calls fail at once none of them waits, and only this brings a worker up again.
        let replace = usize::from(self.replace || self.is_down());
        let for_calls = for_calls.max(replace).saturating_sub(self.starting());
        let for_minimum = if self.refill_at <= now {
            self.settings.min_workers.saturating_sub(self.running())
        } else {
            0
        };
        let room = self.settings.max_workers.saturating_sub(self.members.len());
        for _ in 0..for_calls.max(for_minimum).min(room) {
            self.start_worker();
        }
    }

    /// A second try needs a new worker. Where there is no room for one, a worker makes it, before it
    /// is given the next call: an idle one, or, of workers that take several calls and may never be
    /// idle, the one that has least to do.
    fn make_room(&mut self) {
        let room = self.members.len() < self.settings.max_workers;
        if room || self.restart.until(Instant::now()).is_some() {
            return;
        }
        let coming = self.starting() + (self.members.len() - self.running());
        for _ in coming..self.queue.len_again() {
            let most = if self.concurrency > 1 { usize::MAX } else { 0 };
            let least_busy = self
                .members
                .values_mut()
                .filter_map(|member| Some((member.busy()?, member)))
                .filter(|(busy, _)| *busy <= most)
                .min_by_key(|(busy, _)| *busy);
            let Some((_, member)) = least_busy else { return };
            member.retire();
        }
    }

    fn start_worker(&mut self) {
        self.replace = false;
        self.last_worker += 1;
        let id = self.last_worker;
        let (jobs, incoming) = mpsc::channel(MAX_CONCURRENCY);
        let (command, settings) = (self.command.clone(), self.settings.clone());
        let worker = worker::run(id, command, settings, incoming, self.reporter.clone());
        let task = self.workers.spawn(async move { (id, worker.await) });
        self.members.insert(id, Member::starting(task.id(), jobs));
    }

    /// How many workers have not answered `initialize` yet.
    fn starting(&self) -> usize {
        self.members.values().filter(|member| member.is_starting()).count()
    }

    /// How many workers have answered `initialize` and take calls.
    fn ready(&self) -> usize {
        self.members.values().filter(|member| member.is_ready()).count()
    }

    /// How many workers there are that were not told to end.
    fn running(&self) -> usize {
        self.members.values().filter(|member| !member.is_leaving()).count()
    }

    /// Workers that have nothing to do, and since when.
    fn idle(&mut self) -> impl Iterator<Item = (Instant, &mut Member)> {
        self.members.values_mut().filter_map(|member| Some((member.idle_since()?, member)))
    }

    /// Workers that will take more calls as soon as they have read the last one: until when that
    /// should be, and how many.
    fn soon(&self, now: Instant) -> impl Iterator<Item = (Instant, usize)> {
        self.members.values().filter_map(Member::soon).filter(move |(until, _)| *until > now)
    }

    /// The next time at which something is to be done without a message.
    fn next_wake(&self, now: Instant) -> Option<Instant> {
        let (running, minimum) = (self.running(), self.settings.min_workers);
        let idle = self
            .members
            .values()
            .filter_map(|member| member.idle_for(self.settings.idle_timeout))
            .min()
            .filter(|_| self.ready() > minimum);
        let refill = Some(self.refill_at).filter(|at| *at > now && running < minimum);
        let soon = self.soon(now).map(|(until, _)| until).min().filter(|_| self.queue.len() > 0);
        let times = [self.queue.next_deadline(), self.restart.until(now), idle, refill, soon];
        times.into_iter().flatten().min()
    }
}
