//! Picks the driver: the one that was asked for, or the best that works here, and says why.

use std::io;

use crate::driver::{Backend, Driver};
use crate::sim::Simulation;

/// What a run wants of its driver.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Config {
    /// The backend to use, or `None` for `TRIO_BACKEND` and then the best that works.
    pub backend: Option<Backend>,
    /// How many submissions the ring holds before it must be told; `None` for the default.
    pub entries: Option<u32>,
    /// The simulated world, which makes the backend the simulation.
    pub simulation: Option<Simulation>,
}

/// A driver, and why it is this one.
#[allow(missing_debug_implementations)] // a driver is a kernel, not a value
#[non_exhaustive]
pub struct Opened {
    /// The driver.
    pub driver: Box<dyn Driver>,
    /// Why it is not `io_uring`, if nobody asked for another.
    pub fallback: Option<io::Error>,
}

/// Opens the driver that `config` asks for.
pub fn open(_config: &Config) -> io::Result<Opened> {
    Err(io::Error::other("shell"))
}
