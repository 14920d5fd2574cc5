//! The shim's end of a child's stdin.

use std::future::{Future, pending};

use rustix::io::ioctl_fionread;
use tokio::io::{AsyncWrite, Interest};
use tokio::net::unix::pipe::Sender;
use tokio::process::ChildStdin;

/// Turns a child's stdin into a pipe that can be asked for what was not read.
pub(super) fn sender(stdin: ChildStdin) -> std::io::Result<Sender> {
    Sender::from_owned_fd(stdin.into_owned_fd()?)
}

/// A pipe into a child, and the number of bytes in it that no process has read.
pub trait StdinPipe: AsyncWrite + Unpin + Send + Sync {
    /// Returns the number of bytes that were written and not read. They stay in the pipe after its
    /// last reader is gone.
    fn unread(&self) -> u64;

    /// Waits until no process has the other end open. Cancel safe.
    fn closed(&self) -> impl Future<Output = ()> + Send;
}

impl StdinPipe for Sender {
    fn unread(&self) -> u64 {
        // It cannot fail on a pipe. What cannot be counted is taken for read: a call that may have
        // been read is not sent again.
        ioctl_fionread(self).unwrap_or(0)
    }

    async fn closed(&self) {
        if self.ready(Interest::ERROR).await.is_err() {
            // The runtime is shutting down.
            pending::<()>().await;
        }
    }
}
