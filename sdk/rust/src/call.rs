//! One call of a hook, from the hook's point of view.

use std::fmt::{self, Display};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::Value;

use crate::cancellation::Cancellation;
use crate::current::log_words;
use crate::error::InvalidParams;
use crate::level::Level;
use crate::output::Log;
use crate::vmi::Vmi;
use crate::worker::ON_DEFINE_DOMAIN;

/// One call of a hook: the VM, the time left, and the log.
#[derive(Debug)]
pub struct Call {
    pub(crate) hook: String,
    pub(crate) vmi: Vmi,
    pub(crate) attempt: u64,
    pub(crate) context: Option<Context>,
    pub(crate) deadline: Option<Instant>,
    pub(crate) cancellation: Cancellation,
    pub(crate) log: Log,
}

impl Call {
    /// Begins a call without a shim, for tests of hooks. It is the first attempt at
    /// `onDefineDomain`, without deadline and context, unless the builder sets others.
    ///
    /// ```
    /// use kubevirt_hook::{Call, Level};
    /// use serde_json::json;
    ///
    /// let vmi = json!({"metadata": {"name": "vm1"}});
    /// let call = Call::builder(vmi).context("MigrationTarget").attempt(2).build();
    /// call.log(Level::Warning, "look here");
    /// assert_eq!(call.vmi().name(), "vm1");
    /// assert_eq!(call.logged(), [(Level::Warning, "look here".to_owned())]);
    /// ```
    pub fn builder(vmi: Value) -> CallBuilder {
        CallBuilder(Self {
            hook: ON_DEFINE_DOMAIN.to_owned(),
            vmi: Vmi::new(vmi),
            attempt: 1,
            context: None,
            deadline: None,
            cancellation: Cancellation::default(),
            log: Log::Memory(Arc::new(Mutex::default())),
        })
    }

    /// Returns the hook point, such as `onDefineDomain`.
    #[must_use]
    pub fn hook(&self) -> &str {
        &self.hook
    }

    /// Returns the VirtualMachineInstance.
    #[must_use]
    pub fn vmi(&self) -> &Vmi {
        &self.vmi
    }

    /// Reads the VirtualMachineInstance into a type of the program, which has the fields that the
    /// hook needs. Fields that do not fit are a fault of the caller.
    ///
    /// ```
    /// use serde::Deserialize;
    ///
    /// #[derive(Deserialize)]
    /// struct Vm<'a> {
    ///     #[serde(borrow)]
    ///     metadata: Metadata<'a>,
    /// }
    /// #[derive(Deserialize)]
    /// struct Metadata<'a> {
    ///     name: &'a str,
    /// }
    ///
    /// # fn main() -> kubevirt_hook::Result<()> {
    /// # let vmi = serde_json::json!({"metadata": {"name": "vm1"}});
    /// # let call = kubevirt_hook::Call::builder(vmi).build();
    /// let vm: Vm = call.vmi_as()?;
    /// assert_eq!(vm.metadata.name, "vm1");
    /// # assert!(call.vmi_as::<u32>().is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub fn vmi_as<'c, T: Deserialize<'c>>(&'c self) -> Result<T, InvalidParams> {
        T::deserialize(&**self.vmi()).map_err(|error| {
            // It may quote the VMI.
            log_words(&self.log, &error.to_string());
            InvalidParams::new("vmi: a field that this hook reads is missing or of another type")
        })
    }

    /// Returns the number of this attempt: 1, or 2 if a worker crashed during the first attempt or
    /// asked for a retry.
    #[must_use]
    pub fn attempt(&self) -> u64 {
        self.attempt
    }

    /// Returns why KubeVirt calls, where it says so.
    #[must_use]
    pub fn context(&self) -> Option<&Context> {
        self.context.as_ref()
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

    /// Returns what was logged through a call of [`Call::builder`], of all levels.
    #[must_use]
    pub fn logged(&self) -> Vec<(Level, String)> {
        self.log.captured()
    }
}

/// Builds a [`Call`] for tests of hooks.
#[derive(Debug)]
#[must_use = "`build` returns the call"]
pub struct CallBuilder(Call);

impl CallBuilder {
    /// Sets the hook point.
    pub fn hook(mut self, name: impl Into<String>) -> Self {
        self.0.hook = name.into();
        self
    }

    /// Sets why KubeVirt calls.
    pub fn context(mut self, context: impl Into<Context>) -> Self {
        self.0.context = Some(context.into());
        self
    }

    /// Sets the number of the attempt.
    pub fn attempt(mut self, number: u64) -> Self {
        self.0.attempt = number;
        self
    }

    /// Sets the time left before the shim fails the call.
    pub fn remaining(mut self, time: Duration) -> Self {
        self.0.deadline = Instant::now().checked_add(time);
        self
    }

    /// Sets whether the call was cancelled.
    pub fn cancelled(mut self, is_cancelled: bool) -> Self {
        self.0.cancellation = Cancellation::default();
        if is_cancelled {
            self.0.cancellation.cancel();
        }
        self
    }

    /// Returns the call.
    #[must_use]
    pub fn build(self) -> Call {
        self.0
    }
}

/// Why KubeVirt calls a hook.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Context {
    /// The VM starts.
    Boot,
    /// The VM leaves this node in a live migration.
    MigrationSource,
    /// The VM comes to this node in a live migration.
    MigrationTarget,
    /// Something that this library does not know.
    Other(String),
}

impl Context {
    /// Returns the name in the protocol.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Boot => "Boot",
            Self::MigrationSource => "MigrationSource",
            Self::MigrationTarget => "MigrationTarget",
            Self::Other(name) => name,
        }
    }
}

impl From<&str> for Context {
    fn from(name: &str) -> Self {
        [Self::Boot, Self::MigrationSource, Self::MigrationTarget]
            .into_iter()
            .find(|known| known.as_str() == name)
            .unwrap_or_else(|| Self::Other(name.to_owned()))
    }
}

impl Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_test_sets_what_hooks_decide_by() {
        let builder = Call::builder(json!({"metadata": {"labels": {"a": "b"}}}));
        let call = builder
            .hook("preVMStart")
            .context("MigrationSource")
            .attempt(2)
            .remaining(Duration::from_secs(3600))
            .cancelled(true)
            .build();
        assert_eq!((call.hook(), call.attempt()), ("preVMStart", 2));
        assert_eq!(call.context(), Some(&Context::MigrationSource));
        assert!(call.remaining().unwrap() > Duration::from_secs(3000));
        assert!(call.cancellation().is_cancelled());
        assert_eq!(call.vmi().label("a"), Some("b"));
        assert_eq!(call.vmi().annotation("a"), None);
        assert_eq!(Context::from("Later").to_string(), "Later");
        let none = Call::builder(json!({})).build();
        assert!(none.remaining().is_none() && none.context().is_none());
        let late = Call::builder(json!({})).remaining(Duration::ZERO).build();
        assert_eq!(late.remaining(), Some(Duration::ZERO));
    }

    #[test]
    fn a_vmi_of_another_shape_is_not_quoted() {
        let call = Call::builder(json!({"metadata": "secret"})).build();
        let error = call.vmi_as::<std::collections::BTreeMap<String, u32>>().unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
        let logged = call.logged();
        assert!(logged[0].0 == Level::Debug && logged[0].1.contains("secret"), "{logged:?}");
    }
}
