//! What a backend is started with: where its hooks come from, and its limits.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::process::{self, CommandLine};
use crate::admission::{Load, Memory, Refused};
use crate::error::{HookFailure, StartError};
use crate::hook::{Checks, HookName};

/// The configuration of a [`Backend`](super::Backend).
#[derive(Debug, Clone)]
pub struct Config {
    pub source: HookSource,
    pub settings: Settings,
}

/// Where hooks come from, and whether they are argv-style programs or workers.
#[derive(Debug, Clone)]
pub enum HookSource {
    /// Argv-style programs in `$PATH` with the names of hooks.
    Exec(InPath),
    /// One argv-style program for one hook.
    ExecOne(HookName, CommandLine),
    /// Workers, all started with this command.
    Persistent(CommandLine),
    /// Workers in `$PATH` with the names of hooks.
    PersistentInPath(InPath),
}

/// The names under which programs are looked up in `$PATH`: all hooks of KubeVirt, and extra ones.
#[derive(Debug, Clone, Default)]
pub struct InPath {
    /// Hooks that the shim does not know. The user has named them, so their programs must exist.
    pub extra: Vec<HookName>,
}

impl InPath {
    pub(super) fn names(&self) -> BTreeSet<HookName> {
        HookName::WITH_DOCUMENT
            .into_iter()
            .chain(HookName::NODE_HOOKS)
            .chain(self.extra.iter().cloned())
            .collect()
    }

    /// Looks up the programs and returns those that exist.
    pub(super) fn find(&self) -> Result<BTreeMap<HookName, CommandLine>, StartError> {
        let mut programs = BTreeMap::new();
        for hook in self.names() {
            match process::find_in_path(hook.as_str().as_ref()) {
                Ok(_) => {
                    let words = [hook.as_str().into()];
                    programs.extend(CommandLine::from_words(words).map(|command| (hook, command)));
                }
                Err(fault) if self.extra.contains(&hook) => {
                    return Err(StartError::Usage(format!("--node-hooks names {hook}: {fault}")));
                }
                Err(process::NotFound::Absent) => {}
                Err(unusable) => tracing::warn!(%hook, "not served: {unusable}"),
            }
        }
        Ok(programs)
    }
}

/// Limits and timeouts of programs and workers.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Number of workers that are kept even if idle.
    pub min_workers: usize,
    /// Maximum number of processes at once.
    pub max_workers: usize,
    /// Time after which an idle worker beyond the minimum is stopped.
    pub idle_timeout: Duration,
    /// Calls, and bytes of their documents, that may wait for a process.
    pub queue: Load,
    /// Number of calls after which a worker is replaced.
    pub max_requests: Option<u32>,
    /// Maximum number of bytes of memory for the data of one process.
    pub worker_memory: Option<u64>,
    /// Checks of the documents that hooks return.
    pub checks: Checks,
    /// Timeout of a worker's reply to `initialize`.
    pub start_timeout: Duration,
    /// Time between SIGTERM and SIGKILL.
    pub kill_grace: Duration,
    /// The budget of bytes, from which replies are taken as well.
    pub memory: Memory,
}

/// Returns the failure of a call that the queue has no space for.
pub(super) fn queue_full(refused: Refused) -> HookFailure {
    HookFailure::Busy(match refused {
        Refused::Calls { limit } => format!("{limit} calls are waiting already (--queue-limit)"),
        Refused::Bytes { sum, limit } => format!(
            "with this call, documents of {sum} bytes would be waiting, and {limit} may \
             (--queue-bytes)"
        ),
    })
}
