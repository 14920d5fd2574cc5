//! `kubevirt.hooks.v1alpha1.Callbacks`, `v1alpha2` and `v1alpha3`: each version adds a method, and
//! the messages are the same in all.

use std::sync::Arc;

use super::cloud_init;
use super::proto::v1alpha3::{
    OnDefineDomainParams, OnDefineDomainResult, PreCloudInitIsoParams, PreCloudInitIsoResult,
    ShutdownParams, ShutdownResult,
};
use super::record::CallRecord;
use super::router::Router;
use super::shim::{Shim, check_size};
use crate::error::{CallError, HookFailure};
use crate::hook::{BadDocument, HookCall, HookName, HookReply};

pub(super) fn add(router: Router, shim: &Arc<Shim>) -> Router {
    router
        .unary("/kubevirt.hooks.v1alpha1.Callbacks/OnDefineDomain", 2, shim, on_define_domain)
        .unary("/kubevirt.hooks.v1alpha2.Callbacks/OnDefineDomain", 2, shim, on_define_domain)
        .unary("/kubevirt.hooks.v1alpha2.Callbacks/PreCloudInitIso", 3, shim, pre_cloud_init_iso)
        .unary("/kubevirt.hooks.v1alpha3.Callbacks/OnDefineDomain", 2, shim, on_define_domain)
        .unary("/kubevirt.hooks.v1alpha3.Callbacks/PreCloudInitIso", 3, shim, pre_cloud_init_iso)
        .unary("/kubevirt.hooks.v1alpha3.Callbacks/Shutdown", 0, shim, shutdown)
}

/// VMI and domain to domain.
async fn on_define_domain(
    shim: Arc<Shim>,
    params: OnDefineDomainParams,
    record: Arc<CallRecord>,
) -> Result<OnDefineDomainResult, CallError> {
    let OnDefineDomainParams { domain_xml, vmi } = params;
    let hook = HookName::ON_DEFINE_DOMAIN;
    record.begin("OnDefineDomain", &hook, &vmi);
    let call = HookCall::on_define_domain(&vmi, "domainXML", domain_xml.clone());
    drop(vmi);
    let domain_xml = shim.call(&record, call).await?.or(domain_xml);
    check_size(&hook, OnDefineDomainResult { domain_xml })
}

/// VMI and cloud-init data to cloud-init data, in both of its forms.
async fn pre_cloud_init_iso(
    shim: Arc<Shim>,
    params: PreCloudInitIsoParams,
    record: Arc<CallRecord>,
) -> Result<PreCloudInitIsoResult, CallError> {
    let PreCloudInitIsoParams { cloud_init_no_cloud_source, vmi, cloud_init_data } = params;
    let sent =
        cloud_init::Forms { data: cloud_init_data, no_cloud_source: cloud_init_no_cloud_source };
    let hook = HookName::PRE_CLOUD_INIT_ISO;
    record.begin("PreCloudInitIso", &hook, &vmi);
    let call = HookCall::pre_cloud_init_iso(&vmi, &sent.data);
    drop(vmi);
    let forms = match shim.call(&record, call).await? {
        HookReply::Unchanged | HookReply::Done => {
            sent.complete().map_err(|fault| BadDocument::new("cloudInitData", fault))?
        }
        HookReply::Changed(data) => cloud_init::Forms::of(data.into_bytes())
            .map_err(|fault| HookFailure::BadOutput(format!("cloudInitData {fault}")).of(&hook))?,
    };
    let result = PreCloudInitIsoResult {
        cloud_init_no_cloud_source: forms.no_cloud_source,
        cloud_init_data: forms.data,
    };
    check_size(&hook, result)
}

/// Starts the graceful shutdown, during which calls in flight finish. Further calls do nothing.
async fn shutdown(
    shim: Arc<Shim>,
    _: ShutdownParams,
    _: Arc<CallRecord>,
) -> Result<ShutdownResult, CallError> {
    tracing::info!("Hook's Shutdown callback method has been called");
    shim.stop.cancel();
    Ok(ShutdownResult {})
}
