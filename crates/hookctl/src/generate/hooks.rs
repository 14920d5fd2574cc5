//! Which hooks a manifest is for: the worker says it, or the user.

use std::time::Duration;

use sidecar_shim::backend::{Child, CommandLine, OutputEvent, stop_orphans};
use sidecar_shim::hook::{HookKind, HookName};
use sidecar_shim::logging::least_hook_level;
use sidecar_shim::rpc::{self, Declared, Incoming};
use tokio::time::timeout;
use tracing::subscriber::{NoSubscriber, set_default};

use super::KubeVirt;
use crate::probe::{EXIT_TIMEOUT, Probe, encode};

/// Time for the worker's reply. A slow interpreter with many imports takes a second.
const REPLY_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the hooks come from.
pub(crate) struct HookSource {
    /// The worker to ask. `None` for programs that are started for each call.
    pub(crate) worker: Option<CommandLine>,
    /// The hooks that the user names: of a worker, those to use.
    pub(crate) named: Vec<HookName>,
    /// How to name a program that is started for each call.
    pub(crate) of_program: &'static str,
    /// Whether the user wants to see what the worker logs.
    pub(crate) is_logged: bool,
}

impl HookSource {
    /// Returns the hooks, at least one.
    pub(super) async fn hooks(&self) -> Result<Vec<HookName>, String> {
        let Some(command) = &self.worker else {
            return Ok(self.named.clone());
        };
        let declared = self.ask(command).await?;
        if let Some(missing) = self.named.iter().find(|hook| !declared.contains(hook)) {
            return Err(format!("the worker does not have {missing}: {}", list(&declared)));
        }
        if self.named.is_empty() { Ok(declared) } else { Ok(self.named.clone()) }
    }

    /// Starts the worker as the shim does, and returns the hooks that it declares. When this
    /// returns, none of its processes is left.
    async fn ask(&self, command: &CommandLine) -> Result<Vec<HookName>, String> {
        // The error has the last lines. The one thread has nothing else to log meanwhile.
        let _quiet = (!self.is_logged).then(|| set_default(NoSubscriber::new()));
        let mut probe = Probe::start(command, true)?;
        probe.send(&encode(|send_buffer| rpc::send_initialize(send_buffer, 1, least_hook_level())));
        let reply = timeout(REPLY_TIMEOUT, declared(&mut probe)).await;
        let reply = reply.unwrap_or_else(|_| {
            let (limit, unfinished) = (REPLY_TIMEOUT.as_secs(), probe.unfinished());
            Err(format!("it did not respond to initialize within {limit} s{unfinished}"))
        });
        probe.close_stdin();
        let _ = timeout(EXIT_TIMEOUT, probe.exit()).await;
        probe.process.stop(EXIT_TIMEOUT).await;
        probe.process.read_stderr_to_end().await;
        stop_orphans(Duration::ZERO).await;
        let declared = reply.map_err(|reason| {
            let lines = probe.process.last_lines(None).into_lines();
            let title = if lines.is_empty() { "" } else { "\nits stderr:\n  " };
            let lines = lines.join("\n  ");
            format!(
                "the worker {command} does not say which hooks it has: {reason}; `hookctl check` \
                 says more. For a program that is started for each call: {}{title}{lines}",
                self.of_program
            )
        })?;
        Ok(declared.hooks)
    }
}

async fn declared(probe: &mut Probe) -> Result<Declared, String> {
    while let Some(event) = probe.next().await {
        match event {
            OutputEvent::Message(Incoming::Response { outcome, .. }) => {
                return Declared::read(&outcome).map_err(|error| error.to_string());
            }
            OutputEvent::Message(Incoming::Request { .. }) => {
                return Err("it sent a request".to_owned());
            }
            OutputEvent::Malformed(error) => return Err(error),
            OutputEvent::Message(_) | OutputEvent::Stray(_) => {}
        }
    }
    let unfinished = probe.unfinished();
    match timeout(EXIT_TIMEOUT, probe.exit()).await {
        Ok(exit) => Err(format!("it {exit}{unfinished}")),
        Err(_) => Err(format!("it closed its stdout{unfinished}")),
    }
}

/// Checks that a target is called for these hooks, and no others.
pub(super) fn only(
    hooks: &[HookName],
    served: impl Fn(HookKind) -> bool,
    target: &str,
    advice: &str,
) -> Result<(), String> {
    match hooks.iter().find(|hook| !served(hook.kind())) {
        Some(hook) => Err(format!(
            "KubeVirt does not call {hook} of {target}: {advice}. To leave {hook} out, name the \
             other hooks with --hook"
        )),
        None => Ok(()),
    }
}

/// Returns the hook points of a node hook's Plugin, in the order in which KubeVirt has them.
pub(super) fn node_points(hooks: &[HookName], version: KubeVirt) -> Result<Vec<String>, String> {
    let all = version.node_points();
    let mut points = Vec::new();
    for hook in hooks {
        let names = [Some(hook.clone()), hook.other_name()];
        let point =
            names.iter().flatten().map(HookName::hook_point).find(|it| all.contains(&&**it));
        points.push(point.ok_or_else(|| {
            format!(
                "KubeVirt {version} does not call {hook}: its hook points are {}",
                all.join(", ")
            )
        })?);
    }
    Ok(all.iter().filter(|each| points.iter().any(|it| it == *each)).map(|&it| it.into()).collect())
}

/// Returns hooks as text.
fn list(hooks: &[HookName]) -> String {
    let names: Vec<_> = hooks.iter().map(HookName::as_str).collect();
    format!("it has {}", names.join(", "))
}
