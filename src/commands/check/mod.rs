//! Tries a worker: does it do what `protocol.md` demands? Each check starts the
//! worker, or goes on with the process that the last one has left, sends what the protocol allows (and what
//! it forbids), and looks at what comes back. `docs/check.md` lists them.
//!
//! ```text
//! catalog ─▶ handshake, messages, contents, framing, optional, life ─▶ bench ─▶ peer ─▶ backend::Probe
//! ```
//!
//! Every wait has a limit, so the checks end whatever the worker does. Its processes are killed when they
//! are dropped, and reaped before this ends.

mod bench;
mod catalog;
mod contents;
mod documents;
mod framing;
mod handshake;
mod life;
mod marks;
mod messages;
mod notes;
mod optional;
mod peer;
mod progress;
mod report;
mod verdict;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use tokio::time::Instant;

use self::bench::Bench;
use self::catalog::CHECKS;
use self::documents::{Documents, Unusable};
use self::peer::Limits;
use self::progress::Progress;
use self::report::{Report, Styling};
use self::verdict::Stop;
use super::call::Color;
use super::inputs::Inputs;
use crate::backend::{CommandLine, children_are_reaped};

/// The name of a check that there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckName(&'static str);

impl CheckName {
    /// Takes a name from outside. `None` if there is no such check.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        CHECKS.iter().find(|check| check.name == name).map(|check| Self(check.name))
    }
}

/// What to check, and with what.
pub struct CheckConfig {
    /// The worker.
    pub command: CommandLine,
    /// What hooks are called with.
    pub inputs: Inputs,
    /// Checks that are left out.
    pub skip: Vec<CheckName>,
    /// Whether the result is JSON.
    pub json: bool,
    /// When the table is coloured.
    pub color: Color,
    /// How long the answer to `initialize` may take.
    pub start_timeout: Duration,
    /// How long any other answer may take.
    pub timeout: Duration,
    /// How long a worker may take to end.
    pub kill_grace: Duration,
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
pub async fn run(config: CheckConfig) -> ExitCode {
    let outcome = tokio::select! {
        outcome = check(&config) => outcome,
        () = super::interrupted() => Err(CheckFailed::Interrupted),
    };
    // Whatever was being tried was killed when it was dropped.
    children_are_reaped().await;
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => super::fail(error),
    }
}

async fn check(config: &CheckConfig) -> Result<bool, CheckFailed> {
    let documents = Documents::read(&config.inputs)?;
    let limits =
        Limits { start: config.start_timeout, answer: config.timeout, end: config.kill_grace };
    let progress = Progress::new(CHECKS.len());
    let mut bench = Bench::new(config.command.clone(), limits, documents, progress);
    let mut report = Report::new(config.styling());
    for check in CHECKS {
        bench.progress.begin(check.name);
        let started = Instant::now();
        let verdict = if config.skip.contains(&CheckName(check.name)) {
            Err(Stop::skipped("left out by --skip"))
        } else {
            (check.run)(&mut bench).await
        };
        if matches!(verdict, Err(Stop::Failed(_))) {
            bench.note_failure(check);
        }
        bench.progress.end(|| report.add(check, verdict, started.elapsed()))?;
    }
    bench.progress.clear();
    report.finish(&config.command.to_string(), bench.declared.as_ref())?;
    Ok(report.passed())
}

impl CheckConfig {
    fn styling(&self) -> Styling {
        let color = match self.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => {
                std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
            }
        };
        if self.json { Styling::Json } else { Styling::Table { color } }
    }
}
