//! The two pipes of a worker, seen from here: bytes to frames to messages, and bytes to what the pipe
//! takes.

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::codec::Decoder;

use super::process::{Stdin, Stdout};
use crate::frame::{FrameDecoder, FrameError, Item, Stray};
use crate::rpc::{Incoming, MessageReader};

/// How much is read from a pipe at once when no frame says how much there is.
const READ_BYTES: usize = 16 * 1024;

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
pub(super) struct Output {
    stdout: Stdout,
    buffer: BytesMut,
    decoder: FrameDecoder,
    reader: MessageReader,
}

impl Output {
    /// Starts the count of stray bytes anew: the limit is one call's.
    pub(super) fn begin_call(&mut self) {
        self.decoder.reset_stray_count();
    }

    pub(super) fn new(stdout: Stdout) -> Self {
        let (buffer, decoder) = (BytesMut::new(), FrameDecoder::default());
        Self { stdout, buffer, decoder, reader: MessageReader::default() }
    }

    /// The next message. May be dropped and called again: everything read so far is kept here.
    pub(super) async fn next(&mut self) -> Result<Heard, FrameError> {
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
                        self.buffer.reserve(READ_BYTES);
                    }
                    item = if self.stdout.read_buf(&mut self.buffer).await? > 0 {
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

/// Writes what the pipe takes. Waits for ever if there is nothing to write or nowhere to.
pub(super) async fn write_some(
    stdin: Option<&mut Stdin>,
    outbox: &mut impl Buf,
) -> std::io::Result<usize> {
    match stdin {
        Some(stdin) if outbox.has_remaining() => match stdin.write_buf(outbox).await {
            Ok(0) => Err(std::io::ErrorKind::WriteZero.into()),
            written => written,
        },
        _ => std::future::pending().await,
    }
}
