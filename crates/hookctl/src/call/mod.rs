//! Tries a hook without a cluster: starts the whole shim on a private socket, calls it as
//! virt-launcher or virt-handler does, and shows what the hook changes, and whether it changes its
//! own result again. The result goes to a file, or to stdout if that is not a terminal; everything
//! else goes to stderr. With `--json` the whole report goes to stdout.
//!
//! ```text
//! watch ─▶ once ─┬─▶ shim, exchange ─▶ again
//! list           └─▶ report ─▶ json, diff
//! ```
//!
//! # Theory of operation
//! A signal ends the program at any time: the future of a call is dropped, which kills what it has
//! started. So nothing on this thread may wait for anyone: documents are read, and the report is
//! made and written, in threads that are abandoned then (`background`).

mod again;
pub(crate) mod diff;
mod exchange;
mod json;
mod list;
pub(crate) mod name;
mod report;
mod watch;

use std::cell::RefCell;
use std::path::PathBuf;
use std::time::Duration;

use clap::ColorChoice;
use sidecar_shim::backend::{self, CommandLine, HookSource, Settings};
use sidecar_shim::error::StartError;
use sidecar_shim::hook::{HookKind, HookName};
use sidecar_shim::logging::Log;
use sidecar_shim::service::client::ClientError;
use sidecar_shim::service::{Api, ApiVersion};

use self::exchange::{Outcome, exchange};
pub(crate) use self::list::{ListConfig, run as list};
pub(crate) use self::name::unknown_hook;
use self::report::View;
use crate::detect::{Detected, detect};
use crate::inputs::{Documents, Inputs, Unreadable};
use crate::private_shim::PrivateShim;
use crate::rewrite::Receiver;
use crate::{background, say};

/// What to call, and with what.
pub(crate) struct CallConfig {
    pub(crate) hook: HookName,
    pub(crate) inputs: Inputs,
    /// Why KubeVirt calls a domain hook. With it, the call goes through the Plugins API.
    pub(crate) context: Option<String>,
    pub(crate) target: Target,
    /// Number of calls.
    pub(crate) repeat: u32,
    /// Deadline of each call.
    pub(crate) timeout: Duration,
    /// When to colour the report.
    pub(crate) color: ColorChoice,
    /// File for the result; `-` is stdout. Without one, the result goes to stdout if that is not a
    /// terminal.
    pub(crate) output: Option<PathBuf>,
    /// Whether the report is one JSON object on stdout.
    pub(crate) json: bool,
    /// Whether to call again when a file changes.
    pub(crate) watch: bool,
    /// Whether the log has the texts of faults of workers.
    pub(crate) shows_faults: bool,
}

/// The shim that is called.
pub(crate) enum Target {
    /// The socket of a running one.
    Running(PathBuf),
    /// One that is started for the calls.
    Private { program: HookProgram, settings: Settings, call_timeout: Option<Duration> },
}

/// What runs the hook.
pub(crate) enum HookProgram {
    Known(HookSource),
    /// A worker or a program for each call. Starting it once shows which.
    Undetermined {
        command: CommandLine,
        /// Whether a program may be named after the hook.
        program_may_run: bool,
    },
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallFailed {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Call(Box<FailedCall>),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Read(#[from] Unreadable),
    /// Its text names the command.
    #[error("{0}")]
    CannotRun(String),
    #[error("the command is not a worker ({sign}); {}", unknown_hook(hook.as_str()))]
    NotAWorker { hook: HookName, sign: String },
    #[error("cannot create a directory for the socket in $TMPDIR: {0}")]
    Directory(std::io::Error),
    #[error("cannot write the result: {0}")]
    Write(std::io::Error),
    #[error("cannot write the result to {}: {source}", path.display())]
    WriteFile { path: PathBuf, source: std::io::Error },
    #[error(
        "this shim does not serve {hook} (it serves {offered}). In exec mode a hook is a program \
         in $PATH of that name, or the command after `--`; in persistent mode a worker declares \
         it{advice}"
    )]
    NotOffered { hook: HookName, offered: String, advice: String },
    #[error(
        "there is no file to watch: the running shim has its own hook, and all documents are samples"
    )]
    NothingToWatch,
    #[error("internal error (panic) while the report was made")]
    Panicked,
}

impl CallFailed {
    /// Adds to a call's error that the command may be a worker that does not start.
    fn of_guess(mut self) -> Self {
        if let Self::Call(failed) = &mut self {
            failed.advice +=
                "\nif the command is a worker, see with --mode persistent why it does not start";
        }
        self
    }

    /// Adds to a call's error which options show the text of a fault: an SDK logs it at level debug
    /// only. Programs of exec mode do not know the shim's level.
    fn of_fault(mut self, options: &str) -> Self {
        let Self::Call(failed) = &mut self else { return self };
        if failed.source.status().is_some_and(|(_, text)| text.contains(FAULT)) {
            failed.advice += "\nto see the text of the fault, which may quote documents: ";
            failed.advice += options;
        }
        self
    }
}

/// What the SDKs say of an exception or a panic: to the shim, and on stderr in exec mode.
const FAULT: &str = "a fault in the hook's code";

/// A call that failed.
#[derive(Debug, thiserror::Error)]
#[error("{hook} failed{number}: {source}{advice}")]
pub(crate) struct FailedCall {
    hook: HookName,
    /// Which of several calls, in words.
    number: String,
    source: ClientError,
    advice: String,
}

/// Time for connections to close after the last call. The calls themselves have a deadline.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(25);

/// Calls the hook, and shows the result; if the user wants that, again whenever a file changes.
pub(crate) async fn run(config: &CallConfig, log: &Log) -> Result<(), CallFailed> {
    if config.watch {
        watch::run(config, log).await
    } else {
        once(config, log, &Said::default()).await
    }
}

/// Calls the hook, and shows the result or, as JSON, the failure. The error is not reported yet.
async fn once(config: &CallConfig, log: &Log, said: &Said) -> Result<(), CallFailed> {
    let called = call(config, said).await;
    // The report comes last.
    log.flush();
    let view = View::new(config);
    let shown = match called {
        Ok((documents, outcome)) => {
            background::run(move || report::show(&view, &documents, &outcome)).await
        }
        Err(error) if config.json => {
            background::run(move || json::write_failure(&view.hook, &error).and(Err(error))).await
        }
        Err(error) => return Err(error),
    };
    shown.unwrap_or(Err(CallFailed::Panicked))
}

/// Starts a shim for the calls.
async fn start(
    backend: &backend::Config,
    call_timeout: Option<Duration>,
) -> Result<PrivateShim, CallFailed> {
    let directory = PrivateShim::directory().map_err(CallFailed::Directory)?;
    Ok(PrivateShim::start(backend, call_timeout, SHUTDOWN_GRACE, directory).await?)
}

async fn call(config: &CallConfig, said: &Said) -> Result<(Documents, Outcome), CallFailed> {
    let mut documents = config.inputs.load().await?;
    if config.api() == Api::Plugins && config.inputs.domain.is_none() {
        let sample = documents.domain;
        documents.domain = Receiver::SamePlugin.rewrite_document(&sample).unwrap_or(sample);
    }
    let outcome = match &config.target {
        Target::Running(socket) => exchange(config, socket, &documents).await?,
        Target::Private { program, settings, call_timeout } => {
            let source = config.determine(program, said).await?;
            // A worker that responds is one.
            let is_guess = matches!(
                (program, &source),
                (HookProgram::Undetermined { .. }, HookSource::ExecOne(..))
            );
            let is_exec = matches!(&source, HookSource::Exec(_) | HookSource::ExecOne(..));
            let backend = backend::Config { source, settings: settings.clone() };
            let shim = start(&backend, *call_timeout).await?;
            let outcome = exchange(config, shim.socket(config.api()), &documents).await;
            shim.stop().await;
            let outcome = outcome.map_err(|error| if is_guess { error.of_guess() } else { error });
            outcome.map_err(|error| match (is_exec, config.shows_faults) {
                (true, _) => error.of_fault("--mode persistent --log-level debug"),
                (false, false) => error.of_fault("--log-level debug"),
                (false, true) => error,
            })?
        }
    };
    Ok((documents, outcome))
}

/// The last line about how the hook runs, so that it is printed once, however often it is called.
#[derive(Default)]
struct Said(RefCell<String>);

impl Said {
    fn say(&self, text: String) {
        if *self.0.borrow() != text {
            say(&text);
            self.0.replace(text);
        }
    }
}

impl CallConfig {
    /// Returns what runs the hook. If the user did not say, finds out, and reports it.
    async fn determine(
        &self,
        program: &HookProgram,
        said: &Said,
    ) -> Result<HookSource, CallFailed> {
        let (command, program_may_run) = match program {
            HookProgram::Known(source) => return Ok(source.clone()),
            HookProgram::Undetermined { command, program_may_run } => (command, *program_may_run),
        };
        match detect(command).await.map_err(CallFailed::CannotRun)? {
            Detected::Worker => {
                said.say(
                    "the command responds to initialize: it runs as a worker (--mode persistent)"
                        .to_owned(),
                );
                Ok(HookSource::Persistent(command.clone()))
            }
            Detected::Program(sign) if program_may_run => {
                said.say(format!(
                    "the command is not a worker ({sign}): it runs as a program for each call \
                     (--mode exec)"
                ));
                Ok(HookSource::ExecOne(self.hook.clone(), command.clone()))
            }
            Detected::Program(sign) => {
                Err(CallFailed::NotAWorker { hook: self.hook.clone(), sign })
            }
        }
    }

    /// Returns the API through which KubeVirt calls the hook.
    fn api(&self) -> Api {
        match (self.hook.kind(), &self.context) {
            (HookKind::Domain, None) | (HookKind::CloudInit, _) => {
                Api::Legacy(ApiVersion::V1Alpha3)
            }
            (HookKind::Domain, Some(_)) | (HookKind::Node, _) => Api::Plugins,
        }
    }
}
