//! The end of the shim's life, and what ends with it.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;
use tokio::time::timeout;

use crate::support::{Shim, children, comment, eventually, exists, gone};

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

#[tokio::test]
async fn a_third_signal_kills_what_still_runs() {
    let ignores = "#!/bin/sh\ntrap '' TERM\necho 'ignoring SIGTERM' >&2\nexec sleep 600\n";
    let args = ["--shutdown-grace", "1h", "--kill-grace", "1h"];
    for builder in [Shim::persistent(""), Shim::builder().program("onDefineDomain", ignores)] {
        let mut shim = builder.args(args).start().await;
        let call = shim.send(&json!({"do": "ignore SIGTERM"})).await;
        shim.log_line("ignoring SIGTERM").await;
        let hooks = children(u64::try_from(shim.pid().as_raw()).unwrap());
        assert!(!hooks.is_empty());
        for _ in 0..2 {
            shim.signal(Signal::SIGTERM);
            shim.log_line("sidecar-shim received signal").await;
        }
        // The second has dropped the call.
        assert_eq!(call.await.unwrap().unwrap_err().code(), tonic::Code::Unavailable);
        assert!(!hooks.iter().any(|&pid| gone(pid)), "it has an hour");
        shim.signal(Signal::SIGTERM);
        assert_eq!(shim.exited().await.code(), Some(0));
        assert!(!hooks.iter().any(|&pid| exists(pid)));
    }
}
