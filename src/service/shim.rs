//! What the services share: a call on its way to the backend and back, for every API.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::MAX_REPLY_BYTES;
use super::record::CallRecord;
use crate::admission::{Budget, Memory};
use crate::backend::Backend;
use crate::error::{CallError, HookFailure};
use crate::hook::{BadDocument, Detail, HookCall, HookName, HookReply, Subject, changes};
use crate::recording::Recorder;
use crate::stats::Stats;

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
    /// The time after which a call is slow, and logged as such.
    pub slow: Option<Duration>,
    /// Whether the log says what a hook changed.
    pub log_changes: bool,
    /// Writes calls as cases, if they are recorded.
    pub recorder: Option<Arc<Recorder>>,
    /// The budget of bytes.
    pub memory: Memory,
    /// Number of hook calls so far.
    pub calls: AtomicU64,
    /// Where hook calls are counted.
    pub stats: Arc<Stats>,
}

impl Shim {
    /// Returns the number of the next hook call, and where it is counted.
    pub(super) fn next_entry(&self) -> (u64, Arc<Stats>) {
        (self.calls.fetch_add(1, Ordering::Relaxed) + 1, self.stats.clone())
    }

    /// Calls a hook.
    pub(super) async fn call(
        &self,
        record: &CallRecord,
        call: Result<HookCall, BadDocument>,
    ) -> Result<HookReply, CallError> {
        let call = call?;
        let hook = self.backend.served_name(call.hook());
        let sent = self.log_changes.then(|| call.clone());
        if record.deadline() <= Instant::now() {
            return Err(HookFailure::NoTime.of(&hook));
        }
        record.keep_call(self.recorder.as_deref(), &call);
        let kind = call.hook().kind();
        let reply = tokio::select! {
            reply = self.backend.call(call, record.deadline(), record.progress()) => reply?,
            never = record.watch(self.slow) => match never {},
            () = self.give_up.cancelled() => return Err(HookFailure::Unavailable(
                "the shim is shutting down and the call did not finish in time".to_owned(),
            )
            .of(&hook)),
        };
        match reply {
            HookReply::Unchanged => record.set_changed(false),
            HookReply::Changed(_) => record.set_changed(true),
            HookReply::Done => {}
        }
        if let Some(sent) = &sent
            && let Subject::Domain(old) | Subject::CloudInitData(old) = sent.subject()
            && let HookReply::Changed(new) = &reply
        {
            record.set_changes(changes(kind, old.bytes(), new.bytes(), Detail::Positions));
        }
        record.keep_reply(&reply);
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
