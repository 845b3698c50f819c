//! Medians, how sure they are, and ratios of values that were measured side by side.
//!
//! Measurements come in windows, several to a round. The windows of a round share their processes,
//! so each round counts once, as the median of its windows, and the differences between rounds show
//! how sure the median over them is.

/// The median of some measurements, and its bounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    /// The interval that contains the true median in 95 of 100 cases, whatever the noise looks
    /// like, by order statistics. For fewer than six values it is their range, which is less sure.
    pub(crate) low: f64,
    pub(crate) high: f64,
    pub(crate) count: usize,
}

impl Summary {
    /// The summary of all values that are numbers; `None` if there are none.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values
            .into_iter()
            .filter(|value| value.is_finite())
            .collect();
        values.sort_by(f64::total_cmp);
        let median = middle(&values)?;
        let outside = outside(values.len());
        Some(Self {
            median,
            low: values[outside],
            high: values[values.len() - 1 - outside],
            count: values.len(),
        })
    }

    /// The summary of rounds of `laps` windows each.
    pub(crate) fn of_rounds(windows: &[Option<f64>], laps: usize) -> Option<Self> {
        let rounds = windows.chunks(laps.max(1));
        Self::of(rounds.filter_map(|round| median(round.iter().copied().flatten())))
    }

    /// Whether `value` may well be the true median.
    pub(crate) fn allows(&self, value: f64) -> bool {
        (self.low..=self.high).contains(&value)
    }
}

/// The median of all values that are numbers.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    Summary::of(values).map(|summary| summary.median)
}

fn middle(sorted: &[f64]) -> Option<f64> {
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        Some(sorted[middle])
    } else {
        Some((sorted.get(middle.checked_sub(1)?)? + sorted[middle]) / 2.0)
    }
}

/// How many of `count` sorted values are outside the interval on each side.
///
/// A value is below the median as often as a coin shows heads: the number of such values has a
/// binomial distribution, and the interval excludes at most a fortieth of it on each side.
fn outside(count: usize) -> usize {
    let mut outside = 0;
    let mut term = 0.5_f64.powi(i32::try_from(count).unwrap_or(i32::MAX));
    let mut sum = term;
    while outside + 1 < count / 2 {
        term *= (count - outside) as f64 / (outside + 1) as f64;
        sum += term;
        if sum > 0.025 {
            break;
        }
        outside += 1;
    }
    outside
}

/// The ratios of `values` to `base`, window by window: what disturbs one lap disturbs both.
pub(crate) fn ratios(values: &[Option<f64>], base: &[Option<f64>]) -> Vec<Option<f64>> {
    let windows = values.iter().zip(base);
    windows
        .map(|(value, base)| Some((*value)? / (*base)?))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(Summary::of([]), None);
        assert_eq!(Summary::of([f64::NAN]), None);
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median([7.0]), Some(7.0));
    }

    #[test]
    fn the_interval_leaves_out_as_many_as_chance_allows() {
        // As in any table of the sign test.
        for (count, left) in [
            (1, 0),
            (2, 0),
            (5, 0),
            (6, 0),
            (8, 0),
            (9, 1),
            (12, 2),
            (20, 5),
        ] {
            assert_eq!(outside(count), left, "{count}");
        }
        let summary = Summary::of((1..=9).map(f64::from)).unwrap();
        assert_eq!((summary.low, summary.high), (2.0, 8.0));
        assert!(summary.allows(3.0) && !summary.allows(1.5));
    }

    #[test]
    fn a_round_counts_once() {
        let windows = [Some(1.0), Some(2.0), Some(9.0), Some(5.0), None, Some(5.0)];
        let summary = Summary::of_rounds(&windows, 3).unwrap();
        assert_eq!((summary.median, summary.count), (3.5, 2));
    }

    #[test]
    fn a_ratio_is_of_windows_of_one_lap() {
        let values = [Some(4.0), Some(10.0), None, Some(1.0)];
        let base = [Some(2.0), Some(5.0), Some(1.0), None];
        assert_eq!(ratios(&values, &base), [Some(2.0), Some(2.0), None, None]);
    }
}
