//! Reaps orphans: processes that a hook has started and left behind, whose parent is now the shim.
//! In a container the shim is process 1, which inherits them; elsewhere it becomes a child
//! subreaper, so that the same code runs.
//!
//! # Theory of operation
//! The kernel shows one exited child at a time, the same one until it is reaped. tokio waits for
//! the shim's own children, whose exits must not be taken from it. So the reaper only looks. An
//! orphan is reaped by its process id. At a registered child the reaper stops, and looks again once
//! tokio has reaped that one. Children are registered before any other code can run: there is one
//! thread, and no await between spawning and registering.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::pin::pin;
use std::process::ExitStatus;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitOptions, getpid, kill_process, kill_process_group,
    set_child_subreaper, waitid, waitpid,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio_util::sync::CancellationToken;

use super::{Exit, stat};
use crate::error::StartError;
use crate::sys;

/// Orphans that are reaped before other tasks have their turn. Each takes a few microseconds, so a
/// hook that leaves thousands behind delays others by a fraction of a millisecond.
const ORPHANS_PER_TURN: usize = 32;

/// Process ids of the shim's own children that are not reaped yet.
static REGISTERED: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// Process ids of the children that this process had before it became the shim, by `exec`. They are
/// reaped like orphans, but are not a hook's. `None` until the reaper has started.
static INHERITED: Mutex<Option<BTreeSet<i32>>> = Mutex::new(None);

/// Cancelled once no more processes may run.
static KILLED: LazyLock<CancellationToken> = LazyLock::new(CancellationToken::new);

/// Notified when an own child has been reaped: only then does the kernel show the next one.
static CHILD_REAPED: Notify = Notify::const_new();

/// Notified when no own child is left.
static NONE_LEFT: Notify = Notify::const_new();

/// Marks a child as the shim's own until tokio has reaped it, when this is dropped.
pub(super) struct RegisteredChild(i32);

impl RegisteredChild {
    /// Must be called directly after the child was started.
    pub(super) fn new(pid: i32) -> Self {
        registered().insert(pid);
        Self(pid)
    }
}

impl Drop for RegisteredChild {
    fn drop(&mut self) {
        let none_left = {
            let mut registered = registered();
            registered.remove(&self.0);
            registered.is_empty()
        };
        CHILD_REAPED.notify_one();
        if none_left {
            NONE_LEFT.notify_waiters();
        }
    }
}

/// Waits until every own child is reaped.
pub(in crate::backend) async fn none_left() {
    loop {
        let mut notified = pin!(NONE_LEFT.notified());
        // From here on no notification is missed.
        notified.as_mut().enable();
        if registered().is_empty() {
            return;
        }
        notified.await;
    }
}

/// Kills the shim's own children with their groups at once, and lets none be started from now on.
pub(in crate::backend) fn kill_children() {
    KILLED.cancel();
    for pid in registered().iter().filter_map(|&pid| Pid::from_raw(pid)) {
        // None of them is reaped, so neither number was reused.
        let _ = kill_process_group(pid, Signal::KILL);
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// Returns what is cancelled once no more processes may run.
pub(super) fn killed() -> &'static CancellationToken {
    &KILLED
}

/// Returns the process ids of the orphans that are not reaped yet. They stay theirs until the next
/// await. Without a reaper there are none.
pub(super) fn orphans() -> BTreeSet<i32> {
    let inherited = inherited();
    let Some(inherited) = inherited.as_ref() else { return BTreeSet::new() };
    let registered = registered();
    let is_orphan = |pid: &i32| !registered.contains(pid) && !inherited.contains(pid);
    children().into_iter().filter(is_orphan).collect()
}

/// Returns the process ids of all children that are not reaped.
fn children() -> BTreeSet<i32> {
    // Mostly there are none, and then there is no need to read all of `/proc`.
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    if waitid(WaitId::All, look).err() == Some(Errno::CHILD) {
        return BTreeSet::new();
    }
    let shim = getpid().as_raw_pid();
    stat::all().filter(|process| process.parent == shim).map(|child| child.pid).collect()
}

fn registered() -> MutexGuard<'static, BTreeSet<i32>> {
    REGISTERED.lock().unwrap_or_else(PoisonError::into_inner)
}

fn inherited() -> MutexGuard<'static, Option<BTreeSet<i32>>> {
    INHERITED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reaps orphans for as long as the runtime lives. Called once.
pub(in crate::backend) fn start() -> Result<(), StartError> {
    let mut exits = signal(SignalKind::child())
        .map_err(|source| StartError::System { what: "listen for exits of processes", source })?;
    // The kernel takes any number but 0 for "yes".
    if let Err(error) = set_child_subreaper(Some(getpid())) {
        tracing::debug!(%error, "process 1 inherits orphans, not the shim");
    }
    *inherited() = Some(children());
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
                () = CHILD_REAPED.notified() => {}
            }
        }
    });
    Ok(())
}

/// Reaps one orphan. Returns whether there may be more.
fn reap_next() -> bool {
    let orphan = sys::exited_child().filter(|pid| !registered().contains(&pid.as_raw_pid()));
    let Some((pid, status)) =
        orphan.and_then(|pid| waitpid(Some(pid), WaitOptions::NOHANG).ok()?)
    else {
        return false;
    };
    if let Some(inherited) = inherited().as_mut() {
        // From now on a hook's process may have the number.
        inherited.remove(&pid.as_raw_pid());
    }
    let exit = Exit::Status(ExitStatus::from_raw(status.as_raw()));
    tracing::debug!(pid = pid.as_raw_pid(), "reaped an orphan: it {exit}");
    true
}

#[cfg(test)]
mod tests {
    use super::super::{Child as _, CommandLine, Launch, Process};
    use super::*;

    #[tokio::test]
    async fn a_child_that_is_dropped_stays_registered_until_it_is_reaped_and_no_longer() {
        let words = ["sleep".into(), "1000".into()];
        let command = &CommandLine::from_words(words).unwrap();
        let launch = Launch {
            command,
            documents: &[],
            protocol: None,
            context: None,
            stdin: false,
            span: None,
            memory: None,
        };
        let (process, _pipes) = Process::spawn(&launch).map_err(|error| error.to_string()).unwrap();
        let pid = process.pid();
        assert!(registered().contains(&pid));
        drop(process);
        while registered().contains(&pid) {
            CHILD_REAPED.notified().await;
        }
        let gone = waitpid(Pid::from_raw(pid), WaitOptions::NOHANG);
        assert_eq!(gone.err(), Some(Errno::CHILD));
    }
}
