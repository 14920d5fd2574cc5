//! The two pipes of a worker, seen from here: bytes to frames to messages, and bytes to what the pipe
//! takes.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Poll, ready};

use bytes::{Buf, BufMut, BytesMut};
use tokio::io::AsyncReadExt;
use tokio_util::codec::Decoder;
use tokio_util::io::poll_write_buf;

use super::process::{Stdin, Stdout};
use crate::frame::{FrameDecoder, FrameError, Item, Stray};
use crate::rpc::{Incoming, MessageReader};

/// How much is read from a pipe, or written to it, with one system call: a quarter of what it holds.
/// With all of it at once, the other side would sleep until this one is done, and then this one until
/// the other is.
const STEP_BYTES: usize = 16 * 1024;

/// What was read of a worker's output.
pub enum Heard {
    /// A message.
    Message(Incoming),
    /// Text between frames.
    Stray(Stray),
    /// A frame that holds no message, in words.
    Malformed(String),
}

/// A worker's standard output, and what has been read of it so far.
pub struct Output {
    stdout: Stdout,
    buffer: BytesMut,
    decoder: FrameDecoder,
    reader: MessageReader,
}

impl Output {
    /// Starts the count of stray bytes anew: the limit is one call's.
    pub fn begin_call(&mut self) {
        self.decoder.reset_stray_count();
    }

    pub fn new(stdout: Stdout) -> Self {
        let (buffer, decoder) = (BytesMut::new(), FrameDecoder::default());
        Self { stdout, buffer, decoder, reader: MessageReader::default() }
    }

    /// The next message. May be dropped and called again: everything read so far is kept here.
    pub async fn next(&mut self) -> Result<Heard, FrameError> {
        let mut item = self.decoder.decode(&mut self.buffer)?;
        loop {
            match item {
                Some(Item::Stray(stray)) => return Ok(Heard::Stray(stray)),
                Some(Item::Frame(frame)) => match self.reader.take(frame) {
                    Ok(Some(message)) => return Ok(Heard::Message(message)),
                    Ok(None) => item = self.decoder.decode(&mut self.buffer)?,
                    Err(fault) => return Ok(Heard::Malformed(fault.to_string())),
                },
                None => {
                    // Inside a frame there is room for the rest of it.
                    if self.buffer.is_empty() || self.buffer.capacity() == self.buffer.len() {
                        self.buffer.reserve(STEP_BYTES);
                    }
                    let mut step = (&mut self.buffer).limit(STEP_BYTES);
                    item = if self.stdout.read_buf(&mut step).await? > 0 {
                        self.decoder.decode(&mut self.buffer)?
                    } else {
                        match self.decoder.decode_eof(&mut self.buffer)? {
                            None if self.reader.in_message() => {
                                return Err(FrameError::MissingAttachment);
                            }
                            None => return Err(FrameError::Ended),
                            last => last,
                        }
                    };
                }
            }
        }
    }
}

/// Writes until nothing is left to write. Waits for ever if there is nothing, or nowhere to write to.
/// May be dropped and called again: what is written is gone from `outbox`.
pub async fn write_all(stdin: Option<&mut Stdin>, outbox: &mut impl Buf) -> io::Result<()> {
    let Some(stdin) = stdin.filter(|_| outbox.has_remaining()) else {
        return std::future::pending().await;
    };
    poll_fn(|context| {
        while outbox.has_remaining() {
            let mut step = (&mut *outbox).take(STEP_BYTES);
            if ready!(poll_write_buf(Pin::new(&mut *stdin), context, &mut step))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
        }
        Poll::Ready(Ok(()))
    })
    .await
}
