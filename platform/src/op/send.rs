//! Bytes to a stream, out of memory that the operation owns.
//!
//! Cancelled means that this operation sent nothing. A send that had sent a part reports the part.

use std::io;

#[cfg(target_os = "linux")]
use io_uring::{opcode, squeue};

use super::{Finished, Operation};
use crate::buf::{SendData, poison};
use crate::fd::Descriptor;
use crate::socket;

/// Sends `data` from `start` on; the kernel may take less than all of it.
#[derive(Debug)]
pub struct Send {
    /// The stream.
    pub to: Descriptor,
    /// What is sent.
    pub data: SendData,
    /// How much of `data` is left out at the front: what earlier operations have sent.
    pub start: usize,
}

impl Send {
    /// A send of all of `data` to `to`.
    pub fn new(to: Descriptor, data: impl Into<SendData>) -> Self {
        Self {
            to,
            data: data.into(),
            start: 0,
        }
    }

    /// The bytes that this operation is to send.
    pub(crate) fn remaining(&self) -> &[u8] {
        &self.data[self.start..]
    }

    pub(super) fn attempt(&mut self) -> io::Result<u32> {
        let count = socket::try_send(&self.to, self.remaining())?;
        // The system never takes more than 2 GiB at once.
        Ok(u32::try_from(count).unwrap_or(u32::MAX))
    }

    #[cfg(target_os = "linux")]
    pub(super) fn entry(&self) -> squeue::Entry {
        // The system never takes more than 2 GiB at once, and then reports a part.
        let length = u32::try_from(self.data.len() - self.start)
            .unwrap_or(u32::MAX)
            .min(i32::MAX as u32);
        let first = self.data.as_ptr().wrapping_add(self.start);
        // `MSG_WAITALL` makes the kernel go on after a part, where it would else report the part.
        opcode::Send::new(super::number(&self.to), first, length)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
            .build()
    }

    pub(super) fn poison(&self) {
        if !matches!(self.data, SendData::Static(_)) {
            poison::set(self.data.as_ptr(), self.data.len());
        }
    }

    pub(super) fn unpoison(&self) {
        if !matches!(self.data, SendData::Static(_)) {
            poison::lift(self.data.as_ptr(), self.data.len());
        }
    }
}

impl From<Send> for Operation {
    fn from(send: Send) -> Self {
        Self::Send(send)
    }
}

impl Finished {
    /// The outcome of a [`Send`]: the operation, to be submitted again for the rest, and how many
    /// bytes were sent.
    ///
    /// # Panics
    ///
    /// If the operation was another.
    pub fn into_sent(self) -> (Send, io::Result<u32>) {
        match self.operation {
            Operation::Send(send) => (send, self.result),
            other => panic!("a {} is not a send", other.name()),
        }
    }
}
