//! `kubevirt.hooks.plugins.v1alpha1`: `DomainHookService`, the counterpart of `OnDefineDomain`, and
//! `NodeHookService`, for hooks that run on the node of a VM. KubeVirt 1.10 calls
//! `LauncherHookService` in place of the first.

use std::sync::Arc;

use super::proto::plugins::{
    ExecuteNodeHookRequest, ExecuteNodeHookResponse, MutateDomainRequest, MutateDomainResponse,
    NodeContext, SidecarContext,
};
use super::record::CallRecord;
use super::router::Router;
use super::shim::{Shim, check_size};
use crate::error::CallError;
use crate::hook::{HookCall, HookName};
use crate::text::clip;

/// The only type of domain that hooks know. Domains of other types are returned unchanged.
const LIBVIRT: &str = "libvirt";

/// Maximum number of bytes shown of an invalid hook point.
const MAX_SHOWN_POINT_BYTES: usize = 80;

const MUTATE_DOMAIN: &str = "/kubevirt.hooks.plugins.v1alpha1.DomainHookService/MutateDomain";

/// The method of KubeVirt 1.10 with the task of `MutateDomain`. It has the same messages here: the
/// names of their fields are known to be the same. That the numbers are the same too is an
/// assumption, because KubeVirt 1.10 is not released.
const GUEST_DEFINITION: &str =
    "/kubevirt.hooks.plugins.v1alpha1.LauncherHookService/GuestDefinition";

const EXECUTE_NODE_HOOK: &str = "/kubevirt.hooks.plugins.v1alpha1.NodeHookService/ExecuteNodeHook";

pub(super) fn add(router: Router, shim: &Arc<Shim>) -> Router {
    router
        .unary(MUTATE_DOMAIN, 2, shim, |shim, request, record| {
            mutate_domain(shim, request, record, "MutateDomain")
        })
        .unary(GUEST_DEFINITION, 2, shim, |shim, request, record| {
            mutate_domain(shim, request, record, "GuestDefinition")
        })
        .unary(EXECUTE_NODE_HOOK, 2, shim, execute_node_hook)
}

async fn mutate_domain(
    shim: Arc<Shim>,
    request: MutateDomainRequest,
    record: Arc<CallRecord>,
    method: &'static str,
) -> Result<MutateDomainResponse, CallError> {
    let hook = HookName::ON_DEFINE_DOMAIN;
    let MutateDomainRequest { domain_type, domain, vmi, sidecar_context } = request;
    record.begin(method, &hook, &vmi);
    if domain_type != LIBVIRT {
        tracing::info!("the domain's type is not {LIBVIRT}: it is returned unchanged");
        record.set_changed(false);
        return check_size(&hook, MutateDomainResponse { domain });
    }
    let SidecarContext { invocation_context } = sidecar_context.unwrap_or_default();
    let call = HookCall::on_define_domain(&vmi, "domain", domain.clone())
        .and_then(|call| call.in_context(invocation_context));
    drop(vmi);
    let domain = shim.call(&record, call).await?.or(domain);
    check_size(&hook, MutateDomainResponse { domain })
}

async fn execute_node_hook(
    shim: Arc<Shim>,
    request: ExecuteNodeHookRequest,
    record: Arc<CallRecord>,
) -> Result<ExecuteNodeHookResponse, CallError> {
    let ExecuteNodeHookRequest { hook_point, vmi, node_context } = request;
    // KubeVirt adds and renames hook points, so any name is accepted; the backend knows its hooks.
    let hook = HookName::of_node_hook_point(&hook_point).ok_or_else(|| CallError::NoSuchHook {
        point: clip(&hook_point, MAX_SHOWN_POINT_BYTES).to_owned(),
    })?;
    record.begin("ExecuteNodeHook", &shim.backend.served_name(&hook), &vmi);
    let NodeContext { node_name } = node_context.unwrap_or_default();
    let call = HookCall::node_hook(hook, &vmi, node_name);
    drop(vmi);
    shim.call(&record, call).await?;
    Ok(ExecuteNodeHookResponse {})
}
