//! A process whose clock starts at its `exec`. A shell stops itself, is moved into a control group,
//! is continued, and executes the program: neither the shell's start nor the move is measured.

use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, kill};
use nix::sys::time::TimeValLike;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

use crate::cgroup::Cgroup;
use crate::log::Log;
use crate::proc;

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
    /// CPU time of the shell.
    gate_cpu: Duration,
    /// A thread that waits, so that the runtime can close the client's connections: a server may
    /// wait for that.
    exited: JoinHandle<nix::Result<Instant>>,
}

/// How a process exited, and what it used.
pub struct Exit {
    pub status: ExitStatus,
    /// Since its `exec`.
    pub age: Duration,
    /// User and system time, of the children that it has waited for too.
    pub cpu: Duration,
    /// The share of its main thread.
    pub main_thread_cpu: Duration,
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
        let exited = spawn_blocking(move || {
            waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)?;
            Ok(Instant::now())
        });
        let (started, gate_cpu) = (Instant::now(), Duration::ZERO);
        let mut process = Self { child, log, started, gate_cpu, exited };
        let stops = WaitPidFlag::WSTOPPED | WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        let stopped = waitid(Id::Pid(pid), stops)?;
        ensure!(matches!(stopped, WaitStatus::Stopped(..)), "the shell is {stopped:?}");
        if let Some(group) = group {
            group.add(process.pid())?;
        }
        process.gate_cpu = proc::running(process.pid())?;
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

    /// Leaves this time out of its age.
    pub fn skip(&mut self, time: Duration) {
        self.started += time;
    }

    /// Fails if the process has exited.
    pub fn check_alive(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("it exited: {status}\n{}", self.log.last_words()),
            None => Ok(()),
        }
    }

    /// Waits until the process exits by itself.
    pub async fn exit(mut self) -> Result<Exit> {
        let exited = timeout(STOP_LIMIT, &mut self.exited).await;
        let at =
            exited.with_context(|| format!("it still runs:\n{}", self.log.last_lines()))???;
        // Until it is reaped, the kernel keeps the time of its main thread, to the nanosecond.
        let main_thread_cpu = proc::running(self.pid())?.saturating_sub(self.gate_cpu);
        let others = cpu_of_reaped()?;
        let status = self.child.wait()?;
        let cpu = cpu_of_reaped()?.saturating_sub(others + self.gate_cpu);
        Ok(Exit { status, age: at - self.started, cpu, main_thread_cpu })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // The second is for a shell that is still stopped.
            for signal in [Signal::SIGTERM, Signal::SIGCONT] {
                let _ = kill(Pid::from_raw(self.child.id().cast_signed()), signal);
            }
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

/// User and system time of all children that this process has waited for, and of theirs.
fn cpu_of_reaped() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(Duration::from_micros(u64::try_from(micros)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn the_cpu_time_of_children_is_part_of_the_whole_and_not_of_the_process_itself() {
        let spin = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
        let own = Process::start(&shell(spin), None).unwrap().exit().await.unwrap();
        assert!(own.status.success());
        assert!(own.cpu > Duration::from_millis(20), "{:?}", own.cpu);
        assert!(own.main_thread_cpu > own.cpu / 2, "{:?} of {:?}", own.main_thread_cpu, own.cpu);
        let child = format!("({spin}); exit 3");
        let child = Process::start(&shell(&child), None).unwrap().exit().await.unwrap();
        assert_eq!(child.status.code(), Some(3));
        assert!(child.main_thread_cpu < child.cpu / 2, "{:?}", child.main_thread_cpu);
    }

    #[tokio::test]
    async fn a_program_that_is_missing_is_reported() {
        let command = Command::new("/does/not/exist");
        let exit = Process::start(&command, None).unwrap().exit().await.unwrap();
        assert_eq!(exit.status.code(), Some(127));
    }
}
