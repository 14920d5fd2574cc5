//! `grpc.health.v1.Health`: whether calls are answered. Not while the workers of a pool fail again
//! and again, and not once the shim was told to stop.

use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::server::HealthReporter;

use super::proto::plugins::{domain_hook_service_server, node_hook_service_server};
use super::shim::Shim;

/// The services that a client can ask after; the empty name is the whole server.
const SERVICES: [&str; 3] =
    ["", domain_hook_service_server::SERVICE_NAME, node_hook_service_server::SERVICE_NAME];

/// The service, which is kept right for as long as the shim is not told to stop.
pub(super) fn service(shim: &Shim, stop: &CancellationToken) -> HealthServer<impl Health> {
    let (reporter, service) = tonic_health::server::health_reporter();
    let (mut pools_down, stop) = (shim.backend.pools_down(), stop.clone());
    tokio::spawn(async move {
        loop {
            let down = *pools_down.borrow_and_update() > 0;
            report(
                &reporter,
                if down { ServingStatus::NotServing } else { ServingStatus::Serving },
            )
            .await;
            tokio::select! {
                changed = pools_down.changed() => if changed.is_err() { break },
                () = stop.cancelled() => break,
            }
        }
        report(&reporter, ServingStatus::NotServing).await;
    });
    service
}

async fn report(reporter: &HealthReporter, status: ServingStatus) {
    for name in SERVICES {
        reporter.set_service_status(name, status).await;
    }
}
