//! The life of a socket: it appears when the shim can answer, it is accepted from, and it is
//! gone before the shim stops answering. Also the order in which everything ends.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::backend::Backend;
use crate::error::StartError;
use crate::service::{self, ApiVersion, Connection, Shim};

/// Connections at once; more wait in the kernel's queue. virt-launcher has one or two, and a
/// node's daemon one for each VM that starts or stops at the moment.
const MAX_CONNECTIONS: usize = 256;

/// The wait after an accept that failed, mostly for want of file descriptors: trying again at
/// once would only burn the CPU that those who could free some need.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// How long a client may be silent after it has connected. Clients of gRPC send their first bytes at
/// once; one that does not is stopped, or only tries whether somebody listens.
const SILENCE_LIMIT: Duration = Duration::from_secs(10);

/// How long callers may take to read their answer, or that their call was given up, once the shim was
/// told to stop.
const LAST_ANSWERS_LIMIT: Duration = Duration::from_millis(500);

/// A Unix socket takes a path of at most this many bytes.
const MAX_PATH_BYTES: usize = 107;

/// A listening socket that removes its file, if that is still its own.
pub struct Socket {
    listener: Option<UnixListener>,
    path: PathBuf,
    identity: Option<(u64, u64)>,
}

impl Socket {
    /// Binds a new socket at `path`, which must not exist.
    pub fn bind(path: PathBuf) -> Result<Self, StartError> {
        let bytes = path.as_os_str().len();
        if bytes > MAX_PATH_BYTES {
            let why =
                format!("its path is {bytes} bytes long, at most {MAX_PATH_BYTES} can be bound");
            return Err(StartError::Listen { path, source: io::Error::other(why) });
        }
        match UnixListener::bind(&path) {
            Ok(listener) => {
                let identity = identity(&path).ok();
                Ok(Self { listener: Some(listener), path, identity })
            }
            Err(source) => Err(StartError::Listen { path, source }),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn remove(&mut self) {
        let Some(identity_at_bind) = self.identity.take() else { return };
        if identity(&self.path).is_ok_and(|now| now == identity_at_bind)
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), "cannot remove the socket: {error}");
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.remove();
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = std::fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

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
    /// The version that `Info` advertises.
    pub version: ApiVersion,
    /// The longest time for one call.
    pub call_timeout: Option<Duration>,
    /// How long calls in flight may take to end.
    pub shutdown_grace: Duration,
}

/// Serves until told to stop. Returns when calls in flight have ended or were dropped, the
/// socket is gone and every process is reaped.
pub async fn run(served: Served, mut socket: Socket, stop: Stop) -> Result<(), StartError> {
    let Some(listener) = socket.listener.take() else { return Ok(()) };
    let (in_flight, calls) = watch::channel(0);
    let path = socket.path.clone();
    let (connections, incoming) = mpsc::channel(1);
    let backend = served.backend.clone();
    let shim = Shim {
        backend: served.backend,
        version: served.version,
        call_timeout: served.call_timeout,
        stop: stop.gently.clone(),
        give_up: stop.at_once.clone(),
        in_flight,
    };
    let connections_served =
        service::serve(shim, ReceiverStream::new(incoming), stop.gently.clone());
    let mut serving = tokio::spawn(connections_served);
    tracing::info!(socket = %path.display(), version = %served.version, "serving");
    let mut accepting = Box::pin(accept(listener, connections, stop.gently.clone()));
    tokio::select! {
        () = &mut accepting => {}
        () = stop.gently.cancelled() => {}
    }
    // Gone before it stops being answered, so that nobody dials in vain.
    socket.remove();
    drop(accepting);
    // Clients may keep connections open for as long as they like, and need not answer. Those that
    // wait for the answer to a call are waited for.
    let ended = tokio::select! {
        _ = &mut serving => true,
        () = all_answered(calls) => true,
        () = sleep(served.shutdown_grace) => false,
        () = stop.at_once.cancelled() => false,
    };
    if !ended {
        tracing::warn!("calls in flight are given up: they did not end in time");
        stop.at_once.cancel();
        let _ = timeout(LAST_ANSWERS_LIMIT, &mut serving).await;
    }
    serving.abort();
    backend.drain().await;
    tracing::info!("stopped");
    Ok(())
}

/// Waits until no call is in flight, and the last answers are read.
async fn all_answered(mut calls: watch::Receiver<usize>) {
    // An error means that nobody is left who could have a call.
    while calls.wait_for(|count| *count == 0).await.is_ok() {
        if !matches!(timeout(LAST_ANSWERS_LIMIT, calls.changed()).await, Ok(Ok(()))) {
            return;
        }
    }
}

type Accepted = Connection<OwnedSemaphorePermit>;

/// Accepts for ever.
async fn accept(
    listener: UnixListener,
    connections: mpsc::Sender<io::Result<Accepted>>,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    // Neither the semaphore nor the channel is ever closed from the other side.
    while let Ok(held) = places.clone().acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let introduction = introduce(stream, held, connections.clone());
                tokio::spawn(stop.clone().run_until_cancelled_owned(introduction));
            }
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
