//! Choices that look random and are the same for the same seed.

use std::time::Duration;

pub(super) struct Dice(u64);

impl Dice {
    /// `part` tells the dice of one history apart.
    pub(super) fn new(seed: u64, part: u64) -> Self {
        let mut dice = Self(seed);
        dice.0 ^= dice.next().wrapping_add(part).wrapping_mul(0xff51_afd7_ed55_8ccd);
        dice
    }

    fn next(&mut self) -> u64 {
        // The constants of SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `sides`.
    pub(super) fn roll(&mut self, sides: usize) -> usize {
        usize::try_from((self.next() >> 16) % sides as u64).unwrap()
    }

    /// Whether something happens that happens one time in `times`.
    pub(super) fn one_in(&mut self, times: usize) -> bool {
        self.roll(times) == 0
    }

    pub(super) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.roll(of.len())]
    }

    /// A time of fewer milliseconds. Short ones are likelier, so that much coincides.
    pub(super) fn millis(&mut self, below: usize) -> Duration {
        let below = self.roll(below) + 1;
        Duration::from_millis(self.roll(below) as u64)
    }
}
