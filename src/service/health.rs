//! `grpc.health.v1.Health`: `NOT_SERVING` while the workers of a pool keep failing and once the
//! shim is shutting down.

use std::sync::Arc;

use super::proto::health::health_check_response::ServingStatus;
use super::proto::health::{HealthCheckRequest, HealthCheckResponse};
use super::router::Router;
use super::shim::Shim;
use crate::error::{CallError, RequestFault};

/// Adds the service. Clients can ask for the health of the whole server, by an empty name, or of
/// each of its services.
pub(super) fn add(router: Router, shim: &Arc<Shim>) -> Router {
    let mut names = router.services();
    names.push("");
    let names: Arc<[_]> = names.into();
    let watch = Watch { shim: shim.clone(), names: names.clone() };
    router
        .unary("/grpc.health.v1.Health/Check", 0, shim, move |shim, params, _| {
            std::future::ready(check(&shim, &names, params))
        })
        .watch("/grpc.health.v1.Health/Watch", watch)
}

fn check(
    shim: &Shim,
    names: &[&str],
    params: HealthCheckRequest,
) -> Result<HealthCheckResponse, CallError> {
    if names.contains(&&*params.service) {
        Ok(response(status(shim)))
    } else {
        Err(RequestFault::UnknownService(params.service).into())
    }
}

fn status(shim: &Shim) -> ServingStatus {
    if *shim.backend.pools_down().borrow() > 0 || shim.stop.is_cancelled() {
        ServingStatus::NotServing
    } else {
        ServingStatus::Serving
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

/// Watches the health.
pub(super) struct Watch {
    shim: Arc<Shim>,
    names: Arc<[&'static str]>,
}

impl Watch {
    /// Returns the health of a service, and then, each time, its next change. Ends with the shim.
    pub(super) fn of(&self, params: &HealthCheckRequest) -> Changes {
        let known = self.names.contains(&&*params.service);
        let pools_down = self.shim.backend.pools_down();
        Changes { shim: self.shim.clone(), known, pools_down, last: None }
    }
}

/// The changes of a service's health.
pub(super) struct Changes {
    shim: Arc<Shim>,
    known: bool,
    pools_down: tokio::sync::watch::Receiver<usize>,
    last: Option<ServingStatus>,
}

impl Changes {
    pub(super) async fn next(&mut self) -> Option<HealthCheckResponse> {
        loop {
            let now = if self.known { status(&self.shim) } else { ServingStatus::ServiceUnknown };
            if self.last.replace(now) != Some(now) {
                return Some(response(now));
            }
            if self.shim.stop.is_cancelled() {
                return None;
            }
            tokio::select! {
                changed = self.pools_down.changed() => changed.ok()?,
                () = self.shim.stop.cancelled() => {}
            }
        }
    }
}
