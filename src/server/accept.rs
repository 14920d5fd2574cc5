//! Accepts connections: from whom, and how many.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{sleep, timeout};

use crate::admission::{Memory, PATIENCE};
use crate::logging::Seldom;
use crate::service::{Accepted, CONNECTION_BYTES};

/// Maximum number of connections without a call. virt-launcher and a node's daemon close theirs
/// after each call.
const MAX_IDLE: usize = 64;

/// The part of the memory that connections may take: the rest is for their calls.
const CONNECTIONS_PART: usize = 2;

/// Back-off after an accept that failed, mostly for want of file descriptors: an immediate retry
/// would only burn the CPU that the owners of those descriptors need.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// The clients that may connect, as far as the permissions of the socket's file allow.
#[derive(Debug, Clone, Default)]
pub struct Peers {
    /// Their user ids; `None` allows all. The shim's own user may always connect: it could signal
    /// or trace the shim as well.
    pub uids: Option<Vec<u32>>,
}

impl Peers {
    /// Whether the client of this connection may call. Logs a refusal.
    fn admit(&self, stream: &UnixStream, refusals: &mut Seldom) -> bool {
        let Some(uids) = &self.uids else { return true };
        let peer = stream.peer_cred();
        let own = rustix::process::geteuid().as_raw();
        if peer.as_ref().is_ok_and(|peer| peer.uid() == own || uids.contains(&peer.uid())) {
            return true;
        }
        let Some(suppressed) = refusals.count() else { return false };
        match peer {
            Ok(peer) => tracing::warn!(
                uid = peer.uid(),
                pid = peer.pid(),
                suppressed,
                "refused a connection: --allow-uid does not name its user"
            ),
            Err(error) => {
                tracing::warn!(suppressed, "refused a connection whose user is unknown: {error}");
            }
        }
        false
    }
}

/// The places for connections, of all sockets.
#[derive(Clone)]
pub(super) struct Places {
    memory: Memory,
    free: Arc<Semaphore>,
}

impl Places {
    pub(super) fn new(memory: Memory) -> Self {
        let places = memory.limit() / CONNECTIONS_PART / CONNECTION_BYTES;
        Self { memory, free: Arc::new(Semaphore::new(places.max(1))) }
    }

    /// Waits for a place. A connection that waits for its peer makes space for this one: any if
    /// there is no place left, an idle one if too many are idle.
    async fn take(&self, stream: UnixStream) -> Accepted {
        let place = loop {
            if let Ok(place) = self.free.clone().try_acquire_owned() {
                break place;
            }
            let _ = self.memory.reclaim_place(false);
            if let Ok(Ok(place)) = timeout(PATIENCE / 2, self.free.clone().acquire_owned()).await {
                break place;
            }
        };
        while self.memory.idle() >= MAX_IDLE && !self.memory.reclaim_place(true) {
            sleep(PATIENCE / 4).await;
        }
        let share = self.memory.take(CONNECTION_BYTES).await;
        Accepted { stream, share, place }
    }
}

/// Accepts connections until it is dropped.
pub(super) async fn accept(
    listener: UnixListener,
    peers: Peers,
    places: Places,
    connections: mpsc::Sender<Accepted>,
) {
    let mut refusals = Seldom::default();
    loop {
        match listener.accept().await {
            Ok((stream, _)) if peers.admit(&stream, &mut refusals) => {
                let accepted = places.take(stream).await;
                if connections.send(accepted).await.is_err() {
                    return;
                }
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}");
                sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}
