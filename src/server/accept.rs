//! Accepts connections: how many, from whom, and only from clients that send the HTTP/2 preface.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::service::Connection;

/// Maximum number of open connections; more wait in the kernel's queue. virt-launcher has one or
/// two, and a node's daemon one for each VM that starts or stops at the moment.
const MAX_CONNECTIONS: usize = 256;

/// Back-off after an accept that failed, mostly for want of file descriptors: an immediate retry
/// would only burn the CPU that the owners of those descriptors need.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Timeout for the HTTP/2 preface. gRPC clients send it at once; a client that does not hangs, or
/// only probes whether the socket accepts connections.
const PREFACE_TIMEOUT: Duration = Duration::from_secs(10);

/// After a refusal is logged, further ones are only counted for this long: an unauthorized client
/// that retries in a loop must not flood the node's log.
const REFUSAL_LOG_INTERVAL: Duration = Duration::from_secs(10);

pub(super) type Accepted = Connection<OwnedSemaphorePermit>;

/// The clients that may connect, as far as the permissions of the socket's file allow.
#[derive(Debug, Clone, Default)]
pub struct Peers {
    /// Their user ids; `None` allows all. The shim's own user may always connect: it could signal
    /// or trace the shim as well.
    pub uids: Option<Vec<u32>>,
}

impl Peers {
    /// Whether the client of this connection may call. Logs a refusal.
    fn admit(&self, stream: &UnixStream, refusals: &mut Refusals) -> bool {
        let Some(uids) = &self.uids else { return true };
        let peer = stream.peer_cred();
        let own = rustix::process::geteuid().as_raw();
        if peer.as_ref().is_ok_and(|peer| peer.uid() == own || uids.contains(&peer.uid())) {
            return true;
        }
        let Some(suppressed) = refusals.count(Instant::now()) else { return false };
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

/// Limits how often refused connections are logged.
#[derive(Default)]
struct Refusals {
    logged_at: Option<Instant>,
    suppressed: u64,
}

impl Refusals {
    /// Counts a refusal. If it is to be logged, returns how many were not since the last log line.
    fn count(&mut self, now: Instant) -> Option<u64> {
        if self.logged_at.is_some_and(|at| now - at < REFUSAL_LOG_INTERVAL) {
            self.suppressed += 1;
            return None;
        }
        self.logged_at = Some(now);
        Some(std::mem::take(&mut self.suppressed))
    }
}

/// Accepts connections until it is dropped. Each waits for its preface in its own task, which
/// `stop` cancels.
pub(super) async fn accept(
    listener: UnixListener,
    peers: Peers,
    connections: mpsc::Sender<Accepted>,
    stop: CancellationToken,
) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut refusals = Refusals::default();
    // The semaphore is never closed.
    while let Ok(held) = permits.clone().acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) if peers.admit(&stream, &mut refusals) => {
                let handover = hand_over(stream, held, connections.clone());
                tokio::spawn(stop.clone().run_until_cancelled_owned(handover));
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}");
                sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}

/// Hands a connection to the server once its client has sent the preface; closes it otherwise.
async fn hand_over(
    stream: UnixStream,
    held: OwnedSemaphorePermit,
    connections: mpsc::Sender<Accepted>,
) {
    if let Ok(Ok(connection)) =
        timeout(PREFACE_TIMEOUT, Connection::read_preface(stream, held)).await
    {
        let _ = connections.send(connection).await;
    } else {
        tracing::debug!("closed a connection whose client did not send the HTTP/2 preface");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_refusals_one_is_logged_with_the_number_of_the_others() {
        let mut refusals = Refusals::default();
        let start = Instant::now();
        assert_eq!(refusals.count(start), Some(0));
        for _ in 0..1000 {
            assert_eq!(refusals.count(start + REFUSAL_LOG_INTERVAL / 2), None);
        }
        assert_eq!(refusals.count(start + REFUSAL_LOG_INTERVAL), Some(1000));
        assert_eq!(refusals.count(start + REFUSAL_LOG_INTERVAL), None);
        assert_eq!(refusals.count(start + REFUSAL_LOG_INTERVAL * 2), Some(1));
    }
}
