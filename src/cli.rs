//! The command line: what was typed and what the environment says, turned into a plain [`Config`].

#![expect(clippy::disallowed_types, reason = "this is the room for clap")]

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use tracing::Level;

use crate::backend::{CommandLine, Settings, Spec};
use crate::commands::call::{CallConfig, Color, Target};
use crate::commands::serve::{Limits, ServeConfig};
use crate::commands::{fail_to_start, leave_message};
use crate::error::StartError;
use crate::hook::{Checks, HookName};
use crate::logging::{Format, Verbosity};
use crate::service::ApiVersion;

/// The longest time that an option takes: no wait of the shim's is meant to be longer, and a clock
/// has an end.
const LONGEST_TIME: Duration = Duration::from_secs(7 * 24 * 3600);

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
    /// Where a failed start is told too. None for `call`, which has its user before it.
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
    if args.iter().take_while(|word| *word != "--").any(|word| word == "call") {
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
                      sidecar-shim call HOOK [OPTIONS] [-- WORKER [ARG]...]"
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
  0  stopped by a signal or by KubeVirt; `call`: the hook answered
  1  could not start (the reason is on standard error and in the --termination-log);
     `call`: the call failed
  2  the command line cannot be parsed";

#[derive(Subcommand)]
enum Command {
    /// Call a hook once, as KubeVirt would, and show what it changes
    Call(CallArgs),
}

#[derive(Args)]
struct Options {
    /// Version of the hook API to advertise: v1alpha1, v1alpha2 or v1alpha3
    #[arg(long, global = true, env = "SIDECAR_SHIM_VERSION", value_name = "VERSION")]
    version: Option<String>,

    /// How hooks are run: exec starts a program for each call, persistent keeps workers running
    #[arg(long, global = true, env = "SIDECAR_SHIM_MODE", value_enum, default_value_t = Mode::Exec)]
    mode: Mode,

    /// The worker's command, in words as a shell has them: 'python3 /hooks/smbios.py'
    #[arg(long, global = true, env = "SIDECAR_SHIM_WORKER", value_name = "COMMAND")]
    worker: Option<String>,

    /// Directory in which the socket is created
    #[arg(
        long,
        global = true,
        env = "SIDECAR_SHIM_SOCKET_DIR",
        value_name = "DIR",
        default_value = "/var/run/kubevirt-hooks"
    )]
    socket_dir: PathBuf,

    /// Processes at once: workers, or in exec mode hook programs
    #[arg(
        long,
        global = true,
        env = "SIDECAR_SHIM_MAX_WORKERS",
        value_name = "N",
        default_value_t = 4,
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    max_workers: u16,

    /// Workers that are kept running though no call needs them
    #[arg(
        long,
        global = true,
        env = "SIDECAR_SHIM_MIN_WORKERS",
        value_name = "N",
        default_value_t = 0
    )]
    min_workers: u16,

    /// How long a worker beyond --min-workers may be idle before it is told to stop
    #[arg(
        long,
        global = true,
        env = "SIDECAR_SHIM_IDLE_TIMEOUT",
        value_name = "TIME",
        default_value = "5m",
        value_parser = parse_time
    )]
    idle_timeout: Duration,

    /// Calls that may wait for a process
    #[arg(
        long,
        global = true,
        env = "SIDECAR_SHIM_QUEUE_LIMIT",
        value_name = "N",
        default_value_t = 256
    )]
    queue_limit: u16,

    /// Bytes of documents that may wait for a process
    #[arg(
        long,
        global = true,
        env = "SIDECAR_SHIM_QUEUE_BYTES",
        value_name = "SIZE",
        default_value = "32MiB",
        value_parser = parse_size
    )]
    queue_bytes: u64,

    /// Replace a worker after this many calls (default: never)
    #[arg(
        long,
        global = true,
        env = "SIDECAR_SHIM_MAX_REQUESTS",
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    max_requests: Option<u32>,

    /// The most memory that a worker or hook program may take for its data (default: no limit)
    #[arg(
        long,
        global = true,
        env = "SIDECAR_SHIM_WORKER_MEMORY",
        value_name = "SIZE",
        value_parser = parse_size
    )]
    worker_memory: Option<u64>,

    /// What is checked of the domain that a hook answers
    #[arg(long, global = true, env = "SIDECAR_SHIM_VALIDATE", value_enum, default_value_t = Validate::WellFormed)]
    validate: Validate,

    /// How long a worker may take to answer `initialize`
    #[arg(
        long,
        global = true,
        env = "SIDECAR_SHIM_START_TIMEOUT",
        value_name = "TIME",
        default_value = "60s",
        value_parser = parse_time
    )]
    start_timeout: Duration,

    /// The longest time for one call, if that is less than the caller's deadline
    #[arg(
        long,
        global = true,
        env = "SIDECAR_SHIM_CALL_TIMEOUT",
        value_name = "TIME",
        value_parser = parse_time
    )]
    call_timeout: Option<Duration>,

    /// How long a process has between being asked to end and being made to
    #[arg(
        long,
        global = true,
        env = "SIDECAR_SHIM_KILL_GRACE",
        value_name = "TIME",
        default_value = "2s",
        value_parser = parse_time
    )]
    kill_grace: Duration,

    /// How long calls in flight may take when the shim is told to stop
    #[arg(
        long,
        global = true,
        env = "SIDECAR_SHIM_SHUTDOWN_GRACE",
        value_name = "TIME",
        default_value = "25s",
        value_parser = parse_time
    )]
    shutdown_grace: Duration,

    /// What log lines look like (default: json, for `call` text)
    #[arg(long, global = true, env = "SIDECAR_SHIM_LOG_FORMAT", value_enum)]
    log_format: Option<LogFormat>,

    /// Which log lines are written (default: info, for `call` warning and what hooks write)
    #[arg(long, global = true, env = "SIDECAR_SHIM_LOG_LEVEL", value_enum)]
    log_level: Option<LogLevel>,

    /// Let no hook gain privileges, by setuid programs or file capabilities (in the environment:
    /// true or false)
    #[arg(
        long,
        global = true,
        env = "SIDECAR_SHIM_NO_NEW_PRIVS",
        value_parser = clap::builder::BoolishValueParser::new()
    )]
    no_new_privs: bool,

    /// File in which a failed start is told too, if it exists
    #[arg(
        long,
        global = true,
        env = TERMINATION_LOG_VARIABLE,
        value_name = "PATH",
        default_value = TERMINATION_LOG
    )]
    termination_log: PathBuf,
}

#[derive(Args)]
struct CallArgs {
    /// The hook: onDefineDomain or preCloudInitIso
    hook: String,

    /// VMI as JSON (default: a built-in sample)
    #[arg(long, value_name = "FILE")]
    vmi: Option<PathBuf>,

    /// libvirt domain as XML (default: a built-in sample)
    #[arg(long, value_name = "FILE")]
    domain: Option<PathBuf>,

    /// `CloudInitData` as JSON (default: a built-in sample)
    #[arg(long, value_name = "FILE")]
    cloud_init: Option<PathBuf>,

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

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    Exec,
    Persistent,
}

#[derive(Clone, Copy, ValueEnum)]
enum Validate {
    /// Nothing: it is passed on as it is
    None,
    /// That it is well-formed XML whose root is `domain`
    WellFormed,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Json,
    Text,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogLevel {
    Debug,
    Info,
    Warning,
    Error,
}

#[derive(Clone, Copy, ValueEnum)]
enum ColorChoice {
    Auto,
    Always,
    Never,
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
        Ok(match command {
            None => Config {
                log_format: format.unwrap_or(Format::Json),
                verbosity: Verbosity {
                    shim: level.unwrap_or(Level::INFO),
                    hooks: level.unwrap_or(Level::INFO),
                    calls: Some(level.unwrap_or(Level::INFO)),
                },
                no_new_privs,
                termination_log,
                action: Action::Serve(Box::new(options.serve(words)?)),
            },
            Some(Command::Call(args)) => Config {
                log_format: format.unwrap_or(Format::Text),
                verbosity: Verbosity {
                    shim: level.unwrap_or(Level::WARN),
                    hooks: level.unwrap_or(Level::INFO),
                    // The one result is on the terminal anyway.
                    calls: level,
                },
                no_new_privs,
                termination_log,
                action: Action::Call(Box::new(args.resolve(&options)?)),
            },
        })
    }
}

impl Options {
    fn serve(self, words: Vec<OsString>) -> Result<ServeConfig, StartError> {
        let version = match self.version.as_deref() {
            None | Some("") => {
                return Err(usage("no hook API version: give --version v1alpha1, v1alpha2 or v1alpha3"));
            }
            Some(name) => ApiVersion::parse(name).ok_or_else(|| {
                usage(format!(
                    "unknown hook API version {name:?}: --version takes v1alpha1, v1alpha2 or v1alpha3"
                ))
            })?,
        };
        let spec = match (self.mode, self.command_line(words)?) {
            (Mode::Exec, None) => Spec::Exec,
            (Mode::Exec, Some(_)) => {
                return Err(usage(
                    "a worker makes sense with --mode persistent only; exec mode runs the programs \
                     in $PATH that are named after the hooks",
                ));
            }
            (Mode::Persistent, Some(command)) => Spec::Persistent(command),
            (Mode::Persistent, None) => Spec::PersistentInPath,
        };
        let limits = self.limits()?;
        Ok(ServeConfig { version, socket_dir: self.socket_dir, spec, limits })
    }

    /// The worker's command: typed behind `--`, or given with `--worker`.
    fn command_line(&self, words: Vec<OsString>) -> Result<Option<CommandLine>, StartError> {
        if let Some(command) = CommandLine::from_words(words) {
            return Ok(Some(command));
        }
        // Given as nothing, it takes an earlier one back.
        let Some(text) = self.worker.as_ref().filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let words = shlex::split(text).ok_or_else(|| {
            usage(format!("--worker {text:?} cannot be split into words: a quote is not closed"))
        })?;
        match CommandLine::from_words(words.into_iter().map(OsString::from)) {
            Some(command) => Ok(Some(command)),
            None => Err(usage("--worker is empty: it has to be a command")),
        }
    }

    fn limits(&self) -> Result<Limits, StartError> {
        let (min_workers, max_workers) = (self.min_workers, self.max_workers);
        if min_workers > max_workers {
            return Err(usage(format!(
                "--min-workers {min_workers} is more than --max-workers {max_workers}"
            )));
        }
        Ok(Limits {
            settings: Settings {
                min_workers: min_workers.into(),
                max_workers: max_workers.into(),
                idle_timeout: self.idle_timeout,
                queue_limit: self.queue_limit.into(),
                queue_bytes: usize::try_from(self.queue_bytes).unwrap_or(usize::MAX),
                max_requests: self.max_requests,
                worker_memory: self.worker_memory,
                checks: match self.validate {
                    Validate::None => Checks::None,
                    Validate::WellFormed => Checks::WellFormed,
                },
                start_timeout: self.start_timeout,
                kill_grace: self.kill_grace,
            },
            call_timeout: self.call_timeout,
            shutdown_grace: self.shutdown_grace,
        })
    }
}

impl CallArgs {
    fn resolve(self, options: &Options) -> Result<CallConfig, StartError> {
        let hook = HookName::parse(&self.hook)
            .filter(|hook| {
                [HookName::ON_DEFINE_DOMAIN, HookName::PRE_CLOUD_INIT_ISO].contains(hook)
            })
            .ok_or_else(|| {
                let name = &self.hook;
                usage(format!(
                    "unknown hook {name:?}: `call` knows onDefineDomain and preCloudInitIso"
                ))
            })?;
        let target = match self.socket {
            Some(_) if !self.words.is_empty() => {
                return Err(usage("give either --socket or a worker: a running shim has its own"));
            }
            Some(socket) => Target::Running(socket),
            None => {
                let spec = match (options.mode, options.command_line(self.words)?) {
                    (Mode::Exec, Some(command)) => Spec::ExecOne(hook.clone(), command),
                    (Mode::Exec, None) => Spec::Exec,
                    (Mode::Persistent, Some(command)) => Spec::Persistent(command),
                    (Mode::Persistent, None) => Spec::PersistentInPath,
                };
                Target::Private(spec, options.limits()?)
            }
        };
        Ok(CallConfig {
            hook,
            vmi: self.vmi,
            domain: self.domain,
            cloud_init: self.cloud_init,
            target,
            repeat: self.repeat,
            timeout: self.timeout,
            color: match self.color {
                ColorChoice::Auto => Color::Auto,
                ColorChoice::Always => Color::Always,
                ColorChoice::Never => Color::Never,
            },
        })
    }
}

fn usage(text: impl Into<String>) -> StartError {
    StartError::Usage(text.into())
}

fn parse_time(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if time.is_zero() {
        return Err("it has to be more than nothing".to_owned());
    }
    if time > LONGEST_TIME {
        let longest = humantime::format_duration(LONGEST_TIME);
        return Err(format!("it is longer than {longest}"));
    }
    Ok(time)
}

fn parse_size(text: &str) -> Result<u64, String> {
    let size = text
        .parse::<bytesize::ByteSize>()
        .map_err(|_| "it is not a size: sizes are written 64MiB, 1GiB".to_owned())?
        .as_u64();
    if size == 0 {
        return Err("it has to be more than nothing".to_owned());
    }
    Ok(size)
}
