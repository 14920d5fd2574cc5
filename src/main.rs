//! Parses the command line, starts logging, runs, and turns the outcome into an exit status.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use sidecar_shim::cli::{Action, Config};
use sidecar_shim::error::StartError;
use sidecar_shim::{backend, commands, logging};

fn main() -> ExitCode {
    let mut config = match Config::from_environment() {
        Ok(config) => config,
        Err(status) => return status,
    };
    let (log_format, termination_log) = (config.log_format, config.termination_log.take());
    match run(config) {
        Ok(code) => code,
        Err(error) => commands::fail_to_start(error, log_format, termination_log.as_deref()),
    }
}

fn run(config: Config) -> Result<ExitCode, StartError> {
    // Both must happen while there is one thread.
    backend::prepare_environment();
    if config.no_new_privs {
        backend::renounce_new_privileges()?;
    }
    // Dropped last, which writes the last lines.
    let log = logging::start(config.log_format, config.verbosity);
    for warning in &config.unknown_variables {
        tracing::warn!("{warning}");
    }
    // One thread: the shim lives in a fifth of a CPU beside a virtual machine.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| StartError::System { what: "start", source })?;
    runtime.block_on(async {
        match config.action {
            Action::Serve(config) => {
                // It batches lines; `health` writes for people, in order with their own output.
                tokio::spawn(log.writer());
                backend::reap_orphans()?;
                commands::serve::run(*config).await?;
                Ok(ExitCode::SUCCESS)
            }
            Action::Health(config) => Ok(commands::health::run(config).await),
            Action::Status(config) => Ok(commands::status::run(config).await),
        }
    })
}
