//! Random numbers that follow from the seed and from what they are for, not from the order in which they are drawn.

use std::time::Duration;

use jiff::SignedDuration;

/// A random number, and the root of others.
#[derive(Debug, Clone, Copy)]
pub struct Chance(u64);

impl Chance {
    pub fn of_seed(seed: u64) -> Self {
        Self(mixed(seed))
    }

    /// The number for one purpose.
    pub fn of(self, purpose: &str) -> Self {
        purpose.bytes().fold(self, |chance, byte| chance.nth(u64::from(byte)))
    }

    /// One of a series.
    pub fn nth(self, number: u64) -> Self {
        Self(mixed(self.0 ^ number.wrapping_mul(0x2545_f491_4f6c_dd1d)))
    }

    /// In `[0, 1)`.
    pub fn unit(self) -> f64 {
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub fn happens(self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// Less than `bound`.
    pub fn below(self, bound: u64) -> u64 {
        (self.unit() * bound as f64) as u64
    }

    pub fn pick<T: Copy>(self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    /// Between the two, small values as often as large ones: each doubling is as likely as the next.
    pub fn between(self, shortest: Duration, longest: Duration) -> Duration {
        let ratio = longest.as_secs_f64() / shortest.as_secs_f64();
        Duration::from_millis((shortest.as_secs_f64() * ratio.powf(self.unit()) * 1000.0) as u64)
    }

    /// As [`Chance::between`].
    pub fn span(self, shortest: Duration, longest: Duration) -> SignedDuration {
        self.between(shortest, longest).try_into().unwrap()
    }
}

/// The finaliser of SplitMix64.
fn mixed(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}
