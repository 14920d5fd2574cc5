//! Accepting connections: how many, from whom, and that their clients have something to say.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::service::Connection;

/// Connections at once; more wait in the kernel's queue. virt-launcher has one or two, and a
/// node's daemon one for each VM that starts or stops at the moment.
const MAX_CONNECTIONS: usize = 256;

/// The wait after an accept that failed, mostly for want of file descriptors: trying again at
/// once would only burn the CPU that those who could free some need.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// How long a client may be silent after it has connected. Clients of gRPC send their first bytes at
/// once; one that does not is stopped, or only tries whether somebody listens.
const SILENCE_LIMIT: Duration = Duration::from_secs(10);

/// How long refused connections are only counted after one was told of. Whoever may not connect may
/// still try as often as a machine can, and should not fill the node's log with it.
const REFUSALS_PAUSE: Duration = Duration::from_secs(10);

pub(super) type Accepted = Connection<OwnedSemaphorePermit>;

/// Who may connect, beside what the permissions of the socket's file say.
#[derive(Debug, Clone, Default)]
pub struct Peers {
    /// Users by their numbers; all if none is named. The shim's own may always: it could do worse.
    pub uids: Option<Vec<u32>>,
}

impl Peers {
    /// Whether this peer may talk to the shim.
    fn admit(&self, stream: &UnixStream, refusals: &mut Refusals) -> bool {
        let Some(uids) = &self.uids else { return true };
        let peer = stream.peer_cred();
        let own = rustix::process::geteuid().as_raw();
        if peer.as_ref().is_ok_and(|peer| peer.uid() == own || uids.contains(&peer.uid())) {
            return true;
        }
        let Some(untold) = refusals.count(Instant::now()) else { return false };
        match peer {
            Ok(peer) => tracing::warn!(
                uid = peer.uid(),
                pid = peer.pid(),
                untold,
                "refused a connection: --allow-uid does not name its user"
            ),
            Err(error) => {
                tracing::warn!(untold, "refused a connection whose user is unknown: {error}");
            }
        }
        false
    }
}

/// Connections that were refused, few of which are told of one by one.
#[derive(Default)]
struct Refusals {
    told: Option<Instant>,
    untold: u64,
}

impl Refusals {
    /// Counts one. If it is to be told of, returns how many were not since the last that was.
    fn count(&mut self, now: Instant) -> Option<u64> {
        if self.told.is_some_and(|told| now - told < REFUSALS_PAUSE) {
            self.untold += 1;
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.untold))
    }
}

/// Accepts for ever.
pub(super) async fn accept(
    listener: UnixListener,
    peers: Peers,
    connections: mpsc::Sender<Accepted>,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut refusals = Refusals::default();
    // Neither the semaphore nor the channel is ever closed from the other side.
    while let Ok(held) = places.clone().acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) if peers.admit(&stream, &mut refusals) => {
                let introduction = introduce(stream, held, connections.clone());
                tokio::spawn(stop.clone().run_until_cancelled_owned(introduction));
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}");
                sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}

/// Hands a connection on once its client has said hello, and closes it if it does not.
async fn introduce(
    stream: UnixStream,
    place: OwnedSemaphorePermit,
    connections: mpsc::Sender<Accepted>,
) {
    if let Ok(Ok(connection)) = timeout(SILENCE_LIMIT, Connection::greeted(stream, place)).await {
        let _ = connections.send(connection).await;
    } else {
        tracing::debug!("closed a connection whose client did not say hello");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_refusals_one_is_told_with_the_number_of_the_others() {
        let mut refusals = Refusals::default();
        let start = Instant::now();
        assert_eq!(refusals.count(start), Some(0));
        for _ in 0..1000 {
            assert_eq!(refusals.count(start + REFUSALS_PAUSE / 2), None);
        }
        assert_eq!(refusals.count(start + REFUSALS_PAUSE), Some(1000));
        assert_eq!(refusals.count(start + REFUSALS_PAUSE), None);
        assert_eq!(refusals.count(start + REFUSALS_PAUSE * 2), Some(1));
    }
}
