//! One worker process under test: its requests, its responses and its exit. Every wait here has a
//! timeout.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout, timeout_at};

use super::conformance::rewrite_call;
use super::observations::Observations;
use super::processes;
use super::verdict::{Fault, NotPassed, Verdict};
use crate::probe::{EXIT_TIMEOUT, Probe, encode, show};
use sidecar_shim::backend::{Child, CommandLine, Exit, OutputEvent, read_reply};
use sidecar_shim::error::{CallError, HookFailure};
use sidecar_shim::frame::{FrameError, SendBuffer};
use sidecar_shim::hook::{HookCall, HookReply};
use sidecar_shim::logging::least_hook_level;
use sidecar_shim::rpc::{self, Declared, Incoming, Outcome, OutgoingCall};

/// Time in which a worker shows a response that it must not send.
pub(super) const QUIET_TIME: Duration = Duration::from_millis(100);

/// Time in which a worker that has responded waits for the next message.
const IDLE_TIME: Duration = Duration::from_millis(20);

/// Remedy for a hook that refuses the documents it is called with.
const OTHER_DOCUMENTS: &str = " (pass other documents with --vmi, --domain and --cloud-init)";

/// Timeouts for what a worker has to do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timeouts {
    /// For the response to `initialize`.
    pub(super) start: Duration,
    /// For any other response.
    pub(super) response: Duration,
    /// For the exit after EOF or SIGTERM.
    pub(super) exit: Duration,
}

/// A worker process. Dropped, it is killed.
pub(super) struct WorkerUnderTest {
    probe: Probe,
    timeouts: Timeouts,
    observations: Rc<RefCell<Observations>>,
    declared: Option<Declared>,
    /// Programs with the worker's stdin before its first call: one may be a shell. `None` if they
    /// were not looked up.
    readers_before: Option<Vec<String>>,
    last_id: u64,
    /// Methods of the requests without a response.
    open: BTreeMap<u64, String>,
    /// Requests with a response.
    settled: BTreeSet<u64>,
    /// Responses that no check has taken yet.
    outcomes: BTreeMap<u64, Outcome>,
}

impl WorkerUnderTest {
    /// Starts a worker, and sends it nothing.
    pub(super) fn start(
        command: &CommandLine,
        protocol: bool,
        timeouts: Timeouts,
        observations: Rc<RefCell<Observations>>,
    ) -> Result<Self, NotPassed> {
        Ok(Self {
            probe: Probe::start(command, protocol).map_err(NotPassed::failed)?,
            timeouts,
            observations,
            declared: None,
            readers_before: None,
            last_id: 0,
            open: BTreeMap::new(),
            settled: BTreeSet::new(),
            outcomes: BTreeMap::new(),
        })
    }

    /// Sends the shim's first request. After its response, calls can be sent.
    pub(super) async fn initialize(&mut self) -> Result<Declared, NotPassed> {
        let level = least_hook_level();
        self.initialize_with(|buffer, id| rpc::send_initialize(buffer, id, level)).await
    }

    /// Does the same with another message.
    pub(super) async fn initialize_with(
        &mut self,
        send: impl FnOnce(&mut SendBuffer, u64),
    ) -> Result<Declared, NotPassed> {
        let id = self.request("initialize", send);
        self.declaration(id).await
    }

    /// Sends the shim's first request, and waits for a sign of life. Returns the request's id, and
    /// whether there was one.
    pub(super) async fn initialize_first(&mut self, limit: Duration) -> (u64, bool) {
        let level = least_hook_level();
        let id = self.request("initialize", |buffer, id| rpc::send_initialize(buffer, id, level));
        let lives = timeout(limit, self.probe.wait_for_output()).await.is_ok();
        (id, lives)
    }

    /// Waits for the response to `initialize`.
    pub(super) async fn declaration(&mut self, id: u64) -> Result<Declared, NotPassed> {
        let outcome = self.outcome_within(id, self.timeouts.start).await?;
        let declared = Declared::read(&outcome).map_err(|fault| self.fault(fault))?;
        self.declared = Some(declared.clone());
        Ok(declared)
    }

    // ---- Input ----

    /// Sends a request, and returns its id.
    pub(super) fn request(&mut self, method: &str, send: impl FnOnce(&mut SendBuffer, u64)) -> u64 {
        let (id, bytes) = self.encode_request(method, send);
        self.send(&bytes);
        id
    }

    fn encode_request(
        &mut self,
        method: &str,
        send: impl FnOnce(&mut SendBuffer, u64),
    ) -> (u64, Bytes) {
        self.last_id += 1;
        self.open.insert(self.last_id, method.to_owned());
        (self.last_id, encode(|send_buffer| send(send_buffer, self.last_id)))
    }

    /// Sets the id of the next request, which must be higher than every id before.
    pub(super) fn set_next_id(&mut self, id: u64) {
        self.last_id = id - 1;
    }

    /// Returns the id and the bytes of a call.
    pub(super) fn call_bytes(&mut self, call: &HookCall) -> Result<(u64, Bytes), NotPassed> {
        let deadline_ms = u64::try_from(self.timeouts.response.as_millis()).unwrap_or(u64::MAX);
        let attachments = self.declared.as_ref().is_some_and(|declared| declared.attachments);
        self.probe.begin_call();
        let mut fits = Ok(());
        let encoded = self.encode_request(call.hook().as_str(), |send_buffer, id| {
            let outgoing = OutgoingCall { id, call, attachments, deadline_ms, attempt: 1 };
            fits = rpc::send_call(send_buffer, &outgoing);
        });
        fits.map_err(too_long)?;
        Ok(encoded)
    }

    /// Does the same, and rewrites the call's message.
    pub(super) fn rewritten_call_bytes(
        &mut self,
        call: &HookCall,
        rewrite: impl Fn(&str) -> Option<String>,
    ) -> Result<(u64, Bytes), NotPassed> {
        let (id, bytes) = self.call_bytes(call)?;
        Ok((id, rewrite_call(&bytes, rewrite).map_err(too_long)?))
    }

    pub(super) fn send(&mut self, bytes: &[u8]) {
        self.probe.send(bytes);
    }

    /// Sends messages that get no response.
    pub(super) fn notify(&mut self, send: impl FnOnce(&mut SendBuffer)) {
        self.send(&encode(send));
    }

    /// Sends a piece, and waits until the worker has read it. Returns `false` at the timeout: the
    /// worker may wait for more.
    pub(super) async fn send_piece(&mut self, piece: &[u8], limit: Duration) -> bool {
        self.probe.send(piece);
        timeout(limit, self.probe.drained()).await.is_ok()
    }

    /// Closes the worker's stdin after everything that was sent.
    pub(super) async fn close_stdin(&mut self) {
        let _ = timeout(self.timeouts.response, self.probe.flush()).await;
        self.probe.close_stdin();
    }

    /// Sends SIGTERM.
    pub(super) fn terminate(&mut self) {
        self.probe.process.terminate();
    }

    // ---- Output ----

    /// Makes a call as the shim does.
    pub(super) async fn call(&mut self, call: &HookCall) -> Result<HookReply, NotPassed> {
        let (id, bytes) = self.call_bytes(call)?;
        self.send(&bytes);
        self.reply(call, id).await
    }

    /// Does the same, and returns whatever the response is.
    pub(super) async fn attempt(&mut self, call: &HookCall) -> Result<Outcome, NotPassed> {
        let (id, bytes) = self.call_bytes(call)?;
        self.send(&bytes);
        self.outcome(id).await
    }

    /// Waits for the response to a call, and reads it as the shim does. An error response is a
    /// fault.
    pub(super) async fn reply(&mut self, call: &HookCall, id: u64) -> Result<HookReply, NotPassed> {
        let outcome = self.outcome(id).await?;
        self.read(call, &outcome)
    }

    /// Reads the response to a call as the shim does.
    pub(super) fn read(&self, call: &HookCall, outcome: &Outcome) -> Result<HookReply, NotPassed> {
        read_reply(call, outcome).map_err(|error| {
            let refused = matches!(error, CallError::Hook { failure: HookFailure::Refused(_), .. });
            let hint = if refused { OTHER_DOCUMENTS } else { "" };
            self.fault(format!("{error}{hint}"))
        })
    }

    /// Waits for the response to a request.
    pub(super) async fn outcome(&mut self, id: u64) -> Result<Outcome, NotPassed> {
        self.outcome_within(id, self.timeouts.response).await
    }

    async fn outcome_within(&mut self, id: u64, limit: Duration) -> Result<Outcome, NotPassed> {
        let sent = Instant::now();
        let until = sent + limit;
        let method = self.open.get(&id).cloned().unwrap_or_default();
        loop {
            if let Some(outcome) = self.outcomes.remove(&id) {
                return Ok(outcome);
            }
            let expected = format!("it responded to {method} (request {id})");
            if !self.read_until(until, &expected).await? {
                let limit = humantime::format_duration(limit);
                let unfinished = self.probe.unfinished();
                let why = self.why_silent(id, sent).await;
                return Err(self.fault(format!(
                    "{method} (request {id}) got no response within {limit}{unfinished}{why}"
                )));
            }
        }
    }

    /// Reads for this time. Returns whether request `id` got its response.
    pub(super) async fn read_for(&mut self, time: Duration, id: u64) -> Result<bool, NotPassed> {
        let until = Instant::now() + time;
        let expected = match self.open.get(&id) {
            Some(method) => format!("it responded to {method} (request {id})"),
            None => "its stdin was closed".to_owned(),
        };
        while self.read_until(until, &expected).await? {}
        Ok(self.outcomes.contains_key(&id))
    }

    /// Reads one event. Returns `false` at the timeout, also if the worker never stops writing. The
    /// end of the output is a fault: it came before what was `expected`.
    async fn read_until(&mut self, until: Instant, expected: &str) -> Result<bool, NotPassed> {
        if Instant::now() >= until {
            return Ok(false);
        }
        match timeout_at(until, self.probe.next()).await {
            Ok(Some(event)) => self.on_event(event).map(|()| true),
            Ok(None) => Err(self.early_end(expected).await),
            Err(_) => Ok(false),
        }
    }

    fn on_event(&mut self, event: OutputEvent) -> Result<(), NotPassed> {
        let mut observations = self.observations.borrow_mut();
        match event {
            OutputEvent::Stray(stray) => {
                observations.stray_output.add(format!("outside frames: {}", show(&stray)));
            }
            OutputEvent::Malformed(what) => {
                let advice = if what.contains("trailing characters") {
                    ": write each message in a separate frame"
                } else {
                    ""
                };
                return Err(self.fault(format!("{what}{advice}{}", self.probe.unfinished())));
            }
            OutputEvent::Message(Incoming::Response { id, outcome }) => {
                if self.open.remove(&id).is_some() {
                    self.settled.insert(id);
                    self.outcomes.insert(id, outcome);
                } else if self.settled.contains(&id) {
                    observations
                        .repeated_responses
                        .add(format!("a second response to request {id}"));
                } else {
                    let seen = format!(
                        "a response to request {id}, which was never sent: a response has the id \
                         of its request"
                    );
                    return Err(self.fault(seen));
                }
            }
            OutputEvent::Message(Incoming::Log(line)) => observations.add_log(&line),
            OutputEvent::Message(Incoming::Request { id }) => {
                observations.unexpected_messages.add("a request, which workers must not send");
                self.probe
                    .send(&encode(|send_buffer| rpc::send_method_not_found(send_buffer, &id)));
            }
            OutputEvent::Message(Incoming::Ignored) => {
                observations.unexpected_messages.add("a notification other than $/log");
            }
        }
        Ok(())
    }

    // ---- Exit ----

    /// Waits for the exit, and reads what is left of the output.
    pub(super) async fn exit_within(&mut self, limit: Duration) -> Result<Option<Exit>, NotPassed> {
        let Ok(exit) = timeout(limit, self.probe.exit()).await else { return Ok(None) };
        while let Some(event) = self.probe.next().await {
            self.on_event(event)?;
        }
        Ok(Some(exit))
    }

    /// Waits for the exit that must follow EOF: half of the time later the shim sends SIGTERM.
    pub(super) async fn exit_at_eof(&mut self) -> Result<Exit, NotPassed> {
        self.must_exit_within(self.timeouts.exit / 2, "EOF").await
    }

    /// Waits for the exit that must follow the `cause`.
    pub(super) async fn exit_after(&mut self, cause: &str) -> Result<Exit, NotPassed> {
        self.must_exit_within(self.timeouts.exit, cause).await
    }

    async fn must_exit_within(&mut self, limit: Duration, cause: &str) -> Result<Exit, NotPassed> {
        let exit = self.exit_within(limit).await?;
        exit.ok_or_else(|| {
            let limit = humantime::format_duration(limit);
            self.fault(format!("it is still running {limit} after {cause}"))
        })
    }

    /// Stops a worker that is not needed any more. Other checks judge how it exits.
    pub(super) async fn stop(mut self) -> Verdict {
        self.close_stdin().await;
        self.exit_within(EXIT_TIMEOUT).await?;
        Ok(None)
    }

    // ---- State ----

    /// Whether a response to the request has come.
    pub(super) fn has_response(&self, id: u64) -> bool {
        self.outcomes.contains_key(&id)
    }

    /// Returns the clause about output that is not a message.
    pub(super) fn unfinished(&self) -> String {
        self.probe.unfinished()
    }

    pub(super) fn wrote_nothing(&self) -> bool {
        self.probe.wrote_nothing()
    }

    /// Returns the number of bytes that were sent and not read.
    pub(super) fn unread(&self) -> u64 {
        self.probe.unread()
    }

    pub(super) fn stdin_inode(&self) -> Option<u64> {
        self.probe.stdin_inode()
    }

    /// Notes which programs read its stdin while it has no call.
    pub(super) async fn note_readers(&mut self) -> Result<(), NotPassed> {
        self.read_for(IDLE_TIME, 0).await?;
        let readers = self.stdin_inode().map(processes::readers).unwrap_or_default();
        self.readers_before = Some(readers.into_iter().map(|reader| reader.name).collect());
        Ok(())
    }

    pub(super) fn readers_before(&self) -> Option<&[String]> {
        self.readers_before.as_deref()
    }

    /// Returns the time for which the shim waits for late answers.
    pub(super) fn grace(&self) -> Duration {
        self.timeouts.exit
    }

    /// Returns the bytes that the worker and its process group have in heaps and stacks.
    pub(super) fn heap(&self) -> u64 {
        processes::heap_of_group(self.probe.process.pid())
    }

    /// Whether the worker runs, or waits for nothing but a CPU.
    pub(super) fn computes(&self) -> bool {
        processes::computes(self.probe.process.pid())
    }

    /// Returns the bytes that the worker and its process group have in RAM.
    pub(super) fn memory(&self) -> u64 {
        self.probe.process.memory()
    }

    pub(super) async fn stderr_at_end(&mut self) -> Vec<String> {
        self.probe.process.read_stderr_to_end().await;
        self.stderr_so_far()
    }

    /// Returns the last lines: what is checked here is about no VM.
    fn stderr_so_far(&self) -> Vec<String> {
        self.probe.process.last_lines(None).into_lines()
    }

    pub(super) fn fault(&self, seen: impl Display) -> NotPassed {
        let stderr = self.stderr_so_far();
        NotPassed::Failed(Fault { seen: seen.to_string(), stderr })
    }

    /// Returns the fault of a worker that does not do what it SHOULD do.
    pub(super) fn warning(&self, seen: impl Display) -> NotPassed {
        self.fault(seen).or_warning()
    }

    /// Returns the fault of a worker whose output ended before what was `expected`.
    async fn early_end(&mut self, expected: &str) -> NotPassed {
        let exit = timeout(EXIT_TIMEOUT, self.probe.exit()).await;
        let unfinished = self.probe.unfinished();
        let seen = match (self.probe.end(), exit) {
            (FrameError::Ended, Ok(exit)) => format!("it {exit} before {expected}{unfinished}"),
            (FrameError::Ended, Err(_)) => {
                format!("it closed its stdout before {expected}{unfinished}")
            }
            (end @ (FrameError::Torn { .. } | FrameError::MissingAttachment), Ok(exit)) => {
                format!("{end}; then it {exit}")
            }
            (end, _) => end.to_string(),
        };
        NotPassed::Failed(Fault { seen, stderr: self.stderr_at_end().await })
    }
}

fn too_long(length: usize) -> NotPassed {
    NotPassed::skipped(format!(
        "these documents make a message of {length} bytes, too long for a frame"
    ))
}
