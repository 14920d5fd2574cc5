//! What a backend is doing at one moment: for people and for metrics, never for decisions.

use std::time::Duration;

use super::process;
use crate::admission::Load;

/// Maximum number of workers that are listed one by one. More fit neither on a screen nor into a
/// small message; all of them are counted.
pub(super) const MAX_LISTED_WORKERS: usize = 64;

/// What runs the hooks.
#[derive(Debug, Clone)]
pub enum BackendState {
    /// One process for each call.
    Exec(ExecState),
    Pools(Vec<PoolState>),
}

/// Exec mode.
#[derive(Debug, Clone, Default)]
pub struct ExecState {
    /// Number of processes that run, each for one call.
    pub running: usize,
    /// Maximum of that.
    pub max_processes: usize,
    /// Calls that wait for one.
    pub waiting: Load,
}

/// A pool of workers.
#[derive(Debug, Clone, Default)]
pub struct PoolState {
    pub command: String,
    pub health: PoolHealth,
    /// Number of workers in each of the [`WorkerState::ALL`].
    pub workers: [usize; 4],
    /// The workers, oldest first, up to `MAX_LISTED_WORKERS`.
    pub listed: Vec<WorkerStatus>,
    pub max_workers: usize,
    /// Calls that workers have.
    pub running: usize,
    /// Calls that wait for a worker.
    pub waiting: Load,
    /// The time until the next start, if the last one failed.
    pub back_off: Option<Duration>,
    /// How the last worker failed, until one starts.
    pub last_fault: Option<String>,
    /// Number of workers that were started.
    pub starts: u64,
    pub exits: Exits,
}

/// Whether a pool can serve.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PoolHealth {
    #[default]
    Serving,
    /// Workers fail; calls wait for the next one.
    Failing,
    /// The circuit breaker has tripped: calls fail at once.
    Down,
    /// It finishes its calls, and takes no more.
    Stopping,
}

impl PoolHealth {
    pub const ALL: [Self; 4] = [Self::Serving, Self::Failing, Self::Down, Self::Stopping];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Failing => "failing",
            Self::Down => "down",
            Self::Stopping => "stopping",
        }
    }
}

/// Numbers of workers that have exited, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Exits {
    /// The shim stopped it: it was idle, had its number of calls, or made space for a retry.
    pub stopped: u64,
    /// It exited with status 0 while it was idle.
    pub idle: u64,
    /// It exited, was killed or had to be stopped over a call.
    pub call: u64,
    /// It failed while it was idle.
    pub failed_idle: u64,
    /// It did not start.
    pub failed_start: u64,
}

impl Exits {
    /// Returns each number with its reason.
    #[must_use]
    pub fn by_reason(&self) -> [(&'static str, u64); 5] {
        let Self { stopped, idle, call, failed_idle, failed_start } = *self;
        [
            ("stopped", stopped),
            ("idle", idle),
            ("call", call),
            ("failed_idle", failed_idle),
            ("failed_start", failed_start),
        ]
    }
}

/// A worker.
#[derive(Debug, Clone)]
pub struct WorkerStatus {
    /// `None` until its process is started.
    pub pid: Option<i32>,
    pub state: WorkerState,
    /// The time since its start.
    pub age: Duration,
    /// Number of calls that it has been sent.
    pub calls: u32,
    /// Number of calls that it has now.
    pub running: usize,
    /// The time since when it has had a call without a pause.
    pub busy_for: Option<Duration>,
    /// Bytes of its process in RAM, if it exists.
    pub resident_bytes: Option<u64>,
}

/// What a worker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerState {
    /// It has not answered `initialize`.
    Starting,
    /// It has no call.
    Ready,
    Busy,
    /// It is being stopped, or exits.
    Stopping,
}

impl WorkerState {
    pub const ALL: [Self; 4] = [Self::Starting, Self::Ready, Self::Busy, Self::Stopping];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Busy => "busy",
            Self::Stopping => "stopping",
        }
    }
}

impl PoolState {
    /// Looks up the memory of the workers. This is not the pool's task, which is for calls.
    pub(super) fn with_memory(mut self) -> Self {
        for worker in &mut self.listed {
            worker.resident_bytes = worker.pid.and_then(process::resident_bytes);
        }
        self
    }
}
