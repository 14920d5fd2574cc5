//! Receives the one message of a request: its length is admitted before memory is taken for it.
//!
//! # Theory of operation
//! The first bytes of a message arrive without asking: the window of the connection, which its own
//! share covers. A short message is complete by then, and is admitted as a whole. Of a longer one
//! as much as [`AHEAD_BYTES`] must have come before it is admitted, so that a client that only
//! announces a length holds nothing. Then the connection's window is opened for the rest.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use h2::RecvStream;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::admission::{Memory, Share, WaitsFor};
use crate::error::RequestFault;

/// Length of what precedes a message: whether it is compressed, and its length.
pub(super) const PREFIX_BYTES: usize = 5;

/// What is received of a message before it is admitted. A connection's window is twice as long.
const AHEAD_BYTES: usize = 32 * 1024;

/// What a call needs beside its documents, their copies and its connection's share. A reply that is
/// longer takes its bytes when it is there.
const CALL_BYTES: usize = 64 * 1024;

/// What must be left of the budget beside the copies of a message, so that there is space for its
/// connection, for its reply, and for others. A message that does not leave it is refused at once.
const SPARE_BYTES: usize = 1 << 20;

/// A message may need this many times its length: as received, and for a reply of the same length
/// or for the frame to the worker, in which each quote of a document is escaped.
/// tests/shim/hostile.rs measures the peak of the resident memory, and holds it to the budget and
/// 24 MiB.
const COPIES: usize = 2;

/// The limit for the length of a message.
#[derive(Debug, Clone, Copy)]
pub(super) struct MaxBytes {
    /// The longest message.
    pub(super) message: usize,
    /// Whether calls need some of the budget. `Info` and health checks do not.
    pub(super) is_admitted: bool,
    /// Whether exec mode's limit for arguments is the reason.
    pub(super) as_arguments: bool,
}

/// A message, and the share of the memory that its call holds.
pub(super) struct Message {
    pub(super) bytes: Bytes,
    pub(super) share: Share,
}

/// The windows of a connection beyond the first bytes of each call.
#[derive(Clone, Default)]
pub(super) struct Window(pub(super) watch::Sender<usize>);

impl Window {
    /// Opens the window by this many bytes until the result is dropped.
    fn open(&self, bytes: usize) -> OpenWindow<'_> {
        self.0.send_modify(|open| *open += bytes);
        OpenWindow { bytes, window: self }
    }
}

struct OpenWindow<'a> {
    bytes: usize,
    window: &'a Window,
}

impl Drop for OpenWindow<'_> {
    fn drop(&mut self) {
        self.window.0.send_modify(|open| *open -= self.bytes);
    }
}

/// Receives a message.
pub(super) struct Receiver<'a> {
    pub(super) body: RecvStream,
    /// Bytes that the client may not send again yet.
    pub(super) unreleased: usize,
    pub(super) memory: &'a Memory,
    pub(super) window: &'a Window,
    pub(super) max: MaxBytes,
    /// The connection's own share, which covers a part of each call.
    pub(super) connection_bytes: usize,
    pub(super) deadline: Instant,
    /// The time until the deadline when the request began.
    pub(super) time: Duration,
    /// Gets the length of the message, once it is known.
    pub(super) received: &'a AtomicUsize,
}

impl Receiver<'_> {
    /// Receives the message. The caller has to [`release`](Self::release) it.
    pub(super) async fn receive(&mut self) -> Result<Message, RequestFault> {
        let (first, length) = self.begin().await?;
        self.received.store(length, Ordering::Relaxed);
        self.check(length)?;
        let total = PREFIX_BYTES + length;
        if first.len() >= total {
            self.end(first.len() - total).await?;
            let share = self.admit(length).await?;
            return Ok(Message { bytes: first.slice(PREFIX_BYTES..), share });
        }
        let ahead = total.min(AHEAD_BYTES);
        let mut buffer = BytesMut::with_capacity(ahead.max(first.len()));
        buffer.extend_from_slice(&first);
        drop(first);
        self.fill(&mut buffer, ahead, total, self.connection_bytes).await?;
        if ahead == total {
            self.end(buffer.len() - total).await?;
        }
        let share = self.admit_incomplete(length, buffer.len() < total).await?;
        if buffer.len() < total {
            self.release();
            buffer.reserve(total - buffer.len());
            let window = self.window;
            let _open = window.open(total - buffer.len());
            let bytes = self.connection_bytes + share.bytes();
            self.fill(&mut buffer, total, total, bytes).await?;
            self.end(buffer.len() - total).await?;
        }
        buffer.advance(PREFIX_BYTES);
        Ok(Message { bytes: buffer.freeze(), share })
    }

    /// Reads the beginning of the body, and the length of the message in it.
    async fn begin(&mut self) -> Result<(Bytes, usize), RequestFault> {
        let waiting = self.memory.reclaimable(self.connection_bytes, WaitsFor::Peer);
        let mut first = Bytes::new();
        while first.len() < PREFIX_BYTES {
            let chunk = tokio::select! {
                chunk = self.chunk() => chunk?,
                () = waiting.reclaimed() => return Err(RequestFault::TooSlow),
            };
            first = match chunk {
                None if first.is_empty() => return Err(RequestFault::NoMessage),
                None => return Err(RequestFault::Torn { have: first.len(), want: PREFIX_BYTES }),
                Some(chunk) if first.is_empty() => chunk,
                Some(chunk) => [first, chunk].concat().into(),
            };
        }
        match first[0] {
            0 => {}
            1 => return Err(RequestFault::Compressed),
            byte => return Err(RequestFault::BadPrefix { byte }),
        }
        let length = first.slice(1..PREFIX_BYTES).get_u32();
        Ok((first, usize::try_from(length).unwrap_or(usize::MAX)))
    }

    /// Reads until the buffer holds `until` bytes of a message of `total` bytes. `bytes` are those
    /// that others may reclaim meanwhile.
    async fn fill(
        &mut self,
        buffer: &mut BytesMut,
        until: usize,
        total: usize,
        bytes: usize,
    ) -> Result<(), RequestFault> {
        let waiting = self.memory.reclaimable(bytes, WaitsFor::Peer);
        while buffer.len() < until {
            let chunk = tokio::select! {
                chunk = self.chunk() => chunk?,
                () = waiting.reclaimed() => return Err(RequestFault::TooSlow),
            };
            let Some(chunk) = chunk else {
                return Err(RequestFault::Torn { have: buffer.len(), want: total });
            };
            if buffer.len() + chunk.len() > total {
                return Err(RequestFault::SecondMessage);
            }
            buffer.extend_from_slice(&chunk);
            waiting.progress(chunk.len());
            drop(chunk);
            if until > AHEAD_BYTES {
                self.release();
            }
        }
        Ok(())
    }

    /// Waits for the end of the request, which has `surplus` bytes after its message.
    async fn end(&mut self, surplus: usize) -> Result<(), RequestFault> {
        if surplus > 0 {
            return Err(RequestFault::SecondMessage);
        }
        if self.body.is_end_stream() {
            return Ok(());
        }
        let waiting = self.memory.reclaimable(self.connection_bytes, WaitsFor::Peer);
        tokio::select! {
            chunk = self.chunk() => match chunk? {
                None => Ok(()),
                Some(_) => Err(RequestFault::SecondMessage),
            },
            () = waiting.reclaimed() => Err(RequestFault::TooSlow),
        }
    }

    /// Takes the memory that a call with a message of this length may need, when its turn has come.
    async fn admit(&self, length: usize) -> Result<Share, RequestFault> {
        if !self.max.is_admitted {
            return Ok(self.memory.empty());
        }
        let bytes = length * COPIES + CALL_BYTES;
        timeout_at(self.deadline, self.memory.take(bytes))
            .await
            .map_err(|_| RequestFault::NoMemory { bytes: length, budget: self.memory.limit() })
    }

    async fn admit_incomplete(
        &self,
        length: usize,
        incomplete: bool,
    ) -> Result<Share, RequestFault> {
        if !incomplete {
            return self.admit(length).await;
        }
        let waiting = self.memory.reclaimable(self.connection_bytes, WaitsFor::Turn);
        let share = tokio::select! {
            share = self.admit(length) => share?,
            () = waiting.reclaimed() => return Err(RequestFault::TooSlow),
        };
        waiting.had_its_turn();
        Ok(share)
    }

    /// Returns the next piece that is not empty, and `None` after the last one.
    async fn chunk(&mut self) -> Result<Option<Bytes>, RequestFault> {
        loop {
            let chunk = match timeout_at(self.deadline, self.body.data()).await {
                Ok(None) => return Ok(None),
                Ok(Some(Ok(chunk))) => chunk,
                Ok(Some(Err(error))) => return Err(RequestFault::ClientLeft(error.to_string())),
                Err(_) => return Err(RequestFault::NotReceived { after: self.time }),
            };
            self.unreleased += chunk.len();
            if !chunk.is_empty() {
                return Ok(Some(chunk));
            }
        }
    }

    /// Lets the client send as much again as was received.
    pub(super) fn release(&mut self) {
        // An error means that the stream is closed.
        let _ = self.body.flow_control().release_capacity(std::mem::take(&mut self.unreleased));
    }

    /// Refuses a message that can never be admitted.
    fn check(&self, bytes: usize) -> Result<(), RequestFault> {
        let MaxBytes { message: max, is_admitted, as_arguments } = self.max;
        let budget = self.memory.limit();
        match bytes.saturating_mul(COPIES).saturating_add(SPARE_BYTES) {
            _ if bytes > max && as_arguments => {
                Err(RequestFault::TooLargeForArguments { bytes, max })
            }
            _ if bytes > max => Err(RequestFault::TooLarge { bytes, max }),
            needed if is_admitted && needed > budget => {
                Err(RequestFault::OverBudget { bytes, budget })
            }
            _ => Ok(()),
        }
    }
}
