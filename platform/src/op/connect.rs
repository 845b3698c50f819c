//! A connection to a listener.
//!
//! Cancelled means that the result is unknown to the caller: the socket is to be closed.

use std::io;
use std::net::SocketAddr;

#[cfg(target_os = "linux")]
use io_uring::{opcode, squeue};
use socket2::SockAddr;

use super::{Finished, Operation};
use crate::fd::Descriptor;

/// Connects `socket` to an address.
#[derive(Debug)]
pub struct Connect {
    /// The socket.
    pub socket: Descriptor,
    /// The peer, as the simulation wants it.
    pub peer: SocketAddr,
    /// The peer, as the kernel wants it: boxed, because the kernel reads it where it lies (rule 1).
    pub(crate) address: Box<SockAddr>,
    /// Whether the system has been asked already, by a driver that knows readiness only.
    pub(crate) begun: bool,
}

impl Connect {
    /// A connect of `socket` to `peer`.
    pub fn new(socket: Descriptor, peer: SocketAddr) -> Self {
        Self {
            socket,
            peer,
            address: Box::new(peer.into()),
            begun: false,
        }
    }

    pub(super) fn attempt(&mut self) -> io::Result<u32> {
        let socket = self.socket.socket()?;
        if self.begun {
            // The socket is writable: the attempt is over, and the socket knows how it went.
            return match socket.take_error()? {
                Some(error) => Err(error),
                None => socket.peer_addr().map_err(not_yet).map(|_| 0),
            };
        }
        self.begun = true;
        match socket.connect(&self.address) {
            Ok(()) => Ok(0),
            Err(error) if in_progress(&error) => Err(io::ErrorKind::WouldBlock.into()),
            Err(error) => Err(error),
        }
    }

    #[cfg(target_os = "linux")]
    pub(super) fn entry(&self) -> squeue::Entry {
        let address = self.address.as_ptr().cast();
        opcode::Connect::new(super::number(&self.socket), address, self.address.len()).build()
    }
}

/// Whether the connect goes on by itself; an interrupted one does.
fn in_progress(error: &io::Error) -> bool {
    #[cfg(unix)]
    let raw = error.raw_os_error() == Some(libc::EINPROGRESS);
    #[cfg(not(unix))]
    let raw = false;
    raw || matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// Readiness was reported although the connect has not ended.
fn not_yet(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::NotConnected => io::ErrorKind::WouldBlock.into(),
        _ => error,
    }
}

impl From<Connect> for Operation {
    fn from(connect: Connect) -> Self {
        Self::Connect(connect)
    }
}

impl Finished {
    /// The outcome of a [`Connect`].
    ///
    /// # Errors
    ///
    /// What the kernel said.
    ///
    /// # Panics
    ///
    /// If the operation was another.
    pub fn into_connected(self) -> io::Result<Descriptor> {
        match self.operation {
            Operation::Connect(connect) => self.result.map(|_| connect.socket),
            other => panic!("a {} is not a connect", other.name()),
        }
    }
}
