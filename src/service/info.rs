//! `kubevirt.hooks.info.Info`: the hook points of this sidecar. The reply is made in advance:
//! virt-launcher waits for one second and panics on any error.

use tonic::{Request, Response, Status};

use super::proto::info::info_server::{Info, InfoServer};
use super::proto::info::{HookPoint, InfoParams, InfoResult};
use super::{ApiVersion, Shim};
use crate::hook::HookKind;

/// The Go shim reports the same name.
const NAME: &str = "shim";

struct Service(InfoResult);

pub(super) fn service(shim: &Shim, version: ApiVersion) -> InfoServer<impl Info> {
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
    InfoServer::new(Service(InfoResult {
        name: NAME.to_owned(),
        hook_points,
        versions: vec![version.to_string()],
    }))
}

#[tonic::async_trait]
impl Info for Service {
    async fn info(&self, _: Request<InfoParams>) -> Result<Response<InfoResult>, Status> {
        tracing::info!("Info method has been called");
        Ok(Response::new(self.0.clone()))
    }
}
