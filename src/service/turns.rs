//! A connection's socket, read in turns: after each piece of a certain length, other tasks run.
//!
//! The HTTP/2 library reads as long as the client sends, and keeps what it has read until the
//! call's task runs. A client that sends without pause would fill the memory in a single turn.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;

/// Bytes that are read in one turn: about half of what a socket's buffer holds.
const TURN_BYTES: usize = 96 * 1024;

/// A socket that is read in turns.
pub(super) struct Turns {
    stream: UnixStream,
    /// Bytes that may still be read in this turn.
    left: usize,
}

impl Turns {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self { stream, left: TURN_BYTES }
    }
}

impl AsyncRead for Turns {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left == 0 {
            self.left = TURN_BYTES;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.left = match polled {
            Poll::Ready(_) => self.left.saturating_sub(buffer.filled().len() - before),
            // The socket is empty: the task ends its turn by itself.
            Poll::Pending => TURN_BYTES,
        };
        polled
    }
}

impl AsyncWrite for Turns {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
