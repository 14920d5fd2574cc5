//! `kubevirt.hooks.v1alpha1.Callbacks`.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::MAX_REQUEST_BYTES;
use super::proto::v1alpha1::callbacks_server::{Callbacks, CallbacksServer};
use super::proto::v1alpha1::{OnDefineDomainParams, OnDefineDomainResult};
use super::shim::{Shim, respond};
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
}
