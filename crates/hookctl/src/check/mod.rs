//! Tries a worker: does it do what `protocol.md` demands? Each check starts the
//! worker, or goes on with the process that the last one has left, sends what the protocol allows (and what
//! it forbids), and looks at what comes back. `docs/check.md` lists them.
//!
//! ```text
//! catalog ─▶ handshake, messages, contents, framing, optional, lifecycle ─▶ session ─▶ worker ─▶ Probe
//! ```
//!
//! Every wait has a limit, so the checks end whatever the worker does. Its processes are killed when they
//! are dropped, and reaped before this ends.

mod catalog;
mod conformance;
mod contents;
mod documents;
mod framing;
mod handshake;
mod lifecycle;
mod markers;
mod messages;
mod observations;
mod optional;
mod progress;
mod report;
mod session;
mod verdict;
mod worker;

use std::process::ExitCode;
use std::time::Duration;

use clap::ColorChoice;
use tokio::time::Instant;

use self::catalog::CHECKS;
use self::documents::{Documents, Unusable};
use self::progress::Progress;
use self::report::{Report, Styling};
use self::session::Session;
use self::verdict::Stop;
use self::worker::Timeouts;
use crate::color;
use crate::inputs::Inputs;
use sidecar_shim::backend::{CommandLine, children_are_reaped};

/// The name of a check that there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CheckName(&'static str);

impl CheckName {
    /// Takes a name from outside. `None` if there is no such check.
    #[must_use]
    pub(crate) fn parse(name: &str) -> Option<Self> {
        CHECKS.iter().find(|check| check.name == name).map(|check| Self(check.name))
    }
}

/// What to check, and with what.
pub(crate) struct CheckConfig {
    /// The worker.
    pub(crate) command: CommandLine,
    /// What hooks are called with.
    pub(crate) inputs: Inputs,
    /// Checks that are left out.
    pub(crate) skip: Vec<CheckName>,
    /// Whether the result is JSON.
    pub(crate) json: bool,
    /// When the table is coloured.
    pub(crate) color: ColorChoice,
    /// How long the answer to `initialize` may take.
    pub(crate) start_timeout: Duration,
    /// How long any other answer may take.
    pub(crate) timeout: Duration,
    /// How long a worker may take to end.
    pub(crate) kill_grace: Duration,
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
enum CheckFailed {
    #[error(transparent)]
    Documents(#[from] Unusable),
    #[error("cannot write the result: {0}")]
    Write(#[from] std::io::Error),
    #[error("interrupted")]
    Interrupted,
}

/// Makes all checks, and shows what came of them. The exit status is 0 if none has failed.
pub(crate) async fn run(config: CheckConfig) -> ExitCode {
    let outcome = tokio::select! {
        outcome = check(&config) => outcome,
        () = crate::interrupted() => Err(CheckFailed::Interrupted),
    };
    // Whatever was being tried was killed when it was dropped.
    children_are_reaped().await;
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => crate::fail(error),
    }
}

async fn check(config: &CheckConfig) -> Result<bool, CheckFailed> {
    let documents = Documents::read(&config.inputs)?;
    let timeouts =
        Timeouts { start: config.start_timeout, answer: config.timeout, end: config.kill_grace };
    let progress = Progress::new(CHECKS.len());
    let mut session = Session::new(config.command.clone(), timeouts, documents, progress);
    let mut report = Report::new(config.styling());
    for check in CHECKS {
        session.progress.begin(check.name);
        let started = Instant::now();
        let verdict = if config.skip.contains(&CheckName(check.name)) {
            Err(Stop::skipped("left out by --skip"))
        } else {
            (check.run)(&mut session).await
        };
        if matches!(verdict, Err(Stop::Failed(_))) {
            session.note_failure(check.name);
        }
        session.progress.end(|| report.add(check, verdict, started.elapsed()))?;
    }
    session.progress.clear();
    report.finish(&config.command.to_string(), session.declared.as_ref())?;
    Ok(report.passed())
}

impl CheckConfig {
    fn styling(&self) -> Styling {
        let color = color::is_on(self.color, &std::io::stdout());
        if self.json { Styling::Json } else { Styling::Table { color } }
    }
}
