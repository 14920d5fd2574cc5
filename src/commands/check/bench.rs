//! What the checks share: the worker's command, the documents, a process that is ready for the next
//! check, and what is known of the worker so far.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;

use super::catalog::Check;
use super::documents::Documents;
use super::notes::Notes;
use super::peer::{Limits, Peer};
use super::progress::Progress;
use super::verdict::Stop;
use crate::backend::CommandLine;
use crate::hook::{HookCall, HookName};
use crate::rpc::Declared;

/// Where checks are made.
pub(super) struct Bench {
    command: CommandLine,
    limits: Limits,
    pub(super) documents: Documents,
    pub(super) notes: Rc<RefCell<Notes>>,
    pub(super) progress: Progress,
    /// What the first process declared.
    pub(super) declared: Option<Declared>,
    /// The hooks that have answered.
    pub(super) hooks: Vec<HookName>,
    /// A process that the last check has left in good order.
    idle: Option<Peer>,
    failed: Vec<&'static str>,
}

impl Bench {
    pub(super) fn new(
        command: CommandLine,
        limits: Limits,
        documents: Documents,
        progress: Progress,
    ) -> Self {
        Self {
            command,
            limits,
            documents,
            notes: Rc::default(),
            progress,
            declared: None,
            hooks: Vec::new(),
            idle: None,
            failed: Vec::new(),
        }
    }

    pub(super) fn limits(&self) -> Limits {
        self.limits
    }

    /// Starts a process, and says nothing to it.
    pub(super) fn start(&self) -> Result<Peer, Stop> {
        Peer::start(&self.command, true, self.limits, self.notes.clone())
    }

    /// Starts a process without the protocol's variable.
    pub(super) fn start_by_hand(&self) -> Result<Peer, Stop> {
        Peer::start(&self.command, false, self.limits, self.notes.clone())
    }

    /// A process that takes calls and has none: the last check's, or a new one.
    pub(super) async fn peer(&mut self) -> Result<Peer, Stop> {
        self.declared()?;
        match self.idle.take() {
            Some(peer) => Ok(peer),
            None => self.new_peer().await,
        }
    }

    /// A new process that takes calls.
    pub(super) async fn new_peer(&mut self) -> Result<Peer, Stop> {
        self.declared()?;
        let mut peer = self.start()?;
        peer.initialize().await?;
        Ok(peer)
    }

    /// Leaves a process in good order to the next check.
    pub(super) async fn put_back(&mut self, peer: Peer) -> Result<(), Stop> {
        if let Some(other) = self.idle.replace(peer) {
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
    pub(super) async fn result(&self, peer: &mut Peer, hook: &HookName) -> Result<Bytes, Stop> {
        let reply = peer.call(&self.call(hook)?).await?;
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

    pub(super) fn note_failure(&mut self, check: &Check) {
        self.failed.push(check.name);
    }
}
