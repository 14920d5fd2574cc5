//! `kubevirt.hooks.info.Info`: the hook points of this sidecar. The reply is made in advance:
//! virt-launcher waits for one second and panics on any error.

use std::sync::Arc;

use super::proto::info::{HookPoint, InfoParams, InfoResult};
use super::router::Router;
use super::{ApiVersion, Shim};
use crate::hook::HookKind;

/// The Go shim reports the same name.
const NAME: &str = "shim";

pub(super) fn add(router: Router, shim: &Arc<Shim>, version: ApiVersion) -> Router {
    let served = shim.backend.hooks().iter().filter(|hook| match hook.kind() {
        HookKind::Domain | HookKind::CloudInit => true,
        // This API has none.
        HookKind::Node => false,
    });
    let mut hook_points: Vec<_> =
        served.map(|hook| HookPoint { name: hook.hook_point(), priority: 0 }).collect();
    if version == ApiVersion::V1Alpha3 {
        hook_points.push(HookPoint { name: "Shutdown".to_owned(), priority: 0 });
    }
    let versions = vec![version.to_string()];
    let info = InfoResult { name: NAME.to_owned(), hook_points, versions };
    router.unary("/kubevirt.hooks.info.Info/Info", 0, shim, move |_, InfoParams {}, _| {
        tracing::info!("Info method has been called");
        std::future::ready(Ok(info.clone()))
    })
}
