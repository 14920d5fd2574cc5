//! One worker that is driven by hand: for `check`, which sends what the shim itself never does, in
//! pieces of its own choice, and looks at everything that comes back.
//!
//! Nothing here has a limit of time: each wait may be dropped, and gone on with. Output is read while
//! something is written, so a worker that writes before it reads blocks nobody.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use rustix::io::ioctl_fionread;
use tokio::time::timeout;

use super::Answer;
use super::pipes::{Heard, Output, write_all};
use super::process::{CommandLine, Exit, Launch, Process, Stdin};
use super::worker::answer;
use crate::frame::FrameError;
use crate::hook::{Checks, HookCall};
use crate::rpc::{Outcome, PROTOCOL_VERSION};

/// Messages that are kept while nobody asks for them. A worker that goes on writing beyond that has to
/// wait, as it would for a busy shim.
const MAX_KEPT: usize = 1024;

/// How often it is looked whether a pipe was read: there is no event for that.
const LOOK: Duration = Duration::from_millis(1);

/// How long what a dead worker has left in its pipe is read. It is there already, unless a process
/// outside its group holds the pipe.
const LAST_WORDS_LIMIT: Duration = Duration::from_millis(500);

/// A worker, its pipes, and what was heard of it. Dropped, it is killed with its group, and reaped by a
/// task: see [`super::children_are_reaped`].
pub struct Probe {
    process: Process,
    wire: Wire,
}

impl Probe {
    /// Starts a worker; with `protocol`, as the shim does, otherwise as a shell would: without the
    /// protocol's variable, and with nothing to read. An error says in words why it cannot be run.
    pub fn start(command: &CommandLine, protocol: bool) -> Result<Self, String> {
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

    /// Counts stray bytes anew: their limit is one call's.
    pub fn begin_call(&mut self) {
        self.wire.output.begin_call();
    }

    /// Sends bytes, as they are. They leave while one of the waits below goes on.
    pub fn send(&mut self, bytes: &[u8]) {
        self.wire.unwritten.extend_from_slice(bytes);
    }

    /// Forgets what was not sent yet, and closes the worker's standard input.
    pub fn close(&mut self) {
        self.wire.hang_up();
    }

    /// Waits until everything is in the pipe, or the worker has closed it.
    pub async fn written(&mut self) {
        while self.wire.stdin.is_some() && self.wire.unwritten.has_remaining() {
            self.wire.step().await;
        }
    }

    /// Waits until the worker has read everything, or has closed the pipe.
    pub async fn taken(&mut self) {
        self.written().await;
        while let Some(stdin) = &self.wire.stdin
            && matches!(ioctl_fionread(stdin), Ok(1..))
        {
            let _ = timeout(LOOK, self.wire.step()).await;
        }
    }

    /// Waits for the next thing that the worker writes. An error is the end of its output.
    pub async fn next(&mut self) -> Result<Heard, &FrameError> {
        while self.wire.kept.is_empty() && self.wire.end.is_none() {
            self.wire.step().await;
        }
        let heard = self.wire.kept.pop_front();
        heard.ok_or_else(|| self.wire.end.as_ref().unwrap_or(&FrameError::Ended))
    }

    /// Asks the worker to end, with SIGTERM.
    pub fn terminate(&self) {
        self.process.terminate();
    }

    /// Waits for the worker's exit. What it writes meanwhile is kept for [`next`](Self::next).
    pub async fn ended(&mut self) -> Exit {
        let exit = loop {
            tokio::select! {
                exit = self.process.wait() => break exit,
                () = self.wire.step() => {}
            }
        };
        // Whoever else has the pipe open is in the group, or is waited for no longer than this.
        self.process.kill_group();
        let _ = timeout(LAST_WORDS_LIMIT, async {
            while self.wire.has_ears() {
                self.wire.step().await;
            }
        })
        .await;
        self.wire.end.get_or_insert(FrameError::Ended);
        exit
    }

    /// The last lines of the worker's standard error so far.
    #[must_use]
    pub fn stderr(&self) -> Vec<String> {
        self.process.stderr_so_far()
    }

    /// The last lines of the standard error of a worker that has ended.
    pub async fn stderr_at_end(&mut self) -> Vec<String> {
        self.process.stderr_at_end().await
    }

    /// Bytes that the worker and its process group have in RAM.
    #[must_use]
    pub fn memory(&self) -> u64 {
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
    kept: VecDeque<Heard>,
}

impl Wire {
    fn hang_up(&mut self) {
        self.unwritten.clear();
        self.stdin = None;
    }

    fn has_ears(&self) -> bool {
        self.end.is_none() && self.kept.len() < MAX_KEPT
    }

    /// Writes or reads a little. Waits for ever if neither can be.
    async fn step(&mut self) {
        let listens = self.has_ears();
        tokio::select! {
            written = write_all(self.stdin.as_mut(), &mut self.unwritten) => {
                if written.is_err() {
                    self.hang_up();
                }
            }
            heard = self.output.next(), if listens => match heard {
                Ok(heard) => self.kept.push_back(heard),
                Err(end) => self.end = Some(end),
            },
        }
    }
}

/// What a worker has answered to a call, read and checked as the shim does.
pub fn read_reply(call: &HookCall, outcome: &Outcome) -> Answer {
    answer::read(call, outcome, Checks::WellFormed)
}
