//! What the checks share: the worker's command, the documents, an idle worker for the next check,
//! and what is known of the worker so far.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;

use super::observations::Observations;
use super::progress::Progress;
use super::silence;
use super::verdict::{NotPassed, Verdict};
use super::worker::{Timeouts, WorkerUnderTest};
use crate::inputs::Documents;
use sidecar_shim::backend::CommandLine;
use sidecar_shim::hook::{HookCall, HookName};
use sidecar_shim::rpc::Declared;

/// The state of one run of all checks.
pub(super) struct Session {
    command: CommandLine,
    pub(super) timeouts: Timeouts,
    pub(super) documents: Documents,
    pub(super) observations: Rc<RefCell<Observations>>,
    pub(super) progress: Progress,
    /// What the first process declared.
    pub(super) declared: Option<Declared>,
    /// The hooks that have replied to a call.
    pub(super) hooks: Vec<HookName>,
    /// A worker without calls, which the next check may use.
    idle: Option<WorkerUnderTest>,
    /// Names of the checks that failed.
    pub(super) failed: Vec<&'static str>,
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

    /// Starts a process, and sends it nothing; without `protocol`, as a shell would start it.
    pub(super) fn start(&self, protocol: bool) -> Result<WorkerUnderTest, NotPassed> {
        WorkerUnderTest::start(&self.command, protocol, self.timeouts, self.observations.clone())
    }

    /// Returns what a worker that does not respond to the shim should do.
    pub(super) async fn dialect(&self, limit: Duration, silent: bool) -> Option<&'static str> {
        silence::dialect(&self.command, limit, silent).await
    }

    /// Returns a worker without calls: the last check's, or a new one.
    pub(super) async fn worker(&mut self) -> Result<WorkerUnderTest, NotPassed> {
        self.declared()?;
        match self.idle.take() {
            Some(worker) => Ok(worker),
            None => self.new_worker().await,
        }
    }

    /// Starts and initializes a worker.
    pub(super) async fn new_worker(&mut self) -> Result<WorkerUnderTest, NotPassed> {
        self.declared()?;
        let mut worker = self.start(true)?;
        worker.initialize().await?;
        Ok(worker)
    }

    /// Leaves a worker without calls to the next check.
    pub(super) async fn release(&mut self, worker: WorkerUnderTest) -> Verdict {
        match self.idle.replace(worker) {
            Some(other) => other.stop().await,
            None => Ok(None),
        }
    }

    /// Returns what the worker declared. Without it no other check makes sense.
    pub(super) fn declared(&self) -> Result<Declared, NotPassed> {
        self.declared.clone().ok_or(NotPassed::Needs("handshake"))
    }

    /// Returns the hooks that have replied to a call, at least one.
    pub(super) fn hooks(&self) -> Result<Vec<HookName>, NotPassed> {
        self.declared()?;
        if self.hooks.is_empty() {
            return Err(NotPassed::Needs("call"));
        }
        Ok(self.hooks.clone())
    }

    /// Returns a call of a hook with the documents as they are.
    pub(super) fn call(&self, hook: &HookName) -> Result<HookCall, NotPassed> {
        self.documents.call(hook).map_err(NotPassed::skipped)
    }

    /// Calls a hook with the documents as they are, and returns the document that results.
    pub(super) async fn result(
        &self,
        worker: &mut WorkerUnderTest,
        hook: &HookName,
    ) -> Result<Bytes, NotPassed> {
        let reply = worker.call(&self.call(hook)?).await?;
        Ok(reply.or(self.documents.subject(hook.kind())))
    }

    /// Returns a call of the first hook that has replied, with the documents as they are.
    pub(super) fn plain_call(&self) -> Result<HookCall, NotPassed> {
        self.call(&self.hooks()?[0])
    }

    /// Skips a check that says nothing if another one failed.
    pub(super) fn require(&self, check: &'static str) -> Result<(), NotPassed> {
        if self.failed.contains(&check) {
            return Err(NotPassed::Needs(check));
        }
        Ok(())
    }

    /// Checks that the worker still replies to a call, if any hook does: the check `call` reports
    /// that.
    pub(super) async fn still_works(&self, worker: &mut WorkerUnderTest) -> Result<(), NotPassed> {
        if let Ok(call) = self.plain_call() {
            worker.call(&call).await?;
        }
        Ok(())
    }
}
