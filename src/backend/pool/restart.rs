//! When a worker is started after others have failed: back-off and restart intensity.
//!
//! Failures are deaths before `initialize` was answered, and deaths of workers that had nothing to
//! do. What one call does to its worker is no failure of the worker's.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// The wait after the first failure; it doubles with each one that follows.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);

/// The longest wait between two starts.
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);

/// So many failures within [`PERIOD`], or in a row, and calls no longer wait for the next start.
const INTENSITY: usize = 5;

/// How long a failure counts once a worker has come up after it.
const PERIOD: Duration = Duration::from_secs(60);

/// The failures of a pool's workers, and what follows from them.
#[derive(Default)]
pub(super) struct Restart {
    failures: VecDeque<Instant>,
    /// The last wait; none after a call has succeeded.
    wait: Option<Duration>,
    until: Option<Instant>,
    /// A worker has come up since the last failure.
    came_up: bool,
    tripped: bool,
}

impl Restart {
    /// Counts a failure. Returns how long no other worker is started.
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

    /// A worker is done with a call. That is a sign of health only if one has come up since the last
    /// failure: others may serve while none can be started.
    pub(super) fn answered(&mut self) {
        if self.came_up {
            self.wait = None;
            self.until = None;
        }
    }

    /// Whether the workers fail so often that no call should wait for the next one.
    pub(super) fn tripped(&self) -> bool {
        self.tripped
    }

    /// When the next start may be, if that is not now.
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
        restart.answered();
        assert_eq!(restart.until(at(0)), None);
        assert_eq!(restart.failed(at(1)).as_millis(), 100);
    }

    #[test]
    fn answers_of_other_workers_do_not_shorten_the_wait() {
        let mut restart = Restart::default();
        restart.failed(at(0));
        restart.answered();
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
