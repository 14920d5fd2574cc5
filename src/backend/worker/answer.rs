//! What a worker answered, as an answer to the caller.

use crate::error::{HookFailure, HookResult};
use crate::hook::{Checks, HookCall, HookReply};
use crate::rpc::{self, ErrorKind, Outcome};

/// Reads a worker's answer to a call, and checks the document in it.
pub(in crate::backend) fn read(call: &HookCall, outcome: &Outcome, checks: Checks) -> HookResult {
    match outcome {
        Outcome::Result(parts) => match rpc::read_result(call, parts) {
            Ok(rpc::CallResult::Unchanged) => Ok(HookReply::Unchanged),
            Ok(rpc::CallResult::Done) => Ok(HookReply::Done),
            Ok(rpc::CallResult::Output(output)) => call
                .accept(output, checks)
                .map_err(|fault| HookFailure::BadOutput(fault.to_string())),
            Err(fault) => Err(HookFailure::BadOutput(fault.to_string())),
        },
        Outcome::Error(error) => {
            let message = error.to_string();
            Err(match error.kind() {
                ErrorKind::MethodNotFound => {
                    HookFailure::NotServed(format!("its worker answered: {message}"))
                }
                ErrorKind::InvalidParams => HookFailure::BadParams(message),
                ErrorKind::Refused => HookFailure::Refused(message),
                ErrorKind::Fault => HookFailure::Fault(message),
            })
        }
    }
}

/// Whether the worker asks for one more try elsewhere.
pub(super) fn is_retryable(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Error(error) if error.retryable())
}
