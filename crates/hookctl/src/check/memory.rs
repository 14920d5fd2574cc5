//! The check of what a worker keeps of its calls.
//!
//! # Theory of operation
//! What a worker has in RAM grows for reasons other than a leak: caches fill, and a garbage
//! collector takes what the heap may have before it collects. So the size alone says nothing, nor
//! does growth at the beginning. The check makes calls in blocks, and takes the lowest size of
//! each, below the waves of a collector. After a warm-up the worker passes as soon as several
//! blocks in a row add next to nothing. One that never has such blocks, until the time or the
//! number of calls is used up, gets a warning.
//!
//! A leak can also hide: in the part of a heap that is in RAM and was collected. So there are as
//! many calls as it takes to fill the heap of the warm-up with 1 KiB of each. Workers with large
//! heaps would take too long; for them the report says which leaks it does not find.

use std::time::Duration;

use tokio::time::Instant;

use super::leftovers::calls_of_all_hooks;
use super::session::Session;
use super::verdict::{NotPassed, Verdict};
use super::worker::WorkerUnderTest;
use sidecar_shim::hook::HookCall;

/// Calls of a block. A leak of 1 KiB for each adds 1 MiB, more than the steps in which allocators
/// grow.
const BLOCK_CALLS: usize = 1024;

/// Time after which a block ends anyway: slow workers make fewer calls.
const BLOCK_TIME: Duration = Duration::from_secs(4);

/// Calls between two measurements, each of which reads all of `/proc`.
const CALLS_PER_SIZE: usize = 64;

/// Blocks that are not judged: they load and fill what is needed once.
const WARM_UP: usize = 1;

/// Blocks in a row that must add next to nothing. A heap that doubles before it is collected hides
/// a leak for as long as it is half empty: a small one for 2,000 calls.
const FLAT_BLOCKS: usize = 3;

/// Growth for each call that counts as none: half of a small leak.
const NO_GROWTH: u64 = 512;

/// Growth that counts as none however few calls were made: the step of an allocator.
const STEP: u64 = 1 << 20;

/// Maximum number of blocks, if the calls are fast.
const MAX_BLOCKS: usize = 32;

/// The leak that is looked for, for each call.
const LEAK: u64 = 1024;

/// Maximum number of blocks for a worker that does not grow and has a large heap.
const MAX_FLAT_BLOCKS: usize = 80;

/// Growth at which the check stops: as much as four sidecars of VMs with dedicated CPUs have.
const MAX_GROWTH: u64 = 256 << 20;

/// Time for all calls.
const TIME: Duration = Duration::from_secs(60);

/// What the worker had in RAM after some calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Size {
    calls: usize,
    bytes: u64,
}

pub(super) async fn memory(session: &mut Session) -> Verdict {
    let calls = calls_of_all_hooks(session)?;
    let mut calls = calls.iter().cycle();
    let mut worker = session.new_worker().await?;
    let until = Instant::now() + TIME.max(session.timeouts.response);
    let (mut blocks, mut made): (Vec<Size>, usize) = (Vec::new(), 0);
    let mut heap = 0;
    loop {
        let block_ends = (Instant::now() + BLOCK_TIME).min(until);
        let block = block_of_calls(session, &mut worker, &mut calls, made, block_ends).await?;
        made = block.made;
        blocks.extend(block.least);
        if blocks.len() == WARM_UP {
            heap = worker.heap();
        }
        let is_late = Instant::now() >= until;
        let hidden = heap / made.max(1) as u64;
        if let Some(growth) = flat(&blocks) {
            if hidden <= LEAK || is_late || blocks.len() >= MAX_FLAT_BLOCKS {
                worker.stop().await?;
                return Ok(Some(passed(&growth, made, hidden)));
            }
            continue;
        }
        match never_flat(&blocks, is_late) {
            Growing::SoFar => {}
            Growing::Unknown => {
                return Err(NotPassed::skipped(format!("there was time for only {made} calls")));
            }
            Growing::Always(grown) => {
                return Err(worker.warning(format!(
                    "{grown}, and still grows after {made} calls: it keeps something of each call, \
                     or its runtime collects garbage late and needs a limit (-Xmx, GOMEMLIMIT, \
                     --max-old-space-size)"
                )));
            }
        }
    }
}

/// The outcome of a block: all calls made so far, and the least size in it.
struct Block {
    made: usize,
    least: Option<Size>,
}

async fn block_of_calls<'a>(
    session: &Session,
    worker: &mut WorkerUnderTest,
    calls: &mut impl Iterator<Item = &'a HookCall>,
    first: usize,
    until: Instant,
) -> Result<Block, NotPassed> {
    let mut block = Block { made: first, least: None };
    while block.made < first + BLOCK_CALLS && Instant::now() < until {
        for call in calls.by_ref().take(CALLS_PER_SIZE) {
            let after = format!(" (after {} calls)", block.made);
            worker.call(call).await.map_err(|failure| failure.with(after))?;
            block.made += 1;
            if Instant::now() >= until {
                break;
            }
        }
        let size = Size { calls: block.made, bytes: worker.memory() };
        if block.least.is_none_or(|least| size.bytes <= least.bytes) {
            block.least = Some(size);
        }
        session.progress.calls("memory", block.made);
    }
    Ok(block)
}

/// Returns the detail of a worker that passes; `hidden` is the largest leak that would not show, in
/// bytes per call.
fn passed(growth: &str, made: usize, hidden: u64) -> String {
    let detail = format!("{growth}; {made} calls");
    if hidden <= LEAK {
        return detail;
    }
    let kibibytes = hidden / 1024;
    format!("{detail}: a leak of less than {kibibytes} KiB per call would not show")
}

/// Growth between two blocks, for people.
fn describe(from: Size, to: Size) -> String {
    let (calls, grown) = (to.calls - from.calls, to.bytes.saturating_sub(from.bytes));
    let each = f64::from(u32::try_from(grown / calls.max(1) as u64).unwrap_or(u32::MAX)) / 1024.0;
    let [before, after] = [from.bytes, to.bytes].map(|bytes| bytes >> 20);
    format!("it grew by {each:.1} KiB per call, from {before} to {after} MiB")
}

/// Returns the growth of the last blocks, if that counts as none.
fn flat(blocks: &[Size]) -> Option<String> {
    let to = *blocks.last()?;
    let from = *blocks.get(WARM_UP..)?.iter().rev().nth(FLAT_BLOCKS)?;
    let calls = (to.calls - from.calls) as u64;
    let is_flat = to.bytes <= from.bytes + (calls * NO_GROWTH).max(STEP);
    is_flat.then(|| describe(from, to))
}

/// What is known of a worker that has not stopped growing.
#[derive(Debug, PartialEq, Eq)]
enum Growing {
    /// There may be more calls.
    SoFar,
    /// There were too few calls to say anything.
    Unknown,
    /// It has grown all the time.
    Always(String),
}

fn never_flat(blocks: &[Size], is_late: bool) -> Growing {
    let from = blocks.get(WARM_UP).copied();
    let to = blocks.last().copied();
    let growth = from.zip(to).filter(|_| blocks.len() > WARM_UP + FLAT_BLOCKS);
    let grown = growth.map_or(0, |(from, to)| to.bytes.saturating_sub(from.bytes));
    if !is_late && blocks.len() < MAX_BLOCKS && grown < MAX_GROWTH {
        return Growing::SoFar;
    }
    growth.map_or(Growing::Unknown, |(from, to)| Growing::Always(describe(from, to)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// Blocks of 1,024 calls with these sizes in KiB.
    fn blocks(kibibytes: impl IntoIterator<Item = u64>) -> Vec<Size> {
        let sizes = kibibytes.into_iter().enumerate();
        sizes
            .map(|(block, size)| Size { calls: (block + 1) * BLOCK_CALLS, bytes: size * 1024 })
            .collect()
    }

    /// Returns after how many blocks a worker with these sizes passes; `None` if it gets a warning.
    fn passes_after(sizes: impl IntoIterator<Item = u64>) -> Option<usize> {
        let all = blocks(sizes);
        (1..=all.len()).find_map(|count| {
            let so_far = &all[..count];
            match (flat(so_far), never_flat(so_far, false)) {
                (Some(_), _) => Some(Some(count)),
                (None, Growing::Always(_)) => Some(None),
                (None, Growing::SoFar | Growing::Unknown) => None,
            }
        })?
    }

    #[test]
    fn a_worker_passes_as_soon_as_it_stops_growing() {
        assert_eq!(passes_after([8000; 40]), Some(5), "no growth");
        assert_eq!(passes_after((0..40).map(|n| 8000 + n * 400)), Some(5), "less than 512 bytes");
        let bounded = |step: u64, bound: u64| (0..40).map(move |n| (8000 + n * step).min(bound));
        assert_eq!(passes_after(bounded(8192, 100_000)), Some(16), "a heap with a limit");
        let waves = (0..40).map(|n| if n % 2 == 0 { 8000 } else { 20_000 });
        assert_eq!(passes_after(waves), Some(5), "waves longer than a block");
    }

    #[test]
    fn a_worker_that_always_grows_gets_a_warning() {
        assert_eq!(passes_after((0..40).map(|n| 8000 + n * 1024)), None, "1 KiB per call");
        // A heap that was half empty at first.
        let late = (0..40).map(|n| if n < 3 { 8000 } else { 8000 + (n - 2) * 2048 });
        assert_eq!(passes_after(late), None);
        let much = blocks((0..6).map(|n| 8000 + n * (100 << 10)));
        assert!(matches!(never_flat(&much, false), Growing::Always(_)), "too much to go on");
        assert_eq!(never_flat(&blocks([8000, 9000]), true), Growing::Unknown, "too few calls");
        let [from, to] =
            [Size { calls: 1024, bytes: 8 * MIB }, Size { calls: 2048, bytes: 9 * MIB }];
        assert_eq!(describe(from, to), "it grew by 1.0 KiB per call, from 8 to 9 MiB");
    }
}
