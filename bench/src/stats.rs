//! Quantiles, and medians with their spread.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Minimum of values for a 99th percentile: of fewer, it is the maximum.
const LEAST_FOR_P99: usize = 100;

/// The nearest-rank quantile of sorted values: the smallest value with at least `q` of all at or
/// below it.
///
/// # Panics
/// If there are no values, or `q` is not above 0 and at most 1.
pub fn quantile<T: Copy>(sorted: &[T], q: f64) -> T {
    assert!(
        !sorted.is_empty() && q > 0.0 && q <= 1.0,
        "no quantile {q} of {} values",
        sorted.len()
    );
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "counts of calls are far below 2^52"
    )]
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

/// The median: of an even number of values, the mean of the two in the middle.
///
/// # Panics
/// If there are none.
pub fn median(values: &[f64]) -> f64 {
    assert!(!values.is_empty(), "no median of nothing");
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    }
}

/// One contestant's calls in one round.
#[derive(Debug, Clone)]
pub struct Round {
    /// Time of each call, in no order.
    pub latencies: Vec<Duration>,
    /// From the start of the first call to the end of the last.
    pub elapsed: Duration,
    /// CPU time of the server and its workers.
    pub cpu: Duration,
}

impl Round {
    /// The median of its calls, in seconds.
    fn p50(&self) -> f64 {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        quantile(&sorted, 0.5).as_secs_f64()
    }
}

/// All rounds of a contestant.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Summary {
    /// Number of calls that were measured.
    pub calls: usize,
    /// The median call, in milliseconds.
    pub p50_ms: f64,
    /// The 99th percentile, in milliseconds, if there were enough calls.
    pub p99_ms: Option<f64>,
    /// Calls for each second of wall-clock time.
    pub calls_per_s: f64,
    /// CPU time of the server and its workers for each call, in milliseconds.
    pub cpu_ms: f64,
    /// The median of each round, in milliseconds.
    pub rounds_p50_ms: Vec<f64>,
}

impl Summary {
    /// Of at least one call.
    pub fn of(rounds: &[Round]) -> Self {
        let mut sorted: Vec<Duration> =
            rounds.iter().flat_map(|round| round.latencies.iter().copied()).collect();
        sorted.sort_unstable();
        let calls = sorted.len();
        #[expect(clippy::cast_precision_loss, reason = "counts of calls are far below 2^52")]
        let count = calls as f64;
        let total =
            |of: fn(&Round) -> Duration| rounds.iter().map(of).sum::<Duration>().as_secs_f64();
        Self {
            calls,
            p50_ms: ms(quantile(&sorted, 0.5)),
            p99_ms: (calls >= LEAST_FOR_P99).then(|| ms(quantile(&sorted, 0.99))),
            calls_per_s: count / total(|round| round.elapsed),
            cpu_ms: 1e3 * total(|round| round.cpu) / count,
            rounds_p50_ms: rounds.iter().map(|round| 1e3 * round.p50()).collect(),
        }
    }
}

/// The rounds of something, or of its ratio to something else.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    /// `None` if there are no values.
    pub fn of(values: &[f64]) -> Option<Self> {
        let min = values.iter().copied().min_by(f64::total_cmp)?;
        let max = values.iter().copied().max_by(f64::total_cmp)?;
        Some(Self { median: median(values), min, max })
    }

    /// Of the ratios of two rows that were measured in turn, round by round.
    pub fn of_ratios(above: &[f64], below: &[f64]) -> Option<Self> {
        let ratios = above.iter().zip(below).map(|(above, below)| above / below);
        Self::of(&ratios.collect::<Vec<_>>())
    }
}

/// In milliseconds, with at most six decimal places in a file.
#[expect(clippy::cast_precision_loss, reason = "2^52 ns are 52 days")]
pub fn ms(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let values: Vec<u32> = (1..=100).collect();
        assert_eq!(quantile(&values, 0.5), 50);
        assert_eq!(quantile(&values, 0.99), 99);
        assert_eq!(quantile(&values, 1.0), 100);
        assert_eq!(quantile(&values, 0.001), 1);
        assert_eq!(quantile(&[7, 8, 9], 0.5), 8);
        assert_eq!(quantile(&[7], 0.99), 7);
    }

    #[test]
    fn the_median_needs_no_order() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-12);
        assert!((median(&[4.0, 1.0, 3.0, 2.0]) - 2.5).abs() < 1e-12);
    }

    fn round(millis: &[u64], elapsed: u64, cpu: u64) -> Round {
        Round {
            latencies: millis.iter().copied().map(Duration::from_millis).collect(),
            elapsed: Duration::from_millis(elapsed),
            cpu: Duration::from_millis(cpu),
        }
    }

    #[test]
    fn a_summary_is_of_all_calls_and_each_round() {
        let summary = Summary::of(&[round(&[3, 1, 2], 10, 6), round(&[9, 8, 7, 6, 5], 30, 2)]);
        assert_eq!(summary.calls, 8);
        assert!((summary.p50_ms - 5.0).abs() < 1e-9);
        assert_eq!(summary.p99_ms, None);
        assert!((summary.calls_per_s - 200.0).abs() < 1e-9);
        assert!((summary.cpu_ms - 1.0).abs() < 1e-9);
        assert_eq!(summary.rounds_p50_ms, [2.0, 7.0]);
    }

    #[test]
    fn a_hundred_calls_have_a_99th_percentile() {
        let millis: Vec<u64> = (1..=100).rev().collect();
        assert_eq!(Summary::of(&[round(&millis, 1, 1)]).p99_ms, Some(99.0));
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        // The machine was twice as slow in the second round, for both.
        let ratio = Spread::of_ratios(&[3.0, 6.0, 4.0], &[1.0, 2.0, 1.0]).unwrap();
        assert_eq!(ratio, Spread { median: 3.0, min: 3.0, max: 4.0 });
        assert_eq!(Spread::of(&[]), None);
    }
}
