//! How much may wait for a process at a time.

use crate::error::HookFailure;

/// The most that may wait.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// Calls.
    pub(super) calls: usize,
    /// Bytes of their documents. One call may wait whatever its size.
    pub(super) bytes: usize,
}

impl Room {
    /// Why the last of so many calls, with so many bytes in all, may not wait.
    pub(super) fn refusal(self, calls: usize, bytes: usize) -> Option<HookFailure> {
        let why = if calls > self.calls {
            format!("{} calls are waiting already (--queue-limit)", self.calls)
        } else if calls > 1 && bytes > self.bytes {
            format!(
                "with this call, documents of {bytes} bytes would be waiting, and {} may \
                 (--queue-bytes)",
                self.bytes
            )
        } else {
            return None;
        };
        Some(HookFailure::Busy(why))
    }
}
