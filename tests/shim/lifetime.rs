//! The end of the shim's life, and what ends with it.

use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::timeout;

use crate::support::{Shim, comment, eventually, gone};

#[tokio::test]
async fn idle_workers_exit_within_two_seconds_after_the_shim_was_killed() {
    let mut shim = Shim::persistent("").args(["--max-workers", "2"]).start().await;
    // Two of them: neither may hold the other's pipe open.
    let calls = [shim.call_in_flight().await, shim.call_in_flight().await];
    let mut workers = Vec::new();
    for call in calls {
        workers.push(comment(&call.finish().await.unwrap()).as_u64().unwrap());
    }
    assert_ne!(workers[0], workers[1]);
    shim.signal(Signal::SIGKILL);
    shim.child.wait().await.unwrap();
    let all_gone = eventually("the workers are gone", || workers.iter().all(|pid| gone(*pid)));
    timeout(Duration::from_secs(2), all_gone).await.expect("a worker has outlived the shim");
}
