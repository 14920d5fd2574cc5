//! Checks of documents: that what a hook does not change comes through, whatever the size, and that it
//! may be applied to its own result.

use super::super::readable::Kind;
use super::bench::Bench;
use super::documents::{CLOUD_INIT_TEXTS, cloud_init_text, kind, say_the_same};
use super::marks::{self, DIFFICULT_TEXT};
use super::messages::still_works;
use super::peer::Peer;
use super::verdict::{Stop, Verdict};
use crate::hook::{HookName, HookReply};

/// What is said where hooks change nothing.
const NOTHING_CHANGED: &str = "the hooks change nothing in these documents; --vmi, --domain and --cloud-init give them others";

pub(super) async fn text_intact(bench: &mut Bench) -> Verdict {
    let hooks = bench.hooks()?;
    let mut peer = bench.peer().await?;
    let mut looked_at = false;
    for hook in &hooks {
        looked_at |= match kind(hook) {
            Some(Kind::Xml) => domain_intact(bench, &mut peer, hook).await?,
            Some(Kind::Json) => cloud_init_intact(bench, &mut peer, hook).await?,
            None => false,
        };
    }
    bench.put_back(peer).await?;
    if looked_at { Ok(None) } else { Err(Stop::skipped(NOTHING_CHANGED)) }
}

/// Whether there was anything to look at.
async fn domain_intact(bench: &Bench, peer: &mut Peer, hook: &HookName) -> Result<bool, Stop> {
    let call = bench.documents.marked(hook, DIFFICULT_TEXT)?;
    let HookReply::Changed(domain) = peer.call(&call).await? else { return Ok(false) };
    let seen = match marks::read(domain.as_str()) {
        Some((text, true)) if text == DIFFICULT_TEXT => return Ok(true),
        Some((text, true)) if same_but_for_white_space(&text) => {
            "lost white space in the text of an element that it had no reason to change"
        }
        Some((_, true)) => "changed the text of an element that it had no reason to change",
        Some((_, false)) => "changed an attribute that it had no reason to change",
        None => "lost an element in the domain's metadata that it had no reason to change",
    };
    Err(peer.fault(format!("{hook} {seen}")).into())
}

fn same_but_for_white_space(text: &str) -> bool {
    text.split_whitespace().eq(DIFFICULT_TEXT.split_whitespace())
}

/// The same for the texts that the hook leaves alone. Whether there are any, in an answer that changes
/// something.
async fn cloud_init_intact(bench: &Bench, peer: &mut Peer, hook: &HookName) -> Result<bool, Stop> {
    let sent = bench.documents.subject(hook).clone();
    let HookReply::Changed(plain) = peer.call(&bench.call(hook)?).await? else { return Ok(false) };
    let text = |data: &[u8], member| cloud_init_text(data, member).unwrap_or_default();
    let mut untouched = CLOUD_INIT_TEXTS.to_vec();
    untouched.retain(|member| text(&sent, member) == text(plain.bytes(), member));
    // As lines of comments, so that a hook that reads it finds nothing new.
    let more = format!("\n#{}\n", DIFFICULT_TEXT.replace('\n', "\n#"));
    let marked = bench.documents.cloud_init_with(&untouched, &more)?;
    let call = bench.documents.call_with(hook, marked.clone())?;
    let HookReply::Changed(answered) = peer.call(&call).await? else { return Ok(false) };
    for member in &untouched {
        if text(marked.as_bytes(), member) != text(answered.bytes(), member) {
            let seen = format!(
                "{hook} changed white space or letters in {member}, which it left alone before"
            );
            return Err(peer.fault(seen).into());
        }
    }
    Ok(!untouched.is_empty())
}

pub(super) async fn tiny(bench: &mut Bench) -> Verdict {
    let hooks = bench.hooks()?;
    let mut peer = bench.peer().await?;
    for hook in &hooks {
        for call in bench.documents.tiny(hook)? {
            let (id, bytes) = peer.call_bytes(&call)?;
            peer.send(&bytes);
            // It may refuse them.
            peer.outcome(id).await?;
        }
    }
    still_works(bench, &mut peer).await?;
    bench.put_back(peer).await?;
    Ok(None)
}

pub(super) async fn large(bench: &mut Bench) -> Verdict {
    let hooks = bench.hooks()?;
    let mut peer = bench.peer().await?;
    let mut called = false;
    for hook in &hooks {
        let Some(call) = bench.documents.large(hook)? else { continue };
        peer.call(&call).await?;
        called = true;
    }
    // It has a heap now that the check of its memory should not begin with.
    peer.dismiss().await?;
    if called { Ok(None) } else { Err(Stop::skipped("node hooks get no document but the VMI")) }
}

pub(super) async fn idempotent(bench: &mut Bench) -> Verdict {
    let hooks = bench.hooks()?;
    let mut peer = bench.peer().await?;
    let mut changed = false;
    for hook in &hooks {
        let HookReply::Changed(once) = peer.call(&bench.call(hook)?).await? else { continue };
        changed = true;
        let once = once.into_bytes();
        let call = bench.documents.call_with(hook, once.clone())?;
        let twice = peer.call(&call).await?.or(once.clone());
        if !say_the_same(hook, &once, &twice) {
            return Err(peer.fault(format!("{hook} changed its own result once more")).into());
        }
    }
    bench.put_back(peer).await?;
    if changed { Ok(None) } else { Err(Stop::skipped(NOTHING_CHANGED)) }
}
