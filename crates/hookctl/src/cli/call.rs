//! The command line of `call`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ColorChoice};
use sidecar_shim::admission::Memory;
use sidecar_shim::backend::HookSource;
use sidecar_shim::cli::values::{parse_time, socket_parser, usage};
use sidecar_shim::cli::{HookOptions, LogOptions, Mode};
use sidecar_shim::error::StartError;
use sidecar_shim::hook::{HookKind, HookName};
use sidecar_shim::server::default_memory_budget;

use super::inputs::InputArgs;
use crate::call::{CallConfig, HookProgram, Target, unknown_hook};

/// Help of `--mode`. The shim's default is another one.
pub(super) const MODE_HELP: &str = "How the hook runs: exec or persistent (default: detected)";

#[derive(Args)]
pub(super) struct CallArgs {
    /// onDefineDomain, preCloudInitIso, or a node hook (preVMStart)
    hook: String,

    /// Socket of a running shim to call instead
    #[arg(long, value_name = "PATH", value_parser = socket_parser())]
    socket: Option<PathBuf>,

    // As `help`, so that it has no backticks.
    #[arg(
        long,
        value_name = "CONTEXT",
        help = "Plugins API's context: Boot, MigrationSource or MigrationTarget"
    )]
    context: Option<String>,

    /// File for the result (default: stdout, if not a terminal)
    #[arg(long, short = 'o', value_name = "FILE")]
    output: Option<PathBuf>,

    /// Number of calls; prints their times
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000)
    )]
    repeat: u32,

    /// Deadline of each call
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_time)]
    timeout: Duration,

    /// Colours of the report: auto, always or never
    #[arg(
        long,
        value_name = "WHEN",
        hide_possible_values = true,
        default_value_t = ColorChoice::Auto
    )]
    color: ColorChoice,

    /// Worker, or program for each call
    #[arg(last = true, value_name = "COMMAND")]
    words: Vec<OsString>,

    #[command(flatten)]
    inputs: InputArgs,

    #[command(flatten)]
    hooks: HookOptions,

    #[command(flatten)]
    log: LogOptions,
}

impl CallArgs {
    /// Returns whether hooks are denied new privileges, what is logged, and the rest.
    pub(super) fn resolve(mut self) -> Result<(bool, LogOptions, CallConfig), StartError> {
        let hook = HookName::parse(&self.hook).ok_or_else(|| unknown_hook(&self.hook))?;
        if self.context.is_some() && hook.kind() != HookKind::Domain {
            return Err(usage("--context goes with onDefineDomain only"));
        }
        self.inputs.check_for(&hook)?;
        let target = match self.socket.take() {
            Some(_) if !self.words.is_empty() => {
                return Err(usage("give either --socket or a command: a running shim has its own"));
            }
            Some(socket) => Target::Running(socket),
            None => Target::Private {
                program: self.program(&hook)?,
                settings: self.hooks.settings(Memory::new(default_memory_budget()))?,
                call_timeout: self.hooks.call_timeout,
            },
        };
        let config = CallConfig {
            hook,
            inputs: self.inputs.into(),
            context: self.context,
            target,
            repeat: self.repeat,
            timeout: self.timeout,
            color: self.color,
            output: self.output,
        };
        Ok((self.hooks.no_new_privs, self.log, config))
    }

    /// Returns what runs the hook.
    fn program(&mut self, hook: &HookName) -> Result<HookProgram, StartError> {
        let command = self.hooks.worker.command(std::mem::take(&mut self.words))?;
        // A worker declares its hooks. A program would run under any name, a misspelt one too.
        let program_may_run = self.hooks.knows(hook);
        Ok(HookProgram::Known(match (self.hooks.mode, command) {
            (None, Some(command)) => {
                return Ok(HookProgram::Undetermined { command, program_may_run });
            }
            (Some(Mode::Persistent), Some(command)) => HookSource::Persistent(command),
            (Some(Mode::Persistent), None) => HookSource::PersistentInPath(self.hooks.in_path()),
            (Some(Mode::Exec) | None, _) if !program_may_run => {
                return Err(unknown_hook(&self.hook));
            }
            (Some(Mode::Exec), Some(command)) => HookSource::ExecOne(hook.clone(), command),
            (Some(Mode::Exec) | None, None) => HookSource::Exec(self.hooks.in_path()),
        }))
    }
}
