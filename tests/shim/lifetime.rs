//! How the shim's life ends, and what ends with it.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::{Client, DOMAIN, Meeting, Shim, comment, stat};

#[tokio::test]
async fn idle_workers_are_gone_within_two_seconds_of_a_shim_that_was_killed() {
    let mut shim = Shim::persistent("", &["--max-workers", "2"]).await;
    // Two of them: neither may hold the pipe of the other open.
    let mut calls = Vec::new();
    let mut joined = Vec::new();
    for name in ["first", "second"] {
        let meeting = Meeting::new(shim.dir.path().join(name));
        let vmi = json!({"do": "meet", "path": meeting.0}).to_string();
        let client = Client::dial(&shim.socket()).await;
        calls.push(tokio::spawn(async move { client.define("v1alpha3", vmi, DOMAIN).await }));
        joined.push(meeting.joined().await);
    }
    drop(joined);
    let mut workers = Vec::new();
    for call in calls {
        workers.push(comment(&call.await.unwrap().unwrap()).as_u64().unwrap());
    }
    assert_ne!(workers[0], workers[1]);
    shim.signal(Signal::SIGKILL);
    shim.child.wait().await.unwrap();
    let gone = async {
        while workers.iter().any(|pid| stat(*pid).is_some_and(|(state, _)| state != 'Z')) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(2), gone).await.expect("a worker has outlived it");
}
