//! Checks of messages: calls and their answers, ids, and what a worker does not know.

use std::time::Duration;

use super::bench::Bench;
use super::documents::say_the_same;
use super::notes::Note;
use super::peer::Peer;
use super::verdict::{Stop, Verdict};
use crate::rpc::{self, METHOD_NOT_FOUND, Outcome};

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

pub(super) async fn call(bench: &mut Bench) -> Verdict {
    let mut fault = None;
    for hook in bench.declared()?.hooks {
        let mut peer = bench.peer().await?;
        let call = bench.call(&hook)?;
        match peer.call(&call).await {
            Ok(_) => {
                bench.hooks.push(hook);
                bench.put_back(peer).await?;
            }
            Err(stop) => fault = fault.or(Some(stop)),
        }
    }
    fault.map_or(Ok(None), Err)
}

pub(super) async fn unknown_members(bench: &mut Bench) -> Verdict {
    let mut peer = bench.peer().await?;
    for hook in bench.hooks()? {
        let call = bench.call(&hook)?;
        let (id, bytes) = peer.call_bytes_with(&call, rpc::send_call_of_later_shim)?;
        peer.send(&bytes);
        peer.reply(&call, id).await?;
    }
    bench.put_back(peer).await?;
    Ok(None)
}

pub(super) async fn unknown_method(bench: &mut Bench) -> Verdict {
    let mut peer = bench.peer().await?;
    let id = peer.request("an unknown method", |outbox, id| {
        rpc::send_unknown_request(outbox, id, None);
    });
    let seen = match peer.outcome(id).await? {
        Outcome::Error(error) if error.code == METHOD_NOT_FOUND => {
            bench.put_back(peer).await?;
            return Ok(None);
        }
        Outcome::Error(error) => format!("it answered an unknown method with error {}", error.code),
        Outcome::Result(_) => "it answered an unknown method with a result".to_owned(),
    };
    Err(peer.fault(seen).into())
}

pub(super) async fn unknown_notification(bench: &mut Bench) -> Verdict {
    let mut peer = bench.peer().await?;
    peer.notify(rpc::send_unknown_notifications);
    peer.listen(0, QUIET).await?;
    still_works(bench, &mut peer).await?;
    bench.put_back(peer).await?;
    Ok(None)
}

/// Whether the worker takes a call after whatever was tried with it.
pub(super) async fn still_works(bench: &Bench, peer: &mut Peer) -> Result<(), Stop> {
    match bench.plain_call() {
        Ok(call) => peer.call(&call).await.map(|_| ()),
        // That no hook answers is told elsewhere.
        Err(_) => Ok(()),
    }
}

pub(super) async fn ids(bench: &mut Bench) -> Verdict {
    let call = bench.plain_call()?;
    let mut peer = bench.new_peer().await?;
    for id in [(1 << 31) + 1, (1 << 32) + 2, HIGHEST_ID] {
        peer.skip_ids_to(id - 1);
        peer.call(&call).await?;
    }
    peer.dismiss().await?;
    Ok(None)
}

pub(super) async fn useless_params(bench: &mut Bench) -> Verdict {
    let hooks = bench.hooks()?;
    let mut peer = bench.peer().await?;
    for hook in &hooks {
        for params in USELESS_PARAMS {
            let id = peer.request(hook.as_str(), |outbox, id| {
                rpc::send_call_with_params(outbox, id, hook.as_str(), params);
            });
            peer.outcome(id).await?;
        }
    }
    still_works(bench, &mut peer).await?;
    bench.put_back(peer).await?;
    Ok(None)
}

pub(super) async fn escapes(bench: &mut Bench) -> Verdict {
    let mut peer = bench.peer().await?;
    for hook in bench.hooks()? {
        let call = bench.call(&hook)?;
        let plain = bench.result(&mut peer, &hook).await?;
        let (id, bytes) = peer.call_bytes_with(&call, rpc::send_escaped_call)?;
        peer.send(&bytes);
        let escaped = peer.reply(&call, id).await?.or(bench.documents.subject(&hook).clone());
        if say_the_same(&hook, &plain, &escaped) {
            continue;
        }
        // A hook that answers at random is found elsewhere.
        let again = bench.result(&mut peer, &hook).await?;
        if say_the_same(&hook, &plain, &again) {
            let seen = format!("{hook} gave another answer to the same call in \\u escapes");
            return Err(peer.fault(seen).into());
        }
    }
    bench.put_back(peer).await?;
    Ok(None)
}

// ---- What was noticed by the way ----

pub(super) async fn one_answer(bench: &mut Bench) -> Verdict {
    let mut peer = bench.peer().await?;
    still_works(bench, &mut peer).await?;
    peer.listen(0, QUIET).await?;
    // The last process: what it says when it ends is looked at below too.
    peer.dismiss().await?;
    noticed(&bench.notes.borrow().answered_twice)
}

pub(super) async fn known_messages(bench: &mut Bench) -> Verdict {
    bench.declared()?;
    noticed(&bench.notes.borrow().odd_messages)
}

pub(super) async fn frames_alone(bench: &mut Bench) -> Verdict {
    bench.declared()?;
    noticed(&bench.notes.borrow().stray_text).map_err(|stop| match stop {
        Stop::Failed(mut fault) => {
            fault.seen.push_str("; print to standard error, or use an SDK");
            Stop::Failed(fault)
        }
        skipped @ Stop::Skipped(_) => skipped,
    })
}

fn noticed(note: &Note) -> Verdict {
    match note.summary() {
        Some(seen) => Err(Stop::failed(seen)),
        None => Ok(None),
    }
}
