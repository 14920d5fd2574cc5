//! Calls the hook again whenever a file changes: the hook's own (the program, and the script of an
//! interpreter), or a document.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use sidecar_shim::backend::{CommandLine, HookSource, stop_orphans};
use sidecar_shim::hook::HookName;
use sidecar_shim::logging::Log;

use super::{CallConfig, CallFailed, HookProgram, Said, Target, once};
use crate::files::{Change, Watcher};
use crate::{output, say};

/// Calls the hook, and again, until a signal ends the program or the reader of stdout has gone.
pub(super) async fn run(config: &CallConfig, log: &Log) -> Result<(), CallFailed> {
    let mut watcher = Watcher::new();
    let said = Said::default();
    let mut announced = String::new();
    loop {
        watcher.watch(config.files());
        if watcher.is_empty() {
            return Err(CallFailed::NothingToWatch);
        }
        let during_call = tokio::select! {
            outcome = once(config, log, &said) => {
                if let Err(error) = outcome {
                    say(error);
                }
                None
            }
            changes = watcher.changed() => Some(changes),
        };
        let changes = if let Some(changes) = during_call {
            // What the dropped call has left behind must not disturb the next one.
            stop_orphans(Duration::ZERO).await;
            changes
        } else {
            if output::is_stdout_closed() {
                return Ok(());
            }
            // A hook may have been found that was not there before.
            watcher.watch(config.files());
            let files = watcher.names();
            if announced != files {
                say(format_args!("watching {files}; Ctrl-C ends"));
                announced = files;
            }
            watcher.changed().await
        };
        report(&changes);
    }
}

/// Says what has changed.
fn report(changes: &[Change]) {
    let names: Vec<_> = changes.iter().map(ToString::to_string).collect();
    say(format_args!("{}: calling again", names.join(", ")));
}

impl CallConfig {
    /// Returns the files to watch. A file that the call writes itself is not one of them.
    fn files(&self) -> BTreeSet<PathBuf> {
        let of_hook = self.target.files(&self.hook);
        let files = self.inputs.files().cloned().chain(of_hook);
        files.filter(|path| Some(path) != self.output.as_ref()).collect()
    }
}

impl Target {
    /// Returns the files of what is called: programs and scripts.
    pub(super) fn files(&self, hook: &HookName) -> Vec<PathBuf> {
        let Self::Private { program, .. } = self else { return Vec::new() };
        match program {
            HookProgram::Undetermined { command, .. } => command.files(),
            HookProgram::Known(source) => files_of(source, hook),
        }
    }
}

fn files_of(source: &HookSource, hook: &HookName) -> Vec<PathBuf> {
    match source {
        HookSource::ExecOne(_, command) | HookSource::Persistent(command) => command.files(),
        HookSource::Exec(_) | HookSource::PersistentInPath(_) => {
            let in_path = CommandLine::from_words([hook.as_str().into()]);
            in_path.map_or_else(Vec::new, |command| command.files())
        }
    }
}
