//! The caller's side of the services: what virt-launcher, virt-handler and a probe do to a socket.
//! `health`, `status` and hookctl's `call` use it.

mod channel;

use std::error::Error;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use tokio::time::timeout;
use tonic::client::Grpc;
use tonic::codegen::http::Uri;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Code, Request, Status};

use self::channel::{Bytewise, Channel, Unencoded, unencoded};
use super::proto::health::health_check_response::ServingStatus as HealthStatus;
use super::proto::health::{HealthCheckRequest, HealthCheckResponse};
use super::proto::info::{InfoParams, InfoResult};
use super::proto::plugins::{
    ExecuteNodeHookRequest, ExecuteNodeHookResponse, MutateDomainRequest, MutateDomainResponse,
    NodeContext, SidecarContext,
};
use super::proto::status::{GetRequest, GetResponse};
use super::proto::v1alpha3::{
    OnDefineDomainParams, OnDefineDomainResult, PreCloudInitIsoParams, PreCloudInitIsoResult,
    ShutdownParams, ShutdownResult,
};
use super::{ApiVersion, MAX_REPLY_BYTES, grpc_status};

/// virt-launcher's timeout for connecting.
const DIAL_TIMEOUT: Duration = Duration::from_secs(2);

/// virt-launcher's timeout for `Info`.
const INFO_TIMEOUT: Duration = Duration::from_secs(1);

/// The last of gRPC's status codes, `UNAUTHENTICATED`.
const LAST_STATUS: i32 = 16;

/// Why a call failed, as the caller sees it.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("cannot connect to {path}: {why}")]
    Dial { path: String, why: String },
    /// The call failed with a status other than OK.
    #[error("{}: {message}", grpc_status::name(*.code))]
    Status { code: Code, message: String },
    /// The server closed the connection.
    #[error(
        "{socket} closed the connection without an answer ({cause}): its server has stopped, or its \
         --allow-uid does not name this user, {user}"
    )]
    Lost { socket: String, cause: String, user: u32 },
    /// The server does not know the method.
    #[error(
        "{socket} does not serve {method}: is it a socket of the other API? Hook sidecars serve \
         Info and Callbacks; plugins serve DomainHookService (`hookctl call --context`), LauncherHookService, \
         NodeHookService and Health"
    )]
    OtherApi { socket: String, method: String },
    /// `Info` offers no version that this client knows.
    #[error("the sidecar offers none of the versions v1alpha1 to v1alpha3")]
    NoVersion,
}

impl ClientError {
    /// Returns the name of the status and the message, if the server replied with one.
    #[must_use]
    pub fn status(&self) -> Option<(&'static str, &str)> {
        match self {
            Self::Status { code, message } => Some((grpc_status::name(*code), message)),
            _ => None,
        }
    }
}

/// Returns the name of a status for an error, as gRPC spells it, if `name` is one.
#[must_use]
pub fn status_name(name: &str) -> Option<&'static str> {
    let codes = (1..=LAST_STATUS).map(Code::from);
    codes.map(grpc_status::name).find(|known| *known == name)
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
    pub hook_points: Vec<String>,
}

/// A server's answer to a health check.
#[derive(Debug)]
pub struct ServerHealth {
    pub serving: bool,
    /// The status by its name in the health protocol.
    pub status: String,
}

/// One connection.
pub struct Client {
    channel: Channel,
    /// Its path, for errors.
    socket: String,
}

impl Client {
    /// Connects to a socket.
    pub async fn dial(socket: &Path) -> Result<Self, ClientError> {
        let path = socket.display().to_string();
        let failed = |why: String| ClientError::Dial { path: path.clone(), why };
        let connected = timeout(DIAL_TIMEOUT, Channel::connect(socket)).await;
        let connected =
            connected.map_err(|_| failed(format!("no connection within {DIAL_TIMEOUT:?}")))?;
        let channel = connected.map_err(|error| {
            let cause = innermost(&*error);
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

    /// Calls `Info`.
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

    /// Calls `Shutdown`: the sidecar answers, and then exits.
    pub async fn shutdown(&self, timeout: Duration) -> Result<(), ClientError> {
        let path = callback(ApiVersion::V1Alpha3, "Shutdown");
        let ShutdownResult {} = self.unary(path, ShutdownParams {}, timeout).await?;
        Ok(())
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

    /// Checks the health of the whole server.
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

    /// Asks a shim what it is doing, and maybe for the digests of what it runs, which take longer.
    pub async fn status(
        &self,
        with_files: bool,
        timeout: Duration,
    ) -> Result<GetResponse, ClientError> {
        let path = PathAndQuery::from_static("/sidecar_shim.status.v1.Status/Get");
        self.unary(path, GetRequest { with_files }, timeout).await
    }

    async fn unary<R: Message + Default>(
        &self,
        path: PathAndQuery,
        params: impl Message + 'static,
        timeout: Duration,
    ) -> Result<R, ClientError> {
        let answer = self.unary_bytes(path, unencoded(params), timeout).await?;
        R::decode(answer).map_err(|error| Status::internal(error.to_string()).into())
    }

    async fn unary_bytes(
        &self,
        path: PathAndQuery,
        params: Unencoded,
        limit: Duration,
    ) -> Result<Bytes, ClientError> {
        // As KubeVirt's client says of a Unix socket.
        let origin = Uri::from_static("http://localhost");
        let mut grpc = Grpc::with_origin(self.channel.clone(), origin)
            .max_decoding_message_size(MAX_REPLY_BYTES);
        grpc.ready().await.map_err(|error| lost(&self.socket, innermost(&error)))?;
        let mut request = Request::new(params);
        request.set_timeout(limit);
        match timeout(limit, grpc.unary(request, path.clone(), Bytewise)).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            // The shim's text names the hook if that is not served, and the method if that is
            // unknown. Other servers say nothing of a method, or that they do not know it.
            Ok(Err(status))
                if status.code() == Code::Unimplemented
                    && !status.message().starts_with("hook") =>
            {
                let (socket, method) = (self.socket.clone(), path.path()[1..].to_owned());
                Err(ClientError::OtherApi { socket, method })
            }
            Ok(Err(status)) if is_lost(&status) => Err(lost(&self.socket, innermost(&status))),
            Ok(Err(status)) => Err(status.into()),
            Err(_) => Err(Status::deadline_exceeded("no answer by the deadline").into()),
        }
    }
}

/// Whether a status was made on this side because the connection was closed. (One that the server
/// sent has no source.)
fn is_lost(status: &Status) -> bool {
    let is_closed = |error: &hyper::Error| {
        error.is_closed() || error.is_canceled() || error.is_incomplete_message()
    };
    status.source().is_some()
        && (status.code() == Code::Unknown
            || causes(status).any(|cause| cause.downcast_ref().is_some_and(is_closed)))
}

fn lost(socket: &str, cause: &dyn Error) -> ClientError {
    let (socket, cause) = (socket.to_owned(), cause.to_string());
    ClientError::Lost { socket, cause, user: rustix::process::geteuid().as_raw() }
}

/// The first cause of an error. A connection's errors above it add nothing.
fn innermost<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    causes(error).last().unwrap_or(error)
}

/// The error itself, its cause, the cause of that, and so on.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// The path of a method. Its messages are the same in every version that has it.
fn callback(version: ApiVersion, method: &'static str) -> PathAndQuery {
    let path = format!("/kubevirt.hooks.{version}.Callbacks/{method}");
    PathAndQuery::try_from(path).unwrap_or_else(|_| PathAndQuery::from_static("/"))
}
