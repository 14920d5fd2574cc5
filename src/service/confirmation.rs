//! A connection's socket, on which the confirmation of the client's settings is sent together with
//! what is written next.
//!
//! # Theory of operation
//! Each packet wakes the client, which takes as long as all other work on a small call: about 8 %
//! of a call with a connection of its own. No client waits for the confirmation, which is ready
//! before the response. So it is held for a short time, in which most responses are written.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// The frame that confirms the client's settings (RFC 9113, section 6.5): its length is 0, its type
/// 4, its flags are 1, its stream is 0.
const CONFIRMATION: &[u8] = &[0, 0, 0, 4, 1, 0, 0, 0, 0];

/// How long it is held at most. Clients that wait for it do so for seconds.
const HOLD_TIME: Duration = Duration::from_millis(5);

/// What may be written together with it in one step: the head of a response, and its message.
const SLICES: usize = 8;

/// A socket that holds the confirmation.
pub(super) struct Confirming<S> {
    socket: S,
    held: Option<Held>,
}

struct Held {
    /// What is not sent yet of the confirmation.
    rest: &'static [u8],
    until: Pin<Box<Sleep>>,
}

impl<S: AsyncWrite + Unpin> Confirming<S> {
    pub(super) fn new(socket: S) -> Self {
        Self { socket, held: None }
    }

    /// Sends what is held, if its time is over.
    fn poll_time(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if let Some(held) = &mut self.held
            && held.until.as_mut().poll(context).is_ready()
            && let Poll::Ready(Err(error)) = self.poll_send(context, &[])
        {
            return Err(error);
        }
        Ok(())
    }

    /// Sends what is held and the slices, and returns how many bytes of these were sent.
    fn poll_send(
        &mut self,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        while let Some(held) = &mut self.held {
            let mut all = [IoSlice::new(&[]); SLICES];
            let count = slices.len().min(SLICES - 1);
            all[0] = IoSlice::new(held.rest);
            all[1..=count].copy_from_slice(&slices[..count]);
            let socket = Pin::new(&mut self.socket);
            let sent = ready!(socket.poll_write_vectored(context, &all[..=count]))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            match sent.checked_sub(held.rest.len()) {
                None => held.rest = &held.rest[sent..],
                Some(behind) => {
                    self.held = None;
                    if behind > 0 || slices.is_empty() {
                        return Poll::Ready(Ok(behind));
                    }
                }
            }
        }
        Pin::new(&mut self.socket).poll_write_vectored(context, slices)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Confirming<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // The connection's task reads whenever it is woken.
        self.poll_time(context)?;
        Pin::new(&mut self.socket).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Confirming<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [slice] = slices
            && **slice == *CONFIRMATION
            && self.held.is_none()
        {
            self.held = Some(Held { rest: CONFIRMATION, until: Box::pin(sleep(HOLD_TIME)) });
            return Poll::Ready(Ok(CONFIRMATION.len()));
        }
        self.poll_send(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    /// Does not send what is held.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.held.is_some() {
            ready!(self.poll_send(context, &[]))?;
        }
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::net::UnixStream as Client;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
    use tokio::net::UnixStream;
    use tokio::time::Instant;

    use super::*;

    fn connected() -> (Confirming<UnixStream>, Client) {
        let (server, client) = UnixStream::pair().unwrap();
        (Confirming::new(server), client.into_std().unwrap())
    }

    async fn send(socket: &mut Confirming<UnixStream>, bytes: &[u8]) {
        socket.write_all(bytes).await.unwrap();
        socket.flush().await.unwrap();
    }

    /// What the client finds in its socket.
    fn received(client: &mut Client) -> Vec<u8> {
        let mut buffer = [0; 1024];
        match client.read(&mut buffer) {
            Ok(length) => buffer[..length].to_vec(),
            Err(error) => error.kind().to_string().into_bytes(),
        }
    }

    const NOTHING: &[u8] = b"operation would block";

    #[tokio::test]
    async fn the_confirmation_is_sent_with_the_next_write() {
        let (mut socket, mut client) = connected();
        send(&mut socket, b"settings").await;
        assert_eq!(received(&mut client), b"settings");
        send(&mut socket, CONFIRMATION).await;
        assert_eq!(received(&mut client), NOTHING);
        send(&mut socket, b"response").await;
        assert_eq!(received(&mut client), [CONFIRMATION, b"response"].concat());
        send(&mut socket, b"more").await;
        assert_eq!(received(&mut client), b"more");
    }

    #[tokio::test]
    async fn slices_stay_in_order_whether_or_not_they_fit() {
        for count in [1, SLICES - 1, SLICES, 3 * SLICES] {
            let (mut socket, mut client) = connected();
            send(&mut socket, CONFIRMATION).await;
            let bytes: Vec<u8> = (0..).take(count).collect();
            let mut slices: Vec<_> = bytes.chunks(1).map(IoSlice::new).collect();
            let mut slices = &mut slices[..];
            while !slices.is_empty() {
                let sent = socket.write_vectored(slices).await.unwrap();
                assert!(sent > 0);
                IoSlice::advance_slices(&mut slices, sent);
            }
            assert_eq!(received(&mut client), [CONFIRMATION, &bytes].concat());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_confirmation_is_sent_after_its_time() {
        let (mut socket, mut client) = connected();
        send(&mut socket, CONFIRMATION).await;
        let started = Instant::now();
        let mut buffer = [0];
        let read = tokio::time::timeout(Duration::from_secs(60), socket.read(&mut buffer)).await;
        assert!(read.is_err(), "the client sends nothing");
        assert_eq!(started.elapsed().as_secs(), 60);
        assert_eq!(received(&mut client), CONFIRMATION);
    }

    #[tokio::test]
    async fn the_confirmation_is_sent_before_the_end() {
        let (mut socket, mut client) = connected();
        send(&mut socket, CONFIRMATION).await;
        socket.shutdown().await.unwrap();
        assert_eq!(received(&mut client), CONFIRMATION);
    }

    #[tokio::test]
    async fn a_socket_that_takes_a_byte_at_a_time_gets_all() {
        let (server, mut client): (_, DuplexStream) = duplex(1);
        let mut socket = Confirming::new(server);
        let writing = async {
            socket.write_all(CONFIRMATION).await.unwrap();
            socket.write_all(b"response").await.unwrap();
            socket.shutdown().await.unwrap();
        };
        let mut all = Vec::new();
        let (read, ()) = tokio::join!(client.read_to_end(&mut all), writing);
        assert_eq!(read.unwrap(), 17);
        assert_eq!(all, [CONFIRMATION, b"response"].concat());
    }
}
