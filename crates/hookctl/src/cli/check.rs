//! The command line of `check`.

use std::ffi::OsString;
use std::time::Duration;

use clap::{Args, ColorChoice};
use sidecar_shim::cli::values::{parse_time, usage};
use sidecar_shim::cli::{LogOptions, WorkerOptions};
use sidecar_shim::error::StartError;

use super::inputs::InputArgs;
use crate::check::{self, CheckConfig, RunConfig};

#[derive(Args)]
pub(super) struct CheckArgs {
    /// Print the names of all checks
    #[arg(long, exclusive = true)]
    list: bool,

    /// Checks to run
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', value_parser = parse_name)]
    only: Vec<&'static str>,

    /// Checks to leave out
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', value_parser = parse_name)]
    skip: Vec<&'static str>,

    /// One JSON object instead of the table
    #[arg(long)]
    json: bool,

    /// Timeout for any other response than initialize's
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_time)]
    timeout: Duration,

    /// Colours of the table: auto, always or never
    #[arg(
        long,
        value_name = "WHEN",
        hide_possible_values = true,
        default_value_t = ColorChoice::Auto
    )]
    color: ColorChoice,

    /// Worker command
    #[arg(last = true, value_name = "WORKER")]
    words: Vec<OsString>,

    #[command(flatten)]
    inputs: InputArgs,

    #[command(flatten)]
    worker: WorkerOptions,

    #[command(flatten)]
    log: LogOptions,
}

impl CheckArgs {
    /// Returns what is logged, and the rest.
    pub(super) fn resolve(self) -> Result<(LogOptions, CheckConfig), StartError> {
        if self.list {
            return Ok((self.log, CheckConfig::List));
        }
        let command = self.worker.command(self.words)?.ok_or_else(|| {
            usage("no worker: give its command after `--` (hookctl check -- python3 /hooks/h.py)")
        })?;
        self.inputs.check_stdin(false)?;
        self.inputs.check_keys()?;
        let config = RunConfig {
            command,
            inputs: self.inputs.into(),
            only: self.only,
            skip: self.skip,
            json: self.json,
            color: self.color,
            start_timeout: self.worker.start_timeout,
            timeout: self.timeout,
            kill_grace: self.worker.kill_grace,
        };
        Ok((self.log, CheckConfig::Run(Box::new(config))))
    }
}

fn parse_name(name: &str) -> Result<&'static str, String> {
    check::find(name).ok_or_else(|| "unknown check; `hookctl check --list` shows them".to_owned())
}
