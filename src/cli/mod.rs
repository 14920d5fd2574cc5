//! The command line: arguments and environment, turned into a plain [`Config`].

#![expect(clippy::disallowed_types, reason = "this is the layer for clap")]

mod health;
mod options;
mod status;
pub mod values;
mod variables;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};
use tracing::Level;

use self::health::HealthArgs;
use self::options::ServeOptions;
pub use self::options::{HookOptions, LogOptions, Mode, WorkerOptions};
use self::status::StatusArgs;
use self::variables::variable;
pub use self::variables::{error_of_variable, with_variable};
use crate::commands::health::HealthConfig;
use crate::commands::serve::ServeConfig;
use crate::commands::status::StatusConfig;
use crate::commands::{fail_to_start, print_error, write_termination_message};
use crate::logging::{Format, Verbosity, print};

/// Where Kubernetes looks for a container's termination message by default.
const TERMINATION_LOG: &str = "/dev/termination-log";

/// The exit status for a command line that cannot be parsed, as clap has it.
const USAGE_ERROR: u8 = 2;

/// The options that `-h` lists, so that it fits a screen of 24 lines.
const MOST_USED: [&str; 10] = [
    "version",
    "plugin-socket",
    "mode",
    "worker",
    "node-hooks",
    "call-timeout",
    "max-workers",
    "memory-budget",
    "log-format",
    "log-level",
];

/// The whole command line, validated.
pub struct Config {
    pub log_format: Format,
    pub verbosity: Verbosity,
    /// Whether setuid programs, and those with capabilities, run without them.
    pub no_new_privs: bool,
    /// File for the reason of a failed start. `None` for commands that people run.
    pub termination_log: Option<PathBuf>,
    /// Warnings about variables that no option reads.
    pub unknown_variables: Vec<String>,
    pub action: Action,
}

/// The command to run.
pub enum Action {
    Serve(Box<ServeConfig>),
    Health(HealthConfig),
    Status(StatusConfig),
}

impl Config {
    /// Reads the process's arguments and environment. If there is nothing to run, reports why, and
    /// returns the exit status: 0 for help, 2 for a command line that cannot be parsed, 1 for
    /// options that contradict each other.
    pub fn from_environment() -> Result<Self, ExitCode> {
        let args: Vec<_> = std::env::args_os().collect();
        let (cli, command) = parse(&args)
            .and_then(|matches| {
                check_one_worker(&matches)?;
                check_record(&matches, &args)?;
                let command = matches.subcommand().map(|_| Command::from_arg_matches(&matches));
                Ok((Cli::from_arg_matches(&matches)?, command.transpose()?))
            })
            .map_err(|error| refuse(&error, &args))?;
        let config = cli.resolve(command)?;
        // A reader of the output of a probe, or of another command, expects its lines only.
        let serves = matches!(config.action, Action::Serve(_));
        Ok(if serves { Self { unknown_variables: unknown_variables(), ..config } } else { config })
    }
}

/// Parses the command line. Every VM's start waits for this, so the commands, each with all of the
/// options, are defined only if one is named, or if there is help or an error to print.
fn parse(args: &[OsString]) -> Result<ArgMatches, clap::Error> {
    let words = || words_of_shim(args);
    if !words().any(|word| COMMANDS.iter().any(|name| word == name))
        && let Ok(matches) = options().try_get_matches_from(args)
    {
        return Ok(matches);
    }
    // clap's own way would give each option of the long help three lines.
    command(words().any(|word| word == "-h")).try_get_matches_from(args)
}

/// Returns the arguments before `--`: the words behind it are a worker's command.
fn words_of_shim(args: &[OsString]) -> impl Iterator<Item = &OsString> {
    args.iter().skip(1).take_while(|word| *word != "--")
}

/// Returns the values that the arguments give an option, such as `--record`, for errors that clap
/// itself does not explain. A value that is missing is empty.
fn given<'a>(args: &'a [OsString], option: &'a str) -> impl Iterator<Item = &'a OsStr> {
    let next = words_of_shim(args).skip(1).map(OsString::as_os_str).chain([OsStr::new("")]);
    words_of_shim(args).zip(next).filter_map(|(word, next)| {
        match word.as_bytes().strip_prefix(option.as_bytes())? {
            [] => Some(next),
            [b'=', value @ ..] => Some(OsStr::from_bytes(value)),
            _ => None,
        }
    })
}

/// Returns a warning for each variable that looks like one of the shim's options and is not.
#[must_use]
pub fn unknown_variables() -> Vec<String> {
    variables::unknown(Cli::command, std::env::vars_os().map(|(name, _)| name))
}

/// Reports a command line that cannot be parsed, and returns the exit status.
fn refuse(error: &clap::Error, args: &[OsString]) -> ExitCode {
    let of_variable = error_of_variable(error, args);
    if error.use_stderr()
        && let Some(path) = termination_log_unparsed(args)
    {
        let text = of_variable.clone().unwrap_or_else(|| error.to_string());
        write_termination_message(&path, &text);
    }
    match of_variable {
        Some(text) => print(text.as_bytes()),
        None => drop(error.print()),
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(USAGE_ERROR))
}

/// Refuses a command line with two commands for workers. (One from the environment gives way.)
pub fn check_one_worker(matches: &ArgMatches) -> Result<(), clap::Error> {
    let is_given = |id| {
        // An error means that there is no such argument here.
        let source = matches.try_contains_id(id).ok().and_then(|_| matches.value_source(id));
        source == Some(ValueSource::CommandLine)
    };
    if is_given("worker") && is_given("words") {
        let what = "the worker's command is given twice: by --worker and after `--`\n";
        return Err(clap::Error::raw(ErrorKind::ArgumentConflict, what));
    }
    Ok(())
}

/// Refuses options about recording on a command line that does not record: their user expects that
/// it does. An empty `--record` undoes an earlier one, or that of the environment. (Limits may be
/// set in an environment that does not record.)
fn check_record(matches: &ArgMatches, args: &[OsString]) -> Result<(), clap::Error> {
    let refused = |text: String| Err(clap::Error::raw(ErrorKind::ArgumentConflict, text + "\n"));
    let is_given = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
    if let Some(directory) = matches.get_one::<OsString>("record") {
        let given = given(args, "--record").count();
        let variable = std::env::var_os(variable("record")).unwrap_or_default();
        if directory.is_empty() && given < 2 && variable.is_empty() {
            return refused(
                "--record is empty: give the directory for the cases, or leave the option out (is \
                 a variable in the command unset?)"
                    .to_owned(),
            );
        }
        return Ok(());
    }
    let of_recording = ["record-limit", "record-bytes", "record-secrets"];
    match of_recording.into_iter().find(|name| is_given(&name.replace('-', "_"))) {
        Some(name) => refused(format!(
            "--{name} records nothing without --record: give --record DIR, or leave --{name} out"
        )),
        None => Ok(()),
    }
}

/// The definition of a command line that serves. By rule, every option reads its environment
/// variable.
fn options() -> clap::Command {
    Cli::command().mut_args(with_variable)
}

/// The definition of the whole command line. By rule, every option may stand before or after a
/// command's name. The help of `health` and of `status` shows only what they use.
#[must_use]
pub fn command(wants_short_help: bool) -> clap::Command {
    let command = Command::augment_subcommands(Cli::command()).mut_args(|arg| {
        let Some(name) = arg.get_long() else { return arg };
        let is_rare = !MOST_USED.contains(&name);
        let arg = with_variable(arg.global(true));
        if wants_short_help { arg.hide(is_rare).help_heading(None::<&str>) } else { arg }
    });
    let command = if wants_short_help { command.after_help(AFTER_SHORT_HELP) } else { command };
    let hidden = |used: &[&str]| -> Vec<_> {
        let unused = |arg: &&clap::Arg| arg.get_long().is_some_and(|name| !used.contains(&name));
        command.get_arguments().filter(unused).map(|arg| arg.clone().hide(true)).collect()
    };
    let of_health = hidden(&["plugin-socket", "log-format", "log-level"]);
    let of_status = hidden(&["plugin-socket", "socket-dir"]);
    command
        .mut_subcommand("health", |health| health.args(of_health))
        .mut_subcommand("status", |status| status.args(of_status))
}

/// Returns the termination log for a command line that clap rejects.
fn termination_log_unparsed(args: &[OsString]) -> Option<PathBuf> {
    if words_of_shim(args).any(|word| COMMANDS.iter().any(|name| word == name)) {
        return None;
    }
    let of_variable = std::env::var_os(variable("termination-log"));
    let given = given(args, "--termination-log").last().filter(|path| !path.is_empty());
    let named = given.or(of_variable.as_deref()).filter(|path| !path.is_empty());
    Some(named.unwrap_or(TERMINATION_LOG.as_ref()).into())
}

/// Serves KubeVirt's VM hooks, run by programs or by long-lived workers, on Unix sockets.
#[derive(Parser)]
#[command(
    name = "sidecar-shim",
    version,
    disable_version_flag = true,
    disable_help_subcommand = true,
    // KubeVirt appends its arguments to those of the image's entry point: as in the Go shim, the
    // last one wins.
    args_override_self = true,
    after_help = AFTER_HELP,
    override_usage = "sidecar-shim --version v1alpha3 [OPTIONS] [-- WORKER [ARG]...]\n       \
                      sidecar-shim --plugin-socket PATH [OPTIONS] [-- WORKER [ARG]...]"
)]
struct Cli {
    /// The worker's command when typed by hand. Images use --worker, because KubeVirt appends
    /// arguments.
    #[arg(last = true, value_name = "WORKER", hide = true)]
    words: Vec<OsString>,

    /// Version of this program
    #[arg(short = 'V', action = clap::ArgAction::Version)]
    program_version: (),

    #[command(flatten)]
    serve: ServeOptions,

    #[command(flatten)]
    hooks: HookOptions,

    #[command(flatten)]
    log: LogOptions,
}

const AFTER_SHORT_HELP: &str = "Other options, environment variables, examples: --help";

const AFTER_HELP: &str = "\
Options are also read from SIDECAR_SHIM_<OPTION>, as SIDECAR_SHIM_MAX_WORKERS=8; flags: true or
false. The last value of an option is used, because KubeVirt appends arguments to the image's.
Times: 500ms, 2s, 5m; sizes: 64MiB, 1GiB. Log: JSON of level info. Hooks: `hookctl call`.
Exit status: 0 stopped, or healthy; 1 failed to start (stderr and the --termination-log have the
reason), or not healthy; 2 the command line cannot be parsed

Examples:
  sidecar-shim --version v1alpha3 --mode persistent -- python3 /hooks/hook.py
  sidecar-shim --plugin-socket /var/run/kubevirt-plugin/my-hook/hook.sock --mode persistent
  sidecar-shim health --socket /var/run/kubevirt-plugin/my-hook/hook.sock";

/// The names of [`Command`]s, sorted.
const COMMANDS: [&str; 4] = ["call", "check", "health", "status"];

#[derive(Subcommand)]
enum Command {
    /// Ask a shim with a plugin socket for its health
    Health(HealthArgs),
    /// Print what a shim does, and what has happened
    Status(StatusArgs),
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
    fn resolve(self, command: Option<Command>) -> Result<Config, ExitCode> {
        let Self { serve, hooks, log, words, .. } = self;
        let (no_new_privs, level) = (hooks.no_new_privs, log.level());
        let (log_format, verbosity, termination_log, action) = match command {
            None => {
                let log_format = log.format(Format::Json);
                let level = level.unwrap_or(Level::INFO);
                let verbosity = Verbosity { shim: level, hooks: level, calls: Some(level) };
                let termination_log = Some(serve.termination_log.clone());
                let config = serve.resolve(&hooks, words).map_err(|error| {
                    fail_to_start(error, log_format, termination_log.as_deref())
                })?;
                (log_format, verbosity, termination_log, Action::Serve(Box::new(config)))
            }
            Some(Command::Health(args)) => {
                let log_format = log.format(Format::Text);
                let shown = level.unwrap_or(Level::WARN);
                let verbosity = Verbosity { shim: shown, hooks: shown, calls: level };
                let config = args
                    .resolve(serve.plugin_socket)
                    .map_err(|error| fail_to_start(error, log_format, None))?;
                (log_format, verbosity, None, Action::Health(config))
            }
            Some(Command::Status(args)) => {
                let verbosity = Verbosity { shim: Level::WARN, hooks: Level::WARN, calls: level };
                let config = args.resolve(serve.plugin_socket, serve.socket_dir);
                (Format::Text, verbosity, None, Action::Status(config))
            }
            Some(Command::Call(_)) => return Err(moved("call")),
            Some(Command::Check(_)) => return Err(moved("check")),
        };
        let unknown_variables = Vec::new();
        Ok(Config {
            log_format,
            verbosity,
            no_new_privs,
            termination_log,
            unknown_variables,
            action,
        })
    }
}

/// Reports a command that `hookctl` has.
fn moved(command: &str) -> ExitCode {
    print_error(format_args!(
        "`{command}` has moved to hookctl, the tool for authors of hooks: run `hookctl {command}` \
         with the same arguments (in a source checkout: cargo run --release -p hookctl -- \
         {command} …)"
    ));
    ExitCode::from(USAGE_ERROR)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// [`parse`] leaves out commands that are not named, so it has to know all names.
    #[test]
    fn every_command_is_named_in_the_list() {
        let whole = command(false);
        let mut names: Vec<_> = whole.get_subcommands().map(clap::Command::get_name).collect();
        names.sort_unstable();
        assert_eq!(names, COMMANDS);
        whole.debug_assert();
        options().debug_assert();
    }
}
