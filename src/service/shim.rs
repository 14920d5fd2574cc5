//! What the services share: a call on its way to the backend and back, for every API.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::{MAX_REPLY_BYTES, cloud_init, deadline, status};
use crate::admission::Budget;
use crate::backend::Backend;
use crate::error::{CallError, HookFailure};
use crate::hook::{BadDocument, HookCall, HookName, HookReply};
use crate::text::clip;

/// Maximum number of bytes shown of an invalid hook point.
const MAX_SHOWN_POINT_BYTES: usize = 80;

/// What the services share.
pub struct Shim {
    pub backend: Arc<Backend>,
    /// Upper limit of a call's time, which the caller's deadline may only shorten.
    pub call_timeout: Option<Duration>,
    /// Cancelled by the `Shutdown` call.
    pub stop: CancellationToken,
    /// When this is cancelled, calls in flight fail.
    pub give_up: CancellationToken,
    pub in_flight: Budget,
}

impl Shim {
    /// Runs `OnDefineDomain`, which is the same in every version: VMI and domain to domain.
    pub(super) async fn on_define_domain<T>(
        &self,
        request: &Request<T>,
        vmi: Bytes,
        domain: Bytes,
    ) -> Result<Bytes, Status> {
        tracing::info!("OnDefineDomain method has been called");
        let call = HookCall::on_define_domain(&vmi, "domainXML", domain.clone());
        Ok(self.call(&HookName::ON_DEFINE_DOMAIN, request, call).await?.or(domain))
    }

    /// Runs `PreCloudInitIso`: VMI and cloud-init data to cloud-init data, in both of its forms.
    pub(super) async fn pre_cloud_init_iso<T>(
        &self,
        request: &Request<T>,
        vmi: Bytes,
        sent: cloud_init::Forms,
    ) -> Result<cloud_init::Forms, Status> {
        tracing::info!("PreCloudInitIso method has been called");
        let hook = HookName::PRE_CLOUD_INIT_ISO;
        let call = HookCall::pre_cloud_init_iso(&vmi, &sent.data);
        match self.call(&hook, request, call).await? {
            HookReply::Unchanged | HookReply::Done => sent.complete().map_err(|fault| {
                failed(&hook, &CallError::BadRequest(BadDocument::new("cloudInitData", fault)))
            }),
            HookReply::Changed(data) => cloud_init::Forms::of(data.into_bytes()).map_err(|fault| {
                let fault = format!("cloudInitData {fault}");
                failed(&hook, &HookFailure::BadOutput(fault).of(&hook))
            }),
        }
    }

    /// Calls a hook and logs the result.
    pub(super) async fn call<T>(
        &self,
        hook: &HookName,
        request: &Request<T>,
        call: Result<HookCall, BadDocument>,
    ) -> Result<HookReply, Status> {
        let bytes = call.as_ref().map_or(0, HookCall::bytes);
        let _in_flight = self.in_flight.count(bytes);
        let started = tokio::time::Instant::now();
        let deadline = started + deadline::of(request.metadata(), self.call_timeout);
        let answer = match call {
            Ok(call) => tokio::select! {
                answer = self.backend.call(call, deadline) => answer,
                () = self.give_up.cancelled() => Err(HookFailure::Unavailable(
                    "the shim is shutting down and the call did not finish in time".to_owned(),
                )
                .of(hook)),
            },
            Err(fault) => Err(CallError::BadRequest(fault)),
        };
        match answer {
            Ok(reply) => {
                let took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
                let changed = matches!(reply, HookReply::Changed(_));
                tracing::info!(target: "call", %hook, took_ms, changed, "hook answered");
                Ok(reply)
            }
            Err(error) => Err(failed(hook, &error)),
        }
    }
}

/// Makes a response of a message, unless the message is too large for the caller.
pub(super) fn respond<M: prost::Message>(
    hook: &HookName,
    message: M,
) -> Result<Response<M>, Status> {
    let bytes = message.encoded_len();
    if bytes <= MAX_REPLY_BYTES {
        return Ok(Response::new(message));
    }
    let what = format!(
        "its reply is {bytes} bytes long and KubeVirt accepts at most {MAX_REPLY_BYTES} bytes"
    );
    Err(failed(hook, &HookFailure::TooLarge(what).of(hook)))
}

/// Logs the whole error; the status may be cut.
pub(super) fn failed(hook: &HookName, error: &CallError) -> Status {
    tracing::error!(target: "call", %hook, "call failed: {error}");
    status::of(error)
}

/// The error for a caller that names a hook point which no hook can have.
pub(super) fn no_such_hook_point(point: &str) -> Status {
    let error = CallError::NoSuchHook { point: clip(point, MAX_SHOWN_POINT_BYTES).to_owned() };
    tracing::error!(target: "call", "call failed: {error}");
    status::of(&error)
}
