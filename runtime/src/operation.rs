//! An operation of the driver, as a future that tasks of this library wait in.
//!
//! | The future is          | while the operation is in flight                                    |
//! |------------------------|---------------------------------------------------------------------|
//! | polled under a cancel  | the driver is asked once to end it; its completion decides (D1, D2)  |
//! | dropped                | it is abandoned: cancelled, its winnings stashed, and it counts      |
//! |                        | against the nursery of its task until it has ended (D4, D8)          |
//! | forgotten              | nothing, until its task ends: then it is cancelled, and counts       |
//! | polled by a combinator | whichever waker came with the last poll is called                    |
//! | in a task that panics  | dropped with it, as above                                            |

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use trio_platform::{
    Descriptor, Direction, Finished, Key, Operation, Token, WeakDescriptor, cancelled, is_cancelled,
};

use crate::checkpoint::enter_operation;
use crate::context;
use crate::error::{Error, Result};
use crate::wait::Parked;

/// Runs `operation` on the driver of this run, and gives it back when it has ended.
///
/// # Cancellation
///
/// A checkpoint. `Cancelled` means that the operation did not happen. If the kernel finished first,
/// its result is returned, and the next checkpoint reports.
///
/// # Errors
///
/// `Cancelled` only: what the kernel says is in [`Finished::result`].
pub fn submit(operation: impl Into<Operation>) -> Submit<'static> {
    Submit {
        operation: Some(operation.into()),
        running: None,
        gate: None,
    }
}

/// Like [`submit`], for a descriptor whose owner may close it meanwhile: closing `gate` ends the
/// operation, as one for which [`is_cancelled`] says yes, and not as `Cancelled`.
pub fn submit_in(operation: impl Into<Operation>, gate: &Gate) -> Submit<'_> {
    Submit {
        operation: Some(operation.into()),
        running: None,
        gate: Some(gate),
    }
}

/// By which the owner of a descriptor ends what waits in one direction of it.
#[derive(Debug, Default)]
pub struct Gate {
    closed: Cell<bool>,
    waiting: Cell<Option<Waiting>>,
}

/// What waits behind a gate.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Waiting {
    Operation(Key),
    Wait(u32),
}

impl Gate {
    /// Ends what waits, and whatever comes later before it begins. An operation that the kernel has
    /// finished all the same is finished.
    pub fn close(&self) {
        self.closed.set(true);
        match self.waiting.take() {
            Some(Waiting::Operation(key)) => context::with(|run| run.driver().cancel(key)),
            Some(Waiting::Wait(wait)) => context::with(|run| run.finish_wait(wait)),
            None => {}
        }
    }

    /// Whether [`close`](Self::close) has been called.
    pub fn is_closed(&self) -> bool {
        self.closed.get()
    }

    pub(crate) fn set_waiting(&self, waiting: Option<Waiting>) {
        self.waiting.set(waiting);
    }
}

/// The future of [`submit`].
#[must_use = "futures do nothing unless polled"]
pub struct Submit<'a> {
    operation: Option<Operation>,
    running: Option<Running>,
    gate: Option<&'a Gate>,
}

struct Running {
    parked: Parked,
    key: Key,
}

impl Future for Submit<'_> {
    type Output = Result<Finished>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<Finished>> {
        let this = &mut *self;
        let Some(running) = &this.running else {
            ready!(enter_operation(context))?;
            let operation = this
                .operation
                .take()
                .expect("a future is not polled after its end");
            if this.gate.is_some_and(Gate::is_closed) {
                let result = Err(cancelled());
                return Poll::Ready(Ok(Finished { operation, result }));
            }
            let parked = Parked::new(context, operation.name());
            let token = Token(u64::from(parked.wait()));
            let key = context::with(|run| run.driver().submit(operation, token));
            parked.on(key);
            if let Some(gate) = this.gate {
                gate.set_waiting(Some(Waiting::Operation(key)));
            }
            this.running = Some(Running { parked, key });
            return Poll::Pending;
        };
        running.parked.refresh(context);
        let finished = running
            .parked
            .with(|run| run.driver().take(running.key))
            .flatten();
        let Some(finished) = finished else {
            return Poll::Pending;
        };
        let asked = running.parked.asked();
        this.finish();
        match (&finished.result, asked) {
            (Err(error), Some(cancellation)) if is_cancelled(error) => {
                Poll::Ready(Err(Error::cancelled(cancellation)))
            }
            _ => Poll::Ready(Ok(finished)),
        }
    }
}

impl Submit<'_> {
    fn finish(&mut self) -> Option<Running> {
        if let Some(gate) = self.gate {
            gate.set_waiting(None);
        }
        self.running.take()
    }
}

impl Drop for Submit<'_> {
    fn drop(&mut self) {
        if let Some(Running { parked, key }) = self.finish() {
            if parked.with(|run| run.driver().abandon(key)) == Some(true) {
                parked.into_orphan();
            }
        }
    }
}

impl fmt::Debug for Submit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.operation {
            Some(operation) => write!(f, "Submit({}, not begun)", operation.name()),
            None => f.write_str("Submit(in flight or ended)"),
        }
    }
}

/// Waits until no abandoned operation of this direction is in flight on `descriptor`, so that what
/// they won is in its stash, and the next operation is in order.
///
/// # Cancellation
///
/// Not a checkpoint unless it has to wait; cancelling it changes nothing.
///
/// # Errors
///
/// `Cancelled` only.
pub fn orphans_gone(descriptor: &Descriptor, direction: Direction) -> OrphansGone {
    OrphansGone {
        descriptor: descriptor.downgrade(),
        direction,
        parked: None,
    }
}

/// The future of [`orphans_gone`].
#[must_use = "futures do nothing unless polled"]
pub struct OrphansGone {
    descriptor: WeakDescriptor,
    direction: Direction,
    parked: Option<Parked>,
}

impl Future for OrphansGone {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        loop {
            let descriptor = self.descriptor.upgrade();
            if descriptor.is_none_or(|descriptor| descriptor.orphans(self.direction) == 0) {
                return Poll::Ready(Ok(()));
            }
            match self.parked.take() {
                None => {
                    ready!(enter_operation(context))?;
                    let parked = Parked::new(context, "orphans_gone");
                    context::with(|run| run.watch_orphans(parked.wait()));
                    self.parked = Some(parked);
                    return Poll::Pending;
                }
                Some(parked) => match parked.poll_woken(context) {
                    Poll::Pending => {
                        self.parked = Some(parked);
                        return Poll::Pending;
                    }
                    Poll::Ready(Some(cancelled)) => {
                        context::with(|run| run.unwatch_orphans(parked.wait()));
                        return Poll::Ready(Err(Error::cancelled(cancelled)));
                    }
                    // An orphan has ended, perhaps not the one that is waited for.
                    Poll::Ready(None) => {}
                },
            }
        }
    }
}

impl Drop for OrphansGone {
    fn drop(&mut self) {
        if let Some(parked) = self.parked.take() {
            parked.with(|run| run.unwatch_orphans(parked.wait()));
        }
    }
}

impl fmt::Debug for OrphansGone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OrphansGone")
    }
}
