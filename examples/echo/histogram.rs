//! Durations counted in buckets whose width grows with the duration: whatever the range, a quantile
//! is at most a sixteenth too high.

use std::time::Duration;

/// How often which duration was seen.
pub(crate) struct Histogram {
    buckets: Vec<u64>,
    count: u64,
}

impl Histogram {
    /// An empty histogram.
    pub(crate) fn new() -> Self {
        Self {
            buckets: vec![0; bucket(u64::MAX) + 1],
            count: 0,
        }
    }

    /// Counts `duration`.
    pub(crate) fn record(&mut self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket(nanos)] += 1;
        self.count += 1;
    }

    /// How many durations have been counted.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// The duration that `share` of all did not exceed; zero if there are none.
    pub(crate) fn quantile(&self, share: f64) -> Duration {
        let mut left = (share * self.count as f64).ceil() as u64;
        for (bucket, &count) in self.buckets.iter().enumerate() {
            if count > 0 && count >= left {
                return Duration::from_nanos(highest(bucket));
            }
            left -= count;
        }
        Duration::ZERO
    }
}

/// Below the first power with parts there is a bucket for each nanosecond; from there on `PARTS`
/// for each power of two.
fn bucket(nanos: u64) -> usize {
    let power = nanos.checked_ilog2().unwrap_or(0).saturating_sub(PARTS_LOG);
    let part = (nanos >> power) as usize;
    power as usize * PARTS + part
}

/// The longest duration that falls into `bucket`.
fn highest(bucket: usize) -> u64 {
    let power = (bucket / PARTS).saturating_sub(1);
    let part = (bucket - power * PARTS) as u64;
    (part << power) + ((1 << power) - 1)
}

const PARTS_LOG: u32 = 4;
const PARTS: usize = 1 << PARTS_LOG;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_is_within_a_sixteenth_below_the_top_of_its_bucket() {
        let around = |power: u32| {
            let middle = 1_u64 << power;
            [middle - 1, middle, middle + 1, middle + middle / 3]
        };
        for nanos in (1..64).flat_map(around).chain([0, u64::MAX]) {
            let top = highest(bucket(nanos));
            assert!(top >= nanos, "{nanos} is above {top}");
            assert!(top - nanos <= nanos / 16, "{nanos} is far below {top}");
            assert_eq!(bucket(top), bucket(nanos));
            assert!(top == u64::MAX || bucket(top + 1) == bucket(nanos) + 1);
        }
    }

    #[test]
    fn a_quantile_is_what_so_many_did_not_exceed() {
        let mut histogram = Histogram::new();
        assert_eq!(histogram.quantile(0.99), Duration::ZERO);
        for nanos in 1..=10 {
            histogram.record(Duration::from_nanos(nanos));
        }
        assert_eq!(histogram.count(), 10);
        assert_eq!(histogram.quantile(0.5), Duration::from_nanos(5));
        assert_eq!(histogram.quantile(0.99), Duration::from_nanos(10));
        assert_eq!(histogram.quantile(0.0), Duration::from_nanos(1));
    }
}
