//! Limits how often one kind of event is logged: clients must not be able to flood the log.

use std::time::Duration;

use tokio::time::Instant;

/// After an event is logged, further ones are only counted for this long.
const INTERVAL: Duration = Duration::from_secs(10);

/// One kind of event.
#[derive(Debug, Default)]
pub struct Seldom {
    logged_at: Option<Instant>,
    suppressed: u64,
}

impl Seldom {
    /// Counts an event. If it is to be logged, returns how many were not since the last log line.
    pub fn count(&mut self) -> Option<u64> {
        let now = Instant::now();
        if self.logged_at.is_some_and(|at| now - at < INTERVAL) {
            self.suppressed += 1;
            return None;
        }
        self.logged_at = Some(now);
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn of_many_events_one_is_logged_with_the_number_of_the_others() {
        let mut events = Seldom::default();
        assert_eq!(events.count(), Some(0));
        advance(INTERVAL / 2).await;
        for _ in 0..1000 {
            assert_eq!(events.count(), None);
        }
        advance(INTERVAL / 2).await;
        assert_eq!(events.count(), Some(1000));
        assert_eq!(events.count(), None);
        advance(INTERVAL).await;
        assert_eq!(events.count(), Some(1));
    }
}
