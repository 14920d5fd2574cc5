//! When a worker is started after others have failed: back-off and circuit breaker.
//!
//! Two things delay the next start: a worker that does not come up, which is one that exits before
//! it answered `initialize`, and one that is lost while it is idle. Only the first of them trips
//! the circuit breaker. As long as workers come up, calls wait for the next one. What a call does
//! to its worker is neither: one bad document must not make the pool unavailable.
//!
//! ```text
//!            INTENSITY rounds fail in a row
//!  closed ──────────────────────────────────────▶ tripped
//!     ▲              a worker is ready               │
//!     └──────────────────────────────────────────────┘
//! ```
//!
//! A round is all that was started before a start failed. Its workers mostly fail for one reason,
//! so they count once, however many there were.

use std::time::Duration;

use tokio::time::Instant;

/// Back-off after the first failure. It doubles with each further one.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);

/// Maximum back-off between two starts.
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);

/// After this many failed rounds in a row the circuit breaker trips, and calls fail at once instead
/// of waiting for the next start.
pub(super) const INTENSITY: usize = 5;

/// Time for which a failed round makes the next back-off longer once a worker has come up after it.
const PERIOD: Duration = Duration::from_secs(60);

/// A worker that was up for this many times the last back-off before it was lost ends the back-off:
/// the next one is the first again. So the time that calls spend waiting for workers that come up
/// is a small part of the time in which those serve.
const PROVEN: u32 = 10;

/// The failures of a pool's workers.
#[derive(Default)]
pub(super) struct Restart {
    /// Number of rounds that failed since a worker came up.
    failures: usize,
    /// Number of rounds that failed.
    round: u64,
    /// The last back-off. `None` after a call finished.
    wait: Option<Duration>,
    until: Option<Instant>,
    /// Whether a worker has come up since the last one that did not.
    came_up: bool,
    tripped: bool,
}

impl Restart {
    /// A worker that was started in this round did not come up. Nothing changes if the round has
    /// failed already.
    pub(super) fn failed_to_start(&mut self, now: Instant, round: u64) {
        if round != self.round {
            return;
        }
        self.round += 1;
        if self.came_up {
            if self.until.is_some_and(|until| now.duration_since(until) >= PERIOD) {
                self.wait = None;
            }
            self.came_up = false;
        }
        self.failures += 1;
        self.tripped |= self.failures >= INTENSITY;
        self.back_off(now);
    }

    /// A worker that had been up for this time was lost while it was idle. Nothing changes during a
    /// back-off: what kills several workers at once has happened once.
    pub(super) fn lost_idle(&mut self, now: Instant, was_up: Duration) {
        if self.until(now).is_some() {
            return;
        }
        if self.wait.is_some_and(|wait| was_up >= wait * PROVEN) {
            self.wait = None;
        }
        self.back_off(now);
    }

    fn back_off(&mut self, now: Instant) {
        let wait = self.wait.map_or(FIRST_BACKOFF, |wait| (wait * 2).min(LONGEST_BACKOFF));
        self.wait = Some(wait);
        self.until = Some(now + wait);
    }

    /// A worker is ready.
    pub(super) fn came_up(&mut self) {
        self.came_up = true;
        self.tripped = false;
        self.failures = 0;
    }

    /// Whether the last worker that was started did not come up.
    pub(super) fn last_start_failed(&self) -> bool {
        !self.came_up && self.round > 0
    }

    /// Returns the number of the round in which workers are started now.
    pub(super) fn round(&self) -> u64 {
        self.round
    }

    /// Ends the back-off when a call finished, if a worker has started since the last failure:
    /// without one, old workers still serve while no new one can be started.
    pub(super) fn call_finished(&mut self) {
        if self.came_up {
            self.wait = None;
            self.until = None;
        }
    }

    /// Whether the circuit breaker has tripped.
    pub(super) fn tripped(&self) -> bool {
        self.tripped
    }

    /// Returns the end of the back-off, if it is in the future.
    pub(super) fn until(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        use std::sync::LazyLock;
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        *START + Duration::from_secs(seconds)
    }

    /// One more round fails.
    fn fail(restart: &mut Restart, now: Instant) -> u128 {
        restart.failed_to_start(now, restart.round());
        wait(restart, now)
    }

    fn wait(restart: &Restart, now: Instant) -> u128 {
        restart.until(now).map_or(0, |until| (until - now).as_millis())
    }

    #[test]
    fn the_wait_doubles_up_to_its_limit_and_ends_with_an_answer() {
        let mut restart = Restart::default();
        let waits: Vec<_> = (0..11).map(|_| fail(&mut restart, at(0))).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000]);
        assert_eq!(restart.until(at(29)), Some(at(30)));
        assert_eq!(restart.until(at(30)), None);
        restart.came_up();
        restart.call_finished();
        assert_eq!(restart.until(at(0)), None);
        assert_eq!(fail(&mut restart, at(1)), 100);
    }

    #[test]
    fn answers_of_other_workers_do_not_shorten_the_wait() {
        let mut restart = Restart::default();
        fail(&mut restart, at(0));
        restart.call_finished();
        assert!(restart.until(at(0)).is_some());
        assert_eq!(fail(&mut restart, at(1)), 200);
    }

    #[test]
    fn five_failures_in_a_row_trip_it_however_long_each_takes() {
        let mut restart = Restart::default();
        for time in [0, 100, 200, 300] {
            fail(&mut restart, at(time));
            assert!(!restart.tripped());
        }
        fail(&mut restart, at(400));
        assert!(restart.tripped());
        restart.came_up();
        assert!(!restart.tripped());
    }

    #[test]
    fn as_long_as_workers_come_up_in_between_nothing_trips_it() {
        let mut restart = Restart::default();
        for time in 0..20 {
            for _ in 1..INTENSITY {
                fail(&mut restart, at(time));
            }
            assert!(!restart.tripped());
            restart.came_up();
        }
    }

    #[test]
    fn a_failure_long_after_the_last_one_waits_as_the_first_does() {
        let mut restart = Restart::default();
        for _ in 0..4 {
            fail(&mut restart, at(0));
        }
        restart.came_up();
        assert_eq!(fail(&mut restart, at(61)), 100);
    }

    #[test]
    fn workers_of_one_round_fail_once() {
        let mut restart = Restart::default();
        let round = restart.round();
        for _ in 0..10 {
            restart.failed_to_start(at(0), round);
        }
        assert_eq!(wait(&restart, at(0)), 100);
        assert!(!restart.tripped());
        assert!(restart.last_start_failed());
        restart.came_up();
        // One that was started before the others failed, and took longer.
        restart.failed_to_start(at(30), round);
        assert_eq!(restart.until(at(30)), None);
        assert!(!restart.last_start_failed());
    }

    #[test]
    fn idle_workers_that_are_lost_delay_the_next_start_and_never_trip_it() {
        let mut restart = Restart::default();
        restart.came_up();
        let mut waits = Vec::new();
        for time in 0..10 {
            // Each time, three are lost at once.
            for _ in 0..3 {
                restart.lost_idle(at(100 * time), Duration::ZERO);
            }
            waits.push(wait(&restart, at(100 * time)));
            restart.came_up();
        }
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000]);
        assert!(!restart.tripped());
    }

    #[test]
    fn a_worker_that_was_up_for_long_ends_the_back_off() {
        for (was_up, next) in [(999, 200), (1000, 100)] {
            let mut restart = Restart::default();
            restart.came_up();
            restart.lost_idle(at(0), Duration::ZERO);
            restart.came_up();
            restart.lost_idle(at(9), Duration::from_millis(was_up));
            assert_eq!(wait(&restart, at(9)), next, "after {was_up} ms");
        }
    }
}
