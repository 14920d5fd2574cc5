//! `hookctl` is the tool for authors of hooks: it calls a hook as KubeVirt would, and checks whether a
//! worker does what `protocol.md` demands. It runs the shim's own code, from its library.
//!
//! ```text
//! cli ─┬─▶ call  ─▶ detect ─┐
//!      └─▶ check ───────────┴─▶ probe, inputs, normalize ─▶ sidecar_shim
//! ```

#![forbid(unsafe_code)]

mod call;
mod check;
mod cli;
mod color;
mod detect;
mod inputs;
mod normalize;
mod probe;
mod samples;

use std::fmt::Display;
use std::process::ExitCode;

use sidecar_shim::error::StartError;
use sidecar_shim::{backend, logging};
use tokio::signal::unix::{SignalKind, signal};

use self::cli::{Action, Config};

fn main() -> ExitCode {
    let config = match Config::from_environment() {
        Ok(config) => config,
        Err(refusal) => return refusal.report(),
    };
    run(config).unwrap_or_else(fail)
}

fn run(config: Config) -> Result<ExitCode, StartError> {
    // It holds for one thread and those that it starts, so it comes first.
    if config.no_new_privs {
        backend::renounce_new_privileges()?;
    }
    // Dropped last, so that the last lines are written.
    let _log = logging::start(config.log_format, config.verbosity);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| StartError::System { what: "start", source })?;
    runtime.block_on(async {
        backend::reap_orphans()?;
        Ok(match config.action {
            Action::Call(config) => call::run(*config).await,
            Action::Check(config) => check::run(*config).await,
        })
    })
}

/// Prints a line for the user.
#[expect(clippy::print_stderr, reason = "the user reads this, whatever the log's level")]
fn say(line: impl Display) {
    eprintln!("hookctl: {line}");
}

/// Reports an error to the user.
fn fail(error: impl Display) -> ExitCode {
    say(error);
    ExitCode::FAILURE
}

/// Waits for the user to interrupt the command.
async fn interrupted() {
    match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
        (Ok(mut interrupt), Ok(mut terminate)) => {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        }
        _ => std::future::pending().await,
    }
}
