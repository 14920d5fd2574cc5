//! A pool, its workers' tasks, and fake children.

mod failures;
mod retries;
mod shutdown;
mod simulation;
mod sizing;
mod unread;
mod waiting;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::super::config::Settings;
use super::super::fake::{
    FakeSpawner, FakeWorker, KILL_GRACE, Request, SECOND, Started, command, domain, domain_call,
    domain_call_with, failure, node_call, settings, settle, soon,
};
use super::super::process::KILL_LIMIT;
use super::super::worker::CLOSED_PIPE_TIMEOUT;
use super::{BACKSTOP, Pool};
use crate::admission::Load;
use crate::error::HookResult;
use crate::hook::HookCall;

/// The deadline of calls that should not reach it.
const LONG: Duration = Duration::from_secs(3600);

const MILLISECOND: Duration = Duration::from_millis(1);

/// A pool, and the children that it starts.
struct Bench {
    pool: Arc<Pool>,
    started: Started,
    pools_down: watch::Receiver<usize>,
    capabilities: Value,
}

type Call = JoinHandle<HookResult>;

impl Bench {
    /// Starts a pool. Returns its first worker as well, which has answered `initialize`.
    async fn start(settings: Settings) -> (Self, FakeWorker) {
        Self::start_with(settings, json!({})).await
    }

    async fn start_with(settings: Settings, capabilities: Value) -> (Self, FakeWorker) {
        let (spawner, mut started) = FakeSpawner::new();
        let (pools_down, receiver) = watch::channel(0);
        let (command, play) = (command(), async {
            let mut worker = started.next().await;
            worker.initialize(capabilities.clone()).await;
            worker
        });
        let (pool, worker) =
            tokio::join!(Pool::start(spawner, &command, &settings, &pools_down), play);
        let pool = Arc::new(pool.unwrap());
        (Self { pool, started, pools_down: receiver, capabilities }, worker)
    }

    /// Waits for the start of the next worker, which answers `initialize`.
    async fn next_worker(&mut self) -> FakeWorker {
        let mut worker = self.started.next().await;
        worker.initialize(self.capabilities.clone()).await;
        settle().await;
        worker
    }

    /// Asserts that no worker is started before something else happens.
    async fn starts_none(&mut self) {
        settle().await;
        assert!(self.started.try_next().is_none(), "another worker was started");
    }

    /// Starts a call, and returns when the pool has it.
    async fn call(&self) -> Call {
        self.call_with(domain_call(), LONG).await
    }

    async fn call_with(&self, call: HookCall, time: Duration) -> Call {
        let pool = self.pool.clone();
        let deadline = Instant::now() + time;
        let call = tokio::spawn(async move { pool.call(call, deadline, Arc::default()).await });
        settle().await;
        call
    }

    /// Makes a call, which this worker answers.
    async fn round_trip(&self, worker: &mut FakeWorker) {
        let call = self.call().await;
        answers(worker, call).await;
    }

    async fn stopped(&self) {
        self.pool.stop();
        soon(self.pool.stopped()).await;
    }

    fn is_down(&self) -> bool {
        *self.pools_down.borrow() == 1
    }
}

async fn result(call: Call) -> HookResult {
    soon(call).await.unwrap()
}

/// Reads a call, and answers it.
async fn answers(worker: &mut FakeWorker, call: Call) -> Request {
    let request = worker.request().await;
    worker.reply(request.id, "answered").await;
    assert_eq!(domain(result(call).await), "<domain>answered</domain>");
    settle().await;
    request
}
