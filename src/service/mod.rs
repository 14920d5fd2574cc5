//! The gRPC services that KubeVirt calls, and the shim's own for its status. Each is a thin file
//! that turns its messages into [`HookCall`](crate::hook::HookCall)s and back; `shim` has what all
//! of them share. tonic's types do not leave this module.

#![expect(clippy::disallowed_types, reason = "this is the layer for tonic")]

mod api;
mod call;
mod callbacks;
mod case;
pub mod client;
mod cloud_init;
mod connection;
mod deadline;
mod grpc_status;
mod health;
mod info;
mod plugins;
mod record;
mod request;
mod response;
mod router;
mod shim;
mod status;
#[cfg(test)]
mod tests;
mod turns;

use std::sync::Arc;

use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use api::{Api, ApiVersion};
pub use connection::CONNECTION_BYTES;
use connection::Closed;
use router::Router;
pub use shim::Shim;

use crate::admission::Share;
use crate::frame::MAX_FRAME_BYTES;
use crate::logging::Seldom;

/// The messages and services that `proto/` defines.
#[allow(clippy::all, clippy::pedantic, unreachable_pub, reason = "generated")]
pub mod proto {
    pub mod info {
        tonic::include_proto!("kubevirt.hooks.info");
    }
    pub mod v1alpha1 {
        tonic::include_proto!("kubevirt.hooks.v1alpha1");
    }
    pub mod v1alpha2 {
        tonic::include_proto!("kubevirt.hooks.v1alpha2");
    }
    pub mod v1alpha3 {
        tonic::include_proto!("kubevirt.hooks.v1alpha3");
    }
    pub mod health {
        tonic::include_proto!("grpc.health.v1");
    }
    pub mod status {
        tonic::include_proto!("sidecar_shim.status.v1");
    }
    pub mod plugins {
        tonic::include_proto!("kubevirt.hooks.plugins.v1alpha1");
    }
}

/// Maximum length of a response: grpc-go's default limit for one message, which KubeVirt keeps.
const MAX_REPLY_BYTES: usize = 4 * 1024 * 1024;

/// Maximum length of a request: two documents that each just fit into a worker's frame. A check
/// further down then names the one that is too long.
const MAX_REQUEST_BYTES: usize = 2 * MAX_FRAME_BYTES + 64 * 1024;

/// Maximum number of bytes shown of a header or a path.
const MAX_SHOWN_BYTES: usize = 80;

/// A connection that was accepted.
pub struct Accepted {
    pub stream: UnixStream,
    /// Its share of the memory.
    pub share: Share,
    /// Its place among the connections.
    pub place: OwnedSemaphorePermit,
}

/// Serves an API until `stop`, then lets calls in flight finish. Closes open connections when it is
/// dropped.
pub async fn serve(
    shim: Arc<Shim>,
    api: Api,
    mut connections: mpsc::Receiver<Accepted>,
    stop: CancellationToken,
) {
    let router = Arc::new(router(&shim, api));
    let mut open = JoinSet::new();
    let mut closings = Closings::default();
    loop {
        tokio::select! {
            accepted = connections.recv() => {
                let Some(Accepted { stream, share, place }) = accepted else { break };
                let (shim, router, stop) = (shim.clone(), router.clone(), stop.clone());
                open.spawn(async move {
                    let closed = connection::serve(stream, share, shim, router, stop).await;
                    drop(place);
                    closed
                });
            }
            Some(closed) = open.join_next() => {
                if let Ok(closed) = closed {
                    closings.log(closed);
                }
            }
            () = stop.cancelled() => break,
        }
    }
    while open.join_next().await.is_some() {}
}

/// Limits how often it is logged that the shim closed a connection.
#[derive(Default)]
struct Closings {
    no_preface: Seldom,
    idle: Seldom,
    reclaimed: Seldom,
    stalled: Seldom,
}

impl Closings {
    fn log(&mut self, closed: Closed) {
        let (events, why) = match closed {
            Closed::ByClient => return,
            Closed::NoPreface => (&mut self.no_preface, "its client did not send HTTP/2's preface"),
            Closed::Idle => (&mut self.idle, "its client made no call for a minute"),
            Closed::Reclaimed => {
                (&mut self.reclaimed, "it had no call, and others needed its place or memory")
            }
            Closed::Stalled => (
                &mut self.stalled,
                "its client did not send the rest of a request, or did not read a response",
            ),
        };
        if let Some(suppressed) = events.count() {
            tracing::info!(suppressed, "closed a connection: {why}");
        }
    }
}

/// Returns the methods of an API.
fn router(shim: &Arc<Shim>, api: Api) -> Router {
    match api {
        Api::Legacy(version) => {
            let router = callbacks::add(info::add(Router::default(), shim, version), shim);
            status::add(router, shim)
        }
        Api::Plugins => health::add(status::add(plugins::add(Router::default(), shim), shim), shim),
    }
}
