//! The builder: what a program's hooks are, and which way to run them.

use std::backtrace::Backtrace;
use std::collections::BTreeMap;
use std::env;
use std::io::BufReader;
use std::panic;
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::Value;

use crate::call::Call;
use crate::hook::Hook;
use crate::output::{complain, Output};
use crate::steps::{Steps, STEP_BYTES};
use crate::{argv, serve, stdio, Result};

pub(crate) const ON_DEFINE_DOMAIN: &str = "onDefineDomain";
pub(crate) const PRE_CLOUD_INIT_ISO: &str = "preCloudInitIso";

/// The shim sends no worker more calls at once.
const MAX_CONCURRENCY: usize = 64;

/// A program's hooks, and how to run them: as a worker of the shim or, without it, once for the
/// arguments of the command line.
///
/// A hook's function may borrow what lives longer than [`run`](Self::run). It is called from several
/// threads, though one after the other unless [`concurrency`](Self::concurrency) says otherwise.
#[must_use = "nothing happens before `run`"]
pub struct Worker<'h> {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) concurrency: usize,
    pub(crate) hooks: BTreeMap<String, Hook<'h>>,
    #[cfg(feature = "log")]
    log_level: Option<log::LevelFilter>,
}

impl<'h> Worker<'h> {
    /// A worker without hooks. The name is for people: the shim logs it.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            version: String::new(),
            concurrency: 1,
            hooks: BTreeMap::new(),
            #[cfg(feature = "log")]
            log_level: None,
        }
    }

    /// Sets the version that the shim logs, such as `env!("CARGO_PKG_VERSION")`.
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = version.into();
        self
    }

    /// Takes up to this many calls at once, each on a thread of its own.
    ///
    /// # Panics
    ///
    /// If the number is not 1 to 64, which is what the shim takes.
    pub fn concurrency(mut self, calls: usize) -> Self {
        assert!(
            (1..=MAX_CONCURRENCY).contains(&calls),
            "a concurrency of {calls} is not within 1 to {MAX_CONCURRENCY}"
        );
        self.concurrency = calls;
        self
    }

    /// Changes the libvirt domain before the VM is defined. The function gets the whole document,
    /// and returns the one that takes its place, or `None` if nothing is to change.
    ///
    /// It has to be idempotent: KubeVirt calls it up to three times for one boot, each time with a
    /// fresh document or with the function's own result.
    ///
    /// # Panics
    ///
    /// If there is such a hook already, here and in the methods below.
    pub fn on_define_domain<F>(self, function: F) -> Self
    where
        F: Fn(&Call, &str) -> Result<Option<String>> + Send + Sync + 'h,
    {
        self.hook(ON_DEFINE_DOMAIN, Hook::Domain(Box::new(function)))
    }

    /// Changes the cloud-init data before the guest's disk is made of them. The function gets
    /// KubeVirt's `CloudInitData`, an object with members such as `UserData` and `NetworkData`, and
    /// returns what takes its place, or `None` if nothing is to change.
    pub fn pre_cloud_init_iso<F>(self, function: F) -> Self
    where
        F: Fn(&Call, Value) -> Result<Option<Value>> + Send + Sync + 'h,
    {
        self.hook(PRE_CLOUD_INIT_ISO, Hook::CloudInit(Box::new(function)))
    }

    /// Does something on the node at a point in the life of a VM, such as `preVMStart` or
    /// `postMigrationTarget`. The function gets the name of the node. An error is a reason not to go
    /// on.
    ///
    /// # Panics
    ///
    /// If the name is not a small ASCII letter, followed by ASCII letters and digits, 63 bytes in
    /// all at most; or is that of a hook which is no node hook.
    pub fn node_hook<F>(self, name: &str, function: F) -> Self
    where
        F: Fn(&Call, &str) -> Result<()> + Send + Sync + 'h,
    {
        assert!(
            name.starts_with(|first: char| first.is_ascii_lowercase())
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric())
                && name.len() <= 63
                && ![ON_DEFINE_DOMAIN, PRE_CLOUD_INIT_ISO, "initialize"].contains(&name),
            "{name:?} cannot be the name of a node hook"
        );
        self.hook(name, Hook::Node(Box::new(function)))
    }

    fn hook(mut self, name: &str, hook: Hook<'h>) -> Self {
        let before = self.hooks.insert(name.to_owned(), hook);
        assert!(before.is_none(), "there are two hooks {name}");
        self
    }

    /// Passes what is logged through the [`log`] crate up to this level on to the shim's log, tied
    /// to the call of the thread that logs; without a shim, to standard error. A logger that is
    /// installed already stays.
    #[cfg(feature = "log")]
    pub fn logger(mut self, level: log::LevelFilter) -> Self {
        self.log_level = Some(level);
        self
    }

    /// Runs the hooks.
    ///
    /// - With `KUBEVIRT_HOOK_PROTOCOL` in the environment, as the shim starts workers, it answers
    ///   calls until the shim closes standard input, and returns success. The variable is removed,
    ///   so that programs which a hook starts do not take themselves for workers; this is done only
    ///   if no other thread runs yet, so call it from `main`, first.
    /// - Otherwise it runs one hook, for `--vmi JSON` and `--domain XML`, `--cloud-init JSON` or
    ///   `--node NAME`, and prints the result. A program that is started as `preVMStart`, say,
    ///   through a symbolic link, runs that hook; any other runs the one that the options are of. It
    ///   returns 1 if the hook failed, and 2 if the command line cannot be understood.
    ///
    /// In both cases standard output belongs to the shim: what a hook or its children print there
    /// goes to standard error.
    ///
    /// A hook that panics fails its call and leaves the rest running, unless the program is built
    /// with `panic = "abort"`.
    #[must_use = "the status belongs to the end of `main`"]
    pub fn run(self) -> ExitCode {
        print_backtraces();
        let output = match stdio::take_output() {
            Ok(output) => output,
            Err(error) => {
                complain(format_args!("{}: cannot take standard output: {error}", self.name));
                return ExitCode::FAILURE;
            }
        };
        if !stdio::take_marker() {
            #[cfg(feature = "log")]
            self.install_logger(None);
            return argv::run(&self, &stdio::arguments(), output);
        }
        let output = Arc::new(Output::new(Steps(output)));
        #[cfg(feature = "log")]
        self.install_logger(Some(output.clone()));
        let served = match stdio::take_input() {
            Ok(input) => {
                let input = BufReader::with_capacity(STEP_BYTES, Steps(input));
                serve::serve(&self, input, &output)
            }
            Err(error) => Err(format!("cannot take standard input: {error}")),
        };
        if let Err(reason) = served {
            complain(format_args!("{}: {reason}", self.name));
            return ExitCode::FAILURE;
        }
        ExitCode::SUCCESS
    }

    #[cfg(feature = "log")]
    fn install_logger(&self, output: Option<Arc<Output>>) {
        if let Some(level) = self.log_level {
            crate::logger::install(level, output);
        }
    }
}

/// Lets every panic print where it came from. Someone who has set the variable has chosen.
fn print_backtraces() {
    if env::var_os("RUST_BACKTRACE").is_some() {
        return;
    }
    let print = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        print(panic);
        complain(Backtrace::force_capture());
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker() -> Worker<'static> {
        Worker::new("test").on_define_domain(|_, _| Ok(None))
    }

    #[test]
    fn every_name_that_the_protocol_takes_can_be_a_node_hooks() {
        let longest = "a".repeat(63);
        let names = ["preVMStart", "x", "later2", &longest];
        let worker =
            names.iter().fold(worker(), |worker, name| worker.node_hook(name, |_, _| Ok(())));
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
            let node_hook = panic::catch_unwind(|| worker().node_hook(name, |_, _| Ok(())));
            assert!(node_hook.is_err(), "{name:?}");
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
