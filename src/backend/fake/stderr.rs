//! The stderr of a fake child.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, ReadBuf};

use super::super::process::stderr::Pipe;

/// As much as Linux's pipes hold: a burst that a child writes at once.
const PIPE_BYTES: usize = 64 * 1024;

/// The stderr of a child, which the child fills as fast as it likes.
#[derive(Clone, Default)]
pub(super) struct FakeStderr(Arc<Mutex<StderrState>>);

#[derive(Default)]
struct StderrState {
    bytes: VecDeque<u8>,
    is_closed: bool,
    reader: Option<Waker>,
}

impl FakeStderr {
    /// Panics if the child would wait for space in its pipe.
    pub(super) fn write(&self, text: &str) {
        let mut state = self.0.lock().unwrap();
        state.bytes.extend(text.as_bytes());
        assert!(state.bytes.len() <= PIPE_BYTES, "the test writes more than the pipe holds");
        if let Some(reader) = state.reader.take() {
            reader.wake();
        }
    }

    /// Whether a short line fits.
    pub(super) fn has_space(&self) -> bool {
        self.len() + 100 < PIPE_BYTES
    }

    pub(super) fn close(&self) {
        let mut state = self.0.lock().unwrap();
        state.is_closed = true;
        if let Some(reader) = state.reader.take() {
            reader.wake();
        }
    }
}

impl Pipe for FakeStderr {
    fn len(&self) -> usize {
        self.0.lock().unwrap().bytes.len()
    }

    fn read_now(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut state = self.0.lock().unwrap();
        if state.bytes.is_empty() && !state.is_closed {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        io::Read::read(&mut state.bytes, into)
    }
}

impl AsyncRead for FakeStderr {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Ok(count) = self.read_now(buffer.initialize_unfilled()) else {
            self.0.lock().unwrap().reader = Some(context.waker().clone());
            return Poll::Pending;
        };
        buffer.advance(count);
        Poll::Ready(Ok(()))
    }
}
