//! The command line of `check`.

use std::ffi::OsString;
use std::time::Duration;

use clap::{Args, ColorChoice};
use sidecar_shim::cli::values::{parse_time, usage};
use sidecar_shim::cli::{LogOptions, WorkerOptions};
use sidecar_shim::error::StartError;

use super::inputs::InputArgs;
use crate::check::{CheckConfig, CheckName};

#[derive(Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    inputs: InputArgs,

    /// Checks to leave out
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', value_parser = parse_name)]
    skip: Vec<CheckName>,

    /// Print one JSON object instead of the table
    #[arg(long)]
    json: bool,

    /// Timeout for one answer, other than initialize's (--start-timeout)
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_time)]
    timeout: Duration,

    /// When to colour the table
    #[arg(long, value_name = "WHEN", default_value_t = ColorChoice::Auto)]
    color: ColorChoice,

    #[command(flatten)]
    worker: WorkerOptions,

    #[command(flatten)]
    log: LogOptions,

    /// Command of the worker
    #[arg(last = true, value_name = "WORKER")]
    words: Vec<OsString>,
}

impl CheckArgs {
    /// Returns what is logged, and the rest.
    pub(super) fn resolve(self) -> Result<(LogOptions, CheckConfig), StartError> {
        let command = self.worker.command(self.words)?.ok_or_else(|| {
            usage("no worker: name one behind `--` (hookctl check -- python3 /hooks/h.py)")
        })?;
        let config = CheckConfig {
            command,
            inputs: self.inputs.into(),
            skip: self.skip,
            json: self.json,
            color: self.color,
            start_timeout: self.worker.start_timeout,
            timeout: self.timeout,
            kill_grace: self.worker.kill_grace,
        };
        Ok((self.log, config))
    }
}

fn parse_name(text: &str) -> Result<CheckName, String> {
    CheckName::parse(text)
        .ok_or_else(|| "there is no such check; docs/check.md lists them".to_owned())
}
