//! Random schedules against plain models.
//!
//! A model test draws a program as a list of steps, runs it on the simulated driver, and compares
//! what happens with what a plain sequential model says. The list is flat, each step naming the
//! task that takes it, so that any part of it is still a program: when a schedule fails, [`check`]
//! leaves out as much as it can and prints what remains, with the seed that reproduces it.
//!
//! - `TRIO_MODEL_SCHEDULES` is how many schedules each model is run through.
//! - `TRIO_MODEL_SEED` is the seed of the first; the others count up from there.
//!
//! `cargo xtask ci simulation` runs each model through ten thousand, from a seed that is derived
//! from the commit, and `cargo xtask soak` through many more, from a seed of its own.

mod channel;
mod condition;
mod fifo;
mod joins;
mod scopes;
mod timers;

use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};

use trio::testing::{MockClock, Simulation};
use trio::{Builder, Error, Result, fail_after};

use crate::support::secs;

/// Schedules for each model, by default.
const SCHEDULES: u64 = 2_000;

/// The most steps in a program.
const STEPS: u64 = 40;

/// Random numbers that follow from a seed.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `limit`, which is not zero.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        // SplitMix64, as in the runtime: an addition and a hash.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut hash = self.0;
        hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (hash ^ (hash >> 31)) % limit
    }

    /// An index into something of this length, which is not zero.
    pub(crate) fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).expect("below a length")
    }
}

/// What went wrong, in words.
pub(crate) type Verdict = std::result::Result<(), String>;

/// Runs a model through its schedules: `draw` makes a step, `run` runs a program and compares.
///
/// # Panics
///
/// If a schedule fails, with the seed and the shortest program that still fails.
pub(crate) fn check<S: Clone + Debug>(
    model: &str,
    draw: impl Fn(&mut Random) -> S,
    run: impl Fn(&[S], u64) -> Verdict,
) {
    let first = number("TRIO_MODEL_SEED").unwrap_or(0);
    let count = number("TRIO_MODEL_SCHEDULES").unwrap_or(SCHEDULES);
    for seed in (0..count).map(|n| first.wrapping_add(n)) {
        let mut random = Random::new(seed);
        let length = 1 + random.below(STEPS);
        let program: Vec<S> = (0..length).map(|_| draw(&mut random)).collect();
        let Err(first_words) = run(&program, seed) else {
            continue;
        };
        let (program, words) = shrink(program, first_words, |program| run(program, seed));
        let steps: Vec<String> = program.iter().map(|step| format!("  {step:?}")).collect();
        panic!(
            "the model `{model}` and the library disagree: {words}\nshortest program:\n{}\n\
             found again by\n  TRIO_MODEL_SEED={seed} TRIO_MODEL_SCHEDULES=1 \
             cargo test --test it {}",
            steps.join("\n"),
            // The test runner names each thread after its test.
            std::thread::current().name().unwrap_or("model"),
        );
    }
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{name} takes a number, and not {text:?}")))
}

/// Leaves out steps, many at a time and then one by one, as long as the program still fails.
fn shrink<S: Clone>(
    mut program: Vec<S>,
    mut words: String,
    run: impl Fn(&[S]) -> Verdict,
) -> (Vec<S>, String) {
    let mut width = program.len() / 2;
    while width > 0 {
        let mut at = 0;
        while at < program.len() {
            let mut shorter = program.clone();
            shorter.drain(at..(at + width).min(program.len()));
            match run(&shorter) {
                Err(still) => (program, words) = (shorter, still),
                Ok(()) => at += width,
            }
        }
        width /= 2;
    }
    (program, words)
}

/// An error that says what was found, unless it is what was expected.
pub(crate) fn agree<T: PartialEq + Debug>(
    found: &T,
    expected: &T,
    after: &impl Debug,
    model: &impl Debug,
) -> Result<()> {
    match found == expected {
        true => Ok(()),
        false => Err(Error::msg(format!(
            "after {after:?} it is {found:?}, and not {expected:?}; {model:?}"
        ))),
    }
}

/// Runs `main` in the simulation, with an order of tasks that `seed` decides. A panic, an error and
/// a program that never ends are verdicts.
pub(crate) fn simulate(seed: u64, main: impl Future<Output = Result<()>>) -> Verdict {
    let builder = Builder::new().simulation(Simulation::new(seed)).seed(seed);
    verdict(builder, fail_after(secs(10_000_000), main))
}

/// The same with a clock that `main` moves by itself; so `main` must end on its own.
pub(crate) fn simulate_at(
    clock: &MockClock,
    seed: u64,
    main: impl Future<Output = Result<()>>,
) -> Verdict {
    let builder = Builder::new().simulation(Simulation::new(seed)).seed(seed);
    verdict(builder.clock(clock.clone()), main)
}

fn verdict(builder: Builder, main: impl Future<Output = Result<()>>) -> Verdict {
    let run = || builder.fail_on_deadlock().run(main);
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!("{error:?}")),
        Err(panic) => Err(match panic.downcast::<String>() {
            Ok(words) => *words,
            Err(other) => other.downcast::<&str>().map_or_else(
                |_| "a panic without words".to_owned(),
                |words| (*words).to_owned(),
            ),
        }),
    }
}

#[test]
fn a_failing_program_shrinks_to_what_fails() {
    let run = |program: &[u64]| match program.contains(&7) && program.contains(&3) {
        true => Err(format!("{} steps", program.len())),
        false => Ok(()),
    };
    let (program, words) = shrink((0..40).collect(), String::new(), run);
    assert_eq!(program, [3, 7]);
    assert_eq!(words, "2 steps");
}

#[test]
fn the_same_seed_gives_the_same_numbers() {
    let draw = |seed| {
        let mut random = Random::new(seed);
        (0..50).map(|_| random.index(1000)).collect::<Vec<_>>()
    };
    assert_eq!(draw(7), draw(7));
    assert_ne!(draw(7), draw(8));
}

#[test]
fn a_simulation_reports_panics_errors_and_what_comes_to_no_end() {
    assert_eq!(simulate(1, async { Ok(()) }), Ok(()));
    let failed = simulate(1, async { crate::support::oops("wrong") });
    assert_eq!(failed, Err("wrong".to_owned()));
    let panicked = simulate(1, async { panic!("on purpose") });
    assert_eq!(panicked, Err("on purpose".to_owned()));
    let endless = simulate(1, trio::sleep_forever());
    assert!(endless.is_err_and(|text| text.starts_with("too slow: the deadline has passed")));
}
