//! The socket for metrics.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::socket::{Socket, SocketMode};
use crate::error::StartError;
use crate::metrics::{self, Address, Listener, Sources};

/// A socket that is bound.
pub struct MetricsSocket {
    listener: Listener,
    /// As the log names it.
    address: String,
    /// Removed with this.
    file: Option<Socket>,
}

/// Serves metrics until it is dropped.
pub(super) struct Serving {
    task: JoinHandle<()>,
    #[expect(dead_code, reason = "dropping it removes the socket's file")]
    file: Option<Socket>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl MetricsSocket {
    /// Serves in a task.
    pub(super) fn serve(self, sources: Sources) -> Serving {
        let Self { listener, address, file } = self;
        tracing::info!(address, "serving metrics");
        Serving { task: tokio::spawn(metrics::serve(listener, Arc::new(sources))), file }
    }

    /// Binds the socket. A Unix one replaces that of a shim that has gone, as a plugin's does.
    pub async fn bind(address: &Address, mode: Option<SocketMode>) -> Result<Self, StartError> {
        match address {
            Address::Tcp(address) => {
                let failed = |error: std::io::Error| StartError::Listen {
                    path: PathBuf::from(address.to_string()),
                    why: format!("{error} (--metrics-listen)"),
                };
                let listener = TcpListener::bind(address).await.map_err(failed)?;
                let address = listener.local_addr().map_err(failed)?.to_string();
                Ok(Self { listener: Listener::Tcp(listener), address, file: None })
            }
            Address::Unix(path) => {
                let mut socket = Socket::bind_replacing_stale(path.clone(), mode).await?;
                let listener = socket.listener.take().ok_or_else(|| StartError::Listen {
                    path: path.clone(),
                    why: "it is not bound".to_owned(),
                })?;
                let address = format!("unix:{}", path.display());
                Ok(Self { listener: Listener::Unix(listener), address, file: Some(socket) })
            }
        }
    }
}
