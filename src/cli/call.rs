//! The command line of `call`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::inputs::InputArgs;
use super::options::{Mode, Options};
use super::values::{parse_time, usage};
use crate::backend::Spec;
use crate::commands::call::{CallConfig, Color, Target};
use crate::error::StartError;
use crate::hook::HookName;

/// What `call` takes beside the options of serving.
#[derive(Args)]
pub(super) struct CallArgs {
    /// The hook: onDefineDomain, preCloudInitIso, or a node hook such as preVMStart
    hook: String,

    #[command(flatten)]
    inputs: InputArgs,

    /// Call onDefineDomain by the Plugins API, and say why: `Boot`, `MigrationSource`
    /// or `MigrationTarget`
    #[arg(long, value_name = "CONTEXT")]
    context: Option<String>,

    /// Call the shim that runs behind this socket, instead of starting one
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,

    /// Call this many times, each on a connection of its own, and print p50 and p99
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000)
    )]
    repeat: u32,

    /// The deadline of each call; KubeVirt's is 60s
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_time)]
    timeout: Duration,

    /// When the diff is coloured
    #[arg(long, value_enum, default_value_t = ColorChoice::Auto)]
    color: ColorChoice,

    /// The worker's command, or in exec mode the hook program's
    #[arg(last = true, value_name = "WORKER")]
    words: Vec<OsString>,
}

#[derive(Clone, Copy, ValueEnum)]
pub(super) enum ColorChoice {
    Auto,
    Always,
    Never,
}

impl ColorChoice {
    pub(super) fn resolve(self) -> Color {
        match self {
            Self::Auto => Color::Auto,
            Self::Always => Color::Always,
            Self::Never => Color::Never,
        }
    }
}

impl CallArgs {
    pub(super) fn resolve(self, options: &Options) -> Result<CallConfig, StartError> {
        // A worker or a running shim says by itself which hooks it has. A program would be run for
        // whatever it is called, were it misspelt.
        let any = options.mode() == Mode::Persistent || self.socket.is_some();
        let hook = HookName::parse(&self.hook).filter(|hook| any || options.knows(hook));
        let hook = hook.ok_or_else(|| {
            let name = &self.hook;
            usage(format!(
                "unknown hook {name:?}: hooks are onDefineDomain, preCloudInitIso, node hooks such as \
                 preVMStart, and in exec mode those that --node-hooks names"
            ))
        })?;
        if self.context.is_some() && hook != HookName::ON_DEFINE_DOMAIN {
            return Err(usage("--context goes with onDefineDomain only"));
        }
        self.inputs.check_for(&hook)?;
        let target = match self.socket {
            Some(_) if !self.words.is_empty() => {
                return Err(usage("give either --socket or a worker: a running shim has its own"));
            }
            Some(socket) => Target::Running(socket),
            None => {
                let spec = match (options.mode(), options.command_line(self.words)?) {
                    (Mode::Exec, Some(command)) => Spec::ExecOne(hook.clone(), command),
                    (Mode::Exec, None) => Spec::Exec(options.in_path()),
                    (Mode::Persistent, Some(command)) => Spec::Persistent(command),
                    (Mode::Persistent, None) => Spec::PersistentInPath(options.in_path()),
                };
                Target::Private(spec, options.limits()?)
            }
        };
        Ok(CallConfig {
            hook,
            inputs: self.inputs.into(),
            context: self.context,
            target,
            repeat: self.repeat,
            timeout: self.timeout,
            color: self.color.resolve(),
        })
    }
}
