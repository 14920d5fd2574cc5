//! The options of serving: where, what runs the hooks, and all limits.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::values::{
    List, parse_node_hooks, parse_size, parse_socket_mode, parse_time, parse_uids, usage,
};
use super::{TERMINATION_LOG, TERMINATION_LOG_VARIABLE};
use crate::backend::{CommandLine, InPath, Settings, Spec};
use crate::commands::serve::{LegacySocket, Limits, ServeConfig};
use crate::error::StartError;
use crate::hook::{Checks, HookName};
use crate::server::{Peers, SocketMode};
use crate::service::ApiVersion;

/// Options of serving, most of which hold for `call` too. They may stand on either side of a
/// command's name.
#[derive(Args)]
pub(super) struct Options {
    /// Version of the hook API to advertise: v1alpha1, v1alpha2 or v1alpha3
    #[arg(long, global = true, env = "SIDECAR_SHIM_VERSION", value_name = "VERSION")]
    version: Option<String>,

    /// How hooks are run: exec starts a program for each call, persistent keeps workers running
    #[arg(long, global = true, env = "SIDECAR_SHIM_MODE", value_enum, default_value_t = Mode::Exec)]
    mode: Mode,

    /// The worker's command, in words as a shell has them: 'python3 /hooks/smbios.py'
    #[arg(long, global = true, env = "SIDECAR_SHIM_WORKER", value_name = "COMMAND")]
    worker: Option<String>,

    /// Where the Plugins API is served, with --version beside the API of hook sidecars
    #[arg(long, global = true, env = "SIDECAR_SHIM_PLUGIN_SOCKET", value_name = "PATH")]
    pub(super) plugin_socket: Option<PathBuf>,

    /// Hook points beyond the known ones that programs in $PATH may be named after, with commas
    /// between
    #[arg(
        long,
        global = true,
        env = "SIDECAR_SHIM_NODE_HOOKS",
        value_name = "NAME,...",
        value_parser = parse_node_hooks
    )]
    node_hooks: Option<List<HookName>>,

    /// Permissions of sockets in octal, 0660 (default: what the umask leaves)
    #[arg(
        long,
        global = true,
        env = "SIDECAR_SHIM_SOCKET_MODE",
        value_name = "MODE",
        value_parser = parse_socket_mode
    )]
    socket_mode: Option<SocketMode>,

    /// Users, by number, that may connect, with commas between (default: whoever the permissions let).
    /// The shim's own may always
    #[arg(
        long,
        global = true,
        env = "SIDECAR_SHIM_ALLOW_UID",
        value_name = "UID,...",
        value_parser = parse_uids
    )]
    allow_uid: Option<List<u32>>,

    /// Directory in which the socket of the hook sidecars' API is created
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
    pub(super) log_format: Option<LogFormat>,

    /// Which log lines are written (default: info, for `call` warning and what hooks write)
    #[arg(long, global = true, env = "SIDECAR_SHIM_LOG_LEVEL", value_enum)]
    pub(super) log_level: Option<LogLevel>,

    /// Let no hook gain privileges, by setuid programs or file capabilities (in the environment:
    /// true or false)
    #[arg(
        long,
        global = true,
        env = "SIDECAR_SHIM_NO_NEW_PRIVS",
        value_parser = clap::builder::BoolishValueParser::new()
    )]
    pub(super) no_new_privs: bool,

    /// File in which a failed start is told too, if it exists
    #[arg(
        long,
        global = true,
        env = TERMINATION_LOG_VARIABLE,
        value_name = "PATH",
        default_value = TERMINATION_LOG
    )]
    pub(super) termination_log: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Mode {
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
pub(super) enum LogFormat {
    Json,
    Text,
}

#[derive(Clone, Copy, ValueEnum)]
pub(super) enum LogLevel {
    Debug,
    Info,
    Warning,
    Error,
}

impl Options {
    pub(super) fn serve(self, words: Vec<OsString>) -> Result<ServeConfig, StartError> {
        let legacy = match self.version.as_deref() {
            None | Some("") if self.plugin_socket.is_some() => None,
            None | Some("") => {
                return Err(usage(
                    "no hook API version: give --version v1alpha1, v1alpha2 or v1alpha3 (or \
                     --plugin-socket, for a plugin)",
                ));
            }
            Some(name) => {
                let version = ApiVersion::parse(name).ok_or_else(|| {
                    usage(format!(
                        "unknown hook API version {name:?}: --version takes v1alpha1, v1alpha2 or \
                         v1alpha3"
                    ))
                })?;
                Some(LegacySocket { version, dir: self.socket_dir.clone() })
            }
        };
        let spec = match (self.mode, self.command_line(words)?) {
            (Mode::Exec, None) => Spec::Exec(self.in_path()),
            (Mode::Exec, Some(_)) => {
                return Err(usage(
                    "a worker makes sense with --mode persistent only; exec mode runs the programs \
                     in $PATH that are named after the hooks",
                ));
            }
            (Mode::Persistent, Some(_)) if !self.node_hooks().is_empty() => {
                return Err(usage(
                    "--node-hooks names programs in $PATH; a worker says by itself which hooks it has",
                ));
            }
            (Mode::Persistent, Some(command)) => Spec::Persistent(command),
            (Mode::Persistent, None) => Spec::PersistentInPath(self.in_path()),
        };
        let limits = self.limits()?;
        Ok(ServeConfig {
            legacy,
            plugin_socket: self.plugin_socket,
            socket_mode: self.socket_mode,
            peers: Peers { uids: self.allow_uid.map(|list| list.0) },
            spec,
            limits,
        })
    }

    /// The programs to look for in `$PATH`.
    pub(super) fn in_path(&self) -> InPath {
        InPath { more: self.node_hooks().to_vec() }
    }

    /// Whether a program may be named after this hook.
    pub(super) fn knows(&self, hook: &HookName) -> bool {
        !hook.is_node_hook()
            || HookName::NODE_HOOKS.contains(hook)
            || self.node_hooks().contains(hook)
    }

    fn node_hooks(&self) -> &[HookName] {
        self.node_hooks.as_ref().map_or(&[], |list| &list.0)
    }

    /// How hooks are run.
    pub(super) fn mode(&self) -> Mode {
        self.mode
    }

    /// The worker's command: typed behind `--`, or given with `--worker`.
    pub(super) fn command_line(
        &self,
        words: Vec<OsString>,
    ) -> Result<Option<CommandLine>, StartError> {
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

    pub(super) fn limits(&self) -> Result<Limits, StartError> {
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
