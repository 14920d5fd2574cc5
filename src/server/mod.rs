//! The order of a server's life: sockets appear when the shim can answer, and are removed before it
//! stops answering. Then calls finish, and workers stop.

mod accept;
mod announce;
mod cgroup;
#[cfg(target_env = "gnu")]
mod memory;
mod metrics;
mod socket;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

pub use accept::Peers;
use accept::Places;
pub use cgroup::{MIN_MEMORY_BUDGET, default_memory_budget};
pub use metrics::MetricsSocket;
pub use socket::{Socket, SocketMode, check_path};

use crate::admission::{Budget, Load, Memory, Watched};
use crate::backend::{self, Backend};
use crate::error::StartError;
use crate::metrics::Sources;
use crate::recording::Recorder;
use crate::service::{self, Api, Shim};
use crate::stats::Stats;

/// Time for callers to read their reply, or that their call was dropped, while the shim shuts down.
const LAST_REPLIES_LIMIT: Duration = Duration::from_millis(500);

/// The two steps of shutting down.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    /// Accept nothing more, let calls finish, stop the workers.
    pub graceful: CancellationToken,
    /// Drop what is still in flight.
    pub forced: CancellationToken,
}

/// The configuration of a [`Server`].
#[derive(Debug, Clone)]
pub struct Config {
    pub peers: Peers,
    /// Upper limit of a call's time, which the caller's deadline may only shorten.
    pub call_timeout: Option<Duration>,
    /// The time after which a call is slow, and logged as such.
    pub slow: Option<Duration>,
    /// Whether the log says what a hook changed.
    pub log_changes: bool,
    /// Time for calls in flight to finish after the graceful step.
    pub shutdown_grace: Duration,
    /// The budget of bytes for connections and calls, the backend's own.
    pub memory: Memory,
}

/// A shim that is ready to serve: its workers have started and its sockets are bound.
pub struct Server {
    backend: Arc<Backend>,
    sockets: Vec<(Socket, Api)>,
    metrics: Option<MetricsSocket>,
    recorder: Option<Arc<Recorder>>,
    config: Config,
    /// The limits in force, for the log.
    limits: Value,
    shutdown: Shutdown,
}

impl Server {
    /// Starts the backend and only then binds: KubeVirt dials every socket that it finds, and
    /// panics if it gets no reply. Returns `None` if the shutdown comes first.
    pub async fn start(
        backend: &backend::Config,
        config: Config,
        shutdown: Shutdown,
        bind: impl AsyncFnOnce() -> Result<Vec<(Socket, Api)>, StartError>,
    ) -> Result<Option<Self>, StartError> {
        let settings = &backend.settings;
        let backend = tokio::select! {
            backend = Backend::start(backend) => Arc::new(backend?),
            () = shutdown.graceful.cancelled() => return Ok(None),
        };
        match bind().await {
            Ok(sockets) => {
                let limits = announce::limits(settings, &config, backend.is_persistent());
                let (metrics, recorder) = (None, None);
                Ok(Some(Self { backend, sockets, metrics, recorder, config, limits, shutdown }))
            }
            Err(error) => {
                backend.drain().await;
                Err(error)
            }
        }
    }

    /// Serves metrics as well.
    #[must_use]
    pub fn with_metrics(self, metrics: Option<MetricsSocket>) -> Self {
        Self { metrics, ..self }
    }

    /// Records calls as well.
    #[must_use]
    pub fn with_recorder(self, recorder: Option<Arc<Recorder>>) -> Self {
        Self { recorder, ..self }
    }

    /// Serves an API behind each socket until the shutdown. Returns when calls in flight have
    /// finished or were dropped, the sockets are removed and every process is reaped.
    pub async fn run(self) {
        let Self { backend, mut sockets, metrics, recorder, config, limits, shutdown } = self;
        let in_flight = Budget::unlimited();
        let calls = in_flight.held().clone();
        let budget = config.memory.clone();
        #[cfg(target_env = "gnu")]
        tokio::spawn(memory::keep_between_calls(budget.held().clone()));
        let places = Places::new(budget.clone());
        let stats = Arc::new(Stats::new(backend.hooks()));
        let metrics = metrics.map(|socket| {
            socket.serve(Sources {
                backend: backend.clone(),
                stats: stats.clone(),
                memory: budget.clone(),
                stop: shutdown.graceful.clone(),
            })
        });
        let shim = Arc::new(Shim {
            calls: AtomicU64::new(0),
            stats,
            backend: backend.clone(),
            call_timeout: config.call_timeout,
            slow: config.slow,
            log_changes: config.log_changes,
            max_argument_bytes: backend.max_argument_bytes(),
            stop: shutdown.graceful.clone(),
            give_up: shutdown.forced.clone(),
            recorder: recorder.clone(),
            in_flight,
            memory: budget,
        });
        let (mut serving, mut accepting) = (JoinSet::new(), JoinSet::new());
        for (socket, api) in &mut sockets {
            let Some(listener) = socket.listener.take() else { continue };
            let (connections, incoming) = mpsc::channel(1);
            serving.spawn(service::serve(shim.clone(), *api, incoming, shutdown.graceful.clone()));
            let peers = config.peers.clone();
            accepting.spawn(accept::accept(listener, peers, places.clone(), connections));
            announce::log_start(socket.path(), *api, &backend, &limits);
        }
        // The tasks hold it now, and with the last of them the count of calls closes.
        drop(shim);
        tokio::select! {
            _ = accepting.join_next() => {}
            () = shutdown.graceful.cancelled() => {}
        }
        // The Go shim logs the same.
        tracing::info!("Exiting");
        // Unlinked before the shim stops serving, so that no client connects to a dead socket.
        for (socket, _) in &mut sockets {
            socket.remove();
        }
        accepting.shutdown().await;
        // Clients may keep connections open as long as they like, and need not react. Only those
        // that wait for a reply are waited for.
        let ended = tokio::select! {
            () = all_closed(&mut serving) => true,
            () = all_answered(calls) => true,
            () = sleep(config.shutdown_grace) => false,
            () = shutdown.forced.cancelled() => false,
        };
        if !ended {
            tracing::warn!("calls in flight are dropped: they did not finish in time");
            shutdown.forced.cancel();
            let _ = timeout(LAST_REPLIES_LIMIT, all_closed(&mut serving)).await;
        }
        serving.shutdown().await;
        backend.drain().await;
        if let Some(recorder) = recorder {
            recorder.finish().await;
        }
        // Until here they show what the shim waits for.
        drop(metrics);
        tracing::info!("stopped");
    }
}

async fn all_closed(serving: &mut JoinSet<()>) {
    while serving.join_next().await.is_some() {}
}

/// Waits until no call is in flight and the last replies are read.
async fn all_answered(calls: Watched<Load>) {
    loop {
        calls.wait_for(|held| held.calls == 0).await;
        if timeout(LAST_REPLIES_LIMIT, calls.changed(calls.changes())).await.is_err() {
            return;
        }
    }
}
