//! What the checks share: the worker's command, the documents, a process that is ready for the next
//! check, and what is known of the worker so far.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;

use super::documents::Documents;
use super::observations::Observations;
use super::progress::Progress;
use super::verdict::Stop;
use super::worker::{Timeouts, WorkerUnderTest};
use sidecar_shim::backend::CommandLine;
use sidecar_shim::hook::{HookCall, HookName};
use sidecar_shim::rpc::Declared;

/// Where checks are made.
pub(super) struct Session {
    command: CommandLine,
    timeouts: Timeouts,
    pub(super) documents: Documents,
    pub(super) observations: Rc<RefCell<Observations>>,
    pub(super) progress: Progress,
    /// What the first process declared.
    pub(super) declared: Option<Declared>,
    /// The hooks that have answered.
    pub(super) hooks: Vec<HookName>,
    /// A process that the last check has left in good order.
    idle: Option<WorkerUnderTest>,
    failed: Vec<&'static str>,
}

impl Session {
    pub(super) fn new(
        command: CommandLine,
        timeouts: Timeouts,
        documents: Documents,
        progress: Progress,
    ) -> Self {
        Self {
            command,
            timeouts,
            documents,
            observations: Rc::default(),
            progress,
            declared: None,
            hooks: Vec::new(),
            idle: None,
            failed: Vec::new(),
        }
    }

    pub(super) fn timeouts(&self) -> Timeouts {
        self.timeouts
    }

    /// Starts a process, and says nothing to it.
    pub(super) fn start(&self) -> Result<WorkerUnderTest, Stop> {
        WorkerUnderTest::start(&self.command, true, self.timeouts, self.observations.clone())
    }

    /// Starts a process without the protocol's variable.
    pub(super) fn start_by_hand(&self) -> Result<WorkerUnderTest, Stop> {
        WorkerUnderTest::start(&self.command, false, self.timeouts, self.observations.clone())
    }

    /// A process that takes calls and has none: the last check's, or a new one.
    pub(super) async fn worker(&mut self) -> Result<WorkerUnderTest, Stop> {
        self.declared()?;
        match self.idle.take() {
            Some(worker) => Ok(worker),
            None => self.new_worker().await,
        }
    }

    /// A new process that takes calls.
    pub(super) async fn new_worker(&mut self) -> Result<WorkerUnderTest, Stop> {
        self.declared()?;
        let mut worker = self.start()?;
        worker.initialize().await?;
        Ok(worker)
    }

    /// Leaves a process in good order to the next check.
    pub(super) async fn put_back(&mut self, worker: WorkerUnderTest) -> Result<(), Stop> {
        if let Some(other) = self.idle.replace(worker) {
            other.dismiss().await?;
        }
        Ok(())
    }

    /// What the worker has declared, without which nothing else makes sense.
    pub(super) fn declared(&self) -> Result<Declared, Stop> {
        self.declared.clone().ok_or_else(|| Stop::skipped("`handshake` failed"))
    }

    /// The hooks that have answered, one at least.
    pub(super) fn hooks(&self) -> Result<Vec<HookName>, Stop> {
        self.declared()?;
        if self.hooks.is_empty() {
            return Err(Stop::skipped("`call` failed"));
        }
        Ok(self.hooks.clone())
    }

    /// A call of a hook with the documents as they are.
    pub(super) fn call(&self, hook: &HookName) -> Result<HookCall, Stop> {
        self.documents.call(hook).map_err(Stop::skipped)
    }

    /// The document that holds after a call of a hook with the documents as they are.
    pub(super) async fn result(
        &self,
        worker: &mut WorkerUnderTest,
        hook: &HookName,
    ) -> Result<Bytes, Stop> {
        let reply = worker.call(&self.call(hook)?).await?;
        Ok(reply.or(self.documents.subject(hook).clone()))
    }

    /// A call of the first hook that has answered, with the documents as they are.
    pub(super) fn plain_call(&self) -> Result<HookCall, Stop> {
        let hooks = self.hooks()?;
        self.call(&hooks[0])
    }

    /// Whether another check has passed without which this one says nothing.
    pub(super) fn needs(&self, check: &'static str) -> Result<(), Stop> {
        if self.failed.contains(&check) {
            return Err(Stop::skipped(format!("`{check}` failed")));
        }
        Ok(())
    }

    pub(super) fn note_failure(&mut self, check: &'static str) {
        self.failed.push(check);
    }

    /// Whether the worker still answers a call.
    pub(super) async fn still_works(&self, worker: &mut WorkerUnderTest) -> Result<(), Stop> {
        match self.plain_call() {
            Ok(call) => worker.call(&call).await.map(|_| ()),
            // Another check reports that no hook answers.
            Err(_) => Ok(()),
        }
    }
}
