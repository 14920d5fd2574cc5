//! The test's side of a child: it reads calls, replies, and misbehaves.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;

use bytes::BytesMut;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::child::{Holder, Shared, State, StdinRecord, killed_by};
use super::{PIPE_BYTES, frame, settle, soon};
use crate::backend::process::Exit;

/// A message that the shim sent with an id.
#[derive(Debug)]
pub(in crate::backend) struct Request {
    pub(in crate::backend) id: u64,
    pub(in crate::backend) method: String,
    pub(in crate::backend) attempt: u64,
    pub(in crate::backend) domain: String,
}

impl Request {
    pub(in crate::backend) fn of(message: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Self {
            id: message["id"].as_u64().unwrap_or_else(|| panic!("{message}")),
            method: text(&message["method"]),
            attempt: message["params"]["invocation"]["attempt"].as_u64().unwrap_or_default(),
            domain: text(&message["params"]["domain"]),
        }
    }
}

/// The test's side of a child. Dropped, it closes its pipes.
pub(in crate::backend) struct FakeWorker {
    pub(super) shared: Arc<Shared>,
    /// The arguments of an argv-style program.
    pub(in crate::backend) documents: Vec<(&'static str, Vec<u8>)>,
    pub(super) stdin: Option<DuplexStream>,
    pub(super) stdout: Option<DuplexStream>,
    pub(super) unread: BytesMut,
}

impl Drop for FakeWorker {
    fn drop(&mut self) {
        self.shared.change(|state| state.stdin_is_closed = true);
    }
}

impl FakeWorker {
    /// Reads a frame, or EOF. Cancel safe.
    pub(in crate::backend) async fn try_frame(&mut self) -> Option<BytesMut> {
        loop {
            if let Some(header) = self.unread.first_chunk() {
                let end = 4 + u32::from_be_bytes(*header) as usize;
                if self.unread.len() >= end {
                    return Some(self.unread.split_to(end).split_off(4));
                }
            }
            let mut step = [0; PIPE_BYTES];
            let count = self.read(&mut step).await;
            self.unread.extend_from_slice(&step[..count]);
            if count == 0 {
                let whole = self.unread.is_empty() || self.has_exited();
                assert!(whole, "the shim leaves half a frame only to a dead child");
                return None;
            }
        }
    }

    /// Reads what is in the pipe, up to the length of `into`. Returns 0 at EOF, and once it has
    /// exited. Waits forever if it has closed its stdin. Cancel safe.
    pub(in crate::backend) async fn read(&mut self, into: &mut [u8]) -> usize {
        let Some(stdin) = &mut self.stdin else { return std::future::pending().await };
        if self.shared.state().exit.is_some() {
            return 0;
        }
        let count = stdin.read(into).await.unwrap();
        // It may have been killed meanwhile; then it has read nothing.
        let mut state = self.shared.state();
        if state.exit.is_some() {
            return 0;
        }
        state.read += count;
        count
    }

    pub(in crate::backend) async fn frame(&mut self) -> BytesMut {
        soon(self.try_frame()).await.expect("the shim has closed stdin")
    }

    pub(in crate::backend) async fn message(&mut self) -> Value {
        serde_json::from_slice(&self.frame().await).unwrap()
    }

    pub(in crate::backend) async fn request(&mut self) -> Request {
        Request::of(&self.message().await)
    }

    /// Answers `initialize`.
    pub(in crate::backend) async fn initialize(&mut self, capabilities: Value) {
        self.initialize_with(&["onDefineDomain", "preVMStart"], capabilities).await;
    }

    pub(in crate::backend) async fn initialize_with(
        &mut self,
        hooks: &[&str],
        capabilities: Value,
    ) {
        let request = self.request().await;
        assert_eq!(request.method, "initialize");
        self.answer_initialize(request.id, hooks, capabilities).await;
    }

    pub(in crate::backend) async fn answer_initialize(
        &mut self,
        id: u64,
        hooks: &[&str],
        capabilities: Value,
    ) {
        let result = json!({"protocolVersion": 1, "hooks": hooks, "capabilities": capabilities});
        self.send(json!({"id": id, "result": result})).await;
    }

    /// Asserts that the shim closes stdin, with nothing before it.
    pub(in crate::backend) async fn stdin_closes(&mut self) {
        let frame = soon(self.try_frame()).await;
        assert_eq!(frame, None, "the shim sent this before it closed stdin");
    }

    pub(in crate::backend) async fn write(&mut self, bytes: &[u8]) {
        let Some(stdout) = &mut self.stdout else { return };
        let written = soon(stdout.write_all(bytes)).await;
        assert!(written.is_ok() || self.has_exited(), "the shim does not read");
    }

    pub(in crate::backend) async fn send(&mut self, mut message: Value) {
        message["jsonrpc"] = json!("2.0");
        self.write(&frame(message.to_string().as_bytes())).await;
    }

    /// Sends requests, which it may not, and reads no replies, until the last one does not fit into
    /// the pipe.
    pub(in crate::backend) async fn asks_until_the_pipe_is_full(&mut self) {
        let request = json!({"id": "q".repeat(60), "method": "shim/ask"});
        self.send(request.clone()).await;
        let reply = 4 + self.frame().await.len();
        for _ in 0..=PIPE_BYTES / reply {
            settle().await;
            self.send(request.clone()).await;
        }
        settle().await;
    }

    /// Answers a call with a domain that says so.
    pub(in crate::backend) async fn reply(&mut self, id: u64, text: &str) {
        let domain = format!("<domain>{text}</domain>");
        self.send(json!({"id": id, "result": {"domain": domain}})).await;
    }

    /// Answers with an error that another worker may not have.
    pub(in crate::backend) async fn fail_retryably(&mut self, id: u64) {
        let data = json!({"retryable": true});
        let error = json!({"code": -32000, "message": "the database is away", "data": data});
        self.send(json!({"id": id, "error": error})).await;
    }

    pub(in crate::backend) fn prints_to_stderr(&self, line: &str) {
        self.shared.stderr.write(&format!("{line}\n"));
    }

    /// Whether a line of some bytes fits into the pipe.
    pub(in crate::backend) fn stderr_has_space(&self) -> bool {
        self.shared.stderr.has_space()
    }

    /// Writes half a line.
    pub(in crate::backend) fn begins_a_line_on_stderr(&self, text: &str) {
        self.shared.stderr.write(text);
    }

    pub(in crate::backend) fn closes_stdin(&mut self) {
        self.stdin = None;
        self.shared.change(|state| state.stdin_is_closed = true);
    }

    /// Another process has inherited its stdin.
    pub(in crate::backend) fn shares_stdin(&self) {
        self.shared.change(|state| state.stdin_is_held = true);
    }

    pub(in crate::backend) fn closes_stdout(&mut self) {
        self.stdout = None;
    }

    pub(in crate::backend) fn ignores_sigterm(&self) {
        self.shared.change(|state| state.ignores_sigterm = true);
    }

    pub(in crate::backend) fn ignores_sigkill(&self) {
        self.shared.change(|state| {
            (state.ignores_sigterm, state.ignores_sigkill) = (true, true);
        });
    }

    pub(in crate::backend) fn panics_with_the_next_call(&self) {
        self.shared.change(|state| state.panics = true);
    }

    /// Waits for SIGTERM.
    pub(in crate::backend) async fn terminated(&self) {
        self.wait_for(|state| state.terminated).await;
    }

    /// Waits for SIGKILL.
    pub(in crate::backend) async fn killed(&self) {
        self.wait_for(|state| state.killed).await;
    }

    /// Waits for the exit.
    pub(in crate::backend) fn gone(&self) -> impl Future<Output = ()> + use<> {
        let shared = self.shared.clone();
        async move { shared.until(|state| state.exit.is_some()).await }
    }

    async fn wait_for(&self, is: impl Fn(&State) -> bool) {
        soon(self.shared.until(is)).await;
    }

    /// Whether the shim has sent SIGTERM or SIGKILL.
    pub(in crate::backend) fn was_signalled(&self) -> bool {
        let state = self.shared.state();
        state.terminated || state.killed
    }

    pub(in crate::backend) fn has_exited(&self) -> bool {
        self.shared.state().exit.is_some()
    }

    /// Waits until the shim has written what it has not read.
    pub(in crate::backend) fn arrived(&self) -> impl Future<Output = ()> + use<> {
        let shared = self.shared.clone();
        async move { shared.until(|state| state.input.len() > state.read).await }
    }

    /// Returns a view of its stdin.
    pub(in crate::backend) fn stdin_record(&self) -> StdinRecord {
        StdinRecord(self.shared.clone())
    }

    /// Something else than the shim kills it.
    pub(in crate::backend) fn is_killed(&self) {
        self.shared.exit(killed_by(9));
    }

    pub(in crate::backend) fn exit(self, status: i32) {
        self.exits(status);
    }

    /// Exits. Its pipes close when it is dropped.
    pub(in crate::backend) fn exits(&self, status: i32) {
        let exit = Exit::Status(ExitStatus::from_raw(status << 8));
        self.shared.exit(exit);
    }

    /// Exits, while another process holds its stdout.
    pub(in crate::backend) fn exit_with_stdout_held(
        mut self,
        status: i32,
        holder: Holder,
    ) -> DuplexStream {
        self.shared.change(|state| state.stdout_is_held = Some(holder));
        let held = self.stdout.take().unwrap();
        self.exit(status);
        held
    }
}
