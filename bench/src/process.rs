//! A process whose clock starts at its `exec`. A shell stops itself, is moved into a control group,
//! is continued, and executes the program: neither the shell's start nor the move is measured.

use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use crate::cgroup::Cgroup;
use crate::log::Log;

/// Stops until SIGCONT arrives, and becomes the program.
const GATE: &str = r#"kill -STOP $$; exec "$@""#;

/// Time between SIGTERM and SIGKILL.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// A running program, stopped when dropped.
pub struct Process {
    child: Child,
    pub log: Log,
    /// When the shell went on to its `exec`.
    started: Instant,
}

impl Process {
    pub fn start(command: &Command, group: Option<&Cgroup>) -> Result<Self> {
        let mut gate = Command::new("/bin/sh");
        gate.args(["-c", GATE, "sh"]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => gate.env(name, value),
                None => gate.env_remove(name),
            };
        }
        gate.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = gate.spawn().context("cannot run /bin/sh")?;
        let log = Log::read(child.stderr.take().context("it has no stderr")?);
        let pid = Pid::from_raw(child.id().cast_signed());
        let mut process = Self { child, log, started: Instant::now() };
        let stops = WaitPidFlag::WSTOPPED | WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        let stopped = waitid(Id::Pid(pid), stops)?;
        ensure!(matches!(stopped, WaitStatus::Stopped(..)), "the shell is {stopped:?}");
        if let Some(group) = group {
            group.add(process.pid())?;
        }
        process.started = Instant::now();
        kill(pid, Signal::SIGCONT)?;
        Ok(process)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Since its `exec`.
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Fails if the process has exited.
    pub fn check_alive(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("it exited: {status}\n{}", self.log.last_words()),
            None => Ok(()),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM);
        }
        let terminated = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if terminated.elapsed() > STOP_LIMIT {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            sleep(Duration::from_millis(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_missing_is_reported() {
        let mut process = Process::start(&Command::new("/does/not/exist"), None).unwrap();
        let error = loop {
            if let Err(error) = process.check_alive() {
                break error.to_string();
            }
        };
        assert!(error.contains("/does/not/exist") && error.contains("not found"), "{error}");
    }
}
