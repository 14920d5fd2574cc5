//! The shim's options, in groups: where it serves, how hooks run, how their processes live, and
//! what is logged. `hookctl` takes those groups that concern hooks.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use tracing::Level;

use super::TERMINATION_LOG;
use super::values::{
    List, metrics_parser, parse_node_hooks, parse_size, parse_socket_mode, parse_time, parse_uids,
    saturating, socket_parser, usage,
};
use crate::admission::{Load, Memory};
use crate::backend::{self, CommandLine, HookSource, InPath, Settings};
use crate::commands::serve::{LegacySocket, ServeConfig};
use crate::error::StartError;
use crate::hook::{Checks, HookName};
use crate::logging::Format;
use crate::metrics;
use crate::recording;
use crate::server::{self, Peers, SocketMode};
use crate::service::ApiVersion;

/// Where the shim serves, and whom.
#[derive(Args)]
#[command(next_help_heading = "Serving")]
pub(super) struct ServeOptions {
    /// Hook API version: v1alpha1, v1alpha2 or v1alpha3
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,

    /// Directory of the sidecar socket
    #[arg(long, value_name = "DIR", default_value = "/var/run/kubevirt-hooks")]
    pub(super) socket_dir: PathBuf,

    /// Socket for the Plugins API
    #[arg(long, value_name = "PATH", value_parser = socket_parser())]
    pub(super) plugin_socket: Option<PathBuf>,

    /// Metrics and probes over HTTP, for plugins: IP:PORT or unix:PATH
    #[arg(long, value_name = "ADDRESS", value_parser = metrics_parser())]
    metrics_listen: Option<metrics::Address>,

    /// Permissions of the sockets, octal (default: umask)
    #[arg(long, value_name = "MODE", value_parser = parse_socket_mode)]
    socket_mode: Option<SocketMode>,

    /// Other users that may connect (default: by permissions)
    #[arg(long, value_name = "UID,...", value_parser = parse_uids)]
    allow_uid: Option<List<u32>>,

    /// Time for calls to finish at shutdown
    #[arg(long, value_name = "TIME", default_value = "25s", value_parser = parse_time)]
    shutdown_grace: Duration,

    /// Memory for connections and calls (default: 3/8 of the container's)
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    memory_budget: Option<u64>,

    /// Time until a call is logged as slow (default: never)
    #[arg(long, value_name = "TIME", value_parser = parse_time, help_heading = "Logging")]
    slow: Option<Duration>,

    /// Log what hooks change, by path, without values
    #[arg(long, value_parser = clap::builder::BoolishValueParser::new(), help_heading = "Logging")]
    log_changes: bool,

    /// File for a failed start's reason
    #[arg(long, value_name = "PATH", default_value = TERMINATION_LOG)]
    pub(super) termination_log: PathBuf,

    #[command(flatten)]
    record: RecordOptions,
}

/// Which calls get onto a disk.
#[derive(Args)]
#[command(next_help_heading = "Recording")]
struct RecordOptions {
    /// Directory for calls as test cases (default: none)
    #[arg(long, value_name = "DIR")]
    record: Option<OsString>,

    /// Maximum number of cases in the directory
    #[arg(
        long,
        value_name = "N",
        default_value_t = 100,
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    record_limit: u16,

    /// Maximum size of the cases in all
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = parse_size)]
    record_bytes: u64,

    /// Record passwords, keys and user data too
    #[arg(long, value_parser = clap::builder::BoolishValueParser::new())]
    record_secrets: bool,
}

/// What runs the hooks, and its limits.
#[derive(Args)]
#[command(next_help_heading = "Hooks")]
pub struct HookOptions {
    /// How hooks run: exec or persistent (default: exec)
    #[arg(long, value_enum, hide_possible_values = true)]
    pub mode: Option<Mode>,

    #[command(flatten)]
    pub worker: WorkerOptions,

    /// Additional hooks to run as programs in $PATH
    #[arg(long, value_name = "NAME,...", value_parser = parse_node_hooks)]
    node_hooks: Option<List<HookName>>,

    /// Domain validation: none or well-formed
    #[arg(
        long,
        value_enum,
        value_name = "CHECK",
        hide_possible_values = true,
        default_value_t = Validate::WellFormed
    )]
    validate: Validate,

    /// Maximum time of a call (default: caller's deadline)
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub call_timeout: Option<Duration>,

    /// No new privileges by setuid or file capabilities
    #[arg(long, value_parser = clap::builder::BoolishValueParser::new())]
    pub no_new_privs: bool,

    #[command(flatten)]
    limits: LimitOptions,
}

/// The worker's command, and its timeouts.
#[derive(Args)]
#[command(next_help_heading = "Hooks")]
pub struct WorkerOptions {
    /// Worker command, quoted as in a shell
    #[arg(long, value_name = "COMMAND")]
    worker: Option<String>,

    /// Timeout for the response to initialize
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_time)]
    pub start_timeout: Duration,

    /// Time to exit before SIGKILL
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = parse_time)]
    pub kill_grace: Duration,
}

/// Limits of processes and of waiting calls.
#[derive(Args)]
#[command(next_help_heading = "Limits")]
struct LimitOptions {
    /// Maximum number of workers or running programs
    #[arg(
        long,
        value_name = "N",
        default_value_t = 4,
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    max_workers: u16,

    /// Number of idle workers to keep
    #[arg(long, value_name = "N", default_value_t = 0)]
    min_workers: u16,

    /// Idle time of a worker beyond --min-workers
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = parse_time)]
    idle_timeout: Duration,

    /// Maximum number of waiting calls
    #[arg(long, value_name = "N", default_value_t = 256)]
    queue_limit: u16,

    /// Maximum size of waiting documents (default: unlimited)
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    queue_bytes: Option<u64>,

    /// Maximum number of calls per worker (default: unlimited)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_requests: Option<u32>,

    /// Maximum data memory per process (default: unlimited)
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    worker_memory: Option<u64>,
}

/// What is logged, and how.
#[derive(Args)]
#[command(next_help_heading = "Logging")]
pub struct LogOptions {
    /// Format of log lines: json or text
    #[arg(long, value_enum, value_name = "FORMAT", hide_possible_values = true)]
    log_format: Option<LogFormat>,

    /// Minimum level: debug, info, warning or error
    #[arg(long, value_enum, value_name = "LEVEL", hide_possible_values = true)]
    log_level: Option<LogLevel>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    Exec,
    Persistent,
}

#[derive(Clone, Copy, ValueEnum)]
enum Validate {
    None,
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
    /// Returns the minimum level, if one was given.
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
        let memory = Memory::new(self.memory_budget()?);
        let settings = hooks.settings(memory.clone())?;
        let legacy = self.legacy_socket()?;
        if legacy.is_some() && self.metrics_listen.is_some() {
            return Err(usage(
                "--metrics-listen serves the metrics of a node's plugin, and --version is for a sidecar: \
                 that runs in the pod of a VM, whose ports do not reach it. Leave one of them out; \
                 `sidecar-shim status` works for both",
            ));
        }
        Ok(ServeConfig {
            legacy,
            metrics: self.metrics_listen.clone(),
            plugin_socket: self.plugin_socket.clone(),
            socket_mode: self.socket_mode,
            record: self.record.config(),
            backend: backend::Config { source: hooks.source(words)?, settings },
            server: server::Config {
                peers: Peers { uids: self.allow_uid.as_ref().map(|list| list.0.clone()) },
                call_timeout: hooks.call_timeout,
                slow: self.slow,
                log_changes: self.log_changes,
                shutdown_grace: self.shutdown_grace,
                memory,
            },
        })
    }

    /// Returns the budget of bytes for connections and calls.
    fn memory_budget(&self) -> Result<usize, StartError> {
        let Some(bytes) = self.memory_budget else {
            return Ok(server::default_memory_budget());
        };
        if bytes < server::MIN_MEMORY_BUDGET {
            return Err(usage(format!(
                "--memory-budget {bytes} is too small for one call: give at least {} bytes",
                server::MIN_MEMORY_BUDGET
            )));
        }
        Ok(saturating(bytes))
    }

    fn legacy_socket(&self) -> Result<Option<LegacySocket>, StartError> {
        let Some(name) = self.version.as_deref().filter(|name| !name.is_empty()) else {
            if self.plugin_socket.is_some() {
                return Ok(None);
            }
            return Err(usage(
                "no hook API version: give --version v1alpha1, v1alpha2 or v1alpha3 (or \
                 --plugin-socket, for a plugin). KubeVirt starts the sidecar of a network binding \
                 without arguments: set SIDECAR_SHIM_VERSION=v1alpha3, SIDECAR_SHIM_MODE and \
                 SIDECAR_SHIM_WORKER in its image",
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

impl RecordOptions {
    fn config(&self) -> Option<recording::Config> {
        // An empty one undoes an earlier one.
        let directory = self.record.as_ref().filter(|path| !path.is_empty())?;
        Some(recording::Config {
            directory: directory.into(),
            max_cases: self.record_limit.into(),
            max_bytes: self.record_bytes,
            with_secrets: self.record_secrets,
        })
    }
}

impl HookOptions {
    /// Returns what runs the hooks that are served.
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

    /// Returns the programs to look for in `$PATH`.
    #[must_use]
    pub fn in_path(&self) -> InPath {
        InPath { extra: self.node_hooks().to_vec() }
    }

    /// Returns whether a program may be named after this hook.
    #[must_use]
    pub fn knows(&self, hook: &HookName) -> bool {
        !hook.is_node_hook()
            || HookName::NODE_HOOKS.contains(hook)
            || self.node_hooks().contains(hook)
    }

    fn node_hooks(&self) -> &[HookName] {
        self.node_hooks.as_ref().map_or(&[], |list| &list.0)
    }

    /// Returns the limits of processes, which take their replies from `memory`.
    pub fn settings(&self, memory: Memory) -> Result<Settings, StartError> {
        let limits = &self.limits;
        let (min_workers, max_workers) = (limits.min_workers, limits.max_workers);
        if min_workers > max_workers {
            return Err(usage(format!(
                "--min-workers {min_workers} is more than --max-workers {max_workers}"
            )));
        }
        Ok(Settings {
            min_workers: min_workers.into(),
            max_workers: max_workers.into(),
            idle_timeout: limits.idle_timeout,
            queue: Load {
                calls: limits.queue_limit.into(),
                bytes: limits.queue_bytes.map_or(usize::MAX, saturating),
            },
            max_requests: limits.max_requests,
            worker_memory: limits.worker_memory,
            checks: match self.validate {
                Validate::None => Checks::None,
                Validate::WellFormed => Checks::WellFormed,
            },
            start_timeout: self.worker.start_timeout,
            kill_grace: self.worker.kill_grace,
            memory,
        })
    }
}

impl WorkerOptions {
    /// Returns the worker's command: the words after `--`, or that of `--worker`.
    pub fn command(&self, words: Vec<OsString>) -> Result<Option<CommandLine>, StartError> {
        if let Some(command) = CommandLine::from_words(words) {
            return Ok(Some(command));
        }
        // An empty --worker undoes an earlier one.
        let Some(text) = self.worker.as_ref().filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let words = shlex::split(text).ok_or_else(|| {
            usage(format!("--worker {text:?} cannot be split into words: a quote is not closed"))
        })?;
        match CommandLine::from_words(words.into_iter().map(OsString::from)) {
            Some(command) => Ok(Some(command)),
            None => Err(usage("--worker is empty: it must be a command")),
        }
    }
}
