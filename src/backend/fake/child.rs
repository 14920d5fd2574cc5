//! The shim's side of a child: how it exits, what it is sent, and its pipes.

use std::os::unix::process::ExitStatusExt;
use std::pin::Pin;
use std::process::ExitStatus;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::sync::Notify;
use tracing::Span;

use super::Counts;
use super::stderr::FakeStderr;
use crate::backend::process::stderr::Stderr;
use crate::backend::process::{Child, DRAIN_TIMEOUT, Exit, Sharing, StdinPipe};
use crate::error::LastLines;

/// What the shim has written to the stdin of a child.
pub(in crate::backend) struct StdinRecord(pub(super) Arc<Shared>);

impl StdinRecord {
    /// Calls a function with all that was written, and with how much of it the child has read.
    pub(in crate::backend) fn with<T>(&self, look: impl FnOnce(&[u8], usize) -> T) -> T {
        let state = self.0.state();
        look(&state.input, state.read)
    }
}

/// What both sides of a child share.
pub(super) struct Shared {
    pub(super) pid: i32,
    pub(super) state: Mutex<State>,
    /// Notified when the state has changed. Unlike a `watch`, it wakes those who wait in the order
    /// in which they came, so that a test's course depends on nothing else.
    pub(super) changed: Notify,
    pub(super) stderr: FakeStderr,
    pub(super) counts: Arc<Counts>,
}

#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a thing that can happen to a process")]
pub(super) struct State {
    pub(super) exit: Option<Exit>,
    pub(super) terminated: bool,
    pub(super) killed: bool,
    pub(super) ignores_sigterm: bool,
    /// As if it were stuck in the kernel.
    pub(super) ignores_sigkill: bool,
    /// The shim's next use of the child panics.
    pub(super) panics: bool,
    /// Another process holds the pipe.
    pub(super) stdout_is_held: Option<Holder>,
    /// All that the shim has written to its stdin.
    pub(super) input: Vec<u8>,
    /// How much of that it has read.
    pub(super) read: usize,
    pub(super) stdin_is_closed: bool,
    /// Another process can read from it.
    pub(super) stdin_is_held: bool,
}

impl State {
    pub(super) fn has_stdin(&self) -> bool {
        self.stdin_is_held || !self.stdin_is_closed && self.exit.is_none()
    }
}

/// A process that holds the stdout of a child that has exited.
#[derive(Clone, Copy, PartialEq)]
pub(in crate::backend) enum Holder {
    /// It is in the child's group, so SIGKILL reaches it.
    InGroup,
    OutsideGroup,
}

/// The shim's side of a child.
pub(in crate::backend) struct FakeChild {
    pub(super) shared: Arc<Shared>,
    pub(super) stderr: Arc<Stderr<FakeStderr>>,
}

impl Child for FakeChild {
    type Stdin = FakeStdin;
    type Stdout = FakeStdout;

    fn pid(&self) -> i32 {
        self.shared.pid
    }

    fn begin_call(&self, span: Span, id: u64, sharing: Sharing) {
        let panics = self.shared.state().panics;
        assert!(!panics, "the test asked for this panic");
        self.stderr.begin_call(span, id, sharing);
    }

    async fn wait(&mut self) -> Exit {
        self.shared.until(|state| state.exit.is_some()).await;
        self.shared.state().exit.unwrap()
    }

    fn terminate(&mut self) {
        let ignores = self.shared.change(|state| {
            state.terminated = true;
            state.ignores_sigterm
        });
        if !ignores {
            self.shared.exit(killed_by(15));
        }
    }

    fn kill_group(&mut self) {
        self.shared.kill();
    }

    fn last_lines(&self, call: Option<u64>) -> LastLines {
        self.stderr.last(call)
    }

    async fn read_stderr_to_end(&mut self) {
        let exited = self.shared.state().exit.is_some();
        self.stderr.read_to_end(if exited { DRAIN_TIMEOUT } else { Duration::ZERO }).await;
    }

    fn detach_stderr(&mut self, grace: Duration) {
        self.stderr.close_within(grace);
    }
}

impl Drop for FakeChild {
    fn drop(&mut self) {
        self.stderr.close_within(DRAIN_TIMEOUT);
        self.shared.kill();
        self.shared.counts.alive.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shared {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state());
        self.changed.notify_waiters();
        result
    }

    /// Waits until the state is like this. Cancel safe.
    pub(super) async fn until(&self, is: impl Fn(&State) -> bool) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if is(&self.state()) {
                return;
            }
            changed.await;
        }
    }

    pub(super) fn kill(&self) {
        let ignores = self.change(|state| {
            state.killed = true;
            state.ignores_sigkill
        });
        if !ignores {
            self.exit(killed_by(9));
        }
    }

    pub(super) fn exit(&self, exit: Exit) {
        self.stderr.close();
        self.change(|state| {
            state.exit.get_or_insert(exit);
        });
    }
}

pub(super) fn killed_by(signal: i32) -> Exit {
    Exit::Status(ExitStatus::from_raw(signal))
}

/// The pipe that the shim reads. A child that was killed has closed its end.
pub(in crate::backend) struct FakeStdout {
    pub(super) pipe: DuplexStream,
    pub(super) shared: Arc<Shared>,
}

impl AsyncRead for FakeStdout {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let read = Pin::new(&mut self.pipe).poll_read(context, buffer);
        let state = self.shared.state();
        let is_held = match state.stdout_is_held {
            Some(Holder::InGroup) => !state.killed,
            Some(Holder::OutsideGroup) => true,
            None => false,
        };
        if read.is_pending() && state.exit.is_some() && !is_held {
            return Poll::Ready(Ok(()));
        }
        Poll::Ready(ready!(read))
    }
}

/// The pipe that the shim writes to. As in a real one, what was not read stays there when the
/// reader is gone.
pub(in crate::backend) struct FakeStdin {
    pub(super) pipe: DuplexStream,
    pub(super) shared: Arc<Shared>,
}

impl StdinPipe for FakeStdin {
    fn unread(&self) -> u64 {
        let state = self.shared.state();
        (state.input.len() - state.read) as u64
    }

    async fn closed(&self) {
        self.shared.until(|state| !state.has_stdin()).await;
    }
}

impl AsyncWrite for FakeStdin {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        if !self.shared.state().has_stdin() {
            return Poll::Ready(Err(std::io::ErrorKind::BrokenPipe.into()));
        }
        let written = ready!(Pin::new(&mut self.pipe).poll_write(context, bytes))?;
        self.shared.change(|state| state.input.extend_from_slice(&bytes[..written]));
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
