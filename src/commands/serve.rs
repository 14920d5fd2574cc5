//! Serves the hooks behind a socket in KubeVirt's directory, until told to stop.

use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::backend::{Backend, Settings, Spec};
use crate::error::StartError;
use crate::server::{self, Served, Socket, Stop};
use crate::service::ApiVersion;

/// The container's name in the pod; KubeVirt sets it.
const CONTAINER_NAME: &str = "CONTAINER_NAME";

/// How much of the container's name goes into the socket's. A name has at most 63 bytes; a
/// socket's path at most 107.
const MAX_CONTAINER_NAME_BYTES: usize = 40;

/// What to serve, and where.
pub struct ServeConfig {
    /// The version that `Info` advertises.
    pub version: ApiVersion,
    /// Where the socket is created.
    pub socket_dir: PathBuf,
    /// What runs the hooks.
    pub spec: Spec,
    /// Its limits.
    pub limits: Limits,
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
    if let Err(source) = std::fs::read_dir(&config.socket_dir) {
        return Err(StartError::SocketDir { path: config.socket_dir, source });
    }
    let backend = tokio::select! {
        backend = Backend::start(&config.spec, &config.limits.settings) => Arc::new(backend?),
        () = stop.gently.cancelled() => return Ok(()),
    };
    // Only now: KubeVirt dials whatever it finds, and panics if it is not answered.
    let socket = match Socket::bind(socket_path(&config.socket_dir)) {
        Ok(socket) => socket,
        Err(error) => {
            backend.drain().await;
            return Err(error);
        }
    };
    let Limits { call_timeout, shutdown_grace, .. } = config.limits;
    let served = Served { backend, version: config.version, call_timeout, shutdown_grace };
    server::run(served, socket, stop).await
}

/// A name that no other sidecar of the pod has: KubeVirt tells sockets apart by their file
/// names alone, across all sidecars.
fn socket_path(directory: &Path) -> PathBuf {
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
