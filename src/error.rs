//! What can go wrong, split by consequence: a [`StartError`] ends the process before it serves,
//! a [`CallError`] fails one call and leaves everything else as it was.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::hook::{BadDocument, HookName};

/// What ends the shim before it has served a call.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Flags that each are fine and do not make sense together.
    #[error("{0}")]
    Usage(String),
    /// The socket cannot be created.
    #[error("cannot listen on {}: {why}", path.display())]
    Listen {
        /// Where the socket was to be.
        path: PathBuf,
        /// What is in the way, and what to do.
        why: String,
    },
    /// The directory for the socket is not there.
    #[error(
        "the socket directory {} does not exist or cannot be read: {source}; \
         KubeVirt mounts it into hook sidecars, elsewhere name one with --socket-dir",
        path.display()
    )]
    SocketDir {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// No worker came up.
    #[error("cannot start hook worker: {0}")]
    Worker(String),
    /// The runtime itself.
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}

/// How a hook's process failed: how it ended, and the last lines that it wrote.
#[derive(Debug, Clone)]
pub struct Failure {
    /// "exited with status 1", "was killed by SIGKILL".
    pub how: String,
    /// The last lines of its standard error, oldest first.
    pub stderr: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.how, self.last_lines())
    }
}

impl Failure {
    /// The end of the sentence: what the process said.
    #[must_use]
    pub fn last_lines(&self) -> String {
        last_lines(&self.stderr)
    }
}

/// What fails one call. The text is for the owner of the VM: it says which hook, how it ended
/// and what to do, and it never holds a document.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// A document of the request cannot be used.
    #[error("the request cannot be used: {0}")]
    BadRequest(#[from] BadDocument),
    /// A document is too long for the way it has to go.
    #[error("hook {hook}: {what}")]
    TooLarge {
        /// The hook.
        hook: HookName,
        /// What is how long, what the limit is, what lifts it.
        what: String,
    },
    /// No program and no worker serves this hook.
    #[error("hook {hook} is not served here: {why}")]
    NotServed {
        /// The hook.
        hook: HookName,
        /// Why not.
        why: String,
    },
    /// The caller names a hook point after which no hook can be named.
    #[error(
        "hook point {point:?} is not served here: that of a node hook is a word of letters and digits, \
         at most 63, and none of OnDefineDomain, PreCloudInitIso and Initialize"
    )]
    NoSuchHook {
        /// The name, or its beginning.
        point: String,
    },
    /// The hook refuses, with words for the VM's owner.
    #[error("hook {hook} refused: {message}")]
    Refused {
        /// The hook.
        hook: HookName,
        /// The hook's own words.
        message: String,
    },
    /// The hook cannot use what it was sent.
    #[error("hook {hook} cannot use these documents: {message}")]
    BadParams {
        /// The hook.
        hook: HookName,
        /// The hook's own words.
        message: String,
    },
    /// An exception or panic in the hook's code.
    #[error("hook {hook} failed: {message}")]
    Fault {
        /// The hook.
        hook: HookName,
        /// The hook's own words.
        message: String,
    },
    /// The hook's process ended instead of answering.
    #[error("hook {hook} failed: {program} {failure}")]
    Died {
        /// The hook.
        hook: HookName,
        /// The program as it was started.
        program: String,
        /// How it ended.
        failure: Failure,
    },
    /// A worker broke the protocol and was killed for it.
    #[error("hook {hook} failed: {program} broke the worker protocol: {seen}")]
    Protocol {
        /// The hook.
        hook: HookName,
        /// The program as it was started.
        program: String,
        /// What was seen, and what to do about it.
        seen: String,
    },
    /// What the hook answered is no document of the right kind.
    #[error("hook {hook} answered with something unusable: {fault}")]
    BadOutput {
        /// The hook.
        hook: HookName,
        /// Which member, and what is wrong with it.
        fault: String,
    },
    /// No answer in time.
    #[error("hook {hook} did not answer within {}: {program} was told to stop{}", seconds(*.after), last_lines(.stderr))]
    Deadline {
        /// The hook.
        hook: HookName,
        /// The program as it was started.
        program: String,
        /// How long it was given.
        after: Duration,
        /// The last lines of its standard error, oldest first.
        stderr: Vec<String>,
    },
    /// No answer in time, from a worker that was just being ended.
    #[error(
        "hook {hook} did not answer within {}: {program} was being ended when the time was over",
        seconds(*.after)
    )]
    Stalled {
        /// The hook.
        hook: HookName,
        /// The program as it was started.
        program: String,
        /// How long it was given.
        after: Duration,
    },
    /// The call was lost by a fault of this program's own.
    #[error("hook {hook} failed by a fault of sidecar-shim itself; its log says where")]
    Dropped {
        /// The hook.
        hook: HookName,
    },
    /// The call waited for its turn, in vain.
    #[error("hook {hook} is busy: {why}")]
    Busy {
        /// The hook.
        hook: HookName,
        /// What was full, and what to raise.
        why: String,
    },
    /// The hook's program cannot be run at all.
    #[error("hook {hook} is unavailable: {why}")]
    Unavailable {
        /// The hook.
        hook: HookName,
        /// Why.
        why: String,
    },
    /// The caller went away. Nobody reads this, but the log.
    #[error("hook {hook}: the caller went away")]
    Cancelled {
        /// The hook.
        hook: HookName,
    },
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

fn last_lines(lines: &[String]) -> String {
    if lines.is_empty() {
        return "; it wrote nothing to its standard error".to_owned();
    }
    format!("; the last lines of its standard error:\n{}", lines.join("\n"))
}
