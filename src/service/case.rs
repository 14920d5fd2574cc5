//! A call that has ended, as a case to record.

use std::sync::Arc;
use std::time::SystemTime;

use super::grpc_status;
use super::record::CallRecord;
use crate::error::{CallError, HookFailure};
use crate::recording::{Case, Failure, Outcome, Recorder, Reserved};

/// Returns the case of a call, with memory for it. `None` if calls are not recorded, and if the
/// outcome does not depend on the hook and its documents alone.
pub(super) fn of(
    recorder: Option<&Arc<Recorder>>,
    record: &CallRecord,
    error: Option<&CallError>,
) -> Option<Reserved> {
    let (call, reply) = record.kept()?;
    let outcome = match error {
        None => Outcome::Replied(reply?.clone()),
        Some(error) => Outcome::Failed(failure(error, record)?),
    };
    recorder?.reserve(Case { call: call.clone(), outcome, time: SystemTime::now() })
}

/// Returns the failure of a hook. Whether the shim is busy or stopping says nothing of the hook.
fn failure(error: &CallError, record: &CallRecord) -> Option<Failure> {
    let CallError::Hook { failure, .. } = error else { return None };
    let (refusal, deadline) = match failure {
        HookFailure::Refused(message) => (Some(message.clone()), None),
        HookFailure::Deadline { .. } => (None, Some(record.time())),
        HookFailure::TooLarge(_)
        | HookFailure::BadParams(_)
        | HookFailure::Fault(_)
        | HookFailure::Died { .. }
        | HookFailure::Protocol { .. }
        | HookFailure::BadOutput(_) => (None, None),
        HookFailure::NotServed(_)
        | HookFailure::Stalled { .. }
        | HookFailure::NoTime
        | HookFailure::Dropped
        | HookFailure::Busy(_)
        | HookFailure::Unavailable(_)
        | HookFailure::Cancelled => return None,
    };
    let status = grpc_status::name(grpc_status::code_of(error));
    Some(Failure { status, refusal, deadline })
}
