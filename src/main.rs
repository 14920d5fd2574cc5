//! Parses, sets up logging, runs, and turns the outcome into an exit status.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use sidecar_shim::cli::{Action, Config};
use sidecar_shim::{backend, commands, logging};

fn main() -> ExitCode {
    let config = match Config::from_environment() {
        Ok(config) => config,
        Err(refusal) => return refusal.report(),
    };
    // It holds for one thread and those that it starts, so it comes before all others.
    if config.no_new_privs
        && let Err(error) = backend::renounce_new_privileges()
    {
        return commands::fail(error);
    }
    // Dropped last, so that the last lines are written.
    let _log = logging::start(config.log_format, config.verbosity);
    // One thread: the shim lives in a fifth of a CPU beside a virtual machine.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return commands::fail(format_args!("cannot start: {error}")),
    };
    runtime.block_on(async {
        if let Err(error) = backend::reap_orphans() {
            return commands::fail(error);
        }
        match config.action {
            Action::Serve(config) => commands::serve::run(config).await,
            Action::Call(config) => commands::call::run(*config).await,
        }
    })
}
