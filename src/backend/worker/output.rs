//! What a worker writes: its answers, its log lines, text that does not belong there, and EOF.

use std::ops::ControlFlow;

use tokio::time::{Instant, timeout_at};
use tracing::Level;

use super::super::pipes::OutputEvent;
use super::super::process::{Child, DRAIN_TIMEOUT, Exit};
use super::stop::StopReason;
use super::{
    CLOSED_PIPE_TIMEOUT, MAX_UNREAD_REPLIES, REPLIES_NOT_READ, Report, State, UnreadReplies,
    Worker, answer,
};
use crate::frame::{FrameError, Stray};
use crate::logging::{HookLine, logs_hook_lines};
use crate::rpc::{self, Declared, Incoming, LogLine, Outcome};
use crate::text::{MAX_LINE_BYTES, hook_line};

impl<C: Child> Worker<C> {
    pub(super) async fn on_output(&mut self, event: OutputEvent) -> ControlFlow<StopReason> {
        let message = match event {
            OutputEvent::Stray(stray) => {
                self.messages.count(stray.bytes);
                self.log_stray(&stray);
                return ControlFlow::Continue(());
            }
            OutputEvent::Malformed(what) => return ControlFlow::Break(StopReason::Protocol(what)),
            OutputEvent::Message(message) => message,
        };
        if !matches!(message, Incoming::Response { .. }) {
            self.messages.count(self.output.frame_bytes());
        }
        match message {
            Incoming::Log(line) => self.log(&line),
            Incoming::Request { id } => return self.reject_request(&id),
            Incoming::Ignored => {}
            Incoming::Response { id: 1, outcome }
                if matches!(self.state, State::Starting { .. }) =>
            {
                match Declared::read(&outcome) {
                    Ok(declared) => {
                        tracing::debug!(
                            pid = self.process.pid(), worker = %self.command,
                            program = declared.program.as_ref().map(tracing::field::display),
                            sdk = declared.sdk.as_ref().map(tracing::field::display),
                            "the worker is ready"
                        );
                        self.state = State::Serving(declared.clone());
                        self.report(Report::Ready(declared)).await;
                        if self.stdin_closed {
                            self.report(Report::Stopping).await;
                        }
                    }
                    Err(fault) => {
                        return ControlFlow::Break(StopReason::Protocol(fault.to_string()));
                    }
                }
            }
            // The pool stopped it before it answered `initialize`.
            Incoming::Response { id: 1, .. } if self.last_request == 1 => {}
            Incoming::Response { id, outcome } => return self.on_response(id, &outcome),
        }
        ControlFlow::Continue(())
    }

    /// Replies to a request with an error: there are none that a worker may send.
    fn reject_request(&mut self, id: &str) -> ControlFlow<StopReason> {
        let due = Instant::now() + self.settings.kill_grace;
        let unread = self.unread.get_or_insert(UnreadReplies { count: 0, due });
        unread.count += 1;
        if unread.count > MAX_UNREAD_REPLIES {
            return ControlFlow::Break(StopReason::Protocol(REPLIES_NOT_READ.to_owned()));
        }
        if self.input.is_open() {
            self.input.push(|send_buffer| rpc::send_method_not_found(send_buffer, id));
        }
        ControlFlow::Continue(())
    }

    /// Passes the worker's answer on, unless the caller has left or was answered already.
    fn on_response(&mut self, id: u64, outcome: &Outcome) -> ControlFlow<StopReason> {
        let Some(call) = self.calls.settle(id) else {
            let what = format!("a response to request {id}, which is not open");
            return ControlFlow::Break(StopReason::Protocol(what));
        };
        if call.job.is_answered() {
            call.job.span().in_scope(|| tracing::debug!("discarded a late answer"));
            return ControlFlow::Continue(());
        }
        match answer::read(call.job.call(), outcome, self.settings.checks) {
            Err(failure) if answer::is_retryable(outcome) => call.retry_after(failure),
            result => call.job.answer(result),
        }
        ControlFlow::Continue(())
    }

    /// Reads what a worker that has exited left in its pipe, and returns how its output ended.
    pub(super) async fn drain_output(&mut self) -> ControlFlow<StopReason, FrameError> {
        // Its child processes that hold the pipe open are killed with its group. Processes outside
        // the group are not waited for.
        self.process.kill_group();
        let limit = Instant::now() + DRAIN_TIMEOUT;
        loop {
            match timeout_at(limit, self.output.next()).await {
                Ok(Ok(event)) => {
                    self.on_output(event).await?;
                    self.messages.end_turn().await;
                }
                Ok(Err(error)) => return ControlFlow::Continue(error),
                Err(_) => return ControlFlow::Continue(FrameError::Ended),
            }
        }
    }

    /// Returns why to stop a worker whose output ended, mostly because it is exiting.
    pub(super) async fn on_output_end(&mut self, error: &FrameError) -> StopReason {
        match self.process.wait_for(CLOSED_PIPE_TIMEOUT).await {
            Some(exit) => self.stop_reason(exit, error),
            None => StopReason::Protocol(error.to_string()),
        }
    }

    /// Returns why a worker exited, given how its output ended.
    pub(super) fn stop_reason(&self, exit: Exit, output: &FrameError) -> StopReason {
        match output {
            FrameError::Ended
                if matches!(self.state, State::Draining { .. })
                    && !self.stdin_closed
                    && !self.calls.has_waiting() =>
            {
                StopReason::Requested
            }
            FrameError::Ended => StopReason::Exited(exit),
            // A crash may leave half a frame, and explains it.
            FrameError::Torn { .. } | FrameError::MissingAttachment if !exit.success() => {
                StopReason::Exited(exit)
            }
            error => StopReason::Protocol(format!("{error}; then it {exit}")),
        }
    }

    fn log_stray(&self, stray: &Stray) {
        tracing::warn!(
            pid = self.process.pid(), worker = %self.command, bytes = stray.bytes,
            lines = stray.lines(),
            "skipped text on the worker's stdout, which is for frames only: {stray}; {}",
            stray.advice()
        );
    }

    fn log(&mut self, line: &LogLine) {
        let level = match line.level.as_str() {
            "debug" => Level::DEBUG,
            "warning" => Level::WARN,
            "error" => Level::ERROR,
            _ => Level::INFO,
        };
        let bytes = line.message.len().min(MAX_LINE_BYTES) + line.fields.bytes();
        if !logs_hook_lines(level) || !self.log_limit.admits(bytes) {
            return;
        }
        let line = HookLine {
            level,
            span: line.id.and_then(|id| self.calls.span_of(id)),
            worker: &self.command.to_string(),
            pid: self.process.pid(),
            fields: &line.fields,
            text: &hook_line(line.message.as_bytes(), 0),
        };
        line.log();
    }
}
