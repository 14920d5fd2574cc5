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
mod encoding;
mod framing;
mod handshake;
mod intact;
mod kinds;
mod leftovers;
mod lifecycle;
mod markers;
mod memory;
mod messages;
mod namespaces;
mod observations;
mod optional;
mod processes;
mod progress;
mod report;
mod session;
mod silence;
mod surroundings;
mod table;
mod verdict;
mod worker;

use std::time::Duration;

use clap::ColorChoice;
use tokio::time::Instant;

use self::catalog::CHECKS;
use self::progress::Progress;
use self::report::{Format, Report};
use self::session::Session;
use self::table::Table;
use self::verdict::NotPassed;
use self::worker::Timeouts;
use crate::inputs::{Inputs, Unreadable};
use crate::{background, output};
use sidecar_shim::backend::CommandLine;
use sidecar_shim::hook::BadDocument;

/// Returns the name of a check as the catalog has it, if there is such a check.
#[must_use]
pub(crate) fn find(name: &str) -> Option<&'static str> {
    CHECKS.iter().map(|check| check.name).find(|known| *known == name)
}

/// What `check` does.
pub(crate) enum CheckConfig {
    /// Prints all checks.
    List,
    /// Runs them.
    Run(Box<RunConfig>),
}

/// What to check, and with what.
pub(crate) struct RunConfig {
    pub(crate) command: CommandLine,
    pub(crate) inputs: Inputs,
    /// Checks to run. Empty: all of them.
    pub(crate) only: Vec<&'static str>,
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

/// Prints the checks, or runs them and prints the report. Returns whether none failed.
pub(crate) async fn run(config: &CheckConfig) -> Result<bool, CheckFailed> {
    match config {
        CheckConfig::List => {
            let table = Table::new(false);
            let lines: String = CHECKS.iter().map(|check| table.listed(check)).collect();
            output::write_stdout(lines.as_bytes())?;
            Ok(true)
        }
        CheckConfig::Run(config) => config.run().await,
    }
}

impl RunConfig {
    async fn run(&self) -> Result<bool, CheckFailed> {
        // A file may be a pipe that another program has not written yet.
        let inputs = self.inputs.clone();
        let read = background::run(move || documents::read(&inputs)).await;
        let documents = read.unwrap_or(Err(Unreadable::Panicked.into()))?;
        let timeouts =
            Timeouts { start: self.start_timeout, response: self.timeout, exit: self.kill_grace };
        let checks: Vec<_> = CHECKS.iter().filter(|check| self.includes(check.name)).collect();
        let progress = Progress::new(checks.len());
        let mut session = Session::new(self.command.clone(), timeouts, documents, progress);
        let mut report = Report::new(self.format());
        let began = Instant::now();
        for check in checks {
            session.progress.begin(check.name);
            let started = Instant::now();
            let verdict = if self.skip.contains(&check.name) {
                Err(NotPassed::skipped("left out by --skip"))
            } else {
                (check.run)(&mut session).await
            };
            if matches!(verdict, Err(NotPassed::Failed(_))) {
                session.failed.push(check.name);
            }
            session.progress.end(|| report.add(check, verdict, started.elapsed()))?;
        }
        session.progress.clear();
        report.finish(&self.command.to_string(), session.declared.as_ref(), began.elapsed())?;
        Ok(report.passed())
    }

    /// Whether a check runs. The first ones always do: the others need what they find out.
    fn includes(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.contains(&name) || NEEDED.contains(&name)
    }

    fn format(&self) -> Format {
        let color = output::is_colored(self.color, &std::io::stdout());
        if self.json { Format::Json } else { Format::Table(Table::new(color)) }
    }
}

/// The checks whose findings the others need.
const NEEDED: [&str; 2] = ["handshake", "call"];
