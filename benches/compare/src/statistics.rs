//! Medians, spreads, and ratios that are taken round by round.

/// The middle of what was measured, and its bounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
    pub(crate) count: usize,
}

impl Summary {
    /// Of all values that are numbers; `None` if there are none.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values
            .into_iter()
            .filter(|value| value.is_finite())
            .collect();
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            (values[middle - 1] + values[middle]) / 2.0
        };
        Some(Self {
            median,
            least,
            most,
            count: values.len(),
        })
    }
}

/// For each round the value over the best of the limits in the same round. What disturbs a round
/// disturbs both.
pub(crate) fn ratios(
    values: &[Option<f64>],
    limits: &[&[Option<f64>]],
    less_is_better: bool,
) -> Vec<f64> {
    let rounds = values.iter().enumerate();
    let ratios = rounds.filter_map(|(round, value)| {
        let of_round = limits
            .iter()
            .filter_map(|limit| limit.get(round).copied().flatten());
        let best = if less_is_better {
            of_round.reduce(f64::min)
        } else {
            of_round.reduce(f64::max)
        };
        Some((*value)? / best?)
    });
    ratios.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(Summary::of([]), None);
        assert_eq!(Summary::of([f64::NAN]), None);
        assert_eq!(Summary::of([3.0, 1.0, 2.0]).unwrap().median, 2.0);
        let even = Summary::of([4.0, 1.0, 2.0, 3.0]).unwrap();
        assert_eq!((even.median, even.least, even.most), (2.5, 1.0, 4.0));
    }

    #[test]
    fn a_ratio_is_to_the_better_limit_of_its_own_round() {
        let values = [Some(4.0), Some(10.0), None, Some(1.0)];
        let one = [Some(2.0), Some(10.0), Some(1.0), None];
        let two = [Some(4.0), Some(5.0), Some(1.0), None];
        assert_eq!(ratios(&values, &[&one, &two], true), [2.0, 2.0]);
        assert_eq!(ratios(&values, &[&one, &two], false), [1.0, 1.0]);
        assert!(ratios(&values, &[], true).is_empty());
    }
}
