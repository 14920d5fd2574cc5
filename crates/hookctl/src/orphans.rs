//! Processes that hooks leave behind outside their process group. In a pod they exit with the
//! container; here they are killed. hookctl is their subreaper, so they have become its children.

use std::collections::BTreeSet;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use sidecar_shim::backend::children_are_reaped;
use tokio::time::{sleep, timeout};

/// Timeout for orphans to die of SIGKILL. Only those that are stuck in the kernel need longer.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// Interval between looks at the children that are left. Who reaps them has no event for others.
const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// Kills what becomes a child of hookctl from its creation on.
pub(crate) struct Orphans {
    /// Children from before: a shell may have started them and then replaced itself with hookctl.
    inherited: BTreeSet<i32>,
}

impl Orphans {
    pub(crate) fn new() -> Self {
        Self { inherited: children() }
    }

    /// Waits until the processes that hookctl started are reaped, then kills those that they left.
    pub(crate) async fn kill(&self) {
        children_are_reaped().await;
        let killed = async {
            loop {
                let orphans = &children() - &self.inherited;
                if orphans.is_empty() {
                    return;
                }
                for pid in orphans.into_iter().filter_map(Pid::from_raw) {
                    // It may have exited meanwhile.
                    #[expect(clippy::disallowed_methods, reason = "only hookctl kills orphans")]
                    let _ = rustix::process::kill_process(pid, Signal::KILL);
                }
                // What they leave behind becomes a child in turn.
                sleep(POLL_INTERVAL).await;
            }
        };
        let _ = timeout(KILL_TIMEOUT, killed).await;
    }
}

/// Returns the children of this process, by `PID (NAME) STATE PARENT …`.
fn children() -> BTreeSet<i32> {
    let parent = std::process::id().to_string();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let is_child = |stat: &String| {
        let fields = stat.rsplit_once(") ").map(|(_, fields)| fields.split(' '));
        fields.and_then(|mut fields| fields.nth(1)) == Some(&parent)
    };
    processes
        .filter_map(|process| std::fs::read_to_string(process.path().join("stat")).ok())
        .filter(is_child)
        .filter_map(|stat| stat.split(' ').next()?.parse().ok())
        .collect()
}
