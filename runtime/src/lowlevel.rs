//! The basis of everything above the runtime, which your own crates can use as well: operations of
//! the driver, sockets, and ways to inspect a run.
//!
//! | to …                                                | there is                                   |
//! |-----------------------------------------------------|--------------------------------------------|
//! | let others run, and check for a cancellation        | [`checkpoint`](crate::checkpoint()) and its halves [`checkpoint_if_cancelled`], [`cancel_shielded_checkpoint`] |
//! | wait in a future of another library                 | [`cancellable`]                            |
//! | make a primitive that tasks can wait for            | [`ParkingLot`]; below it [`wait_task_rescheduled`] |
//! | make a stream out of a descriptor                   | [`receive`], [`accept`], [`submit`], with a [`Handle`] and its [`Gate`]s |
//! | see which tasks there are and what they wait in     | [`task_tree`], [`current_task`], [`current_statistics`] |
//! | come back into the run from elsewhere               | [`TrioToken`]                              |
//! | have something that lives as long as the run        | [`RunVar`], [`spawn_system_task`]          |
//!
//! All of it keeps the promises of the rest of the library: whatever is built on it can be
//! cancelled, dropped and leaked like everything else. It asks one thing more of you: a wait has to
//! say how it is called off.
//!
//! # Examples
//!
//! An event that wakes one task at a time:
//!
//! ```
//! # use trio_runtime as trio;
//! # trio::run(async {
//! use trio::lowlevel::ParkingLot;
//!
//! let lot = ParkingLot::new();
//! trio::open_nursery(async |nursery| {
//!     nursery.start_soon(async { lot.park().await });
//!     nursery.start_soon(async { lot.park().await });
//!     trio::checkpoint().await?;
//!     assert_eq!(lot.unpark(1), 1);
//!     assert_eq!(lot.unpark_all(), 1);
//!     Ok(())
//! })
//! .await
//! # }).unwrap();
//! ```

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll, ready};

pub use trio_platform::buf::{Lease, Pool, SendData};
pub use trio_platform::{
    Accept, AcceptFailure, Backend, Connect, Descriptor, Direction, DriverStatistics, Family,
    Finished, Interest, Key, Operation, Ready, Receive, Send, WeakDescriptor, accept_failure,
    is_cancelled, is_family_unavailable, lacks_descriptors,
};

pub use crate::cancellable::{Cancellable, cancellable};
pub use crate::checkpoint::{
    CheckpointIfCancelled, ShieldedCheckpoint, cancel_shielded_checkpoint, checkpoint_if_cancelled,
};
use crate::context;
use crate::error::Result;
pub use crate::handle::{Claim, Gate, Handle};
pub use crate::instrument::{add_instrument, remove_instrument};
pub use crate::introspect::{TaskTree, current_root_task, current_task, task_tree};
pub use crate::nursery::in_task;
pub use crate::operation::{OrphansGone, Submit, orphans_gone, submit, submit_in};
pub use crate::run_var::{RunVar, RunVarToken};
pub use crate::statistics::{RunStatistics, current_statistics};
pub use crate::sync::parking_lot::{Park, ParkingLot, ParkingLotBreaker, ParkingLotStatistics};
pub use crate::sync::reschedule::{Abort, Reschedule, WaitTaskRescheduled, wait_task_rescheduled};
pub use crate::taking::{
    AcceptConnection, ReceiveBlock, ReceiveInto, accept, receive, receive_into,
};
pub use crate::thread::{
    ThreadStatistics, TokenStatistics, TrioToken, current_trio_token, spawn_system_task,
    spawn_system_task_named, start_thread_soon, thread_statistics,
};

/// Which backend a run uses, and, if that is not `io_uring` although nobody asked for another, why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendInfo {
    backend: Backend,
    fallback: Option<String>,
}

impl BackendInfo {
    /// The backend in use.
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// Why `io_uring` is not used, if it was tried and did not work.
    pub fn fallback(&self) -> Option<&str> {
        self.fallback.as_deref()
    }
}

impl fmt::Display for BackendInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.backend)?;
        match &self.fallback {
            Some(reason) => write!(f, " ({reason})"),
            None => Ok(()),
        }
    }
}

/// Which backend this run uses, and why.
///
/// # Panics
///
/// Outside of a run.
#[track_caller]
pub fn backend() -> BackendInfo {
    context::with(|run| {
        let (backend, fallback) = run.backend();
        BackendInfo {
            backend,
            fallback: fallback.map(str::to_owned),
        }
    })
}

/// What the driver of this run has done so far.
///
/// # Panics
///
/// Outside of a run.
#[track_caller]
pub fn driver_statistics() -> DriverStatistics {
    context::with(|run| run.driver_statistics())
}

/// Whether this thread is in a run.
pub fn in_run() -> bool {
    context::is_running()
}

/// Reports a cancellation, or yields if the task has used up its budget. An operation that may
/// complete at once does this first.
///
/// # Cancellation
///
/// A cancel point.
///
/// # Errors
///
/// `Cancelled` only.
pub async fn enter_operation() -> Result<()> {
    std::future::poll_fn(poll_enter_operation).await
}

/// Like [`enter_operation`], for a future written by hand.
///
/// # Errors
///
/// `Cancelled` only.
pub fn poll_enter_operation(context: &mut Context<'_>) -> Poll<Result<()>> {
    crate::checkpoint::enter_operation(context)
}

/// Passes a checkpoint, and then sends as much of `data` as fits without waiting; `None` if nothing
/// does. The first step of a future that sends, in one call.
///
/// # Cancellation
///
/// A checkpoint. `Cancelled` means that nothing has been sent.
///
/// # Errors
///
/// `Cancelled`; [`ClosedResource`](crate::ClosedResource) if `to` has been closed; otherwise [what
/// the system said](Handle::error).
#[inline]
pub fn poll_send_now(
    context: &mut Context<'_>,
    to: &Handle,
    data: &[u8],
) -> Poll<Result<Option<usize>>> {
    context::with(|run| {
        ready!(crate::checkpoint::enter_operation_in(run, context))?;
        let sent = {
            let descriptor = to.get()?;
            // Even if there is nothing to send, the handle must be open.
            if data.is_empty() {
                return Poll::Ready(Ok(Some(0)));
            }
            run.driver().send_now(&descriptor, data)
        };
        Poll::Ready(sent.transpose().map_err(|error| to.error(error)))
    })
}

/// Sockets for this run: the system's, or the simulation's.
///
/// These functions return at once. Whatever has to wait is an operation: see [`Connect`], [`accept`],
/// [`receive`] and [`submit`].
pub mod socket {
    use super::{Descriptor, Family, Lease, SocketAddr, context, io};

    /// A new stream socket.
    ///
    /// # Errors
    ///
    /// What the system said.
    ///
    /// # Panics
    ///
    /// Outside of a run.
    #[track_caller]
    pub fn stream(family: Family) -> io::Result<Descriptor> {
        context::with(|run| run.driver().socket(family))
    }

    /// Binds `socket` as a listener is bound: see `Driver::bind`.
    ///
    /// # Errors
    ///
    /// What the system said.
    ///
    /// # Panics
    ///
    /// Outside of a run.
    #[track_caller]
    pub fn bind(socket: &Descriptor, address: &SocketAddr, share_port: bool) -> io::Result<()> {
        context::with(|run| run.driver().bind(socket, address, share_port))
    }

    /// Makes `socket` a listener.
    ///
    /// # Errors
    ///
    /// What the system said.
    ///
    /// # Panics
    ///
    /// Outside of a run.
    #[track_caller]
    pub fn listen(socket: &Descriptor, backlog: u32) -> io::Result<()> {
        context::with(|run| run.driver().listen(socket, backlog))
    }

    /// The address that `socket` is bound to.
    ///
    /// # Errors
    ///
    /// What the system said.
    ///
    /// # Panics
    ///
    /// Outside of a run.
    #[track_caller]
    pub fn local_address(socket: &Descriptor) -> io::Result<SocketAddr> {
        context::with(|run| run.driver().local_address(socket))
    }

    /// The address that `socket` is connected to.
    ///
    /// # Errors
    ///
    /// What the system said.
    ///
    /// # Panics
    ///
    /// Outside of a run.
    #[track_caller]
    pub fn peer_address(socket: &Descriptor) -> io::Result<SocketAddr> {
        context::with(|run| run.driver().peer_address(socket))
    }

    /// Sets the options that a new stream should have, as far as the system allows.
    ///
    /// # Panics
    ///
    /// Outside of a run.
    #[track_caller]
    pub fn prepare_stream(socket: &Descriptor) {
        context::with(|run| run.driver().prepare_stream(socket));
    }

    /// Ends the sending direction.
    ///
    /// # Errors
    ///
    /// What the system said.
    ///
    /// # Panics
    ///
    /// Outside of a run.
    #[track_caller]
    pub fn shutdown_send(socket: &Descriptor) -> io::Result<()> {
        context::with(|run| run.driver().shutdown_send(socket))
    }

    /// Makes the next close an abort.
    ///
    /// # Errors
    ///
    /// What the system said.
    ///
    /// # Panics
    ///
    /// Outside of a run.
    #[track_caller]
    pub fn reset_on_close(socket: &Descriptor) -> io::Result<()> {
        context::with(|run| run.driver().reset_on_close(socket))
    }

    /// Sends what fits without waiting.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if nothing does; else what the system said.
    ///
    /// # Panics
    ///
    /// Outside of a run.
    #[track_caller]
    pub fn try_send(to: &Descriptor, data: &[u8]) -> io::Result<usize> {
        context::with(|run| run.driver().try_send(to, data))
    }

    /// An empty block, to be filled and sent.
    ///
    /// # Panics
    ///
    /// Outside of a run.
    #[track_caller]
    pub fn buffer() -> Lease {
        context::with(|run| run.driver().buffer())
    }
}
