//! `grpc.health.v1.Health`: `NOT_SERVING` while the workers of a pool keep failing and once the
//! shim is shutting down.

use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::server::HealthReporter;

use super::shim::Shim;

/// The name by which clients ask for the health of the whole server.
const WHOLE_SERVER: &str = "";

/// Returns the service, and keeps the status of the named services up to date until `stop`.
pub(super) fn service(
    shim: &Shim,
    stop: &CancellationToken,
    mut names: Vec<&'static str>,
) -> HealthServer<impl Health> {
    names.push(WHOLE_SERVER);
    let (reporter, service) = tonic_health::server::health_reporter();
    let (mut pools_down, stop) = (shim.backend.pools_down(), stop.clone());
    tokio::spawn(async move {
        loop {
            let down = *pools_down.borrow_and_update() > 0;
            let status = if down { ServingStatus::NotServing } else { ServingStatus::Serving };
            report(&reporter, &names, status).await;
            tokio::select! {
                changed = pools_down.changed() => if changed.is_err() { break },
                () = stop.cancelled() => break,
            }
        }
        report(&reporter, &names, ServingStatus::NotServing).await;
    });
    service
}

async fn report(reporter: &HealthReporter, names: &[&str], status: ServingStatus) {
    for name in names {
        reporter.set_service_status(name, status).await;
    }
}
