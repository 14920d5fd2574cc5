//! Stderr that never blocks the caller.
//!
//! # Theory of operation
//! Lines are batched for a few milliseconds and written together: each write wakes the log's
//! reader, which takes CPU from the call. The thread that logs writes a batch itself if the kernel
//! accepts it without blocking. If it does not, because the reader stalls or because the file is of
//! a kind that may block, batches wait in a bounded queue, and a thread that is started then writes
//! them. What does not fit is dropped and counted.
//!
//! tracing-appender is not used because it hands each line to a thread that spins before it sleeps:
//! five or six `sched_yield` for each call, on a CPU that the hook needs.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io::{self, IoSlice, Write as _};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::io::{Errno, ReadWriteFlags, pwritev2};
use tokio::sync::Notify;
use tokio::time::sleep;

/// Maximum number of lines that wait for the thread; further ones are dropped.
const MAX_WAITING_LINES: usize = 512;

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
    /// Whether the thread is writing.
    writing: bool,
    has_thread: bool,
    /// Whether each write to the file may block.
    may_block: bool,
    /// Dropped lines that no later line has reported.
    dropped: u64,
}

/// Lines that are written together.
#[derive(Default)]
struct Batch {
    text: Vec<u8>,
    lines: usize,
    /// Number of dropped lines that these lines report.
    reports_dropped: u64,
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
        let is_busy = |state: &mut State| state.writing || !state.waiting.is_empty();
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
        if self.waiting.is_empty() && !self.writing && !self.may_block {
            match write_without_blocking(&self.batch.text) {
                Ok(written) if written == self.batch.text.len() => return self.batch.clear(),
                Ok(written) => drop(self.batch.text.drain(..written)),
                Err(Errno::AGAIN | Errno::INTR) => {}
                // Files, FIFOs, terminals and the pipes of older kernels do not support it.
                Err(_) => self.may_block = true,
            }
        }
        let batch = std::mem::take(&mut self.batch);
        let fits = self.waiting_lines + batch.lines <= MAX_WAITING_LINES;
        if fits && self.start_thread(shared) {
            self.waiting_lines += batch.lines;
            self.waiting.push_back(batch);
            shared.changed.notify_all();
        } else {
            self.drop_lines(&batch);
        }
    }

    fn drop_lines(&mut self, batch: &Batch) {
        self.dropped += batch.lines as u64 + batch.reports_dropped;
    }

    /// Starts the thread unless it runs. Returns whether it does.
    fn start_thread(&mut self, shared: &Arc<Shared>) -> bool {
        if !self.has_thread {
            let shared = Arc::clone(shared);
            let named = thread::Builder::new().name("log".to_owned());
            self.has_thread = named.spawn(move || shared.write_all()).is_ok();
        }
        self.has_thread
    }
}

impl Batch {
    /// Empties it, and keeps its memory for the next lines.
    fn clear(&mut self) {
        self.text.clear();
        (self.lines, self.reports_dropped) = (0, 0);
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
            let Some(batch) = state.waiting.pop_front() else {
                self.changed.notify_all();
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            state.waiting_lines -= batch.lines;
            state.writing = true;
            drop(state);
            let written = io::stderr().write_all(&batch.text);
            state = self.lock();
            state.writing = false;
            if written.is_err() {
                state.drop_lines(&batch);
            }
        }
    }
}

fn write_without_blocking(text: &[u8]) -> Result<usize, Errno> {
    pwritev2(io::stderr(), &[IoSlice::new(text)], CURRENT_OFFSET, ReadWriteFlags::NOWAIT)
}
