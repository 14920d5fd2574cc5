//! A histogram of times whose size never changes: what quantiles and Prometheus's buckets are read
//! from.

use std::time::Duration;

/// Where the buckets of a decade begin, in hundredths of its lowest value. The widest is a sixth of
/// where it begins, so a quantile is wrong by no more than that. The bounds that Prometheus sees
/// are among them.
const STEPS: [u16; 21] = [
    100, 110, 120, 130, 150, 170, 190, 210, 230, 250, 270, 300, 350, 400, 450, 500, 550, 600, 700,
    800, 900,
];

/// The first decade: 10 to 100 µs. No call takes less.
const FIRST_DECADE: u32 = 1;

/// Decades up to 100 s. A call's deadline is mostly 60 s.
const DECADES: usize = 7;

/// One bucket for each step, one below the first and one above the last.
const BUCKETS: usize = STEPS.len() * DECADES + 2;

/// Counts times. Each bucket includes its upper bound.
#[derive(Debug, Clone)]
pub struct Histogram {
    counts: [u64; BUCKETS],
    count: u64,
    /// In microseconds, as all numbers here.
    sum: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: [0; BUCKETS], count: 0, sum: 0, max: 0 }
    }
}

impl Histogram {
    pub(super) fn add(&mut self, time: Duration) {
        let time = microseconds(time);
        self.counts[bucket_of(time)] += 1;
        self.count += 1;
        self.sum = self.sum.saturating_add(time);
        self.max = self.max.max(time);
    }

    /// Adds all times of another one.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        self.count += other.count;
        self.sum = self.sum.saturating_add(other.sum);
        self.max = self.max.max(other.max);
    }

    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    #[must_use]
    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.sum)
    }

    #[must_use]
    pub fn max(&self) -> Duration {
        Duration::from_micros(self.max)
    }

    /// Returns the time that this part of all times does not exceed, as if they lay evenly in their
    /// bucket. `None` if there are none.
    #[must_use]
    pub fn quantile(&self, thousandths: u64) -> Option<Duration> {
        if self.count == 0 {
            return None;
        }
        let rank = (u128::from(self.count) * u128::from(thousandths)).div_ceil(1000).max(1);
        let mut below = 0;
        for (bucket, count) in self.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            let (begin, end) = (begin_of(bucket), begin_of(bucket + 1).unwrap_or(self.max));
            if u128::from(below + count) >= rank {
                let begin = begin.unwrap_or(0);
                let width = u128::from(end.saturating_sub(begin));
                let part = width * (rank - u128::from(below)) / u128::from(*count);
                let time = begin + u64::try_from(part).unwrap_or(u64::MAX);
                return Some(Duration::from_micros(time.min(self.max)));
            }
            below += count;
        }
        Some(self.max())
    }

    /// Returns the number of times up to this one, which must be a bound of the buckets.
    #[must_use]
    pub fn count_up_to(&self, bound: Duration) -> u64 {
        self.counts[..=bucket_of(microseconds(bound))].iter().sum()
    }

    /// Whether a bucket ends at this time.
    #[must_use]
    pub fn has_bound(bound: Duration) -> bool {
        let bound = microseconds(bound);
        begin_of(bucket_of(bound) + 1) == Some(bound)
    }
}

/// Returns a time in microseconds, rounded up.
fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1000)).unwrap_or(u64::MAX)
}

fn bucket_of(time: u64) -> usize {
    // Whole numbers up to the bound are those below it, after one less.
    let time = time.saturating_sub(1);
    let Some(decade) = time.checked_ilog10().and_then(|it| it.checked_sub(FIRST_DECADE)) else {
        return 0;
    };
    let decade = decade as usize;
    if decade >= DECADES {
        return BUCKETS - 1;
    }
    let hundredths = u128::from(time) * 100 / u128::from(10_u64.pow(time.ilog10()));
    1 + decade * STEPS.len() + STEPS.partition_point(|step| u128::from(*step) <= hundredths) - 1
}

/// Returns where a bucket begins. `None` for the first, and behind the last.
fn begin_of(bucket: usize) -> Option<u64> {
    let index = bucket.checked_sub(1).filter(|index| *index <= STEPS.len() * DECADES)?;
    let decade = FIRST_DECADE + u32::try_from(index / STEPS.len()).unwrap_or(0);
    Some(u64::from(STEPS[index % STEPS.len()]) * 10_u64.pow(decade) / 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn micros(count: u64) -> Duration {
        Duration::from_micros(count)
    }

    fn of(times: impl IntoIterator<Item = u64>) -> Histogram {
        let mut histogram = Histogram::default();
        times.into_iter().for_each(|time| histogram.add(micros(time)));
        histogram
    }

    #[test]
    fn buckets_follow_each_other_and_include_their_end() {
        assert_eq!(begin_of(1), Some(10));
        assert_eq!(begin_of(BUCKETS - 1), Some(100_000_000));
        assert_eq!(begin_of(BUCKETS), None);
        for bucket in 1..BUCKETS - 1 {
            let (begin, end) = (begin_of(bucket).unwrap(), begin_of(bucket + 1).unwrap());
            assert!(begin < end && (end - begin) * 6 <= begin, "{begin} to {end}");
            assert_eq!(bucket_of(begin), bucket - 1, "{begin}");
            assert_eq!(bucket_of(begin + 1), bucket, "{begin}");
            assert_eq!(bucket_of(end), bucket, "{end}");
            assert!(Histogram::has_bound(micros(end)), "{end}");
            let is_next = begin_of(bucket + 2) == Some(end + 1);
            assert_eq!(Histogram::has_bound(micros(end + 1)), is_next, "{end}");
        }
        assert_eq!([bucket_of(0), bucket_of(1), bucket_of(u64::MAX)], [0, 0, BUCKETS - 1]);
    }

    #[test]
    fn quantiles_are_as_close_as_the_buckets_are_narrow() {
        assert_eq!(Histogram::default().quantile(500), None);
        let even = of(1..=10_000);
        for thousandths in [1, 10, 100, 500, 900, 990, 999] {
            let found = even.quantile(thousandths).unwrap().as_micros();
            let exact = u128::from(thousandths) * 10;
            assert!(found.abs_diff(exact) <= exact / 50 + 1, "{found} in place of {exact}");
        }
        // One slow call in a hundred is not in the p99, and two are.
        let fast = std::iter::repeat_n(1_000, 99);
        let one = of(fast.clone().chain([5_000_000]));
        assert!(one.quantile(990).unwrap() <= micros(1_000));
        let two = of(fast.chain([5_000_000, 5_000_000]));
        assert!(two.quantile(990).unwrap() > micros(4_500_000));
        assert_eq!(two.quantile(1000), Some(micros(5_000_000)));
    }

    #[test]
    fn times_beyond_all_buckets_are_counted_and_the_longest_is_known() {
        let histogram = of([0, 3, 200_000_000, 400_000_000]);
        assert_eq!((histogram.count(), histogram.max()), (4, micros(400_000_000)));
        assert_eq!(histogram.sum(), micros(600_000_003));
        assert!(histogram.quantile(100).unwrap() <= micros(10));
        assert_eq!(histogram.quantile(999), Some(micros(400_000_000)));
        assert_eq!(histogram.count_up_to(micros(100_000_000)), 2);
        let longest = of([0]).quantile(990);
        assert_eq!(longest, Some(Duration::ZERO));
        let mut huge = Histogram::default();
        huge.add(Duration::MAX);
        huge.add(Duration::MAX);
        assert_eq!(huge.count(), 2);
    }

    #[test]
    fn merged_histograms_count_both() {
        let mut all = of([10, 20]);
        all.merge(&of([1_000_000]));
        assert_eq!((all.count(), all.max(), all.sum()), (3, micros(1_000_000), micros(1_000_030)));
        assert_eq!(all.count_up_to(micros(1_000)), 2);
    }
}
