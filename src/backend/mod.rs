//! Runs hooks: either one process for each call (`exec`), or long-lived workers (`pool`).

mod config;
mod description;
mod exec;
#[cfg(test)]
mod fake;
mod flood;
mod job;
mod pipes;
mod pool;
mod process;
mod progress;
mod state;
mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

pub use config::{Config, HookSource, InPath, Settings};
pub use description::Described;
pub use process::resident_bytes;
// `hookctl` drives a worker by hand.
pub use pipes::{Output, OutputEvent, write_all};
pub use process::{
    Child, CommandLine, DRAIN_TIMEOUT, Exit, FileDigest, Launch, Pipes, Process, Script, Stdin,
    StdinPipe, activity,
};
pub use progress::{Attempts, Progress};
pub use state::{BackendState, ExecState, Exits, PoolHealth, PoolState, WorkerState, WorkerStatus};

use crate::error::{CallError, HookFailure, HookResult, StartError};
use crate::hook::{Checks, HookCall, HookName, HookReply};
use crate::rpc::Outcome;
use exec::Exec;
use pool::Pool;
use process::{Digests, Spawner};

/// Reaps orphans that hooks leave behind, as long as the runtime lives. Called once, before hooks
/// run.
pub fn reap_orphans() -> Result<(), StartError> {
    process::reaper::start()
}

/// Waits until every process that was started here is reaped. A killed process takes no time to
/// exit unless it is stuck in the kernel, so the wait has a limit.
async fn children_are_reaped() {
    let _ = tokio::time::timeout(process::KILL_LIMIT, process::reaper::none_left()).await;
}

/// Waits until every process that was started here is reaped, and stops those that they have left
/// behind: SIGTERM, `grace`, SIGKILL. Called last; nothing may be started any more.
pub async fn stop_orphans(grace: Duration) {
    children_are_reaped().await;
    process::orphans::stop(grace).await;
}

/// Kills every process that was started here, and lets none be started from now on.
pub fn kill_processes() {
    process::reaper::kill_children();
}

/// A variable that the shim sets for programs.
pub(crate) const LEVELS_VARIABLE: &str = process::LEVELS_VARIABLE;

/// Prepares the environment that programs inherit. Called before the first thread is started.
pub fn prepare_environment() {
    process::prepare_environment();
}

/// Prevents every program that is started from now on from gaining privileges. Called before the
/// first thread is started.
pub fn renounce_new_privileges() -> Result<(), StartError> {
    process::set_no_new_privs()
}

/// Reads a worker's reply to a call, and checks the document in it.
pub fn read_reply(call: &HookCall, outcome: &Outcome) -> Result<HookReply, CallError> {
    worker::answer::read(call, outcome, Checks::WellFormed)
        .map_err(|failure| failure.of(call.hook()))
}

/// Runs hooks.
pub struct Backend {
    kind: Kind,
    hooks: Vec<HookName>,
    /// What it runs.
    commands: Vec<Described>,
    /// Number of pools whose calls fail at once.
    pools_down: watch::Sender<usize>,
    digests: Digests,
}

enum Kind {
    Exec(Exec<Spawner>),
    Pools { pools: Vec<Pool>, routes: BTreeMap<HookName, usize> },
}

impl Backend {
    /// Finds the programs; in persistent mode, returns when the first worker of each has replied to
    /// `initialize`.
    pub async fn start(config: &Config) -> Result<Self, StartError> {
        let settings = &config.settings;
        match &config.source {
            HookSource::Exec(in_path) => Ok(Self::exec(in_path.names(), in_path.find()?, settings)),
            HookSource::ExecOne(hook, command) => {
                let programs = BTreeMap::from([(hook.clone(), command.clone())]);
                Ok(Self::exec(BTreeSet::from([hook.clone()]), programs, settings))
            }
            HookSource::Persistent(command) => {
                let pools_down = watch::Sender::default();
                let pool = Pool::start(Spawner, command, settings, &pools_down).await?;
                let routes = pool.hooks().iter().map(|hook| (hook.clone(), 0)).collect();
                Ok(Self::pools(vec![pool], routes, pools_down))
            }
            HookSource::PersistentInPath(in_path) => Self::pools_in_path(in_path, settings).await,
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
        let commands = Described::programs(programs.values());
        let exec = Exec::new(Spawner, names, programs, settings.clone());
        let (hooks, pools_down) = (exec.hooks().cloned().collect(), watch::Sender::default());
        Self { kind: Kind::Exec(exec), hooks, commands, pools_down, digests: Digests::default() }
    }

    fn pools(
        pools: Vec<Pool>,
        routes: BTreeMap<HookName, usize>,
        pools_down: watch::Sender<usize>,
    ) -> Self {
        let hooks = routes.keys().cloned().collect();
        let commands = pools.iter().map(|pool| pool.described().clone()).collect();
        let (kind, digests) = (Kind::Pools { pools, routes }, Digests::default());
        Self { kind, hooks, commands, pools_down, digests }
    }

    /// Starts one pool for each file, however many names it has. A hook is routed to the program
    /// that has its name if that program declares it, else to the first program that does.
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
            let pool = Pool::start(Spawner, &command, settings, &pools_down).await?;
            for hook in pool.hooks() {
                if names.contains(hook) {
                    routes.insert(hook.clone(), pools.len());
                } else {
                    routes.entry(hook.clone()).or_insert(pools.len());
                }
            }
            for hook in names.iter().filter(|hook| !pool.hooks().contains(hook)) {
                tracing::warn!(
                    %hook, worker = %command,
                    "the program named after the hook does not declare it"
                );
            }
            pools.push(pool);
        }
        Ok(Self::pools(pools, routes, pools_down))
    }

    /// Returns the hooks that can be called.
    #[must_use]
    pub fn hooks(&self) -> &[HookName] {
        &self.hooks
    }

    /// Returns what it runs: the commands of workers or programs.
    #[must_use]
    pub fn commands(&self) -> &[Described] {
        &self.commands
    }

    /// Whether hooks run in workers rather than in a program for each call.
    #[must_use]
    pub fn is_persistent(&self) -> bool {
        matches!(self.kind, Kind::Pools { .. })
    }

    /// Returns the maximum length of a document, if hooks get documents as arguments.
    #[must_use]
    pub fn max_argument_bytes(&self) -> Option<usize> {
        matches!(self.kind, Kind::Exec(_)).then(process::max_argument_bytes)
    }

    /// Returns the number of pools whose workers fail so often that calls fail at once. The backend
    /// is healthy while it is zero.
    #[must_use]
    pub fn pools_down(&self) -> watch::Receiver<usize> {
        self.pools_down.subscribe()
    }

    /// Returns what it is doing.
    pub async fn state(&self) -> BackendState {
        match &self.kind {
            Kind::Exec(exec) => BackendState::Exec(exec.state()),
            Kind::Pools { pools, .. } => {
                let mut states = Vec::with_capacity(pools.len());
                for pool in pools {
                    states.push(pool.state().await);
                }
                BackendState::Pools(states)
            }
        }
    }

    /// Returns the digests of the shim's own program and of the files that it runs, as they are now
    /// or were a few seconds ago.
    pub async fn digests(&self) -> Arc<[FileDigest]> {
        let files = match &self.kind {
            Kind::Exec(exec) => exec.commands().flat_map(CommandLine::files).collect(),
            Kind::Pools { pools, .. } => {
                pools.iter().flat_map(|pool| pool.command().files()).collect()
            }
        };
        self.digests.of(files).await
    }

    /// Returns the name under which a hook is called: its own, or the name in another version of
    /// KubeVirt if only that is served.
    #[must_use]
    pub fn served_name(&self, hook: &HookName) -> HookName {
        let other = hook.other_name().filter(|other| self.hooks.contains(other));
        other.filter(|_| !self.hooks.contains(hook)).unwrap_or_else(|| hook.clone())
    }

    /// Calls a hook. Returns by the deadline, whatever the hook does. Meanwhile `progress` says how
    /// far the call is.
    pub async fn call(
        &self,
        call: HookCall,
        deadline: Instant,
        progress: Arc<Progress>,
    ) -> Result<HookReply, CallError> {
        let hook = self.served_name(call.hook());
        let call = call.with_name(hook.clone());
        self.run(call, deadline, progress).await.map_err(|failure| failure.of(&hook))
    }

    async fn run(&self, call: HookCall, deadline: Instant, progress: Arc<Progress>) -> HookResult {
        match &self.kind {
            Kind::Exec(exec) => exec.call(call, deadline, progress).await,
            Kind::Pools { pools, routes } => match routes.get(call.hook()) {
                Some(&pool) => pools[pool].call(call, deadline, progress).await,
                None => Err(HookFailure::NotServed(format!(
                    "the worker declares {}",
                    self.hooks.iter().map(HookName::as_str).collect::<Vec<_>>().join(", ")
                ))),
            },
        }
    }

    /// Stops all processes, workers by EOF first. Calls that are still waiting fail.
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

/// A program in `$PATH`, and the hooks whose names it has.
struct HookFile {
    /// Device and inode.
    file: Option<(u64, u64)>,
    names: Vec<HookName>,
    command: CommandLine,
}
