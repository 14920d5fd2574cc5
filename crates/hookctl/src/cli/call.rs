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
use tracing::Level;

use super::Action;
use super::inputs::InputArgs;
use crate::call::{CallConfig, HookProgram, ListConfig, Target, name, unknown_hook};
use crate::inputs::STDIN;

/// Help of `--mode`. The shim's default is another one.
pub(super) const MODE_HELP: &str = "How the hook runs: exec or persistent (default: detected)";

#[derive(Args)]
pub(super) struct CallArgs {
    /// onDefineDomain, preCloudInitIso, or a node hook (preVMStart)
    #[arg(required_unless_present = "list")]
    hook: Option<String>,

    /// Socket of a running shim to call instead
    #[arg(long, value_name = "PATH", value_parser = socket_parser())]
    socket: Option<PathBuf>,

    /// Print which hooks can be called
    #[arg(long, conflicts_with_all = ["hook", "context", "output", "repeat", "watch"])]
    list: bool,

    /// Call again when hook or document changes
    #[arg(long, short = 'w')]
    watch: bool,

    /// Report as one JSON object on stdout
    #[arg(long)]
    json: bool,

    // As `help`, so that it has no backticks.
    #[arg(
        long,
        value_name = "CONTEXT",
        help = "Plugins API's context: Boot, MigrationSource or MigrationTarget"
    )]
    context: Option<String>,

    /// File for the result, or - (default: stdout, if not a terminal)
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
    pub(super) fn resolve(mut self) -> Result<(bool, LogOptions, Action), StartError> {
        if self.socket.is_some() && !self.words.is_empty() {
            return Err(usage("give either --socket or a command: a running shim has its own"));
        }
        let Some(text) = self.hook.take() else {
            let target = self.target(None)?;
            let config = ListConfig { target, json: self.json };
            return Ok((self.hooks.no_new_privs, self.log, Action::List(Box::new(config))));
        };
        let hook = name::parse(&text).ok_or_else(|| unknown_hook(&text))?;
        if self.context.is_some() && hook.kind() != HookKind::Domain {
            return Err(usage("--context goes with onDefineDomain only"));
        }
        if self.json && self.output.as_ref().is_some_and(|path| path.as_os_str() == STDIN) {
            return Err(usage(
                "--json writes the report to stdout, and the result in it: give --output a file",
            ));
        }
        self.inputs.check_for(&hook)?;
        self.inputs.check_stdin(self.watch)?;
        self.inputs.check_keys()?;
        let target = self.target(Some(&hook))?;
        let config = CallConfig {
            hook,
            inputs: self.inputs.into(),
            context: self.context,
            target,
            repeat: self.repeat,
            timeout: self.timeout,
            color: self.color,
            output: self.output,
            json: self.json,
            watch: self.watch,
            shows_faults: self.log.level().is_some_and(|level| level >= Level::DEBUG),
        };
        Ok((self.hooks.no_new_privs, self.log, Action::Call(Box::new(config))))
    }

    /// Returns the shim to call, or to list the hooks of.
    fn target(&mut self, hook: Option<&HookName>) -> Result<Target, StartError> {
        if let Some(socket) = self.socket.take() {
            return Ok(Target::Running(socket));
        }
        Ok(Target::Private {
            // Any program has this hook.
            program: self.program(hook.unwrap_or(&HookName::ON_DEFINE_DOMAIN))?,
            settings: self.hooks.settings(Memory::new(default_memory_budget()))?,
            call_timeout: self.hooks.call_timeout,
        })
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
                return Err(unknown_hook(hook.as_str()));
            }
            (Some(Mode::Exec), Some(command)) => HookSource::ExecOne(hook.clone(), command),
            (Some(Mode::Exec) | None, None) => HookSource::Exec(self.hooks.in_path()),
        }))
    }
}
