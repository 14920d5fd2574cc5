//! One call of a hook, from the hook's point of view.

use std::fmt::Display;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::error::Cancelled;
use crate::output::Log;

/// One call of a hook: the VM, the time left, and the log.
#[derive(Debug)]
pub struct Call {
    pub(crate) hook: String,
    pub(crate) vmi: Value,
    pub(crate) attempt: u64,
    pub(crate) context: Option<String>,
    pub(crate) deadline: Option<Instant>,
    pub(crate) cancellation: Cancellation,
    pub(crate) log: Log,
}

impl Call {
    /// Creates a call without a shim, for tests of hooks: the first attempt, without deadline and
    /// context. It logs to stderr.
    ///
    /// ```
    /// use serde_json::json;
    /// let call = kubevirt_hook::Call::new("onDefineDomain", json!({"metadata": {"name": "vm1"}}));
    /// assert_eq!(call.vmi()["metadata"]["name"], "vm1");
    /// ```
    #[must_use]
    pub fn new(hook: impl Into<String>, vmi: Value) -> Self {
        Self {
            hook: hook.into(),
            vmi,
            attempt: 1,
            context: None,
            deadline: None,
            cancellation: Cancellation::default(),
            log: Log::Stderr,
        }
    }

    /// Returns the hook point, such as `onDefineDomain`.
    #[must_use]
    pub fn hook(&self) -> &str {
        &self.hook
    }

    /// Returns the VirtualMachineInstance as Kubernetes JSON, always an object. Missing fields
    /// read as `Null`: `call.vmi()["spec"]["domain"]["cpu"]["cores"].as_u64()` is a number or
    /// `None`.
    #[must_use]
    pub fn vmi(&self) -> &Value {
        &self.vmi
    }

    /// Returns an annotation of the VM. Annotations are how the VM's owner configures a hook.
    #[must_use]
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.vmi["metadata"]["annotations"][name].as_str()
    }

    /// Returns the number of this attempt: 1, or 2 if a worker crashed during the first attempt or
    /// asked for a retry.
    #[must_use]
    pub fn attempt(&self) -> u64 {
        self.attempt
    }

    /// Returns the context of the call if KubeVirt states it: `Boot`, `MigrationSource` or
    /// `MigrationTarget`.
    #[must_use]
    pub fn context(&self) -> Option<&str> {
        self.context.as_deref()
    }

    /// Returns the time left before the shim fails the call, or `None` without a deadline.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// Returns a handle that reports whether the call was cancelled.
    #[must_use]
    pub fn cancellation(&self) -> &Cancellation {
        &self.cancellation
    }

    /// Writes a line to the shim's log with the id of this call; without a shim, to stderr. Lines
    /// are truncated at 8 KiB. Do not log documents or secrets.
    pub fn log(&self, level: Level, message: impl Display) {
        self.log.write(level, &message.to_string());
    }
}

/// Severity of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Details for the hook's authors.
    Debug,
    /// Normal operation.
    Info,
    /// A problem that the hook worked around.
    Warning,
    /// A failure.
    Error,
}

impl Level {
    /// Returns the level's name in the protocol.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

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

    #[test]
    fn a_call_has_what_is_left_until_its_deadline() {
        let mut call = Call::new("onDefineDomain", Value::Null);
        assert_eq!(call.remaining(), None);
        call.deadline = Some(Instant::now());
        assert_eq!(call.remaining(), Some(Duration::ZERO));
        call.deadline = Instant::now().checked_add(Duration::from_secs(3600));
        assert!(call.remaining().unwrap() > Duration::from_secs(3000));
    }
}
