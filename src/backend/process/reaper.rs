//! Reaps orphans: processes that a hook has started and left behind, and whose parent is now the
//! shim. In a container it is the first process, to which they fall; elsewhere it asks for them, so
//! that the same code runs.
//!
//! # Theory of operation
//! The kernel tells of one dead child at a time, and of the same one until it is reaped. The exits of
//! the shim's own children are the runtime's to take. So the reaper only looks first: an unknown
//! child is reaped by its number, at an own one the reaper stops, and it looks again once that is
//! reaped. Own children are registered before anything else can run: there is one thread, and no
//! await between.

use std::collections::BTreeSet;
use std::path::Path;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::sys::prctl::set_child_subreaper;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio::task::yield_now;

use crate::error::StartError;

/// Orphans that are reaped before other tasks have their turn. Each costs a few microseconds, so a
/// hook that leaves thousands behind delays nobody by more than a fraction of a millisecond.
const ORPHANS_PER_TURN: usize = 32;

/// Own children that are not reaped yet.
static OWN: Mutex<BTreeSet<Pid>> = Mutex::new(BTreeSet::new());

/// Told whenever an own child is reaped: only then does the kernel show the next one.
static OWN_REAPED: Notify = Notify::const_new();

/// Told whenever no own child is left.
static NONE_LEFT: Notify = Notify::const_new();

/// Says that a child is the shim's own. Dropped once the runtime has reaped it.
pub(super) struct Own(Pid);

impl Own {
    /// To be called directly after the child was started.
    pub(super) fn register(pid: Pid) -> Self {
        own().insert(pid);
        Self(pid)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let none_left = {
            let mut own = own();
            own.remove(&self.0);
            own.is_empty()
        };
        OWN_REAPED.notify_one();
        if none_left {
            NONE_LEFT.notify_waiters();
        }
    }
}

/// Waits until every own child is reaped.
pub(in crate::backend) async fn none_left() {
    loop {
        let mut told = pin!(NONE_LEFT.notified());
        // From here on nothing is missed.
        told.as_mut().enable();
        if own().is_empty() {
            return;
        }
        told.await;
    }
}

fn own() -> MutexGuard<'static, BTreeSet<Pid>> {
    OWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reaps orphans for as long as the runtime lives. Called once.
pub(in crate::backend) fn start() -> Result<(), StartError> {
    let mut exits = signal(SignalKind::child())
        .map_err(|source| StartError::System { what: "listen for exits of processes", source })?;
    if let Err(error) = set_child_subreaper(true) {
        tracing::debug!(%error, "orphans fall to the first process, not to the shim");
    }
    tokio::spawn(async move {
        loop {
            let mut reaped = 0;
            while reap_next() {
                reaped += 1;
                if reaped % ORPHANS_PER_TURN == 0 {
                    yield_now().await;
                }
            }
            tokio::select! {
                _ = exits.recv() => {}
                () = OWN_REAPED.notified() => {}
            }
        }
    });
    Ok(())
}

/// Reaps one orphan, or several. Whether there may be more.
fn reap_next() -> bool {
    let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    loop {
        return match waitid(Id::All, look) {
            Ok(status) => status.pid().is_some_and(|pid| !own().contains(&pid) && reap(pid)),
            Err(Errno::EINTR) => continue,
            // One was killed by a real-time signal, for which nix has no name: it keeps back the
            // number of the process too.
            Err(Errno::EINVAL) => reap_nameless(),
            // There are no children at all.
            Err(_) => false,
        };
    }
}

/// Reaps one orphan. Whether it was there.
fn reap(pid: Pid) -> bool {
    let how = match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
        Ok(WaitStatus::Exited(_, status)) => format!("exited with status {status}"),
        Ok(WaitStatus::Signaled(_, signal, _)) => format!("was killed by {signal}"),
        // It was reaped all the same.
        Err(Errno::EINVAL) => "was killed by a real-time signal".to_owned(),
        Ok(_) | Err(_) => return false,
    };
    tracing::debug!(pid = pid.as_raw(), "reaped an orphan: it {how}");
    true
}

/// Reaps what `/proc` shows as dead children. Whether there was one that is not the shim's own.
fn reap_nameless() -> bool {
    let Ok(processes) = std::fs::read_dir("/proc") else { return false };
    let mut reaped = false;
    for process in processes.flatten() {
        let number = process.file_name().to_str().and_then(|name| name.parse().ok());
        let Some(pid) = number.map(Pid::from_raw) else { continue };
        if is_dead_child(&process.path()) && !own().contains(&pid) {
            reaped |= reap(pid);
        }
    }
    reaped
}

/// Whether a process's `stat`, `PID (NAME) STATE PARENT …`, says that it waits to be reaped here.
fn is_dead_child(process: &Path) -> bool {
    let stat = std::fs::read_to_string(process.join("stat")).unwrap_or_default();
    let Some((_, stat)) = stat.rsplit_once(") ") else { return false };
    let mut fields = stat.split(' ');
    let parent = std::process::id().to_string();
    fields.next() == Some("Z") && fields.next() == Some(&parent)
}

#[cfg(test)]
mod tests {
    use super::super::{CommandLine, Launch, Process};
    use super::*;

    #[tokio::test]
    async fn a_child_that_is_dropped_stands_in_the_way_until_it_is_reaped_and_no_longer() {
        let words = ["sleep".into(), "1000".into()];
        let command = &CommandLine::from_words(words).unwrap();
        let launch = Launch {
            command,
            documents: &[],
            protocol: None,
            context: None,
            stdin: false,
            hook: None,
            memory: None,
        };
        let (process, _pipes) = Process::spawn(&launch).map_err(|error| error.to_string()).unwrap();
        let pid = Pid::from_raw(process.pid());
        assert!(own().contains(&pid));
        drop(process);
        while own().contains(&pid) {
            OWN_REAPED.notified().await;
        }
        let gone = waitpid(pid, Some(WaitPidFlag::WNOHANG));
        assert_eq!(gone, Err(Errno::ECHILD));
    }
}
