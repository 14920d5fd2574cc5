//! One worker process under test: its requests, what it answers to them, and how it ends. Every wait
//! here has a limit.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::time::{Instant, timeout, timeout_at};

use super::observations::Observations;
use super::verdict::{Fault, Stop};
use crate::probe::Probe;
use sidecar_shim::backend::{CommandLine, Exit, OutputEvent, read_reply};
use sidecar_shim::error::{CallError, HookFailure};
use sidecar_shim::frame::{FrameError, Outbox};
use sidecar_shim::hook::{HookCall, HookReply};
use sidecar_shim::rpc::{self, Declared, Incoming, Outcome, OutgoingCall};

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timeouts {
    /// The answer to `initialize`.
    pub(super) start: Duration,
    /// Any other answer.
    pub(super) answer: Duration,
    /// The exit of a worker that was told to end.
    pub(super) end: Duration,
}

/// How long the exit is awaited of a worker whose output has ended.
const EXIT_LIMIT: Duration = Duration::from_millis(500);

/// How long a worker that is not needed any more may take to end by itself. How it does is for checks
/// of its own.
const FAREWELL: Duration = Duration::from_millis(500);

/// What can be done about a hook that refuses the documents it is called with.
const OTHER_DOCUMENTS: &str = " (--vmi, --domain and --cloud-init give it other documents)";

/// A worker process. Dropped, it is killed.
pub(super) struct WorkerUnderTest {
    probe: Probe,
    timeouts: Timeouts,
    observations: Rc<RefCell<Observations>>,
    declared: Option<Declared>,
    last_id: u64,
    /// Requests without an answer, and their methods.
    open: BTreeMap<u64, String>,
    settled: BTreeSet<u64>,
    /// Answers that nobody has asked for yet.
    outcomes: BTreeMap<u64, Outcome>,
}

impl WorkerUnderTest {
    /// Starts a worker, and says nothing to it. An error says why it cannot be run.
    pub(super) fn start(
        command: &CommandLine,
        protocol: bool,
        timeouts: Timeouts,
        observations: Rc<RefCell<Observations>>,
    ) -> Result<Self, Stop> {
        Ok(Self {
            probe: Probe::start(command, protocol).map_err(Stop::failed)?,
            timeouts,
            observations,
            declared: None,
            last_id: 0,
            open: BTreeMap::new(),
            settled: BTreeSet::new(),
            outcomes: BTreeMap::new(),
        })
    }

    /// What the shim does first. From then on calls can be sent.
    pub(super) async fn initialize(&mut self) -> Result<Declared, Fault> {
        self.initialize_with(rpc::send_initialize).await
    }

    /// The same with another message.
    pub(super) async fn initialize_with(
        &mut self,
        send: impl FnOnce(&mut Outbox, u64),
    ) -> Result<Declared, Fault> {
        let id = self.request("initialize", send);
        let outcome = self.outcome_within(id, self.timeouts.start).await?;
        match Declared::read(&outcome) {
            Ok(declared) => {
                self.declared = Some(declared.clone());
                Ok(declared)
            }
            Err(fault) => Err(self.fault(fault)),
        }
    }

    fn attachments(&self) -> bool {
        self.declared.as_ref().is_some_and(|declared| declared.attachments)
    }

    // ---- What is said to the worker ----

    /// Numbers a request, and sends it.
    pub(super) fn request(&mut self, method: &str, send: impl FnOnce(&mut Outbox, u64)) -> u64 {
        let id = self.last_id + 1;
        let bytes = self.numbered(method, id, send);
        self.send(&bytes);
        id
    }

    /// The bytes of a request that has this number; a higher one than any before it.
    pub(super) fn numbered(
        &mut self,
        method: &str,
        id: u64,
        send: impl FnOnce(&mut Outbox, u64),
    ) -> Bytes {
        self.last_id = id;
        self.open.insert(id, method.to_owned());
        wire(|outbox| send(outbox, id))
    }

    /// Lets the next request have a higher number.
    pub(super) fn skip_ids_to(&mut self, id: u64) {
        self.last_id = id;
    }

    /// The number and the bytes of a call.
    pub(super) fn call_bytes(&mut self, call: &HookCall) -> Result<(u64, Bytes), Stop> {
        self.call_bytes_with(call, rpc::send_call)
    }

    /// The same with another way to write it.
    pub(super) fn call_bytes_with(
        &mut self,
        call: &HookCall,
        write: impl FnOnce(&mut Outbox, &OutgoingCall<'_>) -> Result<(), usize>,
    ) -> Result<(u64, Bytes), Stop> {
        let deadline_ms = u64::try_from(self.timeouts.answer.as_millis()).unwrap_or(u64::MAX);
        let (id, attachments) = (self.last_id + 1, self.attachments());
        let outgoing = OutgoingCall { id, call, attachments, deadline_ms, attempt: 1 };
        self.probe.begin_call();
        let mut fits = Ok(());
        let bytes = self.numbered(call.hook().as_str(), id, |outbox, _| {
            fits = write(outbox, &outgoing);
        });
        match fits {
            Ok(()) => Ok((id, bytes)),
            Err(length) => Err(Stop::skipped(format!(
                "with these documents a message would be {length} bytes long, more than a frame holds"
            ))),
        }
    }

    /// Sends bytes as they are.
    pub(super) fn send(&mut self, bytes: &[u8]) {
        self.probe.send(bytes);
    }

    /// Sends messages that get no answer.
    pub(super) fn notify(&mut self, send: impl FnOnce(&mut Outbox)) {
        self.send(&wire(send));
    }

    /// Sends a piece, and waits until the worker has read it. `false` if it has not in that time: it may
    /// wait for more.
    pub(super) async fn send_piece(&mut self, piece: &[u8], patience: Duration) -> bool {
        self.probe.send(piece);
        timeout(patience, self.probe.taken()).await.is_ok()
    }

    /// Closes the worker's standard input, when all that was sent is in the pipe.
    pub(super) async fn close(&mut self) {
        let _ = timeout(self.timeouts.answer, self.probe.written()).await;
        self.probe.close();
    }

    /// Asks the worker to end, with SIGTERM.
    pub(super) fn terminate(&self) {
        self.probe.terminate();
    }

    // ---- What it answers ----

    /// Makes a call as the shim does.
    pub(super) async fn call(&mut self, call: &HookCall) -> Result<HookReply, Stop> {
        let (id, bytes) = self.call_bytes(call)?;
        self.send(&bytes);
        self.reply(call, id).await
    }

    /// The answer to a call, read as the shim does. An error response is a fault.
    pub(super) async fn reply(&mut self, call: &HookCall, id: u64) -> Result<HookReply, Stop> {
        let outcome = self.outcome(id).await?;
        read_reply(call, &outcome).map_err(|error| {
            let is_refusal =
                matches!(error, CallError::Hook { failure: HookFailure::Refused(_), .. });
            let hint = if is_refusal { OTHER_DOCUMENTS } else { "" };
            self.fault(format!("{error}{hint}")).into()
        })
    }

    /// The answer to a request, whatever it is.
    pub(super) async fn outcome(&mut self, id: u64) -> Result<Outcome, Fault> {
        self.outcome_within(id, self.timeouts.answer).await
    }

    async fn outcome_within(&mut self, id: u64, limit: Duration) -> Result<Outcome, Fault> {
        let until = Instant::now() + limit;
        let method = self.open.get(&id).cloned().unwrap_or_default();
        loop {
            if let Some(outcome) = self.outcomes.remove(&id) {
                return Ok(outcome);
            }
            let Some(heard) = self.next_until(until).await else {
                let limit = humantime::format_duration(limit);
                let seen = format!("{method} (request {id}) got no answer within {limit}");
                return Err(self.fault(seen));
            };
            match heard {
                Ok(heard) => self.hear(heard)?,
                Err(end) => {
                    return Err(self.gone(end, &format!("answered {method} (request {id})")).await);
                }
            }
        }
    }

    /// Hears what there is to hear for a while. Whether `id` was answered meanwhile.
    pub(super) async fn listen(&mut self, id: u64, time: Duration) -> Result<bool, Fault> {
        let until = Instant::now() + time;
        while let Some(heard) = self.next_until(until).await {
            match heard {
                Ok(heard) => self.hear(heard)?,
                Err(end) => return Err(self.gone(end, "was told to end").await),
            }
        }
        Ok(self.outcomes.contains_key(&id))
    }

    /// The next thing that the worker writes. `None` when the time is over, also for a worker that never
    /// stops writing.
    async fn next_until(&mut self, until: Instant) -> Option<Result<OutputEvent, Ending>> {
        if Instant::now() >= until {
            return None;
        }
        let next = timeout_at(until, self.probe.next()).await.ok()?;
        Some(next.map_err(Ending::of))
    }

    /// Takes in one thing that the worker wrote.
    fn hear(&mut self, heard: OutputEvent) -> Result<(), Fault> {
        match heard {
            OutputEvent::Stray(stray) => {
                let text = format!("{} bytes that are no frame: {stray}", stray.bytes);
                self.observations.borrow_mut().stray_text.add(text);
            }
            OutputEvent::Malformed(what) => return Err(self.fault(what)),
            OutputEvent::Message(Incoming::Response { id, outcome }) => {
                if self.open.remove(&id).is_some() {
                    self.settled.insert(id);
                    self.outcomes.insert(id, outcome);
                } else if self.settled.contains(&id) {
                    let text = format!("a second answer to request {id}");
                    self.observations.borrow_mut().answered_twice.add(text);
                } else {
                    return Err(
                        self.fault(format!("an answer to request {id}, which was never sent"))
                    );
                }
            }
            OutputEvent::Message(Incoming::Log(line)) => {
                self.observations.borrow_mut().hear_log(&line);
            }
            OutputEvent::Message(Incoming::Request { id }) => {
                self.observations.borrow_mut().odd_messages.add("a request, and a shim takes none");
                self.notify(|outbox| rpc::send_method_not_found(outbox, &id));
            }
            OutputEvent::Message(Incoming::Ignored) => {
                self.observations.borrow_mut().odd_messages.add("a notification other than $/log");
            }
        }
        Ok(())
    }

    // ---- How it ends ----

    /// Waits for the worker's exit, and hears what it still says.
    pub(super) async fn ended_within(&mut self, limit: Duration) -> Result<Option<Exit>, Fault> {
        let Ok(exit) = timeout(limit, self.probe.ended()).await else { return Ok(None) };
        while let Ok(heard) = self.probe.next().await {
            self.hear(heard)?;
        }
        Ok(Some(exit))
    }

    /// Waits for the exit of a worker that has been told to end.
    pub(super) async fn ended(&mut self, told: &str) -> Result<Exit, Fault> {
        let limit = self.timeouts.end;
        if let Some(exit) = self.ended_within(limit).await? {
            return Ok(exit);
        }
        let limit = humantime::format_duration(limit);
        Err(self.fault(format!("it is still running {limit} after {told}")))
    }

    /// Lets a worker go that has done well.
    pub(super) async fn dismiss(mut self) -> Result<(), Fault> {
        self.close().await;
        self.ended_within(FAREWELL).await?;
        Ok(())
    }

    /// Bytes that it has in RAM.
    pub(super) fn memory(&self) -> u64 {
        self.probe.memory()
    }

    /// What it has said on standard error.
    pub(super) async fn stderr_at_end(&mut self) -> Vec<String> {
        self.probe.stderr_at_end().await
    }

    /// A fault of this worker's.
    pub(super) fn fault(&self, seen: impl Display) -> Fault {
        Fault { seen: seen.to_string(), stderr: self.probe.stderr() }
    }

    /// The fault of a worker whose output has ended too early.
    async fn gone(&mut self, end: Ending, before: &str) -> Fault {
        let exit = timeout(EXIT_LIMIT, self.probe.ended()).await;
        let seen = match (end, exit) {
            (Ending::Clean, Ok(exit)) => format!("it {exit} before it {before}"),
            (Ending::Clean, Err(_)) => format!("it closed its standard output before it {before}"),
            (Ending::Torn(what), Ok(exit)) => format!("{what}; then it {exit}"),
            (Ending::Torn(what) | Ending::Broken(what), _) => what,
        };
        Fault { seen, stderr: self.probe.stderr_at_end().await }
    }
}

/// How the output of a worker has ended.
enum Ending {
    /// Between two messages.
    Clean,
    /// Inside one.
    Torn(String),
    /// With something after which it cannot be read on.
    Broken(String),
}

impl Ending {
    fn of(error: &FrameError) -> Self {
        match error {
            FrameError::Ended => Self::Clean,
            FrameError::Torn { .. } | FrameError::MissingAttachment => {
                Self::Torn(error.to_string())
            }
            other => Self::Broken(other.to_string()),
        }
    }
}

/// The bytes that something puts into an outbox.
pub(super) fn wire(send: impl FnOnce(&mut Outbox)) -> Bytes {
    let mut outbox = Outbox::default();
    send(&mut outbox);
    outbox.copy_to_bytes(outbox.remaining())
}
