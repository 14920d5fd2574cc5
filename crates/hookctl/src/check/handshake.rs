//! Checks of the start: the variable, `initialize`, and that every process declares and returns the
//! same.

use std::time::Duration;

use tokio::time::Instant;

use super::conformance::{self, UNKNOWN_VERSION};
use super::documents::equivalent;
use super::session::Session;
use super::silence::SILENCE;
use super::verdict::{NotPassed, Verdict};
use super::worker::WorkerUnderTest;
use sidecar_shim::backend::Exit;
use sidecar_shim::hook::HookName;
use sidecar_shim::rpc::{Declared, Outcome};

/// Time in which a worker reads a short message before its exit is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

pub(super) async fn handshake(session: &mut Session) -> Verdict {
    let limit = session.timeouts.start.min(SILENCE);
    let mut worker = session.start(true)?;
    let (id, lives) = worker.initialize_first(limit).await;
    if !lives && let Some(advice) = session.dialect(limit, true).await {
        let time = humantime::format_duration(limit);
        return Err(worker.fault(format!("it wrote 0 bytes to stdout within {time}; {advice}")));
    }
    let declared = match worker.begun(id, limit).await {
        Ok(()) => worker.declaration(id).await,
        Err(failure) => Err(failure),
    };
    let declared = match declared {
        Ok(declared) => declared,
        // It was asked in other ways already.
        Err(failure) if !lives => return Err(failure),
        Err(failure) => {
            let advice = session.dialect(limit, false).await;
            let advice = advice.map(|advice| format!("; {advice}"));
            return Err(failure.with(advice.unwrap_or_default()));
        }
    };
    let detail = describe(&declared);
    session.declared = Some(declared);
    session.release(worker).await?;
    Ok(Some(detail))
}

/// Returns what a worker declares, as text.
pub(super) fn describe(declared: &Declared) -> String {
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
    let mut worker = session.start(true)?;
    worker.initialize_with(conformance::send_initialize_of_newer_shim).await?;
    worker.stop().await
}

pub(super) async fn no_common_version(session: &mut Session) -> Verdict {
    session.declared()?;
    let mut worker = session.start(true)?;
    let id = worker.request("initialize", conformance::send_initialize_of_unknown_version);
    let fault = match worker.outcome(id).await? {
        Outcome::Result(_) => Some("a result".to_owned()),
        Outcome::Error(error) => match error.protocol_versions() {
            Some(versions) if versions.contains(&1) => None,
            Some(versions) => {
                Some(format!("versions {versions:?}, although it accepted version 1 before"))
            }
            None => Some(format!("error {} without an array data.protocolVersions", error.code)),
        },
    };
    if let Some(fault) = fault {
        let seen = format!("offered only version {UNKNOWN_VERSION}, it responded with {fault}");
        return Err(worker.fault(seen));
    }
    // A worker that waits for EOF reads what comes before. It may respond or not.
    worker.request("an unknown method", |send_buffer, id| {
        conformance::send_unknown_request(send_buffer, id, None);
    });
    if let Some(exit) = worker.reads_or_exits(session.timeouts.response).await? {
        return Err(worker.fault(format!("it {exit} and did not wait for EOF")));
    }
    worker.stop().await
}

pub(super) async fn protocol_variable(session: &mut Session) -> Verdict {
    session.declared()?;
    let mut worker = session.start(false)?;
    let limit = session.timeouts.start;
    let observations = session.observations.take();
    let exit = worker.exit_within(limit).await;
    // Started by hand, it may print anything to stdout.
    session.observations.replace(observations);
    let Some(exit) = exit? else {
        let limit = humantime::format_duration(limit);
        return Err(worker.warning(format!("it was still running after {limit}")));
    };
    let stderr = worker.stderr_at_end().await;
    match exit.code() {
        Some(0) => Err(worker.warning("it exited with status 0, as after success")),
        Some(_) if stderr.is_empty() => {
            Err(worker.warning(format!("it {exit} and wrote nothing to stderr")))
        }
        Some(_) => Ok(None),
        None => Err(worker.warning(format!("it {exit}"))),
    }
}

pub(super) async fn same_hooks(session: &mut Session) -> Verdict {
    let before = session.declared()?;
    let mut second = session.start(true)?;
    let declared = second.initialize().await?;
    if declared != before {
        let [before, declared] = [before, declared].map(|declared| describe(&declared));
        let seen = format!("the first process declared {before}, another one {declared}");
        return Err(second.fault(seen));
    }
    session.release(second).await
}

pub(super) async fn same_result(session: &mut Session) -> Verdict {
    let hooks = session.hooks()?;
    let mut first = session.worker().await?;
    let mut second = session.new_worker().await?;
    for hook in &hooks {
        let once = session.result(&mut first, hook).await?;
        let again = session.result(&mut first, hook).await?;
        if !equivalent(hook, &once, &again) {
            return Err(first.warning(format!("{hook} returned two results for the same call")));
        }
        let elsewhere = session.result(&mut second, hook).await?;
        if !equivalent(hook, &once, &elsewhere) {
            let seen = format!("{hook} returned two results for the same call in two processes");
            return Err(second.warning(seen));
        }
    }
    second.stop().await?;
    session.release(first).await
}

impl WorkerUnderTest {
    /// Waits until the worker has read what was sent, or has exited.
    async fn reads_or_exits(&mut self, limit: Duration) -> Result<Option<Exit>, NotPassed> {
        let until = Instant::now() + limit;
        while Instant::now() < until && !self.send_piece(&[], POLL_INTERVAL).await {
            if let Some(exit) = self.exit_within(Duration::ZERO).await? {
                return Ok(Some(exit));
            }
        }
        Ok(None)
    }
}
