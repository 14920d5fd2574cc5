//! A pool of workers that are started with the same command: which worker runs a call, which call
//! waits, when a worker is started and when it is stopped.
//!
//! # Theory of operation
//! One task, the [`Actor`], owns the queue and counts each worker's calls in flight. Handlers send
//! it jobs, workers send it reports, and it never waits for either, so it cannot be blocked. Who
//! wants to know what the pool is doing sends it a question. A
//! worker's slot is free after the worker's report, or after its process was reaped.
//!
//! The queue is one FIFO, limited in calls and in bytes; a call waits in it until its deadline at
//! most. The pool grows while calls wait. Calls go to the oldest worker that is free, so that
//! workers that the load does not need stay idle, and are stopped after `--idle-timeout`.
//!
//! ```text
//!  call ──▶ queue: pending ──oldest free worker──▶ in flight ──reply──▶ caller
//!             │    retries ──unused worker, alone─▶    │
//!             │      ▲                                 │ worker exited and has not read it
//!             │      ├─────── up to twice ─────────────┤
//!             │      │                                 │ worker died, or a retryable error:
//!             │      └─────── first attempt ───────────┤
//!             ▼ deadline, queue limit, circuit open    ▼ second attempt
//!           caller gets an error                     caller gets an error
//! ```
//!
//! A second attempt, and a call that its worker has not read, run alone on a worker that has had no
//! call before. If the pool is full, a worker is retired to make space.
//!
//! ```text
//!                 initialize              --idle-timeout, --max-requests, evicted, shutdown
//!  start_worker ─▶ Starting ─────▶ Ready ────────────────────────────────────▶ Stopping ─▶ reaped
//!     ▲               │              │ exits by itself
//!     │ back-off      ▼              ▼
//!     └─────────── failed          over a call: replaced at once
//! ```
//!
//! A worker has started once it has answered `initialize`, whatever it does next. So the shim
//! starts also if its first worker exits right behind that answer: whether the shim would see the
//! answer or the exit first is chance. With status 0 that is an idle exit, and the next call gets a
//! new worker. Any other exit is a failure. The log, and the calls that fail for it, then have the
//! last lines that the worker wrote to stderr.
//!
//! A worker that fails to start, or fails while it is idle, is replaced after a back-off that
//! doubles. While the last start failed, one worker is started at a time. After too many failed
//! starts the circuit breaker trips: calls that find no worker fail at once, while the pool goes on
//! starting workers slowly. See [`restart`].

mod actor;
mod members;
mod queue;
mod restart;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::actor::Actor;
use super::config::Settings;
use super::description::Described;
use super::job::Job;
use super::process::{CommandLine, Spawn};
use super::progress::Progress;
use super::state::{PoolHealth, PoolState};
use crate::error::{HookFailure, HookResult, StartError};
use crate::hook::{HookCall, HookName};

/// Capacity of the channels between tasks. The receivers wait for nothing but their next message,
/// so it can be small.
const CHANNEL_CAPACITY: usize = 32;

/// Time after its deadline at which the pool itself fails a call: half of the smallest margin that
/// the caller's own deadline leaves.
const BACKSTOP: Duration = Duration::from_millis(10);

/// Workers that were started with one command, and the channel to them.
pub(super) struct Pool {
    command: CommandLine,
    described: Described,
    jobs: mpsc::Sender<Job>,
    questions: mpsc::Sender<oneshot::Sender<PoolState>>,
    hooks: Vec<HookName>,
    stop: CancellationToken,
    actor: TaskTracker,
    /// What the queue holds.
    #[cfg(test)]
    waiting: crate::admission::Watched<crate::admission::Load>,
}

impl Pool {
    /// Starts the first worker, and returns once it has answered `initialize`. The pool counts in
    /// `pools_down` while its calls fail at once.
    pub(super) async fn start(
        spawner: impl Spawn,
        command: &CommandLine,
        settings: &Settings,
        pools_down: &watch::Sender<usize>,
    ) -> Result<Self, StartError> {
        let actor = Actor::start(spawner, command, settings, pools_down.clone()).await?;
        let hooks = actor.hooks().to_vec();
        let described = Described::new(command, actor.declared());
        let (jobs, incoming) = mpsc::channel(CHANNEL_CAPACITY);
        let (questions, asked) = mpsc::channel(CHANNEL_CAPACITY);
        #[cfg(test)]
        let waiting = actor.waiting();
        let (stop, tracker) = (CancellationToken::new(), TaskTracker::new());
        tracker.spawn(actor.run(incoming, asked, stop.clone()));
        tracker.close();
        Ok(Self {
            command: command.clone(),
            described,
            jobs,
            questions,
            hooks,
            stop,
            actor: tracker,
            #[cfg(test)]
            waiting,
        })
    }

    /// Returns the hooks that the first worker declared.
    pub(super) fn hooks(&self) -> &[HookName] {
        &self.hooks
    }

    pub(super) fn command(&self) -> &CommandLine {
        &self.command
    }

    pub(super) fn described(&self) -> &Described {
        &self.described
    }

    /// Runs a call on a worker, after the calls that arrived before it.
    pub(super) async fn call(
        &self,
        call: HookCall,
        deadline: Instant,
        progress: Arc<Progress>,
    ) -> HookResult {
        let (job, result) = Job::new(call, deadline, progress);
        let accepted = job.accepted();
        if self.jobs.send(job).await.is_err() {
            return Err(HookFailure::shutting_down());
        }
        tokio::select! {
            biased;
            result = result => result.unwrap_or(Err(HookFailure::Dropped)),
            () = backstop(deadline) => Err(HookFailure::Stalled {
                program: self.command.to_string(),
                after: deadline - accepted,
            }),
        }
    }

    /// Asks the pool what it is doing.
    pub(super) async fn state(&self) -> PoolState {
        let (reply, state) = oneshot::channel();
        // It has gone if every worker has been reaped.
        let gone = || PoolState {
            command: self.command.to_string(),
            health: PoolHealth::Stopping,
            ..PoolState::default()
        };
        match self.questions.send(reply).await {
            Ok(()) => state.await.unwrap_or_else(|_| gone()).with_memory(),
            Err(_) => gone(),
        }
    }

    /// Stops the pool. Calls that wait fail, calls in flight finish.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits until every worker has been reaped.
    pub(super) async fn stopped(&self) {
        self.actor.wait().await;
    }
}

/// Completes shortly after the deadline: by then the worker's task has answered, unless it is busy
/// stopping its worker.
async fn backstop(deadline: Instant) {
    sleep_until(deadline + BACKSTOP).await;
    // If the whole machine was stalled, both times have come at once: the better error first.
    for _ in 0..3 {
        yield_now().await;
    }
}
