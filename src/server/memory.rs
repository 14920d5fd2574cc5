//! Memory that calls have used: kept for the next while they come, given back when they stop.
//!
//! # Theory of operation
//! glibc's `free` gives the unused end of the heap back to the system once it is 128 kB long. After a call
//! with a long document that is most of what the call has used, and the next one pays for it again, with
//! a page fault for every 4 kB. But two limits follow what the program does (`mallopt(3)`,
//! `M_MMAP_THRESHOLD`): when a block that had a mapping of its own is freed, blocks up to its size come
//! from the heap from then on, and the unused end may be twice as long. So one large block is allocated
//! and freed at the start. To give memory back, smaller ones are, until the unused end is longer than
//! the limit. Nobody writes to any of them, so they take addresses and no memory.
//!
//! What lies below a block that is still in use stays, as it did before. All this holds for the heap of
//! the main thread, which is the one that calls are answered on. Nothing depends on it but time: another
//! allocator takes no notice.

use std::hint::black_box;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use crate::admission::Load;

/// Of which twice as much is kept: the copies of a document of a few megabytes.
const LARGEST_BLOCK: usize = 8 << 20;

/// Documents that are larger still move the limit further: to twice the 32 MiB up to which glibc follows.
const MOST_THAT_IS_KEPT: usize = 64 << 20;

/// How long no call has begun or ended when memory is given back.
const KEPT_FOR: Duration = Duration::from_secs(1);

/// Keeps memory while the number of calls changes. Returns when nobody counts them any more.
pub(super) async fn keep_between_calls(mut calls: watch::Receiver<Load>) {
    drop(blocks(1, LARGEST_BLOCK));
    while calls.changed().await.is_ok() {
        // One look in a while: no call pays for it.
        sleep(KEPT_FOR).await;
        if let Ok(false) = calls.has_changed() {
            give_back();
        }
    }
}

fn give_back() {
    // They come from the heap, and first from what is free in its midst: hence twice as many.
    let size = LARGEST_BLOCK / 2;
    drop(blocks(2 * MOST_THAT_IS_KEPT / size, size));
}

/// Blocks of memory that is not touched, so that it takes no room; fewer if the system has no more.
fn blocks(count: usize, size: usize) -> Vec<Vec<u8>> {
    let block = || {
        let mut block = Vec::new();
        block.try_reserve_exact(size).ok().map(|()| black_box(block))
    };
    std::iter::repeat_with(block).map_while(|block| block).take(count).collect()
}
