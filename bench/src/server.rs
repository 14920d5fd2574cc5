//! A server that runs as long as it is measured.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tempfile::TempDir;

use crate::cgroup::Cgroup;
use crate::contestant::{Kind, Launch, Parts};
use crate::process::Process;

/// Time after which a server without a socket has failed.
const START_LIMIT: Duration = Duration::from_secs(60);

/// Interval of checks that a server without a socket is still alive, in milliseconds.
const ALIVE_INTERVAL_MS: u8 = 100;

/// A running server, stopped when dropped.
pub struct Server {
    pub process: Process,
    /// Where it listens.
    pub socket: PathBuf,
    /// From its `exec` until the file of its socket was there.
    pub start: Duration,
    /// Removed when dropped.
    _directory: TempDir,
    /// Closed at the end only: to close it takes the kernel milliseconds. So servers must not
    /// inherit it either.
    _created: Inotify,
}

impl Server {
    /// Starts a contestant, and returns once its socket is there.
    pub fn start(parts: &Parts, kind: &Kind, group: Option<&Cgroup>) -> Result<Self> {
        let directory = directory()?;
        let launch = parts.launch(kind, directory.path())?;
        Self::launch(&launch, directory, group)
            .with_context(|| format!("cannot start {}", kind.id()))
    }

    /// Starts this command, whose sockets appear in `directory` or elsewhere.
    pub fn launch(launch: &Launch, directory: TempDir, group: Option<&Cgroup>) -> Result<Self> {
        let created = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        created.add_watch(&launch.socket_dir, AddWatchFlags::IN_CREATE)?;
        let mut process = Process::start(&launch.command, group)?;
        loop {
            poll(&mut [PollFd::new(created.as_fd(), PollFlags::POLLIN)], ALIVE_INTERVAL_MS)?;
            let start = process.age();
            let names = created.read_events().unwrap_or_default().into_iter();
            let mut paths = names.filter_map(|event| Some(launch.socket_dir.join(event.name?)));
            if let Some(socket) = paths.find(|path| path.extension().is_some_and(|e| e == "sock")) {
                return Ok(Self {
                    process,
                    socket,
                    start,
                    _directory: directory,
                    _created: created,
                });
            }
            process.check_alive()?;
            let log = || process.log.last_lines();
            ensure!(start < START_LIMIT, "it has no socket after {START_LIMIT:?}:\n{}", log());
        }
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The last lines of its stderr.
    pub fn log(&self) -> String {
        self.process.log.last_lines()
    }
}

/// A directory for a socket, with a path short enough for one.
pub fn directory() -> Result<TempDir> {
    tempfile::Builder::new().prefix("shim-bench-").tempdir().context("cannot make a directory")
}
