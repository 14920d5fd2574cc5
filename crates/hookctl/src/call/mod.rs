//! Tries a hook without a cluster: starts the whole shim on a private socket, calls it as
//! virt-launcher or virt-handler does, and shows what the hook changes. The result goes to standard output,
//! everything else to standard error.

mod diff;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use clap::ColorChoice;
use sidecar_shim::backend::{self, CommandLine, HookSource, Settings, children_are_reaped};
use sidecar_shim::error::StartError;
use sidecar_shim::hook::HookName;
use sidecar_shim::server::{self, Peers, Server, Shutdown, Socket};
use sidecar_shim::service::client::{Client, ClientError};
use sidecar_shim::service::{Api, ApiVersion};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::cli::unknown_hook;
use crate::color;
use crate::detect::{Detected, detect};
use crate::inputs::{Inputs, Unreadable};
use crate::normalize::Kind;
use crate::say;

/// Time for the call in flight to finish when the user interrupts.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(25);

/// What to call, and with what.
pub(crate) struct CallConfig {
    /// The hook.
    pub(crate) hook: HookName,
    /// What it is called with.
    pub(crate) inputs: Inputs,
    /// Why a domain hook is called. With it, it is called by the Plugins API.
    pub(crate) context: Option<String>,
    /// Who answers.
    pub(crate) target: Target,
    /// How often to call.
    pub(crate) repeat: u32,
    /// The deadline of each call.
    pub(crate) timeout: Duration,
    /// When the diff is coloured.
    pub(crate) color: ColorChoice,
}

/// Who answers.
pub(crate) enum Target {
    /// A running shim.
    Running(PathBuf),
    /// A shim that is started for this.
    Private { program: HookProgram, settings: Settings, call_timeout: Option<Duration> },
}

/// What runs the hook.
pub(crate) enum HookProgram {
    Known(HookSource),
    /// A worker, or a program for each call: it is started once to find out.
    Undetermined {
        command: CommandLine,
        /// Whether a program may be named after the hook.
        program_may_run: bool,
    },
}

impl From<HookSource> for HookProgram {
    fn from(source: HookSource) -> Self {
        Self::Known(source)
    }
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
enum CallFailed {
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
    #[error("cannot create a directory for the socket: {0} (TMPDIR says where)")]
    Directory(std::io::Error),
    #[error("cannot write the result: {0}")]
    Write(std::io::Error),
    #[error(
        "this shim does not serve {hook} (it serves {offered}). (In exec mode a hook is a program in \
         $PATH of that name, or the command behind `--`; in persistent mode a worker declares it)"
    )]
    NotOffered { hook: HookName, offered: String },
    #[error("interrupted")]
    Interrupted,
}

/// Calls the hook, and shows the result.
pub(crate) async fn run(config: CallConfig) -> ExitCode {
    match call(&config).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => crate::fail(error),
    }
}

async fn call(config: &CallConfig) -> Result<(), CallFailed> {
    let documents = Documents::read(config)?;
    let outcome = match &config.target {
        Target::Running(socket) => exchange(config, socket, &documents).await?,
        Target::Private { program, settings, call_timeout } => {
            let source = tokio::select! {
                source = config.determine(program) => source?,
                error = interrupted() => {
                    children_are_reaped().await;
                    return Err(error);
                }
            };
            let backend = backend::Config { source, settings: settings.clone() };
            let shim = PrivateShim::start(&backend, *call_timeout, config.api()).await?;
            let outcome = tokio::select! {
                outcome = exchange(config, &shim.socket, &documents) => outcome,
                error = interrupted() => {
                    shim.shutdown.forced.cancel();
                    Err(error)
                }
            };
            shim.stop().await;
            outcome?
        }
    };
    show(config, &documents, &outcome)
}

/// What is sent.
#[derive(Clone)]
struct Documents {
    vmi: Bytes,
    /// The one that the hook may change, if it may.
    subject: Bytes,
}

impl CallConfig {
    /// Finds out how the hook runs, and says so if nobody had said it.
    async fn determine(&self, program: &HookProgram) -> Result<HookSource, CallFailed> {
        let (command, program_may_run) = match program {
            HookProgram::Known(source) => return Ok(source.clone()),
            HookProgram::Undetermined { command, program_may_run } => (command, *program_may_run),
        };
        match detect(command).await.map_err(CallFailed::CannotRun)? {
            Detected::Worker => {
                say("the command answers initialize: called as a worker (--mode persistent)");
                Ok(HookSource::Persistent(command.clone()))
            }
            Detected::Program(_) if !program_may_run => {
                Err(unknown_hook(self.hook.as_str()).into())
            }
            Detected::Program(sign) => {
                say(format_args!(
                    "the command does not answer initialize ({sign}): called as a program (--mode exec)"
                ));
                Ok(HookSource::ExecOne(self.hook.clone(), command.clone()))
            }
        }
    }

    /// The API that has the hook as it is to be called.
    fn api(&self) -> Api {
        if self.hook.is_node_hook() || self.context.is_some() {
            Api::Plugins
        } else {
            Api::Legacy(ApiVersion::V1Alpha3)
        }
    }
}

impl Documents {
    fn read(config: &CallConfig) -> Result<Self, Unreadable> {
        let inputs = &config.inputs;
        let vmi = inputs.read_vmi()?;
        let subject = if config.hook == HookName::PRE_CLOUD_INIT_ISO {
            inputs.read_cloud_init()?
        } else if config.hook.is_node_hook() {
            Bytes::new()
        } else {
            inputs.read_domain()?
        };
        Ok(Self { vmi, subject })
    }
}

/// A whole shim behind a socket that nobody else can reach.
struct PrivateShim {
    socket: PathBuf,
    shutdown: Shutdown,
    serving: JoinHandle<()>,
    /// Removed, with what is in it, when dropped.
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
        let config = server::Config {
            peers: Peers::default(),
            call_timeout,
            shutdown_grace: SHUTDOWN_GRACE,
        };
        let shutdown = Shutdown::default();
        let bind = async || Ok(vec![(Socket::bind(socket.clone(), None)?, api)]);
        let server = tokio::select! {
            server = Server::start(backend, config, shutdown.clone(), bind) => server?,
            error = interrupted() => return Err(error),
        };
        let serving = tokio::spawn(server.ok_or(CallFailed::Interrupted)?.run());
        Ok(Self { socket, shutdown, serving, _directory: directory })
    }

    async fn stop(mut self) {
        self.shutdown.graceful.cancel();
        let ended = tokio::select! {
            ended = &mut self.serving => ended,
            _ = interrupted() => {
                self.shutdown.forced.cancel();
                self.serving.await
            }
        };
        if ended.is_err() {
            // It has panicked. What it said may hold a piece of a document; where, the log says.
            tracing::error!("the private shim ended badly");
        }
    }
}

/// Waits for the user to lose patience.
async fn interrupted() -> CallFailed {
    crate::interrupted().await;
    CallFailed::Interrupted
}

/// What came back.
struct Outcome {
    result: Bytes,
    /// How long each call took, dialling included.
    times: Vec<Duration>,
}

async fn exchange(
    config: &CallConfig,
    socket: &Path,
    documents: &Documents,
) -> Result<Outcome, CallFailed> {
    let version = match config.api() {
        Api::Legacy(_) => Some(offered_version(config, socket).await?),
        Api::Plugins => None,
    };
    let mut result = Bytes::new();
    let mut times = Vec::new();
    for _ in 0..config.repeat {
        let started = Instant::now();
        let client = Client::dial(socket).await?;
        let answer = call_once(config, &client, version, documents).await;
        times.push(started.elapsed());
        result = answer.map_err(|source| CallFailed::Call { hook: config.hook.clone(), source })?;
    }
    Ok(Outcome { result, times })
}

/// Asks a hook sidecar, as virt-launcher does, by which version the hook is to be called.
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

/// Makes one call, and returns the document that came back, if there is one.
async fn call_once(
    config: &CallConfig,
    client: &Client,
    version: Option<ApiVersion>,
    documents: &Documents,
) -> Result<Bytes, ClientError> {
    let Documents { vmi, subject } = documents.clone();
    let timeout = config.timeout;
    match version {
        Some(version) if config.hook == HookName::PRE_CLOUD_INIT_ISO => {
            client.pre_cloud_init_iso(version, vmi, subject, timeout).await
        }
        Some(version) => client.on_define_domain(version, vmi, subject, timeout).await,
        None if config.hook.is_node_hook() => {
            let (point, node) = (config.hook.hook_point(), config.inputs.node.clone());
            client.execute_node_hook(point, vmi, node, timeout).await?;
            Ok(Bytes::new())
        }
        None => {
            let context = config.context.clone().unwrap_or_default();
            client.mutate_domain(vmi, subject, context, timeout).await
        }
    }
}

fn show(config: &CallConfig, documents: &Documents, outcome: &Outcome) -> Result<(), CallFailed> {
    let stderr = std::io::stderr();
    let color = color::is_on(config.color, &stderr);
    let mut report = if config.hook.is_node_hook() {
        // It changes no document. Without a word, nothing would tell that it has run.
        format!("{} has answered: its work is done\n", config.hook)
    } else {
        let is_json = config.hook == HookName::PRE_CLOUD_INIT_ISO;
        let kind = if is_json { Kind::Json } else { Kind::Xml };
        diff::unified(kind, &documents.subject, &outcome.result, color)
    };
    if config.repeat > 1 {
        report.push_str(&timing(&outcome.times));
    }
    // The diff goes first, so that on a terminal the result is not torn apart by it.
    let _ = stderr.lock().write_all(report.as_bytes());
    if config.hook.is_node_hook() {
        return Ok(());
    }
    let mut stdout = std::io::stdout().lock();
    let mut written = stdout.write_all(&outcome.result);
    if stdout.is_terminal() && !outcome.result.ends_with(b"\n") {
        written = written.and_then(|()| stdout.write_all(b"\n"));
    }
    match written.and_then(|()| stdout.flush()) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(CallFailed::Write),
    }
}

fn timing(times: &[Duration]) -> String {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let at = |percent: usize| {
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).map_or(0.0, |time| time.as_secs_f64() * 1000.0)
    };
    format!(
        "{} calls, each on a connection of its own: p50 {:.3} ms, p99 {:.3} ms\n",
        sorted.len(),
        at(50),
        at(99)
    )
}
