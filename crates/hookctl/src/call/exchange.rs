//! The calls, as virt-launcher or virt-handler makes them.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use sidecar_shim::service::client::{Client, ClientError};
use sidecar_shim::service::{Api, ApiVersion};
use tokio::time::Instant;

use super::again::{self, Again};
use super::{CallConfig, CallFailed, FailedCall, name};
use crate::inputs::Documents;
use crate::private_shim::Request;

/// The status for a hook that is not served.
const UNIMPLEMENTED: &str = "UNIMPLEMENTED";

/// What the calls returned.
pub(super) struct Outcome {
    /// The last call's.
    pub(super) result: Bytes,
    /// Duration of each call, connecting included.
    pub(super) times: Vec<Duration>,
    /// One more call, with the result.
    pub(super) again: Option<Again>,
}

/// Calls the hook as often as the user wants, and once more with its own result.
pub(super) async fn exchange(
    config: &CallConfig,
    socket: &Path,
    documents: &Documents,
) -> Result<Outcome, CallFailed> {
    let api = match config.api() {
        Api::Legacy(_) => Api::Legacy(offered_version(config, socket).await?),
        Api::Plugins => Api::Plugins,
    };
    let mut result = Bytes::new();
    let mut times = Vec::new();
    for number in 1..=config.repeat {
        let started = Instant::now();
        let client = Client::dial(socket).await?;
        let reply = call_once(config, &client, api, documents).await;
        times.push(started.elapsed());
        result = reply.map_err(|source| failed(config, number, source))?;
    }
    let again = again::call(config, socket, api, documents, &result).await;
    Ok(Outcome { result, times, again })
}

/// Returns the error for a call by its number.
fn failed(config: &CallConfig, number: u32, source: ClientError) -> CallFailed {
    let is_served = source.status().is_none_or(|(status, _)| status != UNIMPLEMENTED);
    let of_several = format!(" (call {number} of {})", config.repeat);
    CallFailed::Call(Box::new(FailedCall {
        hook: config.hook.clone(),
        number: if config.repeat > 1 { of_several } else { String::new() },
        advice: if is_served { String::new() } else { name::advice(config.hook.as_str()) },
        source,
    }))
}

/// Asks a hook sidecar, as virt-launcher does, for the version by which it is to be called.
async fn offered_version(config: &CallConfig, socket: &Path) -> Result<ApiVersion, CallFailed> {
    let offer = Client::dial(socket).await?.info().await?;
    if offer.hook_points.contains(&config.hook.hook_point()) {
        return Ok(offer.version);
    }
    let mut offered = offer.hook_points.join(", ");
    if offered.is_empty() {
        "no hooks".clone_into(&mut offered);
    }
    let advice = name::advice(config.hook.as_str());
    Err(CallFailed::NotOffered { hook: config.hook.clone(), offered, advice })
}

/// Makes one call, and returns the document in its reply. A node hook returns none.
pub(super) async fn call_once(
    config: &CallConfig,
    client: &Client,
    api: Api,
    documents: &Documents,
) -> Result<Bytes, ClientError> {
    let request = Request {
        hook: &config.hook,
        vmi: documents.vmi.clone(),
        subject: documents.subject(config.hook.kind()),
        context: config.context.as_deref().unwrap_or_default(),
        node: &documents.node,
        timeout: config.timeout,
    };
    request.send(client, api).await
}
