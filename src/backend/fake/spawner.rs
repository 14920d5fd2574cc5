//! Starts children, and hands each to the test.

use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::BytesMut;
use tokio::io::duplex;
use tokio::sync::{Notify, mpsc};

use super::child::{FakeChild, FakeStdin, FakeStdout, Shared};
use super::stderr::FakeStderr;
use super::worker::FakeWorker;
use super::{PIPE_BYTES, soon};
use crate::backend::process::stderr::Stderr;
use crate::backend::process::{Launch, Pipes, Spawn, SpawnError};

/// Hands every child that is started to the test.
#[derive(Clone)]
pub(in crate::backend) struct FakeSpawner {
    started: mpsc::Sender<FakeWorker>,
    last_pid: Arc<AtomicI32>,
    counts: Arc<Counts>,
}

/// What children there are.
#[derive(Default)]
pub(in crate::backend) struct Counts {
    /// Number of children that the shim has not dropped.
    pub(in crate::backend) alive: AtomicUsize,
    /// The maximum of that number.
    pub(in crate::backend) most_alive: AtomicUsize,
    /// Which of the next starts fail, the last one first.
    pub(in crate::backend) failures: Mutex<Vec<bool>>,
    /// Number of starts that have failed.
    pub(in crate::backend) failed: AtomicUsize,
}

/// Where the test receives the children that were started.
pub(in crate::backend) struct Started(mpsc::Receiver<FakeWorker>);

impl FakeSpawner {
    pub(in crate::backend) fn new() -> (Self, Started) {
        let (started, workers) = mpsc::channel(1000);
        (Self { started, last_pid: Arc::default(), counts: Arc::default() }, Started(workers))
    }

    pub(in crate::backend) fn counts(&self) -> Arc<Counts> {
        self.counts.clone()
    }
}

impl Started {
    pub(in crate::backend) async fn next(&mut self) -> FakeWorker {
        soon(self.0.recv()).await.expect("the pool is gone")
    }

    /// Waits for the next child. `None` if the pool is gone.
    pub(in crate::backend) async fn recv(&mut self) -> Option<FakeWorker> {
        self.0.recv().await
    }

    /// Returns a child that was started already.
    pub(in crate::backend) fn try_next(&mut self) -> Option<FakeWorker> {
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
