//! The gRPC side: what KubeVirt calls. Each service is a thin file that turns its messages into
//! [`HookCall`]s and back; what all of them need is here. tonic's types do not leave this room.

#![expect(clippy::disallowed_types, reason = "this is the room for tonic")]

pub mod client;
mod cloud_init;
mod connection;
mod deadline;
mod info;
mod status;
mod v1alpha1;
mod v1alpha2;
mod v1alpha3;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

pub use connection::Connection;

use crate::backend::Backend;
use crate::error::CallError;
use crate::frame::MAX_FRAME_BYTES;
use crate::hook::{BadDocument, HookCall, HookName, HookReply};

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

/// How long a connection may be quiet before its client is asked for a sign of life. An ordinary
/// connection, which is there for one call, is gone by then.
const PING_INTERVAL: Duration = Duration::from_secs(20);

/// How long the client may take to give it, which is grpc-go's own limit. A client that is stopped, or
/// gone without a word, would hold its connection for ever.
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// A version of the hook API, as `--version` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiVersion {
    /// `OnDefineDomain`.
    V1Alpha1,
    /// And `PreCloudInitIso`.
    V1Alpha2,
    /// And `Shutdown`.
    V1Alpha3,
}

impl ApiVersion {
    /// All of them, oldest first.
    pub const ALL: [Self; 3] = [Self::V1Alpha1, Self::V1Alpha2, Self::V1Alpha3];

    /// The version of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.as_str() == name)
    }

    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1Alpha1 => "v1alpha1",
            Self::V1Alpha2 => "v1alpha2",
            Self::V1Alpha3 => "v1alpha3",
        }
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the services share.
pub struct Shim {
    /// What runs the hooks.
    pub backend: Arc<Backend>,
    /// The version that `Info` advertises. All versions are served.
    pub version: ApiVersion,
    /// The longest time for one call, whatever the caller grants.
    pub call_timeout: Option<Duration>,
    /// Cancelled by the `Shutdown` call.
    pub stop: CancellationToken,
    /// Once this is cancelled, calls in flight are given up.
    pub give_up: CancellationToken,
    /// How many calls are in flight.
    pub in_flight: watch::Sender<usize>,
}

/// A call in flight, for as long as it is not dropped.
struct InFlight<'a>(&'a watch::Sender<usize>);

impl<'a> InFlight<'a> {
    fn count(calls: &'a watch::Sender<usize>) -> Self {
        calls.send_modify(|count| *count += 1);
        Self(calls)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// Serves until `stop`, then lets calls in flight end.
pub async fn serve<T, S>(shim: Shim, connections: S, stop: CancellationToken) -> std::io::Result<()>
where
    T: Send + Unpin + 'static,
    S: Stream<Item = std::io::Result<Connection<T>>>,
{
    let shim = Arc::new(shim);
    Server::builder()
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_frame_size(HTTP2_FRAME_BYTES)
        .http2_keepalive_interval(Some(PING_INTERVAL))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
        .add_service(info::service(&shim))
        .add_service(v1alpha1::service(shim.clone()))
        .add_service(v1alpha2::service(shim.clone()))
        .add_service(v1alpha3::service(shim))
        .serve_with_incoming_shutdown(connections, stop.cancelled_owned())
        .await
        .map_err(std::io::Error::other)
}

impl Shim {
    /// `OnDefineDomain`, which is the same in every version: VMI and domain to domain.
    async fn on_define_domain<T>(
        &self,
        request: &Request<T>,
        vmi: Bytes,
        domain: Bytes,
    ) -> Result<Bytes, Status> {
        tracing::info!("OnDefineDomain method has been called");
        let call = HookCall::on_define_domain(&vmi, domain.clone());
        Ok(self.call(&HookName::ON_DEFINE_DOMAIN, request, call).await?.or(domain))
    }

    /// `PreCloudInitIso`: VMI and cloud-init data to cloud-init data, in both of its forms.
    async fn pre_cloud_init_iso<T>(
        &self,
        request: &Request<T>,
        vmi: Bytes,
        sent: cloud_init::Forms,
    ) -> Result<cloud_init::Forms, Status> {
        tracing::info!("PreCloudInitIso method has been called");
        let hook = HookName::PRE_CLOUD_INIT_ISO;
        let call = HookCall::pre_cloud_init_iso(&vmi, &sent.data);
        match self.call(&hook, request, call).await? {
            HookReply::Unchanged => sent.complete().map_err(|fault| {
                failed(&hook, &CallError::BadRequest(BadDocument::new("cloudInitData", fault)))
            }),
            HookReply::Changed(data) => cloud_init::Forms::of(data.into_bytes()).map_err(|fault| {
                let fault = format!("cloudInitData {fault}");
                failed(&hook, &CallError::BadOutput { hook: hook.clone(), fault })
            }),
        }
    }

    async fn call<T>(
        &self,
        hook: &HookName,
        request: &Request<T>,
        call: Result<HookCall, BadDocument>,
    ) -> Result<HookReply, Status> {
        let _in_flight = InFlight::count(&self.in_flight);
        let started = tokio::time::Instant::now();
        let deadline = started + deadline::of(request.metadata(), self.call_timeout);
        let answer = match call {
            Ok(call) => tokio::select! {
                answer = self.backend.call(call, deadline) => answer,
                () = self.give_up.cancelled() => Err(CallError::Unavailable {
                    hook: hook.clone(),
                    why: "the shim was told to stop, and the call did not end in time".to_owned(),
                }),
            },
            Err(fault) => Err(CallError::BadRequest(fault)),
        };
        match answer {
            Ok(reply) => {
                let took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
                let changed = matches!(reply, HookReply::Changed(_));
                tracing::info!(target: "call", %hook, took_ms, changed, "hook answered");
                Ok(reply)
            }
            Err(error) => Err(failed(hook, &error)),
        }
    }
}

/// Makes a response of a message, if the caller can take it.
fn respond<M: prost::Message>(hook: &HookName, message: M) -> Result<Response<M>, Status> {
    let bytes = message.encoded_len();
    if bytes <= MAX_REPLY_BYTES {
        return Ok(Response::new(message));
    }
    let what = format!(
        "its answer is {bytes} bytes long and KubeVirt takes at most {MAX_REPLY_BYTES} bytes"
    );
    let error = CallError::TooLarge { hook: hook.clone(), what };
    Err(failed(hook, &error))
}

/// Logs the whole error; the status may hold less of it.
fn failed(hook: &HookName, error: &CallError) -> Status {
    tracing::error!(target: "call", %hook, "call failed: {error}");
    status::of(error)
}
