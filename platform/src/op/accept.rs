//! A connection from a listener.
//!
//! Cancelled means that no connection was taken off the queue of the listener.

use std::io;
#[cfg(target_os = "linux")]
use std::os::fd::OwnedFd;

#[cfg(target_os = "linux")]
use io_uring::{opcode, squeue};

use super::{Finished, Operation};
use crate::fd::Descriptor;
#[cfg(target_os = "linux")]
use crate::fd::Object;

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
        let listener = self.on.socket()?;
        let (socket, _) = crate::socket::retry(|| listener.accept())?;
        self.accepted = Some(Descriptor::from_socket(socket)?);
        Ok(0)
    }

    #[cfg(target_os = "linux")]
    pub(super) fn entry(&self) -> squeue::Entry {
        // Without room for an address: the peer is asked for when somebody wants to know it.
        opcode::Accept::new(
            super::number(&self.on),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
        )
        .flags(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK)
        .build()
    }

    /// Takes over the connection that the ring has accepted.
    #[cfg(target_os = "linux")]
    pub(crate) fn accepted(&mut self, connection: OwnedFd) {
        // `SOCK_NONBLOCK` has made it non-blocking already.
        let socket = socket2::Socket::from(connection);
        self.accepted = Some(Descriptor::new(Object::Socket(socket)));
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
