//! The caller's side of the hook APIs: what virt-launcher, virt-handler and a probe do to a socket.
//! `call` and `health` use it.

use std::error::Error;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::client::Grpc;
use tonic::codegen::Service;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Status};
use tonic_health::pb::health_check_response::ServingStatus as HealthStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::proto::info::{InfoParams, InfoResult};
use super::proto::plugins::{
    ExecuteNodeHookRequest, ExecuteNodeHookResponse, MutateDomainRequest, MutateDomainResponse,
    NodeContext, SidecarContext,
};
use super::proto::v1alpha3::{
    OnDefineDomainParams, OnDefineDomainResult, PreCloudInitIsoParams, PreCloudInitIsoResult,
};
use super::{ApiVersion, MAX_REPLY_BYTES, WINDOW_BYTES};

/// How long virt-launcher tries to connect.
const DIAL_TIMEOUT: Duration = Duration::from_secs(2);

/// How long virt-launcher waits for `Info`.
const INFO_TIMEOUT: Duration = Duration::from_secs(1);

/// What went wrong with a call, as the caller sees it.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers at the socket.
    #[error("cannot connect to {path}: {why}")]
    Dial {
        /// The socket.
        path: String,
        /// Why not.
        why: String,
    },
    /// The call ended with a status other than OK.
    #[error("{code:?}: {message}")]
    Status {
        /// The status code.
        code: Code,
        /// Its text.
        message: String,
    },
    /// Nobody answers any more.
    #[error(
        "{socket} closed the connection without an answer ({cause}): whoever listens there has ended, or \
         its --allow-uid does not name this user, {user}"
    )]
    Lost {
        /// The socket.
        socket: String,
        /// What was seen of it.
        cause: String,
        /// The number of the user who asked.
        user: u32,
    },
    /// Somebody answers, and does not know the method.
    #[error(
        "{socket} does not serve {method}: is it a socket of the other API? Hook sidecars serve \
         Info and Callbacks; plugins serve DomainHookService (`call --context`), NodeHookService and \
         Health"
    )]
    OtherApi {
        /// The socket.
        socket: String,
        /// What it was asked for.
        method: String,
    },
    /// `Info` offers nothing that this client knows.
    #[error("the sidecar offers none of the versions v1alpha1 to v1alpha3")]
    NoVersion,
}

impl From<Status> for ClientError {
    fn from(status: Status) -> Self {
        Self::Status { code: status.code(), message: status.message().to_owned() }
    }
}

/// What a sidecar offers.
#[derive(Debug)]
pub struct Offer {
    /// The newest of its versions.
    pub version: ApiVersion,
    /// Names of its hook points.
    pub hook_points: Vec<String>,
}

/// How a shim says that it is.
#[derive(Debug)]
pub struct ServerHealth {
    /// Whether it answers calls.
    pub serving: bool,
    /// Its own word for that.
    pub status: String,
}

/// Connects to a socket. The library's own connector knows the names of hosts as well, and brings a
/// resolver for them into a static program.
struct Connector(PathBuf);

impl Service<Uri> for Connector {
    type Response = TokioIo<UnixStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let socket = self.0.clone();
        Box::pin(async { UnixStream::connect(socket).await.map(TokioIo::new) })
    }
}

/// One connection.
pub struct Client {
    channel: Channel,
    /// Where to, for errors.
    socket: String,
}

impl Client {
    /// Connects to a socket.
    pub async fn dial(socket: &Path) -> Result<Self, ClientError> {
        let path = socket.display().to_string();
        let failed = |why: String| ClientError::Dial { path: path.clone(), why };
        // Of a Unix socket's client, KubeVirt's says `localhost` as well.
        let channel = Endpoint::from_static("http://localhost")
            .connect_timeout(DIAL_TIMEOUT)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .connect_with_connector(Connector(socket.to_owned()))
            .await
            .map_err(|error| {
                let cause = innermost(&error);
                match cause.downcast_ref().map(io::Error::kind) {
                    Some(ErrorKind::WouldBlock) => {
                        failed("too many connections wait there to be accepted".to_owned())
                    }
                    Some(ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => lost(&path, cause),
                    _ => failed(cause.to_string()),
                }
            })?;
        Ok(Self { channel, socket: path })
    }

    /// Asks what the sidecar offers.
    pub async fn info(&self) -> Result<Offer, ClientError> {
        let path = PathAndQuery::from_static("/kubevirt.hooks.info.Info/Info");
        let info: InfoResult = self.unary(path, InfoParams {}, INFO_TIMEOUT).await?;
        let version = ApiVersion::ALL
            .into_iter()
            .rev()
            .find(|version| info.versions.iter().any(|name| name == version.as_str()))
            .ok_or(ClientError::NoVersion)?;
        let hook_points = info.hook_points.into_iter().map(|point| point.name).collect();
        Ok(Offer { version, hook_points })
    }

    /// Calls `OnDefineDomain`, and returns the domain.
    pub async fn on_define_domain(
        &self,
        version: ApiVersion,
        vmi: Bytes,
        domain_xml: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, ClientError> {
        let params = OnDefineDomainParams { domain_xml, vmi };
        let path = callback(version, "OnDefineDomain");
        let result: OnDefineDomainResult = self.unary(path, params, timeout).await?;
        Ok(result.domain_xml)
    }

    /// Calls `PreCloudInitIso`, and returns the `CloudInitData`.
    pub async fn pre_cloud_init_iso(
        &self,
        version: ApiVersion,
        vmi: Bytes,
        cloud_init_data: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, ClientError> {
        let cloud_init_no_cloud_source = Bytes::new();
        let params = PreCloudInitIsoParams { cloud_init_no_cloud_source, vmi, cloud_init_data };
        let path = callback(version, "PreCloudInitIso");
        let result: PreCloudInitIsoResult = self.unary(path, params, timeout).await?;
        Ok(result.cloud_init_data)
    }

    /// Calls `MutateDomain` of the Plugins API, and returns the domain.
    pub async fn mutate_domain(
        &self,
        vmi: Bytes,
        domain: Bytes,
        context: String,
        timeout: Duration,
    ) -> Result<Bytes, ClientError> {
        let request = MutateDomainRequest {
            domain_type: "libvirt".to_owned(),
            domain,
            vmi,
            sidecar_context: Some(SidecarContext { invocation_context: context }),
        };
        let path = PathAndQuery::from_static(
            "/kubevirt.hooks.plugins.v1alpha1.DomainHookService/MutateDomain",
        );
        let response: MutateDomainResponse = self.unary(path, request, timeout).await?;
        Ok(response.domain)
    }

    /// Calls `ExecuteNodeHook` of the Plugins API.
    pub async fn execute_node_hook(
        &self,
        hook_point: String,
        vmi: Bytes,
        node_name: String,
        timeout: Duration,
    ) -> Result<(), ClientError> {
        let node_context = Some(NodeContext { node_name });
        let request = ExecuteNodeHookRequest { hook_point, vmi, node_context };
        let path = PathAndQuery::from_static(
            "/kubevirt.hooks.plugins.v1alpha1.NodeHookService/ExecuteNodeHook",
        );
        let ExecuteNodeHookResponse {} = self.unary(path, request, timeout).await?;
        Ok(())
    }

    /// Asks after the health of the whole server.
    pub async fn health(&self, timeout: Duration) -> Result<ServerHealth, ClientError> {
        let path = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
        let request = HealthCheckRequest::default();
        let answer: HealthCheckResponse = self.unary(path, request, timeout).await?;
        let status = answer.status();
        Ok(ServerHealth {
            serving: status == HealthStatus::Serving,
            status: status.as_str_name().to_owned(),
        })
    }

    async fn unary<P, R>(
        &self,
        path: PathAndQuery,
        params: P,
        timeout: Duration,
    ) -> Result<R, ClientError>
    where
        P: prost::Message + 'static,
        R: prost::Message + Default + 'static,
    {
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(MAX_REPLY_BYTES);
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let mut request = Request::new(params);
        request.set_timeout(timeout);
        let codec = tonic_prost::ProstCodec::default();
        match grpc.unary(request, path.clone(), codec).await {
            Ok(response) => Ok(response.into_inner()),
            // A hook that is not served is told in words. A method is not.
            Err(status) if status.code() == Code::Unimplemented && status.message().is_empty() => {
                let (socket, method) = (self.socket.clone(), path.path()[1..].to_owned());
                Err(ClientError::OtherApi { socket, method })
            }
            // A status that came from the other side has no source here.
            Err(status) if status.code() == Code::Unknown && status.source().is_some() => {
                Err(lost(&self.socket, innermost(&status)))
            }
            Err(status) => Err(status.into()),
        }
    }
}

fn lost(socket: &str, cause: &dyn Error) -> ClientError {
    let (socket, cause) = (socket.to_owned(), cause.to_string());
    ClientError::Lost { socket, cause, user: rustix::process::geteuid().as_raw() }
}

/// The first cause of an error: those above it, of connections, say nothing more.
fn innermost<'a>(mut error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    while let Some(cause) = error.source() {
        error = cause;
    }
    error
}

/// The path of a method. Its messages are the same in every version that has it.
fn callback(version: ApiVersion, method: &'static str) -> PathAndQuery {
    let path = format!("/kubevirt.hooks.{version}.Callbacks/{method}");
    PathAndQuery::try_from(path).unwrap_or_else(|_| PathAndQuery::from_static("/"))
}
