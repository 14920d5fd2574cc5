//! The gRPC services that KubeVirt calls. Each is a thin file that turns its messages into
//! [`HookCall`](crate::hook::HookCall)s and back; `shim` has what all of them share. tonic's types
//! do not leave this module.

#![expect(clippy::disallowed_types, reason = "this is the layer for tonic")]

mod api;
pub mod client;
mod cloud_init;
mod connection;
mod deadline;
mod domain_hook;
mod health;
mod info;
mod node_hook;
mod router;
mod shim;
mod status;
mod v1alpha1;
mod v1alpha2;
mod v1alpha3;

use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http2::Builder;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use api::{Api, ApiVersion};
pub use connection::Connection;
use router::{Router, RouterService};
pub use shim::Shim;

use crate::frame::MAX_FRAME_BYTES;

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
    pub mod plugins {
        tonic::include_proto!("kubevirt.hooks.plugins.v1alpha1");
    }
}

/// Maximum length of a response: grpc-go's default limit for one message, which KubeVirt keeps.
const MAX_REPLY_BYTES: usize = 4 * 1024 * 1024;

/// Maximum length of a request: two documents that each just fit into a worker's frame. A check
/// further down then names the one that is too long.
const MAX_REQUEST_BYTES: usize = 2 * MAX_FRAME_BYTES + 64 * 1024;

/// HTTP/2's window for one stream and for one connection. With the default of 64 kB a document of 1
/// MB takes fifteen window updates.
const WINDOW_BYTES: u32 = 4 * 1024 * 1024;

/// Maximum length of an HTTP/2 frame; clients choose any length below it.
const HTTP2_FRAME_BYTES: u32 = 1024 * 1024;

/// Maximum number of calls in flight on one connection; the client delays further ones. KubeVirt
/// makes one call on each connection. `--queue-limit` has the same default.
const MAX_STREAMS: u32 = 256;

/// Idle time of a connection before the shim pings its client. An ordinary connection is for one
/// call, and closed by then.
const PING_INTERVAL: Duration = Duration::from_secs(20);

/// Timeout for the reply to a ping, grpc-go's own default. Without it a client that hangs would
/// hold its connection for ever.
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Serves an API until `stop`, then lets calls in flight finish. Closes open connections when it is
/// dropped.
pub async fn serve<T: Send + Unpin + 'static>(
    shim: Arc<Shim>,
    api: Api,
    mut connections: mpsc::Receiver<Connection<T>>,
    stop: CancellationToken,
) {
    // tonic's own server also has HTTP/1, which no client needs and which would make the program
    // larger.
    let mut http2 = Builder::new(TokioExecutor::new());
    http2
        .timer(TokioTimer::new())
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_frame_size(HTTP2_FRAME_BYTES)
        .max_concurrent_streams(MAX_STREAMS)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    let services = services(&shim, api, &stop);
    let (graceful, mut open) = (GracefulShutdown::new(), JoinSet::new());
    loop {
        tokio::select! {
            connection = connections.recv() => {
                let Some(connection) = connection else { break };
                let served = http2.serve_connection(TokioIo::new(connection), services.clone());
                // An error concerns this connection only: its client broke HTTP/2 or went away.
                open.spawn(graceful.watch(served));
            }
            Some(_) = open.join_next() => {}
            () = stop.cancelled() => break,
        }
    }
    graceful.shutdown().await;
}

/// Returns the services of an API.
fn services(shim: &Arc<Shim>, api: Api, stop: &CancellationToken) -> RouterService {
    let router = Router::default();
    let router = match api {
        Api::Legacy(version) => router
            .add(info::service(shim, version))
            .add(v1alpha1::service(shim.clone()))
            .add(v1alpha2::service(shim.clone()))
            .add(v1alpha3::service(shim.clone())),
        Api::Plugins => {
            let router = router
                .add(domain_hook::service(shim.clone()))
                .add(node_hook::service(shim.clone()));
            // Clients can ask for the health of each of them.
            let names = router.names();
            router.add(health::service(shim, stop, names))
        }
    };
    router.into_service()
}
