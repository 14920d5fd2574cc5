//! The order of a server's life: sockets appear when the shim can answer, are accepted from, and are
//! gone before the shim stops answering. Then everything ends.

mod accept;
mod memory;
mod socket;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

pub use accept::Peers;
pub use socket::{Socket, SocketMode, check_path};

use crate::admission::{Budget, Load};
use crate::backend::Backend;
use crate::service::{self, Api, Shim};

/// How long callers may take to read their answer, or that their call was given up, once the shim was
/// told to stop.
const LAST_ANSWERS_LIMIT: Duration = Duration::from_millis(500);

/// When to stop, and when to stop waiting for that.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    /// Accept nothing more, let calls end, end the workers.
    pub gently: CancellationToken,
    /// Drop what is still in flight.
    pub at_once: CancellationToken,
}

/// What is served, and for how long it may go on once it was told to stop.
pub struct Served {
    /// What runs the hooks.
    pub backend: Arc<Backend>,
    /// Who may call.
    pub peers: Peers,
    /// The longest time for one call.
    pub call_timeout: Option<Duration>,
    /// How long calls in flight may take to end.
    pub shutdown_grace: Duration,
}

/// Serves an API behind each socket until told to stop. Returns when calls in flight have ended or
/// were dropped, the sockets are gone and every process is reaped.
pub async fn run(served: Served, mut sockets: Vec<(Socket, Api)>, stop: Stop) {
    let in_flight = Budget::unlimited();
    let calls = in_flight.held();
    tokio::spawn(memory::keep_between_calls(calls.clone()));
    let backend = served.backend.clone();
    let shim = Arc::new(Shim {
        backend: served.backend,
        call_timeout: served.call_timeout,
        stop: stop.gently.clone(),
        give_up: stop.at_once.clone(),
        in_flight,
    });
    let (mut serving, mut accepting) = (JoinSet::new(), JoinSet::new());
    for (socket, api) in &mut sockets {
        let Some(listener) = socket.listener.take() else { continue };
        let (connections, incoming) = mpsc::channel(1);
        serving.spawn(service::serve(shim.clone(), *api, incoming, stop.gently.clone()));
        let peers = served.peers.clone();
        accepting.spawn(accept::accept(listener, peers, connections, stop.gently.clone()));
        tracing::info!(socket = %socket.path().display(), version = %api, "serving");
    }
    // So that the end of all calls can be waited for.
    drop(shim);
    tokio::select! {
        _ = accepting.join_next() => {}
        () = stop.gently.cancelled() => {}
    }
    // Gone before they stop being answered, so that nobody dials in vain.
    for (socket, _) in &mut sockets {
        socket.remove();
    }
    accepting.shutdown().await;
    // Clients may keep connections open for as long as they like, and need not answer. Those that
    // wait for the answer to a call are waited for.
    let ended = tokio::select! {
        () = all_ended(&mut serving) => true,
        () = all_answered(calls) => true,
        () = sleep(served.shutdown_grace) => false,
        () = stop.at_once.cancelled() => false,
    };
    if !ended {
        tracing::warn!("calls in flight are given up: they did not end in time");
        stop.at_once.cancel();
        let _ = timeout(LAST_ANSWERS_LIMIT, all_ended(&mut serving)).await;
    }
    serving.shutdown().await;
    backend.drain().await;
    tracing::info!("stopped");
}

async fn all_ended(serving: &mut JoinSet<()>) {
    while serving.join_next().await.is_some() {}
}

/// Waits until no call is in flight, and the last answers are read.
async fn all_answered(mut calls: watch::Receiver<Load>) {
    // An error means that nobody is left who could have a call.
    while calls.wait_for(|held| held.calls == 0).await.is_ok() {
        if !matches!(timeout(LAST_ANSWERS_LIMIT, calls.changed()).await, Ok(Ok(()))) {
            return;
        }
    }
}
