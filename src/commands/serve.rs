//! Serves the hooks behind a socket in KubeVirt's directory, a plugin's socket, or both, until a
//! signal or `Shutdown`.

use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::backend;
use crate::error::StartError;
use crate::metrics;
use crate::recording::{self, Recorder};
use crate::server::{self, MetricsSocket, Server, Shutdown, Socket, SocketMode};
use crate::service::{Api, ApiVersion};

/// Variable with the container's name in the pod; KubeVirt sets it.
const CONTAINER_NAME: &str = "CONTAINER_NAME";

/// Maximum length of the container's name in the socket's. A container's name has up to 63 bytes,
/// and a socket's path at most 107.
const MAX_CONTAINER_NAME_BYTES: usize = 40;

/// Time for processes that hooks have left behind to exit after SIGTERM, once the shim has stopped
/// serving. It adds to the time that stopping takes. A daemon that needs longer to save something
/// belongs into a separate container.
const ORPHAN_GRACE: Duration = Duration::from_millis(500);

/// What to serve, and where.
pub struct ServeConfig {
    pub legacy: Option<LegacySocket>,
    /// The socket for the Plugins API.
    pub plugin_socket: Option<PathBuf>,
    /// Where metrics are served.
    pub metrics: Option<metrics::Address>,
    /// Permissions of the sockets; without them the process's umask decides.
    pub socket_mode: Option<SocketMode>,
    /// Whether and where calls are recorded as cases.
    pub record: Option<recording::Config>,
    pub backend: backend::Config,
    pub server: server::Config,
}

/// A socket for the API of hook sidecars.
pub struct LegacySocket {
    /// The version that `Info` advertises.
    pub version: ApiVersion,
    /// The directory in which the socket is created.
    pub dir: PathBuf,
}

/// Serves until a signal or `Shutdown`. Returns when no process of a hook is left.
pub async fn run(config: ServeConfig) -> Result<(), StartError> {
    let outcome = serve(config).await;
    backend::stop_orphans(ORPHAN_GRACE).await;
    outcome
}

async fn serve(config: ServeConfig) -> Result<(), StartError> {
    let shutdown = Shutdown::default();
    let mut signals = Signals::new()?;
    let Shutdown { graceful, forced } = shutdown.clone();
    tokio::spawn(async move {
        // The first signal starts a graceful shutdown, the second drops the calls in flight, the
        // third kills what still runs.
        let steps: [&(dyn Fn() + Sync); 3] =
            [&|| graceful.cancel(), &|| forced.cancel(), &backend::kill_processes];
        for step in steps {
            let (_, name) = signals.next().await;
            tracing::info!("sidecar-shim received signal: {name}");
            step();
        }
    });
    // What can be checked without a worker is checked before one starts.
    if let Some(LegacySocket { dir, .. }) = &config.legacy
        && let Err(source) = std::fs::read_dir(dir)
    {
        return Err(StartError::SocketDir { path: dir.clone(), source });
    }
    if let Some(metrics::Address::Unix(path)) = &config.metrics {
        server::check_path(path)?;
        refuse_plugin_socket(path, config.plugin_socket.as_deref())?;
    }
    if let Some(path) = &config.plugin_socket {
        server::check_path(path)?;
        refuse_legacy_directory(path, config.legacy.as_ref())?;
    }
    let memory = config.server.memory.clone();
    let start = |record| Recorder::start(record, memory, config.plugin_socket.is_some());
    let recorder = config.record.clone().map(start).transpose()?;
    let mut metrics = None;
    let bind = async || {
        if let Some(address) = &config.metrics {
            metrics = Some(MetricsSocket::bind(address, config.socket_mode).await?);
        }
        bind(&config).await
    };
    let server = Server::start(&config.backend, config.server.clone(), shutdown, bind).await?;
    if let Some(server) = server {
        server.with_metrics(metrics).with_recorder(recorder).run().await;
    }
    Ok(())
}

/// Refuses a plugin's socket in the directory of a hook sidecar's: KubeVirt dials every file there,
/// and its virt-launcher exits if one does not answer `Info`.
fn refuse_legacy_directory(path: &Path, legacy: Option<&LegacySocket>) -> Result<(), StartError> {
    let Some(LegacySocket { dir, .. }) = legacy else { return Ok(()) };
    // A directory that does not exist yet is a different one.
    let same = |parent: &Path| Some(parent.canonicalize().ok()? == dir.canonicalize().ok()?);
    let parent = Path::new(".").join(path.parent().unwrap_or(path));
    if same(&parent) != Some(true) {
        return Ok(());
    }
    let why = format!(
        "KubeVirt dials every file in {} as a hook sidecar: use another directory",
        dir.display()
    );
    Err(StartError::Listen { path: path.to_owned(), why })
}

/// Refuses metrics on a plugin's own socket.
fn refuse_plugin_socket(path: &Path, plugin: Option<&Path>) -> Result<(), StartError> {
    if plugin != Some(path) {
        return Ok(());
    }
    let why = "--plugin-socket and --metrics-listen name the same socket: use two".to_owned();
    Err(StartError::Listen { path: path.to_owned(), why })
}

/// Binds all sockets, or none.
async fn bind(config: &ServeConfig) -> Result<Vec<(Socket, Api)>, StartError> {
    let mut sockets = Vec::new();
    if let Some(path) = &config.plugin_socket {
        sockets.push((
            Socket::bind_replacing_stale(path.clone(), config.socket_mode).await?,
            Api::Plugins,
        ));
    }
    if let Some(LegacySocket { version, dir }) = &config.legacy {
        let socket = Socket::bind(legacy_path(dir), config.socket_mode)?;
        sockets.push((socket, Api::Legacy(*version)));
    }
    Ok(sockets)
}

/// Returns a path with a file name that is unique in the pod: KubeVirt distinguishes the sockets of
/// all sidecars by their file names alone.
fn legacy_path(directory: &Path) -> PathBuf {
    let container: String = std::env::var(CONTAINER_NAME)
        .unwrap_or_default()
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
        .take(MAX_CONTAINER_NAME_BYTES)
        .collect();
    // The keys of the standard library's hashers are random enough for this.
    let random = RandomState::new().hash_one(std::process::id());
    let dash = if container.is_empty() { "" } else { "-" };
    directory.join(format!("shim-{container}{dash}{random:016x}.sock"))
}

/// The signals that shut the shim down, and stop `hookctl`.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    quit: Signal,
}

impl Signals {
    pub fn new() -> Result<Self, StartError> {
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

    /// Waits for the next one and returns its number, and the name that the Go shim logs.
    pub async fn next(&mut self) -> (u8, &'static str) {
        // Linux has these numbers on every architecture.
        tokio::select! {
            _ = self.hangup.recv() => (1, "hangup"),
            _ = self.interrupt.recv() => (2, "interrupt"),
            _ = self.quit.recv() => (3, "quit"),
            _ = self.terminate.recv() => (15, "terminated"),
        }
    }
}
