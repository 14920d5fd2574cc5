//! Checks of how a worker exits, and of what it keeps in memory.

use tokio::time::Instant;

use super::session::Session;
use super::verdict::{NotPassed, Verdict};

/// Calls between two measurements of the memory.
const WINDOW_CALLS: usize = 250;

/// Minimum number of measurements: 1,000 calls.
const WINDOWS: usize = 4;

/// Maximum number of measurements. Garbage collectors let memory grow for a while.
const MAX_WINDOWS: usize = 16;

/// Maximum growth in one window: 4 KiB for each call, as much as a small document. Allocators and
/// caches stay below that once they are warm.
const WINDOW_GROWTH: u64 = WINDOW_CALLS as u64 * 4096;

/// Growth at which the check stops: more than the whole sidecar of many VMs has.
const MAX_GROWTH: u64 = 64 << 20;

/// Time for all calls, in multiples of the timeout for one response.
const MEMORY_TIMEOUTS: u32 = 4;

pub(super) async fn end_of_file(session: &mut Session) -> Verdict {
    let mut worker = session.worker().await?;
    worker.close_stdin().await;
    let exit = worker.exit_at_eof().await?;
    if exit.success() { Ok(None) } else { Err(worker.fault(format!("at EOF it {exit}"))) }
}

pub(super) async fn end_of_file_in_call(session: &mut Session) -> Verdict {
    let call = session.plain_call()?;
    let mut worker = session.worker().await?;
    let (id, bytes) = worker.call_bytes(&call)?;
    worker.send(&bytes);
    worker.close_stdin().await;
    worker.reply(&call, id).await?;
    Ok(None)
}

pub(super) async fn sigterm(session: &mut Session) -> Verdict {
    let mut worker = session.worker().await?;
    worker.terminate();
    worker.exit_after("SIGTERM").await?;
    Ok(None)
}

pub(super) async fn memory(session: &mut Session) -> Verdict {
    let call = session.plain_call()?;
    let mut worker = session.new_worker().await?;
    let until = Instant::now() + session.timeouts.response * MEMORY_TIMEOUTS;
    let mut sizes: Vec<u64> = Vec::new();
    loop {
        for number in 0..WINDOW_CALLS {
            if Instant::now() > until {
                let made = sizes.len() * WINDOW_CALLS + number;
                return Err(NotPassed::skipped(format!(
                    "there was time for only {made} calls; --timeout gives more"
                )));
            }
            worker.call(&call).await?;
        }
        sizes.push(worker.memory());
        let calls = sizes.len() * WINDOW_CALLS;
        session.progress.calls("memory", calls);
        match is_bounded(&sizes) {
            None => {}
            Some(true) => return worker.stop().await,
            Some(false) => {
                let kibibytes: Vec<_> =
                    sizes.iter().map(|size| (size / 1024).to_string()).collect();
                let seen = format!(
                    "in {calls} calls it grew by more than {} KiB in every {WINDOW_CALLS}: {} KiB",
                    WINDOW_GROWTH / 1024,
                    kibibytes.join(", ")
                );
                return Err(worker.fault(seen));
            }
        }
    }
}

/// Returns whether the memory is bounded, given its size after each window; `None` if that needs
/// more calls. The first window loads and fills what is needed once. After it, one window without
/// growth is enough.
fn is_bounded(sizes: &[u64]) -> Option<bool> {
    if sizes.len() < WINDOWS {
        return None;
    }
    if sizes.windows(2).any(|pair| pair[1] <= pair[0] + WINDOW_GROWTH) {
        return Some(true);
    }
    let grown = sizes[sizes.len() - 1] - sizes[0];
    (sizes.len() == MAX_WINDOWS || grown > MAX_GROWTH).then_some(false)
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
        assert_eq!(is_bounded(&after(3, 0)), None, "too few calls");
        assert_eq!(is_bounded(&after(4, 0)), Some(true));
        assert_eq!(is_bounded(&after(4, WINDOW_GROWTH)), Some(true), "the limit is allowed");
        assert_eq!(is_bounded(&after(4, WINDOW_GROWTH + 1)), None);
        assert_eq!(is_bounded(&after(16, WINDOW_GROWTH + 1)), Some(false));
        assert_eq!(is_bounded(&after(4, 30 * MIB)), Some(false), "too much to go on");
        assert_eq!(
            is_bounded(&[8 * MIB, 12 * MIB, 16 * MIB, 16 * MIB]),
            Some(true),
            "a full cache"
        );
        assert_eq!(
            is_bounded(&[8 * MIB, 12 * MIB, 9 * MIB, 14 * MIB]),
            Some(true),
            "collected garbage"
        );
    }
}
