//! What one worker or program may take of the shim's one thread and of its log: a burst is fine,
//! and what never ends is slowed down or left out.

use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::Instant;

/// Bytes of hooks' lines that are logged per second when a child does not stop writing: some 200
/// short lines, more than people read and less than a disk notices.
const LOG_BYTES_PER_SECOND: u32 = 64 * 1024;

/// Bytes of hooks' lines that are logged at once: some 4,000 short lines, such as the debugging
/// output of a few hundred calls.
const LOG_BURST_BYTES: u32 = 1024 * 1024;

/// What a line costs beside its text: the other fields of its log line.
const LOG_LINE_BYTES: usize = 256;

/// Time after which the log says how many lines were left out.
pub(super) const LOG_REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Messages per second that are read of a worker that does not stop to send those that answer no
/// call. Each takes a few microseconds, so such a worker takes a twentieth of a CPU.
const MESSAGES_PER_SECOND: u32 = 16 * 1024;

/// Such messages that are read at once: 100 calls with 40 log lines each.
const MESSAGE_BURST: u32 = 4 * 1024;

/// Bytes of a message that cost as much as one more message.
const MESSAGE_BYTES: usize = 1024;

/// Such messages after which other tasks have their turn: 0.1 ms.
const MESSAGES_PER_TURN: u32 = 32;

/// Shortest pause of a worker that sends too many messages. It then waits for space in its pipe,
/// and takes no CPU either.
const PAUSE: Duration = Duration::from_millis(2);

/// A rate with a burst, of any unit.
struct Rate {
    per_unit: Duration,
    burst: Duration,
    /// When everything that was taken is paid for.
    paid_at: Instant,
}

impl Rate {
    fn new(per_second: u32, burst: u32) -> Self {
        let per_unit = Duration::from_secs(1) / per_second;
        Self { per_unit, burst: per_unit * burst, paid_at: Instant::now() }
    }

    /// Takes units if there are enough.
    fn take(&mut self, units: usize, now: Instant) -> bool {
        let paid_at = self.after(units, now);
        let fits = paid_at <= now + self.burst;
        if fits {
            self.paid_at = paid_at;
        }
        fits
    }

    /// Takes units. Returns until when to wait if there were fewer.
    fn charge(&mut self, units: usize, now: Instant) -> Option<Instant> {
        self.paid_at = self.after(units, now);
        Some(self.paid_at - self.burst).filter(|at| *at > now)
    }

    fn after(&self, units: usize, now: Instant) -> Instant {
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        self.paid_at.max(now) + self.per_unit * units
    }
}

/// Limits what one child gets logged. Once there was too much, everything is left out until the
/// log has said how much that was.
pub(super) struct LogLimit {
    rate: Rate,
    /// What is counted, for the report.
    what: &'static str,
    worker: String,
    pid: i32,
    left_out: u64,
    report_due: Instant,
}

impl LogLimit {
    pub(super) fn new(what: &'static str, worker: String, pid: i32) -> Self {
        let rate = Rate::new(LOG_BYTES_PER_SECOND, LOG_BURST_BYTES);
        Self { rate, what, worker, pid, left_out: 0, report_due: Instant::now() }
    }

    /// Whether a line of this length may be logged. If not, it is counted.
    pub(super) fn admits(&mut self, bytes: usize) -> bool {
        let now = Instant::now();
        if self.left_out == 0 {
            if self.rate.take(LOG_LINE_BYTES + bytes, now) {
                return true;
            }
            self.report_due = now + LOG_REPORT_INTERVAL;
        }
        self.left_out += 1;
        false
    }

    /// When the report is due, if lines were left out.
    pub(super) fn report_due(&self) -> Option<Instant> {
        (self.left_out > 0).then_some(self.report_due)
    }

    /// Logs how many lines were left out, and admits lines again.
    pub(super) fn report(&mut self) {
        let left_out = std::mem::take(&mut self.left_out);
        if left_out > 0 {
            let Self { what, worker, pid, .. } = self;
            tracing::warn!(
                worker,
                pid,
                left_out,
                "{left_out} {what} were left out of the log: the hook writes more than {} KiB/s",
                LOG_BYTES_PER_SECOND / 1024
            );
        }
    }
}

impl Drop for LogLimit {
    fn drop(&mut self) {
        self.report();
    }
}

/// Limits how much of what a worker sends without being asked is read: log lines, notifications,
/// requests.
pub(super) struct MessageLimit {
    rate: Rate,
    /// Messages since other tasks had their turn.
    in_turn: u32,
    paused_until: Option<Instant>,
}

impl MessageLimit {
    pub(super) fn new() -> Self {
        let rate = Rate::new(MESSAGES_PER_SECOND, MESSAGE_BURST);
        Self { rate, in_turn: 0, paused_until: None }
    }

    /// Counts a message of this length.
    pub(super) fn count(&mut self, bytes: usize) {
        self.in_turn += 1;
        let now = Instant::now();
        let wait = self.rate.charge(1 + bytes / MESSAGE_BYTES, now);
        self.paused_until = wait.map(|at| at.max(now + PAUSE));
    }

    /// Until when nothing is read of the worker.
    pub(super) fn paused_until(&self) -> Option<Instant> {
        self.paused_until
    }

    pub(super) fn resume(&mut self) {
        self.paused_until = None;
    }

    /// Lets other tasks have their turn if the worker has had its own.
    pub(super) async fn end_turn(&mut self) {
        if self.in_turn >= MESSAGES_PER_TURN {
            self.in_turn = 0;
            yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_rate_allows_a_burst_and_then_its_number_per_second() {
        let mut rate = Rate::new(10, 20);
        let start = Instant::now();
        assert!(rate.take(20, start));
        assert!(!rate.take(1, start));
        let later = start + Duration::from_secs(1);
        assert!(!rate.take(11, later));
        assert!(rate.take(10, later));
        // It saves up no more than the burst.
        let much_later = start + Duration::from_secs(1000);
        assert!(!rate.take(21, much_later));
        assert_eq!(rate.charge(20, much_later), None);
        assert_eq!(rate.charge(5, much_later), Some(much_later + Duration::from_millis(500)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_left_out_of_the_log_is_counted_until_it_was_reported() {
        let mut limit = LogLimit::new("lines", "worker".to_owned(), 1);
        let lines = (0..10_000).filter(|_| limit.admits(0)).count();
        assert_eq!(lines, LOG_BURST_BYTES as usize / LOG_LINE_BYTES);
        assert_eq!(limit.left_out, 10_000 - lines as u64);
        let due = limit.report_due().unwrap();
        assert_eq!(due, Instant::now() + LOG_REPORT_INTERVAL);
        tokio::time::sleep_until(due).await;
        assert!(!limit.admits(0), "not before the report");
        limit.report();
        assert_eq!(limit.report_due(), None);
        let lines = (0..10_000).filter(|_| limit.admits(0)).count();
        assert_eq!(lines, LOG_BYTES_PER_SECOND as usize / LOG_LINE_BYTES);
    }
}
