//! Checks of how a worker ends, and of what it keeps while it lives.

use super::session::Session;
use super::verdict::{Stop, Verdict};

/// Calls between two looks at the memory.
const WINDOW_CALLS: u32 = 250;

/// Looks at least: 1,000 calls.
const WINDOWS: usize = 4;

/// Looks at most, if the memory has grown each time. Collectors of garbage let it grow for a while.
const MAX_WINDOWS: usize = 16;

/// What a worker may grow in one window: 4 KiB for each call, as much as a small document. Allocators
/// and caches stay below that once they are warm.
const WINDOW_GROWTH: u64 = WINDOW_CALLS as u64 * 4096;

/// What a worker that grows and grows is stopped at: more than the whole sidecar of many a VM has.
const TOO_MUCH_GROWTH: u64 = 64 << 20;

/// How long all calls of this check may take, in answers that are as slow as one may be.
const MEMORY_ANSWERS: u32 = 4;

pub(super) async fn end_of_file(session: &mut Session) -> Verdict {
    let mut worker = session.worker().await?;
    worker.close().await;
    let exit = worker.ended("end-of-file").await?;
    if exit.success() {
        Ok(None)
    } else {
        Err(worker.fault(format!("at end-of-file it {exit}")).into())
    }
}

pub(super) async fn end_of_file_in_call(session: &mut Session) -> Verdict {
    let call = session.plain_call()?;
    let mut worker = session.worker().await?;
    let (id, bytes) = worker.call_bytes(&call)?;
    worker.send(&bytes);
    worker.close().await;
    worker.reply(&call, id).await?;
    Ok(None)
}

pub(super) async fn sigterm(session: &mut Session) -> Verdict {
    let mut worker = session.worker().await?;
    worker.terminate();
    worker.ended("SIGTERM").await?;
    Ok(None)
}

pub(super) async fn memory(session: &mut Session) -> Verdict {
    let call = session.plain_call()?;
    let mut worker = session.new_worker().await?;
    let until = tokio::time::Instant::now() + session.timeouts().answer * MEMORY_ANSWERS;
    let mut sizes: Vec<u64> = Vec::new();
    loop {
        for number in 0..WINDOW_CALLS {
            if tokio::time::Instant::now() > until {
                let made = sizes.len() * WINDOW_CALLS as usize + number as usize;
                return Err(Stop::skipped(format!(
                    "there was time for {made} calls only; --timeout gives more"
                )));
            }
            worker.call(&call).await?;
        }
        sizes.push(worker.memory());
        let calls = sizes.len() * WINDOW_CALLS as usize;
        session.progress.calls("memory", calls);
        match judge(&sizes) {
            None => {}
            Some(true) => {
                worker.dismiss().await?;
                return Ok(None);
            }
            Some(false) => {
                let kibibytes: Vec<_> =
                    sizes.iter().map(|size| (size / 1024).to_string()).collect();
                let seen = format!(
                    "in {calls} calls it grew by more than {} KiB with every {WINDOW_CALLS}: {} KiB",
                    WINDOW_GROWTH / 1024,
                    kibibytes.join(", ")
                );
                return Err(worker.fault(seen).into());
            }
        }
    }
}

/// Whether the memory is bounded, by its size after each window. `None` if that has to be seen. The first
/// window is for what is loaded and filled once; after it, one that does not grow is enough.
fn judge(sizes: &[u64]) -> Option<bool> {
    if sizes.len() < WINDOWS {
        return None;
    }
    if sizes.windows(2).any(|pair| pair[1] <= pair[0] + WINDOW_GROWTH) {
        return Some(true);
    }
    let grown = sizes[sizes.len() - 1] - sizes[0];
    (sizes.len() == MAX_WINDOWS || grown > TOO_MUCH_GROWTH).then_some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn memory_that_always_grows_is_a_leak() {
        let after = |windows: u64, each: u64| -> Vec<u64> {
            (0..windows).map(|window| 8 * MIB + window * each).collect()
        };
        assert_eq!(judge(&after(3, 0)), None, "not seen for long enough");
        assert_eq!(judge(&after(4, 0)), Some(true));
        assert_eq!(judge(&after(4, WINDOW_GROWTH)), Some(true), "as much as is allowed");
        assert_eq!(judge(&after(4, WINDOW_GROWTH + 1)), None);
        assert_eq!(judge(&after(16, WINDOW_GROWTH + 1)), Some(false));
        assert_eq!(judge(&after(4, 30 * MIB)), Some(false), "too much to go on");
        assert_eq!(judge(&[8 * MIB, 12 * MIB, 16 * MIB, 16 * MIB]), Some(true), "a full cache");
        assert_eq!(judge(&[8 * MIB, 12 * MIB, 9 * MIB, 14 * MIB]), Some(true), "it was collected");
    }
}
