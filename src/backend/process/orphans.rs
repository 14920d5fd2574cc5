//! Stops the processes that hooks have left behind: daemons, and what has left its group and
//! outlived its parent. They are children of the shim by then; see [`reaper`].
//!
//! # Theory of operation
//! An orphan's process id is its own until the reaper has reaped it, on the same thread. So what is
//! signalled without an await after it was listed is that orphan. What it leaves behind in turn is
//! listed in the next round.

use std::collections::BTreeSet;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{sleep, timeout};

use super::{KILL_LIMIT, reaper};

/// Interval between two rounds. Each reads all of `/proc`, which takes some milliseconds on a node
/// with thousands of processes. With [`KILL_LIMIT`] it bounds the number of rounds.
const ROUND_INTERVAL: Duration = Duration::from_millis(10);

/// Sends SIGTERM to all orphans, and SIGKILL after the grace, which [`reaper::kill_children`] cuts
/// short. Returns when they are reaped. An orphan that goes on forking, or that is stuck in the
/// kernel, may survive.
pub(in crate::backend) async fn stop(grace: Duration) {
    let killed = reaper::killed();
    if !grace.is_zero() && !killed.is_cancelled() {
        tokio::select! {
            outcome = timeout(grace, signal_until_none_is_left(Signal::TERM)) => {
                if outcome.is_ok() {
                    return;
                }
            }
            () = killed.cancelled() => {}
        }
    }
    if timeout(KILL_LIMIT, signal_until_none_is_left(Signal::KILL)).await.is_err() {
        tracing::warn!(
            processes = reaper::orphans().len(),
            "processes that hooks have left behind are still running: they survived SIGKILL, or \
             start others all the time"
        );
    }
}

/// Sends the signal to each orphan once.
async fn signal_until_none_is_left(signal: Signal) {
    let mut signalled = BTreeSet::new();
    loop {
        let orphans = reaper::orphans();
        if orphans.is_empty() {
            return;
        }
        for &pid in orphans.difference(&signalled) {
            let name = if signal == Signal::KILL { "SIGKILL" } else { "SIGTERM" };
            tracing::info!(pid, "sending {name} to a process that a hook has left behind");
            if let Some(pid) = Pid::from_raw(pid) {
                // An error means that it runs as another user.
                let _ = kill_process(pid, signal);
            }
        }
        signalled = orphans;
        sleep(ROUND_INTERVAL).await;
    }
}
