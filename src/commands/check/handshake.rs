//! Checks of the start: the variable, `initialize`, and that all processes of one command are alike.

use std::time::Duration;

use super::bench::Bench;
use super::documents::say_the_same;
use super::verdict::Verdict;
use crate::hook::HookName;
use crate::rpc::{self, Declared, Outcome};

/// A version that no worker speaks.
const VERSION_OF_NOBODY: u64 = 4_000_000_000;

/// How long a worker is watched that has to wait.
const WATCH: Duration = Duration::from_millis(300);

pub(super) async fn handshake(bench: &mut Bench) -> Verdict {
    let mut peer = bench.start()?;
    let declared = peer.initialize().await?;
    let said = in_words(&declared);
    bench.declared = Some(declared);
    bench.put_back(peer).await?;
    Ok(Some(said))
}

/// What a worker declares.
pub(super) fn in_words(declared: &Declared) -> String {
    let mut words: Vec<String> = declared.hooks.iter().map(HookName::to_string).collect();
    words.extend(declared.attachments.then(|| "attachments".to_owned()));
    words.extend(declared.cancel.then(|| "cancel".to_owned()));
    words.extend(
        (declared.concurrency > 1).then(|| format!("concurrency {}", declared.concurrency)),
    );
    words.join(", ")
}

pub(super) async fn later_shim(bench: &mut Bench) -> Verdict {
    bench.declared()?;
    let mut peer = bench.start()?;
    peer.initialize_with(rpc::send_initialize_of_later_shim).await?;
    peer.dismiss().await?;
    Ok(None)
}

pub(super) async fn no_common_version(bench: &mut Bench) -> Verdict {
    bench.declared()?;
    let mut peer = bench.start()?;
    let id = peer.request("initialize", |outbox, id| {
        rpc::send_initialize_with_versions(outbox, id, &[VERSION_OF_NOBODY]);
    });
    let offered = format!("offered version {VERSION_OF_NOBODY} alone");
    let Outcome::Error(error) = peer.outcome(id).await? else {
        return Err(peer.fault(format!("{offered}, it answered with a result")).into());
    };
    match error.protocol_versions() {
        Some(versions) if versions.contains(&1) => {}
        Some(versions) => {
            let seen =
                format!("it says that it speaks {versions:?}, and it has answered to version 1");
            return Err(peer.fault(seen).into());
        }
        None => {
            let seen = format!(
                "{offered}, it answered with error {} and without an array data.protocolVersions",
                error.code
            );
            return Err(peer.fault(seen).into());
        }
    }
    if let Some(exit) = peer.ended_within(WATCH).await? {
        return Err(peer.fault(format!("it {exit} and did not wait for end-of-file")).into());
    }
    peer.dismiss().await?;
    Ok(None)
}

pub(super) async fn protocol_variable(bench: &mut Bench) -> Verdict {
    let mut peer = bench.start_by_hand()?;
    let limit = bench.limits().start;
    let notes = bench.notes.take();
    let ended = peer.ended_within(limit).await;
    // Started by hand, it may print what it likes.
    bench.notes.replace(notes);
    let Some(exit) = ended? else {
        let limit = humantime::format_duration(limit);
        return Err(peer.fault(format!("it was still running after {limit}")).into());
    };
    let stderr = peer.stderr_at_end().await;
    match exit.code() {
        Some(0) => Err(peer.fault("it exited with status 0, as if it had done something").into()),
        Some(_) if stderr.is_empty() => {
            Err(peer.fault(format!("it {exit} and said nothing on standard error")).into())
        }
        Some(_) => Ok(None),
        None => Err(peer.fault(format!("it {exit}")).into()),
    }
}

pub(super) async fn same_answer(bench: &mut Bench) -> Verdict {
    let hooks = bench.hooks()?;
    let mut first = bench.peer().await?;
    let mut second = bench.start()?;
    let declared = second.initialize().await?;
    let before = bench.declared()?;
    if declared != before {
        let seen = format!(
            "the first process declared {}, and another one {}",
            in_words(&before),
            in_words(&declared)
        );
        return Err(second.fault(seen).into());
    }
    for hook in &hooks {
        let once = bench.result(&mut first, hook).await?;
        let again = bench.result(&mut first, hook).await?;
        if !say_the_same(hook, &once, &again) {
            return Err(first.fault(format!("{hook} answered the same call in two ways")).into());
        }
        let elsewhere = bench.result(&mut second, hook).await?;
        if !say_the_same(hook, &once, &elsewhere) {
            let seen = format!("{hook} answered the same call in two ways, in two processes");
            return Err(second.fault(seen).into());
        }
    }
    second.dismiss().await?;
    bench.put_back(first).await?;
    Ok(None)
}
