//! `hookctl` is the tool for authors of hooks: it calls a hook as KubeVirt would, checks whether a
//! worker follows `protocol.md`, and generates the manifests for a cluster. It runs the shim's own
//! code, from its library.
//!
//! ```text
//! cli ─┬─▶ call ─▶ detect ─┐
//!      ├─▶ init
//!      ├─▶ generate ───────┤
//!      ├─▶ test ─▶ cases ──┤
//!      └─▶ check ──────────┴─▶ probe, inputs, normalize, … ─▶ sidecar_shim
//! ```

#![forbid(unsafe_code)]

mod background;
mod call;
mod cases;
mod check;
mod cli;
mod detect;
mod files;
mod generate;
mod init;
mod inputs;
mod json;
mod normalize;
mod output;
mod private_shim;
mod probe;
mod rewrite;
mod sample;
mod test;

use std::error::Error;
use std::fmt::Display;
use std::process::ExitCode;
use std::time::Duration;

use sidecar_shim::commands::serve::Signals;
use sidecar_shim::error::StartError;
use sidecar_shim::logging::Log;
use sidecar_shim::text::escape;
use sidecar_shim::{backend, logging};
use tracing::subscriber::{NoSubscriber, set_default};

use self::cli::{Action, Config};
use self::test::Tested;

fn main() -> ExitCode {
    match Config::from_environment() {
        Ok(config) => run(&config).unwrap_or_else(fail),
        Err(status) => status,
    }
}

fn run(config: &Config) -> Result<ExitCode, StartError> {
    // It holds for one thread and those that it starts, so it comes first.
    if config.no_new_privs {
        backend::renounce_new_privileges()?;
    }
    // Dropped last, so that the last lines are written.
    let log = logging::start(config.log_format, config.verbosity);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| StartError::System { what: "start", source })?;
    runtime.block_on(async {
        backend::reap_orphans()?;
        let mut signals = Signals::new()?;
        let outcome = tokio::select! {
            outcome = act(&config.action, &log) => Ok(outcome),
            (number, _) = signals.next() => Err(number),
        };
        // A process that ignores SIGTERM has its grace when its call is dropped, but not when the
        // user wants to stop. What it left on its stderr is not logged.
        if outcome.is_err() {
            backend::kill_processes();
        }
        let _quiet = outcome.is_err().then(|| set_default(NoSubscriber::new()));
        tokio::select! {
            () = backend::stop_orphans(Duration::ZERO) => {}
            // A second signal skips the wait.
            _ = signals.next() => {}
        }
        Ok(match outcome {
            Ok(Ok(status)) => status,
            Ok(Err(error)) => {
                fail(error);
                status_of_error(&config.action)
            }
            Err(signal) => {
                // A reader that has stalled must not keep the program.
                logging::print(b"hookctl: interrupted\n");
                // As shells report it.
                ExitCode::from(128 + signal)
            }
        })
    })
}

/// Runs the command. Returns the exit status; an error is not reported yet.
async fn act(action: &Action, log: &Log) -> Result<ExitCode, Box<dyn Error>> {
    match action {
        Action::Call(config) => call::run(config, log).await?,
        Action::List(config) => call::list(config).await?,
        Action::Check(config) => {
            let passed = check::run(config).await?;
            return Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Action::Init(config) => init::run(config)?,
        Action::Sample(sample, for_plugin) => sample::print(*sample, *for_plugin)?,
        Action::Completions(shell) => output::write_stdout(&cli::man::completions(*shell))?,
        Action::Man(directory) => cli::man::write(directory)?,
        Action::Generate(config) => generate::run(config).await?,
        Action::Test(config) => return Ok(ExitCode::from(test::run(config).await? as u8)),
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns the exit status for an error that [`act`] returned.
fn status_of_error(action: &Action) -> ExitCode {
    match action {
        // A case that fails has 1.
        Action::Test(_) => ExitCode::from(Tested::Broken as u8),
        _ => ExitCode::FAILURE,
    }
}

/// Prints a line for the user, who reads it at every log level.
fn say(line: impl Display) {
    output::write_stderr(&escape(&format!("hookctl: {line}\n")));
}

/// Reports an error to the user.
fn fail(error: impl Display) -> ExitCode {
    say(error);
    ExitCode::FAILURE
}
