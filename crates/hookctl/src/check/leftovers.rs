//! Checks of what a call leaves behind: descriptors, child processes and threads, and what children
//! do to the worker's stdin.

use std::time::Duration;

use tokio::time::Instant;

use super::conformance;
use super::processes::{Resources, resources};
use super::session::Session;
use super::silence::GIVE_CHILDREN_NO_STDIN;
use super::verdict::{NotPassed, Verdict};
use crate::probe::encode;
use sidecar_shim::hook::HookCall;

/// Calls before the first count: they start pools of threads and open connections.
const WARM_UP_CALLS: usize = 40;

/// Calls between the counts. A worker may have 1,024 descriptors, so a leak of some in each call
/// does not use them up.
const CALLS: usize = 160;

/// Time for these calls, if they are slow.
const TIME: Duration = Duration::from_secs(10);

/// Minimum number of calls to say anything.
const MIN_CALLS: usize = 10;

/// Length of the message behind a call: more than a program reads at once, and more than a pipe
/// holds, so a child process that reads a part of it leaves the rest.
const LONG_MESSAGE_BYTES: usize = 200_000;

/// Returns a call of each hook: each may leave something behind.
pub(super) fn calls_of_all_hooks(session: &Session) -> Result<Vec<HookCall>, NotPassed> {
    session.hooks()?.iter().map(|hook| session.call(hook)).collect()
}

pub(super) async fn leftovers(session: &mut Session) -> Verdict {
    let calls = calls_of_all_hooks(session)?;
    let mut calls = calls.iter().cycle();
    let mut worker = session.new_worker().await?;
    let until = Instant::now() + TIME;
    for call in calls.by_ref().take(WARM_UP_CALLS) {
        worker.call(call).await?;
    }
    let before = resources();
    let mut made = 0;
    for call in calls.take(CALLS) {
        if Instant::now() >= until {
            break;
        }
        worker.call(call).await?;
        made += 1;
    }
    if made < MIN_CALLS {
        return Err(NotPassed::skipped(format!(
            "there was time for only {} calls",
            WARM_UP_CALLS + made
        )));
    }
    match kept(before, resources(), made) {
        Some((count, what)) => {
            Err(worker.warning(format!("after {made} calls it has {count} more {what}")))
        }
        None => session.release(worker).await,
    }
}

/// Returns what the processes have more of than before: at least one for every other call.
fn kept(before: Resources, after: Resources, calls: usize) -> Option<(usize, &'static str)> {
    // Processes have descriptors and threads too, so they come first.
    [
        (before.zombies, after.zombies, "child processes that have exited: wait for each of them"),
        (before.processes, after.processes, "processes: let no child process outlive its call"),
        (before.threads, after.threads, "threads: end or reuse those of earlier calls"),
        (before.descriptors, after.descriptors, "open descriptors: close what a call opens"),
    ]
    .into_iter()
    .map(|(before, after, what)| (after.saturating_sub(before), what))
    .find(|(more, _)| more * 2 >= calls)
}

pub(super) async fn child_stdin(session: &mut Session) -> Verdict {
    session.require("unknown-notification")?;
    session.require("joined-writes")?;
    let mut worker = session.new_worker().await?;
    worker.note_readers().await?;
    for hook in session.hooks()? {
        let call = session.call(&hook)?;
        let (id, bytes) = worker.call_bytes(&call)?;
        let behind =
            encode(|buffer| conformance::send_long_notification(buffer, LONG_MESSAGE_BYTES));
        worker.send(&[bytes, behind].concat());
        worker.reply(&call, id).await.map_err(blame_children)?;
        worker.call(&call).await.map_err(blame_children)?;
    }
    session.release(worker).await
}

/// Names the probable cause, unless the failure does.
fn blame_children(failure: NotPassed) -> NotPassed {
    match failure {
        NotPassed::Failed(fault) if fault.seen.contains(GIVE_CHILDREN_NO_STDIN) => {
            NotPassed::Failed(fault)
        }
        other => {
            other.with(format!("; another message was behind the call: {GIVE_CHILDREN_NO_STDIN}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_for_every_other_call_is_a_leak() {
        let before = Resources { processes: 1, zombies: 0, threads: 4, descriptors: 9 };
        assert_eq!(kept(before, before, 100), None);
        let pool = Resources { threads: 36, descriptors: 20, ..before };
        assert_eq!(kept(before, pool, 100), None, "a pool has a limit");
        let files = Resources { descriptors: 59, ..before };
        let (count, what) = kept(before, files, 100).unwrap();
        assert_eq!((count, &what[..16]), (50, "open descriptors"));
        let children = Resources { processes: 101, descriptors: 400, ..before };
        assert_eq!(kept(before, children, 100).unwrap().0, 100);
    }
}
