//! The shim's options, in groups: where it serves, how hooks run, how their processes live, and what is
//! logged. `hookctl` takes those groups that concern hooks.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use tracing::Level;

use super::TERMINATION_LOG;
use super::values::{
    List, parse_node_hooks, parse_size, parse_socket_mode, parse_time, parse_uids, usage,
};
use crate::admission::Load;
use crate::backend::{self, CommandLine, HookSource, InPath, Settings};
use crate::commands::serve::{LegacySocket, ServeConfig};
use crate::error::StartError;
use crate::hook::{Checks, HookName};
use crate::logging::Format;
use crate::server::{self, Peers, SocketMode};
use crate::service::ApiVersion;

/// Where the shim serves, and whom.
#[derive(Args)]
pub(super) struct ServeOptions {
    /// Version of the hook API to advertise: v1alpha1, v1alpha2 or v1alpha3
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,

    /// Socket of the Plugins API; with --version, the API of hook sidecars is served as well
    #[arg(long, value_name = "PATH")]
    pub(super) plugin_socket: Option<PathBuf>,

    /// Permissions of sockets in octal, such as 0660 (default: by the umask)
    #[arg(long, value_name = "MODE", value_parser = parse_socket_mode)]
    socket_mode: Option<SocketMode>,

    /// Ids of the users that may connect, beside the shim's own (default: by the permissions)
    #[arg(long, value_name = "UID,...", value_parser = parse_uids)]
    allow_uid: Option<List<u32>>,

    /// Directory for the socket of the hook sidecars' API
    #[arg(long, value_name = "DIR", default_value = "/var/run/kubevirt-hooks")]
    socket_dir: PathBuf,

    /// Time for calls in flight to finish at shutdown
    #[arg(long, value_name = "TIME", default_value = "25s", value_parser = parse_time)]
    shutdown_grace: Duration,

    /// File that a failed start is also written to, if it exists
    #[arg(long, value_name = "PATH", default_value = TERMINATION_LOG)]
    pub(super) termination_log: PathBuf,
}

/// What runs the hooks, and its limits.
#[derive(Args)]
pub struct HookOptions {
    /// How hooks run: exec starts a program per call, persistent keeps workers (default: exec)
    #[arg(long, value_enum)]
    pub mode: Option<Mode>,

    #[command(flatten)]
    pub worker: WorkerOptions,

    /// Additional hook points that programs in $PATH may be named after
    #[arg(long, value_name = "NAME,...", value_parser = parse_node_hooks)]
    node_hooks: Option<List<HookName>>,

    /// Maximum processes at once: workers, or hook programs in exec mode
    #[arg(
        long,
        value_name = "N",
        default_value_t = 4,
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    max_workers: u16,

    /// Workers to keep running while idle
    #[arg(long, value_name = "N", default_value_t = 0)]
    min_workers: u16,

    /// Idle time after which a worker beyond --min-workers is stopped
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = parse_time)]
    idle_timeout: Duration,

    /// Maximum calls that wait for a process
    #[arg(long, value_name = "N", default_value_t = 256)]
    queue_limit: u16,

    /// Maximum bytes of documents that wait for a process
    #[arg(long, value_name = "SIZE", default_value = "32MiB", value_parser = parse_size)]
    queue_bytes: u64,

    /// Calls after which a worker is replaced (default: never)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_requests: Option<u32>,

    /// Maximum memory for the data of a worker or hook program (default: unlimited)
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    worker_memory: Option<u64>,

    /// Validation of the domain that a hook returns
    #[arg(long, value_enum, default_value_t = Validate::WellFormed)]
    validate: Validate,

    /// Timeout for one call, if the caller's deadline is later (default: the caller's)
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub call_timeout: Option<Duration>,

    /// Deny hooks new privileges by setuid or file capabilities (in the environment: true or false)
    #[arg(long, value_parser = clap::builder::BoolishValueParser::new())]
    pub no_new_privs: bool,
}

/// The worker's command, and how long it may take to start and to exit.
#[derive(Args)]
pub struct WorkerOptions {
    /// Worker command, quoted as in a shell: 'python3 /hooks/smbios.py'
    #[arg(long, value_name = "COMMAND")]
    worker: Option<String>,

    /// Timeout for a worker's answer to `initialize`
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_time)]
    pub start_timeout: Duration,

    /// Time between SIGTERM and SIGKILL
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = parse_time)]
    pub kill_grace: Duration,
}

/// What is logged, and how.
#[derive(Args)]
pub struct LogOptions {
    /// Format of log lines (default: json; for commands that people run, text)
    #[arg(long, value_enum)]
    log_format: Option<LogFormat>,

    /// Minimum level of log lines (default: info; for commands that people run, warning)
    #[arg(long, value_enum)]
    log_level: Option<LogLevel>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    Exec,
    Persistent,
}

#[derive(Clone, Copy, ValueEnum)]
enum Validate {
    /// None: the domain is passed on as it is
    None,
    /// Well-formed XML whose root is `domain`
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

impl LogOptions {
    /// The minimum level, if one was given.
    #[must_use]
    pub fn level(&self) -> Option<Level> {
        self.log_level.map(|level| match level {
            LogLevel::Debug => Level::DEBUG,
            LogLevel::Info => Level::INFO,
            LogLevel::Warning => Level::WARN,
            LogLevel::Error => Level::ERROR,
        })
    }

    #[must_use]
    pub fn format(&self, default: Format) -> Format {
        self.log_format.map_or(default, |format| match format {
            LogFormat::Json => Format::Json,
            LogFormat::Text => Format::Text,
        })
    }
}

impl ServeOptions {
    pub(super) fn resolve(
        &self,
        hooks: &HookOptions,
        words: Vec<OsString>,
    ) -> Result<ServeConfig, StartError> {
        Ok(ServeConfig {
            legacy: self.legacy_socket()?,
            plugin_socket: self.plugin_socket.clone(),
            socket_mode: self.socket_mode,
            backend: backend::Config { source: hooks.source(words)?, settings: hooks.settings()? },
            server: server::Config {
                peers: Peers { uids: self.allow_uid.as_ref().map(|list| list.0.clone()) },
                call_timeout: hooks.call_timeout,
                shutdown_grace: self.shutdown_grace,
            },
        })
    }

    fn legacy_socket(&self) -> Result<Option<LegacySocket>, StartError> {
        let Some(name) = self.version.as_deref().filter(|name| !name.is_empty()) else {
            if self.plugin_socket.is_some() {
                return Ok(None);
            }
            return Err(usage(
                "no hook API version: give --version v1alpha1, v1alpha2 or v1alpha3 (or \
                 --plugin-socket, for a plugin)",
            ));
        };
        let version = ApiVersion::parse(name).ok_or_else(|| {
            usage(format!(
                "unknown hook API version {name:?}: --version takes v1alpha1, v1alpha2 or v1alpha3"
            ))
        })?;
        Ok(Some(LegacySocket { version, dir: self.socket_dir.clone() }))
    }
}

impl HookOptions {
    /// What to serve.
    fn source(&self, words: Vec<OsString>) -> Result<HookSource, StartError> {
        match (self.mode.unwrap_or(Mode::Exec), self.worker.command(words)?) {
            (Mode::Exec, None) => Ok(HookSource::Exec(self.in_path())),
            (Mode::Exec, Some(_)) => Err(usage(
                "a worker needs --mode persistent; exec mode runs the programs in $PATH that are \
                 named after the hooks",
            )),
            (Mode::Persistent, Some(_)) if !self.node_hooks().is_empty() => Err(usage(
                "--node-hooks names programs in $PATH; a worker declares its hooks itself",
            )),
            (Mode::Persistent, Some(command)) => Ok(HookSource::Persistent(command)),
            (Mode::Persistent, None) => Ok(HookSource::PersistentInPath(self.in_path())),
        }
    }

    /// The programs to look for in `$PATH`.
    #[must_use]
    pub fn in_path(&self) -> InPath {
        InPath { extra: self.node_hooks().to_vec() }
    }

    /// Whether a program may be named after this hook.
    #[must_use]
    pub fn knows(&self, hook: &HookName) -> bool {
        !hook.is_node_hook()
            || HookName::NODE_HOOKS.contains(hook)
            || self.node_hooks().contains(hook)
    }

    fn node_hooks(&self) -> &[HookName] {
        self.node_hooks.as_ref().map_or(&[], |list| &list.0)
    }

    pub fn settings(&self) -> Result<Settings, StartError> {
        let (min_workers, max_workers) = (self.min_workers, self.max_workers);
        if min_workers > max_workers {
            return Err(usage(format!(
                "--min-workers {min_workers} is more than --max-workers {max_workers}"
            )));
        }
        Ok(Settings {
            min_workers: min_workers.into(),
            max_workers: max_workers.into(),
            idle_timeout: self.idle_timeout,
            queue: Load {
                calls: self.queue_limit.into(),
                bytes: usize::try_from(self.queue_bytes).unwrap_or(usize::MAX),
            },
            max_requests: self.max_requests,
            worker_memory: self.worker_memory,
            checks: match self.validate {
                Validate::None => Checks::None,
                Validate::WellFormed => Checks::WellFormed,
            },
            start_timeout: self.worker.start_timeout,
            kill_grace: self.worker.kill_grace,
        })
    }
}

impl WorkerOptions {
    /// The worker's command: typed behind `--`, or given with `--worker`.
    pub fn command(&self, words: Vec<OsString>) -> Result<Option<CommandLine>, StartError> {
        if let Some(command) = CommandLine::from_words(words) {
            return Ok(Some(command));
        }
        // An empty one takes an earlier one back.
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
}
