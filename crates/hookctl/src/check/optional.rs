//! Checks of the optional parts of the protocol, for workers that have declared them.

use std::time::Duration;

use bytes::Bytes;

use super::conformance;
use super::markers;
use super::session::Session;
use super::verdict::{Stop, Verdict};
use super::worker::WorkerUnderTest;
use sidecar_shim::hook::{HookCall, HookName, HookReply};
use sidecar_shim::rpc::{self, CANCELLED, Outcome};

/// An id that no request has.
const ID_OF_NOBODY: u64 = 1 << 40;

/// How long it is waited for an answer that must not come.
const QUIET: Duration = Duration::from_millis(100);

/// How long a call runs before it is cancelled. With several times, some worker is met while it works.
const RUNNING: [Duration; 3] =
    [Duration::ZERO, Duration::from_micros(300), Duration::from_millis(3)];

pub(super) async fn attachments(session: &mut Session) -> Verdict {
    if !session.declared()?.attachments {
        return Err(Stop::skipped("it declares no attachments"));
    }
    let mut worker = session.worker().await?;
    let id = worker.request("an unknown method", |outbox, id| {
        conformance::send_unknown_request(outbox, id, Some(Bytes::from_static(b"<domain/>")));
    });
    // Which error it is, another check looks at.
    worker.outcome(id).await?;
    session.still_works(&mut worker).await?;
    session.put_back(worker).await?;
    Ok(None)
}

pub(super) async fn cancel(session: &mut Session) -> Verdict {
    if !session.declared()?.cancel {
        return Err(Stop::skipped("it declares no cancellation"));
    }
    let call = session.plain_call()?;
    let mut worker = session.worker().await?;
    worker.notify(|outbox| rpc::send_cancel(outbox, ID_OF_NOBODY));
    worker.listen(0, QUIET).await?;
    for running in RUNNING {
        let (id, bytes) = worker.call_bytes(&call)?;
        worker.send(&bytes);
        worker.listen(id, running).await?;
        worker.notify(|outbox| rpc::send_cancel(outbox, id));
        expect_end(&mut worker, &call, id).await?;
        // By now it is one that was answered already.
        worker.notify(|outbox| rpc::send_cancel(outbox, id));
    }
    worker.listen(0, QUIET).await?;
    session.still_works(&mut worker).await?;
    session.put_back(worker).await?;
    Ok(None)
}

/// A call that was cancelled ends well, or with −32800.
async fn expect_end(worker: &mut WorkerUnderTest, call: &HookCall, id: u64) -> Result<(), Stop> {
    match worker.outcome(id).await? {
        Outcome::Error(error) if error.code == CANCELLED => Ok(()),
        outcome => match sidecar_shim::backend::read_reply(call, &outcome) {
            Ok(_) => Ok(()),
            Err(error) => Err(worker.fault(format!("cancelled, {error}")).into()),
        },
    }
}

pub(super) async fn concurrency(session: &mut Session) -> Verdict {
    let many = session.declared()?.concurrency;
    if many < 2 {
        return Err(Stop::skipped("it declares no concurrency"));
    }
    let hooks = session.hooks()?;
    let hook = hooks.iter().find(|hook| **hook == HookName::ON_DEFINE_DOMAIN).unwrap_or(&hooks[0]);
    let mut worker = session.worker().await?;
    let mut calls = Vec::new();
    let mut bytes = Vec::new();
    for number in 0..many {
        let mark = format!("call {number}");
        let call = if *hook == HookName::ON_DEFINE_DOMAIN {
            session.documents.marked(hook, &mark)?
        } else {
            session.call(hook)?
        };
        let (id, message) = worker.call_bytes(&call)?;
        bytes.extend_from_slice(&message);
        calls.push((id, call, mark));
    }
    worker.send(&bytes);
    for (id, call, mark) in calls {
        let HookReply::Changed(document) = worker.reply(&call, id).await? else { continue };
        if markers::read(document.as_str()).is_some_and(|(text, _)| text != mark) {
            let seen = format!("with {many} calls at once, request {id} got the answer to another");
            return Err(worker.fault(seen).into());
        }
    }
    session.put_back(worker).await?;
    Ok(Some(format!("{many} at once")))
}
