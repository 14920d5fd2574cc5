//! Exec mode: one process for each call, with the documents as arguments, as the Go shim does.
//!
//! # Theory of operation
//! A call waits for a free slot until its deadline, then a separate task runs the process. So a
//! call whose caller has left takes the same path as one that passes its deadline: the process
//! group gets SIGTERM, the kill grace, SIGKILL, and is reaped before the slot is free again.

mod run;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, timeout_at};
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use self::run::Run;
use super::config::{Settings, queue_full};
use super::process::{self, CommandLine, Spawn};
use super::progress::Progress;
use super::state::ExecState;
use crate::admission::Budget;
use crate::error::{HookFailure, HookResult};
use crate::hook::{HookCall, HookName};

/// Runs argv-style programs, at most `max_workers` at once.
pub(super) struct Exec<S> {
    spawner: S,
    programs: BTreeMap<HookName, CommandLine>,
    /// The hooks whose programs were looked up at start.
    names: BTreeSet<HookName>,
    settings: Settings,
    slots: Arc<Semaphore>,
    waiting: Budget,
    running: TaskTracker,
}

impl<S: Spawn> Exec<S> {
    /// `names` are the hooks that were looked up at start, `programs` those that were found.
    #[must_use]
    pub(super) fn new(
        spawner: S,
        names: BTreeSet<HookName>,
        programs: BTreeMap<HookName, CommandLine>,
        settings: Settings,
    ) -> Self {
        let slots = Arc::new(Semaphore::new(settings.max_workers));
        let (waiting, running) = (Budget::new(settings.queue), TaskTracker::new());
        Self { spawner, programs, names, settings, slots, waiting, running }
    }

    /// Returns the hooks that have a program.
    pub(super) fn hooks(&self) -> impl Iterator<Item = &HookName> {
        self.programs.keys()
    }

    pub(super) fn commands(&self) -> impl Iterator<Item = &CommandLine> {
        self.programs.values()
    }

    /// Runs the hook's program once.
    pub(super) async fn call(
        &self,
        call: HookCall,
        deadline: Instant,
        progress: Arc<Progress>,
    ) -> HookResult {
        let Some(command) = self.programs.get(call.hook()).cloned() else {
            return Err(HookFailure::NotServed(self.why_not_served(call.hook())));
        };
        let started = Instant::now();
        let slot = self.slot(call.bytes(), deadline).await?;
        let (reply, result) = oneshot::channel();
        let settings = self.settings.clone();
        let run = Run { command, call, started, deadline, settings, progress };
        let spawner = self.spawner.clone();
        let watch = async move {
            run.watch(&spawner, reply).await;
            drop(slot);
        };
        self.running.spawn(watch.in_current_span());
        result.await.unwrap_or(Err(HookFailure::Cancelled))
    }

    /// Explains why a hook has no program. `$PATH` contains more than hooks, and which is not
    /// revealed: names that were not looked up at start get a generic answer.
    fn why_not_served(&self, hook: &HookName) -> String {
        if !self.names.contains(hook) {
            return "exec mode runs the node hooks that it knows and those that --node-hooks names"
                .to_owned();
        }
        match process::find_in_path(hook.as_str().as_ref()) {
            Err(not_found) => not_found.to_string(),
            Ok(path) => format!("{} was not there at start", path.display()),
        }
    }

    /// Waits until another process may run.
    async fn slot(
        &self,
        bytes: usize,
        deadline: Instant,
    ) -> Result<OwnedSemaphorePermit, HookFailure> {
        if let Ok(slot) = self.slots.clone().try_acquire_owned() {
            return Ok(slot);
        }
        let _place = self.waiting.admit(bytes, 0).map_err(queue_full)?;
        match timeout_at(deadline, self.slots.clone().acquire_owned()).await {
            Ok(Ok(slot)) => Ok(slot),
            Ok(Err(_)) => Err(HookFailure::shutting_down()),
            Err(_) => Err(HookFailure::Busy(format!(
                "the call waited for its turn until its deadline; {} processes run at once \
                 (--max-workers)",
                self.settings.max_workers
            ))),
        }
    }

    /// Returns what runs and what waits.
    pub(super) fn state(&self) -> ExecState {
        let max_processes = self.settings.max_workers;
        let running = max_processes.saturating_sub(self.slots.available_permits());
        ExecState { running, max_processes, waiting: self.waiting.held().get() }
    }

    /// Fails the calls that wait, and returns when the last process was reaped. None lives longer
    /// than its call's deadline and the kill grace.
    pub(super) async fn drain(&self) {
        self.slots.close();
        self.running.close();
        self.running.wait().await;
    }
}
