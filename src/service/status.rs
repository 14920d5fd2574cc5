//! `sidecar_shim.status.v1.Status`, on every socket: what the shim is doing, and what has happened
//! since its start. Its answer names VMs, and has no text of a document and none of a hook.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::proto::status::{
    EndedCall, Exits, File, GetRequest, GetResponse, Hook, Memory, Pool, Refusal, RunningCall,
    StatusCount, Vm, Worker, WorkerCounts,
};
use super::record::CallRecord;
use super::router::Router;
use super::shim::Shim;
use crate::backend::{self, BackendState, Described, PoolHealth, PoolState, WorkerStatus};
use crate::error::CallError;
use crate::hook::Identity;
use crate::stats::{Histogram, HookStats, Past, Subject, Summary};
use crate::text::{clip, escape_line};

/// Maximum length of a command, a path or a fault.
const MAX_TEXT_BYTES: usize = 1024;

/// The name of all hooks together.
const ALL: &str = "all";

pub(super) fn add(router: Router, shim: &Arc<Shim>) -> Router {
    router.unary("/sidecar_shim.status.v1.Status/Get", 0, shim, get)
}

async fn get(
    shim: Arc<Shim>,
    request: GetRequest,
    _: Arc<CallRecord>,
) -> Result<GetResponse, CallError> {
    let files = if request.with_files { shim.backend.digests().await } else { Arc::default() };
    let state = shim.backend.state().await;
    let mut response = GetResponse {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id().cast_signed(),
        state: shim.state().to_owned(),
        resident_bytes: backend::resident_bytes(std::process::id().cast_signed())
            .unwrap_or_default(),
        memory: Some(Memory {
            used_bytes: shim.memory.held().get() as u64,
            budget_bytes: shim.memory.limit() as u64,
        }),
        files: files.iter().map(file).collect(),
        ..GetResponse::default()
    };
    add_backend(&mut response, state, shim.backend.commands());
    add_summary(&mut response, &shim.stats.summary());
    Ok(response)
}

fn file(digest: &backend::FileDigest) -> File {
    let path = harmless(&digest.path.to_string_lossy());
    match &digest.sha256 {
        Ok(sha256) => File { path, sha256: Some(sha256.clone()), error: None },
        Err(error) => File { path, sha256: None, error: Some(harmless(error)) },
    }
}

fn add_backend(response: &mut GetResponse, state: BackendState, commands: &[Described]) {
    match state {
        BackendState::Exec(exec) => {
            "exec".clone_into(&mut response.mode);
            response.calls_running = exec.running as u64;
            response.calls_waiting = exec.waiting.calls as u64;
            response.max_workers = exec.max_processes as u64;
        }
        BackendState::Pools(pools) => {
            "persistent".clone_into(&mut response.mode);
            let sum = |count: fn(&PoolState) -> usize| -> u64 {
                pools.iter().map(|pool| count(pool) as u64).sum()
            };
            response.calls_running = sum(|pool| pool.running);
            response.calls_waiting = sum(|pool| pool.waiting.calls);
            response.max_workers = sum(|pool| pool.max_workers);
            // Both are in the order of the start.
            response.pools =
                pools.iter().zip(commands).map(|(state, of)| pool(state, of)).collect();
        }
    }
}

fn pool(state: &PoolState, described: &Described) -> Pool {
    let [starting, ready, busy, stopping] = state.workers.map(|count| count as u64);
    let backend::Exits { stopped, idle, call, failed_idle, failed_start } = state.exits;
    Pool {
        command: harmless(&state.command),
        program: described.program.as_deref().map(harmless),
        sdk: described.sdk.as_deref().map(harmless),
        state: state.health.as_str().to_owned(),
        worker_counts: Some(WorkerCounts { starting, ready, busy, stopping }),
        workers: state.listed.iter().map(worker).collect(),
        max_workers: state.max_workers as u64,
        calls_running: state.running as u64,
        calls_waiting: state.waiting.calls as u64,
        waiting_bytes: state.waiting.bytes as u64,
        back_off_seconds: state.back_off.map(seconds),
        last_fault: state.last_fault.as_deref().map(harmless),
        starts: state.starts,
        exits: Some(Exits { stopped, idle, call, failed_idle, failed_start }),
    }
}

fn worker(worker: &WorkerStatus) -> Worker {
    Worker {
        pid: worker.pid,
        state: worker.state.as_str().to_owned(),
        age_seconds: seconds(worker.age),
        calls: worker.calls.into(),
        calls_running: worker.running as u64,
        busy_seconds: worker.busy_for.map(seconds),
        resident_bytes: worker.resident_bytes,
    }
}

fn add_summary(response: &mut GetResponse, summary: &Summary) {
    response.started = time(summary.started);
    response.uptime_seconds = seconds(summary.uptime);
    let mut all = HookStats { name: ALL.to_owned(), ..HookStats::default() };
    summary.hooks.iter().for_each(|hook| all.merge(hook));
    response.all = Some(hook(&all));
    response.hooks = summary.hooks.iter().map(hook).collect();
    let refusals = summary.refusals.iter().filter(|(_, count)| *count > 0);
    response.refusals = refusals
        .map(|(why, count)| Refusal { why: why.as_str().to_owned(), count: *count })
        .collect();
    response.running = summary.running.iter().map(|subject| running(subject)).collect();
    response.failures = summary.failures.iter().map(ended).collect();
    response.slowest = summary.slowest.iter().map(ended).collect();
}

fn hook(stats: &HookStats) -> Hook {
    let counts = stats.statuses.iter();
    let quantile = |of: &Histogram, thousandths| of.quantile(thousandths).map(milliseconds);
    let max = (stats.took.count() > 0).then(|| milliseconds(stats.took.max()));
    Hook {
        name: stats.name.clone(),
        statuses: counts
            .map(|(status, count)| StatusCount { status: (*status).to_owned(), count: *count })
            .collect(),
        calls: stats.took.count(),
        failed: stats.failed,
        retried: stats.retried,
        p50_ms: quantile(&stats.took, 500),
        p99_ms: quantile(&stats.took, 990),
        max_ms: max,
        queued_p50_ms: quantile(&stats.queued, 500),
        queued_p99_ms: quantile(&stats.queued, 990),
    }
}

fn running(subject: &Subject) -> RunningCall {
    let attempts = subject.progress.attempts();
    RunningCall {
        call: subject.call,
        hook: subject.hook.to_string(),
        vm: Some(vm(&subject.vm)),
        seconds: seconds(subject.started.elapsed()),
        pid: attempts.pid,
        attempt: (attempts.number > 0).then_some(attempts.number),
    }
}

fn ended(past: &Past) -> EndedCall {
    let subject = past.subject.as_deref();
    EndedCall {
        call: subject.map(|subject| subject.call),
        hook: subject.map(|subject| subject.hook.to_string()),
        vm: subject.map(|subject| vm(&subject.vm)),
        status: past.status.to_owned(),
        took_ms: milliseconds(past.took),
        time: time(past.time),
        ago_seconds: seconds(past.ago()),
        pid: past.attempts.pid,
        attempt: (past.attempts.number > 0).then_some(past.attempts.number),
    }
}

fn vm(identity: &Identity) -> Vm {
    // They were made harmless where they were read.
    let Identity { namespace, name, uid } = identity.clone();
    Vm { namespace, name, uid }
}

impl Shim {
    /// Returns the state of the whole shim in one word.
    pub(super) fn state(&self) -> &'static str {
        if self.stop.is_cancelled() {
            PoolHealth::Stopping.as_str()
        } else if *self.backend.pools_down().borrow() > 0 {
            PoolHealth::Failing.as_str()
        } else {
            PoolHealth::Serving.as_str()
        }
    }
}

fn harmless(text: &str) -> String {
    clip(&escape_line(text), MAX_TEXT_BYTES).to_owned()
}

fn time(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

fn seconds(time: Duration) -> f64 {
    microseconds(time) / 1_000_000.0
}

/// Returns a time in milliseconds, with microseconds as decimals.
fn milliseconds(time: Duration) -> f64 {
    microseconds(time) / 1000.0
}

fn microseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1_000_000.0).round()
}
