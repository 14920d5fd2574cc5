//! Memory that long documents have taken: kept while calls come, given back when they stop. Both are
//! glibc's to do.

#![cfg(all(target_env = "gnu", target_pointer_width = "64"))]

use std::time::Duration;

use serde_json::json;
use tokio::time::{sleep, timeout};

use crate::support::{LIMIT, Shim, domain_of, stat_fields};

/// Page faults of a process so far, those that read no file.
fn page_faults(pid: i32) -> u64 {
    // Field 10.
    stat_fields(u64::try_from(pid).unwrap()).unwrap()[7].parse().unwrap()
}

/// Bytes of a process that are in RAM.
fn resident(pid: i32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * 1024
}

#[tokio::test]
async fn memory_of_long_documents_is_kept_while_calls_come_and_then_given_back() {
    const BYTES: usize = 2_000_000;
    let shim = Shim::persistent("--attachments", &[]).await;
    let (pid, domain) = (shim.pid().as_raw(), domain_of(BYTES));
    let mut fewest = u64::MAX;
    for _ in 0..10 {
        let before = page_faults(pid);
        assert!(shim.define(&json!({}), &domain).await.unwrap() == domain);
        fewest = fewest.min(page_faults(pid) - before);
    }
    // The document alone has 489 pages, and there is more than one copy.
    assert!(fewest < 200, "a call that follows another has {fewest} page faults");
    let busy = resident(pid);
    let given_back = async {
        // Nothing tells of it.
        while busy.saturating_sub(resident(pid)) < BYTES {
            sleep(Duration::from_millis(50)).await;
        }
    };
    let outcome = timeout(LIMIT, given_back).await;
    assert!(outcome.is_ok(), "busy it had {busy} bytes, and still has {}", resident(pid));
    shim.still_works().await;
}
