//! The boundary between the runtime and the kernel: what a driver promises.
//!
//! A driver takes [`Operation`]s, runs any number of them at once, and reports the end of each by
//! the token that came with it. There are three: `io_uring`, `polling` and the simulation, and one
//! conformance suite (`platform/tests/conformance.rs`) that all of them pass.
//!
//! 1. **An operation is in flight from [`Driver::submit`] until its token is reported** by
//!    [`Driver::turn`], exactly once. It may already have ended inside the driver before that.
//! 2. **Whatever the kernel may touch belongs to the operation**, which belongs to the driver, at
//!    an address that does not move. The submitter keeps a [`Key`] and nothing else, so that
//!    forgetting a key forgets no memory (see `op/mod.rs`).
//! 3. **[`Driver::cancel`] is a request.** The operation still ends by its own last completion: as
//!    `ECANCELED`, and then it did not happen, or as if nobody had asked.
//! 4. **[`Driver::abandon`] gives the operation up.** The driver cancels it, waits for its last
//!    completion, puts what it won into the stash of its descriptor, and frees it. Its token is
//!    reported all the same, marked as an orphan's.
//! 5. **No request is lost.** A submission or a cancel that finds the queue of the kernel full
//!    waits in a queue of the driver.
//! 6. **[`Driver::drain`] leaves nothing in flight**, or says how many operations it had to leak.
//! 7. **A watch is not an operation.** After [`Driver::watch`] the driver reports a token, once, when it is
//!    worth trying a receive or an accept again. A watch owns no memory and takes nothing, and it is over
//!    when [`Driver::unwatch`] returns. A driver that would rather have an operation says so.
//! 8. A driver never calls into a task: `turn` fills a list of tokens and returns.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::buf::Lease;
use crate::fd::{Descriptor, Direction};
use crate::op::{Finished, Operation};
use crate::waiter::{self, Waiter};
use crate::{Time, socket};

/// What the submitter calls an operation; comes back when the operation has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(pub u64);

/// What the driver calls an operation in flight.
///
/// Holds an index and a generation, so that a key of an operation that has ended names nothing,
/// and never the operation that took its place.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key(pub(crate) u64);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({}.{})", self.0 & 0xffff_ffff, self.0 >> 32)
    }
}

/// The report that an operation has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completed {
    /// The token that was submitted with the operation.
    pub token: Token,
    /// Whether the operation had been abandoned; then there is nothing to take.
    pub orphan: bool,
}

/// How long a turn may wait for the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Not at all: submit, collect what is there, return.
    Poll,
    /// At most this long.
    For(Duration),
    /// Until something happens.
    Forever,
}

/// Which driver runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Backend {
    /// Linux's `io_uring`.
    IoUring,
    /// Readiness through epoll, kqueue or IOCP.
    Polling,
    /// The simulated kernel and network, in virtual time.
    Simulation,
}

impl std::fmt::Display for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::IoUring => "io_uring",
            Self::Polling => "polling",
            Self::Simulation => "simulation",
        })
    }
}

/// Wakes a driver that waits in [`Driver::turn`] from any thread, or the next turn if none waits.
#[derive(Clone)]
pub struct Unparker(Arc<dyn Unpark>);

/// What a driver implements to be woken from another thread.
pub(crate) trait Unpark: Send + Sync {
    /// Makes the current or the next wait of the driver return soon. Must not block, and may be
    /// called from a signal handler.
    fn unpark(&self);
}

impl Unparker {
    pub(crate) fn new(inner: Arc<dyn Unpark>) -> Self {
        Self(inner)
    }

    /// Makes the current or the next wait of the driver return soon.
    pub fn unpark(&self) {
        self.0.unpark();
    }
}

impl std::fmt::Debug for Unparker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Unparker")
    }
}

/// What a driver has done since it was made, and what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DriverStatistics {
    /// Operations that were submitted; a watch counts as one.
    pub submitted: u64,
    /// Operations whose last completion has come.
    pub completed: u64,
    /// Cancel requests passed to the kernel.
    pub cancels: u64,
    /// Operations that ended as cancelled.
    pub cancelled: u64,
    /// Submissions and cancels that had to wait because the queue of the kernel was full.
    pub overflowed: u64,
    /// Receives that found no provided buffer and were repeated with one of their own.
    pub buffers_exhausted: u64,
    /// System calls made to submit or to wait.
    pub enters: u64,
    /// Blocks of memory that are in use at this moment: in leases, in the hands of operations, and by
    /// what has come and has not been received.
    pub blocks_leased: usize,
}

impl DriverStatistics {
    /// A watch was taken back.
    pub(crate) fn watch_cancelled(&mut self) {
        self.cancels += 1;
        self.completed += 1;
        self.cancelled += 1;
    }
}

/// How [`Driver::drain`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Drained {
    /// Operations that the kernel did not give back in time; their memory is leaked on purpose.
    pub leaked: usize,
}

/// The address family of a socket to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family that `address` belongs to.
    pub const fn of(address: &SocketAddr) -> Self {
        match address {
            SocketAddr::V4(_) => Self::V4,
            SocketAddr::V6(_) => Self::V6,
        }
    }
}

/// A kernel, real or simulated, that runs operations to completion; the rules are in the head of
/// this file.
pub trait Driver {
    /// Which driver this is.
    fn backend(&self) -> Backend;

    /// Starts `operation`, and reports `token` when it has ended.
    fn submit(&mut self, operation: Operation, token: Token) -> Key;

    /// Asks for the operation to end early. Does nothing if it has ended, or was asked before.
    fn cancel(&mut self, key: Key);

    /// Gives the operation up (rule 4). Returns whether it was still in flight, in the sense of
    /// rule 1; if it was, its token is going to be reported as an orphan's. If it was not, what it
    /// won has been stashed, and no report follows.
    fn abandon(&mut self, key: Key) -> bool;

    /// The operation and its result, once its token has been reported; `None` before.
    fn take(&mut self, key: Key) -> Option<Finished>;

    /// Submits what is queued, waits as `wait` says or until something ends or an [`Unparker`]
    /// calls, and appends the tokens of operations that have ended to `completed`.
    ///
    /// With [`Wait::Poll`] a driver that knows that there is nothing to submit and nothing to
    /// collect makes no system call.
    ///
    /// # Errors
    ///
    /// Only if the driver cannot go on at all; every operation in flight stays so.
    fn turn(&mut self, wait: Wait, completed: &mut Vec<Completed>) -> io::Result<()>;

    /// Operations that have been submitted and whose last completion has not come.
    fn in_flight(&self) -> usize;

    /// Whether nothing is in flight and nothing is watched: then nothing is reported, however long a
    /// turn waits.
    fn is_idle(&self) -> bool {
        if self.in_flight() > 0 {
            return false;
        }
        let statistics = self.statistics();
        statistics.submitted == statistics.completed
    }

    /// Cancels everything and waits until nothing is in flight, for at most `bound`.
    fn drain(&mut self, bound: Duration) -> Drained;

    /// The handle by which another thread ends a wait.
    fn unparker(&self) -> Unparker;

    /// What another thread waits with in place of this one, between [`begin_wait`](Self::begin_wait)
    /// and [`end_wait`](Self::end_wait).
    ///
    /// # Errors
    ///
    /// If this driver cannot be waited for by another thread, as the simulation, whose time passes
    /// in its turns only; or what the system says.
    fn waiter(&mut self) -> io::Result<Waiter> {
        Err(waiter::unavailable())
    }

    /// Prepares for a wait by another thread, right after a turn that took no time; `false` if there
    /// is something to do first, which another turn does. Whatever is submitted from now on reaches
    /// the kernel in the next turn, so whoever submits wakes the waiter.
    fn begin_wait(&mut self) -> bool {
        false
    }

    /// The other thread has returned, or is not needed any more. Without effect if nobody waits.
    fn end_wait(&mut self) {}

    /// The time, if the driver has a clock of its own (the simulation); `None` for real time.
    fn virtual_time(&self) -> Option<Time> {
        None
    }

    /// What the driver has done so far.
    fn statistics(&self) -> DriverStatistics;

    /// An empty buffer of the driver's pool, to be filled and sent.
    fn buffer(&mut self) -> Lease;

    /// Whether a receive is worth trying at once, from what the last one on `on` showed.
    ///
    /// `false` means that [`Driver::try_receive`] would most likely find nothing.
    fn likely_readable(&self, on: &Descriptor) -> bool;

    /// Reports `token` when there may be something to take from `on` in this direction, in its stash or
    /// in the system; at most once, and not after [`unwatch`](Self::unwatch). `false` if the driver
    /// wants an operation instead. Whoever asks has looked into the stash, and has found nothing by
    /// [`receive_now`](Self::receive_now) or [`accept_now`](Self::accept_now).
    fn watch(&mut self, on: &Descriptor, direction: Direction, token: Token) -> bool {
        let _ = (on, direction, token);
        false
    }

    /// The same for a caller who has looked only into the stash. Does nothing and returns `false` unless it
    /// is known without a system call that [`receive_now`](Self::receive_now) or
    /// [`accept_now`](Self::accept_now) would find nothing and that the next arrival will be reported.
    ///
    /// A task that waits again after each message is spared an attempt that is known to fail.
    fn watch_blocked(&mut self, on: &Descriptor, direction: Direction, token: Token) -> bool {
        let _ = (on, direction, token);
        false
    }

    /// Takes back what [`watch`](Self::watch) was asked for.
    fn unwatch(&mut self, stream: &Descriptor) {
        let _ = stream;
    }

    /// The place of the watch on `on`, if anybody has ever watched there: its own until it is closed.
    fn watch_place(&self, on: &Descriptor) -> Option<u32> {
        let _ = on;
        None
    }

    /// Takes back the watch in this [place](Self::watch_place) if it was to report `token`, for somebody
    /// who does not know the descriptor any more, which may have been closed; says whether there was one.
    fn unwatch_at(&mut self, place: u32, token: Token) -> bool {
        let _ = (place, token);
        false
    }

    /// A new stream socket, non-blocking and closed on exec.
    fn socket(&mut self, family: Family) -> io::Result<Descriptor> {
        socket::stream(family)
    }

    /// Binds `socket` to `address`. For a listener, also sets what a listener needs first:
    /// `SO_REUSEADDR` except on Windows, `IPV6_V6ONLY`, and `SO_REUSEPORT` if `share_port`.
    fn bind(
        &mut self,
        socket: &Descriptor,
        address: &SocketAddr,
        share_port: bool,
    ) -> io::Result<()> {
        socket::bind(socket, address, share_port)
    }

    /// Makes `socket` a listener with a queue of `backlog` connections.
    fn listen(&mut self, socket: &Descriptor, backlog: u32) -> io::Result<()> {
        socket::listen(socket, backlog)
    }

    /// The address that `socket` is bound to.
    fn local_address(&self, socket: &Descriptor) -> io::Result<SocketAddr> {
        socket::local_address(socket)
    }

    /// The address that `socket` is connected to.
    fn peer_address(&self, socket: &Descriptor) -> io::Result<SocketAddr> {
        socket::peer_address(socket)
    }

    /// Sets what a fresh stream connection should have, as far as the system allows:
    /// `TCP_NODELAY` on.
    fn prepare_stream(&mut self, socket: &Descriptor) {
        socket::prepare_stream(socket);
    }

    /// Ends the sending direction of `socket`: the peer reads what was sent, then end of file.
    fn shutdown_send(&mut self, socket: &Descriptor) -> io::Result<()> {
        socket::shutdown_send(socket)
    }

    /// Makes the coming close of `socket` an abort: the peer sees a reset.
    fn reset_on_close(&mut self, socket: &Descriptor) -> io::Result<()> {
        socket::reset_on_close(socket)
    }

    /// Receives what is there into `into` without waiting; `WouldBlock` if nothing is.
    fn try_receive(&mut self, from: &Descriptor, into: &mut [u8]) -> io::Result<usize> {
        socket::try_receive(from, into)
    }

    /// Sends as much of `data` as fits without waiting; `WouldBlock` if nothing does.
    fn try_send(&mut self, to: &Descriptor, data: &[u8]) -> io::Result<usize> {
        socket::try_send(to, data)
    }

    /// What [`try_send`](Self::try_send) does; `None` if nothing fits.
    fn send_now(&mut self, to: &Descriptor, data: &[u8]) -> Option<io::Result<usize>> {
        match self.try_send(to, data) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            sent => Some(sent),
        }
    }

    /// Takes a connection off the queue of `listener`, if there is likely to be one and taking it
    /// costs less than an operation would; `None` if there is none, or if an operation should be used.
    fn accept_now(&mut self, listener: &Descriptor) -> Option<io::Result<Descriptor>> {
        let _ = listener;
        None
    }

    /// Receives into `into` what is there, if that is [worth trying](Self::likely_readable); `None`
    /// if it is not, or nothing is there.
    fn receive_now(&mut self, from: &Descriptor, into: &mut [u8]) -> Option<io::Result<usize>> {
        if !self.likely_readable(from) {
            return None;
        }
        let received = self.try_receive(from, into);
        let blocks = matches!(&received, Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        (!blocks).then_some(received)
    }

    /// The same into a block of the pool. If more has been received than one block holds, the rest is in
    /// the stash. Whoever asks has found the stash empty.
    fn receive_block_now(&mut self, from: &Descriptor) -> Option<io::Result<Lease>> {
        if !self.likely_readable(from) {
            return None;
        }
        let mut lease = self.buffer();
        let received = self.receive_now(from, lease.block_mut())?;
        Some(received.map(|count| {
            lease.fill_to(count);
            lease
        }))
    }
}
