//! Checks of documents: that a hook takes small and large ones, and that its own result needs no
//! more changes.

use bytes::Bytes;

use super::documents::equivalent;
use super::intact::NOTHING_CHANGED;
use super::session::Session;
use super::verdict::{NotPassed, Verdict};
use super::worker::WorkerUnderTest;
use crate::rewrite::Receiver;
use sidecar_shim::hook::{HookKind, HookName, HookReply};
use sidecar_shim::rpc::Outcome;

pub(super) async fn minimal(session: &mut Session) -> Verdict {
    let hooks = session.hooks()?;
    let mut worker = session.worker().await?;
    for hook in &hooks {
        for call in session.documents.minimal_calls(hook)? {
            let (id, bytes) = worker.call_bytes(&call)?;
            worker.send(&bytes);
            // An error response is allowed.
            worker.outcome(id).await?;
        }
    }
    session.still_works(&mut worker).await?;
    session.release(worker).await
}

pub(super) async fn large(session: &mut Session) -> Verdict {
    session.require("utf-8")?;
    let hooks = session.hooks()?;
    let mut worker = session.worker().await?;
    let mut called = false;
    for hook in &hooks {
        let Some(call) = session.documents.large_call(hook)? else { continue };
        let outcome = worker.attempt(&call).await?;
        if let Outcome::Error(error) = &outcome {
            return Err(worker.warning(format!("{hook} responded with an error: {error}")));
        }
        worker.read(&call, &outcome)?;
        called = true;
    }
    // Its heap has grown: `memory` must not begin with it.
    worker.stop().await?;
    if called {
        Ok(None)
    } else {
        Err(NotPassed::skipped("node hooks get no document but the VMI"))
    }
}

/// Calls a domain hook with its own result as KubeVirt rewrites it.
async fn received_again(
    session: &Session,
    worker: &mut WorkerUnderTest,
    hook: &HookName,
    result: &Bytes,
) -> Result<(), NotPassed> {
    if hook.kind() != HookKind::Domain {
        return Ok(());
    }
    for (receiver, api) in [
        (
            Receiver::SameSidecar,
            "for hook sidecars (<commandline xmlns=\"…\"> as <qemu:commandline>",
        ),
        (Receiver::SamePlugin, "for Plugins (<qemu:commandline> as <commandline xmlns=\"…\">"),
    ] {
        let Some(sent) = receiver.rewrite_document(result) else { return Ok(()) };
        let call = session.documents.call_with(hook, sent.clone())?;
        let reply = worker.call(&call).await?.or(sent.clone());
        // What KubeVirt drops, such as a comment, counts as no change.
        let reply = receiver.rewrite_document(&reply);
        if !reply.is_some_and(|reply| equivalent(hook, &sent, &reply)) {
            return Err(worker.fault(format!(
                "{hook} changed its own result again after it had been rewritten as KubeVirt does \
                 {api}, no comments, of metadata only KubeVirt's own): find elements by their \
                 namespace, and look for what you change, not for marks"
            )));
        }
    }
    Ok(())
}

pub(super) async fn idempotent(session: &mut Session) -> Verdict {
    let hooks = session.hooks()?;
    let mut worker = session.worker().await?;
    let mut changed = false;
    for hook in &hooks {
        let HookReply::Changed(once) = worker.call(&session.call(hook)?).await? else { continue };
        changed = true;
        let once = once.into_bytes();
        let call = session.documents.call_with(hook, once.clone())?;
        let twice = worker.call(&call).await?.or(once.clone());
        if !equivalent(hook, &once, &twice) {
            return Err(worker.fault(format!("{hook} changed its own result again")));
        }
        received_again(session, &mut worker, hook, &once).await?;
    }
    session.release(worker).await?;
    if changed { Ok(None) } else { Err(NotPassed::skipped(NOTHING_CHANGED)) }
}
