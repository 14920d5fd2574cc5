//! Checks of the optional parts of the protocol, for workers that declare them.

use std::time::Duration;

use bytes::Bytes;

use super::conformance;
use super::markers;
use super::session::Session;
use super::verdict::{NotPassed, Verdict};
use super::worker::{QUIET_TIME, WorkerUnderTest};
use sidecar_shim::backend::read_reply;
use sidecar_shim::hook::{HookCall, HookKind, HookReply};
use sidecar_shim::rpc::{self, CANCELLED, Outcome};

/// An id that no request has.
const UNUSED_ID: u64 = 1 << 40;

/// Times from a call to its cancellation: at one of them the worker is busy with the call.
const CANCEL_DELAYS: [Duration; 3] =
    [Duration::ZERO, Duration::from_micros(300), Duration::from_millis(3)];

pub(super) async fn attachments(session: &mut Session) -> Verdict {
    if !session.declared()?.attachments {
        return Err(NotPassed::skipped("it declares no attachments"));
    }
    session.hooks()?;
    let mut worker = session.worker().await?;
    let id = worker.request("an unknown method", |send_buffer, id| {
        conformance::send_unknown_request(send_buffer, id, Some(Bytes::from_static(b"<domain/>")));
    });
    // `unknown-method` judges the error.
    worker.outcome(id).await?;
    session.still_works(&mut worker).await?;
    session.release(worker).await
}

pub(super) async fn cancel(session: &mut Session) -> Verdict {
    if !session.declared()?.cancel {
        return Err(NotPassed::skipped("it declares no cancellation"));
    }
    let call = session.plain_call()?;
    let mut worker = session.worker().await?;
    worker.notify(|send_buffer| rpc::send_cancel(send_buffer, UNUSED_ID));
    worker.read_for(QUIET_TIME, 0).await?;
    for delay in CANCEL_DELAYS {
        let (id, bytes) = worker.call_bytes(&call)?;
        worker.send(&bytes);
        worker.read_for(delay, id).await?;
        worker.notify(|send_buffer| rpc::send_cancel(send_buffer, id));
        expect_result_or_cancelled(&mut worker, &call, id).await?;
        // Now the call has its response already.
        worker.notify(|send_buffer| rpc::send_cancel(send_buffer, id));
    }
    worker.read_for(QUIET_TIME, 0).await?;
    session.still_works(&mut worker).await?;
    session.release(worker).await
}

async fn expect_result_or_cancelled(
    worker: &mut WorkerUnderTest,
    call: &HookCall,
    id: u64,
) -> Result<(), NotPassed> {
    match worker.outcome(id).await? {
        Outcome::Error(error) if error.code == CANCELLED => Ok(()),
        outcome => match read_reply(call, &outcome) {
            Ok(_) => Ok(()),
            Err(error) => Err(worker.fault(format!("after a cancellation, {error}"))),
        },
    }
}

pub(super) async fn concurrency(session: &mut Session) -> Verdict {
    let many = session.declared()?.concurrency;
    if many < 2 {
        return Err(NotPassed::skipped("it declares no concurrency"));
    }
    session.require("utf-8")?;
    session.require("child-stdin")?;
    let hooks = session.hooks()?;
    let hook = hooks.iter().find(|hook| hook.kind() == HookKind::Domain).unwrap_or(&hooks[0]);
    let mut worker = session.worker().await?;
    let mut calls = Vec::new();
    let mut bytes = Vec::new();
    for number in 0..many {
        let marker = format!("call {number}");
        let call = match hook.kind() {
            HookKind::Domain => session.documents.marked_call(hook, &marker)?,
            HookKind::CloudInit | HookKind::Node => session.call(hook)?,
        };
        let (id, message) = worker.call_bytes(&call)?;
        bytes.extend_from_slice(&message);
        calls.push((id, call, marker));
    }
    worker.send(&bytes);
    for (id, call, marker) in calls {
        let HookReply::Changed(document) = worker.reply(&call, id).await? else { continue };
        if markers::read(document.as_str()).is_some_and(|(text, _)| text != marker) {
            let seen = format!("with {many} calls at once, request {id} got another call's result");
            return Err(worker.fault(seen));
        }
    }
    session.release(worker).await?;
    Ok(Some(format!("{many} at once")))
}
