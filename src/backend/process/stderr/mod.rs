//! The stderr of a child: each line is logged, the last ones are kept for the text of an error.
//!
//! # Theory of operation
//! A task reads the pipe and logs its lines, at a pace at which the log writer keeps up. A child
//! that writes faster waits for space in the pipe. So lines are read some time after they were
//! written, and the calls to which they belong must not depend on that. When a call begins, the
//! number of bytes in the pipe is noted: they belong to the calls before it (see [`lines`]).
//!
//! The text of an error needs the last lines at once. [`Stderr::last`] reads what the pipe holds,
//! without waiting, and looks through it. The task logs it later.
//!
//! The task ends at EOF, or when the [`Stderr`] is closed: another process may hold the pipe open.
//! When the shim stops, what was written so far is logged.

mod lines;

use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BufMut;
use tokio::io::AsyncRead;
use tokio::process::ChildStderr;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::io::poll_read_buf;
use tracing::{Level, Span};

use self::lines::{Line, Lines};
use super::super::flood::LogLimit;
use super::child::Sharing;
use crate::error::LastLines;
use crate::logging::{HookFields, HookLine, logs_hook_lines};

/// Bytes that one system call reads.
const STEP_BYTES: usize = 4 * 1024;

/// Maximum number of bytes that are read to look for the last lines: what a pipe holds whose child
/// has not enlarged it, twice.
const MAX_UNREAD_BYTES: usize = 128 * 1024;

/// Maximum number of bytes that are read when it is closed: the most that Linux lets a pipe hold
/// without privileges.
const MAX_BYTES_AT_CLOSE: usize = 1024 * 1024;

/// Number of lines after which the task pauses, so that other tasks have their turn, and the log
/// writer keeps up and drops no lines of an ordinary hook. Meanwhile the hook's lines wait in the
/// pipe.
const BURST_LINES: usize = 64;

/// Number of bytes that take about as much time as a line.
const LINE_BYTES: usize = 256;

/// Length of the pause: 32,000 lines per second are more than a log can be used for.
const BURST_PAUSE: Duration = Duration::from_millis(2);

/// The shim's end of a child's stderr.
pub(in crate::backend) trait Pipe: AsyncRead + Unpin + Send + 'static {
    /// Returns the number of bytes in the pipe.
    fn len(&self) -> usize;

    /// Reads what is in the pipe, whether or not the runtime has heard of it. 0 is EOF.
    fn read_now(&mut self, into: &mut [u8]) -> io::Result<usize>;
}

impl Pipe for ChildStderr {
    fn len(&self) -> usize {
        let bytes = rustix::io::ioctl_fionread(self.as_fd()).unwrap_or(0);
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    fn read_now(&mut self, into: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::retry_on_intr(|| rustix::io::read(self.as_fd(), &mut *into))?)
    }
}

/// The stderr of a child. Dropped, it is closed after what was written so far was logged.
pub(in crate::backend) struct Stderr<P: Pipe> {
    state: Mutex<State<P>>,
    /// Notified when the task has something else to wait for.
    changed: Notify,
    /// Notified at EOF.
    ended: Notify,
}

struct State<P: Pipe> {
    /// `None` after EOF, and once it is closed.
    pipe: Option<P>,
    lines: Lines,
    pid: i32,
    worker: String,
    limit: LogLimit,
    close_at: Option<Instant>,
}

impl<P: Pipe> Stderr<P> {
    /// Reads the stderr of a child from now on. All its lines are about one call, if it has a span.
    pub(in crate::backend) fn start(
        pipe: P,
        pid: i32,
        worker: String,
        span: Option<Span>,
    ) -> Arc<Self> {
        let state = State {
            pipe: Some(pipe),
            lines: Lines::of(span),
            pid,
            limit: LogLimit::new("lines of stderr", worker.clone(), pid),
            worker,
            close_at: None,
        };
        let (changed, ended) = (Notify::new(), Notify::new());
        let stderr = Arc::new(Self { state: Mutex::new(state), changed, ended });
        tokio::spawn(stderr.clone().log_all());
        stderr
    }

    /// What is written from now on belongs to a call that is about to be sent.
    pub(in crate::backend) fn begin_call(&self, span: Span, id: u64, sharing: Sharing) {
        let mut state = self.lock();
        let piped = state.pipe.as_ref().map_or(0, P::len);
        state.lines.begin_call(span, id, sharing, piped);
    }

    /// Returns the last lines so far that belong to a call, or those of a child that had none.
    pub(in crate::backend) fn last(&self, call: Option<u64>) -> LastLines {
        let mut state = self.lock();
        state.read_now(MAX_UNREAD_BYTES);
        self.changed.notify_one();
        state.lines.last(call)
    }

    /// Reads until EOF, which an exited child has left in the pipe, for at most `limit`.
    pub(in crate::backend) async fn read_to_end(&self, limit: Duration) {
        let ended = self.ended.notified();
        self.lock().read_now(MAX_BYTES_AT_CLOSE);
        if self.lock().pipe.is_some() {
            // Another process holds the pipe.
            let _ = timeout(limit, ended).await;
        }
        let mut state = self.lock();
        state.close();
        if logs_hook_lines(Level::INFO) {
            // Mostly that is all, and stands in the log before what becomes of the child.
            state.log_lines(BURST_LINES);
        } else {
            // Nothing is left that is logged later.
            state.log_rest();
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Goes on reading for at most `limit`.
    pub(in crate::backend) fn close_within(&self, limit: Duration) {
        self.lock().close_at.get_or_insert(Instant::now() + limit);
        self.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State<P>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Logs all lines until EOF.
    async fn log_all(self: Arc<Self>) {
        let mut burst = 0;
        loop {
            let wake = self.lock().next_wake();
            tokio::select! {
                () = std::future::poll_fn(|context| self.lock().poll_fill(context)) => {}
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
                () = self.changed.notified() => {}
            }
            {
                let mut state = self.lock();
                state.on_time(Instant::now());
                burst += state.log_lines(BURST_LINES - burst);
                if state.pipe.is_none() {
                    self.ended.notify_waiters();
                    if state.lines.unread().is_empty() {
                        return state.log_rest();
                    }
                }
            }
            if burst >= BURST_LINES {
                burst = 0;
                sleep(BURST_PAUSE).await;
            }
        }
    }
}

impl<P: Pipe> State<P> {
    /// Reads from the pipe, unless something was read that is not logged yet. Ready also at EOF.
    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let unread = self.lines.unread();
        let Some(pipe) = self.pipe.as_mut().filter(|_| unread.is_empty()) else {
            return Poll::Ready(());
        };
        unread.reserve(STEP_BYTES);
        let mut step = unread.limit(STEP_BYTES);
        let read = ready!(poll_read_buf(Pin::new(pipe), context, &mut step));
        if !matches!(read, Ok(count) if count > 0) {
            self.pipe = None;
        }
        Poll::Ready(())
    }

    /// Reads what the pipe holds, without waiting, until `max` bytes are not logged.
    fn read_now(&mut self, max: usize) {
        let Some(pipe) = &mut self.pipe else { return };
        let mut left = pipe.len();
        let mut step = [0; STEP_BYTES];
        loop {
            if self.lines.unread().len() >= max {
                return;
            }
            match pipe.read_now(&mut step) {
                Ok(0) => break,
                Ok(count) => {
                    self.lines.unread().extend_from_slice(&step[..count]);
                    // A child that does not stop writing is read no further.
                    left = left.saturating_sub(count);
                    if left == 0 && pipe.len() > 0 {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => break,
            }
        }
        self.pipe = None;
    }

    fn close(&mut self) {
        self.read_now(MAX_BYTES_AT_CLOSE);
        self.pipe = None;
    }

    fn next_wake(&self) -> Option<Instant> {
        let close_at = self.close_at.filter(|_| self.pipe.is_some());
        [close_at, self.limit.report_due()].into_iter().flatten().min()
    }

    fn on_time(&mut self, now: Instant) {
        if self.close_at.is_some_and(|at| at <= now) {
            self.close();
        }
        if self.limit.report_due().is_some_and(|at| at <= now) {
            self.limit.report();
        }
    }

    /// Logs lines, until that takes as much time as `max` of them may take. Returns how many it was
    /// worth.
    fn log_lines(&mut self, max: usize) -> usize {
        let mut lines = 0;
        let before = self.lines.unread().len();
        let worth = |lines: usize, left: usize| lines + (before - left) / LINE_BYTES;
        while worth(lines, self.lines.unread().len()) < max
            && let Some(line) = self.lines.next()
        {
            self.log(&line);
            lines += 1;
        }
        worth(lines, self.lines.unread().len())
    }

    /// Logs everything that was read, and the line that has not ended.
    fn log_rest(&mut self) {
        while let Some(line) = self.lines.next().or_else(|| self.lines.end_line()) {
            self.log(&line);
        }
        self.limit.report();
    }

    fn log(&mut self, line: &Line) {
        let Line { author, level, text } = line;
        if logs_hook_lines(*level) && self.limit.admits(text.len()) {
            let line = HookLine {
                level: *level,
                span: author.span.as_ref(),
                worker: &self.worker,
                pid: self.pid,
                fields: &HookFields::default(),
                text,
            };
            line.log();
        }
    }
}

impl<P: Pipe> Drop for State<P> {
    fn drop(&mut self) {
        self.close();
        self.log_rest();
    }
}
