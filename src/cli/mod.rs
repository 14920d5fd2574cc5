//! The command line: what was typed and what the environment says, turned into a plain [`Config`].

#![expect(clippy::disallowed_types, reason = "this is the room for clap")]

mod call;
mod check;
mod health;
mod inputs;
mod options;
mod values;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use tracing::Level;

use self::call::CallArgs;
use self::check::CheckArgs;
use self::health::HealthArgs;
use self::options::{LogFormat, LogLevel, Options};
use crate::commands::call::CallConfig;
use crate::commands::check::CheckConfig;
use crate::commands::health::HealthConfig;
use crate::commands::serve::ServeConfig;
use crate::commands::{fail_to_start, leave_message};
use crate::error::StartError;
use crate::logging::{Format, Verbosity};

/// Where Kubernetes looks for a container's termination message, if nothing else was said to it.
const TERMINATION_LOG: &str = "/dev/termination-log";

/// The variable that names another place.
const TERMINATION_LOG_VARIABLE: &str = "SIDECAR_SHIM_TERMINATION_LOG";

/// Everything that was said, checked.
pub struct Config {
    /// What log lines look like.
    pub log_format: Format,
    /// Which are written.
    pub verbosity: Verbosity,
    /// Whether setuid programs, and those with capabilities, run without them.
    pub no_new_privs: bool,
    /// Where a failed start is told too. None for commands that have their user before them.
    pub termination_log: Option<PathBuf>,
    /// What to do.
    pub action: Action,
}

/// What to do.
pub enum Action {
    /// Serve KubeVirt.
    Serve(Box<ServeConfig>),
    /// Try one hook.
    Call(Box<CallConfig>),
    /// Try whether a worker keeps to the protocol.
    Check(Box<CheckConfig>),
    /// Ask a shim how it is.
    Health(HealthConfig),
}

/// A command line that is not carried out. It may just have asked for help.
pub struct Refusal {
    cause: Cause,
    termination_log: Option<PathBuf>,
}

enum Cause {
    /// clap's own complaints and answers.
    Clap(clap::Error),
    /// Ours.
    Start(StartError),
}

impl Refusal {
    /// Tells the user, and says how the process ends: 0 for help, 2 for a command line that
    /// cannot be parsed, 1 for one that makes no sense.
    #[must_use]
    pub fn report(self) -> ExitCode {
        let termination_log = self.termination_log.as_deref();
        match self.cause {
            Cause::Clap(error) => {
                if let Some(path) = termination_log.filter(|_| error.use_stderr()) {
                    leave_message(path, &error.to_string());
                }
                let _ = error.print();
                ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
            }
            Cause::Start(error) => fail_to_start(error, termination_log),
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
        cli.resolve().map_err(|error| Refusal { cause: Cause::Start(error), termination_log })
    }
}

/// The command line's definition. A variable that a pod has set to nothing, to undo an image's, is
/// not there.
fn command() -> clap::Command {
    Cli::command().mut_args(|arg| {
        let value = arg.get_env().and_then(std::env::var_os);
        if value.is_some_and(|value| value.is_empty()) { arg.env(None::<&str>) } else { arg }
    })
}

/// Where a command line is complained about that makes no sense to clap.
fn termination_log_unparsed(args: &[OsString]) -> Option<PathBuf> {
    let is_command = |word: &OsString| ["call", "check", "health"].iter().any(|name| word == name);
    if args.iter().take_while(|word| *word != "--").any(is_command) {
        return None;
    }
    let named = std::env::var_os(TERMINATION_LOG_VARIABLE).filter(|path| !path.is_empty());
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
                      sidecar-shim call HOOK [OPTIONS] [-- WORKER [ARG]...]\n       \
                      sidecar-shim check [OPTIONS] -- WORKER [ARG]...\n       \
                      sidecar-shim health --socket PATH"
)]
struct Cli {
    #[command(flatten)]
    options: Options,

    #[command(subcommand)]
    command: Option<Command>,

    /// The worker's command, for typing. Images use --worker, because KubeVirt appends arguments
    #[arg(last = true, value_name = "WORKER")]
    words: Vec<OsString>,

    /// Print this program's version
    #[arg(short = 'V', action = clap::ArgAction::Version)]
    program_version: (),
}

const AFTER_HELP: &str = "\
Every option also reads SIDECAR_SHIM_<OPTION> from the environment (SIDECAR_SHIM_MAX_WORKERS=8).
Times are written 500ms, 2s, 5m; sizes 64MiB, 1GiB.

Exit status:
  0  stopped by a signal or by KubeVirt; `call`: the hook answered; `check`: no check has failed;
     `health`: calls are answered
  1  could not start (the reason is on standard error and in the --termination-log);
     `call`: the call failed; `check`: a check has failed; `health`: calls are not answered
  2  the command line cannot be parsed";

#[derive(Subcommand)]
enum Command {
    /// Call a hook once, as KubeVirt would, and show what it changes
    Call(CallArgs),
    /// Try whether a worker does what protocol.md demands (docs/check.md lists the checks)
    Check(CheckArgs),
    /// Ask a shim that serves the Plugins API whether it answers calls
    Health(HealthArgs),
}

impl Cli {
    fn termination_log(&self) -> Option<PathBuf> {
        self.command.is_none().then(|| self.options.termination_log.clone())
    }

    fn resolve(self) -> Result<Config, StartError> {
        let termination_log = self.termination_log();
        let Self { options, command, words, .. } = self;
        let no_new_privs = options.no_new_privs;
        let level = options.log_level.map(|level| match level {
            LogLevel::Debug => Level::DEBUG,
            LogLevel::Info => Level::INFO,
            LogLevel::Warning => Level::WARN,
            LogLevel::Error => Level::ERROR,
        });
        let format = options.log_format.map(|format| match format {
            LogFormat::Json => Format::Json,
            LogFormat::Text => Format::Text,
        });
        // What each command shows, where nothing was said.
        let (default_format, verbosity, action) = match command {
            None => {
                let level = level.unwrap_or(Level::INFO);
                let verbosity = Verbosity { shim: level, hooks: level, calls: Some(level) };
                (Format::Json, verbosity, Action::Serve(Box::new(options.serve(words)?)))
            }
            Some(command) => {
                let (hooks, action) = match command {
                    // The one result is on the terminal anyway.
                    Command::Call(args) => {
                        (Level::INFO, Action::Call(Box::new(args.resolve(&options)?)))
                    }
                    // What the worker says of its own mistakes is shown with each of them.
                    Command::Check(args) => {
                        (Level::ERROR, Action::Check(Box::new(args.resolve(&options)?)))
                    }
                    Command::Health(args) => {
                        (Level::WARN, Action::Health(args.resolve(options.plugin_socket)?))
                    }
                };
                let (shim, hooks) = (level.unwrap_or(Level::WARN), level.unwrap_or(hooks));
                (Format::Text, Verbosity { shim, hooks, calls: level }, action)
            }
        };
        let log_format = format.unwrap_or(default_format);
        Ok(Config { log_format, verbosity, no_new_privs, termination_log, action })
    }
}
