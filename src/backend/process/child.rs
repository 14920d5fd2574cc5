//! What exec mode and workers need of a child process. Tests use a fake in place of [`Process`].

use std::future::Future;
use std::time::Duration;

use tokio::io::AsyncRead;
use tokio::time::timeout;
use tracing::Span;

use super::{Exit, KILL_LIMIT, Launch, Process, SpawnError, StdinPipe};
use crate::error::LastLines;

/// Starts children.
pub(in crate::backend) trait Spawn: Clone + Send + Sync + 'static {
    type Child: Child;

    fn spawn(&self, launch: &Launch<'_>) -> Result<(Self::Child, Pipes<Self::Child>), SpawnError>;
}

/// Starts [`Process`]es.
#[derive(Clone, Copy)]
pub(in crate::backend) struct Spawner;

impl Spawn for Spawner {
    type Child = Process;

    fn spawn(&self, launch: &Launch<'_>) -> Result<(Process, Pipes), SpawnError> {
        Process::spawn(launch)
    }
}

/// The pipes of a child, seen from the shim.
pub struct Pipes<C: Child = Process> {
    /// Where the child reads, if it has a stdin.
    pub stdin: Option<C::Stdin>,
    /// What it writes.
    pub stdout: C::Stdout,
}

/// Whether a call shares its child with other calls. Then lines of stderr cannot be attributed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// The child runs one call at a time.
    Never,
    /// It runs several, and this call is alone until the next one is sent.
    NotYet,
    /// It has other calls.
    Now,
}

/// A child process and its group. Dropped before it was reaped, it is killed and reaped in the
/// background.
pub trait Child: Send + Sync + 'static {
    type Stdin: StdinPipe;
    type Stdout: AsyncRead + Unpin + Send + Sync;

    /// Returns the process id, which is also its group's.
    fn pid(&self) -> i32;

    /// Attributes what the child writes to stderr from now on to a call that is about to be sent.
    /// What it wrote before belongs to another VM's call.
    fn begin_call(&self, span: Span, id: u64, sharing: Sharing);

    /// Waits for the exit, and reaps. Cancel safe.
    fn wait(&mut self) -> impl Future<Output = Exit> + Send;

    /// Sends SIGTERM to the child, its group, and those of its descendants that have left it.
    fn terminate(&mut self);

    /// Sends SIGKILL to what remains of the child, its group, and those of its descendants that
    /// have left it. After the child has been reaped the group id may be reused, so nothing is
    /// signalled again.
    fn kill_group(&mut self);

    /// Returns the last lines of stderr so far that may appear in the error of this call. Without
    /// a call, those of a child that was sent none: a program, or a worker that starts.
    fn last_lines(&self, call: Option<u64>) -> LastLines;

    /// Reads what is left in the stderr of a child that has exited.
    fn read_stderr_to_end(&mut self) -> impl Future<Output = ()> + Send;

    /// Goes on reading stderr in the background, for `grace`.
    fn detach_stderr(&mut self, grace: Duration);

    /// Waits for the exit for at most `limit`.
    fn wait_for(&mut self, limit: Duration) -> impl Future<Output = Option<Exit>> + Send {
        async move { timeout(limit, self.wait()).await.ok() }
    }

    /// Stops the group and reaps the child: SIGTERM, `grace`, SIGKILL.
    fn stop(&mut self, grace: Duration) -> impl Future<Output = Exit> + Send {
        async move {
            self.terminate();
            if let Some(exit) = self.wait_for(grace).await {
                self.kill_group();
                return exit;
            }
            self.kill().await
        }
    }

    /// Kills the group and reaps the child.
    fn kill(&mut self) -> impl Future<Output = Exit> + Send {
        async move {
            self.kill_group();
            self.wait_for(KILL_LIMIT).await.unwrap_or(Exit::Stuck)
        }
    }
}
