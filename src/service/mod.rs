//! The gRPC side: what KubeVirt calls. Each service is a thin file that turns its messages into
//! [`HookCall`](crate::hook::HookCall)s and back; what all of them need is in `shim`. tonic's types do
//! not leave this room.

#![expect(clippy::disallowed_types, reason = "this is the room for tonic")]

mod api;
pub mod client;
mod cloud_init;
mod connection;
mod deadline;
mod domain_hook;
mod health;
mod info;
mod node_hook;
mod shim;
mod status;
mod v1alpha1;
mod v1alpha2;
mod v1alpha3;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http2::Builder;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;
use tonic::service::Routes;

pub use api::{Api, ApiVersion};
pub use connection::Connection;
pub use shim::Shim;

use crate::frame::MAX_FRAME_BYTES;

/// The wire, as `proto/` defines it.
#[allow(clippy::all, clippy::pedantic, missing_docs, unreachable_pub, reason = "generated")]
pub mod proto {
    /// `kubevirt.hooks.info`.
    pub mod info {
        tonic::include_proto!("kubevirt.hooks.info");
    }
    /// `kubevirt.hooks.v1alpha1`.
    pub mod v1alpha1 {
        tonic::include_proto!("kubevirt.hooks.v1alpha1");
    }
    /// `kubevirt.hooks.v1alpha2`.
    pub mod v1alpha2 {
        tonic::include_proto!("kubevirt.hooks.v1alpha2");
    }
    /// `kubevirt.hooks.v1alpha3`.
    pub mod v1alpha3 {
        tonic::include_proto!("kubevirt.hooks.v1alpha3");
    }
    /// `kubevirt.hooks.plugins.v1alpha1`.
    pub mod plugins {
        tonic::include_proto!("kubevirt.hooks.plugins.v1alpha1");
    }
}

/// What a caller can take: grpc-go's default limit for one message, which KubeVirt keeps.
const MAX_REPLY_BYTES: usize = 4 * 1024 * 1024;

/// The longest request that is read: two documents that would each just fit a worker's frame.
/// Which of them is too long for its way is then said by name.
const MAX_REQUEST_BYTES: usize = 2 * MAX_FRAME_BYTES + 64 * 1024;

/// HTTP/2's window for one stream and for one connection. With the default of 64 kB a document
/// of 1 MB waits for fifteen window updates on its way.
const WINDOW_BYTES: u32 = 4 * 1024 * 1024;

/// The longest HTTP/2 frame that is taken; callers choose their own length below it.
const HTTP2_FRAME_BYTES: u32 = 1024 * 1024;

/// Calls at once on one connection; a client keeps more to itself. KubeVirt makes one call on each, and
/// no more than this may wait for a process unless --queue-limit says otherwise.
const MAX_STREAMS: u32 = 256;

/// How long a connection may be quiet before its client is asked for a sign of life. An ordinary
/// connection, which is there for one call, is gone by then.
const PING_INTERVAL: Duration = Duration::from_secs(20);

/// How long the client may take to give it, which is grpc-go's own limit. A client that is stopped, or
/// gone without a word, would hold its connection for ever.
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Serves an API until `stop`, then lets calls in flight end.
/// Connections that are still open when this is dropped are closed.
pub async fn serve<T: Send + Unpin + 'static>(
    shim: Arc<Shim>,
    api: Api,
    mut connections: mpsc::Receiver<Connection<T>>,
    stop: CancellationToken,
) {
    // tonic's own server speaks HTTP/1 as well, which would be in the program for nothing.
    let mut http2 = Builder::new(TokioExecutor::new());
    http2
        .timer(TokioTimer::new())
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_frame_size(HTTP2_FRAME_BYTES)
        .max_concurrent_streams(MAX_STREAMS)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    let services = TowerToHyperService::new(services(&shim, api, &stop).prepare());
    let (graceful, mut open) = (GracefulShutdown::new(), JoinSet::new());
    loop {
        tokio::select! {
            connection = connections.recv() => {
                let Some(connection) = connection else { break };
                let served = http2.serve_connection(TokioIo::new(connection), services.clone());
                // A client that breaks HTTP/2, or goes away, has ended its own connection.
                open.spawn(graceful.watch(served));
            }
            Some(_) = open.join_next() => {}
            () = stop.cancelled() => break,
        }
    }
    graceful.shutdown().await;
}

/// Returns the services of an API.
fn services(shim: &Arc<Shim>, api: Api, stop: &CancellationToken) -> Routes {
    match api {
        Api::Legacy(version) => Routes::new(info::service(shim, version))
            .add_service(v1alpha1::service(shim.clone()))
            .add_service(v1alpha2::service(shim.clone()))
            .add_service(v1alpha3::service(shim.clone())),
        Api::Plugins => Services::default()
            .add(domain_hook::service(shim.clone()))
            .add(node_hook::service(shim.clone()))
            .with_health(shim, stop),
    }
}

/// Services whose health clients can ask for.
#[derive(Default)]
struct Services {
    routes: Routes,
    names: Vec<&'static str>,
}

impl Services {
    fn add<S>(mut self, service: S) -> Self
    where
        S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
        S: NamedService + Clone + Send + Sync + 'static,
        S::Future: Send,
    {
        self.names.push(S::NAME);
        self.routes = self.routes.add_service(service);
        self
    }

    fn with_health(self, shim: &Shim, stop: &CancellationToken) -> Routes {
        self.routes.add_service(health::service(shim, stop, self.names))
    }
}
