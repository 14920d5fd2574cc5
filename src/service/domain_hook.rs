//! `kubevirt.hooks.plugins.v1alpha1.DomainHookService`: the plugins' counterpart of
//! `OnDefineDomain`.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::MAX_REQUEST_BYTES;
use super::proto::plugins::domain_hook_service_server::{
    DomainHookService, DomainHookServiceServer,
};
use super::proto::plugins::{MutateDomainRequest, MutateDomainResponse, SidecarContext};
use super::shim::{Shim, respond};
use crate::hook::{HookCall, HookName};

/// The only type of domain that hooks know. Domains of other types are returned unchanged.
const LIBVIRT: &str = "libvirt";

struct Service(Arc<Shim>);

pub(super) fn service(shim: Arc<Shim>) -> DomainHookServiceServer<impl DomainHookService> {
    DomainHookServiceServer::new(Service(shim))
        .max_decoding_message_size(MAX_REQUEST_BYTES)
        .max_encoding_message_size(usize::MAX)
}

#[tonic::async_trait]
impl DomainHookService for Service {
    async fn mutate_domain(
        &self,
        request: Request<MutateDomainRequest>,
    ) -> Result<Response<MutateDomainResponse>, Status> {
        tracing::info!("MutateDomain method has been called");
        let hook = HookName::ON_DEFINE_DOMAIN;
        let MutateDomainRequest { domain_type, domain, vmi, sidecar_context } =
            request.get_ref().clone();
        if domain_type != LIBVIRT {
            tracing::info!("the domain's type is not {LIBVIRT}: it is returned unchanged");
            return respond(&hook, MutateDomainResponse { domain });
        }
        let SidecarContext { invocation_context } = sidecar_context.unwrap_or_default();
        let call = HookCall::on_define_domain(&vmi, "domain", domain.clone())
            .and_then(|call| call.in_context(invocation_context));
        let domain = self.0.call(&hook, &request, call).await?.or(domain);
        respond(&hook, MutateDomainResponse { domain })
    }
}
