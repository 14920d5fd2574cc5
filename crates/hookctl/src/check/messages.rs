//! Checks of messages: calls and their answers, ids, and what a worker does not know.

use std::time::Duration;

use super::conformance;
use super::documents::equivalent;
use super::observations::Observation;
use super::session::Session;
use super::verdict::{Stop, Verdict};
use sidecar_shim::rpc::{METHOD_NOT_FOUND, Outcome};

/// The highest id that there is.
const HIGHEST_ID: u64 = (1 << 53) - 1;

/// How long it is waited for an answer that must not come.
const QUIET: Duration = Duration::from_millis(100);

/// What a hook cannot be called with.
const USELESS_PARAMS: [Option<&str>; 4] = [
    Some("{}"),
    Some(r#"{"vmi":null,"domain":5,"cloudInitData":[],"nodeName":{}}"#),
    Some(r#"[1,"two"]"#),
    None,
];

pub(super) async fn call(session: &mut Session) -> Verdict {
    let mut fault = None;
    for hook in session.declared()?.hooks {
        let mut worker = session.worker().await?;
        let call = session.call(&hook)?;
        match worker.call(&call).await {
            Ok(_) => {
                session.hooks.push(hook);
                session.put_back(worker).await?;
            }
            Err(stop) => fault = fault.or(Some(stop)),
        }
    }
    fault.map_or(Ok(None), Err)
}

pub(super) async fn unknown_members(session: &mut Session) -> Verdict {
    let mut worker = session.worker().await?;
    for hook in session.hooks()? {
        let call = session.call(&hook)?;
        let (id, bytes) = worker.call_bytes_with(&call, conformance::send_call_of_newer_shim)?;
        worker.send(&bytes);
        worker.reply(&call, id).await?;
    }
    session.put_back(worker).await?;
    Ok(None)
}

pub(super) async fn unknown_method(session: &mut Session) -> Verdict {
    let mut worker = session.worker().await?;
    let id = worker.request("an unknown method", |outbox, id| {
        conformance::send_unknown_request(outbox, id, None);
    });
    let seen = match worker.outcome(id).await? {
        Outcome::Error(error) if error.code == METHOD_NOT_FOUND => {
            session.put_back(worker).await?;
            return Ok(None);
        }
        Outcome::Error(error) => format!("it answered an unknown method with error {}", error.code),
        Outcome::Result(_) => "it answered an unknown method with a result".to_owned(),
    };
    Err(worker.fault(seen).into())
}

pub(super) async fn unknown_notification(session: &mut Session) -> Verdict {
    let mut worker = session.worker().await?;
    worker.notify(conformance::send_unknown_notifications);
    worker.listen(0, QUIET).await?;
    session.still_works(&mut worker).await?;
    session.put_back(worker).await?;
    Ok(None)
}

pub(super) async fn ids(session: &mut Session) -> Verdict {
    let call = session.plain_call()?;
    let mut worker = session.new_worker().await?;
    for id in [(1 << 31) + 1, (1 << 32) + 2, HIGHEST_ID] {
        worker.skip_ids_to(id - 1);
        worker.call(&call).await?;
    }
    worker.dismiss().await?;
    Ok(None)
}

pub(super) async fn useless_params(session: &mut Session) -> Verdict {
    let hooks = session.hooks()?;
    let mut worker = session.worker().await?;
    for hook in &hooks {
        for params in USELESS_PARAMS {
            let id = worker.request(hook.as_str(), |outbox, id| {
                conformance::send_call_with_params(outbox, id, hook.as_str(), params);
            });
            worker.outcome(id).await?;
        }
    }
    session.still_works(&mut worker).await?;
    session.put_back(worker).await?;
    Ok(None)
}

pub(super) async fn escapes(session: &mut Session) -> Verdict {
    let mut worker = session.worker().await?;
    for hook in session.hooks()? {
        let call = session.call(&hook)?;
        let plain = session.result(&mut worker, &hook).await?;
        let (id, bytes) = worker.call_bytes_with(&call, conformance::send_escaped_call)?;
        worker.send(&bytes);
        let escaped = worker.reply(&call, id).await?.or(session.documents.subject(&hook).clone());
        if equivalent(&hook, &plain, &escaped) {
            continue;
        }
        // A hook that answers at random is found elsewhere.
        let again = session.result(&mut worker, &hook).await?;
        if equivalent(&hook, &plain, &again) {
            let seen = format!("{hook} gave another answer to the same call in \\u escapes");
            return Err(worker.fault(seen).into());
        }
    }
    session.put_back(worker).await?;
    Ok(None)
}

// ---- What was noticed by the way ----

pub(super) async fn one_answer(session: &mut Session) -> Verdict {
    let mut worker = session.worker().await?;
    session.still_works(&mut worker).await?;
    worker.listen(0, QUIET).await?;
    // The last process: what it says when it ends is looked at below too.
    worker.dismiss().await?;
    noticed(&session.observations.borrow().answered_twice)
}

pub(super) async fn known_messages(session: &mut Session) -> Verdict {
    session.declared()?;
    noticed(&session.observations.borrow().odd_messages)
}

pub(super) async fn frames_alone(session: &mut Session) -> Verdict {
    session.declared()?;
    noticed(&session.observations.borrow().stray_text).map_err(|stop| match stop {
        Stop::Failed(mut fault) => {
            fault.seen.push_str("; print to standard error, or use an SDK");
            Stop::Failed(fault)
        }
        skipped @ Stop::Skipped(_) => skipped,
    })
}

fn noticed(note: &Observation) -> Verdict {
    match note.summary() {
        Some(seen) => Err(Stop::failed(seen)),
        None => Ok(None),
    }
}
