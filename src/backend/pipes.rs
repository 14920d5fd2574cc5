//! The pipes of a worker: its stdout, read as messages, and its stdin, written without blocking.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Poll, ready};

use bytes::{Buf, BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio_util::codec::Decoder;
use tokio_util::io::poll_write_buf;

use super::process::{StdinPipe, Stdout};
use crate::admission::{Memory, Share};
use crate::frame::{FrameDecoder, FrameError, Item, SendBuffer, Stray};
use crate::rpc::{Incoming, MessageReader};

/// Bytes that one system call reads from a pipe or writes to it: a quarter of the pipe's capacity.
/// If each call filled or emptied the pipe, both sides would sleep in turn.
const STEP_BYTES: usize = 16 * 1024;

/// What a message may hold without asking.
const FREE_BYTES: usize = 64 * 1024;

/// What was read from a worker's stdout.
pub enum OutputEvent {
    /// A message, its attachments included.
    Message(Incoming),
    /// Bytes between frames. A run is reported as soon as it has a line, because no frame may ever
    /// follow, and again at its end if it has grown.
    Stray(Stray),
    /// A frame that is not a message; says why.
    Malformed(String),
}

/// A worker's stdout, and what has been read but not parsed.
pub struct Output<R = Stdout> {
    stdout: R,
    buffer: BytesMut,
    decoder: FrameDecoder,
    reader: MessageReader,
    /// Stray bytes since the last message, without the decoder's current run.
    stray: Stray,
    /// Length of the current run when it was reported.
    reported: usize,
    /// What frames may hold without asking: the shares of the calls in flight cover it.
    covered: usize,
    /// Length of the frames of the message that is being received.
    frames: usize,
    /// Taken for that message.
    receiving: Share,
    /// Taken for the message that was returned last.
    returned: Share,
    /// Length of the last frame.
    frame_bytes: usize,
}

impl<R: AsyncRead + Unpin> Output<R> {
    /// Resets the count of stray bytes: the limit is for one call.
    pub fn begin_call(&mut self) {
        self.decoder.reset_stray_count();
    }

    /// Returns the length of the last frame.
    pub(super) fn frame_bytes(&self) -> usize {
        self.frame_bytes
    }

    /// What is received is taken from `memory` first.
    pub fn new(stdout: R, memory: &Memory) -> Self {
        Self {
            covered: 0,
            frames: 0,
            receiving: memory.empty(),
            returned: memory.empty(),
            stdout,
            buffer: BytesMut::new(),
            decoder: FrameDecoder::default(),
            reader: MessageReader::default(),
            stray: Stray::default(),
            reported: 0,
            frame_bytes: 0,
        }
    }

    /// Returns the stray bytes since the last message.
    pub fn stray(&self) -> Stray {
        let mut stray = self.stray.clone();
        stray.absorb(self.decoder.run());
        stray
    }

    /// Describes what was read since the last message and is none: stray bytes, half a frame, or a
    /// message without its attachments.
    pub fn unfinished(&self) -> Option<String> {
        let stray = self.stray();
        if !stray.is_empty() {
            return Some(format!("{stray}: {}", stray.advice()));
        }
        let half = self.decoder.half_frame(&self.buffer);
        let without = || "a message without its attachments".to_owned();
        half.or_else(|| self.reader.in_message().then(without))
    }

    /// Notes the end of a run. Returns it unless it was reported already.
    fn end_run(&mut self, run: Stray) -> Option<Stray> {
        self.stray.absorb(&run);
        let reported = std::mem::take(&mut self.reported);
        (run.bytes > reported).then_some(run)
    }

    /// Returns the current run as soon as it has a line.
    fn begin_run(&mut self) -> Option<Stray> {
        let run = self.decoder.run();
        if self.reported > 0 || !run.has_line() {
            return None;
        }
        self.reported = run.bytes;
        Some(run.clone())
    }

    /// Sets what a message may hold without asking, beside a little: the documents of the calls in
    /// flight are as long, and their shares cover a reply of the same length.
    pub fn set_covered(&mut self, bytes: usize) {
        self.covered = bytes;
    }

    /// Takes the memory for a frame of which only the beginning has come.
    async fn admit(&mut self, frame: usize) -> Result<(), FrameError> {
        let needed = (self.frames + frame).saturating_sub(FREE_BYTES + self.covered);
        let budget = self.receiving.limit();
        if needed > budget {
            return Err(FrameError::OverBudget { bytes: frame, budget });
        }
        self.receiving.grow(needed.saturating_sub(self.receiving.bytes())).await;
        self.frames += frame;
        self.buffer.reserve(frame - self.buffer.len());
        Ok(())
    }

    /// Returns the next event. Cancel safe: what was read stays in the buffer.
    pub async fn next(&mut self) -> Result<OutputEvent, FrameError> {
        self.returned.shrink_to(0);
        let mut item = self.decoder.decode(&mut self.buffer)?;
        loop {
            match item {
                Some(Item::Stray(run)) => match self.end_run(run) {
                    Some(run) => return Ok(OutputEvent::Stray(run)),
                    None => item = self.decoder.decode(&mut self.buffer)?,
                },
                Some(Item::Frame(frame)) => {
                    self.frame_bytes = frame.len();
                    match self.reader.take(frame) {
                        Ok(Some(message)) => {
                            self.stray = Stray::default();
                            self.frames = 0;
                            std::mem::swap(&mut self.returned, &mut self.receiving);
                            return Ok(OutputEvent::Message(message));
                        }
                        Ok(None) => item = self.decoder.decode(&mut self.buffer)?,
                        Err(fault) => return Ok(OutputEvent::Malformed(fault.to_string())),
                    }
                }
                None => {
                    if let Some(run) = self.begin_run() {
                        return Ok(OutputEvent::Stray(run));
                    }
                    if let Some(frame) = self.decoder.announced(&self.buffer)
                        && self.buffer.capacity() < frame
                    {
                        self.admit(frame).await?;
                    }
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

/// A worker's stdin, and the messages on their way into it. A position is a number of bytes since
/// the first message.
pub(super) struct Input<W> {
    /// `None` once the shim has closed it, or the worker has.
    stdin: Option<W>,
    send_buffer: SendBuffer,
    end: u64,
}

/// What happened to a worker's stdin.
pub(super) enum InputEvent {
    /// Everything is in the pipe.
    Flushed,
    /// No process can read from it any more.
    Closed,
}

impl<W: StdinPipe> Input<W> {
    pub(super) fn new(stdin: Option<W>) -> Self {
        Self { stdin, send_buffer: SendBuffer::default(), end: 0 }
    }

    /// Appends a message. Must not be called once it is closed.
    pub(super) fn push<T>(&mut self, send: impl FnOnce(&mut SendBuffer) -> T) -> T {
        let before = self.send_buffer.remaining();
        let result = send(&mut self.send_buffer);
        self.end += (self.send_buffer.remaining() - before) as u64;
        result
    }

    /// Waits until the messages are in the pipe; if they are, until no process can read them. Waits
    /// forever once it is closed. Cancel safe.
    pub(super) async fn next(&mut self) -> InputEvent {
        if self.is_flushed() {
            self.closed().await;
            return InputEvent::Closed;
        }
        match write_all(self.stdin.as_mut(), &mut self.send_buffer).await {
            Ok(()) => InputEvent::Flushed,
            Err(_) => InputEvent::Closed,
        }
    }

    /// Waits until no process can read from it. Waits forever once it is closed.
    pub(super) async fn closed(&self) {
        match &self.stdin {
            Some(stdin) => stdin.closed().await,
            None => std::future::pending().await,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.stdin.is_some()
    }

    /// Whether nothing waits to be written.
    pub(super) fn is_flushed(&self) -> bool {
        !self.send_buffer.has_remaining()
    }

    /// The position at which the next message begins.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// The position up to which the worker has read. The end, once it is closed: what then is in
    /// the pipe cannot be known.
    pub(super) fn read(&self) -> u64 {
        let unread = self.stdin.as_ref().map_or(0, StdinPipe::unread);
        self.end - unread - self.send_buffer.remaining() as u64
    }

    /// Closes it. Drops what was not written.
    pub(super) fn close(&mut self) {
        self.stdin = None;
        self.send_buffer = SendBuffer::default();
    }
}

/// Writes until `send_buffer` is empty. Waits forever if it is empty already, or without a stdin.
/// Cancel safe: what was written is removed from `send_buffer`.
pub async fn write_all(
    stdin: Option<&mut (impl AsyncWrite + Unpin)>,
    send_buffer: &mut impl Buf,
) -> io::Result<()> {
    let Some(stdin) = stdin.filter(|_| send_buffer.has_remaining()) else {
        return std::future::pending().await;
    };
    poll_fn(|context| {
        while send_buffer.has_remaining() {
            let mut step = (&mut *send_buffer).take(STEP_BYTES);
            if ready!(poll_write_buf(Pin::new(&mut *stdin), context, &mut step))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
        }
        Poll::Ready(Ok(()))
    })
    .await
}
