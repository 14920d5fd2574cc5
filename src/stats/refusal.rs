//! Why the shim itself refuses a call, as opposed to a hook that fails or rejects a VM.

use crate::error::{CallError, HookFailure, RequestFault};

/// A reason. There are few, so that each can be counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// The queue was full, or no process was free until the deadline.
    Queue,
    /// The memory budget.
    Memory,
    /// A document or a message is too long.
    Size,
    /// No worker runs, or the shim is shutting down.
    Unavailable,
    /// The hook or the method is not served here.
    NotServed,
    /// The request cannot be read.
    Invalid,
    /// The request did not arrive in time.
    NotReceived,
}

impl Refusal {
    pub const ALL: [Self; 7] = [
        Self::Queue,
        Self::Memory,
        Self::Size,
        Self::Unavailable,
        Self::NotServed,
        Self::Invalid,
        Self::NotReceived,
    ];

    /// Returns its name in metrics and in `status`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Memory => "memory",
            Self::Size => "size",
            Self::Unavailable => "unavailable",
            Self::NotServed => "not_served",
            Self::Invalid => "invalid",
            Self::NotReceived => "not_received",
        }
    }

    /// Returns why the shim refused a call. `None` if the hook failed, or the caller left.
    #[must_use]
    pub fn of(error: &CallError) -> Option<Self> {
        match error {
            CallError::BadRequest(_) => Some(Self::Invalid),
            CallError::NoSuchHook { .. } => Some(Self::NotServed),
            CallError::Request(fault) => Self::of_request(fault),
            CallError::Hook { failure, .. } => match failure {
                HookFailure::Busy(_) => Some(Self::Queue),
                HookFailure::TooLarge(_) => Some(Self::Size),
                HookFailure::Unavailable(_) => Some(Self::Unavailable),
                HookFailure::NotServed(_) => Some(Self::NotServed),
                HookFailure::Refused(_)
                | HookFailure::BadParams(_)
                | HookFailure::Fault(_)
                | HookFailure::Died { .. }
                | HookFailure::Protocol { .. }
                | HookFailure::BadOutput(_)
                | HookFailure::Deadline { .. }
                | HookFailure::Stalled { .. }
                | HookFailure::NoTime
                | HookFailure::Dropped
                | HookFailure::Cancelled => None,
            },
        }
    }

    fn of_request(fault: &RequestFault) -> Option<Self> {
        match fault {
            RequestFault::NotGrpc { .. }
            | RequestFault::BadPrefix { .. }
            | RequestFault::NoMessage
            | RequestFault::SecondMessage
            | RequestFault::Torn { .. }
            | RequestFault::Compressed
            | RequestFault::NotDecoded(_) => Some(Self::Invalid),
            RequestFault::UnknownMethod { .. }
            | RequestFault::UnknownPluginMethod { .. }
            | RequestFault::UnknownService(_) => Some(Self::NotServed),
            RequestFault::TooLarge { .. } | RequestFault::TooLargeForArguments { .. } => {
                Some(Self::Size)
            }
            RequestFault::OverBudget { .. }
            | RequestFault::NoMemory { .. }
            | RequestFault::NoMemoryForReply { .. } => Some(Self::Memory),
            RequestFault::TooSlow | RequestFault::NotReceived { .. } => Some(Self::NotReceived),
            RequestFault::ShuttingDown | RequestFault::WatchEnded => Some(Self::Unavailable),
            RequestFault::ClientLeft(_) => None,
        }
    }
}
