//! One worker that is driven by hand. `check` sends what the shim never sends, in pieces that
//! it chooses, and looks at everything that comes back; `call` finds out whether a command is a
//! worker.
//!
//! No wait here has a timeout; every one is cancel safe. Output is read while input is written, so
//! a worker that writes before it reads does not block.

use std::collections::VecDeque;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use rustix::io::ioctl_fionread;
use tokio::time::timeout;

use sidecar_shim::admission::Memory;
use sidecar_shim::backend::{
    Child, CommandLine, DRAIN_TIMEOUT, Exit, Launch, Output, OutputEvent, Process, Stdin, write_all,
};
use sidecar_shim::frame::{FrameError, SendBuffer, Stray};
use sidecar_shim::rpc::PROTOCOL_VERSION;
use sidecar_shim::text::escape_line;

/// Timeout for the exit of a process that has closed its stdout or was asked to exit. After it the
/// process is killed.
pub(crate) const EXIT_TIMEOUT: Duration = Duration::from_millis(500);

/// Maximum number of events that are read ahead. A worker that writes more has to wait, as it would
/// for a busy shim.
const MAX_EVENTS: usize = 1024;

/// Interval between looks at whether a pipe was read: there is no event for that.
const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// Maximum number of stray bytes that are shown.
const SHOWN_BYTES: usize = 80;

/// A worker and its pipes. Dropped, it is killed with its group and reaped in the background.
pub(crate) struct Probe {
    pub(crate) process: Process,
    io: WorkerIo,
}

impl Probe {
    /// Starts a worker; with `protocol` as the shim does, otherwise as a shell would: without the
    /// protocol's variable, and with an empty stdin. An error says why it cannot run.
    pub(crate) fn start(command: &CommandLine, protocol: bool) -> Result<Self, String> {
        let launch = Launch {
            command,
            documents: &[],
            protocol: protocol.then_some(PROTOCOL_VERSION),
            context: None,
            stdin: protocol,
            span: None,
            memory: None,
        };
        let (process, pipes) = Process::spawn(&launch).map_err(|error| error.to_string())?;
        let io = WorkerIo {
            stdin: pipes.stdin,
            unwritten: BytesMut::new(),
            output: Output::new(pipes.stdout, &Memory::new(usize::MAX)),
            end: None,
            events: VecDeque::new(),
        };
        Ok(Self { process, io })
    }

    /// Resets the count of stray bytes: the limit is for one call.
    pub(crate) fn begin_call(&mut self) {
        self.io.output.begin_call();
    }

    /// Sends bytes. They are written during one of the waits below.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.io.unwritten.extend_from_slice(bytes);
    }

    /// Drops what is not written yet, and closes the worker's stdin.
    pub(crate) fn close_stdin(&mut self) {
        self.io.close_stdin();
    }

    /// Waits until everything is in the pipe, or the worker has closed it.
    pub(crate) async fn flush(&mut self) {
        while self.io.stdin.is_some() && self.io.unwritten.has_remaining() {
            self.io.step().await;
        }
    }

    /// Waits until the worker has read everything, or has closed the pipe.
    pub(crate) async fn drained(&mut self) {
        self.flush().await;
        while self.unread() > 0 {
            let _ = timeout(POLL_INTERVAL, self.io.step()).await;
        }
    }

    /// Returns the number of bytes that were sent and that no process has read.
    pub(crate) fn unread(&self) -> u64 {
        let in_pipe = self.io.stdin.as_ref().and_then(|stdin| ioctl_fionread(stdin).ok());
        let unwritten = u64::try_from(self.io.unwritten.len()).unwrap_or(u64::MAX);
        in_pipe.map_or(0, |bytes| bytes + unwritten)
    }

    /// Returns the number by which the kernel knows the pipe to the worker's stdin.
    pub(crate) fn stdin_inode(&self) -> Option<u64> {
        let fd = self.io.stdin.as_ref()?.as_raw_fd();
        std::fs::metadata(format!("/proc/self/fd/{fd}")).ok().map(|pipe| pipe.ino())
    }

    /// Whether the worker has written nothing that is not read yet.
    pub(crate) fn wrote_nothing(&self) -> bool {
        self.io.events.is_empty() && self.io.output.unfinished().is_none()
    }

    /// Returns what the worker writes next; `None` at the [end](Self::end) of its output, at the
    /// latest when it has exited, even if another process holds the pipe open.
    pub(crate) async fn next(&mut self) -> Option<OutputEvent> {
        while self.io.events.is_empty() && self.io.end.is_none() {
            tokio::select! {
                _ = self.process.wait() => { self.exit().await; }
                () = self.io.step() => {}
            }
        }
        self.io.events.pop_front()
    }

    /// Waits until the worker has written something, or its output has ended.
    pub(crate) async fn wait_for_output(&mut self) {
        while self.wrote_nothing() && self.io.end.is_none() {
            tokio::select! {
                _ = self.process.wait() => { self.exit().await; }
                () = self.io.step() => {}
            }
        }
    }

    /// Returns how the output ended.
    pub(crate) fn end(&self) -> &FrameError {
        self.io.end.as_ref().unwrap_or(&FrameError::Ended)
    }

    /// Returns the clause about what the worker has written since its last message and is none.
    pub(crate) fn unfinished(&self) -> String {
        let stray = self.io.output.stray();
        let what = match self.io.output.unfinished() {
            None => return String::new(),
            Some(what) if stray.is_empty() => what,
            Some(_) => format!("{}: {}", show(&stray), stray.advice()),
        };
        format!("; its stdout ends with {what}")
    }

    /// Waits for the worker's exit. [`next`](Self::next) returns what it has written.
    pub(crate) async fn exit(&mut self) -> Exit {
        let exit = loop {
            tokio::select! {
                exit = self.process.wait() => break exit,
                () = self.io.step() => {}
            }
        };
        self.process.kill_group();
        let _ = timeout(DRAIN_TIMEOUT, async {
            while self.io.can_read() {
                self.io.step().await;
            }
        })
        .await;
        self.io.end.get_or_insert(FrameError::Ended);
        exit
    }
}

/// The pipes, what is to be written, and what was read.
struct WorkerIo {
    /// `None` once either side has closed it.
    stdin: Option<Stdin>,
    unwritten: BytesMut,
    output: Output,
    /// How the output ended.
    end: Option<FrameError>,
    events: VecDeque<OutputEvent>,
}

impl WorkerIo {
    fn close_stdin(&mut self) {
        self.unwritten.clear();
        self.stdin = None;
    }

    fn can_read(&self) -> bool {
        self.end.is_none() && self.events.len() < MAX_EVENTS
    }

    /// Writes or reads a little. Never returns if it can do neither.
    async fn step(&mut self) {
        let can_read = self.can_read();
        tokio::select! {
            written = write_all(self.stdin.as_mut(), &mut self.unwritten) => {
                if written.is_err() {
                    self.close_stdin();
                }
            }
            event = self.output.next(), if can_read => match event {
                Ok(event) => self.events.push_back(event),
                Err(end) => self.end = Some(end),
            },
        }
    }
}

/// Describes stray output, and shows its beginning: unlike the shim's log, this is read by the
/// author of the worker alone.
pub(crate) fn show(stray: &Stray) -> String {
    let beginning = &stray.beginning()[..stray.beginning().len().min(SHOWN_BYTES)];
    let shown = String::from_utf8_lossy(beginning);
    let more = if stray.bytes > beginning.len() { "…" } else { "" };
    format!("{stray}: \"{}\"{more}", escape_line(&shown))
}

/// Returns the bytes of the messages that are put into the send buffer.
pub(crate) fn encode(send: impl FnOnce(&mut SendBuffer)) -> Bytes {
    let mut send_buffer = SendBuffer::default();
    send(&mut send_buffer);
    send_buffer.copy_to_bytes(send_buffer.remaining())
}
