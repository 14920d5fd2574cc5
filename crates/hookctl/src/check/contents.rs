//! Checks of documents: that a hook keeps what it does not change, at any size, and that its own
//! result needs no more changes.

use bytes::Bytes;

use super::documents::{CLOUD_INIT_TEXTS, cloud_init_text, equivalent};
use super::markers::{self, DIFFICULT_TEXT};
use super::session::Session;
use super::verdict::{NotPassed, Verdict};
use super::worker::WorkerUnderTest;
use crate::rewrite::Receiver;
use sidecar_shim::hook::{HookKind, HookName, HookReply};

pub(super) const NOTHING_CHANGED: &str = "the hooks change nothing in these documents (pass other documents \
                               with --vmi, --domain and --cloud-init)";

pub(super) async fn text_intact(session: &mut Session) -> Verdict {
    let hooks = session.hooks()?;
    let mut worker = session.worker().await?;
    let mut compared = false;
    for hook in &hooks {
        compared |= match hook.kind() {
            HookKind::Domain => domain_intact(session, &mut worker, hook).await?,
            HookKind::CloudInit => cloud_init_intact(session, &mut worker, hook).await?,
            HookKind::Node => false,
        };
    }
    session.release(worker).await?;
    if compared { Ok(None) } else { Err(NotPassed::skipped(NOTHING_CHANGED)) }
}

/// Returns whether there was a result to look at.
async fn domain_intact(
    session: &Session,
    worker: &mut WorkerUnderTest,
    hook: &HookName,
) -> Result<bool, NotPassed> {
    let call = session.documents.marked_call(hook, DIFFICULT_TEXT)?;
    let HookReply::Changed(domain) = worker.call(&call).await? else { return Ok(false) };
    let seen = match markers::read(domain.as_str()) {
        Some((text, true)) if text == DIFFICULT_TEXT => return Ok(true),
        Some((text, true)) if text.split_whitespace().eq(DIFFICULT_TEXT.split_whitespace()) => {
            "lost white space in the text of an element"
        }
        Some((_, true)) => "changed the text of an element",
        Some((_, false)) => "changed an attribute",
        None => "lost an element in the domain's metadata",
    };
    Err(worker.fault(format!("{hook} {seen} that it had no reason to change")))
}

/// Adds text to the fields that the hook does not change. Returns whether there are any in a
/// result.
async fn cloud_init_intact(
    session: &Session,
    worker: &mut WorkerUnderTest,
    hook: &HookName,
) -> Result<bool, NotPassed> {
    let sent = &session.documents.cloud_init;
    let HookReply::Changed(plain) = worker.call(&session.call(hook)?).await? else {
        return Ok(false);
    };
    let text = |data: &[u8], field| cloud_init_text(data, field).unwrap_or_default();
    let mut untouched = CLOUD_INIT_TEXTS.to_vec();
    untouched.retain(|field| text(sent, field) == text(plain.bytes(), field));
    // Lines of comments: they give a hook nothing new to change.
    let more = format!("\n#{}\n", DIFFICULT_TEXT.replace('\n', "\n#"));
    let marked = session.documents.cloud_init_with(&untouched, &more)?;
    let call = session.documents.call_with(hook, marked.clone())?;
    let HookReply::Changed(result) = worker.call(&call).await? else { return Ok(false) };
    for field in &untouched {
        if text(marked.as_bytes(), field) != text(result.bytes(), field) {
            let seen =
                format!("{hook} changed white space or letters in {field}, which it kept before");
            return Err(worker.fault(seen));
        }
    }
    Ok(!untouched.is_empty())
}

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
    let hooks = session.hooks()?;
    let mut worker = session.worker().await?;
    let mut called = false;
    for hook in &hooks {
        let Some(call) = session.documents.large_call(hook)? else { continue };
        worker.call(&call).await?;
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
