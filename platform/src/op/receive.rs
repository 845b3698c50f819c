//! Bytes from a stream, into a block that the runtime owns.
//!
//! Cancelled means that nothing was taken from the socket. The user's memory is never involved, so
//! a receive may be given up at any moment.

use std::io;

#[cfg(target_os = "linux")]
use io_uring::{opcode, squeue};

use super::{Finished, Operation};
use crate::buf::{Lease, poison};
use crate::fd::Descriptor;
use crate::socket;
#[cfg(target_os = "linux")]
use crate::uring::buffers;

/// `IORING_RECVSEND_POLL_FIRST` of `<linux/io_uring.h>`, since 5.19: wait for readiness before the
/// first attempt.
#[cfg(target_os = "linux")]
const RECVSEND_POLL_FIRST: u16 = 1;

/// Receives whatever is there, at least one byte, at most a block; zero bytes is end of file.
#[derive(Debug)]
pub struct Receive {
    /// The stream.
    pub from: Descriptor,
    /// The block. `None` on the way in lets the driver choose one when there is something to put
    /// into it, so that a stream that waits holds no memory.
    pub(crate) into: Option<Lease>,
}

impl Receive {
    /// A receive from `from`.
    pub fn new(from: Descriptor) -> Self {
        Self { from, into: None }
    }

    /// The bytes; empty at end of file.
    ///
    /// # Errors
    ///
    /// What the kernel said.
    pub(crate) fn finish(self, result: io::Result<u32>) -> io::Result<Lease> {
        let count = result?;
        let mut lease = self
            .into
            .ok_or_else(|| io::Error::other("a receive without a block"))?;
        // One that was taken from a stash shows what it is to show already.
        if lease.is_empty() {
            lease.fill_to(count as usize);
        }
        Ok(lease)
    }

    /// Takes over what an earlier receive has won; returns the result to complete this one with.
    #[cfg(target_os = "linux")]
    pub(crate) fn bring(&mut self, won: io::Result<Lease>) -> io::Result<u32> {
        let lease = won?;
        let count = u32::try_from(lease.len()).expect("a block is smaller than 4 GiB");
        self.into = Some(lease);
        Ok(count)
    }

    /// Needs a block in `into`.
    pub(super) fn attempt(&mut self) -> io::Result<u32> {
        let Some(lease) = &mut self.into else {
            return Err(io::Error::other("an attempt to receive without a block"));
        };
        let count = socket::try_receive(&self.from, lease.block_mut())?;
        Ok(u32::try_from(count).expect("a block is smaller than 4 GiB"))
    }

    #[cfg(target_os = "linux")]
    pub(super) fn entry(&self, starved: bool) -> squeue::Entry {
        let number = super::number(&self.from);
        let Some(lease) = &self.into else {
            // To try at once would be in vain on a socket known to be empty, and without a block
            // it would fail on the spot although none may be needed for long.
            let wait_first = starved || self.from.likely_empty();
            let priority = if wait_first { RECVSEND_POLL_FIRST } else { 0 };
            return opcode::Recv::new(number, std::ptr::null_mut(), buffers::BLOCK_SIZE)
                .buf_group(buffers::GROUP)
                .ioprio(priority)
                .build()
                .flags(squeue::Flags::BUFFER_SELECT);
        };
        let capacity = u32::try_from(lease.capacity()).expect("a block is smaller than 4 GiB");
        opcode::Recv::new(number, lease.block_ptr(), capacity).build()
    }

    pub(super) fn poison(&self) {
        if let Some(lease) = &self.into {
            poison::set(lease.block_ptr(), lease.capacity());
        }
    }

    pub(super) fn unpoison(&self) {
        if let Some(lease) = &self.into {
            poison::lift(lease.block_ptr(), lease.capacity());
        }
    }
}

impl From<Receive> for Operation {
    fn from(receive: Receive) -> Self {
        Self::Receive(receive)
    }
}

impl Finished {
    /// The outcome of a [`Receive`].
    ///
    /// # Errors
    ///
    /// What the kernel said.
    ///
    /// # Panics
    ///
    /// If the operation was another.
    pub fn into_received(self) -> io::Result<Lease> {
        match self.operation {
            Operation::Receive(receive) => receive.finish(self.result),
            other => panic!("a {} is not a receive", other.name()),
        }
    }
}
