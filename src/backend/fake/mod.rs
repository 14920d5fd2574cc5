//! A child process that is played by a test: it reads and writes through in-memory pipes, and exits
//! when the test lets it. The tests pause the clock, so none of them takes real time.

mod log;
mod stderr;

use std::os::unix::process::ExitStatusExt;
use std::pin::Pin;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex,
};
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;
use tracing::Span;

pub(super) use self::log::Logged;
use self::stderr::FakeStderr;
use super::config::Settings;
use super::process::stderr::Stderr;
use super::process::{
    Child, CommandLine, DRAIN_TIMEOUT, Exit, Launch, Pipes, Sharing, Spawn, SpawnError, StdinPipe,
};
use crate::admission::{Load, Memory};
use crate::error::{HookResult, LastLines};
use crate::hook::{Checks, HookCall, HookName};

/// Less than Linux's pipes hold, so that little fills them.
pub(super) const PIPE_BYTES: usize = 4 * 1024;

/// Limit for each wait of a test. The paused clock reaches it at once if nothing else can happen.
const LIMIT: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) const SECOND: Duration = Duration::from_secs(1);

pub(super) const KILL_GRACE: Duration = Duration::from_secs(2);

/// The domain that calls send.
pub(super) const DOMAIN: &str = "<domain>sent</domain>";

/// Puts a message into a frame.
pub(super) fn frame(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&length[..], message].concat()
}

/// Waits for something that must happen.
pub(super) async fn soon<T>(happens: impl Future<Output = T>) -> T {
    timeout(LIMIT, happens).await.expect("this never happens")
}

/// Lets all other tasks run until each of them waits. The clock stands still.
pub(super) async fn settle() {
    // More turns than any chain of messages between the tasks of a test needs.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

pub(super) fn settings() -> Settings {
    Settings {
        min_workers: 0,
        max_workers: 4,
        idle_timeout: 300 * SECOND,
        queue: Load { calls: 256, bytes: 1 << 30 },
        max_requests: None,
        worker_memory: None,
        checks: Checks::WellFormed,
        start_timeout: 60 * SECOND,
        kill_grace: KILL_GRACE,
        memory: Memory::new(usize::MAX),
    }
}

pub(super) fn command() -> CommandLine {
    CommandLine::from_words(["fake-worker".into()]).unwrap()
}

/// A call that may be repeated.
pub(super) fn domain_call() -> HookCall {
    domain_call_with(DOMAIN.into())
}

pub(super) fn domain_call_with(domain: Bytes) -> HookCall {
    HookCall::on_define_domain(&Bytes::from_static(b"{}"), "domainXML", domain).unwrap()
}

/// A call that may not be repeated.
pub(super) fn node_call() -> HookCall {
    let hook = HookName::NODE_HOOKS[0].clone();
    HookCall::node_hook(hook, &Bytes::from_static(b"{}"), "node01".to_owned()).unwrap()
}

/// The domain that a call returned.
pub(super) fn domain(result: HookResult) -> String {
    let reply = result.unwrap_or_else(|failure| panic!("{failure}"));
    String::from_utf8(reply.or(DOMAIN.into()).to_vec()).unwrap()
}

/// The text of the failure that a call returned.
pub(super) fn failure(result: HookResult) -> String {
    result.map(|_| "a reply").expect_err("it should fail").to_string()
}

/// What the shim has written to the stdin of a child.
pub(super) struct StdinRecord(Arc<Shared>);

impl StdinRecord {
    /// Calls a function with all that was written, and with how much of it the child has read.
    pub(super) fn with<T>(&self, look: impl FnOnce(&[u8], usize) -> T) -> T {
        let state = self.0.state();
        look(&state.input, state.read)
    }
}

/// Hands every child that is started to the test.
#[derive(Clone)]
pub(super) struct FakeSpawner {
    started: mpsc::Sender<FakeWorker>,
    last_pid: Arc<AtomicI32>,
    counts: Arc<Counts>,
}

/// What children there are.
#[derive(Default)]
pub(super) struct Counts {
    /// Number of children that the shim has not dropped.
    pub(super) alive: AtomicUsize,
    /// The maximum of that number.
    pub(super) most_alive: AtomicUsize,
    /// Which of the next starts fail, the last one first.
    pub(super) failures: Mutex<Vec<bool>>,
    /// Number of starts that have failed.
    pub(super) failed: AtomicUsize,
}

/// Where the test receives the children that were started.
pub(super) struct Started(mpsc::Receiver<FakeWorker>);

impl FakeSpawner {
    pub(super) fn new() -> (Self, Started) {
        let (started, workers) = mpsc::channel(1000);
        (Self { started, last_pid: Arc::default(), counts: Arc::default() }, Started(workers))
    }

    pub(super) fn counts(&self) -> Arc<Counts> {
        self.counts.clone()
    }
}

impl Started {
    pub(super) async fn next(&mut self) -> FakeWorker {
        soon(self.0.recv()).await.expect("the pool is gone")
    }

    /// Waits for the next child. `None` if the pool is gone.
    pub(super) async fn recv(&mut self) -> Option<FakeWorker> {
        self.0.recv().await
    }

    /// Returns a child that was started already.
    pub(super) fn try_next(&mut self) -> Option<FakeWorker> {
        self.0.try_recv().ok()
    }
}

impl Spawn for FakeSpawner {
    type Child = FakeChild;

    fn spawn(&self, launch: &Launch<'_>) -> Result<(FakeChild, Pipes<FakeChild>), SpawnError> {
        // Workers read calls from stdin; argv-style programs have none.
        assert_eq!(launch.protocol, launch.stdin.then_some("1"));
        let counts = &self.counts;
        if counts.failures.lock().unwrap().pop() == Some(true) {
            counts.failed.fetch_add(1, Ordering::Relaxed);
            return Err(SpawnError::CannotRun("cannot run fake-worker".to_owned()));
        }
        let pid = self.last_pid.fetch_add(1, Ordering::Relaxed) + 1;
        let shared = Arc::new(Shared {
            pid,
            state: Mutex::default(),
            changed: Notify::new(),
            stderr: FakeStderr::default(),
            counts: counts.clone(),
        });
        let name = launch.command.to_string();
        let stderr = Stderr::start(shared.stderr.clone(), pid, name, launch.span.clone());
        let child = FakeChild { shared, stderr };
        let alive = counts.alive.fetch_add(1, Ordering::Relaxed) + 1;
        counts.most_alive.fetch_max(alive, Ordering::Relaxed);
        let (stdin, reads) = launch.stdin.then(|| duplex(PIPE_BYTES)).unzip();
        let stdin = stdin.map(|pipe| FakeStdin { pipe, shared: child.shared.clone() });
        let (stdout, writes) = duplex(PIPE_BYTES);
        let stdout = FakeStdout { pipe: stdout, shared: child.shared.clone() };
        let worker = FakeWorker {
            shared: child.shared.clone(),
            documents: launch.documents.iter().map(|(flag, text)| (*flag, text.to_vec())).collect(),
            stdin: reads,
            stdout: Some(writes),
            unread: BytesMut::new(),
        };
        let sent = self.started.try_send(worker);
        sent.map_err(|_| SpawnError::CannotRun("no more workers can be started".to_owned()))?;
        Ok((child, Pipes { stdin, stdout }))
    }
}

struct Shared {
    pid: i32,
    state: Mutex<State>,
    /// Notified when the state has changed. Unlike a `watch`, it wakes those who wait in the order
    /// in which they came, so that a test's course depends on nothing else.
    changed: Notify,
    stderr: FakeStderr,
    counts: Arc<Counts>,
}

#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a thing that can happen to a process")]
struct State {
    exit: Option<Exit>,
    terminated: bool,
    killed: bool,
    ignores_sigterm: bool,
    /// As if it were stuck in the kernel.
    ignores_sigkill: bool,
    /// The shim's next use of the child panics.
    panics: bool,
    /// Another process holds the pipe.
    stdout_is_held: Option<Holder>,
    /// All that the shim has written to its stdin.
    input: Vec<u8>,
    /// How much of that it has read.
    read: usize,
    stdin_is_closed: bool,
    /// Another process can read from it.
    stdin_is_held: bool,
}

impl State {
    fn has_stdin(&self) -> bool {
        self.stdin_is_held || !self.stdin_is_closed && self.exit.is_none()
    }
}

/// A process that holds the stdout of a child that has exited.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Holder {
    /// It is in the child's group, so SIGKILL reaches it.
    InGroup,
    OutsideGroup,
}

/// The shim's side of a child.
pub(super) struct FakeChild {
    shared: Arc<Shared>,
    stderr: Arc<Stderr<FakeStderr>>,
}

impl Child for FakeChild {
    type Stdin = FakeStdin;
    type Stdout = FakeStdout;

    fn pid(&self) -> i32 {
        self.shared.pid
    }

    fn begin_call(&self, span: Span, id: u64, sharing: Sharing) {
        let panics = self.shared.state().panics;
        assert!(!panics, "the test asked for this panic");
        self.stderr.begin_call(span, id, sharing);
    }

    async fn wait(&mut self) -> Exit {
        self.shared.until(|state| state.exit.is_some()).await;
        self.shared.state().exit.unwrap()
    }

    fn terminate(&mut self) {
        let ignores = self.shared.change(|state| {
            state.terminated = true;
            state.ignores_sigterm
        });
        if !ignores {
            self.shared.exit(killed_by(15));
        }
    }

    fn kill_group(&mut self) {
        self.shared.kill();
    }

    fn last_lines(&self, call: Option<u64>) -> LastLines {
        self.stderr.last(call)
    }

    async fn read_stderr_to_end(&mut self) {
        let exited = self.shared.state().exit.is_some();
        self.stderr.read_to_end(if exited { DRAIN_TIMEOUT } else { Duration::ZERO }).await;
    }

    fn detach_stderr(&mut self, grace: Duration) {
        self.stderr.close_within(grace);
    }
}

impl Drop for FakeChild {
    fn drop(&mut self) {
        self.stderr.close_within(DRAIN_TIMEOUT);
        self.shared.kill();
        self.shared.counts.alive.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state());
        self.changed.notify_waiters();
        result
    }

    /// Waits until the state is like this. Cancel safe.
    async fn until(&self, is: impl Fn(&State) -> bool) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if is(&self.state()) {
                return;
            }
            changed.await;
        }
    }

    fn kill(&self) {
        let ignores = self.change(|state| {
            state.killed = true;
            state.ignores_sigkill
        });
        if !ignores {
            self.exit(killed_by(9));
        }
    }

    fn exit(&self, exit: Exit) {
        self.stderr.close();
        self.change(|state| {
            state.exit.get_or_insert(exit);
        });
    }
}

fn killed_by(signal: i32) -> Exit {
    Exit::Status(ExitStatus::from_raw(signal))
}

/// The pipe that the shim reads. A child that was killed has closed its end.
pub(super) struct FakeStdout {
    pipe: DuplexStream,
    shared: Arc<Shared>,
}

impl AsyncRead for FakeStdout {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let read = Pin::new(&mut self.pipe).poll_read(context, buffer);
        let state = self.shared.state();
        let is_held = match state.stdout_is_held {
            Some(Holder::InGroup) => !state.killed,
            Some(Holder::OutsideGroup) => true,
            None => false,
        };
        if read.is_pending() && state.exit.is_some() && !is_held {
            return Poll::Ready(Ok(()));
        }
        Poll::Ready(ready!(read))
    }
}

/// The pipe that the shim writes to. As in a real one, what was not read stays there when the
/// reader is gone.
pub(super) struct FakeStdin {
    pipe: DuplexStream,
    shared: Arc<Shared>,
}

impl StdinPipe for FakeStdin {
    fn unread(&self) -> u64 {
        let state = self.shared.state();
        (state.input.len() - state.read) as u64
    }

    async fn closed(&self) {
        self.shared.until(|state| !state.has_stdin()).await;
    }
}

impl AsyncWrite for FakeStdin {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        if !self.shared.state().has_stdin() {
            return Poll::Ready(Err(std::io::ErrorKind::BrokenPipe.into()));
        }
        let written = ready!(Pin::new(&mut self.pipe).poll_write(context, bytes))?;
        self.shared.change(|state| state.input.extend_from_slice(&bytes[..written]));
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A message that the shim sent with an id.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) id: u64,
    pub(super) method: String,
    pub(super) attempt: u64,
    pub(super) domain: String,
}

impl Request {
    pub(super) fn of(message: &Value) -> Self {
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
pub(super) struct FakeWorker {
    shared: Arc<Shared>,
    /// The arguments of an argv-style program.
    pub(super) documents: Vec<(&'static str, Vec<u8>)>,
    stdin: Option<DuplexStream>,
    stdout: Option<DuplexStream>,
    unread: BytesMut,
}

impl Drop for FakeWorker {
    fn drop(&mut self) {
        self.shared.change(|state| state.stdin_is_closed = true);
    }
}

impl FakeWorker {
    /// Reads a frame, or EOF. Cancel safe.
    pub(super) async fn try_frame(&mut self) -> Option<BytesMut> {
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
    pub(super) async fn read(&mut self, into: &mut [u8]) -> usize {
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

    pub(super) async fn frame(&mut self) -> BytesMut {
        soon(self.try_frame()).await.expect("the shim has closed stdin")
    }

    pub(super) async fn message(&mut self) -> Value {
        serde_json::from_slice(&self.frame().await).unwrap()
    }

    pub(super) async fn request(&mut self) -> Request {
        Request::of(&self.message().await)
    }

    /// Answers `initialize`.
    pub(super) async fn initialize(&mut self, capabilities: Value) {
        self.initialize_with(&["onDefineDomain", "preVMStart"], capabilities).await;
    }

    pub(super) async fn initialize_with(&mut self, hooks: &[&str], capabilities: Value) {
        let request = self.request().await;
        assert_eq!(request.method, "initialize");
        self.answer_initialize(request.id, hooks, capabilities).await;
    }

    pub(super) async fn answer_initialize(&mut self, id: u64, hooks: &[&str], capabilities: Value) {
        let result = json!({"protocolVersion": 1, "hooks": hooks, "capabilities": capabilities});
        self.send(json!({"id": id, "result": result})).await;
    }

    /// Asserts that the shim closes stdin, with nothing before it.
    pub(super) async fn stdin_closes(&mut self) {
        let frame = soon(self.try_frame()).await;
        assert_eq!(frame, None, "the shim sent this before it closed stdin");
    }

    pub(super) async fn write(&mut self, bytes: &[u8]) {
        let Some(stdout) = &mut self.stdout else { return };
        let written = soon(stdout.write_all(bytes)).await;
        assert!(written.is_ok() || self.has_exited(), "the shim does not read");
    }

    pub(super) async fn send(&mut self, mut message: Value) {
        message["jsonrpc"] = json!("2.0");
        self.write(&frame(message.to_string().as_bytes())).await;
    }

    /// Sends requests, which it may not, and reads no replies, until the last one does not fit into
    /// the pipe.
    pub(super) async fn asks_until_the_pipe_is_full(&mut self) {
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
    pub(super) async fn reply(&mut self, id: u64, text: &str) {
        let domain = format!("<domain>{text}</domain>");
        self.send(json!({"id": id, "result": {"domain": domain}})).await;
    }

    /// Answers with an error that another worker may not have.
    pub(super) async fn fail_retryably(&mut self, id: u64) {
        let data = json!({"retryable": true});
        let error = json!({"code": -32000, "message": "the database is away", "data": data});
        self.send(json!({"id": id, "error": error})).await;
    }

    pub(super) fn prints_to_stderr(&self, line: &str) {
        self.shared.stderr.write(&format!("{line}\n"));
    }

    /// Whether a line of some bytes fits into the pipe.
    pub(super) fn stderr_has_space(&self) -> bool {
        self.shared.stderr.has_space()
    }

    /// Writes half a line.
    pub(super) fn begins_a_line_on_stderr(&self, text: &str) {
        self.shared.stderr.write(text);
    }

    pub(super) fn closes_stdin(&mut self) {
        self.stdin = None;
        self.shared.change(|state| state.stdin_is_closed = true);
    }

    /// Another process has inherited its stdin.
    pub(super) fn shares_stdin(&self) {
        self.shared.change(|state| state.stdin_is_held = true);
    }

    pub(super) fn closes_stdout(&mut self) {
        self.stdout = None;
    }

    pub(super) fn ignores_sigterm(&self) {
        self.shared.change(|state| state.ignores_sigterm = true);
    }

    pub(super) fn ignores_sigkill(&self) {
        self.shared.change(|state| {
            (state.ignores_sigterm, state.ignores_sigkill) = (true, true);
        });
    }

    pub(super) fn panics_with_the_next_call(&self) {
        self.shared.change(|state| state.panics = true);
    }

    /// Waits for SIGTERM.
    pub(super) async fn terminated(&self) {
        self.wait_for(|state| state.terminated).await;
    }

    /// Waits for SIGKILL.
    pub(super) async fn killed(&self) {
        self.wait_for(|state| state.killed).await;
    }

    /// Waits for the exit.
    pub(super) fn gone(&self) -> impl Future<Output = ()> + use<> {
        let shared = self.shared.clone();
        async move { shared.until(|state| state.exit.is_some()).await }
    }

    async fn wait_for(&self, is: impl Fn(&State) -> bool) {
        soon(self.shared.until(is)).await;
    }

    /// Whether the shim has sent SIGTERM or SIGKILL.
    pub(super) fn was_signalled(&self) -> bool {
        let state = self.shared.state();
        state.terminated || state.killed
    }

    pub(super) fn has_exited(&self) -> bool {
        self.shared.state().exit.is_some()
    }

    /// Waits until the shim has written what it has not read.
    pub(super) fn arrived(&self) -> impl Future<Output = ()> + use<> {
        let shared = self.shared.clone();
        async move { shared.until(|state| state.input.len() > state.read).await }
    }

    /// Returns a view of its stdin.
    pub(super) fn stdin_record(&self) -> StdinRecord {
        StdinRecord(self.shared.clone())
    }

    /// Something else than the shim kills it.
    pub(super) fn is_killed(&self) {
        self.shared.exit(killed_by(9));
    }

    pub(super) fn exit(self, status: i32) {
        self.exits(status);
    }

    /// Exits. Its pipes close when it is dropped.
    pub(super) fn exits(&self, status: i32) {
        let exit = Exit::Status(ExitStatus::from_raw(status << 8));
        self.shared.exit(exit);
    }

    /// Exits, while another process holds its stdout.
    pub(super) fn exit_with_stdout_held(mut self, status: i32, holder: Holder) -> DuplexStream {
        self.shared.change(|state| state.stdout_is_held = Some(holder));
        let held = self.stdout.take().unwrap();
        self.exit(status);
        held
    }
}
