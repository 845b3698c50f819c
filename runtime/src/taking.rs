//! Taking what arrives at a descriptor: bytes from a stream, as for every message of a server, and
//! connections from a listener.
//!
//! It looks into the stash of the descriptor, tries the system if that is likely to have something,
//! and otherwise waits: in a watch if the driver has one, which costs no operation, and else in an
//! operation. What happens when the future is cancelled, dropped or forgotten depends on what it
//! waits in:
//!
//! | The future waits in | cancelled                        | dropped                     | forgotten                |
//! |---------------------|----------------------------------|-----------------------------|--------------------------|
//! | nothing yet         | `Cancelled` at the next poll     | nothing                     | nothing                  |
//! | a watch             | `Cancelled`; nothing is taken    | the watch is taken back     | taken back with its task |
//! | an operation        | its completion decides           | see `operation.rs`          | see `operation.rs`       |
//!
//! If the handle is closed before the future has returned, the future reports the close, whatever had
//! arrived by then: who closes a handle does not want what arrives there, and how much of it a driver
//! had taken already makes no difference.
//!
//! A connection spends its life here, so the future is small and looks up the run only once a poll.

use std::fmt;
use std::future::Future;
use std::io;
use std::marker::PhantomData;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use trio_platform::buf::Lease;
use trio_platform::{
    Accept, Descriptor, Direction, Driver, Finished, Operation, Receive, Token, is_cancelled,
};

use crate::checkpoint::enter_operation_in;
use crate::context;
use crate::error::{ClosedResource, Error, Result};
use crate::handle::{Gate, Handle, closed};
use crate::operation::{OrphansGone, Running, orphans_gone};
use crate::run::Run;
use crate::wait::Parked;

/// Receives at least one byte into a block of the runtime's; `None` is the end of file. Takes `gate`
/// for the time.
///
/// # Cancellation
///
/// A checkpoint. `Cancelled` means that nothing was taken: the bytes are there for the next receive,
/// also if the future was dropped instead.
///
/// # Errors
///
/// `BusyResource` if somebody else has the gate, `ClosedResource` if handle or gate are closed, and
/// `BrokenResource` with what the system said.
pub fn receive<'a>(from: &'a Handle, gate: &'a Gate) -> ReceiveBlock<'a> {
    ReceiveBlock(Taking::new(from, gate))
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
/// As for [`receive`]; an [`io::Error`] of the kind `InvalidInput` if `buffer` is empty.
pub fn receive_into<'a>(from: &'a Handle, gate: &'a Gate, buffer: &'a mut [u8]) -> ReceiveInto<'a> {
    let receiving = Taking::new(from, gate);
    ReceiveInto { receiving, buffer }
}

/// Takes a connection off the queue of a listener. Takes `gate` for the time.
///
/// # Cancellation
///
/// A checkpoint. `Cancelled` means that no connection was taken off the queue: it is there for the next
/// accept, also if the future was dropped instead.
///
/// # Errors
///
/// `BusyResource` if somebody else has the gate, `ClosedResource` if handle or gate are closed, else an
/// [`io::Error`]: [`accept_failure`](trio_platform::accept_failure) tells what it means.
pub fn accept<'a>(from: &'a Handle, gate: &'a Gate) -> AcceptConnection<'a> {
    AcceptConnection(Taking::new(from, gate))
}

/// The future of [`receive`].
#[must_use = "futures do nothing unless polled"]
pub struct ReceiveBlock<'a>(Taking<'a, Bytes>);

/// The future of [`receive_into`].
#[must_use = "futures do nothing unless polled"]
pub struct ReceiveInto<'a> {
    receiving: Taking<'a, Bytes>,
    buffer: &'a mut [u8],
}

/// The future of [`accept`].
#[must_use = "futures do nothing unless polled"]
pub struct AcceptConnection<'a>(Taking<'a, Connections>);

impl Future for ReceiveBlock<'_> {
    type Output = Result<Option<Lease>>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let attempt = |driver: &mut dyn Driver, from: &Descriptor| driver.receive_block_now(from);
        let lease = match ready!(self.0.poll(context, attempt))? {
            Taken::AtOnce(lease) | Taken::Waited(lease) => lease,
        };
        Poll::Ready(Ok(Some(lease).filter(|lease| !lease.is_empty())))
    }
}

impl Future for ReceiveInto<'_> {
    type Output = Result<usize>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { receiving, buffer } = &mut *self;
        if buffer.is_empty() {
            let text = "a buffer to receive into needs room for at least one byte";
            let error = io::Error::new(io::ErrorKind::InvalidInput, text);
            return Poll::Ready(Err(error.into()));
        }
        let attempt = |driver: &mut dyn Driver, from: &Descriptor| driver.receive_now(from, buffer);
        let mut lease = match ready!(receiving.poll(context, attempt))? {
            Taken::AtOnce(count) => return Poll::Ready(Ok(count)),
            Taken::Waited(lease) => lease,
        };
        let count = lease.len().min(buffer.len());
        buffer[..count].copy_from_slice(&lease[..count]);
        if count < lease.len() {
            lease.advance(count);
            // Nobody receives the rest of a stream that has been closed meanwhile.
            if let Ok(from) = receiving.from.get() {
                from.unreceive(lease);
            }
        }
        Poll::Ready(Ok(count))
    }
}

impl Future for AcceptConnection<'_> {
    type Output = Result<Descriptor>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let attempt = |driver: &mut dyn Driver, from: &Descriptor| driver.accept_now(from);
        let taken = ready!(self.0.poll(context, attempt))?;
        Poll::Ready(Ok(match taken {
            Taken::AtOnce(connection) | Taken::Waited(connection) => connection,
        }))
    }
}

/// What is taken.
trait Kind {
    type Won;
    const DIRECTION: Direction;
    const NAME: &'static str;

    /// What has arrived while nobody waited.
    fn stashed(from: &Descriptor) -> Option<io::Result<Self::Won>>;

    fn operation(from: Descriptor) -> Operation;

    fn finish(finished: Finished) -> io::Result<Self::Won>;

    /// What the system has said about `handle`, for the caller.
    fn error(handle: &Handle, error: io::Error) -> Error;
}

struct Bytes;

impl Kind for Bytes {
    type Won = Lease;
    const DIRECTION: Direction = Direction::Receive;
    const NAME: &'static str = "receive";

    #[inline]
    fn stashed(from: &Descriptor) -> Option<io::Result<Lease>> {
        from.stashed_receive()
    }

    fn operation(from: Descriptor) -> Operation {
        Receive::new(from).into()
    }

    fn finish(finished: Finished) -> io::Result<Lease> {
        finished.into_received()
    }

    fn error(handle: &Handle, error: io::Error) -> Error {
        handle.error(error)
    }
}

struct Connections;

impl Kind for Connections {
    type Won = Descriptor;
    const DIRECTION: Direction = Direction::Accept;
    const NAME: &'static str = "accept";

    fn stashed(from: &Descriptor) -> Option<io::Result<Descriptor>> {
        from.stashed_accept()
    }

    fn operation(from: Descriptor) -> Operation {
        Accept::new(from).into()
    }

    fn finish(finished: Finished) -> io::Result<Descriptor> {
        finished.into_accepted()
    }

    fn error(handle: &Handle, error: io::Error) -> Error {
        match handle.is_closed() || is_cancelled(&error) {
            true => ClosedResource::new().into(),
            false => error.into(),
        }
    }
}

/// The result of an attempt, or what was in the stash or arrived during a wait.
enum Taken<T, W> {
    AtOnce(T),
    Waited(W),
}

struct Taking<'a, K> {
    from: &'a Handle,
    gate: &'a Gate,
    /// The gate also holds the place of a watch, as long as the gate is ours.
    phase: Phase,
    rarely: Option<Rarely>,
    kind: PhantomData<K>,
}

/// Not an enum that holds what its rare states need: so the changes that a message goes through each write
/// a byte, and drop nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Has not been polled. In all later phases the gate is ours.
    New,
    /// The checkpoint has not been passed.
    Begun,
    /// Waits for the token of a watch.
    Watching,
    /// Waits in an operation.
    Rarely,
    Ended,
}

/// What a future waits for that does not watch.
enum Rarely {
    /// An operation.
    Running(Running),
    /// Operations that others have left behind.
    Settling(OrphansGone),
}

impl<'a, K: Kind> Taking<'a, K> {
    fn new(from: &'a Handle, gate: &'a Gate) -> Self {
        Self {
            from,
            gate,
            phase: Phase::New,
            rarely: None,
            kind: PhantomData,
        }
    }

    #[inline]
    fn poll<T>(
        &mut self,
        context: &mut Context<'_>,
        attempt: impl FnOnce(&mut dyn Driver, &Descriptor) -> Option<io::Result<T>>,
    ) -> Poll<Result<Taken<T, K::Won>>> {
        let result = ready!(context::with(|run| self.poll_in(run, context, attempt)));
        self.end();
        Poll::Ready(result)
    }

    // Inlined, except for what few messages need: so the result is written once, to where the caller wants
    // it.
    #[inline(always)]
    fn poll_in<T>(
        &mut self,
        run: &Rc<Run>,
        context: &mut Context<'_>,
        attempt: impl FnOnce(&mut dyn Driver, &Descriptor) -> Option<io::Result<T>>,
    ) -> Poll<Result<Taken<T, K::Won>>> {
        // Compared one after the other instead of by a jump table: the two phases that every message goes
        // through come first.
        let mut told = self.phase == Phase::Watching;
        if told {
            if !self.gate.rest(run) {
                ready!(self.poll_watch(context))?;
                // Woken all the same, but with a foreign waker in its place, which is not kept for the next.
                self.gate.leave();
            }
            // Its token or a close has ended the watch.
            self.phase = Phase::Begun;
        } else {
            if self.phase == Phase::New {
                self.gate.take()?;
                self.phase = Phase::Begun;
            }
            if self.phase == Phase::Begun {
                ready!(enter_operation_in(run, context))?;
            } else if let Some(won) = ready!(self.poll_rarely(context))? {
                return Poll::Ready(Ok(Taken::Waited(won)));
            } else {
                told = true;
            }
        }
        self.look(run, context, told, attempt)
    }

    /// Looks and tries, and waits if there is nothing. Tries in any case if it has been `told` that there may
    /// be something, and has passed no checkpoint since.
    #[inline(always)]
    fn look<T>(
        &mut self,
        run: &Rc<Run>,
        context: &mut Context<'_>,
        mut told: bool,
        attempt: impl FnOnce(&mut dyn Driver, &Descriptor) -> Option<io::Result<T>>,
    ) -> Poll<Result<Taken<T, K::Won>>> {
        let handle = self.from;
        let from = loop {
            let from = handle.get()?;
            if self.gate.is_closed() {
                return Poll::Ready(Err(closed()));
            }
            if let Some(stashed) = K::stashed(&from) {
                let stashed = stashed.map_err(|error| K::error(handle, error));
                return Poll::Ready(stashed.map(Taken::Waited));
            }
            if from.orphans(K::DIRECTION) == 0 {
                break from;
            }
            self.settle(&from);
            drop(from);
            if let Some(won) = ready!(self.poll_rarely(context))? {
                return Poll::Ready(Ok(Taken::Waited(won)));
            }
            told = true;
        };
        // After a message has been answered there is mostly no other yet, and the driver knows that without a
        // call.
        let watch = |wait: u32| {
            let token = Token(u64::from(wait));
            run.driver().watch_blocked(&from, K::DIRECTION, token)
        };
        if !told && self.gate.resume(run, context, watch) {
            self.phase = Phase::Watching;
            return Poll::Pending;
        }
        let taken = attempt(&mut *run.driver(), &from);
        if let Some(taken) = taken {
            let taken = taken.map_err(|error| K::error(handle, error));
            return Poll::Ready(taken.map(Taken::AtOnce));
        }
        if told {
            // Woken for nothing: others may have the same socket, and were first. A cancellation that has come
            // since found nobody waiting, and would not reach the wait that begins here.
            if let Some(cancelled) = run.cancelled() {
                return Poll::Ready(Err(Error::cancelled(cancelled)));
            }
        }
        let watch = |wait: u32| {
            let token = Token(u64::from(wait));
            run.driver().watch(&from, K::DIRECTION, token)
        };
        if self.gate.resume(run, context, watch) {
            self.phase = Phase::Watching;
        } else {
            drop(from);
            self.wait(run, context)?;
        }
        Poll::Pending
    }

    /// Waits in a place of its own, by a watch or by an operation.
    #[cold]
    fn wait(&mut self, run: &Rc<Run>, context: &Context<'_>) -> Result<()> {
        // This may clone a foreign waker, whose code may look at the run, cancel and close. So nothing is
        // borrowed here, and all of that is checked afterwards.
        let wait = self.gate.park(run, context, K::NAME);
        let watched = self.watch(run, wait);
        if !matches!(watched, Ok(true)) {
            self.gate.leave();
        }
        if watched? {
            return Ok(());
        }
        let parked = Running::park(run, context, K::NAME)?;
        let operation = K::operation(self.open()?);
        let running = Running::begin(parked, operation, Some(self.gate));
        self.rarely = Some(Rarely::Running(running));
        self.phase = Phase::Rarely;
        Ok(())
    }

    /// Asks the driver to watch for the wait in the place; `false` if it cannot.
    fn watch(&mut self, run: &Rc<Run>, wait: u32) -> Result<bool> {
        let overtaken = self.gate.at_place(Parked::overtaken);
        if let Some(cancelled) = overtaken.flatten() {
            return Err(Error::cancelled(cancelled));
        }
        let from = self.open()?;
        let token = Token(u64::from(wait));
        let mut driver = run.driver();
        let watched = driver.watch(&from, K::DIRECTION, token);
        if watched {
            let place = driver.watch_place(&from).expect("it is watched there");
            run.tree.borrow_mut().set_watch(wait, place);
            self.gate.set_waiting(wait);
            self.phase = Phase::Watching;
        }
        Ok(watched)
    }

    /// The descriptor, unless it or the gate has been closed.
    fn open(&self) -> Result<Descriptor> {
        match self.gate.is_closed() {
            true => Err(closed()),
            false => self.from.open(),
        }
    }

    /// Goes on with what few futures wait for. Ready with what was won, or with nothing when it is time to
    /// look again.
    #[cold]
    fn poll_rarely(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<K::Won>>> {
        assert!(
            self.phase == Phase::Rarely,
            "a future is not polled after its end"
        );
        let finished = match &mut self.rarely {
            Some(Rarely::Running(running)) => ready!(running.poll(context)),
            Some(Rarely::Settling(orphans)) => {
                ready!(Pin::new(orphans).poll(context))?;
                self.rarely = None;
                self.phase = Phase::Begun;
                return Poll::Ready(Ok(None));
            }
            None => unreachable!("who waits rarely waits in something"),
        };
        self.rarely = None;
        self.gate.leave();
        self.phase = Phase::Begun;
        let won = K::finish(finished?).map_err(|error| K::error(self.from, error))?;
        // As in a watch: the effect of closing does not depend on what the future waits in (D9).
        if self.gate.is_closed() {
            return Poll::Ready(Err(closed()));
        }
        Poll::Ready(Ok(Some(won)))
    }

    /// Begins to wait until no operation is in flight that others have left behind.
    #[cold]
    fn settle(&mut self, from: &Descriptor) {
        self.rarely = Some(Rarely::Settling(orphans_gone(from, K::DIRECTION)));
        self.phase = Phase::Rarely;
    }
}

impl<K> Taking<'_, K> {
    /// Whether the watch is over, for one that is not [at rest](Gate::rest).
    #[cold]
    fn poll_watch(&self, context: &Context<'_>) -> Poll<Result<()>> {
        let woken = self.gate.at_place(|parked| parked.poll_woken(context));
        match ready!(woken.unwrap_or(Poll::Ready(None))) {
            Some(cancelled) => Poll::Ready(Err(Error::cancelled(cancelled))),
            None => Poll::Ready(Ok(())),
        }
    }

    /// Takes back what the future is waiting in, and gives the gate back.
    #[inline]
    fn end(&mut self) {
        let phase = std::mem::replace(&mut self.phase, Phase::Ended);
        if phase != Phase::Begun && !self.give_up(phase) {
            return;
        }
        self.gate.clear_waiting();
        self.gate.give_back();
    }

    /// Takes back what it waits in, in this phase; returns whether the gate is ours.
    #[cold]
    fn give_up(&mut self, phase: Phase) -> bool {
        if matches!(phase, Phase::New | Phase::Ended) {
            return false;
        }
        match self.rarely.take() {
            Some(Rarely::Running(running)) => {
                running.abandon();
                self.gate.leave();
            }
            Some(Rarely::Settling(_)) => {}
            None => self.end_watch(),
        }
        true
    }

    /// Takes a watch back; after this its token is not reported.
    fn end_watch(&self) {
        if let Ok(from) = self.from.get() {
            let unwatch = |parked: &Parked| parked.with(|run| run.driver().unwatch(&from));
            self.gate.at_place(unwatch);
        }
        self.gate.leave();
    }
}

impl<K> Drop for Taking<'_, K> {
    #[inline]
    fn drop(&mut self) {
        if self.phase != Phase::Ended {
            self.end();
        }
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

impl fmt::Debug for AcceptConnection<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AcceptConnection")
    }
}
