//! When a worker is started after others have failed: back-off and circuit breaker.
//!
//! A failure is an exit before `initialize` was answered, or a crash of an idle worker. What a call
//! does to its worker is not a failure: one bad document must not make the pool unavailable.
//!
//! ```text
//!           INTENSITY failures within PERIOD, or in a row
//!  closed ───────────────────────────────────────────────▶ tripped
//!     ▲                     a worker is ready                 │
//!     └───────────────────────────────────────────────────────┘
//! ```

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Back-off after the first failure. It doubles with each further one.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);

/// Maximum back-off between two starts.
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);

/// After this many failures within [`PERIOD`], or in a row, the circuit breaker trips and calls
/// fail at once instead of waiting for the next start.
const INTENSITY: usize = 5;

/// Time for which a failure counts once a worker has started after it.
const PERIOD: Duration = Duration::from_secs(60);

/// The failures of a pool's workers.
#[derive(Default)]
pub(super) struct Restart {
    failures: VecDeque<Instant>,
    /// The last back-off. `None` after a call finished.
    wait: Option<Duration>,
    until: Option<Instant>,
    /// Whether a worker has started since the last failure.
    came_up: bool,
    tripped: bool,
}

impl Restart {
    /// Counts a failure. Returns the back-off until the next start.
    pub(super) fn failed(&mut self, now: Instant) -> Duration {
        if self.came_up {
            self.failures.retain(|failure| now.duration_since(*failure) < PERIOD);
            self.came_up = false;
        }
        if self.failures.is_empty() {
            self.wait = None;
        }
        if self.failures.len() == INTENSITY {
            self.failures.pop_front();
        }
        self.failures.push_back(now);
        self.tripped |= self.failures.len() == INTENSITY;
        let wait = self.wait.map_or(FIRST_BACKOFF, |wait| (wait * 2).min(LONGEST_BACKOFF));
        self.wait = Some(wait);
        self.until = Some(now + wait);
        wait
    }

    /// A worker is ready.
    pub(super) fn came_up(&mut self) {
        self.came_up = true;
        self.tripped = false;
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

    #[test]
    fn the_wait_doubles_up_to_its_limit_and_ends_with_an_answer() {
        let mut restart = Restart::default();
        let waits: Vec<_> = (0..11).map(|_| restart.failed(at(0)).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000]);
        assert_eq!(restart.until(at(29)), Some(at(30)));
        assert_eq!(restart.until(at(30)), None);
        restart.came_up();
        restart.call_finished();
        assert_eq!(restart.until(at(0)), None);
        assert_eq!(restart.failed(at(1)).as_millis(), 100);
    }

    #[test]
    fn answers_of_other_workers_do_not_shorten_the_wait() {
        let mut restart = Restart::default();
        restart.failed(at(0));
        restart.call_finished();
        assert!(restart.until(at(0)).is_some());
        assert_eq!(restart.failed(at(1)).as_millis(), 200);
    }

    #[test]
    fn five_failures_in_a_row_trip_it_however_long_each_takes() {
        let mut restart = Restart::default();
        for time in [0, 100, 200, 300] {
            restart.failed(at(time));
            assert!(!restart.tripped());
        }
        restart.failed(at(400));
        assert!(restart.tripped());
        restart.came_up();
        assert!(!restart.tripped());
    }

    #[test]
    fn with_workers_in_between_five_failures_in_a_minute_trip_it() {
        for (apart, trips) in [(14, true), (15, false)] {
            let mut restart = Restart::default();
            for number in 0..5 {
                assert!(!restart.tripped());
                restart.failed(at(number * apart));
                if number < 4 {
                    restart.came_up();
                }
            }
            assert_eq!(restart.tripped(), trips, "{apart} s apart");
        }
    }

    #[test]
    fn a_failure_long_after_the_last_one_waits_as_the_first_does() {
        let mut restart = Restart::default();
        for _ in 0..4 {
            restart.failed(at(0));
        }
        restart.came_up();
        assert_eq!(restart.failed(at(61)).as_millis(), 100);
    }
}
