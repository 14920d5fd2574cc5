//! What the services share: a call on its way to the backend and back, for every API.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::MAX_REPLY_BYTES;
use super::router::CallTime;
use crate::admission::{Budget, Memory};
use crate::backend::Backend;
use crate::error::{CallError, HookFailure};
use crate::hook::{BadDocument, HookCall, HookName, HookReply};

/// What the services share.
pub struct Shim {
    pub backend: Arc<Backend>,
    /// Upper limit of a call's time, which the caller's deadline may only shorten.
    pub call_timeout: Option<Duration>,
    /// Maximum length of one document, if hooks get them as arguments.
    pub max_argument_bytes: Option<usize>,
    /// Cancelled by the `Shutdown` call.
    pub stop: CancellationToken,
    /// When this is cancelled, calls in flight fail.
    pub give_up: CancellationToken,
    /// Counts calls from their first header until their response is read.
    pub in_flight: Budget,
    /// The budget of bytes.
    pub memory: Memory,
}

impl Shim {
    /// Calls a hook and logs its reply.
    pub(super) async fn call(
        &self,
        time: CallTime,
        call: Result<HookCall, BadDocument>,
    ) -> Result<HookReply, CallError> {
        let call = call?;
        let hook = self.backend.served_name(call.hook());
        let reply = tokio::select! {
            reply = self.backend.call(call, time.deadline) => reply?,
            () = self.give_up.cancelled() => return Err(HookFailure::Unavailable(
                "the shim is shutting down and the call did not finish in time".to_owned(),
            )
            .of(&hook)),
        };
        let took_ms = u64::try_from(time.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let changed = matches!(reply, HookReply::Changed(_));
        tracing::info!(target: "call", %hook, took_ms, changed, "hook answered");
        Ok(reply)
    }
}

/// Returns the message, unless it is too large for the caller.
pub(super) fn check_size<M: prost::Message>(hook: &HookName, message: M) -> Result<M, CallError> {
    let bytes = message.encoded_len();
    if bytes <= MAX_REPLY_BYTES {
        return Ok(message);
    }
    let what = format!(
        "its reply is {bytes} bytes long and KubeVirt accepts at most {MAX_REPLY_BYTES} bytes"
    );
    Err(HookFailure::TooLarge(what).of(hook))
}
