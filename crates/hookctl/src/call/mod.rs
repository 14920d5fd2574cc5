//! Tries a hook without a cluster: starts the whole shim on a private socket, calls it as
//! virt-launcher or virt-handler does, and shows what the hook changes, and whether it changes its
//! own result again. The result goes to a file, or to stdout if that is not a terminal; everything
//! else goes to stderr.

mod again;
pub(crate) mod diff;
mod report;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use clap::ColorChoice;
use sidecar_shim::backend::{self, CommandLine, HookSource, Settings};
use sidecar_shim::error::StartError;
use sidecar_shim::hook::{HookKind, HookName};
use sidecar_shim::server::{self, Peers, Server, Shutdown, Socket};
use sidecar_shim::service::client::{Client, ClientError};
use sidecar_shim::service::{Api, ApiVersion};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use self::again::Again;
use crate::detect::{Detected, detect};
use crate::inputs::{Documents, Inputs, Unreadable};
use crate::rewrite::Receiver;
use crate::{output, say};

/// Time for connections to close after the last call. The calls themselves have a deadline.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(25);

/// What to call, and with what.
pub(crate) struct CallConfig {
    pub(crate) hook: HookName,
    pub(crate) inputs: Inputs,
    /// Why KubeVirt calls a domain hook. With it, the call goes through the Plugins API.
    pub(crate) context: Option<String>,
    pub(crate) target: Target,
    /// Number of calls.
    pub(crate) repeat: u32,
    /// Deadline of each call.
    pub(crate) timeout: Duration,
    /// When to colour the report.
    pub(crate) color: ColorChoice,
    /// File for the result; `-` is stdout. Without one, the result goes to stdout if that is not a
    /// terminal.
    pub(crate) output: Option<PathBuf>,
}

/// The shim that is called.
pub(crate) enum Target {
    /// The socket of a running one.
    Running(PathBuf),
    /// One that is started for the calls.
    Private { program: HookProgram, settings: Settings, call_timeout: Option<Duration> },
}

/// What runs the hook.
pub(crate) enum HookProgram {
    Known(HookSource),
    /// A worker or a program for each call. Starting it once shows which.
    Undetermined {
        command: CommandLine,
        /// Whether a program may be named after the hook.
        program_may_run: bool,
    },
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallFailed {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("{hook} failed: {source}")]
    Call { hook: HookName, source: ClientError },
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Read(#[from] Unreadable),
    /// Its text names the command.
    #[error("{0}")]
    CannotRun(String),
    #[error("{}. The command is not a worker: {sign}", unknown_hook(hook.as_str()))]
    NotAWorker { hook: HookName, sign: String },
    #[error("cannot create a directory for the socket in $TMPDIR: {0}")]
    Directory(std::io::Error),
    #[error("cannot write the result: {0}")]
    Write(std::io::Error),
    #[error("cannot write the result to {}: {source}", path.display())]
    WriteFile { path: PathBuf, source: std::io::Error },
    #[error(
        "this shim does not serve {hook} (it serves {offered}). In exec mode a hook is a program \
         in $PATH of that name, or the command after `--`; in persistent mode a worker declares it"
    )]
    NotOffered { hook: HookName, offered: String },
}

/// Calls the hook, and shows the result.
pub(crate) async fn run(config: &CallConfig) -> Result<(), CallFailed> {
    let mut documents = config.inputs.load().await?;
    if config.api() == Api::Plugins && config.inputs.domain.is_none() {
        let sample = documents.domain;
        documents.domain = Receiver::SamePlugin.rewrite_document(&sample).unwrap_or(sample);
    }
    let outcome = match &config.target {
        Target::Running(socket) => exchange(config, socket, &documents).await?,
        Target::Private { program, settings, call_timeout } => {
            let source = config.determine(program).await?;
            let backend = backend::Config { source, settings: settings.clone() };
            let shim = PrivateShim::start(&backend, *call_timeout, config.api()).await?;
            let outcome = exchange(config, &shim.socket, &documents).await;
            shim.stop().await;
            outcome?
        }
    };
    show(config, &documents, &outcome)
}

impl CallConfig {
    /// Returns what runs the hook. If the user did not say, finds out, and reports it.
    async fn determine(&self, program: &HookProgram) -> Result<HookSource, CallFailed> {
        let (command, program_may_run) = match program {
            HookProgram::Known(source) => return Ok(source.clone()),
            HookProgram::Undetermined { command, program_may_run } => (command, *program_may_run),
        };
        match detect(command).await.map_err(CallFailed::CannotRun)? {
            Detected::Worker => {
                say("the command responds to initialize: it runs as a worker (--mode persistent)");
                Ok(HookSource::Persistent(command.clone()))
            }
            Detected::Program(sign) if program_may_run => {
                say(format_args!(
                    "the command does not respond to initialize ({sign}): it runs as a program \
                     for each call (--mode exec); if it is a worker, see why with --mode persistent"
                ));
                Ok(HookSource::ExecOne(self.hook.clone(), command.clone()))
            }
            Detected::Program(sign) => {
                Err(CallFailed::NotAWorker { hook: self.hook.clone(), sign })
            }
        }
    }

    /// Returns the API through which KubeVirt calls the hook.
    fn api(&self) -> Api {
        match (self.hook.kind(), &self.context) {
            (HookKind::Domain, None) | (HookKind::CloudInit, _) => {
                Api::Legacy(ApiVersion::V1Alpha3)
            }
            (HookKind::Domain, Some(_)) | (HookKind::Node, _) => Api::Plugins,
        }
    }
}

/// Returns the error for a name that no hook has, or that no program may have.
pub(crate) fn unknown_hook(name: &str) -> StartError {
    StartError::Usage(format!(
        "unknown hook {name:?}: hooks are onDefineDomain, preCloudInitIso, node hooks such as \
         preVMStart, and in exec mode those that --node-hooks names"
    ))
}

/// A whole shim behind a socket that no other user can reach. Dropped, it shuts down at once.
struct PrivateShim {
    socket: PathBuf,
    shutdown: Shutdown,
    serving: JoinHandle<()>,
    /// Removed, with the socket, when dropped.
    _directory: tempfile::TempDir,
}

impl PrivateShim {
    async fn start(
        backend: &backend::Config,
        call_timeout: Option<Duration>,
        api: Api,
    ) -> Result<Self, CallFailed> {
        let directory =
            tempfile::Builder::new().prefix("hookctl-").tempdir().map_err(CallFailed::Directory)?;
        let socket = directory.path().join("shim.sock");
        let shutdown = Shutdown::default();
        let config = server::Config {
            slow: None,
            log_changes: false,
            peers: Peers::default(),
            call_timeout,
            shutdown_grace: SHUTDOWN_GRACE,
            memory: backend.settings.memory.clone(),
        };
        let bind = async || Ok(vec![(Socket::bind(socket.clone(), None)?, api)]);
        let server = Server::start(backend, config, shutdown.clone(), bind).await?;
        let serving = tokio::spawn(async move {
            // Nothing asks for a shutdown before the shim has started.
            if let Some(server) = server {
                server.run().await;
            }
        });
        Ok(Self { socket, shutdown, serving, _directory: directory })
    }

    /// Stops the workers.
    async fn stop(mut self) {
        self.shutdown.graceful.cancel();
        if (&mut self.serving).await.is_err() {
            // The panic's text may quote a document, so only the log has its place.
            tracing::error!("internal error (panic) in the private shim");
        }
    }
}

impl Drop for PrivateShim {
    fn drop(&mut self) {
        self.shutdown.graceful.cancel();
        self.shutdown.forced.cancel();
    }
}

/// What the calls returned.
struct Outcome {
    /// The last call's.
    result: Bytes,
    /// Duration of each call, connecting included.
    times: Vec<Duration>,
    /// One more call, with the result.
    again: Option<Again>,
}

async fn exchange(
    config: &CallConfig,
    socket: &Path,
    documents: &Documents,
) -> Result<Outcome, CallFailed> {
    let api = match config.api() {
        Api::Legacy(_) => Api::Legacy(offered_version(config, socket).await?),
        Api::Plugins => Api::Plugins,
    };
    let mut result = Bytes::new();
    let mut times = Vec::new();
    for _ in 0..config.repeat {
        let started = Instant::now();
        let client = Client::dial(socket).await?;
        let reply = call_once(config, &client, api, documents).await;
        times.push(started.elapsed());
        result = reply.map_err(|source| CallFailed::Call { hook: config.hook.clone(), source })?;
    }
    let again = again::call(config, socket, api, documents, &result).await;
    Ok(Outcome { result, times, again })
}

/// Asks a hook sidecar, as virt-launcher does, for the version by which it is to be called.
async fn offered_version(config: &CallConfig, socket: &Path) -> Result<ApiVersion, CallFailed> {
    let offer = Client::dial(socket).await?.info().await?;
    if offer.hook_points.contains(&config.hook.hook_point()) {
        return Ok(offer.version);
    }
    let mut offered = offer.hook_points.join(", ");
    if offered.is_empty() {
        "no hooks".clone_into(&mut offered);
    }
    Err(CallFailed::NotOffered { hook: config.hook.clone(), offered })
}

/// Makes one call, and returns the document in its reply. A node hook returns none.
async fn call_once(
    config: &CallConfig,
    client: &Client,
    api: Api,
    documents: &Documents,
) -> Result<Bytes, ClientError> {
    let (kind, timeout) = (config.hook.kind(), config.timeout);
    let (vmi, subject) = (documents.vmi.clone(), documents.subject(kind));
    match (api, kind) {
        (Api::Legacy(version), HookKind::Domain) => {
            client.on_define_domain(version, vmi, subject, timeout).await
        }
        (Api::Legacy(version), HookKind::CloudInit) => {
            client.pre_cloud_init_iso(version, vmi, subject, timeout).await
        }
        (Api::Plugins, HookKind::Domain) => {
            let context = config.context.clone().unwrap_or_default();
            client.mutate_domain(vmi, subject, context, timeout).await
        }
        (Api::Plugins, HookKind::CloudInit) | (_, HookKind::Node) => {
            let (point, node) = (config.hook.hook_point(), documents.node.clone());
            client.execute_node_hook(point, vmi, node, timeout).await?;
            Ok(Bytes::new())
        }
    }
}

fn show(config: &CallConfig, documents: &Documents, outcome: &Outcome) -> Result<(), CallFailed> {
    let color = output::is_colored(config.color, &std::io::stderr());
    // The report goes first: on a terminal it must not interrupt the result.
    output::write_stderr(&report::report(config, documents, outcome, color));
    let result = &outcome.result[..];
    match &config.output {
        Some(path) if path.as_os_str() != "-" => std::fs::write(path, result)
            .map_err(|source| CallFailed::WriteFile { path: path.clone(), source }),
        None if std::io::stdout().is_terminal() => Ok(()),
        _ if std::io::stdout().is_terminal() && !result.ends_with(b"\n") => {
            output::write_stdout(&[result, b"\n"].concat()).map_err(CallFailed::Write)
        }
        _ => output::write_stdout(result).map_err(CallFailed::Write),
    }
}
