//! How long to wait before the next attempt: longer each time, up to a limit, and not all at once.

use std::time::Duration;

/// Delays that grow from one attempt to the next, as an endless iterator.
///
/// By default each delay is twice the one before, up to the longest. With [jitter](Self::jitter),
/// many that failed at the same moment do not retry at the same moment.
///
/// # Examples
///
/// ```
/// # use trio_runtime as trio;
/// use std::time::Duration;
/// use trio::Backoff;
///
/// let backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
/// let delays: Vec<u64> = backoff.take(5).map(|delay| delay.as_secs()).collect();
/// assert_eq!(delays, [1, 2, 4, 5, 5]);
/// ```
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    factor: u32,
    /// The next delay, without jitter.
    next: Duration,
    jitter: f64,
    state: u64,
}

impl Backoff {
    /// Delays from `first` on, none of which is longer than `longest`.
    pub fn new(first: Duration, longest: Duration) -> Self {
        let first = first.min(longest);
        Self {
            first,
            longest,
            factor: 2,
            next: first,
            jitter: 0.0,
            state: 0,
        }
    }

    /// Makes each delay `factor` times the one before; a factor of one makes all delays the same.
    ///
    /// # Panics
    ///
    /// If `factor` is zero: delays do not shrink.
    #[must_use]
    #[track_caller]
    pub fn factor(mut self, factor: u32) -> Self {
        assert!(
            factor > 0,
            "delays that shrink are no back-off: use a factor of one or more"
        );
        self.factor = factor;
        self
    }

    /// Shortens each delay at random by up to this fraction of it: zero means not at all, one means
    /// anything down to no delay. The same seed produces the same delays.
    ///
    /// # Panics
    ///
    /// If `fraction` is not from zero to one.
    #[must_use]
    #[track_caller]
    pub fn jitter(mut self, fraction: f64, seed: u64) -> Self {
        assert!(
            (0.0..=1.0).contains(&fraction),
            "a delay is shortened by a fraction from 0 to 1, not by {fraction}"
        );
        self.jitter = fraction;
        self.state = seed;
        self
    }

    /// The delay before the next attempt.
    pub fn next_delay(&mut self) -> Duration {
        let delay = self.next;
        self.next = delay.saturating_mul(self.factor).min(self.longest);
        if self.jitter == 0.0 {
            return delay;
        }
        delay.mul_f64(1.0 - self.jitter * self.random())
    }

    /// Starts over with the first delay, because an attempt has succeeded.
    pub fn reset(&mut self) {
        self.next = self.first;
    }

    /// From zero up to one.
    fn random(&mut self) -> f64 {
        // SplitMix64, by Steele, Lea and Flood; the fraction has 53 bits of it.
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut hash = self.state;
        hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        hash ^= hash >> 31;
        #[expect(clippy::cast_precision_loss, reason = "53 bits are what fits")]
        let fraction = (hash >> 11) as f64 / (1_u64 << 53) as f64;
        fraction
    }
}

impl Iterator for Backoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(self.next_delay())
    }
}
