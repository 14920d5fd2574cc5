//! A client of the shim, as KubeVirt is one.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use sidecar_shim::service::proto::info::{InfoParams, InfoResult};
use sidecar_shim::service::proto::plugins::{
    ExecuteNodeHookRequest, ExecuteNodeHookResponse, MutateDomainRequest, MutateDomainResponse,
    NodeContext, SidecarContext,
};
use sidecar_shim::service::proto::v1alpha3::{
    OnDefineDomainParams, OnDefineDomainResult, PreCloudInitIsoParams, PreCloudInitIsoResult,
    ShutdownParams, ShutdownResult,
};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Status, Streaming};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::LIMIT;

/// One connection to a shim.
#[derive(Clone)]
pub struct Client(Channel);

impl Client {
    pub async fn dial(socket: &Path) -> Self {
        let channel = Endpoint::from_shared(format!("unix:{}", socket.display()))
            .unwrap()
            .origin(Uri::from_static("http://localhost"))
            .connect()
            .await
            .unwrap();
        Self(channel)
    }

    pub async fn unary<P, R>(&self, path: &str, params: P, timeout: Duration) -> Result<R, Status>
    where
        P: prost::Message + 'static,
        R: prost::Message + Default + 'static,
    {
        let mut grpc = Grpc::new(self.0.clone());
        grpc.ready().await.unwrap();
        let mut request = Request::new(params);
        request.set_timeout(timeout);
        let codec = tonic_prost::ProstCodec::default();
        let path = PathAndQuery::try_from(path).unwrap();
        Ok(grpc.unary(request, path, codec).await?.into_inner())
    }

    pub async fn info(&self) -> InfoResult {
        let second = Duration::from_secs(1);
        self.unary("/kubevirt.hooks.info.Info/Info", InfoParams {}, second).await.unwrap()
    }

    pub async fn define(
        &self,
        version: &str,
        vmi: impl Into<Bytes>,
        domain: impl Into<Bytes>,
    ) -> Result<String, Status> {
        self.define_within(version, vmi, domain, LIMIT).await
    }

    pub async fn define_within(
        &self,
        version: &str,
        vmi: impl Into<Bytes>,
        domain: impl Into<Bytes>,
        timeout: Duration,
    ) -> Result<String, Status> {
        let params = OnDefineDomainParams { domain_xml: domain.into(), vmi: vmi.into() };
        let path = format!("/kubevirt.hooks.{version}.Callbacks/OnDefineDomain");
        let result: OnDefineDomainResult = self.unary(&path, params, timeout).await?;
        Ok(String::from_utf8(result.domain_xml.to_vec()).unwrap())
    }

    pub async fn cloud_init(
        &self,
        version: &str,
        vmi: &Value,
        data: &str,
        source: &str,
    ) -> Result<[String; 2], Status> {
        let params = PreCloudInitIsoParams {
            cloud_init_no_cloud_source: source.to_owned().into(),
            vmi: vmi.to_string().into(),
            cloud_init_data: data.to_owned().into(),
        };
        let path = format!("/kubevirt.hooks.{version}.Callbacks/PreCloudInitIso");
        let result: PreCloudInitIsoResult = self.unary(&path, params, LIMIT).await?;
        Ok([result.cloud_init_data, result.cloud_init_no_cloud_source]
            .map(|bytes| String::from_utf8(bytes.to_vec()).unwrap()))
    }

    /// Calls `MutateDomain` of the Plugins API.
    pub async fn mutate(
        &self,
        domain_type: &str,
        vmi: &Value,
        domain: &str,
        context: Option<&str>,
    ) -> Result<String, Status> {
        let request = MutateDomainRequest {
            domain_type: domain_type.to_owned(),
            domain: domain.to_owned().into(),
            vmi: vmi.to_string().into(),
            sidecar_context: context
                .map(|context| SidecarContext { invocation_context: context.to_owned() }),
        };
        let path = "/kubevirt.hooks.plugins.v1alpha1.DomainHookService/MutateDomain";
        let response: MutateDomainResponse = self.unary(path, request, LIMIT).await?;
        Ok(String::from_utf8(response.domain.to_vec()).unwrap())
    }

    /// Calls `GuestDefinition`, the name of `MutateDomain` in KubeVirt 1.10.
    pub async fn guest_definition(
        &self,
        vmi: &Value,
        domain: &str,
        context: &str,
    ) -> Result<String, Status> {
        let request = MutateDomainRequest {
            domain_type: "libvirt".to_owned(),
            domain: domain.to_owned().into(),
            vmi: vmi.to_string().into(),
            sidecar_context: Some(SidecarContext { invocation_context: context.to_owned() }),
        };
        let path = "/kubevirt.hooks.plugins.v1alpha1.LauncherHookService/GuestDefinition";
        let response: MutateDomainResponse = self.unary(path, request, LIMIT).await?;
        Ok(String::from_utf8(response.domain.to_vec()).unwrap())
    }

    /// Watches the health of the whole server.
    pub async fn watch_health(&self) -> Streaming<HealthCheckResponse> {
        let mut grpc = Grpc::new(self.0.clone());
        grpc.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::default();
        let path = PathAndQuery::from_static("/grpc.health.v1.Health/Watch");
        let request = Request::new(HealthCheckRequest::default());
        grpc.server_streaming(request, path, codec).await.unwrap().into_inner()
    }

    /// Calls `ExecuteNodeHook` of the Plugins API, on the node `node01`.
    pub async fn node_hook(&self, hook_point: &str, vmi: &Value) -> Result<(), Status> {
        self.node_hook_on("node01", hook_point, vmi).await
    }

    pub async fn node_hook_on(
        &self,
        node: &str,
        hook_point: &str,
        vmi: &Value,
    ) -> Result<(), Status> {
        let request = ExecuteNodeHookRequest {
            hook_point: hook_point.to_owned(),
            vmi: vmi.to_string().into(),
            node_context: Some(NodeContext { node_name: node.to_owned() }),
        };
        let path = "/kubevirt.hooks.plugins.v1alpha1.NodeHookService/ExecuteNodeHook";
        let ExecuteNodeHookResponse {} = self.unary(path, request, LIMIT).await?;
        Ok(())
    }

    pub async fn shutdown(&self) -> Result<(), Status> {
        let path = "/kubevirt.hooks.v1alpha3.Callbacks/Shutdown";
        let _: ShutdownResult = self.unary(path, ShutdownParams {}, LIMIT).await?;
        Ok(())
    }
}
