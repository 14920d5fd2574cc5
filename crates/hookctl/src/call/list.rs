//! `call --list`: which hooks can be called, of a running shim or of a command.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use sidecar_shim::backend::{self, HookSource, Settings};
use sidecar_shim::hook::{HookKind, HookName};
use sidecar_shim::service::client::{Client, ClientError};

use super::{CallFailed, HookProgram, Target, name, start};
use crate::detect::{Detected, detect};
use crate::output;

/// Timeout for a shim's reply, which needs no hook.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Columns before the description of a hook.
const NAME_COLUMNS: usize = 20;

/// The name under which a shim counts the calls of hooks that it does not serve.
const OTHER: &str = "_other";

/// What to list.
pub(crate) struct ListConfig {
    pub(crate) target: Target,
    pub(crate) json: bool,
}

/// What can be called.
#[derive(Serialize)]
struct Offered {
    /// What offers them.
    from: String,
    /// None if any name can be called.
    hooks: Option<Vec<Listed>>,
}

#[derive(Serialize)]
struct Listed {
    name: String,
    /// KubeVirt's name of the hook point.
    point: String,
    what: &'static str,
}

impl Listed {
    fn new(hook: &HookName) -> Self {
        let what = match hook.kind() {
            HookKind::Domain => "changes the libvirt domain",
            HookKind::CloudInit => "changes cloud-init data",
            HookKind::Node => "node hook",
        };
        Self { name: hook.to_string(), point: hook.hook_point(), what }
    }
}

/// Prints the hooks.
pub(crate) async fn run(config: &ListConfig) -> Result<(), CallFailed> {
    let offered = match &config.target {
        Target::Running(socket) => of_socket(socket).await?,
        Target::Private { program, settings, call_timeout: _ } => {
            of_program(program, settings).await?
        }
    };
    let text = if config.json { offered.to_json()? } else { offered.to_text() };
    output::write_stdout(text.as_bytes()).map_err(CallFailed::Write)
}

/// Asks a server. A hook sidecar says it to every caller, a plugin's shim by its own service.
async fn of_socket(socket: &Path) -> Result<Offered, CallFailed> {
    let path = socket.display();
    match Client::dial(socket).await?.info().await {
        Ok(offer) => {
            let hooks = offer.hook_points.iter().filter_map(|point| name::parse(point));
            let hooks = hooks.filter(|hook| !hook.is_node_hook()).map(|hook| Listed::new(&hook));
            let from = format!("{path}: hook sidecar, {}", offer.version.as_str());
            Ok(Offered { from, hooks: Some(hooks.collect()) })
        }
        Err(ClientError::OtherApi { .. }) => {
            let hooks = served(socket).await.map_err(|error| match error {
                ClientError::OtherApi { .. } => CallFailed::CannotRun(format!(
                    "{path} does not say which hooks it has: its server is neither a hook sidecar \
                     nor sidecar-shim. The Plugins API has no question for that; call the hook"
                )),
                other => other.into(),
            })?;
            // Cloud-init data have no part in the Plugins API.
            let hooks = hooks.iter().filter(|hook| hook.kind() != HookKind::CloudInit);
            let from = format!("{path}: plugin");
            Ok(Offered { from, hooks: Some(hooks.map(Listed::new).collect()) })
        }
        Err(error) => Err(error.into()),
    }
}

/// Returns the hooks that a shim serves.
async fn served(socket: &Path) -> Result<Vec<HookName>, ClientError> {
    let status = Client::dial(socket).await?.status(true, TIMEOUT).await?;
    let names = status.hooks.into_iter().map(|hook| hook.name).filter(|name| name != OTHER);
    Ok(names.filter_map(|name| HookName::parse(&name)).collect())
}

/// Starts a shim with the program, and asks it.
async fn of_program(program: &HookProgram, settings: &Settings) -> Result<Offered, CallFailed> {
    let any = |what: String| Ok(Offered { from: what, hooks: None });
    let source = match program {
        HookProgram::Known(source) => source.clone(),
        HookProgram::Undetermined { command, .. } => {
            match detect(command).await.map_err(CallFailed::CannotRun)? {
                Detected::Worker => HookSource::Persistent(command.clone()),
                Detected::Program(_) => return any(format!("{command}: program for each call")),
            }
        }
    };
    let from = match &source {
        HookSource::ExecOne(_, command) => return any(format!("{command}: program for each call")),
        HookSource::Persistent(command) => format!("{command}: worker"),
        HookSource::Exec(_) => "$PATH: programs for each call".to_owned(),
        HookSource::PersistentInPath(_) => "$PATH: workers".to_owned(),
    };
    let backend = backend::Config { source, settings: settings.clone() };
    let shim = start(&backend, None).await?;
    let hooks = served(&shim.plugins).await;
    shim.stop().await;
    Ok(Offered { from, hooks: Some(hooks?.iter().map(Listed::new).collect()) })
}

impl Offered {
    fn to_json(&self) -> Result<String, CallFailed> {
        let json = serde_json::to_string(self);
        json.map(|json| json + "\n").map_err(|error| CallFailed::Write(error.into()))
    }

    fn to_text(&self) -> String {
        let line = |hook: &Listed| format!("  {:NAME_COLUMNS$} {}\n", hook.name, hook.what);
        let lines = match &self.hooks {
            None => vec!["  any hook, by whichever name it is called\n".to_owned()],
            Some(hooks) if hooks.is_empty() => vec!["  no hooks\n".to_owned()],
            Some(hooks) => hooks.iter().map(line).collect(),
        };
        format!("{}\n{}", self.from, lines.concat())
    }
}
