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
        self.accepted = Some(crate::socket::accept(&self.on)?);
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
        .flags(FLAGS)
        .build()
    }

    /// Takes over the connection that the ring has accepted.
    #[cfg(target_os = "linux")]
    pub(crate) fn accepted(&mut self, connection: OwnedFd) {
        self.accepted = Some(connection_from_ring(connection));
    }
}

/// One submission for all connections to come, of which each is a completion.
#[cfg(target_os = "linux")]
pub(crate) fn multishot_entry(listener: &Descriptor) -> squeue::Entry {
    opcode::AcceptMulti::new(super::number(listener))
        .flags(FLAGS)
        .build()
}

/// A connection that the ring has accepted, with [`FLAGS`].
#[cfg(target_os = "linux")]
pub(crate) fn connection_from_ring(connection: OwnedFd) -> Descriptor {
    Descriptor::new(Object::Socket(socket2::Socket::from(connection)))
}

/// What a connection is to be from its first moment.
#[cfg(target_os = "linux")]
const FLAGS: i32 = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;

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

/// What a failed accept means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AcceptFailure {
    /// The connection died before it was accepted: the next one may be fine.
    Connection,
    /// No room for another connection: descriptors or memory have run out.
    Overload,
    /// The listener is closed, or never was one.
    Closed,
    /// Anything else.
    Other,
}

/// What `error`, from an accept, means.
///
/// The lists are Trio's; accept(2) has the reasons: Linux passes errors that the network already
/// has for the new connection on through accept.
#[cfg(target_os = "linux")]
pub fn accept_failure(error: &io::Error) -> AcceptFailure {
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS) => AcceptFailure::Overload,
        Some(libc::EBADF | libc::ENOTSOCK) => AcceptFailure::Closed,
        Some(
            libc::EPERM
            | libc::ECONNABORTED
            | libc::EPROTO
            | libc::ENETDOWN
            | libc::ENOPROTOOPT
            | libc::EHOSTDOWN
            | libc::ENONET
            | libc::EHOSTUNREACH
            | libc::EOPNOTSUPP
            | libc::ENETUNREACH
            | libc::ENOSR
            | libc::ESOCKTNOSUPPORT
            | libc::EPROTONOSUPPORT
            | libc::ETIMEDOUT
            | libc::ECONNRESET,
        ) => AcceptFailure::Connection,
        _ => AcceptFailure::Other,
    }
}

/// What `error`, from an accept, means.
#[cfg(not(target_os = "linux"))]
pub fn accept_failure(error: &io::Error) -> AcceptFailure {
    use io::ErrorKind;
    // EMFILE and ENFILE have the same numbers on all BSDs; WSAEMFILE on Windows.
    if matches!(error.raw_os_error(), Some(23 | 24 | 10024)) {
        return AcceptFailure::Overload;
    }
    match error.kind() {
        ErrorKind::OutOfMemory => AcceptFailure::Overload,
        ErrorKind::ConnectionAborted
        | ErrorKind::ConnectionReset
        | ErrorKind::PermissionDenied
        | ErrorKind::TimedOut
        | ErrorKind::HostUnreachable
        | ErrorKind::NetworkUnreachable
        | ErrorKind::NetworkDown => AcceptFailure::Connection,
        _ => AcceptFailure::Other,
    }
}
