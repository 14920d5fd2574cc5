//! The private shims that run the cases: one for each environment and mode. In persistent mode each
//! has one worker, which gets one call at a time: so no case waits in a queue at the cost of its
//! deadline. In exec mode each hook has a shim.
//!
//! A shim is started for the first case that needs it, and stopped after the last one.
//!
//! If a worker dies in a call, the shim lets another one answer, and KubeVirt's caller does not
//! notice. Here it is a fault of the hook, so the shim is asked after each answer whether it has
//! lost a worker.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use sidecar_shim::backend::{self, CommandLine, HookSource, Settings};
use sidecar_shim::hook::HookName;
use sidecar_shim::service::Api;
use sidecar_shim::service::client::{Client, ClientError};
use tokio::sync::{OnceCell, Semaphore};

use crate::cases::Case;
use crate::private_shim::{PrivateShim, Request};

/// Why KubeVirt calls a Plugin for the first time in a boot.
const BOOT: &str = "Boot";

/// Timeout for a shim in this process to say what it is doing.
const STATUS_TIMEOUT: Duration = Duration::from_secs(10);

/// What a call returned: a document, which is empty for a node hook.
pub(super) type Reply = Result<Bytes, ClientError>;

/// What a call returned, and how.
pub(super) struct Answer {
    pub(super) reply: Reply,
    /// Whether a worker died in the call, and another one gave the reply.
    pub(super) is_of_second_worker: bool,
}

/// How a hook runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Mode {
    Persistent,
    Exec,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Persistent => "persistent mode",
            Self::Exec => "exec mode",
        })
    }
}

/// A shim that runs cases.
struct CaseShim {
    shim: PrivateShim,
    /// Calls that it may have at a time. Closed when the shim is replaced.
    places: Semaphore,
    /// Workers that have died in a call.
    deaths: AtomicU64,
}

/// Variables of a case.
pub(super) type Variables = BTreeMap<String, String>;

/// What a shim runs: in exec mode one hook, in persistent mode all hooks of the worker.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    variables: Variables,
    exec: Option<HookName>,
}

/// A shim, or why it does not start.
type Started = Result<CaseShim, String>;

/// All shims.
pub(super) struct Shims {
    command: CommandLine,
    settings: Settings,
    /// Number of cases that run at a time.
    jobs: usize,
    running: Mutex<HashMap<Key, Arc<OnceCell<Started>>>>,
    /// Number of cases that are left for each environment.
    left: Mutex<HashMap<Variables, usize>>,
}

impl Shims {
    pub(super) fn new<'a>(
        command: CommandLine,
        settings: Settings,
        jobs: usize,
        cases: impl Iterator<Item = &'a Case>,
    ) -> Self {
        let mut left = HashMap::new();
        for case in cases {
            *left.entry(case.variables.clone()).or_default() += 1;
        }
        Self { command, settings, jobs, running: Mutex::default(), left: Mutex::new(left) }
    }

    /// Calls a hook with a document, in a shim that is started first if there is none. An error
    /// says why it does not start.
    pub(super) async fn call(
        &self,
        case: &Case,
        mode: Mode,
        api: Api,
        subject: Bytes,
    ) -> Result<Answer, String> {
        loop {
            let key = Key {
                variables: case.variables.clone(),
                exec: (mode == Mode::Exec).then(|| case.hook.clone()),
            };
            let cell = lock(&self.running).entry(key.clone()).or_default().clone();
            let shim = cell.get_or_init(|| self.start(case, mode)).await;
            let shim = shim.as_ref().map_err(Clone::clone)?;
            // An error means that the shim has been retired meanwhile.
            let Ok(_place) = shim.places.acquire().await else { continue };
            let reply = call(&shim.shim, case, api, subject.clone()).await;
            let mut answer = Answer { reply, is_of_second_worker: false };
            if mode == Mode::Persistent {
                if answer.reply.as_ref().is_err_and(has_lost_worker) {
                    shim.places.close();
                    lock(&self.running).remove(&key);
                    shim.shim.stop().await;
                } else {
                    answer.is_of_second_worker = shim.has_lost_worker(api).await?;
                }
            }
            return Ok(answer);
        }
    }

    async fn start(&self, case: &Case, mode: Mode) -> Started {
        let directory = PrivateShim::directory()
            .map_err(|error| format!("cannot create a directory for sockets: {error}"))?;
        let mut command = with_variables(&self.command, &case.variables);
        let hook = case.hook.clone();
        if mode == Mode::Exec && hook.is_node_hook() {
            // The arguments of all node hooks are alike.
            let link = command.link(&directory.path().join(hook.as_str()));
            command = link.map_err(|error| format!("cannot start it as {hook}: {error}"))?;
        }
        let (source, calls) = match mode {
            Mode::Persistent => (HookSource::Persistent(command), 1),
            Mode::Exec => (HookSource::ExecOne(hook, command), self.jobs),
        };
        let settings = Settings { max_workers: calls, ..self.settings.clone() };
        let backend = backend::Config { source, settings };
        // No call is left when a shim stops.
        let shim = PrivateShim::start(&backend, None, Duration::ZERO, directory).await;
        let shim = shim.map_err(|error| error.to_string())?;
        Ok(CaseShim { shim, places: Semaphore::new(calls), deaths: AtomicU64::new(0) })
    }

    /// Counts a case that is done. With the last one of its environment, the shims stop.
    pub(super) async fn done(&self, case: &Case) {
        let is_last = {
            let mut left = lock(&self.left);
            let left = left.entry(case.variables.clone()).or_default();
            *left = left.saturating_sub(1);
            *left == 0
        };
        if !is_last {
            return;
        }
        let stopping: Vec<_> = {
            let mut running = lock(&self.running);
            running.extract_if(|key, _| key.variables == case.variables).collect()
        };
        for (_, cell) in stopping {
            if let Some(Ok(shim)) = cell.get() {
                shim.shim.stop().await;
            }
        }
    }
}

impl CaseShim {
    /// Whether a worker has died in a call since this was asked last. With one worker at a time,
    /// the shim has counted its death before another one can answer.
    async fn has_lost_worker(&self, api: Api) -> Result<bool, String> {
        let status = async {
            let client = Client::dial(self.shim.socket(api)).await?;
            client.status(false, STATUS_TIMEOUT).await
        };
        let status = status
            .await
            .map_err(|error: ClientError| format!("cannot ask whether the worker died: {error}"))?;
        let deaths =
            status.pools.iter().filter_map(|pool| pool.exits).map(|exits| exits.call).sum();
        Ok(self.deaths.swap(deaths, Ordering::Relaxed) < deaths)
    }
}

/// Makes one call.
async fn call(shim: &PrivateShim, case: &Case, api: Api, subject: Bytes) -> Reply {
    let client = Client::dial(shim.socket(api)).await?;
    let request = Request {
        hook: &case.hook,
        vmi: case.vmi.clone(),
        subject,
        context: case.context.as_deref().unwrap_or(BOOT),
        node: &case.node,
        timeout: case.deadline,
    };
    request.send(&client, api).await
}

/// Whether the worker may be gone, or busy with a call that is over. Another one must not be
/// started at the cost of the next call's deadline, so its shim is replaced.
fn has_lost_worker(error: &ClientError) -> bool {
    let status = error.status().map(|(status, _)| status);
    !matches!(status, Some("FAILED_PRECONDITION" | "INVALID_ARGUMENT" | "UNIMPLEMENTED"))
}

/// Returns the command with a case's variables.
pub(super) fn with_variables(command: &CommandLine, variables: &Variables) -> CommandLine {
    let variables = variables.iter().map(|(name, value)| (name.into(), value.into())).collect();
    command.clone().with_variables(variables)
}

/// A panic elsewhere leaves these maps whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
