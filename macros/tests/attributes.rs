//! The attributes at work, on a stand-in for `trio` that notes what it is asked for.
//!
//! The real one cannot be used here, because it uses this crate; its own tests use the attributes.

// The attributes write `::trio::…`, which here is this file.
extern crate self as trio;

use std::cell::RefCell;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

thread_local! {
    static RUNS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

pub(crate) fn run<F: Future>(future: F) -> F::Output {
    Builder {
        asked: vec!["run".to_owned()],
    }
    .run(future)
}

#[derive(Debug)]
pub(crate) enum Backend {
    IoUring,
    Polling,
}

#[derive(Debug)]
pub(crate) struct Builder {
    asked: Vec<String>,
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self { asked: Vec::new() }
    }

    fn note(mut self, what: String) -> Self {
        self.asked.push(what);
        self
    }

    pub(crate) fn backend(self, backend: Backend) -> Self {
        self.note(format!("{backend:?}"))
    }

    pub(crate) fn simulation(self, simulation: testing::Simulation) -> Self {
        self.note(format!("{simulation:?}"))
    }

    pub(crate) fn clock(self, clock: testing::MockClock) -> Self {
        self.note(format!("{clock:?}"))
    }

    pub(crate) fn seed(self, seed: u64) -> Self {
        self.note(format!("seed {seed}"))
    }

    pub(crate) fn fail_on_deadlock(self) -> Self {
        self.note("or fails".to_owned())
    }

    pub(crate) fn run<F: Future>(self, future: F) -> F::Output {
        RUNS.with_borrow_mut(|runs| runs.push(self.asked.join(" ")));
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => output,
            Poll::Pending => panic!("the stand-in cannot wait"),
        }
    }
}

pub(crate) mod testing {
    //! What `trio::testing` offers to the attributes.

    pub(crate) fn seeds(first: u64, count: u64) -> std::ops::Range<u64> {
        first..first + count
    }

    #[derive(Debug)]
    pub(crate) struct MockClock;

    impl MockClock {
        pub(crate) fn autojump() -> Self {
            Self
        }
    }

    #[derive(Debug)]
    pub(crate) struct Simulation {
        #[expect(dead_code, reason = "it is printed")]
        seed: u64,
    }

    impl Simulation {
        pub(crate) fn new(seed: u64) -> Self {
            Self { seed }
        }
    }
}

/// The runs on this thread since the last call.
fn runs() -> Vec<String> {
    RUNS.take()
}

#[trio_macros::main]
async fn plain() -> Result<u8, String> {
    let seven = "7".parse::<u8>().map_err(|error| error.to_string())?;
    Ok(seven)
}

#[trio_macros::main(backend = "polling")]
async fn forced() {}

#[test]
fn a_program_returns_what_its_main_returns() {
    assert_eq!(plain(), Ok(7));
    forced();
    assert_eq!(runs(), ["run", "Polling"]);
}

#[trio_macros::test]
async fn a_test_may_return_a_result() -> Result<(), std::num::ParseIntError> {
    assert_eq!("7".parse::<u8>()?, 7);
    Ok(())
}

#[trio_macros::test]
#[should_panic(expected = "as it should")]
async fn a_test_may_be_expected_to_panic() {
    panic!("as it should");
}

#[trio_macros::test(backend = "all", seeds = 2)]
#[should_panic(expected = "as it should")]
async fn a_panic_under_one_of_several_seeds_goes_on_as_it_is() {
    panic!("as it should");
}

#[trio_macros::test(backend = "all")]
#[should_panic(expected = "the test failed on io_uring")]
async fn an_error_in_one_of_several_runs_names_the_backend() -> Result<(), String> {
    Err("no".to_owned())
}

#[trio_macros::test(seeds = 3)]
#[should_panic(expected = "the test failed with seed 0: TRIO_TEST_SEED=0 replays it")]
async fn an_error_in_one_of_several_runs_names_the_seed() -> Result<(), String> {
    Err("no".to_owned())
}

#[trio_macros::test(backend = "all", clock = "autojump")]
async fn on_all_backends() {}

#[test]
fn all_backends_are_run_one_after_another() {
    on_all_backends();
    assert_eq!(
        runs(),
        [
            "IoUring MockClock or fails",
            "Polling MockClock or fails",
            "Simulation { seed: 0 } or fails"
        ]
    );
}

#[trio_macros::test(backend = "all", seed = 7)]
async fn on_all_backends_with_a_seed() {}

#[test]
fn a_seed_goes_to_every_backend() {
    on_all_backends_with_a_seed();
    assert_eq!(
        runs(),
        [
            "IoUring seed 7 or fails",
            "Polling seed 7 or fails",
            "Simulation { seed: 7 } seed 7 or fails"
        ]
    );
}

#[trio_macros::test(backend = "simulation", seed = 5, seeds = 2)]
async fn under_two_seeds() {}

#[test]
fn seeds_count_from_the_first() {
    under_two_seeds();
    let runs = runs();
    assert_eq!(
        runs,
        [
            "Simulation { seed: 5 } seed 5 or fails",
            "Simulation { seed: 6 } seed 6 or fails"
        ]
    );
}

/// A name that the attributes might use themselves means the user's own.
fn run_often() -> u8 {
    7
}

#[trio_macros::test(seeds = 1)]
async fn seeded_runs_see_the_users_names() -> Result<(), u8> {
    let call = run_often();
    if call == 7 { Ok(()) } else { Err(call) }
}

macro_rules! generated {
    ($visibility:vis $name:ident $output:ty $body:block) => {
        #[trio_macros::main]
        $visibility async fn $name() -> $output $body
    };
}

generated!(pub(crate) from_another_macro u8 { 7 });

#[test]
fn a_function_may_come_out_of_another_macro() {
    assert_eq!(from_another_macro(), 7);
}
