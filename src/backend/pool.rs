//! A pool of workers that are all started with the same command: which worker gets a call,
//! which call waits, when another worker is started.
//!
//! # Theory of operation
//! One task, the actor, owns the queue and knows of each worker how many calls it may be given
//! (its slots). Handlers send it jobs; workers send it reports; it never waits for either, so
//! nothing can hold it up. A slot is free again only after the worker's report: an answer, or
//! the worker's end. The queue is one FIFO, bounded, and a call waits in it until its deadline
//! at most. The pool grows while calls wait; a worker that crashes is replaced, and a start that
//! fails is tried again after a back-off that doubles.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::process::CommandLine;
use super::worker::{self, Cause, Ending, Job, Report, WorkerId};
use super::{Answer, Settings};
use crate::error::{CallError, StartError};
use crate::hook::{HookCall, HookName};
use crate::rpc::{Declared, MAX_CONCURRENCY};

/// Messages that may lie between two tasks. The receivers never wait for anything but their
/// next message, so this needs not be large.
const CHANNEL_CAPACITY: usize = 32;

/// How long after its deadline a call is answered by the pool itself. Half of the least margin that
/// the caller's own deadline leaves.
const BACKSTOP: Duration = Duration::from_millis(10);

/// The wait after the first failed start; it doubles with each one that follows.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);

/// The longest wait between two starts.
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);

/// Workers started with one command, and the way to them.
pub(super) struct Pool {
    jobs: mpsc::Sender<Job>,
    hooks: Vec<HookName>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Pool {
    /// Starts the first worker, and returns once it has answered `initialize`.
    pub(super) async fn start(
        command: &CommandLine,
        settings: &Settings,
    ) -> Result<Self, StartError> {
        let (jobs, incoming) = mpsc::channel(CHANNEL_CAPACITY);
        let (reporter, reports) = mpsc::channel(CHANNEL_CAPACITY);
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let mut actor = Actor {
            command: command.clone(),
            settings: Arc::new(settings.clone()),
            hooks: Vec::new(),
            tasks: tasks.clone(),
            reporter,
            members: BTreeMap::new(),
            last_worker: 0,
            queue: VecDeque::new(),
            backoff: Backoff::default(),
            last_fault: None,
            wanted: true,
        };
        let mut reports = reports;
        actor.grow();
        match reports.recv().await {
            Some((id, Report::Ready(declared))) => {
                actor.hooks.clone_from(&declared.hooks);
                actor.admit(id, &declared);
            }
            Some((_, Report::Ended(Ending { cause: Cause::Start(fault), .. }))) => {
                return Err(StartError::Worker(fault));
            }
            _ => return Err(StartError::Worker(format!("{command} ended at once"))),
        }
        let hooks = actor.hooks.clone();
        tasks.spawn(actor.run(incoming, reports, stop.clone()));
        tasks.close();
        Ok(Self { jobs, hooks, stop, tasks })
    }

    /// The hooks that the first worker has declared.
    pub(super) fn hooks(&self) -> &[HookName] {
        &self.hooks
    }

    /// Gives a call to a worker, after those that came before it.
    pub(super) async fn call(&self, call: HookCall, deadline: Instant) -> Answer {
        let hook = call.hook().clone();
        let stopping =
            || CallError::Unavailable { hook: hook.clone(), why: "shutting down".to_owned() };
        let (reply, answer) = oneshot::channel();
        let job = Job { call, accepted: Instant::now(), deadline, attempt: 1, reply };
        self.jobs.send(job).await.map_err(|_| stopping())?;
        tokio::select! {
            biased;
            answer = answer => answer.unwrap_or_else(|_| Err(stopping())),
            () = backstop(deadline) => {
                let why = "the call did not reach a worker by its deadline".to_owned();
                Err(CallError::Busy { hook: hook.clone(), why })
            }
        }
    }

    /// Tells the pool to end. Calls that wait fail, calls that workers have are let end.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits until every worker is reaped.
    pub(super) async fn stopped(&self) {
        self.tasks.wait().await;
    }
}

/// Waits for the time by which whoever has a call must have answered it, unless it is stuck itself,
/// behind another call or a worker that is being ended.
async fn backstop(deadline: Instant) {
    sleep_until(deadline + BACKSTOP).await;
    // Where the whole machine was held up, both times have come at once: the better answer first.
    for _ in 0..3 {
        yield_now().await;
    }
}

/// One worker, as the pool sees it.
struct Member {
    jobs: mpsc::Sender<Job>,
    /// Calls that it may be given now; `None` until it has answered `initialize`.
    free: Option<usize>,
}

struct Actor {
    command: CommandLine,
    settings: Arc<Settings>,
    /// What the first worker has declared; all others must declare the same.
    hooks: Vec<HookName>,
    tasks: TaskTracker,
    reporter: mpsc::Sender<(WorkerId, Report)>,
    members: BTreeMap<WorkerId, Member>,
    last_worker: WorkerId,
    queue: VecDeque<Job>,
    backoff: Backoff,
    /// What was wrong with the worker that failed last, until one comes up.
    last_fault: Option<String>,
    /// A worker is to be started though no call waits for it.
    wanted: bool,
}

impl Actor {
    async fn run(
        mut self,
        mut jobs: mpsc::Receiver<Job>,
        mut reports: mpsc::Receiver<(WorkerId, Report)>,
        stop: CancellationToken,
    ) {
        loop {
            let wake = self.next_wake();
            tokio::select! {
                Some(job) = jobs.recv() => self.enqueue(job),
                Some((id, report)) = reports.recv() => self.hear(id, report),
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {
                    self.expire();
                }
                () = stop.cancelled() => break,
            }
            self.dispatch();
            self.grow();
        }
        jobs.close();
        while let Ok(job) = jobs.try_recv() {
            self.queue.push_back(job);
        }
        self.fail_waiting("shutting down");
        // A worker whose sender is gone ends its calls, and then itself.
        let mut left = self.members.len();
        self.members.clear();
        while left > 0 {
            let Some((_, report)) = reports.recv().await else { return };
            if let Report::Ended(ending) = report {
                left -= 1;
                self.queue.extend(ending.unsent);
                self.fail_waiting("shutting down");
            }
        }
    }

    /// Takes a call, if a worker is free for it, can be started for it, or it may wait.
    fn enqueue(&mut self, job: Job) {
        self.queue.retain(|job| !job.reply.is_closed());
        self.queue.push_back(job);
        self.dispatch();
        let ready = self.members.values().filter(|member| member.free.is_some()).count();
        let limit = self.settings.queue_limit;
        if self.queue.len() <= limit + self.settings.max_workers.saturating_sub(ready) {
            return;
        }
        let Some(job) = self.queue.pop_back() else { return };
        let hook = job.call.hook().clone();
        let why = format!("{limit} calls are waiting already (--queue-limit)");
        let _ = job.reply.send(Err(CallError::Busy { hook, why }));
    }

    fn hear(&mut self, id: WorkerId, report: Report) {
        match report {
            Report::Ready(declared) if declared.hooks != self.hooks => {
                // Dropping its sender ends it.
                self.members.remove(&id);
                let fault =
                    format!("{} declared other hooks than the first worker did", self.command);
                self.failed(&fault);
                self.fail_waiting_if_alone(&fault);
            }
            Report::Ready(declared) => self.admit(id, &declared),
            Report::Freed => {
                self.backoff.reset();
                if let Some(Member { free: Some(free), .. }) = self.members.get_mut(&id) {
                    *free += 1;
                }
            }
            Report::Ended(Ending { cause, unsent }) => {
                self.members.remove(&id);
                for job in unsent.into_iter().rev() {
                    self.queue.push_front(job);
                }
                match cause {
                    Cause::Quiet => {}
                    // The next call should find a worker that is up.
                    Cause::Call => self.wanted |= self.members.is_empty(),
                    Cause::Idle(fault) => self.failed(&fault),
                    Cause::Start(fault) => {
                        self.failed(&fault);
                        self.fail_waiting_if_alone(&fault);
                    }
                }
            }
        }
    }

    /// Takes a worker that is ready.
    fn admit(&mut self, id: WorkerId, declared: &Declared) {
        if let Some(member) = self.members.get_mut(&id) {
            member.free = Some(declared.concurrency);
            self.last_fault = None;
        }
    }

    /// A worker did not come up, or died while it had nothing to do. The next one is started
    /// after a while.
    fn failed(&mut self, fault: &str) {
        let wait = self.backoff.fail();
        tracing::error!(
            worker = %self.command,
            "hook worker failed, another start in {}: {fault}",
            humantime::format_duration(wait)
        );
        self.last_fault = Some(fault.to_owned());
        self.wanted |= self.members.is_empty();
    }

    /// Calls that wait fail if there is no worker left that could take them.
    fn fail_waiting_if_alone(&mut self, fault: &str) {
        if self.members.is_empty() {
            self.fail_waiting(fault);
        }
    }

    fn fail_waiting(&mut self, why: &str) {
        for job in self.queue.drain(..) {
            let hook = job.call.hook().clone();
            let why = why.to_owned();
            let _ = job.reply.send(Err(CallError::Unavailable { hook, why }));
        }
    }

    /// Answers calls that have waited until their deadline, and forgets those whose caller left.
    fn expire(&mut self) {
        let now = Instant::now();
        for job in std::mem::take(&mut self.queue) {
            if job.reply.is_closed() {
                continue;
            }
            if job.deadline > now {
                self.queue.push_back(job);
                continue;
            }
            let error = self.waited_in_vain(job.call.hook().clone());
            let _ = job.reply.send(Err(error));
        }
    }

    /// Why a call has found no worker by its deadline.
    fn waited_in_vain(&self, hook: HookName) -> CallError {
        if self.members.values().any(|member| member.free.is_some()) {
            let workers = self.settings.max_workers;
            let why = format!(
                "the call waited for its turn until its deadline; at most {workers} workers run \
                 at once (--max-workers)"
            );
            return CallError::Busy { hook, why };
        }
        let why = match &self.last_fault {
            Some(fault) => format!("no worker is running; {fault}"),
            None => "its worker was still starting at the call's deadline".to_owned(),
        };
        CallError::Unavailable { hook, why }
    }

    /// Gives waiting calls to free workers, oldest call and oldest worker first.
    fn dispatch(&mut self) {
        while let Some(job) = self.queue.pop_front() {
            if job.reply.is_closed() {
                continue;
            }
            let free = self.members.values_mut().find(|member| member.free > Some(0));
            let Some(member) = free else {
                self.queue.push_front(job);
                return;
            };
            member.free = member.free.map(|free| free - 1);
            if let Err(unsent) = member.jobs.try_send(job) {
                // It has ended, and its report is on the way.
                member.free = Some(0);
                self.queue.push_front(unsent.into_inner());
            }
        }
    }

    /// Starts workers for calls that wait.
    fn grow(&mut self) {
        if !self.backoff.is_over() {
            return;
        }
        let starting = self.members.values().filter(|member| member.free.is_none()).count();
        let wanted = self.queue.len().max(usize::from(self.wanted));
        let room = self.settings.max_workers.saturating_sub(self.members.len());
        for _ in 0..wanted.saturating_sub(starting).min(room) {
            self.wanted = false;
            self.last_worker += 1;
            let id = self.last_worker;
            let (jobs, incoming) = mpsc::channel(MAX_CONCURRENCY);
            self.members.insert(id, Member { jobs, free: None });
            let (command, settings) = (self.command.clone(), self.settings.clone());
            self.tasks.spawn(worker::run(id, command, settings, incoming, self.reporter.clone()));
        }
    }

    /// The next time at which something is to be done without a message.
    fn next_wake(&self) -> Option<Instant> {
        let deadline = self.queue.iter().map(|job| job.deadline).min();
        deadline.into_iter().chain(self.backoff.until).min()
    }
}

/// The wait between two starts.
#[derive(Default)]
struct Backoff {
    wait: Option<Duration>,
    until: Option<Instant>,
}

impl Backoff {
    fn fail(&mut self) -> Duration {
        let wait = self.wait.map_or(FIRST_BACKOFF, |wait| (wait * 2).min(LONGEST_BACKOFF));
        self.wait = Some(wait);
        self.until = Some(Instant::now() + wait);
        wait
    }

    fn reset(&mut self) {
        *self = Self::default();
    }

    fn is_over(&mut self) -> bool {
        if self.until.is_some_and(|until| until <= Instant::now()) {
            self.until = None;
        }
        self.until.is_none()
    }
}
