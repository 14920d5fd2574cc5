//! Serves the hooks behind a socket in KubeVirt's directory, that of a plugin, or both, until told to
//! stop.

use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::backend::{Backend, Settings, Spec};
use crate::error::StartError;
use crate::server::{self, Peers, Served, Socket, SocketMode, Stop};
use crate::service::{Api, ApiVersion};

/// The container's name in the pod; KubeVirt sets it.
const CONTAINER_NAME: &str = "CONTAINER_NAME";

/// How much of the container's name goes into the socket's. A name has at most 63 bytes; a
/// socket's path at most 107.
const MAX_CONTAINER_NAME_BYTES: usize = 40;

/// What to serve, and where.
pub struct ServeConfig {
    /// The API of hook sidecars.
    pub legacy: Option<LegacySocket>,
    /// Where the Plugins API is served.
    pub plugin_socket: Option<PathBuf>,
    /// The permissions of sockets, if not those that the process's umask leaves.
    pub socket_mode: Option<SocketMode>,
    /// Who may connect.
    pub peers: Peers,
    /// What runs the hooks.
    pub spec: Spec,
    /// Its limits.
    pub limits: Limits,
}

/// How the API of hook sidecars is served.
pub struct LegacySocket {
    /// The version that `Info` advertises.
    pub version: ApiVersion,
    /// Where a socket is created.
    pub dir: PathBuf,
}

/// Limits of everything.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Those of the processes.
    pub settings: Settings,
    /// The longest time for one call.
    pub call_timeout: Option<Duration>,
    /// How long calls in flight may take at the end.
    pub shutdown_grace: Duration,
}

/// Serves until a signal or `Shutdown`.
pub async fn run(config: ServeConfig) -> Result<(), StartError> {
    let stop = Stop::default();
    let mut signals = Signals::new()?;
    let watched = stop.clone();
    tokio::spawn(async move {
        // The first asks for an orderly end, the second for an end.
        for token in [watched.gently, watched.at_once] {
            let name = signals.next().await;
            tracing::info!("sidecar-shim received signal: {name}");
            token.cancel();
        }
    });
    // What is wrong in any case is told before a worker is started.
    if let Some(LegacySocket { dir, .. }) = &config.legacy
        && let Err(source) = std::fs::read_dir(dir)
    {
        return Err(StartError::SocketDir { path: dir.clone(), source });
    }
    if let Some(path) = &config.plugin_socket {
        server::check_path(path)?;
        refuse_legacy_directory(path, config.legacy.as_ref())?;
    }
    let backend = tokio::select! {
        backend = Backend::start(&config.spec, &config.limits.settings) => Arc::new(backend?),
        () = stop.gently.cancelled() => return Ok(()),
    };
    // Only now: KubeVirt dials whatever it finds, and panics if it is not answered.
    let sockets = match bind(&config).await {
        Ok(sockets) => sockets,
        Err(error) => {
            backend.drain().await;
            return Err(error);
        }
    };
    let Limits { call_timeout, shutdown_grace, .. } = config.limits;
    let served = Served { backend, peers: config.peers, call_timeout, shutdown_grace };
    server::run(served, sockets, stop).await;
    Ok(())
}

/// KubeVirt dials every file in the directory of a hook sidecar's socket as one, and its virt-launcher
/// ends if that does not answer `Info`.
fn refuse_legacy_directory(path: &Path, legacy: Option<&LegacySocket>) -> Result<(), StartError> {
    let Some(LegacySocket { dir, .. }) = legacy else { return Ok(()) };
    // A directory that does not exist yet is another one.
    let same = |parent: &Path| Some(parent.canonicalize().ok()? == dir.canonicalize().ok()?);
    let parent = Path::new(".").join(path.parent().unwrap_or(path));
    if same(&parent) != Some(true) {
        return Ok(());
    }
    let why = format!(
        "KubeVirt takes whatever is in {} for the socket of a hook sidecar: name another directory",
        dir.display()
    );
    Err(StartError::Listen { path: path.to_owned(), why })
}

/// Binds every socket, or none.
async fn bind(config: &ServeConfig) -> Result<Vec<(Socket, Api)>, StartError> {
    let mut sockets = Vec::new();
    if let Some(path) = &config.plugin_socket {
        sockets.push((Socket::claim(path.clone(), config.socket_mode).await?, Api::Plugins));
    }
    if let Some(LegacySocket { version, dir }) = &config.legacy {
        let socket = Socket::bind(legacy_path(dir), config.socket_mode)?;
        sockets.push((socket, Api::Legacy(*version)));
    }
    Ok(sockets)
}

/// A name that no other sidecar of the pod has: KubeVirt tells sockets apart by their file
/// names alone, across all sidecars.
fn legacy_path(directory: &Path) -> PathBuf {
    let container: String = std::env::var(CONTAINER_NAME)
        .unwrap_or_default()
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
        .take(MAX_CONTAINER_NAME_BYTES)
        .collect();
    // The keys of the standard library's hashers are random, and as good as needed here.
    let random = RandomState::new().hash_one(std::process::id());
    let dash = if container.is_empty() { "" } else { "-" };
    directory.join(format!("shim-{container}{dash}{random:016x}.sock"))
}

/// The signals that end the shim.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    quit: Signal,
}

impl Signals {
    fn new() -> Result<Self, StartError> {
        let listen = |kind| {
            signal(kind).map_err(|source| StartError::System { what: "listen for signals", source })
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
            quit: listen(SignalKind::quit())?,
        })
    }

    /// The next one, by the name that the Go shim logs.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "interrupt",
            _ = self.terminate.recv() => "terminated",
            _ = self.hangup.recv() => "hangup",
            _ = self.quit.recv() => "quit",
        }
    }
}
