//! Checks whether a worker follows `protocol.md`. Each check starts the worker, or uses the last
//! check's process, sends what the protocol allows or forbids, and looks at what comes back.
//! `docs/check.md` lists the checks.
//!
//! ```text
//! catalog ─▶ handshake, messages, … (the checks) ─▶ session ─▶ worker ─▶ crate::probe
//! ```
//!
//! Every wait has a timeout, so the checks finish whatever the worker does.

mod catalog;
mod conformance;
mod contents;
mod documents;
mod framing;
mod handshake;
mod lifecycle;
mod markers;
mod messages;
mod namespaces;
mod observations;
mod optional;
mod progress;
mod report;
mod session;
mod verdict;
mod worker;

use std::time::Duration;

use clap::ColorChoice;
use tokio::time::Instant;

use self::catalog::CHECKS;
use self::progress::Progress;
use self::report::{Format, Report};
use self::session::Session;
use self::verdict::NotPassed;
use self::worker::Timeouts;
use crate::inputs::{Inputs, Unreadable};
use crate::output;
use sidecar_shim::backend::CommandLine;
use sidecar_shim::hook::BadDocument;

/// Returns the name of a check as the catalog has it, if there is such a check.
#[must_use]
pub(crate) fn find(name: &str) -> Option<&'static str> {
    CHECKS.iter().map(|check| check.name).find(|known| *known == name)
}

/// What to check, and with what.
pub(crate) struct CheckConfig {
    pub(crate) command: CommandLine,
    pub(crate) inputs: Inputs,
    /// Checks to leave out.
    pub(crate) skip: Vec<&'static str>,
    /// Whether the report is JSON.
    pub(crate) json: bool,
    /// When to colour the table.
    pub(crate) color: ColorChoice,
    /// Timeout for the response to `initialize`.
    pub(crate) start_timeout: Duration,
    /// Timeout for any other response.
    pub(crate) timeout: Duration,
    /// Timeout for the exit after EOF or SIGTERM.
    pub(crate) kill_grace: Duration,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckFailed {
    #[error(transparent)]
    Read(#[from] Unreadable),
    #[error("cannot call a hook with these documents: {0}")]
    Document(#[from] BadDocument),
    #[error("cannot write the report: {0}")]
    Write(#[from] std::io::Error),
}

/// Runs all checks, and prints the report. Returns whether none failed.
pub(crate) async fn run(config: &CheckConfig) -> Result<bool, CheckFailed> {
    let documents = documents::read(&config.inputs)?;
    let timeouts =
        Timeouts { start: config.start_timeout, response: config.timeout, exit: config.kill_grace };
    let progress = Progress::new(CHECKS.len());
    let mut session = Session::new(config.command.clone(), timeouts, documents, progress);
    let mut report = Report::new(config.format());
    for check in CHECKS {
        session.progress.begin(check.name);
        let started = Instant::now();
        let verdict = if config.skip.contains(&check.name) {
            Err(NotPassed::skipped("left out by --skip"))
        } else {
            (check.run)(&mut session).await
        };
        if matches!(verdict, Err(NotPassed::Failed { .. })) {
            session.failed.push(check.name);
        }
        session.progress.end(|| report.add(check, verdict, started.elapsed()))?;
    }
    session.progress.clear();
    report.finish(&config.command.to_string(), session.declared.as_ref())?;
    Ok(report.passed())
}

impl CheckConfig {
    fn format(&self) -> Format {
        let color = output::is_colored(self.color, &std::io::stdout());
        if self.json { Format::Json } else { Format::Table { color } }
    }
}
