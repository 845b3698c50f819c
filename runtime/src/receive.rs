//! Receiving from a stream: what every message of a server goes through.
//!
//! A receive looks into the stash of the descriptor, tries the system if that is likely to give
//! something, and else waits: in a watch if the driver has one, which costs no operation, and in an
//! operation if it has not. What the future is in the middle of when it is cancelled, dropped or
//! forgotten decides what that means:
//!
//! | The future waits in | cancelled                        | dropped                     | forgotten                |
//! |---------------------|----------------------------------|-----------------------------|--------------------------|
//! | nothing yet         | `Cancelled` at the next poll     | nothing                     | nothing                  |
//! | a watch             | `Cancelled`; nothing is taken    | the watch is taken back     | taken back with its task |
//! | an operation        | its completion decides           | see `operation.rs`          | see `operation.rs`       |

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use trio_platform::buf::Lease;
use trio_platform::{
    Descriptor, Direction, Driver, Finished, Receive, Token, WeakDescriptor, cancelled,
};

use crate::checkpoint::enter_operation;
use crate::context;
use crate::error::{Error, Result};
use crate::operation::{Gate, OrphansGone, Submit, Waiting, orphans_gone, submit_in};
use crate::run::Run;
use crate::wait::Parked;

/// Receives at least one byte into a block of the runtime's; an empty lease is the end of file.
///
/// One receive at a time on a descriptor: whoever owns it sees to that.
///
/// # Cancellation
///
/// A checkpoint. `Cancelled` means that nothing was taken: the bytes are there for the next receive,
/// also if the future was dropped instead.
///
/// # Errors
///
/// `Cancelled` outside; inside what the system said, or an error for which
/// [`is_cancelled`](trio_platform::is_cancelled) says yes if `gate` was closed.
pub fn receive<'a>(from: &Descriptor, gate: &'a Gate) -> ReceiveBlock<'a> {
    ReceiveBlock(Receiving::new(from, gate))
}

/// Receives at least one byte into `buffer`, and returns how many; zero is the end of file. What
/// came and did not fit is kept for the next receive. Otherwise like [`receive`].
///
/// # Cancellation
///
/// As for [`receive`].
///
/// # Errors
///
/// As for [`receive`].
pub fn receive_into<'a>(
    from: &Descriptor,
    gate: &'a Gate,
    buffer: &'a mut [u8],
) -> ReceiveInto<'a> {
    let receiving = Receiving::new(from, gate);
    ReceiveInto { receiving, buffer }
}

/// The future of [`receive`].
#[must_use = "futures do nothing unless polled"]
pub struct ReceiveBlock<'a>(Receiving<'a>);

/// The future of [`receive_into`].
#[must_use = "futures do nothing unless polled"]
pub struct ReceiveInto<'a> {
    receiving: Receiving<'a>,
    buffer: &'a mut [u8],
}

impl Future for ReceiveBlock<'_> {
    type Output = Result<io::Result<Lease>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let attempt = |driver: &mut dyn Driver, from: &Descriptor| driver.receive_now(from);
        let received = ready!(self.0.poll(context, attempt))?;
        Poll::Ready(Ok(received.map(|received| match received {
            Received::AtOnce(lease) | Received::Waited(lease) => lease,
        })))
    }
}

impl Future for ReceiveInto<'_> {
    type Output = Result<io::Result<usize>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { receiving, buffer } = &mut *self;
        let attempt = |driver: &mut dyn Driver, from: &Descriptor| driver.try_receive(from, buffer);
        let received = match ready!(receiving.poll(context, attempt))? {
            Ok(received) => received,
            Err(error) => return Poll::Ready(Ok(Err(error))),
        };
        let count = match received {
            Received::AtOnce(count) => count,
            Received::Waited(mut lease) => {
                let count = lease.len().min(buffer.len());
                buffer[..count].copy_from_slice(&lease[..count]);
                if count < lease.len() {
                    lease.advance(count);
                    // Nobody receives the rest of a stream that has been closed meanwhile.
                    if let Some(from) = receiving.from.upgrade() {
                        from.unreceive(lease);
                    }
                }
                count
            }
        };
        Poll::Ready(Ok(Ok(count)))
    }
}

/// What an attempt gave, or what came after a wait or was in the stash.
enum Received<T> {
    AtOnce(T),
    Waited(Lease),
}

struct Receiving<'a> {
    /// Weakly: a future that is forgotten must not keep the descriptor open.
    from: WeakDescriptor,
    gate: &'a Gate,
    state: State<'a>,
}

enum State<'a> {
    /// The checkpoint has not been passed.
    New,
    /// Waits for the token of a watch.
    Watching(Parked),
    /// Waits for an operation.
    Running(Submit<'a>),
    /// Waits for operations that others have left behind.
    Settling(OrphansGone),
    Ended,
}

impl<'a> Receiving<'a> {
    fn new(from: &Descriptor, gate: &'a Gate) -> Self {
        let from = from.downgrade();
        let state = State::New;
        Self { from, gate, state }
    }

    fn poll<T>(
        &mut self,
        context: &mut Context<'_>,
        attempt: impl FnOnce(&mut dyn Driver, &Descriptor) -> io::Result<T>,
    ) -> Poll<Result<io::Result<Received<T>>>> {
        match &mut self.state {
            State::New => ready!(enter_operation(context))?,
            State::Watching(parked) => {
                let cancelled = ready!(parked.poll_woken(context));
                self.end_watch();
                if let Some(cancelled) = cancelled {
                    return Poll::Ready(Err(Error::cancelled(cancelled)));
                }
            }
            State::Running(submit) => {
                let polled = Pin::new(submit).poll(context);
                return self.finish(polled);
            }
            State::Settling(orphans) => {
                let gone = ready!(Pin::new(orphans).poll(context));
                self.state = State::New;
                gone?;
            }
            State::Ended => panic!("a future is not polled after its end"),
        }
        context::with(|run| self.begin(run, context, attempt))
    }

    /// Looks and tries, and waits if that gave nothing.
    fn begin<T>(
        &mut self,
        run: &Rc<Run>,
        context: &mut Context<'_>,
        attempt: impl FnOnce(&mut dyn Driver, &Descriptor) -> io::Result<T>,
    ) -> Poll<Result<io::Result<Received<T>>>> {
        self.state = State::Ended;
        let open = self.from.upgrade().filter(|_| !self.gate.is_closed());
        let Some(from) = &open else {
            return Poll::Ready(Ok(Err(cancelled())));
        };
        if let Some(stashed) = from.stashed_receive() {
            return Poll::Ready(Ok(stashed.map(Received::Waited)));
        }
        if from.orphans(Direction::Receive) > 0 {
            self.state = State::Settling(orphans_gone(from, Direction::Receive));
            return self.poll(context, attempt);
        }
        let mut driver = run.driver();
        if driver.likely_readable(from) {
            match attempt(&mut *driver, from) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(Ok(result.map(Received::AtOnce))),
            }
        }
        let parked = Parked::in_run(run, context, "receive");
        if driver.watch(from, Token(u64::from(parked.wait()))) {
            run.tree
                .borrow_mut()
                .set_watched(parked.wait(), from.clone());
            self.gate.set_waiting(Some(Waiting::Wait(parked.wait())));
            self.state = State::Watching(parked);
            return Poll::Pending;
        }
        drop(driver);
        drop(parked);
        let submit = submit_in(Receive::new(from.clone()), self.gate);
        self.state = State::Running(submit);
        let State::Running(submit) = &mut self.state else {
            unreachable!("it was set in the line above");
        };
        // Its first poll submits, unless the budget is used up.
        let polled = Pin::new(submit).poll(context);
        self.finish(polled)
    }

    fn finish<T>(
        &mut self,
        polled: Poll<Result<Finished>>,
    ) -> Poll<Result<io::Result<Received<T>>>> {
        let finished = ready!(polled);
        self.state = State::Ended;
        let received = finished.map(Finished::into_received);
        Poll::Ready(received.map(|received| received.map(Received::Waited)))
    }

    /// Takes the watch back; after this no token of it comes.
    fn end_watch(&mut self) {
        if let State::Watching(parked) = std::mem::replace(&mut self.state, State::New) {
            parked.end_watch();
            self.gate.set_waiting(None);
        }
    }
}

impl Drop for Receiving<'_> {
    fn drop(&mut self) {
        self.end_watch();
    }
}

impl fmt::Debug for ReceiveBlock<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReceiveBlock")
    }
}

impl fmt::Debug for ReceiveInto<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReceiveInto")
    }
}
