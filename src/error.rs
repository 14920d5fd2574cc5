//! What can go wrong, split by consequence: a [`StartError`] stops the shim before it serves, a
//! [`CallError`] fails one call and leaves everything else as it was.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::hook::{BadDocument, HookName, HookReply};

/// What stops the shim before it serves.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Flags that contradict each other.
    #[error("{0}")]
    Usage(String),
    #[error("cannot listen on {}: {why}", path.display())]
    Listen {
        path: PathBuf,
        /// The obstacle, and what to do.
        why: String,
    },
    #[error(
        "the socket directory {} does not exist or cannot be read: {source}; \
         KubeVirt mounts it into hook sidecars, elsewhere name one with --socket-dir",
        path.display()
    )]
    SocketDir { path: PathBuf, source: std::io::Error },
    /// `--record` names a directory that cannot be used.
    #[error("cannot record into {}: {why} (--record)", path.display())]
    Record {
        path: PathBuf,
        /// The obstacle, and what to do.
        why: String,
    },
    #[error("cannot start hook worker: {0}")]
    Worker(String),
    #[error("cannot {what}: {source}")]
    System {
        /// What failed, as a verb.
        what: &'static str,
        source: std::io::Error,
    },
}

/// How a hook's process terminated, and what it had written.
#[derive(Debug, Clone)]
pub struct Termination {
    /// "exited with status 1", "was killed by SIGKILL".
    pub how: String,
    /// Describes what a worker has written to stdout in place of a message.
    pub stdout: Option<String>,
    pub stderr: LastLines,
}

/// The last lines of a process's stderr, as far as they may be shown.
#[derive(Debug, Clone)]
pub enum LastLines {
    /// The call's own, oldest first.
    Own(Vec<String>),
    /// They may be about other VMs: the process ran several calls at once, or none.
    Unattributed,
}

impl LastLines {
    /// Returns the lines.
    #[must_use]
    pub fn into_lines(self) -> Vec<String> {
        match self {
            Self::Own(lines) => lines,
            Self::Unattributed => Vec::new(),
        }
    }
}

/// The clause that ends a sentence.
impl fmt::Display for LastLines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unattributed => {
                f.write_str("; its stderr is only in the log, because it may be about other VMs")
            }
            Self::Own(lines) if lines.is_empty() => f.write_str("; it wrote nothing to its stderr"),
            Self::Own(lines) => {
                write!(f, "; the last lines of its stderr:\n{}", lines.join("\n"))
            }
        }
    }
}

impl fmt::Display for Termination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.how, self.written())
    }
}

impl Termination {
    /// Returns the clauses that end the sentence: what the process wrote to stdout and stderr.
    #[must_use]
    pub fn written(&self) -> String {
        written(self.stdout.as_deref(), &self.stderr)
    }
}

/// Why one call failed. The text is for the owner of the VM: it names the hook, how it failed and
/// what to do, and it never contains a document.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("the request cannot be used: {0}")]
    BadRequest(#[from] BadDocument),
    /// The request did not get as far as its documents.
    #[error(transparent)]
    Request(#[from] RequestFault),
    /// The caller names a hook point that no hook can have.
    #[error(
        "hook point {point:?} is not served here: that of a node hook is a word of letters and \
         digits, at most 63, and none of OnDefineDomain, PreCloudInitIso, Initialize, PreBoot and \
         LauncherPreMigrationSource"
    )]
    NoSuchHook {
        /// The name, or its beginning.
        point: String,
    },
    /// The hook was found, and failed.
    #[error("hook {hook} {failure}")]
    Hook {
        hook: HookName,
        #[source]
        failure: HookFailure,
    },
}

/// Why a request was refused before its documents were read. `bytes`, `have` and `want` are
/// lengths.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RequestFault {
    #[error("the request is not gRPC: its method is {method} and its content type {content_type}")]
    NotGrpc { method: String, content_type: String },
    #[error("{method} is not served here: this socket serves {served}")]
    UnknownMethod { method: String, served: String },
    /// A method of the Plugins API, which a later version of KubeVirt may have. Both name a method
    /// without the package: `Service/Method`.
    #[error(
        "this sidecar-shim {} does not know {method}; it serves {served}: take this hook point out \
         of the Plugin, or use a later version",
        env!("CARGO_PKG_VERSION")
    )]
    UnknownPluginMethod { method: String, served: String },
    /// A health check names a service that this socket does not have.
    #[error("the service {0:?} is not served here")]
    UnknownService(String),
    #[error("the request is compressed: configure the client to send uncompressed messages")]
    Compressed,
    #[error("the request is not a gRPC message: it begins with the byte {byte}")]
    BadPrefix { byte: u8 },
    #[error("the request has no message")]
    NoMessage,
    #[error("the request has more than one message")]
    SecondMessage,
    #[error("the request ended after {have} of {want} bytes")]
    Torn { have: usize, want: usize },
    /// Its message is not the method's; protobuf's own text quotes no value.
    #[error("the request cannot be decoded: {0}")]
    NotDecoded(String),
    #[error("the request is {bytes} bytes long; this method accepts at most {max} bytes")]
    TooLarge { bytes: usize, max: usize },
    #[error(
        "the request is {bytes} bytes long; --mode exec passes its documents as arguments and \
         accepts at most {max} bytes; --mode persistent has no such limit"
    )]
    TooLargeForArguments { bytes: usize, max: usize },
    #[error(
        "the request is {bytes} bytes long and does not fit into the memory budget of {budget} \
         bytes: raise --memory-budget and the container's memory limit"
    )]
    OverBudget { bytes: usize, budget: usize },
    #[error(
        "the request is {bytes} bytes long and other calls held the memory budget of {budget} \
         bytes until its deadline: raise --memory-budget and the container's memory limit"
    )]
    NoMemory { bytes: usize, budget: usize },
    #[error(
        "the reply is {bytes} bytes long and does not fit into the memory budget of {budget} \
         bytes beside other calls by its deadline: raise --memory-budget and the container's memory limit"
    )]
    NoMemoryForReply { bytes: usize, budget: usize },
    #[error("the watch has ended: the shim is shutting down, or other calls need its place")]
    WatchEnded,
    #[error("the shim is shutting down and the request did not arrive in time")]
    ShuttingDown,
    #[error("the request did not arrive in time for other calls that needed its memory")]
    TooSlow,
    #[error("the request did not arrive within {}", seconds(*.after))]
    NotReceived { after: Duration },
    /// The client reset the stream or closed the connection; only the log shows this.
    #[error("the client went away: {0}")]
    ClientLeft(String),
}

/// What running a hook returns.
pub type HookResult = Result<HookReply, HookFailure>;

/// Why a hook failed. The text continues the sentence that begins with the hook's name, which
/// [`of`](Self::of) adds. `program` is the command line, `after` the time that the call had,
/// `stdout` describes what is there and no message.
#[derive(Debug, Clone, thiserror::Error)]
pub enum HookFailure {
    /// A document is too long for its transport: names it, its length, the limit and the remedy.
    #[error("exceeded a size limit: {0}")]
    TooLarge(String),
    #[error("is not served here: {0}")]
    NotServed(String),
    /// The hook rejects the VM, with a message for its owner.
    #[error("refused: {0}")]
    Refused(String),
    #[error("cannot use these documents: {0}")]
    BadParams(String),
    /// An exception or a panic in the hook's code.
    #[error("failed: {0}")]
    Fault(String),
    /// The hook's process exited or was killed before it replied.
    #[error("failed: {program} {termination}")]
    Died { program: String, termination: Termination },
    /// A worker broke the protocol and was killed.
    #[error("failed: {program} broke the worker protocol: {seen}")]
    Protocol {
        program: String,
        /// The violation, and what to do about it.
        seen: String,
    },
    /// The hook's reply contains no document of the right kind.
    #[error("returned an invalid document: {0}")]
    BadOutput(String),
    #[error(
        "did not answer within {}: {program} was stopped{}",
        seconds(*.after),
        written(.stdout.as_deref(), .stderr)
    )]
    Deadline { program: String, after: Duration, stdout: Option<String>, stderr: LastLines },
    /// The deadline passed while the shim was stopping the hook's worker for another reason.
    #[error(
        "did not answer within {}: {program} was being stopped at the deadline",
        seconds(*.after)
    )]
    Stalled { program: String, after: Duration },
    /// The deadline had passed before the call could be made.
    #[error(
        "was not called: no time was left when the request had arrived; the shim replies 20 ms to \
         1 s before the caller's deadline, and within --call-timeout"
    )]
    NoTime,
    /// A bug in the shim lost the call.
    #[error("failed: internal error in sidecar-shim; its log has the details")]
    Dropped,
    /// The call found the queue full, or no process until its deadline: names the limit to raise.
    #[error("is busy: {0}")]
    Busy(String),
    #[error("is unavailable: {0}")]
    Unavailable(String),
    /// The caller went away; only the log shows this.
    #[error("was cancelled: the caller went away")]
    Cancelled,
}

impl HookFailure {
    /// Adds the hook's name.
    #[must_use]
    pub fn of(self, hook: &HookName) -> CallError {
        CallError::Hook { hook: hook.clone(), failure: self }
    }

    /// Returns the failure of calls that are waiting when the shim shuts down.
    #[must_use]
    pub fn shutting_down() -> Self {
        Self::Unavailable("the shim is shutting down".to_owned())
    }
}

fn seconds(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 0.1 { format!("{seconds:.3} s") } else { format!("{seconds:.1} s") }
}

fn written(stdout: Option<&str>, stderr: &LastLines) -> String {
    let stdout = stdout.map(|what| format!("; its stdout ends with {what}"));
    stdout.unwrap_or_default() + &stderr.to_string()
}
