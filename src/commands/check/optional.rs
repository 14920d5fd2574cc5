//! Checks of the optional parts of the protocol, for workers that have declared them.

use std::time::Duration;

use bytes::Bytes;

use super::bench::Bench;
use super::marks;
use super::messages::still_works;
use super::peer::Peer;
use super::verdict::{Stop, Verdict};
use crate::hook::{HookCall, HookName, HookReply};
use crate::rpc::{self, CANCELLED, Outcome};

/// An id that no request has.
const ID_OF_NOBODY: u64 = 1 << 40;

/// How long it is waited for an answer that must not come.
const QUIET: Duration = Duration::from_millis(100);

/// How long a call runs before it is cancelled. With several times, some worker is met while it works.
const RUNNING: [Duration; 3] =
    [Duration::ZERO, Duration::from_micros(300), Duration::from_millis(3)];

pub(super) async fn attachments(bench: &mut Bench) -> Verdict {
    if !bench.declared()?.attachments {
        return Err(Stop::skipped("it declares no attachments"));
    }
    let mut peer = bench.peer().await?;
    let id = peer.request("an unknown method", |outbox, id| {
        rpc::send_unknown_request(outbox, id, Some(Bytes::from_static(b"<domain/>")));
    });
    // Which error it is, another check looks at.
    peer.outcome(id).await?;
    still_works(bench, &mut peer).await?;
    bench.put_back(peer).await?;
    Ok(None)
}

pub(super) async fn cancel(bench: &mut Bench) -> Verdict {
    if !bench.declared()?.cancel {
        return Err(Stop::skipped("it declares no cancellation"));
    }
    let call = bench.plain_call()?;
    let mut peer = bench.peer().await?;
    peer.notify(|outbox| rpc::send_cancel(outbox, ID_OF_NOBODY));
    peer.listen(0, QUIET).await?;
    for running in RUNNING {
        let (id, bytes) = peer.call_bytes(&call)?;
        peer.send(&bytes);
        peer.listen(id, running).await?;
        peer.notify(|outbox| rpc::send_cancel(outbox, id));
        expect_end(&mut peer, &call, id).await?;
        // By now it is one that was answered already.
        peer.notify(|outbox| rpc::send_cancel(outbox, id));
    }
    peer.listen(0, QUIET).await?;
    still_works(bench, &mut peer).await?;
    bench.put_back(peer).await?;
    Ok(None)
}

/// A call that was cancelled ends well, or with −32800.
async fn expect_end(peer: &mut Peer, call: &HookCall, id: u64) -> Result<(), Stop> {
    match peer.outcome(id).await? {
        Outcome::Error(error) if error.code == CANCELLED => Ok(()),
        outcome => match crate::backend::read_reply(call, &outcome) {
            Ok(_) => Ok(()),
            Err(error) => Err(peer.fault(format!("cancelled, {error}")).into()),
        },
    }
}

pub(super) async fn concurrency(bench: &mut Bench) -> Verdict {
    let many = bench.declared()?.concurrency;
    if many < 2 {
        return Err(Stop::skipped("it declares no concurrency"));
    }
    let hooks = bench.hooks()?;
    let hook = hooks.iter().find(|hook| **hook == HookName::ON_DEFINE_DOMAIN).unwrap_or(&hooks[0]);
    let mut peer = bench.peer().await?;
    let mut calls = Vec::new();
    let mut bytes = Vec::new();
    for number in 0..many {
        let mark = format!("call {number}");
        let call = if *hook == HookName::ON_DEFINE_DOMAIN {
            bench.documents.marked(hook, &mark)?
        } else {
            bench.call(hook)?
        };
        let (id, message) = peer.call_bytes(&call)?;
        bytes.extend_from_slice(&message);
        calls.push((id, call, mark));
    }
    peer.send(&bytes);
    for (id, call, mark) in calls {
        let HookReply::Changed(document) = peer.reply(&call, id).await? else { continue };
        if marks::read(document.as_str()).is_some_and(|(text, _)| text != mark) {
            let seen = format!("with {many} calls at once, request {id} got the answer to another");
            return Err(peer.fault(seen).into());
        }
    }
    bench.put_back(peer).await?;
    Ok(Some(format!("{many} at once")))
}
