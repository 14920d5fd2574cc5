//! Checks of documents: that what a hook does not change comes through, whatever the size, and that it
//! may be applied to its own result.

use super::documents::{CLOUD_INIT_TEXTS, cloud_init_text, equivalent, kind};
use super::markers::{self, DIFFICULT_TEXT};
use super::session::Session;
use super::verdict::{Stop, Verdict};
use super::worker::WorkerUnderTest;
use crate::normalize::Kind;
use sidecar_shim::hook::{HookName, HookReply};

/// What is said where hooks change nothing.
const NOTHING_CHANGED: &str = "the hooks change nothing in these documents; --vmi, --domain and --cloud-init give them others";

pub(super) async fn text_intact(session: &mut Session) -> Verdict {
    let hooks = session.hooks()?;
    let mut worker = session.worker().await?;
    let mut looked_at = false;
    for hook in &hooks {
        looked_at |= match kind(hook) {
            Some(Kind::Xml) => domain_intact(session, &mut worker, hook).await?,
            Some(Kind::Json) => cloud_init_intact(session, &mut worker, hook).await?,
            None => false,
        };
    }
    session.put_back(worker).await?;
    if looked_at { Ok(None) } else { Err(Stop::skipped(NOTHING_CHANGED)) }
}

/// Whether there was anything to look at.
async fn domain_intact(
    session: &Session,
    worker: &mut WorkerUnderTest,
    hook: &HookName,
) -> Result<bool, Stop> {
    let call = session.documents.marked(hook, DIFFICULT_TEXT)?;
    let HookReply::Changed(domain) = worker.call(&call).await? else { return Ok(false) };
    let seen = match markers::read(domain.as_str()) {
        Some((text, true)) if text == DIFFICULT_TEXT => return Ok(true),
        Some((text, true)) if same_but_for_white_space(&text) => {
            "lost white space in the text of an element that it had no reason to change"
        }
        Some((_, true)) => "changed the text of an element that it had no reason to change",
        Some((_, false)) => "changed an attribute that it had no reason to change",
        None => "lost an element in the domain's metadata that it had no reason to change",
    };
    Err(worker.fault(format!("{hook} {seen}")).into())
}

fn same_but_for_white_space(text: &str) -> bool {
    text.split_whitespace().eq(DIFFICULT_TEXT.split_whitespace())
}

/// The same for the texts that the hook leaves alone. Whether there are any, in an answer that changes
/// something.
async fn cloud_init_intact(
    session: &Session,
    worker: &mut WorkerUnderTest,
    hook: &HookName,
) -> Result<bool, Stop> {
    let sent = session.documents.subject(hook).clone();
    let HookReply::Changed(plain) = worker.call(&session.call(hook)?).await? else {
        return Ok(false);
    };
    let text = |data: &[u8], member| cloud_init_text(data, member).unwrap_or_default();
    let mut untouched = CLOUD_INIT_TEXTS.to_vec();
    untouched.retain(|member| text(&sent, member) == text(plain.bytes(), member));
    // As lines of comments, so that a hook that reads it finds nothing new.
    let more = format!("\n#{}\n", DIFFICULT_TEXT.replace('\n', "\n#"));
    let marked = session.documents.cloud_init_with(&untouched, &more)?;
    let call = session.documents.call_with(hook, marked.clone())?;
    let HookReply::Changed(answered) = worker.call(&call).await? else { return Ok(false) };
    for member in &untouched {
        if text(marked.as_bytes(), member) != text(answered.bytes(), member) {
            let seen = format!(
                "{hook} changed white space or letters in {member}, which it left alone before"
            );
            return Err(worker.fault(seen).into());
        }
    }
    Ok(!untouched.is_empty())
}

pub(super) async fn minimal(session: &mut Session) -> Verdict {
    let hooks = session.hooks()?;
    let mut worker = session.worker().await?;
    for hook in &hooks {
        for call in session.documents.minimal(hook)? {
            let (id, bytes) = worker.call_bytes(&call)?;
            worker.send(&bytes);
            // It may refuse them.
            worker.outcome(id).await?;
        }
    }
    session.still_works(&mut worker).await?;
    session.put_back(worker).await?;
    Ok(None)
}

pub(super) async fn large(session: &mut Session) -> Verdict {
    let hooks = session.hooks()?;
    let mut worker = session.worker().await?;
    let mut called = false;
    for hook in &hooks {
        let Some(call) = session.documents.large(hook)? else { continue };
        worker.call(&call).await?;
        called = true;
    }
    // It has a heap now that the check of its memory should not begin with.
    worker.dismiss().await?;
    if called { Ok(None) } else { Err(Stop::skipped("node hooks get no document but the VMI")) }
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
            return Err(worker.fault(format!("{hook} changed its own result once more")).into());
        }
    }
    session.put_back(worker).await?;
    if changed { Ok(None) } else { Err(Stop::skipped(NOTHING_CHANGED)) }
}
