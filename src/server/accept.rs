//! Accepting connections: how many, from whom, and that their clients have something to say.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{sleep, timeout};
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

pub(super) type Accepted = Connection<OwnedSemaphorePermit>;

/// Who may connect, beside what the permissions of the socket's file say.
#[derive(Debug, Clone, Default)]
pub struct Peers {
    /// Users by their numbers; all if none is named. The shim's own may always: it could do worse.
    pub uids: Option<Vec<u32>>,
}

impl Peers {
    /// Whether this peer may talk to the shim.
    fn admit(&self, stream: &UnixStream) -> bool {
        let Some(uids) = &self.uids else { return true };
        match stream.peer_cred() {
            Ok(peer) => {
                let own = rustix::process::geteuid().as_raw();
                let admitted = peer.uid() == own || uids.contains(&peer.uid());
                if !admitted {
                    let (uid, pid) = (peer.uid(), peer.pid());
                    tracing::warn!(
                        uid,
                        pid,
                        "refused a connection: --allow-uid does not name its user"
                    );
                }
                admitted
            }
            Err(error) => {
                tracing::warn!("refused a connection whose user is unknown: {error}");
                false
            }
        }
    }
}

/// Accepts for ever.
pub(super) async fn accept(
    listener: UnixListener,
    peers: Peers,
    connections: mpsc::Sender<io::Result<Accepted>>,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    // Neither the semaphore nor the channel is ever closed from the other side.
    while let Ok(held) = places.clone().acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) if peers.admit(&stream) => {
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
    connections: mpsc::Sender<io::Result<Accepted>>,
) {
    if let Ok(Ok(connection)) = timeout(SILENCE_LIMIT, Connection::greeted(stream, place)).await {
        let _ = connections.send(Ok(connection)).await;
    } else {
        tracing::debug!("closed a connection whose client did not say hello");
    }
}
