//! Child processes, from spawn to reaping: what exec mode and workers share.
//!
//! # Theory of operation
//! Every child leads a process group, so that its own child processes are signalled with it. A
//! child that has left the group is signalled by its process id, and those of its descendants that
//! have left it by the [`descendants`] that are known then.
//! [`Process::spawn`] returns the pipes of stdin and stdout. A task reads [`stderr`]: it logs each
//! line and keeps the last ones for the text of an error.
//!
//! [`Child::stop`] sends SIGTERM to the group, waits for the kill grace, sends SIGKILL to the
//! group, and reaps the child. A `Process` that is dropped before it was reaped is killed with its
//! group at once and reaped by a task, so no code path can leave one behind. The [`reaper`]
//! collects the orphans that children leave, and [`orphans`] stops them when the shim stops.
//!
//! EOF of a pipe is never waited for without a limit: another process may hold it open.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "this is the one place that starts and signals processes"
)]

mod activity;
mod child;
mod descendants;
mod digest;
mod explain;
mod limit;
mod memory;
pub(super) mod orphans;
mod program;
pub(super) mod reaper;
mod script;
mod stat;
pub(super) mod stderr;
mod stdin;

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, getpgid, kill_process, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{ChildStderr, ChildStdout, Command};
use tokio::runtime::Handle;
use tokio::time::timeout;
use tracing::Span;

pub use activity::activity;
pub use child::{Child, Pipes};
pub(super) use child::{Sharing, Spawn, Spawner};
pub(super) use digest::Digests;
pub use digest::FileDigest;
pub(super) use explain::max_argument_bytes;
pub use memory::resident_bytes;
pub use program::CommandLine;
pub(super) use program::{NotFound, find_in_path};
pub use script::Script;
pub use stdin::StdinPipe;

use self::descendants::Descendants;
use self::reaper::RegisteredChild;
use self::stderr::Stderr;
use crate::error::{LastLines, StartError};

/// The environment variable that tells a program to speak the worker protocol.
pub(super) const PROTOCOL_VARIABLE: &str = "KUBEVIRT_HOOK_PROTOCOL";

/// The environment variable that tells an argv-style program why KubeVirt calls.
const CONTEXT_VARIABLE: &str = "KUBEVIRT_HOOK_CONTEXT";

/// The environment variable that tells a program that the shim reads levels at the beginning of
/// lines on stderr.
pub(super) const LEVELS_VARIABLE: &str = "SIDECAR_SHIM_STDERR_LEVELS";

/// Timeout for reading what an exited process left in a pipe. It is in the pipe already, so the
/// timeout is only reached when a process outside the group holds the pipe open.
pub const DRAIN_TIMEOUT: Duration = Duration::from_millis(500);

/// Timeout for a killed process to be reaped. Only one that is stuck in the kernel takes longer.
pub(super) const KILL_LIMIT: Duration = Duration::from_secs(5);

/// Puts the variable that is the same for all children into the shim's own environment, so that it
/// is not copied for each of them, if the program has no other threads yet.
pub(super) fn prepare_environment() {
    // If it cannot be set, each child gets a copy.
    let _ = crate::sys::set_variable(LEVELS_VARIABLE, "1");
}

/// Sets the kernel's `no_new_privs`, which every child inherits and which cannot be unset.
pub(super) fn set_no_new_privs() -> Result<(), StartError> {
    rustix::thread::set_no_new_privs(true).map_err(|error| StartError::System {
        what: "set no_new_privs (--no-new-privs)",
        source: error.into(),
    })
}

/// Why a program could not be started. The text names the cause.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// An argument is longer than the kernel accepts.
    #[error("{0}")]
    ArgumentTooLong(String),
    /// The program cannot be run.
    #[error("{0}")]
    CannotRun(String),
}

/// How a child is started.
pub struct Launch<'a> {
    /// The program and its fixed arguments.
    pub command: &'a CommandLine,
    /// Flags and documents as further arguments. Documents are never logged.
    pub documents: &'a [(&'static str, &'a [u8])],
    /// The value of `KUBEVIRT_HOOK_PROTOCOL`. `None` for an argv-style program.
    pub protocol: Option<&'static str>,
    /// The value of `KUBEVIRT_HOOK_CONTEXT`.
    pub context: Option<&'a str>,
    /// Whether it has a stdin.
    pub stdin: bool,
    /// The span of the call that the child runs, if it runs only one.
    pub span: Option<Span>,
    /// Maximum number of bytes of memory for its data.
    pub memory: Option<u64>,
}

/// The shim's end of a child's stdin.
pub type Stdin = tokio::net::unix::pipe::Sender;

/// The shim's end of a child's stdout.
pub(super) type Stdout = ChildStdout;

/// How a child exited.
#[derive(Debug, Clone, Copy)]
pub enum Exit {
    /// It was reaped.
    Status(ExitStatus),
    /// It survived SIGKILL; the runtime goes on waiting for it.
    Stuck,
}

impl Exit {
    /// Whether it exited with status 0.
    #[must_use]
    pub fn success(self) -> bool {
        self.code() == Some(0)
    }

    /// Returns its exit status. `None` if it was killed.
    #[must_use]
    pub fn code(self) -> Option<i32> {
        match self {
            Self::Status(status) => status.code(),
            Self::Stuck => None,
        }
    }

    /// Returns its text for a process that the shim itself has stopped: a SIGKILL was the shim's,
    /// and says nothing of the memory.
    #[must_use]
    pub fn of_stopped(self) -> String {
        self.text("")
    }

    /// Returns its text, with the likeliest cause of a SIGKILL.
    fn text(self, cause: &str) -> String {
        let Self::Status(status) = self else {
            return "did not die of SIGKILL".to_owned();
        };
        if let Some(code) = status.code() {
            return format!("exited with status {code}");
        }
        // The standard library knows the names: `signal: 11 (SIGSEGV) (core dumped)`.
        let text = status.to_string();
        match text.split(['(', ')']).find(|part| part.starts_with("SIG")) {
            Some("SIGKILL") => format!("was killed by SIGKILL{cause}"),
            Some(signal) => format!("was killed by {signal}"),
            // Real-time signals have none.
            None => format!("ended with {status}"),
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text(" (probably out of memory)"))
    }
}

/// A running or exited child.
pub struct Process {
    state: State,
    group: Pid,
    /// Whether the group id may have been reused.
    group_is_gone: bool,
    /// Known since the child was first signalled.
    descendants: Descendants,
    stderr: Arc<Stderr<ChildStderr>>,
}

enum State {
    Unreaped { child: tokio::process::Child, registered: RegisteredChild },
    Reaped(Exit),
}

impl Process {
    /// Starts a child as the leader of a new process group.
    pub fn spawn(launch: &Launch<'_>) -> Result<(Self, Pipes), SpawnError> {
        let command_line = launch.command;
        let path = file_to_start(command_line)?;
        let mut command = Command::new(&path);
        command.arg0(&command_line.program).args(&command_line.args);
        for (flag, document) in launch.documents {
            command.arg(flag).arg(OsStr::from_bytes(document));
        }
        for (name, value) in &*command_line.variables {
            command.env(name, value);
        }
        // The shim's own variables of these names must not reach the child.
        for (name, value) in [
            (PROTOCOL_VARIABLE, launch.protocol),
            (CONTEXT_VARIABLE, launch.context),
            (LEVELS_VARIABLE, Some("1")),
        ] {
            let inherited = std::env::var_os(name);
            // Only where it differs: any change copies the whole environment.
            let is_copied = !command_line.variables.is_empty();
            if is_copied || inherited.as_deref() != value.map(OsStr::new) {
                match value {
                    Some(value) => command.env(name, value),
                    None => command.env_remove(name),
                };
            }
        }
        command
            .stdin(if launch.stdin { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| explain::explain(launch, &path, &error))?;
        let group = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        let (Some(group), Some(stdout), Some(pipe)) =
            (group, child.stdout.take(), child.stderr.take())
        else {
            let what = format!("{command_line} has no process id or no pipes");
            return Err(SpawnError::CannotRun(what));
        };
        if let Some(bytes) = launch.memory
            && let Err(error) = limit::data(group, bytes)
        {
            // Dropping the child kills it. It is not registered yet, so the orphan reaper collects
            // it.
            let what = format!("cannot run {command_line} with --worker-memory: {error}");
            return Err(SpawnError::CannotRun(what));
        }
        let stdin = child.stdin.take().map(stdin::sender).transpose().map_err(|error| {
            SpawnError::CannotRun(format!("cannot run {command_line}: its stdin: {error}"))
        })?;
        let pid = group.as_raw_pid();
        let registered = RegisteredChild::new(pid);
        let pipes = Pipes { stdin, stdout };
        let stderr = Stderr::start(pipe, pid, command_line.to_string(), launch.span.clone());
        let process = Self {
            state: State::Unreaped { child, registered },
            group,
            group_is_gone: false,
            descendants: Descendants::default(),
            stderr,
        };
        Ok((process, pipes))
    }

    /// Returns the bytes in RAM of the child and its group.
    #[must_use]
    pub fn memory(&self) -> u64 {
        memory::of_group(self.pid())
    }

    fn signal(&mut self, signal: Signal) {
        if self.group_is_gone {
            return;
        }
        if matches!(self.state, State::Unreaped { .. }) {
            self.descendants.find(self.group);
            // It may have joined another group, which is not signalled: that may be the shim's.
            if getpgid(Some(self.group)) != Ok(self.group) {
                let _ = kill_process(self.group, signal);
            }
        }
        // An error means that the group has no process left.
        let _ = kill_process_group(self.group, signal);
        self.descendants.signal(signal);
    }
}

impl Child for Process {
    type Stdin = Stdin;
    type Stdout = Stdout;

    fn pid(&self) -> i32 {
        self.group.as_raw_pid()
    }

    fn begin_call(&self, span: Span, id: u64, sharing: Sharing) {
        self.stderr.begin_call(span, id, sharing);
    }

    async fn wait(&mut self) -> Exit {
        let child = match &mut self.state {
            State::Unreaped { child, .. } => child,
            State::Reaped(exit) => return *exit,
        };
        let exit = match child.wait().await {
            Ok(status) => Exit::Status(status),
            Err(error) => {
                // The kernel knows no such child: it was reaped elsewhere.
                tracing::error!(pid = self.pid(), %error, "cannot wait for a child process");
                Exit::Stuck
            }
        };
        self.state = State::Reaped(exit);
        exit
    }

    fn terminate(&mut self) {
        self.signal(Signal::TERM);
    }

    fn kill_group(&mut self) {
        self.signal(Signal::KILL);
        if matches!(self.state, State::Reaped(_)) {
            self.group_is_gone = true;
            self.descendants = Descendants::default();
        }
    }

    fn last_lines(&self, call: Option<u64>) -> LastLines {
        self.stderr.last(call)
    }

    async fn read_stderr_to_end(&mut self) {
        // One that is stuck in the kernel holds its pipe.
        let exited = matches!(self.state, State::Reaped(_));
        self.stderr.read_to_end(if exited { DRAIN_TIMEOUT } else { Duration::ZERO }).await;
    }

    fn detach_stderr(&mut self, grace: Duration) {
        self.stderr.close_within(grace);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stderr.close_within(DRAIN_TIMEOUT);
        if matches!(self.state, State::Reaped(_)) {
            return;
        }
        self.kill_group();
        let unreaped = std::mem::replace(&mut self.state, State::Reaped(Exit::Stuck));
        // Without a runtime the shim is exiting, and the kernel's process 1 reaps the child.
        if let (State::Unreaped { mut child, registered }, Ok(runtime)) =
            (unreaped, Handle::try_current())
        {
            runtime.spawn(async move {
                let _ = child.wait().await;
                drop(registered);
            });
        }
    }
}

/// Looks the program up, once for each start: what is explained if it fails is what was started.
fn file_to_start(command: &CommandLine) -> Result<PathBuf, SpawnError> {
    let cannot =
        |why: &dyn fmt::Display| SpawnError::CannotRun(format!("cannot run {command}: {why}"));
    if reaper::killed().is_cancelled() {
        return Err(cannot(&"the shim is shutting down"));
    }
    command.resolve().map_err(|not_found| cannot(&not_found))
}

/// Reads what an exited process left in a pipe, until `into` is full.
pub(super) async fn read_rest(
    stdout: &mut (impl AsyncRead + Unpin),
    into: &mut (impl bytes::BufMut + Send),
    grace: Duration,
) -> Result<(), tokio::time::error::Elapsed> {
    timeout(grace.max(DRAIN_TIMEOUT), async {
        while matches!(stdout.read_buf(into).await, Ok(count) if count > 0) {}
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn an_exit_shows_its_status_or_the_name_of_the_signal() {
        let text = |raw| Exit::Status(ExitStatus::from_raw(raw)).to_string();
        assert_eq!(text(3 << 8), "exited with status 3");
        assert_eq!(text(15), "was killed by SIGTERM");
        assert_eq!(text(0x8b), "was killed by SIGSEGV", "with a core dump");
        assert_eq!(text(9), "was killed by SIGKILL (probably out of memory)");
        let stopped = |raw| Exit::Status(ExitStatus::from_raw(raw)).of_stopped();
        assert_eq!(stopped(9), "was killed by SIGKILL");
        assert_eq!(stopped(3 << 8), "exited with status 3");
        assert_eq!(text(40), "ended with signal: 40", "real-time signals have no names");
    }
}
