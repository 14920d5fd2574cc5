//! The command line of `check`.

use std::ffi::OsString;
use std::time::Duration;

use clap::Args;

use super::call::ColorChoice;
use super::inputs::InputArgs;
use super::options::Options;
use super::values::{parse_time, usage};
use crate::commands::check::{CheckConfig, CheckName};
use crate::error::StartError;

/// What `check` takes beside the options of serving.
#[derive(Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    inputs: InputArgs,

    /// Leave these checks out
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', value_parser = parse_name)]
    skip: Vec<CheckName>,

    /// Print one JSON object instead of the table
    #[arg(long)]
    json: bool,

    /// How long one answer may take; that to initialize has --start-timeout, and an exit --kill-grace
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_time)]
    timeout: Duration,

    /// When the table is coloured
    #[arg(long, value_enum, default_value_t = ColorChoice::Auto)]
    color: ColorChoice,

    /// The worker's command
    #[arg(last = true, value_name = "WORKER")]
    words: Vec<OsString>,
}

impl CheckArgs {
    pub(super) fn resolve(self, options: &Options) -> Result<CheckConfig, StartError> {
        let command = options.command_line(self.words)?.ok_or_else(|| {
            usage("no worker: name one behind `--` (sidecar-shim check -- python3 /hooks/h.py)")
        })?;
        let settings = options.limits()?.settings;
        Ok(CheckConfig {
            command,
            inputs: self.inputs.into(),
            skip: self.skip,
            json: self.json,
            color: self.color.resolve(),
            start_timeout: settings.start_timeout,
            timeout: self.timeout,
            kill_grace: settings.kill_grace,
        })
    }
}

fn parse_name(text: &str) -> Result<CheckName, String> {
    CheckName::parse(text)
        .ok_or_else(|| "there is no such check; docs/check.md lists them".to_owned())
}
