//! Memory of long documents: kept while calls come, returned to the system afterwards. glibc does
//! both.

#![cfg(all(target_env = "gnu", target_pointer_width = "64"))]

use serde_json::json;

use crate::support::{Shim, domain_of, eventually, stat_fields};

/// The minor page faults of a process so far: those that did not read a file.
fn page_faults(pid: i32) -> u64 {
    // Field 10.
    stat_fields(u64::try_from(pid).unwrap()).unwrap()[7].parse().unwrap()
}

/// The bytes of a process that are in RAM.
fn resident(pid: i32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * 1024
}

#[tokio::test]
async fn memory_of_long_documents_is_kept_while_calls_come_and_returned_afterwards() {
    const BYTES: usize = 2_000_000;
    let shim = Shim::persistent("--attachments").start().await;
    let (pid, domain) = (shim.pid().as_raw(), domain_of(BYTES));
    let mut fewest = u64::MAX;
    for _ in 0..10 {
        let before = page_faults(pid);
        assert!(shim.define(&json!({}), &domain).await.unwrap() == domain);
        fewest = fewest.min(page_faults(pid) - before);
    }
    // The document alone has 489 pages, and there is more than one copy.
    assert!(fewest < 200, "each call has {fewest} page faults or more");
    let busy = resident(pid);
    eventually("memory is returned", || busy.saturating_sub(resident(pid)) >= BYTES).await;
    shim.still_works().await;
}
