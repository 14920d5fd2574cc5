//! What the exit status of a program in exec mode says. A program can refuse a VM only by its exit
//! status, and a broken one has an exit status as well: so not every failure is a refusal. And a
//! worker need not run as a program.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sidecar_shim::backend::{Child, CommandLine, stop_orphans};
use sidecar_shim::service::client::ClientError;
use sidecar_shim::text::escape;
use tokio::time::timeout;
use tracing::subscriber::NoSubscriber;

use super::run::{Fault, Way};
use super::shims::Variables;
use crate::probe::{EXIT_TIMEOUT, Probe};

/// What the shim says of a program's exit status.
const EXITED: &str = " exited with status ";

/// What the shim says before the last lines of a program's stderr.
const STDERR: &str = "; the last lines of its stderr:\n";

/// The status of a worker that is started as a program and only speaks the protocol, and of most
/// programs that cannot read their arguments.
const USAGE: u8 = 2;

/// Statuses with which shells say that they cannot start a program.
const CANNOT_START: [u8; 2] = [126, 127];

/// Statuses with which shells say that a signal has killed a program: 128 and its number.
const KILLED: std::ops::RangeInclusive<u8> = 129..=192;

/// Timeout for a program that is started without a call.
const START_TIMEOUT: Duration = Duration::from_secs(5);

/// Returns the exit status of the program, if the call failed because of that.
fn exit_status(error: &ClientError) -> Option<u8> {
    let (_, message) = error.status()?;
    // What the program wrote is not searched.
    let what = message.split_once("; ").map_or(message, |(what, _)| what);
    what.rsplit_once(EXITED)?.1.parse().ok()
}

/// Whether a worker that was started as a program may have failed because it is none.
pub(super) fn is_usage_error(error: &ClientError) -> bool {
    exit_status(error) == Some(USAGE)
}

/// Says why a failed call of a program does not refuse. `alone` is what the program writes if it is
/// started without a call.
pub(super) fn why_not_refused(error: &ClientError, alone: Option<&str>) -> Option<&'static str> {
    let Some(status) = exit_status(error) else {
        return Some("a program can only refuse by an exit status");
    };
    if CANNOT_START.contains(&status) {
        return Some("this exit status says that a program cannot be started");
    }
    if KILLED.contains(&status) {
        return Some("this exit status says that a signal has killed a program");
    }
    let wrote = error.status()?.1.split_once(STDERR)?.1;
    let is_alike = alone.is_some_and(|alone| wrote == alone);
    is_alike.then_some("the program fails in the same way without a call, so it cannot start")
}

/// Starts the program without a call, and returns what it writes to stderr if it fails so.
pub(super) async fn failure_without_call(command: &CommandLine) -> Option<String> {
    // That it complains does not concern a call. The one thread has nothing else to log meanwhile.
    let _quiet = tracing::subscriber::set_default(NoSubscriber::new());
    let mut probe = Probe::start(command, false).ok()?;
    let exit = timeout(START_TIMEOUT, probe.exit()).await;
    probe.process.stop(EXIT_TIMEOUT).await;
    probe.process.read_stderr_to_end().await;
    let lines = probe.process.last_lines(None).into_lines();
    stop_orphans(Duration::ZERO).await;
    let has_failed = exit.is_ok_and(|exit| !exit.success());
    (has_failed && !lines.is_empty()).then(|| escape(&lines.join("\n")).to_string())
}

/// A worker's call in exec mode that may have failed because the worker is not a program.
pub(super) struct InDoubt {
    pub(super) variables: Variables,
    /// What is wrong if the worker is a program.
    pub(super) fault: Option<(Way, Fault)>,
}

/// The environments in which a worker has run as a program.
#[derive(Default)]
pub(super) struct Programs(Mutex<HashSet<Variables>>);

impl Programs {
    /// A call in exec mode has succeeded.
    pub(super) fn has_run(&self, variables: &Variables) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.contains(variables) {
            known.insert(variables.clone());
        }
    }

    pub(super) fn is_program(&self, variables: &Variables) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(variables)
    }
}
