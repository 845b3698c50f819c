//! Which seeds a test runs under.

/// The seeds that `#[trio::test(seeds = count)]` uses: `count` of them from `first` upward, and
/// then those that the environment variable `TRIO_SIM_SEEDS` adds, as numbers separated by commas.
/// If `TRIO_TEST_SEED` is set, only that one, to replay a failure.
///
/// # Panics
///
/// If one of the variables does not hold numbers.
///
/// # Examples
///
/// ```
/// # use trio_runtime as trio;
/// use trio::{Builder, Error, checkpoint};
///
/// for seed in trio::testing::seeds(0, 10) {
///     let result: Result<(), Error> = Builder::new().seed(seed).run(async { checkpoint().await });
///     assert!(result.is_ok(), "failed: TRIO_TEST_SEED={seed} replays it");
/// }
/// ```
pub fn seeds(first: u64, count: u64) -> impl Iterator<Item = u64> + use<> {
    let variable = |name: &str| std::env::var(name).ok();
    choose(
        first,
        count,
        variable("TRIO_TEST_SEED").as_deref(),
        variable("TRIO_SIM_SEEDS").as_deref(),
    )
}

fn choose(
    first: u64,
    count: u64,
    only: Option<&str>,
    more: Option<&str>,
) -> impl Iterator<Item = u64> + use<> {
    let only = only.map(|text| number("TRIO_TEST_SEED holds one number", text));
    let range = match only {
        Some(seed) => seed..seed.saturating_add(1),
        None => first..first.saturating_add(count),
    };
    let more = more.filter(|_| only.is_none()).unwrap_or_default();
    let more: Vec<u64> = more
        .split(',')
        .filter(|text| !text.trim().is_empty())
        .map(|text| number("TRIO_SIM_SEEDS holds numbers separated by commas", text))
        .collect();
    range.chain(more)
}

fn number(rule: &str, text: &str) -> u64 {
    let text = text.trim();
    let number = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    number.unwrap_or_else(|_| panic!("{rule}, and not {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(only: Option<&str>, more: Option<&str>, expected: &[u64]) {
        let seeds: Vec<u64> = choose(5, 2, only, more).collect();
        assert_eq!(seeds, expected);
    }

    #[test]
    fn seeds_are_counted_added_to_or_replaced_by_one() {
        check(None, None, &[5, 6]);
        check(None, Some(""), &[5, 6]);
        check(None, Some("100, 0x10,"), &[5, 6, 100, 16]);
        check(Some(" 7 "), Some("100"), &[7]);
        assert_eq!(choose(u64::MAX, 9, None, None).count(), 0);
    }

    #[test]
    #[should_panic(expected = "TRIO_TEST_SEED holds one number, and not \"seven\"")]
    fn what_is_no_number_is_refused() {
        check(Some("seven"), None, &[]);
    }
}
