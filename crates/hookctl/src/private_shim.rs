//! A whole shim in this process, and calls of its hooks as virt-launcher or virt-handler makes
//! them.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use sidecar_shim::backend;
use sidecar_shim::error::StartError;
use sidecar_shim::hook::{HookKind, HookName};
use sidecar_shim::server::{self, Peers, Server, Shutdown, Socket};
use sidecar_shim::service::client::{Client, ClientError};
use sidecar_shim::service::{Api, ApiVersion};
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// A whole shim behind sockets that no other user can reach. Dropped, it shuts down at once.
pub(crate) struct PrivateShim {
    /// Socket of a hook sidecar.
    pub(crate) legacy: PathBuf,
    /// Socket of a plugin.
    pub(crate) plugins: PathBuf,
    shutdown: Shutdown,
    serving: Mutex<Option<JoinHandle<()>>>,
    /// Removed, with the sockets, when dropped.
    _directory: TempDir,
}

impl PrivateShim {
    /// Returns a directory for the sockets.
    pub(crate) fn directory() -> std::io::Result<TempDir> {
        tempfile::Builder::new().prefix("hookctl-").tempdir()
    }

    /// `shutdown_grace` is the time for connections to close after the last call.
    pub(crate) async fn start(
        backend: &backend::Config,
        call_timeout: Option<Duration>,
        shutdown_grace: Duration,
        directory: TempDir,
    ) -> Result<Self, StartError> {
        let [legacy, plugins] =
            ["shim.sock", "plugin.sock"].map(|name| directory.path().join(name));
        let shutdown = Shutdown::default();
        let config = server::Config {
            slow: None,
            log_changes: false,
            peers: Peers::default(),
            call_timeout,
            shutdown_grace,
            memory: backend.settings.memory.clone(),
        };
        let bind = async || {
            Ok(vec![
                (Socket::bind(legacy.clone(), None)?, Api::Legacy(ApiVersion::V1Alpha3)),
                (Socket::bind(plugins.clone(), None)?, Api::Plugins),
            ])
        };
        let server = Server::start(backend, config, shutdown.clone(), bind).await?;
        let serving = tokio::spawn(async move {
            // Nothing asks for a shutdown before the shim has started.
            if let Some(server) = server {
                server.run().await;
            }
        });
        let serving = Mutex::new(Some(serving));
        Ok(Self { legacy, plugins, shutdown, serving, _directory: directory })
    }

    /// Returns the socket of an API.
    pub(crate) fn socket(&self, api: Api) -> &PathBuf {
        match api {
            Api::Legacy(_) => &self.legacy,
            Api::Plugins => &self.plugins,
        }
    }

    /// Stops the workers.
    pub(crate) async fn stop(&self) {
        self.shutdown.graceful.cancel();
        let serving = self.serving.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(serving) = serving
            && serving.await.is_err()
        {
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

/// What a hook is called with.
pub(crate) struct Request<'a> {
    pub(crate) hook: &'a HookName,
    pub(crate) vmi: Bytes,
    /// The document that the hook may change; empty for a node hook.
    pub(crate) subject: Bytes,
    /// Why KubeVirt calls a Plugin's domain hook.
    pub(crate) context: &'a str,
    pub(crate) node: &'a str,
    /// The deadline.
    pub(crate) timeout: Duration,
}

impl Request<'_> {
    /// Makes the call, and returns the document in its reply. A node hook returns none.
    pub(crate) async fn send(self, client: &Client, api: Api) -> Result<Bytes, ClientError> {
        let Self { hook, vmi, subject, context, node, timeout } = self;
        match (api, hook.kind()) {
            (Api::Legacy(version), HookKind::Domain) => {
                client.on_define_domain(version, vmi, subject, timeout).await
            }
            (Api::Legacy(version), HookKind::CloudInit) => {
                client.pre_cloud_init_iso(version, vmi, subject, timeout).await
            }
            (Api::Plugins, HookKind::Domain) => {
                client.mutate_domain(vmi, subject, context.to_owned(), timeout).await
            }
            (Api::Plugins, HookKind::CloudInit) | (_, HookKind::Node) => {
                client.execute_node_hook(hook.hook_point(), vmi, node.to_owned(), timeout).await?;
                Ok(Bytes::new())
            }
        }
    }
}
