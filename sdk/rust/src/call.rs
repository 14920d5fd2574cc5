//! One call of a hook, as the hook sees it.

use std::fmt::Display;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::error::Cancelled;
use crate::output::Log;

/// One call of a hook: for which VM it is, how urgent it is, and where to log.
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
    /// A call without a shim, for tests of hooks: a first attempt, without deadline and context,
    /// that logs to standard error.
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

    /// The name of the hook.
    #[must_use]
    pub fn hook(&self) -> &str {
        &self.hook
    }

    /// The VirtualMachineInstance as Kubernetes JSON, always an object. What is not there is
    /// `Null`: `call.vmi()["spec"]["domain"]["cpu"]["cores"].as_u64()` is a number or `None`.
    #[must_use]
    pub fn vmi(&self) -> &Value {
        &self.vmi
    }

    /// An annotation of the VM, which is how its owner talks to a hook.
    #[must_use]
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.vmi["metadata"]["annotations"][name].as_str()
    }

    /// Which try this is: 1, or 2 after a worker has died over the call or asked for another try.
    #[must_use]
    pub fn attempt(&self) -> u64 {
        self.attempt
    }

    /// Why KubeVirt calls, where it says so: `Boot`, `MigrationSource` or `MigrationTarget`.
    #[must_use]
    pub fn context(&self) -> Option<&str> {
        self.context.as_deref()
    }

    /// The time left until the shim answers in the hook's place, if there is such a limit.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// Tells whether somebody still waits for the answer.
    #[must_use]
    pub fn cancellation(&self) -> &Cancellation {
        &self.cancellation
    }

    /// Writes a line to the shim's log, tied to this call; without a shim, to standard error. It is
    /// cut at 8 KiB. Put no document or secret into it.
    pub fn log(&self, level: Level, message: impl Display) {
        self.log.write(level, &message.to_string());
    }
}

/// How important a line of the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// For the authors of the hook.
    Debug,
    /// What the hook does.
    Info,
    /// What somebody should look at.
    Warning,
    /// What went wrong.
    Error,
}

impl Level {
    /// The level's name in the protocol.
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

/// Whether a call was cancelled. Clones tell of the same call, so a thread or a callback can have
/// one.
///
/// A hook that ends soon needs none of this. One that waits for something should look: whatever it
/// returns once its call was cancelled is thrown away.
#[derive(Debug, Clone, Default)]
pub struct Cancellation(Arc<(Mutex<bool>, Condvar)>);

impl Cancellation {
    /// Whether the call was cancelled.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        *self.0 .0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends a hook whose call was cancelled: `call.cancellation().check()?`.
    pub fn check(&self) -> Result<(), Cancelled> {
        if self.is_cancelled() {
            return Err(Cancelled);
        }
        Ok(())
    }

    /// Sleeps, or waits for the cancellation, whichever ends first. An error is the cancellation.
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
