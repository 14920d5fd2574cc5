//! Cancellation of calls.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::error::Cancelled;

/// Cancellation of a call. Clones refer to the same call, so threads and callbacks can hold one.
///
/// The shim cancels a call when its caller has gone, and then discards the hook's result. Hooks
/// that wait or poll should check for it; fast hooks need not.
#[derive(Debug, Clone, Default)]
pub struct Cancellation(Arc<(Mutex<bool>, Condvar)>);

impl Cancellation {
    /// Returns whether the call was cancelled.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        *self.0 .0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns an error if the call was cancelled, to leave the hook:
    /// `call.cancellation().check()?`.
    pub fn check(&self) -> Result<(), Cancelled> {
        if self.is_cancelled() {
            return Err(Cancelled);
        }
        Ok(())
    }

    /// Sleeps until the timeout, or until the cancellation, which is returned as an error.
    ///
    /// ```no_run
    /// # use kubevirt_hook::{Call, Result};
    /// # use std::time::Duration;
    /// # fn device_is_there() -> bool { true }
    /// fn pre_vm_start(call: &Call, _node: &str) -> Result<()> {
    ///     while !device_is_there() {
    ///         call.cancellation().wait(Duration::from_millis(100))?;
    ///     }
    ///     Ok(())
    /// }
    /// ```
    pub fn wait(&self, timeout: Duration) -> Result<(), Cancelled> {
        let (cancelled, changed) = &*self.0;
        let guard = cancelled.lock().unwrap_or_else(PoisonError::into_inner);
        let (guard, _) = changed
            .wait_timeout_while(guard, timeout, |cancelled| !*cancelled)
            .unwrap_or_else(PoisonError::into_inner);
        if *guard {
            return Err(Cancelled);
        }
        Ok(())
    }

    pub(crate) fn cancel(&self) {
        *self.0 .0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0 .1.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_with_the_cancellation_or_with_its_time() {
        let cancellation = Cancellation::default();
        assert!(!cancellation.is_cancelled() && cancellation.check().is_ok());
        assert!(cancellation.wait(Duration::from_millis(1)).is_ok());
        let clone = cancellation.clone();
        let waiting = std::thread::spawn(move || clone.wait(Duration::from_secs(3600)));
        cancellation.cancel();
        assert_eq!(waiting.join().unwrap(), Err(Cancelled));
        assert_eq!(cancellation.check(), Err(Cancelled));
        assert_eq!(cancellation.wait(Duration::ZERO), Err(Cancelled));
    }
}
