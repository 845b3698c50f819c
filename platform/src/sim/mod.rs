//! The simulated kernel.

/// A socket of the simulated network.
#[derive(Debug)]
pub(crate) struct Endpoint;

/// The simulated world.
#[derive(Clone, Debug)]
pub struct Simulation;
