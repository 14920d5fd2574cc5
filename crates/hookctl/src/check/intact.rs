//! The check that a hook keeps what it does not change.

use super::documents::{CLOUD_INIT_TEXTS, cloud_init_text};
use super::markers::{self, DIFFICULT_TEXT};
use super::session::Session;
use super::surroundings;
use super::verdict::{NotPassed, Verdict};
use super::worker::WorkerUnderTest;
use sidecar_shim::hook::{HookKind, HookName, HookReply};
use sidecar_shim::rpc::Outcome;

pub(super) const NOTHING_CHANGED: &str = "the hooks change nothing in these documents (pass other documents \
                               with --vmi, --domain and --cloud-init)";

pub(super) async fn text_intact(session: &mut Session) -> Verdict {
    session.require("utf-8")?;
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

/// Puts a marker into the domain's metadata, which the hook has no reason to touch, then beside
/// what it changes. Returns whether there was a result to look at.
async fn domain_intact(
    session: &Session,
    worker: &mut WorkerUnderTest,
    hook: &HookName,
) -> Result<bool, NotPassed> {
    let call = session.documents.marked_call(hook, DIFFICULT_TEXT)?;
    let HookReply::Changed(domain) = worker.call(&call).await? else { return Ok(false) };
    if let Some(seen) = damage(domain.as_str()) {
        return Err(worker.warning(format!("{hook} {seen} that it had no reason to change")));
    }
    let sent = String::from_utf8_lossy(&session.documents.domain);
    let plain = session.result(worker, hook).await?;
    for at in surroundings::of_changes(&sent, &String::from_utf8_lossy(&plain)) {
        let Some(marked) = markers::insert_at(&sent, at, DIFFICULT_TEXT) else { continue };
        let call = session.documents.call_with(hook, marked)?;
        let outcome = worker.attempt(&call).await?;
        // A hook may refuse an element that it does not know.
        let Outcome::Result(_) = outcome else { continue };
        let HookReply::Changed(domain) = worker.read(&call, &outcome)? else { continue };
        if let Some(seen) = damage(domain.as_str()) {
            let place = "beside what it changes";
            return Err(worker.warning(format!("{hook} {seen} {place}")));
        }
    }
    Ok(true)
}

/// Returns what became of a marker, if it is not intact.
fn damage(domain: &str) -> Option<&'static str> {
    match markers::read(domain) {
        Some((text, true)) if text == DIFFICULT_TEXT => None,
        Some((text, true)) if text.split_whitespace().eq(DIFFICULT_TEXT.split_whitespace()) => {
            Some("lost white space in the text of an element")
        }
        Some((_, true)) => Some("changed the text of an element"),
        Some((_, false)) => Some("changed an attribute"),
        None => Some("lost an element"),
    }
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
    // A text that the hook keeps whole when it adds to it.
    let contains = |whole: &str, part: &str| whole.contains(part) && !part.is_empty();
    let kept_whole = |field| contains(&text(plain.bytes(), field), &text(sent, field));
    let mut compared = untouched.clone();
    compared.extend(
        CLOUD_INIT_TEXTS.into_iter().filter(|it| !untouched.contains(it) && kept_whole(it)),
    );
    // Lines of comments: they give a hook nothing new to change.
    let more = format!("\n#{}\n", DIFFICULT_TEXT.replace('\n', "\n#"));
    let marked = session.documents.cloud_init_with(&compared, &more)?;
    let call = session.documents.call_with(hook, marked.clone())?;
    let HookReply::Changed(result) = worker.call(&call).await? else { return Ok(false) };
    for field in &compared {
        let [before, after] = [marked.as_bytes(), result.bytes()].map(|data| text(data, field));
        let (is_intact, clause) = if untouched.contains(field) {
            (before == after, "which it kept before")
        } else {
            (!lost_white_space(before.trim_end(), &after), "to which it adds")
        };
        if !is_intact {
            let seen = format!("{hook} changed white space or letters in {field}, {clause}");
            return Err(worker.warning(seen));
        }
    }
    Ok(!compared.is_empty())
}

/// Whether a text contains another one, but not its white space. If it does not contain it at all,
/// it may be encoded: that of an e-mail's part is.
fn lost_white_space(part: &str, whole: &str) -> bool {
    let [words, all]: [Vec<_>; 2] = [part, whole].map(|text| text.split_whitespace().collect());
    let has_words = all.windows(words.len().max(1)).any(|window| window == words);
    has_words && !whole.contains(part)
}
