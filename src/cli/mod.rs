//! The command line: arguments and environment, turned into a plain [`Config`].

#![expect(clippy::disallowed_types, reason = "this is the layer for clap")]

mod health;
mod options;
pub mod values;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use tracing::Level;

use self::health::HealthArgs;
use self::options::ServeOptions;
pub use self::options::{HookOptions, LogOptions, Mode, WorkerOptions};
use crate::commands::health::HealthConfig;
use crate::commands::serve::ServeConfig;
use crate::commands::{fail_to_start, print_error, write_termination_message};
use crate::error::StartError;
use crate::logging::{Format, Verbosity};

/// Where Kubernetes looks for a container's termination message by default.
const TERMINATION_LOG: &str = "/dev/termination-log";

/// The exit status for a command line that cannot be parsed, as clap has it.
const USAGE_ERROR: u8 = 2;

/// The whole command line, validated.
pub struct Config {
    pub log_format: Format,
    pub verbosity: Verbosity,
    /// Whether setuid programs, and those with capabilities, run without them.
    pub no_new_privs: bool,
    /// Where a failed start is reported as well. `None` for commands that people run.
    pub termination_log: Option<PathBuf>,
    pub action: Action,
}

/// The command to run.
pub enum Action {
    /// Serve KubeVirt.
    Serve(Box<ServeConfig>),
    /// Ask a running shim for its health.
    Health(HealthConfig),
}

/// A command line that is not run: it is wrong, or it only asks for help.
pub struct Refusal {
    cause: Cause,
    termination_log: Option<PathBuf>,
}

enum Cause {
    /// clap's own errors, and its answers to `--help` and `-V`.
    Clap(clap::Error),
    /// Ours.
    Start(StartError),
    /// A command that another program has.
    Moved(&'static str),
}

impl Refusal {
    /// Reports the refusal to the user, and returns the exit status: 0 for help, 2 for a command
    /// line that cannot be parsed, 1 for one whose options contradict each other.
    #[must_use]
    pub fn report(self) -> ExitCode {
        let termination_log = self.termination_log.as_deref();
        match self.cause {
            Cause::Clap(error) => {
                if let Some(path) = termination_log.filter(|_| error.use_stderr()) {
                    write_termination_message(path, &error.to_string());
                }
                let _ = error.print();
                ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(USAGE_ERROR))
            }
            Cause::Start(error) => fail_to_start(error, termination_log),
            Cause::Moved(command) => {
                print_error(format_args!(
                    "`{command}` has moved to hookctl, the tool for authors of hooks: run `hookctl \
                     {command}` with the same arguments (in a source checkout: cargo run --release \
                     -p hookctl -- {command} …)"
                ));
                ExitCode::from(USAGE_ERROR)
            }
        }
    }
}

impl Config {
    /// Reads the process's arguments and environment.
    pub fn from_environment() -> Result<Self, Refusal> {
        Self::from_args(std::env::args_os())
    }

    fn from_args(args: impl IntoIterator<Item = OsString>) -> Result<Self, Refusal> {
        let args: Vec<_> = args.into_iter().collect();
        let matches = command().try_get_matches_from(&args);
        let cli = matches.and_then(|matches| Cli::from_arg_matches(&matches));
        let cli = cli.map_err(|error| Refusal {
            cause: Cause::Clap(error),
            termination_log: termination_log_unparsed(&args),
        })?;
        let termination_log = cli.termination_log();
        cli.resolve().map_err(|cause| Refusal { cause, termination_log })
    }
}

/// The command line's definition. Every option can stand on either side of a command's name and
/// reads its environment variable, by rule.
fn command() -> clap::Command {
    Cli::command().mut_args(|arg| match arg.get_long() {
        Some(_) => with_variable(arg.global(true)),
        None => arg,
    })
}

/// The environment variable of an option: `SIDECAR_SHIM_MAX_WORKERS` for `--max-workers`.
fn variable(option: &str) -> String {
    format!("SIDECAR_SHIM_{}", option.to_uppercase().replace('-', "_"))
}

/// Lets one of the shim's options read its environment variable. An empty variable counts as unset,
/// so that a pod can undo an image's.
#[must_use]
pub fn with_variable(arg: clap::Arg) -> clap::Arg {
    let Some(name) = arg.get_long().map(variable) else { return arg };
    let is_empty = std::env::var_os(&name).is_some_and(|value| value.is_empty());
    if is_empty { arg } else { arg.env(name) }
}

/// The termination log for a command line that clap rejects.
fn termination_log_unparsed(args: &[OsString]) -> Option<PathBuf> {
    let is_command = |word: &OsString| ["call", "check", "health"].iter().any(|name| word == name);
    if args.iter().take_while(|word| *word != "--").any(is_command) {
        return None;
    }
    let named = std::env::var_os(variable("termination-log")).filter(|path| !path.is_empty());
    Some(named.map_or_else(|| TERMINATION_LOG.into(), PathBuf::from))
}

/// Serves KubeVirt's VM hooks: runs hook programs, or keeps hook workers running, behind the
/// gRPC sockets that KubeVirt calls.
#[derive(Parser)]
#[command(
    name = "sidecar-shim",
    version,
    disable_version_flag = true,
    disable_help_subcommand = true,
    // An image gives flags and KubeVirt appends its own: as in the Go shim, the last one wins.
    args_override_self = true,
    after_help = AFTER_HELP,
    override_usage = "sidecar-shim --version v1alpha3 [OPTIONS] [-- WORKER [ARG]...]\n       \
                      sidecar-shim --plugin-socket PATH [OPTIONS] [-- WORKER [ARG]...]\n       \
                      sidecar-shim health --socket PATH"
)]
struct Cli {
    #[command(flatten)]
    serve: ServeOptions,

    #[command(flatten)]
    hooks: HookOptions,

    #[command(flatten)]
    log: LogOptions,

    #[command(subcommand)]
    command: Option<Command>,

    /// Worker command, when typed by hand. Images use --worker, because KubeVirt appends arguments
    #[arg(last = true, value_name = "WORKER")]
    words: Vec<OsString>,

    /// Print this program's version
    #[arg(short = 'V', action = clap::ArgAction::Version)]
    program_version: (),
}

const AFTER_HELP: &str = "\
Every option also reads SIDECAR_SHIM_<OPTION> from the environment (SIDECAR_SHIM_MAX_WORKERS=8).
Times are written 500ms, 2s, 5m; sizes 64MiB, 1GiB.

Authors of hooks try and check them with `hookctl call` and `hookctl check`.

Exit status:
  0  stopped by a signal or by KubeVirt; `health`: the shim answers calls
  1  could not start (stderr and the --termination-log have the reason); `health`: the shim does
     not answer calls
  2  the command line cannot be parsed";

#[derive(Subcommand)]
enum Command {
    /// Ask a shim that serves the Plugins API whether it answers calls
    Health(HealthArgs),
    #[command(hide = true, disable_help_flag = true)]
    Call(AnyArgs),
    #[command(hide = true, disable_help_flag = true)]
    Check(AnyArgs),
}

/// The arguments of a command that has moved.
#[derive(clap::Args)]
struct AnyArgs {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, num_args = 0..)]
    _words: Vec<OsString>,
}

impl Cli {
    fn termination_log(&self) -> Option<PathBuf> {
        self.command.is_none().then(|| self.serve.termination_log.clone())
    }

    fn resolve(self) -> Result<Config, Cause> {
        let termination_log = self.termination_log();
        let Self { serve, hooks, log, command, words, .. } = self;
        let no_new_privs = hooks.no_new_privs;
        let level = log.level();
        let (default_format, verbosity, action) = match command {
            None => {
                let level = level.unwrap_or(Level::INFO);
                let verbosity = Verbosity { shim: level, hooks: level, calls: Some(level) };
                let config = serve.resolve(&hooks, words).map_err(Cause::Start)?;
                (Format::Json, verbosity, Action::Serve(Box::new(config)))
            }
            Some(Command::Health(args)) => {
                let shown = level.unwrap_or(Level::WARN);
                let verbosity = Verbosity { shim: shown, hooks: shown, calls: level };
                let config = args.resolve(serve.plugin_socket).map_err(Cause::Start)?;
                (Format::Text, verbosity, Action::Health(config))
            }
            Some(Command::Call(_)) => return Err(Cause::Moved("call")),
            Some(Command::Check(_)) => return Err(Cause::Moved("check")),
        };
        let log_format = log.format(default_format);
        Ok(Config { log_format, verbosity, no_new_privs, termination_log, action })
    }
}
