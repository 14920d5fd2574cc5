//! One worker: a child process that speaks the worker protocol, and the task that owns its pipes.
//!
//! # Theory of operation
//! The pool sends [`Job`]s to the task and receives [`Report`]s from it. Only the task touches the
//! pipes, so a call that is dropped never leaves half a frame behind. The task waits for the next
//! [`Event`] and acts on it. It reads the output at all times, so a worker that writes before it
//! has read its call cannot deadlock.
//!
//! ```text
//!            initialize answered           the pool dropped the sender
//!  Starting ─────────────────────▶ Serving ──────────────────────────▶ Draining
//!     │  └────────── the pool dropped the sender ──────────────────────▶  │
//!     │                               │                                   │ no caller waits:
//!     │ --start-timeout               │ call overdue                      │ EOF, then exit or
//!     │ exit, protocol error          │ exit, protocol error              │ half of --kill-grace
//!     ▼                               ▼                                   ▼
//!  StopReason: the process is stopped and reaped, each call is answered or retried ─▶ WorkerExit
//! ```
//!
//! A call occupies one of the worker's slots from the moment it is sent:
//!
//! ```text
//!  open ── reply: the caller gets it ───────▶ answered ── send buffer flushed ──▶ slot free
//!   │ deadline: the caller gets an error         ▲
//!   │ or the caller left                         │
//!   ▼                                            │
//!  abandoned ── late reply: discarded ───────────┘
//!   │ --kill-grace is over
//!   ▼
//!  StopReason::CallOverdue
//! ```
//!
//! When the task ends, the child has been reaped.
//! Calls that the worker has not read are sent to another one: see [`unread`].

pub(super) mod answer;
mod calls;
mod fault;
mod output;
mod stop;
#[cfg(test)]
mod tests;
mod unread;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use self::calls::Calls;
pub(super) use self::fault::Fault;
use self::stop::StopReason;
use super::config::Settings;
use super::flood::{LogLimit, MessageLimit};
use super::job::Job;
use super::pipes::{Input, InputEvent, Output, OutputEvent};
use super::process::{Child, CommandLine, Exit, Launch, Sharing, Spawn};
use crate::error::HookFailure;
use crate::frame::{FrameError, MAX_FRAME_BYTES};
use crate::logging::least_hook_level;
use crate::rpc::{self, Declared};

/// Time for a worker that closed its stdin or stdout to exit. Mostly it is exiting already.
pub(super) const CLOSED_PIPE_TIMEOUT: Duration = Duration::from_millis(500);

/// Maximum number of unread error replies. Workers must not send requests; one that keeps sending
/// them without reading the replies is broken.
const MAX_UNREAD_REPLIES: usize = 64;

/// The protocol error of such a worker.
const REPLIES_NOT_READ: &str = "it sends requests and does not read the replies";

/// Identifies a worker within its pool.
pub(super) type WorkerId = u64;

/// What a worker reports to its pool while it runs.
pub(super) enum Report {
    /// Its process was started.
    Spawned { pid: i32 },
    /// It answered `initialize`.
    Ready(Declared),
    /// The call that it received last is in its pipe. Only workers with concurrency report this.
    CallWritten,
    /// One of its calls finished, and the slot is free.
    CallFinished,
    /// A call finished without having been sent to it, and the slot is free.
    CallSkipped,
    /// A call needs another worker: it failed and has a second attempt, or this one has not read
    /// it. Sent before the report that frees its slot, or before the worker's exit.
    Retry(Box<Job>),
    /// It is exiting or being stopped, which takes up to the kill grace, and accepts no more calls.
    Stopping,
}

/// How a worker exited. Its process was reaped.
pub(super) struct WorkerExit {
    pub(super) cause: ExitCause,
    /// Jobs that were on their way to it.
    pub(super) unsent: Vec<Job>,
}

/// Why a worker exited, as far as the pool acts on it.
#[derive(Debug)]
pub(super) enum ExitCause {
    /// The pool stopped it.
    Requested,
    /// It exited with status 0 while it was idle.
    Idle,
    /// It exited or was killed over a call, whose failure says how.
    Call,
    /// It did not start, or failed while it was idle.
    Failed(Fault),
}

/// Starts a worker, and returns when it has been reaped.
pub(super) async fn run<S: Spawn>(
    id: WorkerId,
    spawner: S,
    command: CommandLine,
    settings: Arc<Settings>,
    mut jobs: mpsc::Receiver<Job>,
    reports: mpsc::Sender<(WorkerId, Report)>,
) -> WorkerExit {
    let mut next_job = None;
    let cause = match Worker::spawn(&spawner, command, settings, id, reports) {
        Ok(mut worker) => {
            worker.report(Report::Spawned { pid: worker.process.pid() }).await;
            let reason = loop {
                worker.messages.end_turn().await;
                let event = worker.next_event(&mut jobs).await;
                if let ControlFlow::Break(reason) = worker.handle(event).await {
                    break reason;
                }
            };
            next_job = worker.next_job.take();
            worker.finish(reason).await
        }
        Err(fault) => ExitCause::Failed(fault.into()),
    };
    jobs.close();
    let unsent = next_job.into_iter().chain(std::iter::from_fn(|| jobs.try_recv().ok())).collect();
    WorkerExit { cause, unsent }
}

enum State {
    /// `initialize` was sent; its answer is due.
    Starting { due: Instant },
    /// It accepts calls.
    Serving(Declared),
    /// It accepts no more calls. When no caller waits for it any more, its stdin is closed and its
    /// exit is due.
    Draining { cancel: bool, due: Option<Instant> },
}

/// What a worker's task waits for.
enum Event {
    Output(Result<OutputEvent, FrameError>),
    Input(InputEvent),
    Job(Option<Box<Job>>),
    CallerLeft(u64),
    Due(Due),
    Exited(Exit),
}

/// A time that has come, and what it was for.
#[derive(Debug, Clone, Copy)]
enum Due {
    /// `initialize` should have been answered.
    Start,
    /// A draining worker should have exited.
    Exit,
    /// A worker that closed its stdin should have exited.
    StdinClosed,
    /// An idle worker should have read the replies to its requests.
    UnreadReplies,
    /// The deadline of this call, or the end of the grace period after it.
    Call(u64),
    /// The worker sent too much, and is read again.
    Resume,
    /// The log should say how many lines were left out.
    LogReport,
}

/// Error replies to the worker's own requests that may still be in the send buffer.
#[derive(Clone, Copy)]
struct UnreadReplies {
    count: usize,
    /// Deadline for an otherwise idle worker to read them.
    due: Instant,
}

struct Worker<C: Child> {
    command: CommandLine,
    settings: Arc<Settings>,
    id: WorkerId,
    reports: mpsc::Sender<(WorkerId, Report)>,
    process: C,
    input: Input<C::Stdin>,
    output: Output<C::Stdout>,
    messages: MessageLimit,
    log_limit: LogLimit,
    state: State,
    calls: Calls,
    /// A job that was received and waits for the send buffer, or for a slot.
    next_job: Option<Job>,
    unread: Option<UnreadReplies>,
    /// Whether the worker closed its stdin.
    stdin_closed: bool,
    /// When a worker that closed its stdin, and has no call that a caller waits for, is killed.
    stdin_closed_deadline: Option<Instant>,
    /// Whether to notify the pool once the send buffer has been flushed.
    write_pending: bool,
    last_request: u64,
}

impl<C: Child> Worker<C> {
    fn spawn(
        spawner: &impl Spawn<Child = C>,
        command: CommandLine,
        settings: Arc<Settings>,
        id: WorkerId,
        reports: mpsc::Sender<(WorkerId, Report)>,
    ) -> Result<Self, String> {
        let launch = Launch {
            command: &command,
            documents: &[],
            protocol: Some(rpc::PROTOCOL_VERSION),
            context: None,
            stdin: true,
            span: None,
            memory: settings.worker_memory,
        };
        let (process, pipes) = spawner.spawn(&launch).map_err(|error| error.to_string())?;
        tracing::debug!(pid = process.pid(), worker = %command, "worker started");
        let log_limit = LogLimit::new("log lines", command.to_string(), process.pid());
        let (mut input, memory) = (Input::new(pipes.stdin), settings.memory.clone());
        let last_request = 1;
        let level = least_hook_level();
        input.push(|send_buffer| rpc::send_initialize(send_buffer, last_request, level));
        let state = State::Starting { due: Instant::now() + settings.start_timeout };
        Ok(Self {
            command,
            settings,
            id,
            reports,
            process,
            input,
            output: Output::new(pipes.stdout, &memory),
            messages: MessageLimit::new(),
            log_limit,
            state,
            calls: Calls::default(),
            next_job: None,
            unread: None,
            stdin_closed: false,
            stdin_closed_deadline: None,
            write_pending: false,
            last_request,
        })
    }

    async fn report(&self, report: Report) {
        // The pool outlives its workers, so the channel is open.
        let _ = self.reports.send((self.id, report)).await;
    }

    /// Waits for the next event. No branch loses anything when another one is first. A worker that
    /// never stops writing must not starve the others, so its output comes last: before it stands
    /// only what ends by itself, as each of these events uses up what caused it. The order is fixed
    /// so that the same events always have the same effect, which the simulation needs.
    async fn next_event(&mut self, jobs: &mut mpsc::Receiver<Job>) -> Event {
        let next_due = self.next_due();
        // Also while it starts, and while its slots are taken: the channel closes when the pool
        // stops it.
        let receives = self.next_job.is_none() && !matches!(self.state, State::Draining { .. });
        let reads = self.messages.paused_until().is_none();
        let Self { output, input, process, calls, .. } = self;
        output.set_covered(calls.bytes());
        tokio::select! {
            biased;
            due = sleep_until_due(next_due) => Event::Due(due),
            exit = process.wait() => Event::Exited(exit),
            input = input.next() => Event::Input(input),
            id = calls.caller_left() => Event::CallerLeft(id),
            job = jobs.recv(), if receives => Event::Job(job.map(Box::new)),
            output = output.next(), if reads => Event::Output(output),
        }
    }

    /// Returns the earliest time at which something is due without another event.
    fn next_due(&self) -> Option<(Instant, Due)> {
        let state = match &self.state {
            State::Starting { due } => Some((*due, Due::Start)),
            State::Serving(_) => None,
            State::Draining { due, .. } => due.map(|due| (due, Due::Exit)),
        };
        // Once its exit is due, abandoned calls give it no more time.
        let calls = self.calls.next_due().filter(|_| !matches!(state, Some((_, Due::Exit))));
        let stdin_closed = self.stdin_closed_deadline.map(|due| (due, Due::StdinClosed));
        // A worker that has a call may read them after it: the call's deadline counts.
        let unread = self.unread.filter(|_| self.calls.is_empty());
        let unread = unread.map(|unread| (unread.due, Due::UnreadReplies));
        let resume = self.messages.paused_until().map(|at| (at, Due::Resume));
        let report = self.log_limit.report_due().map(|at| (at, Due::LogReport));
        [state, stdin_closed, unread, calls, resume, report]
            .into_iter()
            .flatten()
            .min_by_key(|(at, _)| *at)
    }

    async fn handle(&mut self, event: Event) -> ControlFlow<StopReason> {
        match event {
            Event::Output(Ok(event)) => self.on_output(event).await?,
            Event::Output(Err(error)) => {
                return ControlFlow::Break(self.on_output_end(&error).await);
            }
            Event::Input(InputEvent::Flushed) => {}
            Event::Input(InputEvent::Closed) => self.on_stdin_closed().await,
            Event::Job(Some(job)) => self.next_job = Some(*job),
            Event::Job(None) => self.drain(),
            Event::CallerLeft(id) => {
                if let Some(span) = self.calls.span_of(id) {
                    span.in_scope(|| tracing::debug!("the caller left before the hook answered"));
                }
                self.abandon_call(id, None);
            }
            Event::Due(due) => self.on_due(due)?,
            Event::Exited(exit) => {
                let error = self.drain_output().await?;
                return ControlFlow::Break(self.stop_reason(exit, &error));
            }
        }
        self.free_slots().await;
        self.start_next_job().await;
        self.close_when_done();
        ControlFlow::Continue(())
    }

    fn on_due(&mut self, due: Due) -> ControlFlow<StopReason> {
        ControlFlow::Break(match due {
            Due::Start => StopReason::StartTimeout,
            Due::Exit => StopReason::Requested,
            Due::StdinClosed => StopReason::Protocol("it closed its stdin".to_owned()),
            Due::UnreadReplies => StopReason::Protocol(REPLIES_NOT_READ.to_owned()),
            Due::Call(id) => return self.on_call_due(id),
            Due::Resume => {
                self.messages.resume();
                return ControlFlow::Continue(());
            }
            Due::LogReport => {
                self.log_limit.report();
                return ControlFlow::Continue(());
            }
        })
    }

    fn on_call_due(&mut self, id: u64) -> ControlFlow<StopReason> {
        let Some(call) = self.calls.get_mut(id) else { return ControlFlow::Continue(()) };
        if call.job.is_answered() {
            return ControlFlow::Break(StopReason::CallOverdue);
        }
        let failure = HookFailure::Deadline {
            program: self.command.to_string(),
            after: call.job.deadline() - call.job.accepted(),
            stdout: self.output.unfinished(),
            stderr: self.process.last_lines(Some(id)),
        };
        self.abandon_call(id, Some(failure));
        ControlFlow::Continue(())
    }

    /// Sends the next call to the worker, if there is one and the worker can accept it.
    async fn start_next_job(&mut self) {
        let State::Serving(declared) = &self.state else { return };
        if self.stdin_closed {
            if let Some(job) = self.next_job.take() {
                self.send_elsewhere(job, "closed its stdin").await;
            }
            return;
        }
        let accepts = self.calls.len() < declared.concurrency && self.input.is_flushed();
        let Some(mut job) = self.next_job.take_if(|_| accepts) else { return };
        self.write_pending = declared.concurrency > 1;
        if job.is_closed() {
            self.skip_call().await;
            return;
        }
        let left = job.deadline().saturating_duration_since(Instant::now());
        let id = self.last_request + 1;
        let outgoing = rpc::OutgoingCall {
            id,
            call: job.call(),
            attachments: declared.attachments,
            deadline_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
            attempt: job.attempt(),
        };
        let begins = self.input.end();
        let sent = self.input.push(|send_buffer| rpc::send_call(send_buffer, &outgoing));
        if let Err(bytes) = sent {
            job.answer(Err(HookFailure::TooLarge(format!(
                "the call would be {bytes} bytes long and a frame of the worker protocol holds \
                 at most {MAX_FRAME_BYTES} bytes"
            ))));
            self.skip_call().await;
            return;
        }
        self.last_request = id;
        let sharing = match declared.concurrency {
            1 => Sharing::Never,
            _ if self.calls.is_empty() => Sharing::NotYet,
            _ => Sharing::Now,
        };
        job.begins(self.process.pid());
        self.process.begin_call(job.span().clone(), id, sharing);
        self.output.begin_call();
        self.calls.push(id, begins, job);
    }

    /// Reports that the call which the pool sent last finished without being sent to the worker.
    async fn skip_call(&mut self) {
        if std::mem::take(&mut self.write_pending) {
            self.report(Report::CallWritten).await;
        }
        self.report(Report::CallSkipped).await;
    }

    /// Answers the caller, if it is still there. The worker has the kill grace to finish the call.
    fn abandon_call(&mut self, id: u64, failure: Option<HookFailure>) {
        let due = Instant::now() + self.settings.kill_grace;
        let Some(call) = self.calls.get_mut(id) else { return };
        call.abandon(failure, due);
        let can_cancel = match &self.state {
            State::Serving(declared) => declared.cancel,
            State::Draining { cancel, .. } => *cancel,
            State::Starting { .. } => false,
        };
        if can_cancel && call.is_open() && self.input.is_open() {
            self.input.push(|send_buffer| rpc::send_cancel(send_buffer, id));
        }
    }

    /// Frees the slots of calls that the worker has answered, once the send buffer is flushed: a
    /// call that it answered without reading all of it keeps its slot until then.
    async fn free_slots(&mut self) {
        if !self.input.is_flushed() {
            return;
        }
        self.unread = None;
        if std::mem::take(&mut self.write_pending) {
            self.report(Report::CallWritten).await;
        }
        let answered: Vec<_> = self.calls.take_answered().collect();
        for call in answered {
            if let Some(job) = call.into_retry() {
                self.report(Report::Retry(Box::new(job))).await;
            }
            self.report(Report::CallFinished).await;
        }
    }

    fn drain(&mut self) {
        let cancel = matches!(&self.state, State::Serving(declared) if declared.cancel);
        self.state = State::Draining { cancel, due: None };
    }

    /// Acts on a worker that gets no more calls. The stdin of a draining one whose calls no caller
    /// waits for is closed once the send buffer is empty. Its exit deadline starts with the last
    /// answer, even if it has not read all that it was sent.
    fn close_when_done(&mut self) {
        if self.stdin_closed && !self.calls.has_waiting() {
            let due = Instant::now() + CLOSED_PIPE_TIMEOUT;
            self.stdin_closed_deadline.get_or_insert(due);
        }
        if let State::Draining { due, .. } = &mut self.state
            && !self.calls.has_waiting()
        {
            due.get_or_insert(Instant::now() + stop::time_at_eof(self.settings.kill_grace));
            if self.input.is_flushed() {
                self.input.close();
            }
        }
    }
}

async fn sleep_until_due(next: Option<(Instant, Due)>) -> Due {
    let Some((at, due)) = next else { return std::future::pending().await };
    sleep_until(at).await;
    due
}
