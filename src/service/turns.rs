//! A connection's socket, read in turns: after a piece of a certain length, or some time, other
//! tasks run.
//!
//! The HTTP/2 library reads as long as the client sends, and keeps what it has read until the
//! call's task runs. A client that sends without pause would fill the memory in a single turn. And
//! small frames take far more time than large ones of the same length: thousands of them in each
//! turn would keep the calls of others waiting.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf, Take};
use tokio::net::UnixStream;
use tokio::time::Instant;

/// Bytes that are read in one turn: about half of what a socket's buffer holds.
const TURN_BYTES: usize = 96 * 1024;

/// Time after which a turn ends with its next read. A whole turn of a document's frames takes less.
const TURN_TIME: Duration = Duration::from_micros(200);

/// Bytes that are read at once, of which all frames are handled before the next look at the time:
/// a frame of KubeVirt's.
const READ_BYTES: usize = 16 * 1024;

/// A socket that is read in turns.
pub(super) struct Turns {
    stream: Take<UnixStream>,
    /// Bytes that may still be read in this turn.
    left: usize,
    /// When this turn began, once something was read.
    began: Option<Instant>,
}

impl Turns {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self { stream: stream.take(0), left: TURN_BYTES, began: None }
    }

    fn is_over(&self) -> bool {
        self.left == 0 || self.began.is_some_and(|began| began.elapsed() >= TURN_TIME)
    }
}

impl AsyncRead for Turns {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_over() {
            (self.left, self.began) = (TURN_BYTES, None);
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.stream.set_limit(READ_BYTES as u64);
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        let read = buffer.filled().len() - before;
        if polled.is_ready() {
            self.left = self.left.saturating_sub(read);
            self.began.get_or_insert_with(Instant::now);
        } else {
            // The socket is empty: the task ends its turn by itself.
            (self.left, self.began) = (TURN_BYTES, None);
        }
        polled
    }
}

impl AsyncWrite for Turns {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(self.stream.get_mut()).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(self.stream.get_mut()).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.get_ref().is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.stream.get_mut()).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.stream.get_mut()).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncWriteExt;
    use tokio::time::advance;

    use super::*;

    /// Reads once, into a buffer of this length. Returns the bytes read, or `None` if the turn is
    /// over.
    async fn read(turns: &mut Turns, length: usize) -> Option<usize> {
        let mut space = vec![0; length];
        let mut buffer = ReadBuf::new(&mut space);
        poll_fn(|context| {
            let polled = Pin::new(&mut *turns).poll_read(context, &mut buffer);
            Poll::Ready(polled.is_ready())
        })
        .await
        .then(|| buffer.filled().len())
    }

    /// A socket from which this many bytes can be read.
    async fn sent(bytes: usize) -> (UnixStream, Turns) {
        let (mut client, server) = UnixStream::pair().unwrap();
        client.write_all(&vec![7; bytes]).await.unwrap();
        server.readable().await.unwrap();
        (client, Turns::new(server))
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_ends_after_its_bytes_and_the_next_one_begins() {
        let (_client, mut turns) = sent(TURN_BYTES + 5).await;
        for _ in 0..TURN_BYTES / READ_BYTES {
            assert_eq!(read(&mut turns, 2 * READ_BYTES).await, Some(READ_BYTES));
        }
        assert_eq!(read(&mut turns, 100).await, None);
        assert_eq!(read(&mut turns, 100).await, Some(5));
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_ends_after_its_time_and_the_next_one_begins() {
        let (_client, mut turns) = sent(100).await;
        for _ in 0..3 {
            // The time until something is read is not the turn's.
            advance(TURN_TIME).await;
            assert_eq!(read(&mut turns, 1).await, Some(1));
            advance(TURN_TIME / 2).await;
            assert_eq!(read(&mut turns, 1).await, Some(1));
            advance(TURN_TIME / 2).await;
            assert_eq!(read(&mut turns, 1).await, None);
        }
    }
}
