//! Stderr that never blocks the caller.
//!
//! # Theory of operation
//! Lines are batched for a few milliseconds and written together: each write wakes the log's
//! reader, which takes CPU from the call. The thread that logs writes a batch itself if the kernel
//! accepts it without blocking. If it does not, because the reader stalls or because the file is of
//! a kind that may block, batches wait in a queue that is bounded in lines and bytes, and a thread
//! that is started then writes them. What does not fit is dropped and counted.
//!
//! No line is torn. A batch that was written in part stays first in the queue, and the thread
//! writes the rest, however long that takes. If the rest is lost, because the disk is full, the
//! next line still begins on a new one.
//!
//! tracing-appender is not used because it hands each line to a thread that spins before it sleeps:
//! five or six `sched_yield` for each call, on a CPU that the hook needs.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::io::{Errno, ReadWriteFlags, pwritev2};
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::stdio;

/// Maximum number of lines that wait for the thread; further ones are dropped.
const MAX_WAITING_LINES: usize = 512;

/// Maximum number of bytes that wait for the thread: 512 lines of 2 KiB. A stalled reader must cost
/// the shim little of its 64 MB.
const MAX_WAITING_BYTES: usize = 1024 * 1024;

/// Maximum size of a batch; a larger one is written at once. A pipe's buffer is four times as
/// large.
const MAX_BATCH_LINES: usize = 32;
const MAX_BATCH_BYTES: usize = 16 * 1024;

/// Time for which lines are batched.
const BATCH_TIME: Duration = Duration::from_millis(5);

/// Timeout for the reader to take the last lines when the program ends.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The offset with which `pwritev2` writes at a file's current position, as for pipes.
const CURRENT_OFFSET: u64 = u64::MAX;

thread_local! {
    /// Whether this thread's lines are batched.
    static BATCHING: Cell<bool> = const { Cell::new(false) };
}

/// Stderr, shared by all that log.
#[derive(Clone, Default)]
pub(super) struct Stderr(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Batches have come for the thread, or all are written.
    changed: Condvar,
    /// Notified of the first line of a batch.
    batch_started: Notify,
}

#[derive(Default)]
struct State {
    batch: Batch,
    /// Batches for the thread. The first may begin inside a line.
    waiting: VecDeque<Batch>,
    waiting_lines: usize,
    waiting_bytes: usize,
    thread: ThreadState,
    /// Whether each write to the file may block.
    may_block: bool,
    /// Dropped lines that no later line has reported.
    dropped: u64,
    /// Whether what was written ends inside a line whose rest is lost.
    torn: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum ThreadState {
    #[default]
    NotStarted,
    Waiting,
    Writing,
}

/// Lines that are written together.
#[derive(Default)]
struct Batch {
    text: Vec<u8>,
    lines: usize,
    /// Number of dropped lines that these lines report.
    reports_dropped: u64,
    /// Whether it begins inside a line, of which the beginning was written.
    inside_line: bool,
}

impl Stderr {
    /// Batches the lines of this thread from now on, and writes them. Never returns.
    pub(super) async fn batch(self) {
        BATCHING.set(true);
        loop {
            self.0.batch_started.notified().await;
            sleep(BATCH_TIME).await;
            self.flush();
        }
    }

    /// Returns the number of dropped lines that no later line has reported.
    pub(super) fn dropped(&self) -> u64 {
        self.0.lock().dropped
    }

    /// Writes a line that reports `reports_dropped` dropped ones, with its batch unless it is
    /// urgent.
    pub(super) fn write(&self, line: &[u8], reports_dropped: u64, urgent: bool) {
        let mut state = self.0.lock();
        state.dropped = state.dropped.saturating_sub(reports_dropped);
        let batch = &mut state.batch;
        batch.text.extend_from_slice(line);
        batch.lines += 1;
        batch.reports_dropped += reports_dropped;
        let is_full = batch.lines >= MAX_BATCH_LINES || batch.text.len() >= MAX_BATCH_BYTES;
        if is_full || urgent || !BATCHING.get() {
            state.flush(&self.0);
        } else if state.batch.lines == 1 {
            self.0.batch_started.notify_one();
        }
    }

    /// Writes the batch, or leaves that to the thread.
    pub(super) fn flush(&self) {
        self.0.lock().flush(&self.0);
    }

    /// Waits until everything is written, for at most [`FLUSH_TIMEOUT`].
    pub(super) fn finish(&self) {
        self.flush();
        let is_busy =
            |state: &mut State| state.thread == ThreadState::Writing || !state.waiting.is_empty();
        let waited = self.0.changed.wait_timeout_while(self.0.lock(), FLUSH_TIMEOUT, is_busy);
        drop(waited);
    }
}

impl State {
    fn flush(&mut self, shared: &Arc<Shared>) {
        if self.batch.lines == 0 {
            return;
        }
        // Lines keep their order.
        let is_writing = self.thread == ThreadState::Writing;
        if self.waiting.is_empty() && !is_writing && !self.may_block && !self.torn {
            match write_without_blocking(&self.batch.text) {
                Ok(written) if written == self.batch.text.len() => return self.batch.clear(),
                Ok(written) => self.batch.remove(written),
                Err(Errno::AGAIN | Errno::INTR) => {}
                // Files, FIFOs, terminals and the pipes of older kernels do not support it.
                Err(_) => self.may_block = true,
            }
        }
        let batch = std::mem::take(&mut self.batch);
        let fits = self.waiting_lines + batch.lines <= MAX_WAITING_LINES
            && self.waiting_bytes + batch.text.len() <= MAX_WAITING_BYTES;
        if fits && self.start_thread(shared) {
            self.waiting_lines += batch.lines;
            self.waiting_bytes += batch.text.len();
            self.waiting.push_back(batch);
            shared.changed.notify_all();
        } else {
            self.drop_lines(&batch);
        }
    }

    /// Counts what is left of a batch as lost.
    fn drop_lines(&mut self, batch: &Batch) {
        self.torn |= batch.inside_line;
        self.dropped += batch.lines as u64 + batch.reports_dropped;
    }

    /// Starts the thread unless it runs. Returns whether it does.
    fn start_thread(&mut self, shared: &Arc<Shared>) -> bool {
        if self.thread == ThreadState::NotStarted {
            let shared = Arc::clone(shared);
            let named = thread::Builder::new().name("log".to_owned());
            if named.spawn(move || shared.write_all()).is_err() {
                return false;
            }
            self.thread = ThreadState::Waiting;
        }
        true
    }
}

impl Batch {
    /// Empties it, and keeps its memory for the next lines.
    fn clear(&mut self) {
        self.text.clear();
        (self.lines, self.reports_dropped, self.inside_line) = (0, 0, false);
    }

    /// Removes the bytes that were written.
    fn remove(&mut self, written: usize) {
        let Some(last) = written.checked_sub(1) else { return };
        self.inside_line = self.text[last] != b'\n';
        self.text.drain(..written);
        self.lines = memchr::memchr_iter(b'\n', &self.text).count();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes batches as they come. Runs in the thread.
    fn write_all(&self) {
        let mut state = self.lock();
        loop {
            let Some(mut batch) = state.waiting.pop_front() else {
                self.changed.notify_all();
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            state.waiting_lines -= batch.lines;
            state.waiting_bytes -= batch.text.len();
            state.thread = ThreadState::Writing;
            let torn = state.torn;
            drop(state);
            let torn = write_batch(io::stderr(), &mut batch, torn);
            state = self.lock();
            state.thread = ThreadState::Waiting;
            state.torn = torn;
            if !batch.text.is_empty() {
                state.drop_lines(&batch);
            }
        }
    }
}

/// Writes a batch, on a new line if the last one is `torn`. What cannot be written is left in the
/// batch. Returns whether the last line is torn still.
fn write_batch(stderr: impl AsFd, batch: &mut Batch, torn: bool) -> bool {
    if torn && stdio::write_all(&stderr, &mut &b"\n"[..]).is_err() {
        return true;
    }
    let mut rest = &batch.text[..];
    // What is left says whether it failed.
    let _ = stdio::write_all(stderr, &mut rest);
    let written = batch.text.len() - rest.len();
    batch.remove(written);
    false
}

fn write_without_blocking(text: &[u8]) -> Result<usize, Errno> {
    pwritev2(io::stderr(), &[IoSlice::new(text)], CURRENT_OFFSET, ReadWriteFlags::NOWAIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stderr whose reader has stalled, so that all lines wait.
    fn stalled() -> Stderr {
        let stderr = Stderr::default();
        let mut state = stderr.0.lock();
        (state.may_block, state.thread) = (true, ThreadState::Waiting);
        drop(state);
        stderr
    }

    #[test]
    fn waiting_lines_are_bounded_in_number_and_in_bytes() {
        for (line, most) in [(2, MAX_WAITING_LINES), (50_000, MAX_WAITING_BYTES / 50_000)] {
            let stderr = stalled();
            let text = [&vec![b'x'; line - 1][..], b"\n"].concat();
            for _ in 0..10_000 {
                stderr.write(&text, 0, true);
            }
            let state = stderr.0.lock();
            let bytes: usize = state.waiting.iter().map(|batch| batch.text.len()).sum();
            let lines: usize = state.waiting.iter().map(|batch| batch.lines).sum();
            assert_eq!((lines, bytes), (most, most * line));
            assert_eq!((state.waiting_lines, state.waiting_bytes), (lines, bytes));
            assert_eq!(state.dropped, 10_000 - most as u64);
        }
    }

    #[test]
    fn a_batch_that_was_written_in_part_keeps_count_of_the_rest() {
        let batch = |written| {
            let text = b"one\ntwo\nthree\n".to_vec();
            let mut batch = Batch { text, lines: 3, ..Batch::default() };
            batch.remove(written);
            (String::from_utf8(batch.text).unwrap(), batch.lines, batch.inside_line)
        };
        assert_eq!(batch(0), ("one\ntwo\nthree\n".to_owned(), 3, false));
        assert_eq!(batch(4), ("two\nthree\n".to_owned(), 2, false));
        assert_eq!(batch(6), ("o\nthree\n".to_owned(), 2, true));
        assert_eq!(batch(14), (String::new(), 0, false));
    }

    #[test]
    fn after_a_line_whose_rest_is_lost_the_next_begins_on_its_own() {
        let batch =
            |inside_line| Batch { text: b"line\n".to_vec(), inside_line, ..Batch::default() };
        let (reader, gone) = io::pipe().unwrap();
        drop(reader);
        for (torn, inside_line) in [(true, false), (false, true)] {
            let mut state = State::default();
            let mut lost = batch(inside_line);
            state.torn = write_batch(&gone, &mut lost, torn);
            state.drop_lines(&lost);
            assert!(state.torn);
        }
        let (mut reader, writer) = io::pipe().unwrap();
        for torn in [true, false] {
            let mut written = batch(false);
            assert!(!write_batch(&writer, &mut written, torn));
            assert!(written.text.is_empty());
        }
        drop(writer);
        assert_eq!(io::read_to_string(&mut reader).unwrap(), "\nline\nline\n");
    }
}
