//! The builder of a program: registers the hooks, then runs them as a worker or in argv style.

use std::collections::BTreeMap;
use std::io::BufReader;
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::Value;

use crate::call::Call;
use crate::current::log_panics;
#[cfg(feature = "xml")]
use crate::error::InvalidParams;
use crate::hook::Hook;
use crate::level::{set_least, Level};
use crate::output::{complain, Output};
use crate::steps::{Steps, STEP_BYTES};
#[cfg(feature = "xml")]
use crate::xml::Document;
use crate::{argv, serve, stdio, Result};

pub(crate) const ON_DEFINE_DOMAIN: &str = "onDefineDomain";
pub(crate) const PRE_CLOUD_INIT_ISO: &str = "preCloudInitIso";

/// The shim's limit on concurrent calls per worker.
const MAX_CONCURRENCY: usize = 64;

/// The hooks of a program. [`run`](Self::run) serves them as a worker of the shim or, without a
/// shim, runs one of them for the arguments of the command line.
///
/// Functions may borrow data that outlives `run`. Several threads call them, one call at a time
/// unless [`concurrency`](Self::concurrency) allows more.
#[must_use = "nothing happens before `run`"]
pub struct Worker<'h> {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) concurrency: usize,
    pub(crate) hooks: BTreeMap<String, Hook<'h>>,
    pub(crate) log_level: Option<Level>,
}

impl<'h> Worker<'h> {
    /// Creates a worker without hooks. The shim logs the name.
    ///
    /// With the feature `log`, this connects the `log` crate to the shim's log, unless the program
    /// has installed a logger before.
    pub fn new(name: impl Into<String>) -> Self {
        #[cfg(feature = "log")]
        crate::logger::install();
        Self {
            name: name.into(),
            version: String::new(),
            concurrency: 1,
            hooks: BTreeMap::new(),
            log_level: None,
        }
    }

    /// Sets the version that the shim logs, such as `env!("CARGO_PKG_VERSION")`.
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = version.into();
        self
    }

    /// Allows up to this many concurrent calls, each on its own thread. The default is 1.
    ///
    /// # Panics
    ///
    /// If the number is not between 1 and 64, the shim's limit.
    pub fn concurrency(mut self, calls: usize) -> Self {
        assert!(
            (1..=MAX_CONCURRENCY).contains(&calls),
            "concurrency must be between 1 and {MAX_CONCURRENCY}, not {calls}"
        );
        self.concurrency = calls;
        self
    }

    /// Registers the hook that changes the libvirt domain before KubeVirt defines the VM. The
    /// function gets the whole document, and returns the new document or `None` for no change.
    ///
    /// The hook must be idempotent: KubeVirt calls it up to three times per boot, each time with a
    /// fresh document or with the function's previous result.
    ///
    /// # Panics
    ///
    /// If this hook is already registered.
    pub fn on_define_domain<F>(self, function: F) -> Self
    where
        F: Fn(&Call, &str) -> Result<Option<String>> + Send + Sync + 'h,
    {
        self.hook(ON_DEFINE_DOMAIN, Hook::Domain(Box::new(function)))
    }

    /// Registers the hook that edits the libvirt domain before KubeVirt defines the VM, as
    /// [`on_define_domain`](Self::on_define_domain) does. The library parses the domain before, and
    /// returns what the function has made of it. A domain that is not well-formed is a fault of the
    /// caller, and the function does not see it.
    ///
    /// ```no_run
    /// # use kubevirt_hook::Worker;
    /// let worker = Worker::new("smbios").edit_domain(|call, doc| {
    ///     if let Some(tag) = call.vmi().annotation("example.org/asset-tag") {
    ///         doc.ensure("os/smbios")?.set("mode", "sysinfo")?;
    ///         let entry = "sysinfo[@type='smbios']/chassis/entry[@name='asset']";
    ///         doc.ensure(entry)?.set_text(tag)?;
    ///     }
    ///     Ok(())
    /// });
    /// ```
    ///
    /// # Panics
    ///
    /// If this hook is already registered.
    #[cfg(feature = "xml")]
    pub fn edit_domain<F>(self, function: F) -> Self
    where
        F: Fn(&Call, &Document) -> Result<()> + Send + Sync + 'h,
    {
        self.on_define_domain(move |call, domain| {
            let document = Document::parse(domain)
                .map_err(|error| InvalidParams::new(format!("domain: {error}")))?;
            function(call, &document)?;
            Ok(document.changed())
        })
    }

    /// Registers the hook that changes the cloud-init data before KubeVirt writes the guest's
    /// cloud-init disk. The function gets KubeVirt's `CloudInitData`, an object with fields such as
    /// `UserData` and `NetworkData`, and returns the new object or `None` for no change.
    ///
    /// # Panics
    ///
    /// If this hook is already registered.
    pub fn pre_cloud_init_iso<F>(self, function: F) -> Self
    where
        F: Fn(&Call, Value) -> Result<Option<Value>> + Send + Sync + 'h,
    {
        self.hook(PRE_CLOUD_INIT_ISO, Hook::CloudInit(Box::new(function)))
    }

    /// Registers a hook that acts on the node at a point in a VM's life, such as `preVMStart` or
    /// `postMigrationTarget`. The function gets the name of the node. KubeVirt does not proceed if
    /// it returns an error.
    ///
    /// # Panics
    ///
    /// If this hook is already registered, or if the name is not valid for a node hook: a
    /// lower-case ASCII letter, then ASCII letters and digits, at most 63 bytes in total, and not
    /// the name of another kind of hook.
    pub fn on_node<F>(self, name: &str, function: F) -> Self
    where
        F: Fn(&Call, &str) -> Result<()> + Send + Sync + 'h,
    {
        assert!(
            name.starts_with(|first: char| first.is_ascii_lowercase())
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric())
                && name.len() <= 63
                && ![ON_DEFINE_DOMAIN, PRE_CLOUD_INIT_ISO, "initialize"].contains(&name),
            "invalid name of a node hook: {name:?} (it is KubeVirt's name with a lower-case first \
             letter, such as \"preVMStart\")"
        );
        self.hook(name, Hook::Node(Box::new(function)))
    }

    fn hook(mut self, name: &str, hook: Hook<'h>) -> Self {
        let before = self.hooks.insert(name.to_owned(), hook);
        assert!(before.is_none(), "the hook {name} is already registered");
        self
    }

    /// Sets the least level that is logged, in place of the shim's own. Without a shim it is
    /// [`Level::Info`].
    pub fn log_level(mut self, level: Level) -> Self {
        self.log_level = Some(level);
        self
    }

    /// Runs the hooks.
    ///
    /// - With `KUBEVIRT_HOOK_PROTOCOL` in the environment, which the shim sets for workers, it
    ///   serves calls until the shim closes stdin, and returns success. It removes the variable, so
    ///   that programs started by a hook do not act as workers. That is possible only while no
    ///   other thread runs, so call `run` first in `main`.
    /// - Otherwise it runs one hook, for `--vmi JSON` and `--domain XML`, `--cloud-init JSON` or
    ///   `--node NAME`, and prints the result. If the program's file name is that of a hook, for
    ///   example through a symbolic link `preVMStart`, it runs that hook; otherwise the options
    ///   select the hook. It returns 1 if the hook failed, and 2 if the command line is invalid.
    ///
    /// In both cases stdout is reserved for the shim: output of the hook and its children goes to
    /// stderr.
    ///
    /// A panic in a hook fails only that call, unless the program is built with
    /// `panic = "abort"`. It is one record of the log: `run` installs a panic hook, which calls the
    /// one before it for panics outside of calls only.
    #[must_use = "return the exit status from `main`"]
    pub fn run(self) -> ExitCode {
        log_panics();
        if let Some(level) = self.log_level {
            set_least(level);
        }
        let output = match stdio::take_output() {
            Ok(output) => output,
            Err(error) => {
                complain(format_args!("{}: cannot redirect stdout: {error}", self.name));
                return ExitCode::FAILURE;
            }
        };
        if !stdio::take_marker() {
            return argv::run(&self, &stdio::arguments(), output);
        }
        let output = Arc::new(Output::new(Steps(output)));
        #[cfg(feature = "log")]
        crate::logger::connect(output.clone());
        let served = match stdio::take_input() {
            Ok(input) => {
                let input = BufReader::with_capacity(STEP_BYTES, Steps(input));
                serve::serve(&self, input, &output)
            }
            Err(error) => Err(format!("cannot redirect stdin: {error}")),
        };
        if let Err(reason) = served {
            complain(format_args!("{}: {reason}", self.name));
            return ExitCode::FAILURE;
        }
        ExitCode::SUCCESS
    }
}

#[cfg(test)]
mod tests {
    use std::panic;

    use super::*;

    fn worker() -> Worker<'static> {
        Worker::new("test").on_define_domain(|_, _| Ok(None))
    }

    #[test]
    fn every_name_that_the_protocol_takes_can_be_a_on_nodes() {
        let longest = "a".repeat(63);
        let names = ["preVMStart", "x", "later2", &longest];
        let worker =
            names.iter().fold(worker(), |worker, name| worker.on_node(name, |_, _| Ok(())));
        assert_eq!(worker.hooks.len(), 5);
    }

    #[test]
    fn other_names_and_second_hooks_are_mistakes() {
        let too_long = "a".repeat(64);
        let names = [
            "",
            "PreVMStart",
            "pre-start",
            "é",
            "2later",
            "initialize",
            "onDefineDomain",
            &too_long,
        ];
        for name in names {
            let on_node = panic::catch_unwind(|| worker().on_node(name, |_, _| Ok(())));
            let text = on_node.err().and_then(|text| text.downcast::<String>().ok());
            assert!(text.is_some_and(|it| it.contains("a lower-case first letter")), "{name:?}");
        }
        let second = panic::catch_unwind(|| worker().on_define_domain(|_, _| Ok(None)));
        assert!(second.is_err());
    }

    #[test]
    fn concurrency_is_what_the_shim_takes() {
        assert_eq!(worker().concurrency(64).concurrency, 64);
        for calls in [0, 65] {
            assert!(panic::catch_unwind(|| worker().concurrency(calls)).is_err());
        }
    }

    #[test]
    fn a_hook_may_borrow() {
        let answer = String::from("<domain/>");
        let worker = Worker::new("test").on_define_domain(|_, _| Ok(Some(answer.clone())));
        assert_eq!(worker.hooks.len(), 1);
    }
}
