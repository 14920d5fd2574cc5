//! One worker that is driven by hand. `check` sends what the shim itself never does, in pieces of its own
//! choice, and looks at everything that comes back; `call` finds out whether a program is a worker.
//!
//! Nothing here has a timeout: each wait may be dropped and resumed. Output is read while something is
//! written, so a worker that writes before it reads does not block.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use rustix::io::ioctl_fionread;
use tokio::time::timeout;

use sidecar_shim::backend::{
    Child, CommandLine, DRAIN_TIMEOUT, Exit, Launch, Output, OutputEvent, Process, Stdin, write_all,
};
use sidecar_shim::frame::FrameError;
use sidecar_shim::rpc::PROTOCOL_VERSION;

/// Maximum number of messages kept until they are asked for. A worker that writes more has to wait, as it
/// would for a busy shim.
const MAX_KEPT: usize = 1024;

/// Interval between looks at whether a pipe was read: there is no event for that.
const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// A worker, its pipes, and what it has written. Dropped, it is killed with its group, and reaped by a
/// task: see [`sidecar_shim::backend::children_are_reaped`].
pub(crate) struct Probe {
    process: Process,
    wire: Wire,
}

impl Probe {
    /// Starts a worker; with `protocol`, as the shim does, otherwise as a shell would: without the
    /// protocol's variable, and with nothing to read. An error says in words why it cannot be run.
    pub(crate) fn start(command: &CommandLine, protocol: bool) -> Result<Self, String> {
        let launch = Launch {
            command,
            documents: &[],
            protocol: protocol.then_some(PROTOCOL_VERSION),
            context: None,
            stdin: protocol,
            hook: None,
            memory: None,
        };
        let (process, pipes) = Process::spawn(&launch).map_err(|error| error.to_string())?;
        let wire = Wire {
            stdin: pipes.stdin,
            unwritten: BytesMut::new(),
            output: Output::new(pipes.stdout),
            end: None,
            kept: VecDeque::new(),
        };
        Ok(Self { process, wire })
    }

    /// Resets the count of stray bytes: the limit is one call's.
    pub(crate) fn begin_call(&mut self) {
        self.wire.output.begin_call();
    }

    /// Sends bytes, as they are. They leave while one of the waits below goes on.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.wire.unwritten.extend_from_slice(bytes);
    }

    /// Forgets what was not sent yet, and closes the worker's standard input.
    pub(crate) fn close(&mut self) {
        self.wire.close_stdin();
    }

    /// Waits until everything is in the pipe, or the worker has closed it.
    pub(crate) async fn written(&mut self) {
        while self.wire.stdin.is_some() && self.wire.unwritten.has_remaining() {
            self.wire.step().await;
        }
    }

    /// Waits until the worker has read everything, or has closed the pipe.
    pub(crate) async fn taken(&mut self) {
        self.written().await;
        while let Some(stdin) = &self.wire.stdin
            && matches!(ioctl_fionread(stdin), Ok(1..))
        {
            let _ = timeout(POLL_INTERVAL, self.wire.step()).await;
        }
    }

    /// Waits for the next thing that the worker writes. An error is the end of its output.
    pub(crate) async fn next(&mut self) -> Result<OutputEvent, &FrameError> {
        while self.wire.kept.is_empty() && self.wire.end.is_none() {
            self.wire.step().await;
        }
        let heard = self.wire.kept.pop_front();
        heard.ok_or_else(|| self.wire.end.as_ref().unwrap_or(&FrameError::Ended))
    }

    /// Asks the worker to end, with SIGTERM.
    pub(crate) fn terminate(&self) {
        self.process.terminate();
    }

    /// Waits for the worker's exit. What it writes meanwhile is kept for [`next`](Self::next).
    pub(crate) async fn ended(&mut self) -> Exit {
        let exit = loop {
            tokio::select! {
                exit = self.process.wait() => break exit,
                () = self.wire.step() => {}
            }
        };
        // Other processes that hold the pipe are in the group, or are waited for no longer than this.
        self.process.kill_group();
        let _ = timeout(DRAIN_TIMEOUT, async {
            while self.wire.can_read() {
                self.wire.step().await;
            }
        })
        .await;
        self.wire.end.get_or_insert(FrameError::Ended);
        exit
    }

    /// The last lines of the worker's standard error so far.
    #[must_use]
    pub(crate) fn stderr(&self) -> Vec<String> {
        self.process.stderr_so_far()
    }

    /// The last lines of the standard error of a worker that has ended.
    pub(crate) async fn stderr_at_end(&mut self) -> Vec<String> {
        self.process.stderr_at_end().await
    }

    /// Bytes that the worker and its process group have in RAM.
    #[must_use]
    pub(crate) fn memory(&self) -> u64 {
        self.process.memory()
    }
}

/// The pipes, what is still to be written, and what was read.
struct Wire {
    /// Where the worker reads, until one of both closes it.
    stdin: Option<Stdin>,
    unwritten: BytesMut,
    output: Output,
    /// How the output has ended.
    end: Option<FrameError>,
    kept: VecDeque<OutputEvent>,
}

impl Wire {
    fn close_stdin(&mut self) {
        self.unwritten.clear();
        self.stdin = None;
    }

    fn can_read(&self) -> bool {
        self.end.is_none() && self.kept.len() < MAX_KEPT
    }

    /// Writes or reads a little. Waits for ever if neither can be.
    async fn step(&mut self) {
        let can_read = self.can_read();
        tokio::select! {
            written = write_all(self.stdin.as_mut(), &mut self.unwritten) => {
                if written.is_err() {
                    self.close_stdin();
                }
            }
            heard = self.output.next(), if can_read => match heard {
                Ok(heard) => self.kept.push_back(heard),
                Err(end) => self.end = Some(end),
            },
        }
    }
}
