//! Checks of the start: the variable, `initialize`, and that all processes of one command are alike.

use std::time::Duration;

use super::conformance;
use super::documents::equivalent;
use super::session::Session;
use super::verdict::Verdict;
use sidecar_shim::hook::HookName;
use sidecar_shim::rpc::{Declared, Outcome};

/// A version that no worker speaks.
const VERSION_OF_NOBODY: u64 = 4_000_000_000;

/// How long a worker is watched that has to wait.
const WATCH: Duration = Duration::from_millis(300);

pub(super) async fn handshake(session: &mut Session) -> Verdict {
    let mut worker = session.start()?;
    let declared = worker.initialize().await?;
    let said = in_words(&declared);
    session.declared = Some(declared);
    session.put_back(worker).await?;
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

pub(super) async fn newer_shim(session: &mut Session) -> Verdict {
    session.declared()?;
    let mut worker = session.start()?;
    worker.initialize_with(conformance::send_initialize_of_newer_shim).await?;
    worker.dismiss().await?;
    Ok(None)
}

pub(super) async fn no_common_version(session: &mut Session) -> Verdict {
    session.declared()?;
    let mut worker = session.start()?;
    let id = worker.request("initialize", |outbox, id| {
        conformance::send_initialize_with_versions(outbox, id, &[VERSION_OF_NOBODY]);
    });
    let offered = format!("offered version {VERSION_OF_NOBODY} alone");
    let Outcome::Error(error) = worker.outcome(id).await? else {
        return Err(worker.fault(format!("{offered}, it answered with a result")).into());
    };
    match error.protocol_versions() {
        Some(versions) if versions.contains(&1) => {}
        Some(versions) => {
            let seen =
                format!("it says that it speaks {versions:?}, and it has answered to version 1");
            return Err(worker.fault(seen).into());
        }
        None => {
            let seen = format!(
                "{offered}, it answered with error {} and without an array data.protocolVersions",
                error.code
            );
            return Err(worker.fault(seen).into());
        }
    }
    if let Some(exit) = worker.ended_within(WATCH).await? {
        return Err(worker.fault(format!("it {exit} and did not wait for end-of-file")).into());
    }
    worker.dismiss().await?;
    Ok(None)
}

pub(super) async fn protocol_variable(session: &mut Session) -> Verdict {
    let mut worker = session.start_by_hand()?;
    let limit = session.timeouts().start;
    let observations = session.observations.take();
    let ended = worker.ended_within(limit).await;
    // Started by hand, it may print what it likes.
    session.observations.replace(observations);
    let Some(exit) = ended? else {
        let limit = humantime::format_duration(limit);
        return Err(worker.fault(format!("it was still running after {limit}")).into());
    };
    let stderr = worker.stderr_at_end().await;
    match exit.code() {
        Some(0) => Err(worker.fault("it exited with status 0, as if it had done something").into()),
        Some(_) if stderr.is_empty() => {
            Err(worker.fault(format!("it {exit} and said nothing on standard error")).into())
        }
        Some(_) => Ok(None),
        None => Err(worker.fault(format!("it {exit}")).into()),
    }
}

pub(super) async fn same_answer(session: &mut Session) -> Verdict {
    let hooks = session.hooks()?;
    let mut first = session.worker().await?;
    let mut second = session.start()?;
    let declared = second.initialize().await?;
    let before = session.declared()?;
    if declared != before {
        let seen = format!(
            "the first process declared {}, and another one {}",
            in_words(&before),
            in_words(&declared)
        );
        return Err(second.fault(seen).into());
    }
    for hook in &hooks {
        let once = session.result(&mut first, hook).await?;
        let again = session.result(&mut first, hook).await?;
        if !equivalent(hook, &once, &again) {
            return Err(first.fault(format!("{hook} answered the same call in two ways")).into());
        }
        let elsewhere = session.result(&mut second, hook).await?;
        if !equivalent(hook, &once, &elsewhere) {
            let seen = format!("{hook} answered the same call in two ways, in two processes");
            return Err(second.fault(seen).into());
        }
    }
    second.dismiss().await?;
    session.put_back(first).await?;
    Ok(None)
}
