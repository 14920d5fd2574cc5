//! A server that runs as long as it is measured.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::cgroup::Cgroup;
use crate::contestant::{Kind, Launch, Parts};
use crate::created::Created;
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
    /// Kept until then: what is measured does not contain its end.
    _created: Created,
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
        let created = Created::watch(&launch.socket_dir)?;
        let mut process = Process::start(&launch.command, group)?;
        loop {
            let found = created.socket(ALIVE_INTERVAL_MS.into())?;
            let start = process.age();
            if let Some(socket) = found {
                let (_directory, _created) = (directory, created);
                return Ok(Self { process, socket, start, _directory, _created });
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
