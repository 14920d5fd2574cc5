//! Standard error that nobody waits for.
//!
//! Lines are gathered for a moment and written together: each write wakes whoever reads the log, at
//! the cost of a call. They are written by whoever has them where the kernel takes them without
//! waiting. Where it does not, because nobody reads or because the file is of a kind that may always
//! wait, they go into a bounded queue, and a thread that is started then writes them.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io::{self, IoSlice, Write as _};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::io::{Errno, ReadWriteFlags, pwritev2};
use tokio::sync::Notify;
use tokio::time::sleep;

/// Lines that may wait to be written.
const MAX_WAITING_LINES: usize = 512;

/// What is gathered before it is written in any case. Both are far less than a pipe holds.
const MAX_GATHERED_LINES: usize = 32;
const MAX_GATHERED_BYTES: usize = 16 * 1024;

/// How long the end waits for lines that nobody has read yet.
const LAST_LINES_LIMIT: Duration = Duration::from_secs(1);

/// The offset of a file that goes on where it stands, as pipes do.
const WHERE_IT_STANDS: u64 = u64::MAX;

/// How long lines are gathered.
const GATHERING: Duration = Duration::from_millis(5);

thread_local! {
    /// Whether this thread's lines are gathered.
    static GATHERS: Cell<bool> = const { Cell::new(false) };
}

/// Lines on their way to standard error.
#[derive(Clone, Default)]
pub(super) struct Stderr(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Lines have come for the thread, or all are written.
    changed: Condvar,
    /// A first line was gathered.
    begun: Notify,
}

#[derive(Default)]
struct State {
    gathered: Lines,
    /// Lines for the thread. The first may be the rest of one.
    waiting: VecDeque<Lines>,
    waiting_lines: usize,
    /// The thread is writing.
    writing: bool,
    has_thread: bool,
    /// The file cannot be written without waiting.
    always_waits: bool,
    /// Lines that were lost, and that no line tells of.
    lost: u64,
}

/// Lines that are written together.
#[derive(Default)]
struct Lines {
    text: Vec<u8>,
    count: usize,
    /// How many lost ones they tell of.
    told: u64,
}

impl Stderr {
    /// Gathers the lines of this thread from now on, and writes them. Never returns.
    pub(super) async fn gather(self) {
        GATHERS.set(true);
        loop {
            self.0.begun.notified().await;
            sleep(GATHERING).await;
            self.flush();
        }
    }

    /// Lines that were lost, and that no line tells of.
    pub(super) fn lost(&self) -> u64 {
        self.0.lock().lost
    }

    /// Takes a line that tells of `told` lost ones. An urgent one is not held back.
    pub(super) fn write(&self, line: &[u8], told: u64, urgent: bool) {
        let mut state = self.0.lock();
        state.lost = state.lost.saturating_sub(told);
        let gathered = &mut state.gathered;
        gathered.text.extend_from_slice(line);
        gathered.count += 1;
        gathered.told += told;
        let is_much =
            gathered.count >= MAX_GATHERED_LINES || gathered.text.len() >= MAX_GATHERED_BYTES;
        if is_much || urgent || !GATHERS.get() {
            state.flush(&self.0);
        } else if state.gathered.count == 1 {
            self.0.begun.notify_one();
        }
    }

    /// Writes what was gathered, or has it written.
    pub(super) fn flush(&self) {
        self.0.lock().flush(&self.0);
    }

    /// Waits until all is written, but not for long.
    pub(super) fn finish(&self) {
        self.flush();
        let is_busy = |state: &mut State| state.writing || !state.waiting.is_empty();
        let waited = self.0.changed.wait_timeout_while(self.0.lock(), LAST_LINES_LIMIT, is_busy);
        drop(waited);
    }
}

impl State {
    fn flush(&mut self, shared: &Arc<Shared>) {
        if self.gathered.count == 0 {
            return;
        }
        // Nothing passes what waits.
        if self.waiting.is_empty() && !self.writing && !self.always_waits {
            match write_without_waiting(&self.gathered.text) {
                Ok(written) if written == self.gathered.text.len() => {
                    return self.gathered.clear();
                }
                Ok(written) => drop(self.gathered.text.drain(..written)),
                Err(Errno::AGAIN | Errno::INTR) => {}
                // Files, FIFOs and terminals cannot, nor could pipes of older kernels.
                Err(_) => self.always_waits = true,
            }
        }
        let lines = std::mem::take(&mut self.gathered);
        let has_room = self.waiting_lines + lines.count <= MAX_WAITING_LINES;
        if has_room && self.start_thread(shared) {
            self.waiting_lines += lines.count;
            self.waiting.push_back(lines);
            shared.changed.notify_all();
        } else {
            self.lose(&lines);
        }
    }

    fn lose(&mut self, lines: &Lines) {
        self.lost += lines.count as u64 + lines.told;
    }

    fn start_thread(&mut self, shared: &Arc<Shared>) -> bool {
        if !self.has_thread {
            let shared = Arc::clone(shared);
            let named = thread::Builder::new().name("log".to_owned());
            self.has_thread = named.spawn(move || shared.write_all()).is_ok();
        }
        self.has_thread
    }
}

impl Lines {
    /// Forgets them. Their memory is kept for the next.
    fn clear(&mut self) {
        self.text.clear();
        (self.count, self.told) = (0, 0);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes whatever comes.
    fn write_all(&self) {
        let mut state = self.lock();
        loop {
            let Some(lines) = state.waiting.pop_front() else {
                self.changed.notify_all();
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            state.waiting_lines -= lines.count;
            state.writing = true;
            drop(state);
            let written = io::stderr().write_all(&lines.text);
            state = self.lock();
            state.writing = false;
            if written.is_err() {
                state.lose(&lines);
            }
        }
    }
}

fn write_without_waiting(text: &[u8]) -> Result<usize, Errno> {
    pwritev2(io::stderr(), &[IoSlice::new(text)], WHERE_IT_STANDS, ReadWriteFlags::NOWAIT)
}
