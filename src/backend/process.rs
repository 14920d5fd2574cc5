//! One child process, from spawn to reaping: what exec mode and workers share.
//!
//! # Theory of operation
//! Every child leads a process group of its own, so that what it started itself can be
//! signalled with it. [`Process::spawn`] hands out the pipes of standard input and output;
//! standard error is drained here, by a task that logs each line and keeps the last ones for
//! the text of an error. A child is ended by [`Process::stop`]: SIGTERM to the group, a grace,
//! SIGKILL to the group, reaped. A `Process` that is dropped before it was reaped is killed
//! with its group at once and reaped by the runtime, so no path can leave one behind.
//!
//! End-of-file of a pipe is never waited for without a limit: a grandchild may hold it open.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "this is the one place that starts and signals processes"
)]

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, SysconfVar, sysconf};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::hook::HookName;

/// The environment variable that tells a program to speak the worker protocol.
pub(super) const PROTOCOL_VARIABLE: &str = "KUBEVIRT_HOOK_PROTOCOL";

/// A longer line of standard error is cut here. Under 16 KiB, so that the log's line, with its
/// own fields, stays below what container runtimes split.
const MAX_LINE_BYTES: usize = 8 * 1024;

/// How many lines of standard error are kept for an error's text.
const KEPT_LINES: usize = 20;

/// How much of each line is kept; 20 of them are five times what a gRPC status message holds.
const KEPT_LINE_BYTES: usize = 1024;

/// How long output is awaited that a dead process has left in a pipe. It is there already, so
/// this is only reached when a process outside the group holds the pipe open.
const DRAIN_LIMIT: Duration = Duration::from_millis(500);

/// How long a process may take to die of SIGKILL. Only one that is stuck in the kernel does.
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// A program and its fixed arguments.
#[derive(Clone, PartialEq, Eq)]
pub struct CommandLine {
    program: OsString,
    args: Vec<OsString>,
}

impl CommandLine {
    /// From words, the first of which is the program. `None` if there are none.
    #[must_use]
    pub fn from_words(words: impl IntoIterator<Item = OsString>) -> Option<Self> {
        let mut words = words.into_iter();
        let program = words.next()?;
        Some(Self { program, args: words.collect() })
    }

    /// The file that would be run.
    fn resolve(&self) -> Option<PathBuf> {
        if Path::new(&self.program).components().count() > 1 {
            return Some(PathBuf::from(&self.program));
        }
        find_in_path(&self.program).ok()
    }
}

impl fmt::Display for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = std::iter::once(&self.program).chain(&self.args);
        for (index, word) in words.enumerate() {
            let word = word.to_string_lossy();
            let quoted = shlex::try_quote(&word).unwrap_or(std::borrow::Cow::Borrowed("?"));
            write!(f, "{}{quoted}", if index == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

impl fmt::Debug for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why no program of some name was found in `$PATH`.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotFound {
    /// There is no file of that name.
    #[error("there is no program of that name in $PATH")]
    Absent,
    /// There is a file, and it may not be executed.
    #[error("{} is not executable (chmod +x, or defaultMode: 0755 for a ConfigMap)", .0.display())]
    NotExecutable(PathBuf),
}

/// Looks a program up in `$PATH`, as a shell does.
pub(super) fn find_in_path(name: &OsStr) -> Result<PathBuf, NotFound> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut unusable = None;
    for directory in std::env::split_paths(&path).filter(|directory| directory.is_absolute()) {
        let candidate = directory.join(name);
        match std::fs::metadata(&candidate) {
            Ok(found) if found.is_file() && found.permissions().mode() & 0o111 != 0 => {
                return Ok(candidate);
            }
            Ok(found) if found.is_file() => unusable = unusable.or(Some(candidate)),
            _ => {}
        }
    }
    Err(unusable.map_or(NotFound::Absent, NotFound::NotExecutable))
}

/// Why a program could not be started, in words that name the cause.
#[derive(Debug, thiserror::Error)]
pub(super) enum SpawnError {
    /// An argument is longer than the kernel takes.
    #[error("{0}")]
    ArgumentTooLong(String),
    /// The program cannot be run.
    #[error("{0}")]
    CannotRun(String),
}

/// What a child is started for and with.
pub(super) struct Launch<'a> {
    /// The program and its fixed arguments.
    pub(super) command: &'a CommandLine,
    /// More arguments. They may be documents: none of them is ever shown.
    pub(super) documents: &'a [(&'static str, &'a [u8])],
    /// The value of [`PROTOCOL_VARIABLE`], or none for an argv-style program.
    pub(super) protocol: Option<&'static str>,
    /// Whether it gets a standard input to read from.
    pub(super) stdin: bool,
    /// The hook that it runs, if it runs but one: log lines name it.
    pub(super) hook: Option<&'a HookName>,
}

/// A child's standard input, seen from here: the end that is written.
pub(super) type Stdin = ChildStdin;

/// A child's standard output, seen from here: the end that is read.
pub(super) type Stdout = ChildStdout;

/// The pipes of a child that was started.
pub(super) struct Pipes {
    /// Where it reads, if it was given a standard input.
    pub(super) stdin: Option<Stdin>,
    /// What it writes.
    pub(super) stdout: Stdout,
}

/// How a child ended.
#[derive(Debug, Clone, Copy)]
pub(super) enum Exit {
    /// It was reaped.
    Status(ExitStatus),
    /// It does not even die of SIGKILL; the runtime goes on waiting for it.
    Stuck,
}

impl Exit {
    /// Whether it exited with status 0.
    #[must_use]
    pub(super) fn success(self) -> bool {
        matches!(self, Self::Status(status) if status.success())
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Status(status) = self else {
            return f.write_str("did not die of SIGKILL");
        };
        if let Some(code) = status.code() {
            return write!(f, "exited with status {code}");
        }
        match status.signal().map(Signal::try_from) {
            Some(Ok(Signal::SIGKILL)) => {
                f.write_str("was killed by SIGKILL (out of memory, if nobody sent it)")
            }
            Some(Ok(signal)) => write!(f, "was killed by {signal}"),
            _ => write!(f, "ended with {status}"),
        }
    }
}

/// A child that has not been reaped yet, or has been: then it cannot be signalled any more.
pub(super) struct Process {
    child: Child,
    group: Pid,
    reaped: Option<Exit>,
    stderr: Arc<Stderr>,
    drain: Option<JoinHandle<()>>,
}

impl Process {
    /// Starts a child as the leader of a new process group.
    pub(super) fn spawn(launch: &Launch<'_>) -> Result<(Self, Pipes), SpawnError> {
        let command_line = launch.command;
        let mut command = Command::new(&command_line.program);
        command.args(&command_line.args);
        for (flag, document) in launch.documents {
            command.arg(flag).arg(<OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(document));
        }
        match launch.protocol {
            Some(version) => command.env(PROTOCOL_VARIABLE, version),
            None => command.env_remove(PROTOCOL_VARIABLE),
        };
        command
            .stdin(if launch.stdin { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| explain(launch, &error))?;
        let (Some(pid), Some(stdout), Some(stderr)) =
            (child.id(), child.stdout.take(), child.stderr.take())
        else {
            let what = format!("{command_line} has no process id or no pipes");
            return Err(SpawnError::CannotRun(what));
        };
        let pipes = Pipes { stdin: child.stdin.take(), stdout };
        let shared = Arc::new(Stderr::default());
        if let Some(hook) = launch.hook {
            shared.note_call(hook, None);
        }
        let drain = tokio::spawn(drain(stderr, shared.clone(), pid));
        let process = Self {
            child,
            group: Pid::from_raw(i32::try_from(pid).unwrap_or(i32::MAX)),
            reaped: None,
            stderr: shared,
            drain: Some(drain),
        };
        Ok((process, pipes))
    }

    /// The process id, which is also its group's.
    #[must_use]
    pub(super) fn pid(&self) -> i32 {
        self.group.as_raw()
    }

    /// Names the call that lines of standard error belong to from now on.
    pub(super) fn note_call(&self, hook: &HookName, id: u64) {
        self.stderr.note_call(hook, Some(id));
    }

    /// Waits for the end and reaps. May be dropped and called again.
    pub(super) async fn wait(&mut self) -> Exit {
        if let Some(exit) = self.reaped {
            return exit;
        }
        let exit = match self.child.wait().await {
            Ok(status) => Exit::Status(status),
            Err(error) => {
                // The kernel knows no such child: someone else reaped it.
                tracing::error!(pid = self.pid(), %error, "cannot wait for a child process");
                Exit::Stuck
            }
        };
        self.reaped = Some(exit);
        exit
    }

    /// Waits for the end for at most `limit`.
    pub(super) async fn wait_for(&mut self, limit: Duration) -> Option<Exit> {
        timeout(limit, self.wait()).await.ok()
    }

    /// Ends the child and its group: SIGTERM, `grace`, SIGKILL, reaped.
    pub(super) async fn stop(&mut self, grace: Duration) -> Exit {
        self.signal(Signal::SIGTERM);
        if let Some(exit) = self.wait_for(grace).await {
            self.kill_group();
            return exit;
        }
        self.kill().await
    }

    /// Ends the child and its group with SIGKILL, and reaps it.
    pub(super) async fn kill(&mut self) -> Exit {
        self.kill_group();
        match self.wait_for(KILL_LIMIT).await {
            Some(exit) => exit,
            None => Exit::Stuck,
        }
    }

    /// Ends what is left of the group, whether or not its leader is.
    pub(super) fn kill_group(&self) {
        self.signal(Signal::SIGKILL);
    }

    /// The last lines of standard error so far.
    #[must_use]
    pub(super) fn stderr_so_far(&self) -> Vec<String> {
        self.stderr.lines()
    }

    /// The last lines of standard error, after what is still in the pipe was read.
    pub(super) async fn stderr_at_end(&mut self) -> Vec<String> {
        if let Some(mut drain) = self.drain.take()
            && timeout(DRAIN_LIMIT, &mut drain).await.is_err()
        {
            drain.abort();
        }
        self.stderr.lines()
    }

    fn signal(&self, signal: Signal) {
        // A group whose last member is gone is no error: that is what was wanted.
        let _ = killpg(self.group, signal);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.reaped.is_none() {
            self.kill_group();
        }
    }
}

/// Reads what an ended process has left in a pipe, up to `limit` bytes.
pub(super) async fn read_rest(
    stdout: &mut Stdout,
    into: &mut (impl bytes::BufMut + Send),
    grace: Duration,
) -> Result<(), tokio::time::error::Elapsed> {
    timeout(grace.max(DRAIN_LIMIT), async {
        while matches!(stdout.read_buf(into).await, Ok(count) if count > 0) {}
    })
    .await
}

/// What a child's standard error has said.
#[derive(Default)]
struct Stderr {
    kept: Mutex<VecDeque<String>>,
    call: Mutex<(Option<HookName>, Option<u64>)>,
}

impl Stderr {
    fn note_call(&self, hook: &HookName, id: Option<u64>) {
        *self.call.lock().unwrap_or_else(PoisonError::into_inner) = (Some(hook.clone()), id);
    }

    fn keep(&self, line: &str) {
        let mut end = line.len().min(KEPT_LINE_BYTES);
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == KEPT_LINES {
            kept.pop_front();
        }
        kept.push_back(line[..end].to_owned());
    }

    fn lines(&self) -> Vec<String> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().cloned().collect()
    }
}

/// Reads standard error to its end, whatever stands in it, so that a child never blocks on it.
async fn drain(mut pipe: ChildStderr, shared: Arc<Stderr>, pid: u32) {
    let mut chunk = vec![0; MAX_LINE_BYTES];
    let mut line = Vec::new();
    let mut cut = 0;
    loop {
        let count = pipe.read(&mut chunk).await.unwrap_or(0);
        for &byte in &chunk[..count] {
            if byte == b'\n' {
                report(&shared, pid, &mut line, &mut cut);
            } else if line.len() < MAX_LINE_BYTES {
                line.push(byte);
            } else {
                cut += 1;
            }
        }
        if count == 0 {
            break;
        }
    }
    if !line.is_empty() {
        report(&shared, pid, &mut line, &mut cut);
    }
}

fn report(shared: &Stderr, pid: u32, line: &mut Vec<u8>, cut: &mut usize) {
    let mut text = String::from_utf8_lossy(line).trim_end().to_owned();
    if *cut > 0 {
        text = format!("{text} [{cut} more bytes]");
    }
    let (hook, call) = shared.call.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let hook = hook.as_ref().map(HookName::as_str);
    tracing::info!(target: "hook", hook, pid, call, "{text}");
    shared.keep(&text);
    line.clear();
    *cut = 0;
}

/// Says why a program could not be started: the bare error number names none of the causes.
fn explain(launch: &Launch<'_>, error: &std::io::Error) -> SpawnError {
    let command = launch.command;
    let cannot = |why: String| SpawnError::CannotRun(format!("cannot run {command}: {why}"));
    match error.raw_os_error() {
        Some(nix::libc::E2BIG) => SpawnError::ArgumentTooLong(explain_too_long(launch)),
        Some(nix::libc::ENOENT) => match command.resolve().map(|path| (first_line(&path), path)) {
            Some((Ok(line), path)) if line.starts_with("#!") => {
                let hint =
                    if line.ends_with('\r') { ": the line ends in a carriage return" } else { "" };
                let line = line.trim_end();
                cannot(format!(
                    "the interpreter in the first line of {}, `{line}`, does not exist{hint}",
                    path.display()
                ))
            }
            Some((Ok(_), path)) => {
                cannot(format!("the dynamic loader of {} does not exist here", path.display()))
            }
            Some((Err(error), path)) => cannot(format!("{}: {error}", path.display())),
            None => cannot(match find_in_path(&command.program) {
                Err(not_found) => not_found.to_string(),
                Ok(_) => error.to_string(),
            }),
        },
        Some(nix::libc::EACCES) => {
            let path = command.resolve().unwrap_or_else(|| PathBuf::from(&command.program));
            let what = match first_line(&path) {
                Ok(line) if line.starts_with("#!") => {
                    format!("it or its interpreter, `{}`, is not executable", line.trim_end())
                }
                _ => "it is not executable".to_owned(),
            };
            cannot(format!(
                "{}: {what} (chmod +x, or defaultMode: 0755 for a ConfigMap; or the file system \
                 is mounted noexec)",
                path.display()
            ))
        }
        Some(nix::libc::ENOEXEC) => cannot(
            "it is neither a program for this machine nor a script that begins with `#!`"
                .to_owned(),
        ),
        _ => cannot(error.to_string()),
    }
}

fn explain_too_long(launch: &Launch<'_>) -> String {
    // Linux takes 32 pages for one argument, its terminating NUL included.
    let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten().unwrap_or(4096);
    let limit = usize::try_from(page).unwrap_or(4096) * 32 - 1;
    let longest = launch.documents.iter().max_by_key(|(_, document)| document.len());
    let Some((flag, document)) = longest.filter(|(_, document)| document.len() > limit) else {
        return "the arguments and the environment together are longer than the kernel takes; \
                --mode persistent has no such limit"
            .to_owned();
    };
    format!(
        "the argument {flag} is {} bytes long and Linux takes at most {limit} bytes for one \
         argument; --mode persistent has no such limit",
        document.len()
    )
}

/// The first line of a file, as far as the kernel itself looks.
fn first_line(path: &Path) -> std::io::Result<String> {
    let mut start = Vec::new();
    std::fs::File::open(path)?.take(255).read_to_end(&mut start)?;
    let line = start.split(|&byte| byte == b'\n').next().unwrap_or_default();
    Ok(String::from_utf8_lossy(line).into_owned())
}
