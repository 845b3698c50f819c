//! The drivers under test.

use std::time::Duration;

use trio_platform::Driver;
use trio_platform::polling::Polling;
use trio_platform::sim::{Faults, Simulation};
#[cfg(target_os = "linux")]
use trio_platform::uring::Uring;

use crate::kit::Kit;

/// What every driver has to keep to.
pub(crate) type Case = fn(&mut Kit<'_>);

/// The simulation where nothing goes wrong: what is left to chance is the order.
pub(crate) fn simulation(case: Case) {
    for seed in 0..8 {
        simulate(case, seed, Faults::none(), Duration::ZERO);
    }
}

/// The simulation where everything goes wrong that a program never notices.
pub(crate) fn simulation_in_chaos(case: Case) {
    for seed in 0..32 {
        simulate(case, seed, Faults::chaos(), Duration::from_millis(5));
    }
}

/// The ring, where the system lets us have one; everywhere, if `TRIO_BACKEND=io_uring` says so.
#[cfg(target_os = "linux")]
pub(crate) fn io_uring(case: Case) {
    let entries = u32::try_from(QUEUE_ENTRIES).unwrap();
    let forced = std::env::var_os("TRIO_BACKEND").is_some_and(|name| name == "io_uring");
    check(case, &|| match Uring::new(Some(entries)) {
        Ok(driver) => Some(Box::new(driver)),
        Err(error) if forced => panic!("io_uring was asked for, and does not work: {error}"),
        Err(_) => None,
    });
}

/// Readiness, which every system has.
pub(crate) fn polling(case: Case) {
    check(case, &|| Some(Box::new(Polling::new().unwrap())));
}

fn simulate(case: Case, seed: u64, faults: Faults, latency_max: Duration) {
    let _named = Named(seed);
    let fingerprint = || {
        let simulation = Simulation::new(seed)
            .queue_entries(QUEUE_ENTRIES)
            .latency(Duration::ZERO..=latency_max)
            .faults(faults.clone());
        let deterministic = check(case, &|| Some(Box::new(simulation.driver())));
        assert_eq!(simulation.open_sockets(), 0, "every socket was closed");
        deterministic.then(|| simulation.fingerprint())
    };
    assert_eq!(fingerprint(), fingerprint(), "same seed, same trace");
}

/// Runs `case`, unless the driver cannot be had here. Returns whether it did everything on this
/// thread, and so must do the same again.
fn check(case: Case, make: &dyn Fn() -> Option<Box<dyn Driver>>) -> bool {
    let Some(mut kit) = Kit::new(make) else {
        eprintln!("skipped: the driver does not work on this system");
        return true;
    };
    case(&mut kit);
    kit.end();
    !kit.uses_threads
}

/// Says the seed of a case that fails.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the seed is {}", self.0);
        }
    }
}

/// Small, so that every case that does a little more fills the queue.
const QUEUE_ENTRIES: usize = 8;
