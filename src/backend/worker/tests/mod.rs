//! A worker's task against a fake child.

mod deadlines;
mod exits;
mod floods;
mod memory;
mod pipes;
mod requests;
mod slots;
mod start;
mod stderr;
mod stop;
mod stray;
mod unread;

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

use super::super::config::Settings;
use super::super::fake::{
    DOMAIN, FakeSpawner, FakeWorker, Holder, KILL_GRACE, Logged, PIPE_BYTES, SECOND, command,
    domain, domain_call, domain_call_with, failure, node_call, settings, settle, soon,
};
use super::super::job::Job;
use super::super::process::{DRAIN_TIMEOUT, KILL_LIMIT};
use super::{
    CLOSED_PIPE_TIMEOUT, ExitCause, MAX_UNREAD_REPLIES, Report, WorkerExit, WorkerId, run,
};
use crate::error::HookResult;
use crate::frame::MAX_FRAME_BYTES;
use crate::hook::HookCall;
use crate::logging::call_span;

/// The deadline of calls that should not reach it.
const LONG: Duration = Duration::from_secs(3600);

/// The pool's side of a worker.
struct Bench {
    jobs: Option<mpsc::Sender<Job>>,
    reports: mpsc::Receiver<(WorkerId, Report)>,
    task: JoinHandle<WorkerExit>,
    /// Number of the last call. `initialize` is a worker's first request, so they agree.
    last_call: Cell<u64>,
}

type Reply = oneshot::Receiver<HookResult>;

impl Bench {
    /// Starts a worker that has not answered `initialize`.
    async fn start_with(settings: Settings) -> (Self, FakeWorker) {
        let (spawner, mut started) = FakeSpawner::new();
        let (jobs, incoming) = mpsc::channel(64);
        let (reporter, reports) = mpsc::channel(64);
        let worker = run(7, spawner, command(), Arc::new(settings), incoming, reporter);
        let task = tokio::spawn(worker);
        let bench = Self { jobs: Some(jobs), reports, task, last_call: Cell::new(1) };
        (bench, started.next().await)
    }

    /// Starts a worker that has answered `initialize`.
    async fn start(capabilities: serde_json::Value) -> (Self, FakeWorker) {
        let (mut bench, mut worker) = Self::start_with(settings()).await;
        worker.initialize(capabilities).await;
        assert!(matches!(bench.report().await, Report::Ready(_)));
        (bench, worker)
    }

    async fn report(&mut self) -> Report {
        loop {
            let (id, report) = soon(self.reports.recv()).await.expect("the worker is gone");
            assert_eq!(id, 7);
            if !matches!(report, Report::Spawned { .. }) {
                return report;
            }
        }
    }

    /// The next report, which must be that a slot is free.
    async fn finished(&mut self) {
        let report = self.report().await;
        assert!(matches!(report, Report::CallFinished), "{}", name(&report));
    }

    /// The next report, which must be that a call was not sent.
    async fn skipped(&mut self) {
        let report = self.report().await;
        assert!(matches!(report, Report::CallSkipped), "{}", name(&report));
    }

    /// The next report, which must be that the worker gets no more calls.
    async fn stopping(&mut self) {
        let report = self.report().await;
        assert!(matches!(report, Report::Stopping), "{}", name(&report));
    }

    /// The next report, which must be a call that is to be sent to another worker.
    async fn retried(&mut self) -> Job {
        match self.report().await {
            Report::Retry(job) => *job,
            other => panic!("{}", name(&other)),
        }
    }

    fn no_report(&mut self) -> bool {
        let reports = std::iter::from_fn(|| self.reports.try_recv().ok());
        reports.filter(|(_, report)| !matches!(report, Report::Spawned { .. })).count() == 0
    }

    fn call(&self, call: HookCall, time: Duration) -> Reply {
        let number = self.last_call.get() + 1;
        self.last_call.set(number);
        let (job, reply) =
            call_span(number).in_scope(|| Job::new(call, Instant::now() + time, Arc::default()));
        assert!(self.jobs.as_ref().unwrap().try_send(job).is_ok());
        reply
    }

    fn stop(&mut self) {
        self.jobs = None;
    }

    async fn exited(self) -> WorkerExit {
        soon(self.task).await.unwrap()
    }

    /// How the worker failed.
    async fn failed(self) -> String {
        match self.exited().await.cause {
            ExitCause::Failed(fault) => fault.to_string(),
            other => panic!("{other:?}"),
        }
    }
}

fn name(report: &Report) -> &'static str {
    match report {
        Report::Spawned { .. } => "Spawned",
        Report::Ready(_) => "Ready",
        Report::CallWritten => "CallWritten",
        Report::CallFinished => "CallFinished",
        Report::CallSkipped => "CallSkipped",
        Report::Retry(_) => "Retry",
        Report::Stopping => "Stopping",
    }
}

async fn result(reply: Reply) -> HookResult {
    soon(reply).await.expect("the call was lost")
}
