//! Readiness alone: waits until a descriptor can be read or written, and transfers nothing.
//!
//! Cancelled means nothing: readiness is a state, not a thing that is taken.

use std::io;

#[cfg(target_os = "linux")]
use io_uring::{opcode, squeue};

use super::{Finished, Operation};
use crate::fd::Descriptor;

/// What to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Interest {
    /// Something to read, an end of file, or an error.
    Readable,
    /// Room to write, or an error.
    Writable,
}

/// Waits until `on` is ready for `interest`.
#[derive(Debug)]
pub struct Ready {
    /// What is waited for.
    pub on: Descriptor,
    /// In which direction.
    pub interest: Interest,
    /// Set by a readiness driver when the system has reported readiness.
    pub(crate) reported: bool,
}

impl Ready {
    /// A wait for `interest` on `on`.
    pub fn new(on: Descriptor, interest: Interest) -> Self {
        Self {
            on,
            interest,
            reported: false,
        }
    }

    pub(super) fn name(&self) -> &'static str {
        match self.interest {
            Interest::Readable => "wait_readable",
            Interest::Writable => "wait_writable",
        }
    }

    pub(super) fn attempt(&mut self) -> io::Result<u32> {
        if self.reported {
            Ok(0)
        } else {
            Err(io::ErrorKind::WouldBlock.into())
        }
    }

    #[cfg(target_os = "linux")]
    pub(super) fn entry(&self) -> squeue::Entry {
        let events = match self.interest {
            Interest::Readable => libc::POLLIN,
            Interest::Writable => libc::POLLOUT,
        };
        opcode::PollAdd::new(super::number(&self.on), events as u32).build()
    }
}

impl From<Ready> for Operation {
    fn from(ready: Ready) -> Self {
        Self::Ready(ready)
    }
}

impl Finished {
    /// The outcome of a [`Ready`].
    ///
    /// # Errors
    ///
    /// What the kernel said.
    pub fn into_ready(self) -> io::Result<()> {
        self.result.map(drop)
    }
}
