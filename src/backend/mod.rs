//! Runs hooks: either one process for each call (`exec`), or long-lived workers (`pool`).

mod exec;
mod job;
mod pipes;
mod pool;
mod process;
mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

// `hookctl` drives a worker by hand.
pub use pipes::{Heard, Output, write_all};
pub use process::{CommandLine, Exit, Launch, Process, Stdin};

use crate::admission::{Budget, Load, Refused};
use crate::error::{CallError, HookFailure, HookResult, StartError};
use crate::hook::{Checks, HookCall, HookName, HookReply};
use crate::rpc::Outcome;
use exec::Exec;
use pool::Pool;

/// Reaps what hooks leave behind, for as long as the runtime lives. Called once, before hooks run.
pub fn reap_orphans() -> Result<(), StartError> {
    process::reaper::start()
}

/// Waits until no process is left that was started here and not reaped yet. A killed one is gone in no
/// time, unless it is stuck in the kernel: so the wait has an end.
pub async fn children_are_reaped() {
    let _ = tokio::time::timeout(process::KILL_LIMIT, process::reaper::none_left()).await;
}

/// Sees to it that no program that is started from now on gains privileges. Called before the first
/// thread is started.
pub fn renounce_new_privileges() -> Result<(), StartError> {
    process::set_no_new_privs()
}

/// Reads a worker's reply to a call, and checks the document in it.
pub fn read_reply(call: &HookCall, outcome: &Outcome) -> Result<HookReply, CallError> {
    worker::answer::read(call, outcome, Checks::WellFormed)
        .map_err(|failure| failure.of(call.hook()))
}

/// What runs the hooks.
#[derive(Debug, Clone)]
pub enum Spec {
    /// Argv-style programs found in `$PATH` by the names of the hooks.
    Exec(InPath),
    /// One argv-style program for one hook.
    ExecOne(HookName, CommandLine),
    /// Workers, all started with this command.
    Persistent(CommandLine),
    /// Workers found in `$PATH` by the names of the hooks.
    PersistentInPath(InPath),
}

/// The names by which programs are found in `$PATH`: those of all hooks that KubeVirt has, and more.
#[derive(Debug, Clone, Default)]
pub struct InPath {
    /// Hooks beyond those that are known. They have been asked for, so their programs must be there.
    pub more: Vec<HookName>,
}

impl InPath {
    fn names(&self) -> BTreeSet<HookName> {
        HookName::WITH_DOCUMENT
            .into_iter()
            .chain(HookName::NODE_HOOKS)
            .chain(self.more.iter().cloned())
            .collect()
    }

    /// The programs that there are.
    fn find(&self) -> Result<BTreeMap<HookName, CommandLine>, StartError> {
        let mut programs = BTreeMap::new();
        for hook in self.names() {
            match process::find_in_path(hook.as_str().as_ref()) {
                Ok(_) => {
                    let words = [hook.as_str().into()];
                    programs.extend(CommandLine::from_words(words).map(|command| (hook, command)));
                }
                Err(fault) if self.more.contains(&hook) => {
                    return Err(StartError::Usage(format!("--node-hooks names {hook}: {fault}")));
                }
                Err(process::NotFound::Absent) => {}
                Err(unusable) => tracing::warn!(%hook, "not served: {unusable}"),
            }
        }
        Ok(programs)
    }
}

/// Limits that hold for whatever runs the hooks.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Workers that are kept though no call needs them.
    pub min_workers: usize,
    /// Processes at once.
    pub max_workers: usize,
    /// How long a worker beyond the minimum may have nothing to do.
    pub idle_timeout: Duration,
    /// Calls that may wait for a process.
    pub queue_limit: usize,
    /// Bytes of documents that may wait for one.
    pub queue_bytes: usize,
    /// Calls that one worker gets in its life.
    pub max_requests: Option<u32>,
    /// Bytes of memory for the data of one process.
    pub worker_memory: Option<u64>,
    /// What is checked of answers.
    pub checks: Checks,
    /// How long a worker may take to answer `initialize`.
    pub start_timeout: Duration,
    /// How long a process has between being asked to end and being made to.
    pub kill_grace: Duration,
}

impl Settings {
    /// Returns the budget of calls that wait for a process.
    fn queue(&self) -> Budget {
        Budget::new(Load { calls: self.queue_limit, bytes: self.queue_bytes })
    }
}

/// The failure of a call that may not wait.
fn queue_full(refused: Refused) -> HookFailure {
    HookFailure::Busy(match refused {
        Refused::Calls { limit } => format!("{limit} calls are waiting already (--queue-limit)"),
        Refused::Bytes { sum, limit } => format!(
            "with this call, documents of {sum} bytes would be waiting, and {limit} may \
             (--queue-bytes)"
        ),
    })
}

/// Hooks that can be called.
pub struct Backend {
    kind: Kind,
    hooks: Vec<HookName>,
    /// How many pools there are whose calls fail at once.
    pools_down: watch::Sender<usize>,
}

enum Kind {
    Exec(Exec),
    Pools { pools: Vec<Pool>, routes: BTreeMap<HookName, usize> },
}

impl Backend {
    /// Finds the programs; in persistent mode, returns when the first worker of each has
    /// answered `initialize`.
    pub async fn start(spec: &Spec, settings: &Settings) -> Result<Self, StartError> {
        match spec {
            Spec::Exec(in_path) => Ok(Self::exec(in_path.names(), in_path.find()?, settings)),
            Spec::ExecOne(hook, command) => {
                let programs = BTreeMap::from([(hook.clone(), command.clone())]);
                Ok(Self::exec(BTreeSet::from([hook.clone()]), programs, settings))
            }
            Spec::Persistent(command) => {
                let pools_down = watch::Sender::default();
                let pool = Pool::start(command, settings, &pools_down).await?;
                let routes = pool.hooks().iter().map(|hook| (hook.clone(), 0)).collect();
                Ok(Self::pools(vec![pool], routes, pools_down))
            }
            Spec::PersistentInPath(in_path) => Self::pools_in_path(in_path, settings).await,
        }
    }

    fn exec(
        names: BTreeSet<HookName>,
        programs: BTreeMap<HookName, CommandLine>,
        settings: &Settings,
    ) -> Self {
        if programs.is_empty() {
            tracing::warn!("there is no hook program in $PATH: this shim has nothing to run");
        }
        let exec = Exec::new(names, programs, settings.clone());
        let (hooks, pools_down) = (exec.hooks().cloned().collect(), watch::Sender::default());
        Self { kind: Kind::Exec(exec), hooks, pools_down }
    }

    fn pools(
        pools: Vec<Pool>,
        routes: BTreeMap<HookName, usize>,
        pools_down: watch::Sender<usize>,
    ) -> Self {
        let hooks = routes.keys().cloned().collect();
        Self { kind: Kind::Pools { pools, routes }, hooks, pools_down }
    }

    /// One pool for each file, whatever the number of its names. A hook goes to the program
    /// that is named after it if that declares it, else to the first that does.
    async fn pools_in_path(in_path: &InPath, settings: &Settings) -> Result<Self, StartError> {
        let mut files: Vec<HookFile> = Vec::new();
        for (hook, command) in in_path.find()? {
            let file = process::find_in_path(hook.as_str().as_ref())
                .ok()
                .and_then(|path| std::fs::metadata(path).ok())
                .map(|found| (found.dev(), found.ino()));
            match files.iter_mut().find(|known| file.is_some() && known.file == file) {
                Some(known) => known.names.push(hook),
                None => files.push(HookFile { file, names: vec![hook], command }),
            }
        }
        if files.is_empty() {
            return Err(StartError::Usage(
                "persistent mode needs a worker: name one with --worker 'python3 /hooks/h.py' \
                 (or SIDECAR_SHIM_WORKER), or put a program that is named after its hook \
                 (onDefineDomain, preCloudInitIso, preVMStart, …) into $PATH"
                    .to_owned(),
            ));
        }
        let pools_down = watch::Sender::default();
        let mut pools = Vec::new();
        let mut routes = BTreeMap::new();
        for HookFile { names, command, .. } in files {
            let pool = Pool::start(&command, settings, &pools_down).await?;
            for hook in pool.hooks() {
                if names.contains(hook) {
                    routes.insert(hook.clone(), pools.len());
                } else {
                    routes.entry(hook.clone()).or_insert(pools.len());
                }
            }
            for hook in names.iter().filter(|hook| !pool.hooks().contains(hook)) {
                tracing::warn!(%hook, worker = %command, "the program named after the hook does not declare it");
            }
            pools.push(pool);
        }
        Ok(Self::pools(pools, routes, pools_down))
    }

    /// The hooks that can be called.
    #[must_use]
    pub fn hooks(&self) -> &[HookName] {
        &self.hooks
    }

    /// How many of its pools are down: their workers fail so often that calls fail at once. While
    /// there is one, the backend is not healthy.
    #[must_use]
    pub fn pools_down(&self) -> watch::Receiver<usize> {
        self.pools_down.subscribe()
    }

    /// Calls a hook. Returns by the deadline, whatever the hook does.
    pub async fn call(&self, call: HookCall, deadline: Instant) -> Result<HookReply, CallError> {
        let hook = call.hook().clone();
        self.run(call, deadline).await.map_err(|failure| failure.of(&hook))
    }

    async fn run(&self, call: HookCall, deadline: Instant) -> HookResult {
        match &self.kind {
            Kind::Exec(exec) => exec.call(call, deadline).await,
            Kind::Pools { pools, routes } => match routes.get(call.hook()) {
                Some(&pool) => pools[pool].call(call, deadline).await,
                None => Err(HookFailure::NotServed(format!(
                    "the worker declares {}",
                    self.hooks.iter().map(HookName::as_str).collect::<Vec<_>>().join(", ")
                ))),
            },
        }
    }

    /// Ends whatever runs, workers by end-of-file first. Calls that are still waiting fail.
    pub async fn drain(&self) {
        match &self.kind {
            Kind::Exec(exec) => exec.drain().await,
            Kind::Pools { pools, .. } => {
                pools.iter().for_each(Pool::stop);
                for pool in pools {
                    pool.stopped().await;
                }
            }
        }
    }
}

/// A program in `$PATH`, and the hooks that it is named after.
struct HookFile {
    /// Device and inode.
    file: Option<(u64, u64)>,
    names: Vec<HookName>,
    command: CommandLine,
}
