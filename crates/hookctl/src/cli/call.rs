//! The command line of `call`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ColorChoice};
use sidecar_shim::backend::HookSource;
use sidecar_shim::cli::values::{parse_time, usage};
use sidecar_shim::cli::{HookOptions, LogOptions, Mode};
use sidecar_shim::error::StartError;
use sidecar_shim::hook::HookName;

use super::inputs::InputArgs;
use crate::call::{CallConfig, HookProgram, Target};

/// Help of `--mode`, whose default is not the shim's.
pub(super) const MODE_HELP: &str =
    "How the hook runs: exec or persistent (default: hookctl starts it once to find out)";

#[derive(Args)]
pub(super) struct CallArgs {
    /// Hook: onDefineDomain, preCloudInitIso, or a node hook such as preVMStart
    hook: String,

    #[command(flatten)]
    inputs: InputArgs,

    /// Call onDefineDomain by the Plugins API in this context: Boot, `MigrationSource` or
    /// `MigrationTarget`
    #[arg(long, value_name = "CONTEXT")]
    context: Option<String>,

    /// Socket of a running shim to call, instead of starting one
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,

    /// Number of calls, each on its own connection; prints p50 and p99
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000)
    )]
    repeat: u32,

    /// Deadline of each call; KubeVirt's is 60s
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_time)]
    timeout: Duration,

    /// When to colour the diff
    #[arg(long, value_name = "WHEN", default_value_t = ColorChoice::Auto)]
    color: ColorChoice,

    #[command(flatten)]
    hooks: HookOptions,

    #[command(flatten)]
    log: LogOptions,

    /// Command of the worker or hook program
    #[arg(last = true, value_name = "COMMAND")]
    words: Vec<OsString>,
}

impl CallArgs {
    /// Returns whether hooks are denied new privileges, what is logged, and the rest.
    pub(super) fn resolve(mut self) -> Result<(bool, LogOptions, CallConfig), StartError> {
        let hook = HookName::parse(&self.hook).ok_or_else(|| unknown_hook(&self.hook))?;
        if self.context.is_some() && hook != HookName::ON_DEFINE_DOMAIN {
            return Err(usage("--context goes with onDefineDomain only"));
        }
        self.inputs.check_for(&hook)?;
        let target = match self.socket.take() {
            Some(_) if !self.words.is_empty() => {
                return Err(usage("give either --socket or a command: a running shim has its own"));
            }
            // It declares its hooks itself.
            Some(socket) => Target::Running(socket),
            None => self.private(&hook)?,
        };
        let config = CallConfig {
            hook,
            inputs: self.inputs.into(),
            context: self.context,
            target,
            repeat: self.repeat,
            timeout: self.timeout,
            color: self.color,
        };
        Ok((self.hooks.no_new_privs, self.log, config))
    }

    /// A shim that is started for the call.
    fn private(&mut self, hook: &HookName) -> Result<Target, StartError> {
        let command = self.hooks.worker.command(std::mem::take(&mut self.words))?;
        // A worker declares its hooks. A program would run under any name, a misspelt one too.
        let program_may_run = self.hooks.knows(hook);
        let program = match (self.hooks.mode, command) {
            (None, Some(command)) => HookProgram::Undetermined { command, program_may_run },
            (Some(Mode::Persistent), Some(command)) => HookSource::Persistent(command).into(),
            (Some(Mode::Persistent), None) => {
                HookSource::PersistentInPath(self.hooks.in_path()).into()
            }
            (Some(Mode::Exec) | None, _) if !program_may_run => {
                return Err(unknown_hook(&self.hook));
            }
            (Some(Mode::Exec), Some(command)) => HookSource::ExecOne(hook.clone(), command).into(),
            (Some(Mode::Exec) | None, None) => HookSource::Exec(self.hooks.in_path()).into(),
        };
        let call_timeout = self.hooks.call_timeout;
        Ok(Target::Private { program, settings: self.hooks.settings()?, call_timeout })
    }
}

/// The error for a name that no hook has, or that no program may be named after.
pub(crate) fn unknown_hook(name: &str) -> StartError {
    usage(format!(
        "unknown hook {name:?}: hooks are onDefineDomain, preCloudInitIso, node hooks such as \
         preVMStart, and in exec mode those that --node-hooks names"
    ))
}
