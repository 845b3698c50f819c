//! A connection from a listener.
//!
//! Cancelled means that no connection was taken off the queue of the listener.

use std::io;

use super::{Finished, Operation};
use crate::fd::Descriptor;

/// Accepts one connection, non-blocking and closed on exec.
#[derive(Debug)]
pub struct Accept {
    /// The listener.
    pub on: Descriptor,
    /// The connection, set by the driver.
    pub(crate) accepted: Option<Descriptor>,
}

impl Accept {
    /// An accept on `on`.
    pub fn new(on: Descriptor) -> Self {
        Self { on, accepted: None }
    }

    pub(crate) fn finish(self, result: io::Result<u32>) -> io::Result<Descriptor> {
        result?;
        self.accepted
            .ok_or_else(|| io::Error::other("an accept without a connection"))
    }

    pub(super) fn attempt(&mut self) -> io::Result<u32> {
        self.accepted = Some(crate::socket::accept(&self.on)?);
        Ok(0)
    }
}

impl From<Accept> for Operation {
    fn from(accept: Accept) -> Self {
        Self::Accept(accept)
    }
}

impl Finished {
    /// The outcome of an [`Accept`].
    ///
    /// # Errors
    ///
    /// What the kernel said.
    ///
    /// # Panics
    ///
    /// If the operation was another.
    pub fn into_accepted(self) -> io::Result<Descriptor> {
        match self.operation {
            Operation::Accept(accept) => accept.finish(self.result),
            other => panic!("a {} is not an accept", other.name()),
        }
    }
}
