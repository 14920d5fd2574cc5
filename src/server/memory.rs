//! Memory that calls have used: kept while calls come, given back to the system when they stop.
//!
//! glibc's `free` gives the unused end of the heap back once it is 128 kB long, and blocks of more
//! than 128 kB are not on the heap at all. So after a call with a long document most of its memory
//! is gone, and the next call pays for it again, with a page fault for every 4 kB. Other allocators
//! are left alone.

use std::time::Duration;

use tokio::time::sleep;

use crate::admission::Watched;
use crate::sys;

/// Larger blocks have their own mappings. KubeVirt takes no reply of more than 4 MiB, and a
/// buffer that grows is doubled.
const LARGEST_BLOCK: i32 = 8 << 20;

/// How much is kept: the copies of a document of a few megabytes.
const MAX_RETAINED: i32 = 2 * LARGEST_BLOCK;

/// Memory is given back when no call has begun or finished for this long.
const RETAIN_FOR: Duration = Duration::from_secs(1);

/// Keeps memory while what is held changes. Never returns.
pub(super) async fn keep_between_calls(held: Watched<usize>) {
    sys::keep_heap(LARGEST_BLOCK, MAX_RETAINED);
    let mut changes = 0;
    loop {
        held.changed(changes).await;
        changes = held.changes();
        // One look in a while: no call pays for it.
        sleep(RETAIN_FOR).await;
        if held.changes() == changes {
            sys::trim_heap();
        }
    }
}
