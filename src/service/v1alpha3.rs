//! `kubevirt.hooks.v1alpha3.Callbacks`.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::proto::v1alpha3::callbacks_server::{Callbacks, CallbacksServer};
use super::proto::v1alpha3::{
    OnDefineDomainParams, OnDefineDomainResult, PreCloudInitIsoParams, PreCloudInitIsoResult,
    ShutdownParams, ShutdownResult,
};
use super::shim::{Shim, respond};
use super::{MAX_REQUEST_BYTES, cloud_init};
use crate::hook::HookName;

struct Service(Arc<Shim>);

pub(super) fn service(shim: Arc<Shim>) -> CallbacksServer<impl Callbacks> {
    CallbacksServer::new(Service(shim))
        .max_decoding_message_size(MAX_REQUEST_BYTES)
        .max_encoding_message_size(usize::MAX)
}

#[tonic::async_trait]
impl Callbacks for Service {
    async fn on_define_domain(
        &self,
        request: Request<OnDefineDomainParams>,
    ) -> Result<Response<OnDefineDomainResult>, Status> {
        let OnDefineDomainParams { domain_xml, vmi } = request.get_ref().clone();
        let domain_xml = self.0.on_define_domain(&request, vmi, domain_xml).await?;
        respond(&HookName::ON_DEFINE_DOMAIN, OnDefineDomainResult { domain_xml })
    }

    async fn pre_cloud_init_iso(
        &self,
        request: Request<PreCloudInitIsoParams>,
    ) -> Result<Response<PreCloudInitIsoResult>, Status> {
        let PreCloudInitIsoParams { cloud_init_no_cloud_source, vmi, cloud_init_data } =
            request.get_ref().clone();
        let sent = cloud_init::Forms {
            data: cloud_init_data,
            no_cloud_source: cloud_init_no_cloud_source,
        };
        let forms = self.0.pre_cloud_init_iso(&request, vmi, sent).await?;
        let result = PreCloudInitIsoResult {
            cloud_init_no_cloud_source: forms.no_cloud_source,
            cloud_init_data: forms.data,
        };
        respond(&HookName::PRE_CLOUD_INIT_ISO, result)
    }

    /// Starts the graceful shutdown, during which calls in flight finish. Further calls do nothing.
    async fn shutdown(
        &self,
        _: Request<ShutdownParams>,
    ) -> Result<Response<ShutdownResult>, Status> {
        tracing::info!("Hook's Shutdown callback method has been called");
        self.0.stop.cancel();
        Ok(Response::new(ShutdownResult {}))
    }
}
