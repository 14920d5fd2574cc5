//! Checks of messages: calls and their responses, ids, and what a worker does not know.

use serde_json::json;

use super::conformance;
use super::documents::equivalent;
use super::observations::Occurrences;
use super::session::Session;
use super::verdict::{NotPassed, Verdict};
use super::worker::QUIET_TIME;
use sidecar_shim::rpc::{METHOD_NOT_FOUND, Outcome};

/// The highest id of the protocol.
const HIGHEST_ID: u64 = (1 << 53) - 1;

pub(super) async fn call(session: &mut Session) -> Verdict {
    let mut first_failure = None;
    for hook in session.declared()?.hooks {
        let mut worker = session.worker().await?;
        worker.note_readers().await?;
        let call = session.call(&hook)?;
        match worker.call(&call).await {
            Ok(_) => {
                session.hooks.push(hook);
                session.release(worker).await?;
            }
            Err(failure) => first_failure = first_failure.or(Some(failure)),
        }
    }
    first_failure.map_or(Ok(None), Err)
}

pub(super) async fn unknown_fields(session: &mut Session) -> Verdict {
    let mut worker = session.worker().await?;
    for hook in session.hooks()? {
        let call = session.call(&hook)?;
        let (id, bytes) = worker.rewritten_call_bytes(&call, conformance::with_unknown_fields)?;
        worker.send(&bytes);
        worker.reply(&call, id).await?;
    }
    session.release(worker).await
}

pub(super) async fn unknown_method(session: &mut Session) -> Verdict {
    session.hooks()?;
    let mut worker = session.worker().await?;
    let id = worker.request("an unknown method", |send_buffer, id| {
        conformance::send_unknown_request(send_buffer, id, None);
    });
    let seen = match worker.outcome(id).await? {
        Outcome::Error(error) if error.code == METHOD_NOT_FOUND => {
            return session.release(worker).await;
        }
        Outcome::Error(error) => format!("error {}", error.code),
        Outcome::Result(_) => "a result".to_owned(),
    };
    Err(worker.fault(format!("it responded to an unknown method with {seen}")))
}

pub(super) async fn unknown_notification(session: &mut Session) -> Verdict {
    let mut worker = session.worker().await?;
    worker.notify(conformance::send_unknown_notifications);
    worker.read_for(QUIET_TIME, 0).await?;
    session.still_works(&mut worker).await?;
    session.release(worker).await
}

pub(super) async fn ids(session: &mut Session) -> Verdict {
    let call = session.plain_call()?;
    let mut worker = session.new_worker().await?;
    for id in [(1 << 31) + 1, (1 << 32) + 2, HIGHEST_ID] {
        worker.set_next_id(id);
        worker.call(&call).await?;
    }
    worker.stop().await
}

pub(super) async fn useless_params(session: &mut Session) -> Verdict {
    let hooks = session.hooks()?;
    let mut worker = session.worker().await?;
    for hook in &hooks {
        for params in [
            Some(json!({})),
            Some(json!({"vmi": null, "domain": 5, "cloudInitData": [], "nodeName": {}})),
            Some(json!([1, "two"])),
            None,
        ] {
            let id = worker.request(hook.as_str(), |send_buffer, id| {
                conformance::send_call_with_params(send_buffer, id, hook.as_str(), params);
            });
            worker.outcome(id).await?;
        }
    }
    session.still_works(&mut worker).await?;
    session.release(worker).await
}

pub(super) async fn escapes(session: &mut Session) -> Verdict {
    let mut worker = session.worker().await?;
    for hook in session.hooks()? {
        let call = session.call(&hook)?;
        let plain = session.result(&mut worker, &hook).await?;
        let (id, bytes) =
            worker.rewritten_call_bytes(&call, |json| Some(conformance::with_escapes(json)))?;
        worker.send(&bytes);
        let subject = session.documents.subject(hook.kind());
        let escaped = worker.reply(&call, id).await?.or(subject);
        if equivalent(&hook, &plain, &escaped) {
            continue;
        }
        // `same-result` reports a hook whose results differ anyway.
        let again = session.result(&mut worker, &hook).await?;
        if equivalent(&hook, &plain, &again) {
            let seen = format!("{hook} returned another result for the same call with \\u escapes");
            return Err(worker.fault(seen));
        }
    }
    session.release(worker).await
}

// ---- What was noticed during all checks ----

pub(super) async fn one_response(session: &mut Session) -> Verdict {
    let mut worker = session.worker().await?;
    session.still_works(&mut worker).await?;
    worker.read_for(QUIET_TIME, 0).await?;
    // The last process. The checks below judge its last output too.
    worker.stop().await?;
    judge(&session.observations.borrow().repeated_responses, "")
}

pub(super) async fn known_messages(session: &mut Session) -> Verdict {
    session.declared()?;
    judge(&session.observations.borrow().unexpected_messages, "")
}

pub(super) async fn frames_alone(session: &mut Session) -> Verdict {
    session.declared()?;
    judge(&session.observations.borrow().stray_output, "; print to stderr, or use an SDK")
}

fn judge(occurrences: &Occurrences, remedy: &str) -> Verdict {
    match occurrences.summary() {
        Some(seen) => Err(NotPassed::failed(seen + remedy)),
        None => Ok(None),
    }
}
