//! A server that was started for the measurement, and ends with it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::contestant::{Kind, Launch, Parts};
use crate::log::Log;

/// How often the socket is looked for: the resolution of the time from start to socket.
const LOOK_INTERVAL: Duration = Duration::from_micros(50);

/// A server that has no socket by then will have none.
const START_LIMIT: Duration = Duration::from_secs(60);

/// Between SIGTERM and SIGKILL.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// A running server.
pub struct Server {
    child: Child,
    /// Where it listens.
    pub socket: PathBuf,
    /// From its start until the socket took a connection.
    pub start: Duration,
    log: Log,
    /// Removed when dropped.
    _directory: TempDir,
}

impl Server {
    /// Starts a contestant, and returns once its socket takes connections.
    pub fn start(parts: &Parts, kind: &Kind) -> Result<Self> {
        let directory = directory()?;
        let launch = parts.launch(kind, directory.path())?;
        Self::launch(launch, directory).with_context(|| format!("cannot start {}", kind.id()))
    }

    /// Starts this command, whose socket's directory is `directory` or lies elsewhere.
    pub fn launch(mut launch: Launch, directory: TempDir) -> Result<Self> {
        let before = entries(&launch.socket_dir)?;
        launch.command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let started = Instant::now();
        let mut child = launch.command.spawn().context("cannot run it")?;
        let log = Log::read(child.stderr.take().context("it has no standard error")?);
        let mut server = Self {
            child,
            socket: PathBuf::new(),
            start: Duration::ZERO,
            log,
            _directory: directory,
        };
        loop {
            let mut fresh =
                entries(&launch.socket_dir)?.difference(&before).cloned().collect::<Vec<_>>();
            fresh.retain(|path| UnixStream::connect(path).is_ok());
            if let Some(socket) = fresh.pop() {
                server.start = started.elapsed();
                server.socket = socket;
                return Ok(server);
            }
            if let Some(status) = server.child.try_wait()? {
                bail!("it ended with {status}:\n{}", server.log.last_words());
            }
            if started.elapsed() > START_LIMIT {
                bail!("it has no socket after {START_LIMIT:?}:\n{}", server.log.last_lines());
            }
            sleep(LOOK_INTERVAL);
        }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The last lines of its standard error.
    pub fn log(&self) -> String {
        self.log.last_lines()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = kill(pid, Signal::SIGTERM);
        }
        let told = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if told.elapsed() > STOP_LIMIT {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            sleep(Duration::from_millis(1));
        }
    }
}

/// A directory for a socket, whose path is short enough for one.
pub fn directory() -> Result<TempDir> {
    tempfile::Builder::new().prefix("shim-bench-").tempdir().context("cannot make a directory")
}

/// Sockets in a directory.
fn entries(directory: &Path) -> Result<BTreeSet<PathBuf>> {
    let read =
        fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let paths = read.flatten().map(|entry| entry.path());
    Ok(paths.filter(|path| path.extension().is_some_and(|extension| extension == "sock")).collect())
}
