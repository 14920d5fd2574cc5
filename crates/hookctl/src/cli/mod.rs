//! The command line: arguments, and the environment for the shim's own options, turned into a plain
//! [`Config`].

#![expect(clippy::disallowed_types, reason = "this is the layer for clap")]

mod call;
mod check;
mod generate;
mod help;
mod init;
mod inputs;
pub(crate) mod man;
mod sample;
mod test;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use sidecar_shim::cli::{
    HookOptions, LogOptions, check_one_worker, error_of_variable, unknown_variables, with_variable,
};
use sidecar_shim::error::StartError;
use sidecar_shim::logging::{Format, Verbosity};
use tracing::Level;

use self::call::CallArgs;
use self::check::CheckArgs;
use self::generate::GenerateArgs;
use self::init::InitArgs;
use self::sample::SampleArgs;
use self::test::TestArgs;
use crate::call::{CallConfig, ListConfig};
use crate::check::CheckConfig;
use crate::generate::GenerateConfig;
use crate::init::InitConfig;
use crate::sample::Sample;
use crate::test::TestConfig;

/// Heading of the shim's options in a command's help.
const SHIM_OPTIONS: &str = "Options of sidecar-shim (also read from SIDECAR_SHIM_<OPTION>)";

/// The whole command line, validated.
pub(crate) struct Config {
    pub(crate) log_format: Format,
    pub(crate) verbosity: Verbosity,
    /// Whether setuid programs, and those with capabilities, run without them.
    pub(crate) no_new_privs: bool,
    pub(crate) action: Action,
}

/// The command to run.
pub(crate) enum Action {
    Call(Box<CallConfig>),
    /// Prints the hooks that can be called.
    List(Box<ListConfig>),
    Check(Box<CheckConfig>),
    Generate(Box<GenerateConfig>),
    Init(InitConfig),
    /// The document, and whether it is for a Plugin.
    Sample(Sample, bool),
    Completions(clap_complete::Shell),
    /// Writes the man pages into this directory.
    Man(PathBuf),
    Test(Box<TestConfig>),
}

impl Config {
    /// Returns the configuration of a command that runs no hook.
    fn of_files(action: Action) -> Self {
        let verbosity = Verbosity { shim: Level::WARN, hooks: Level::WARN, calls: None };
        Self { log_format: Format::Text, verbosity, no_new_privs: false, action }
    }

    /// Reads the process's arguments and environment. If there is nothing to run, reports why, and
    /// returns the exit status: 0 for help, 2 for a command line that cannot be parsed, 1 for
    /// options that contradict each other.
    pub(crate) fn from_environment() -> Result<Self, ExitCode> {
        let args: Vec<_> = std::env::args_os().collect();
        let matches =
            command(wants_short_help(&args)).try_get_matches_from(&args).and_then(|matches| {
                matches
                    .subcommand()
                    .map_or(Ok(()), |(_, of_command)| check_one_worker(of_command))?;
                Ok(matches)
            });
        let cli = matches.and_then(|matches| Cli::from_arg_matches(&matches)).map_err(|error| {
            match error_of_variable(&error, &args) {
                Some(text) => crate::output::write_stderr(&text),
                None => drop(error.print()),
            }
            ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
        })?;
        if matches!(cli.command, Command::Call(_) | Command::Check(_) | Command::Test(_)) {
            unknown_variables().into_iter().for_each(crate::say);
        }
        let usage = cli.command.status_of_usage_error();
        cli.command.resolve().map_err(|error| {
            crate::fail(error);
            usage
        })
    }
}

/// The command line's definition. The shim's options read the shim's environment variables;
/// hookctl's own do not.
fn command(wants_short_help: bool) -> clap::Command {
    let shim = LogOptions::augment_args(HookOptions::augment_args(clap::Command::new("shim")));
    let options: BTreeSet<_> = shim.get_arguments().map(|arg| arg.get_id().clone()).collect();
    let command = Cli::command().mut_subcommands(|command| {
        command.mut_args(|arg| match arg.get_id() {
            id if !options.contains(id) => arg,
            id if id == "mode" => {
                with_variable(arg).help(call::MODE_HELP).help_heading(SHIM_OPTIONS)
            }
            _ => with_variable(arg).help_heading(SHIM_OPTIONS),
        })
    });
    help::dress(command, wants_short_help)
}

/// Whether `-h` is among the arguments of hookctl itself.
fn wants_short_help(args: &[OsString]) -> bool {
    args.iter().take_while(|arg| *arg != "--").any(|arg| arg == "-h")
}

/// Tries and checks KubeVirt hooks without a cluster.
#[derive(Parser)]
#[command(
    name = "hookctl",
    version,
    disable_help_subcommand = true,
    after_help = "Exit status: 0 the hook succeeded, or no check failed; 1 it did not, or one did, or \
                  the result\ncannot be written; 2 the command line cannot be parsed"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make the directory of a new hook, with tests and an image
    Init(InitArgs),
    /// Call a hook as KubeVirt does, and show what it changes
    Call(CallArgs),
    /// Check whether a worker follows protocol.md (docs/check.md lists the checks)
    Check(CheckArgs),
    /// Run a hook on its cases, and compare what it returns (docs/cases.md)
    Test(TestArgs),
    /// Generate the manifests that bring a hook to its VMs
    Generate(GenerateArgs),
    /// Print a document that hooks are tried with: a VMI, its domain or its cloud-init data
    Sample(SampleArgs),
    /// Print the completions for a shell
    Completions {
        /// bash, zsh, fish, elvish or powershell
        #[arg(hide_possible_values = true)]
        shell: clap_complete::Shell,
    },
    /// Write the man pages of hookctl and sidecar-shim
    #[command(hide = true)]
    Man {
        /// Directory of the pages
        directory: PathBuf,
    },
}

impl Command {
    /// Returns the exit status for options that contradict each other.
    fn status_of_usage_error(&self) -> ExitCode {
        // 1 is a difference there.
        if let Self::Test(_) = self { ExitCode::from(2) } else { ExitCode::FAILURE }
    }

    fn resolve(self) -> Result<Config, StartError> {
        let (no_new_privs, log, hooks, action) = match self {
            Self::Call(args) => {
                let (no_new_privs, log, action) = args.resolve()?;
                // What the hook logs is part of its output.
                (no_new_privs, log, Level::INFO, action)
            }
            Self::Check(args) => {
                let (log, config) = args.resolve()?;
                // Each failed check shows what the worker wrote.
                (false, log, Level::ERROR, Action::Check(Box::new(config)))
            }
            Self::Generate(args) => {
                let (log, config) = args.resolve()?;
                let action = Action::Generate(Box::new(config));
                let Some(log) = log else { return Ok(Config::of_files(action)) };
                (false, log, Level::INFO, action)
            }
            Self::Test(args) => {
                let (no_new_privs, log, config) = args.resolve()?;
                // A failed case shows what the hook wrote.
                (no_new_privs, log, Level::ERROR, Action::Test(Box::new(config)))
            }
            Self::Sample(args) => {
                let (sample, for_plugin) = args.resolve()?;
                return Ok(Config::of_files(Action::Sample(sample, for_plugin)));
            }
            Self::Init(args) => return Ok(Config::of_files(Action::Init(args.resolve()))),
            Self::Completions { shell } => {
                return Ok(Config::of_files(Action::Completions(shell)));
            }
            Self::Man { directory } => return Ok(Config::of_files(Action::Man(directory))),
        };
        let level = log.level();
        // A failed case says what its call met.
        let shim = if let Action::Test(_) = action { Level::ERROR } else { Level::WARN };
        let (shim, hooks) = (level.unwrap_or(shim), level.unwrap_or(hooks));
        // The terminal shows the outcome of a call anyway.
        let verbosity = Verbosity { shim, hooks, calls: level };
        Ok(Config { log_format: log.format(Format::Text), verbosity, no_new_privs, action })
    }
}
