//! One worker: a child that speaks the worker protocol, and the task that owns its pipes.
//!
//! # Theory of operation
//! The pool sends [`Job`]s to the task and hears [`Report`]s from it; nobody else touches the
//! pipes, so a call that is given up never leaves half a frame behind. The task waits for the
//! next event (output, room to write, a job, a caller that left, a time, an exit) and moves the
//! worker's [`Life`] on. Output is read whatever else is going on, so a worker that writes
//! before it has read its call blocks nobody.
//!
//! A call that reaches its deadline is answered at once. The worker then has the kill grace to
//! end it: a late answer is thrown away and the worker kept, otherwise its process group is
//! ended. A call whose caller has left takes the same path.
//!
//! When the task ends, the child is reaped, and every call that it held is answered or goes back
//! to the pool, as do jobs that were never sent.

pub(super) mod answer;
mod calls;
mod end;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Buf;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use self::calls::Calls;
use self::end::End;
use super::config::Settings;
use super::job::Job;
use super::pipes::{Heard, Output, write_all};
use super::process::{CommandLine, Exit, Launch, Process, Stdin};
use crate::error::HookFailure;
use crate::frame::{FrameError, Outbox, Stray};
use crate::hook::HookName;
use crate::rpc::{self, Declared, Incoming, LogLine, Outcome};
use crate::text::clip;

/// How long the last messages of a dead worker are awaited, which are in the pipe already, and the
/// exit of one that has closed its output.
const LAST_WORDS_LIMIT: Duration = Duration::from_millis(500);

/// Maximum number of unread error replies. Workers must not send requests; one that keeps sending
/// them without reading the replies is broken.
const MAX_UNREAD_REPLIES: usize = 64;

/// What breaks the protocol when there are more.
const REPLIES_NOT_READ: &str = "it sends requests, and does not read the answers";

/// A line of `$/log` is cut here, as lines of standard error are.
const MAX_LOG_BYTES: usize = 8 * 1024;

/// Tells workers of one pool apart.
pub(super) type WorkerId = u64;

/// What the pool hears from a worker while it lives.
pub(super) enum Report {
    /// It has answered `initialize`.
    Ready(Declared),
    /// The call that it was given last is in its pipe. Told only by workers that take several.
    Taken,
    /// One of its calls is over.
    Freed {
        /// The worker asks that the call be tried elsewhere.
        again: Option<Box<Job>>,
    },
    /// It is being ended, which takes a while.
    Leaving {
        /// Calls that are to be tried once more.
        again: Vec<Job>,
    },
}

/// How a worker's life ended. Its process was reaped.
pub(super) struct Ending {
    pub(super) cause: Cause,
    /// Jobs that it was given and has not begun.
    pub(super) unsent: Vec<Job>,
    /// Calls that are to be tried once more.
    pub(super) again: Vec<Job>,
}

/// Why a worker ended, as far as the pool acts on it.
pub(super) enum Cause {
    /// It was told to.
    Told,
    /// It exited with status 0 while it had nothing to do.
    Quiet,
    /// It ended over a call, and the call's error says so.
    Call,
    /// It failed while it had nothing to do.
    Idle(String),
    /// It never came up.
    Start(String),
}

/// Starts a worker, and returns when it has ended.
pub(super) async fn run(
    id: WorkerId,
    command: CommandLine,
    settings: Arc<Settings>,
    mut jobs: mpsc::Receiver<Job>,
    reports: mpsc::Sender<(WorkerId, Report)>,
) -> Ending {
    let reporter = Reporter { id, reports };
    let mut ending = match Worker::spawn(command, settings, reporter) {
        Ok(mut worker) => {
            let end = loop {
                let event = worker.next_event(&mut jobs).await;
                if let ControlFlow::Break(end) = worker.handle(event).await {
                    break end;
                }
            };
            worker.finish(end).await
        }
        Err(fault) => Ending { cause: Cause::Start(fault), unsent: Vec::new(), again: Vec::new() },
    };
    jobs.close();
    while let Ok(job) = jobs.try_recv() {
        ending.unsent.push(job);
    }
    ending
}

#[derive(Clone)]
struct Reporter {
    id: WorkerId,
    reports: mpsc::Sender<(WorkerId, Report)>,
}

impl Reporter {
    async fn report(&self, report: Report) {
        // The pool outlives its workers; if it did not, there would be nobody to tell.
        let _ = self.reports.send((self.id, report)).await;
    }
}

/// Where a worker stands.
enum Life {
    /// `initialize` was sent; its answer is due.
    Starting { due: Instant },
    /// It takes calls.
    Serving(Declared),
    /// It takes no more calls. Once those that it has are over, its standard input is closed,
    /// and then its exit is due.
    Draining { cancel: bool, due: Option<Instant> },
}

/// What a worker's task waits for.
enum Event {
    Heard(Result<Heard, FrameError>),
    Written(std::io::Result<()>),
    Job(Option<Job>),
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
}

/// Error replies to the worker's own requests that may still be in the outbox.
#[derive(Clone, Copy)]
struct UnreadReplies {
    count: usize,
    /// Deadline for an otherwise idle worker to read them.
    due: Instant,
}

struct Worker {
    command: CommandLine,
    settings: Arc<Settings>,
    reporter: Reporter,
    process: Process,
    /// Gone when it was closed, by us or by the worker.
    stdin: Option<Stdin>,
    outbox: Outbox,
    unread: Option<UnreadReplies>,
    /// When a worker that closed its stdin is killed.
    stdin_closed_deadline: Option<Instant>,
    output: Output,
    life: Life,
    calls: Calls,
    /// The pool is to be told when what was put into the outbox is written.
    taking: bool,
    last_id: u64,
}

impl Worker {
    fn spawn(
        command: CommandLine,
        settings: Arc<Settings>,
        reporter: Reporter,
    ) -> Result<Self, String> {
        let launch = Launch {
            command: &command,
            documents: &[],
            protocol: Some(rpc::PROTOCOL_VERSION),
            context: None,
            stdin: true,
            hook: None,
            memory: settings.worker_memory,
        };
        let (process, pipes) = Process::spawn(&launch).map_err(|error| error.to_string())?;
        tracing::debug!(pid = process.pid(), worker = %command, "worker started");
        let mut outbox = Outbox::default();
        let last_id = 1;
        rpc::send_initialize(&mut outbox, last_id);
        let life = Life::Starting { due: Instant::now() + settings.start_timeout };
        let (stdin, output) = (pipes.stdin, Output::new(pipes.stdout));
        Ok(Self {
            command,
            settings,
            reporter,
            process,
            stdin,
            outbox,
            unread: None,
            stdin_closed_deadline: None,
            output,
            life,
            calls: Calls::default(),
            taking: false,
            last_id,
        })
    }

    /// Waits for whatever happens first. None of the branches loses anything when another wins.
    /// They are polled in random order: a worker that never stops writing must not starve the
    /// clock.
    async fn next_event(&mut self, jobs: &mut mpsc::Receiver<Job>) -> Event {
        let next_due = self.next_due();
        let takes_jobs = match &self.life {
            Life::Serving(declared) => {
                self.stdin.is_some()
                    && self.calls.len() < declared.concurrency
                    && !self.outbox.has_remaining()
            }
            // Only to hear that the pool has let go of it.
            Life::Starting { .. } => true,
            Life::Draining { .. } => false,
        };
        let Self { output, stdin, outbox, process, calls, .. } = self;
        tokio::select! {
            heard = output.next() => Event::Heard(heard),
            written = write_all(stdin.as_mut(), outbox) => Event::Written(written),
            exit = process.wait() => Event::Exited(exit),
            left = calls.caller_left() => Event::CallerLeft(left),
            job = jobs.recv(), if takes_jobs => Event::Job(job),
            due = sleep_until_due(next_due) => Event::Due(due),
        }
    }

    /// Returns the earliest time at which something is due without another event.
    fn next_due(&self) -> Option<(Instant, Due)> {
        let state = match &self.life {
            Life::Starting { due } => Some((*due, Due::Start)),
            Life::Serving(_) => None,
            Life::Draining { due, .. } => due.map(|due| (due, Due::Exit)),
        };
        let stdin_closed = self.stdin_closed_deadline.map(|due| (due, Due::StdinClosed));
        // A worker that has a call may read them after it: the call's deadline counts.
        let unread = self.unread.filter(|_| self.calls.is_empty());
        let unread = unread.map(|unread| (unread.due, Due::UnreadReplies));
        [state, stdin_closed, unread, self.calls.next_due()]
            .into_iter()
            .flatten()
            .min_by_key(|(at, _)| *at)
    }

    async fn handle(&mut self, event: Event) -> ControlFlow<End> {
        match event {
            Event::Heard(Ok(heard)) => self.hear(heard).await?,
            Event::Heard(Err(error)) => {
                return ControlFlow::Break(self.end_of_output(&error).await);
            }
            Event::Written(Ok(())) => {}
            Event::Written(Err(_)) => {
                // It has closed its standard input, or is dying. What it still has to say is
                // read, for a moment; it gets no more calls.
                self.stdin = None;
                self.outbox = Outbox::default();
                self.stdin_closed_deadline = Some(Instant::now() + LAST_WORDS_LIMIT);
            }
            Event::Job(Some(job)) => self.begin(job).await,
            Event::Job(None) => self.drain(),
            Event::CallerLeft(id) => {
                let hook = self.calls.hook_of(id).map(tracing::field::display);
                tracing::info!(hook, call = id, "the caller left before the hook had answered");
                self.give_up(id, None);
            }
            Event::Due(due) => self.on_due(due)?,
            Event::Exited(exit) => {
                let error = self.hear_last_words().await?;
                return ControlFlow::Break(self.exited(exit, &error));
            }
        }
        self.release().await;
        self.close_when_done();
        ControlFlow::Continue(())
    }

    /// Sends a call to the worker.
    async fn begin(&mut self, mut job: Job) {
        let Life::Serving(declared) = &self.life else {
            // The pool sends jobs to workers that are ready, and this one was.
            job.refuse(HookFailure::Unavailable("its worker is stopping".to_owned()));
            return;
        };
        self.taking = declared.concurrency > 1;
        if job.is_closed() {
            self.skip().await;
            return;
        }
        let left = job.deadline().saturating_duration_since(Instant::now());
        let invocation = rpc::Invocation {
            deadline_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
            attempt: job.attempt(),
        };
        let id = self.last_id + 1;
        let attach = declared.attachments;
        if let Err(bytes) = rpc::send_call(&mut self.outbox, id, job.call(), attach, invocation) {
            let what = format!(
                "the call would be {bytes} bytes long and a frame of the worker protocol holds \
                 at most {} bytes",
                crate::frame::MAX_FRAME_BYTES
            );
            job.answer(Err(HookFailure::TooLarge(what)));
            self.skip().await;
            return;
        }
        self.last_id = id;
        self.process.note_call(job.hook(), id, self.calls.is_empty());
        self.output.begin_call();
        self.calls.push(id, job);
    }

    /// Tells the pool that the call which it gave last is over before it was begun.
    async fn skip(&mut self) {
        if std::mem::take(&mut self.taking) {
            self.reporter.report(Report::Taken).await;
        }
        self.reporter.report(Report::Freed { again: None }).await;
    }

    async fn hear(&mut self, heard: Heard) -> ControlFlow<End> {
        match heard {
            Heard::Stray(stray) => self.log_stray(&stray),
            Heard::Malformed(what) => return ControlFlow::Break(End::Broke(what)),
            Heard::Message(Incoming::Log(line)) => self.log(&line),
            Heard::Message(Incoming::Request { id }) => {
                let due = Instant::now() + self.settings.kill_grace;
                let unread = self.unread.get_or_insert(UnreadReplies { count: 0, due });
                unread.count += 1;
                if unread.count > MAX_UNREAD_REPLIES {
                    return ControlFlow::Break(End::Broke(REPLIES_NOT_READ.to_owned()));
                }
                if self.stdin.is_some() {
                    rpc::send_method_not_found(&mut self.outbox, &id);
                }
            }
            Heard::Message(Incoming::Ignored) => {}
            Heard::Message(Incoming::Response { id: 1, outcome })
                if matches!(self.life, Life::Starting { .. }) =>
            {
                match Declared::read(&outcome) {
                    Ok(declared) => {
                        self.life = Life::Serving(declared.clone());
                        self.reporter.report(Report::Ready(declared)).await;
                    }
                    Err(fault) => return ControlFlow::Break(End::Broke(fault.to_string())),
                }
            }
            // It was told to end before it had answered `initialize`.
            Heard::Message(Incoming::Response { id: 1, .. }) if self.last_id == 1 => {}
            Heard::Message(Incoming::Response { id, outcome }) => self.settle(id, &outcome)?,
        }
        ControlFlow::Continue(())
    }

    /// Passes the worker's answer on, unless the caller has gone, or was answered already.
    fn settle(&mut self, id: u64, outcome: &Outcome) -> ControlFlow<End> {
        let Some(call) = self.calls.settle(id) else {
            return ControlFlow::Break(End::Broke(format!(
                "a response to request {id}, which is not open"
            )));
        };
        if call.job.is_answered() {
            tracing::debug!(hook = %call.job.hook(), call = id, "a late answer is thrown away");
            return ControlFlow::Continue(());
        }
        let answer = answer::read(call.job.call(), outcome, self.settings.checks);
        match answer {
            Err(error) if answer::is_retryable(outcome) => call.fail_retryably(error),
            answer => call.job.answer(answer),
        }
        ControlFlow::Continue(())
    }

    /// Frees the slots of calls that the worker has answered. A call that it answered without
    /// having read it to its end keeps its slot until it has.
    async fn release(&mut self) {
        if self.outbox.has_remaining() {
            return;
        }
        self.unread = None;
        if std::mem::take(&mut self.taking) {
            self.reporter.report(Report::Taken).await;
        }
        let settled: Vec<_> = self.calls.take_settled().collect();
        for call in settled {
            let again = call.again().map(Box::new);
            self.reporter.report(Report::Freed { again }).await;
        }
    }

    fn drain(&mut self) {
        let cancel = matches!(&self.life, Life::Serving(declared) if declared.cancel);
        self.life = Life::Draining { cancel, due: None };
    }

    /// Tells a draining worker to end, once nothing is owed to it or by it. From its last call on
    /// its exit is due, whether or not it has read all that it was sent.
    fn close_when_done(&mut self) {
        if let Life::Draining { due, .. } = &mut self.life
            && self.calls.is_empty()
        {
            due.get_or_insert(Instant::now() + self.settings.kill_grace);
            if !self.outbox.has_remaining() {
                self.stdin = None;
            }
        }
    }

    fn on_due(&mut self, due: Due) -> ControlFlow<End> {
        let id = match due {
            Due::Start => return ControlFlow::Break(End::StartTimeout),
            Due::Exit => return ControlFlow::Break(End::Drained),
            Due::StdinClosed => {
                return ControlFlow::Break(End::Broke("it closed its standard input".to_owned()));
            }
            Due::UnreadReplies => {
                return ControlFlow::Break(End::Broke(REPLIES_NOT_READ.to_owned()));
            }
            Due::Call(id) => id,
        };
        let Some(call) = self.calls.get_mut(id) else { return ControlFlow::Continue(()) };
        if call.job.is_answered() {
            return ControlFlow::Break(End::Overdue);
        }
        let failure = HookFailure::Deadline {
            program: self.command.to_string(),
            after: call.job.deadline() - call.job.accepted(),
            stderr: self.process.stderr_so_far(),
        };
        self.give_up(id, Some(failure));
        ControlFlow::Continue(())
    }

    /// Gives the worker the grace to end a call that nobody waits for any more.
    fn give_up(&mut self, id: u64, failure: Option<HookFailure>) {
        let due = Instant::now() + self.settings.kill_grace;
        let Some(call) = self.calls.get_mut(id) else { return };
        call.give_up(failure, due);
        let can_cancel = match &self.life {
            Life::Serving(declared) => declared.cancel,
            Life::Draining { cancel, .. } => *cancel,
            Life::Starting { .. } => false,
        };
        if can_cancel && call.is_open() && self.stdin.is_some() {
            rpc::send_cancel(&mut self.outbox, id);
        }
    }

    /// Reads what a worker that has exited has left in its pipe, and returns how that ends.
    async fn hear_last_words(&mut self) -> ControlFlow<End, FrameError> {
        // Whoever else has the pipe open is in the group, or is waited for no longer than this.
        self.process.kill_group();
        let limit = Instant::now() + LAST_WORDS_LIMIT;
        loop {
            match tokio::time::timeout_at(limit, self.output.next()).await {
                Ok(Ok(heard)) => self.hear(heard).await?,
                Ok(Err(error)) => return ControlFlow::Continue(error),
                Err(_) => return ControlFlow::Continue(FrameError::Ended),
            }
        }
    }

    /// The output has ended, mostly because the worker has.
    async fn end_of_output(&mut self, error: &FrameError) -> End {
        match self.process.wait_for(LAST_WORDS_LIMIT).await {
            Some(exit) => self.exited(exit, error),
            None => End::Broke(error.to_string()),
        }
    }

    /// What the end of a worker is, given how its output ended.
    fn exited(&self, exit: Exit, output: &FrameError) -> End {
        match output {
            FrameError::Ended
                if matches!(self.life, Life::Draining { .. }) && self.calls.is_empty() =>
            {
                End::Drained
            }
            FrameError::Ended => End::Exited(exit),
            // Half a frame is what a crash leaves; that it crashed says more.
            FrameError::Torn { .. } | FrameError::MissingAttachment if !exit.success() => {
                End::Exited(exit)
            }
            error => End::Broke(format!("{error}; then it {exit}")),
        }
    }

    fn log_stray(&self, stray: &Stray) {
        tracing::warn!(
            pid = self.process.pid(), worker = %self.command, bytes = stray.bytes, text = %stray,
            "skipped text on the worker's standard output, which is for frames only; print to \
             standard error, use an SDK, or run the hook with --mode exec"
        );
    }

    fn log(&self, line: &LogLine) {
        let text = clip(&line.message, MAX_LOG_BYTES);
        let hook = line.id.and_then(|id| self.calls.hook_of(id)).map(HookName::as_str);
        let (pid, call) = (self.process.pid(), line.id);
        let worker = self.command.to_string();
        match line.level.as_str() {
            "debug" => tracing::debug!(target: "hook", hook, worker, pid, call, "{text}"),
            "warning" => tracing::warn!(target: "hook", hook, worker, pid, call, "{text}"),
            "error" => tracing::error!(target: "hook", hook, worker, pid, call, "{text}"),
            _ => tracing::info!(target: "hook", hook, worker, pid, call, "{text}"),
        }
    }
}

async fn sleep_until_due(next: Option<(Instant, Due)>) -> Due {
    let Some((at, due)) = next else { return std::future::pending().await };
    sleep_until(at).await;
    due
}
