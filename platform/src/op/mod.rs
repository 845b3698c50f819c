//! One operation in flight, and who owns its memory.
//!
//! | State     | The kernel may | The submitter may       | If the submitter lets go          |
//! |-----------|----------------|-------------------------|-----------------------------------|
//! | InFlight  | read and write | ask for cancel, abandon | becomes Abandoned (3)             |
//! | Abandoned | read and write | nothing                 | –                                 |
//! | Done      | nothing        | take result and memory  | settled at once (4)               |
//!
//! 1. An operation lives in the [table](table::Table) of its driver from submission to the end.
//!    What the kernel is told to read or write (a block, an address) is owned by the operation and
//!    lies on the heap, so moving the operation moves none of it.
//! 2. From submission to the last completion no reference to that memory exists in user space.
//!    Under AddressSanitizer it is poisoned for that time.
//! 3. Only the last completion leaves InFlight and Abandoned. A request to cancel does not; nor
//!    does a failed `io_uring_enter`, after which the submission is still in the queue.
//! 4. An abandoned operation is *settled* when it ends: bytes and connections go to the stash of
//!    their descriptor (`fd.rs`), anything else is closed or freed.
//! 5. A key holds a generation: it never names the operation that took the place of another.
//!
//! Each file here holds one kind of operation, and everything about it: its fields, what it
//! yields, what cancelling it can mean, how the ring is asked for it, and how a driver that knows
//! readiness only attempts it.

pub(crate) mod accept;
mod connect;
mod ready;
mod receive;
mod send;
pub(crate) mod table;

use std::io;

#[cfg(target_os = "linux")]
use io_uring::{squeue, types};

pub use accept::{Accept, AcceptFailure, accept_failure};
pub use connect::Connect;
pub use ready::{Interest, Ready};
pub use receive::Receive;
pub use send::Send;

use crate::fd::{Descriptor, Direction};

/// An operation of any kind, on its way to a driver or back.
#[derive(Debug)]
#[non_exhaustive]
pub enum Operation {
    /// Bytes from a stream.
    Receive(Receive),
    /// Bytes to a stream.
    Send(Send),
    /// A connection from a listener.
    Accept(Accept),
    /// A connection to a listener.
    Connect(Connect),
    /// Readiness alone.
    Ready(Ready),
}

/// An operation that has ended, and how.
#[derive(Debug)]
pub struct Finished {
    /// The operation, with everything it owns, and what it won.
    pub operation: Operation,
    /// What the kernel returned: a count for transfers, zero for the rest. `ECANCELED` means that
    /// the operation was cancelled and did not happen.
    pub result: io::Result<u32>,
}

impl Operation {
    /// The name of the operation, for the task tree and for traces.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Receive(_) => "receive",
            Self::Send(_) => "send",
            Self::Accept(_) => "accept",
            Self::Connect(_) => "connect",
            Self::Ready(ready) => ready.name(),
        }
    }

    /// The descriptor that the operation works on.
    pub fn descriptor(&self) -> &Descriptor {
        match self {
            Self::Receive(receive) => &receive.from,
            Self::Send(send) => &send.to,
            Self::Accept(accept) => &accept.on,
            Self::Connect(connect) => &connect.socket,
            Self::Ready(ready) => &ready.on,
        }
    }

    /// The queue that the operation takes from, if it takes anything.
    pub(crate) fn direction(&self) -> Option<Direction> {
        match self {
            Self::Receive(_) => Some(Direction::Receive),
            Self::Accept(_) => Some(Direction::Accept),
            Self::Send(_) | Self::Connect(_) | Self::Ready(_) => None,
        }
    }

    /// What the system says when a readiness driver attempts the operation now. `WouldBlock` means
    /// that the operation has to wait for `interest` on its descriptor.
    pub(crate) fn attempt(&mut self) -> io::Result<u32> {
        match self {
            Self::Receive(receive) => receive.attempt(),
            Self::Send(send) => send.attempt(),
            Self::Accept(accept) => accept.attempt(),
            Self::Connect(connect) => connect.attempt(),
            Self::Ready(ready) => ready.attempt(),
        }
    }

    /// The readiness without which [`Operation::attempt`] cannot succeed.
    pub(crate) fn interest(&self) -> Interest {
        match self {
            Self::Receive(_) | Self::Accept(_) => Interest::Readable,
            Self::Send(_) | Self::Connect(_) => Interest::Writable,
            Self::Ready(ready) => ready.interest,
        }
    }

    /// What the ring is told: everything but the user data. `starved` says that the kernel has no
    /// provided block left.
    ///
    /// The entry holds addresses of memory that the operation owns on the heap, so it stays right
    /// when the operation is moved into the table (rule 1).
    #[cfg(target_os = "linux")]
    pub(crate) fn entry(&self, starved: bool) -> squeue::Entry {
        match self {
            Self::Receive(receive) => receive.entry(starved),
            Self::Send(send) => send.entry(),
            Self::Accept(accept) => accept.entry(),
            Self::Connect(connect) => connect.entry(),
            Self::Ready(ready) => ready.entry(),
        }
    }

    /// Hides the memory that the kernel may touch from user space (rule 2).
    pub(crate) fn poison(&self) {
        match self {
            Self::Receive(receive) => receive.poison(),
            Self::Send(send) => send.poison(),
            Self::Accept(_) | Self::Connect(_) | Self::Ready(_) => {}
        }
    }

    /// Gives that memory back to user space.
    pub(crate) fn unpoison(&self) {
        match self {
            Self::Receive(receive) => receive.unpoison(),
            Self::Send(send) => send.unpoison(),
            Self::Accept(_) | Self::Connect(_) | Self::Ready(_) => {}
        }
    }
}

impl Finished {
    /// Puts what an abandoned operation won where its owner finds it (rule 4).
    pub(crate) fn settle(self) {
        let Self { operation, result } = self;
        if result.as_ref().is_err_and(is_cancelled) {
            return;
        }
        match operation {
            Operation::Receive(receive) => {
                let descriptor = receive.from.clone();
                descriptor.stash_receive(receive.finish(result));
            }
            Operation::Accept(accept) => {
                let descriptor = accept.on.clone();
                if let Ok(accepted) = accept.finish(result) {
                    descriptor.stash_accept(Ok(accepted));
                }
            }
            Operation::Send(_) | Operation::Connect(_) | Operation::Ready(_) => {}
        }
    }
}

/// The number of `descriptor`, for a submission. The operation keeps the descriptor open, so the
/// number means the same file until the last completion.
#[cfg(target_os = "linux")]
pub(crate) fn number(descriptor: &Descriptor) -> types::Fd {
    use std::os::fd::{AsFd, AsRawFd};
    types::Fd(descriptor.as_fd().as_raw_fd())
}

/// Whether `error` says that an operation was cancelled and did not happen.
pub fn is_cancelled(error: &io::Error) -> bool {
    error.raw_os_error() == Some(CANCELLED)
}

/// The error of an operation that was cancelled and did not happen.
pub fn cancelled() -> io::Error {
    io::Error::from_raw_os_error(CANCELLED)
}

#[cfg(unix)]
pub(crate) const CANCELLED: i32 = libc::ECANCELED;
/// `ERROR_OPERATION_ABORTED`.
#[cfg(windows)]
pub(crate) const CANCELLED: i32 = 995;
