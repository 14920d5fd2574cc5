//! The shim that is started for calls.

use std::path::PathBuf;
use std::time::Duration;

use sidecar_shim::backend;
use sidecar_shim::server::{self, Peers, Server, Shutdown, Socket};
use sidecar_shim::service::Api;
use tokio::task::JoinHandle;

use super::CallFailed;

/// Time for connections to close after the last call. The calls themselves have a deadline.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(25);

/// A whole shim behind a socket that no other user can reach. Dropped, it shuts down at once.
pub(super) struct PrivateShim {
    pub(super) socket: PathBuf,
    shutdown: Shutdown,
    serving: JoinHandle<()>,
    /// Removed, with the socket, when dropped.
    _directory: tempfile::TempDir,
}

impl PrivateShim {
    pub(super) async fn start(
        backend: &backend::Config,
        call_timeout: Option<Duration>,
        api: Api,
    ) -> Result<Self, CallFailed> {
        let directory =
            tempfile::Builder::new().prefix("hookctl-").tempdir().map_err(CallFailed::Directory)?;
        let socket = directory.path().join("shim.sock");
        let shutdown = Shutdown::default();
        let config = server::Config {
            slow: None,
            log_changes: false,
            peers: Peers::default(),
            call_timeout,
            shutdown_grace: SHUTDOWN_GRACE,
            memory: backend.settings.memory.clone(),
        };
        let bind = async || Ok(vec![(Socket::bind(socket.clone(), None)?, api)]);
        let server = Server::start(backend, config, shutdown.clone(), bind).await?;
        let serving = tokio::spawn(async move {
            // Nothing asks for a shutdown before the shim has started.
            if let Some(server) = server {
                server.run().await;
            }
        });
        Ok(Self { socket, shutdown, serving, _directory: directory })
    }

    /// Stops the workers.
    pub(super) async fn stop(mut self) {
        self.shutdown.graceful.cancel();
        if (&mut self.serving).await.is_err() {
            // The panic's text may quote a document, so only the log has its place.
            tracing::error!("internal error (panic) in the private shim");
        }
    }
}

impl Drop for PrivateShim {
    fn drop(&mut self) {
        self.shutdown.graceful.cancel();
        self.shutdown.forced.cancel();
    }
}
