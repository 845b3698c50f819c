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

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use trio_platform::{
    Descriptor, Direction, Finished, Key, Operation, Token, WeakDescriptor, cancelled, is_cancelled,
};

use crate::checkpoint::enter_operation;
use crate::context;
use crate::error::{Error, Result};
use crate::handle::Gate;
use crate::run::Run;
use crate::wait::Parked;

/// Runs `operation` on the driver of this run, and returns it when it has ended.
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
        state: State::New(operation.into()),
        gate: None,
    }
}

/// Like [`submit`], for a descriptor whose owner may close it meanwhile: closing `gate` ends the
/// operation, as one for which [`is_cancelled`] says yes, and not as `Cancelled`.
///
/// # Cancellation
///
/// As for [`submit`].
///
/// # Errors
///
/// As for [`submit`].
pub fn submit_in(operation: impl Into<Operation>, gate: &Gate) -> Submit<'_> {
    Submit {
        state: State::New(operation.into()),
        gate: Some(gate),
    }
}

/// The future of [`submit`].
#[must_use = "futures do nothing unless polled"]
pub struct Submit<'a> {
    state: State,
    gate: Option<&'a Gate>,
}

enum State {
    New(Operation),
    Running(Running),
    Ended,
}

/// An operation in flight, from the side of the future that waits for it.
pub(crate) struct Running {
    parked: Parked,
    key: Key,
}

impl Running {
    /// The wait of an operation whose future has passed its checkpoint. Foreign code may run before this
    /// returns; whatever depends on it is checked between this and [`begin`](Self::begin).
    pub(crate) fn park(run: &Rc<Run>, context: &Context<'_>, what: &'static str) -> Result<Parked> {
        let parked = Parked::in_run(run, context, what);
        match parked.overtaken() {
            None => Ok(parked),
            Some(cancelled) => Err(Error::cancelled(cancelled)),
        }
    }

    /// Submits `operation`.
    pub(crate) fn begin(parked: Parked, operation: Operation, gate: Option<&Gate>) -> Self {
        let run = parked.run();
        let token = Token(u64::from(parked.wait()));
        let key = run.driver().submit(operation, token);
        parked.on(key);
        if let Some(gate) = gate {
            gate.set_operating(run, parked.wait());
        }
        Self { parked, key }
    }

    /// Ready with `Cancelled`, or with what the operation has come to.
    pub(crate) fn poll(&self, context: &Context<'_>) -> Poll<Result<Finished>> {
        self.parked.refresh(context);
        let finished = self.parked.with(|run| run.driver().take(self.key));
        let Some(finished) = finished.flatten() else {
            return Poll::Pending;
        };
        match (&finished.result, self.parked.asked()) {
            (Err(error), Some(cancellation)) if is_cancelled(error) => {
                Poll::Ready(Err(Error::cancelled(cancellation)))
            }
            _ => Poll::Ready(Ok(finished)),
        }
    }

    /// Lets go of the operation, which may be in flight (D4).
    pub(crate) fn abandon(self) {
        if self.parked.with(|run| run.driver().abandon(self.key)) == Some(true) {
            self.parked.into_orphan();
        }
    }
}

impl Future for Submit<'_> {
    type Output = Result<Finished>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<Finished>> {
        if let State::Running(running) = &self.state {
            let result = ready!(running.poll(context));
            self.end();
            return Poll::Ready(result);
        }
        assert!(
            matches!(self.state, State::New(_)),
            "a future is not polled after its end"
        );
        ready!(enter_operation(context))?;
        let State::New(operation) = std::mem::replace(&mut self.state, State::Ended) else {
            unreachable!("it was looked at");
        };
        let parked = context::with(|run| Running::park(run, context, operation.name()))?;
        if self.gate.is_some_and(Gate::is_closed) {
            let result = Err(cancelled());
            return Poll::Ready(Ok(Finished { operation, result }));
        }
        self.state = State::Running(Running::begin(parked, operation, self.gate));
        Poll::Pending
    }
}

impl Submit<'_> {
    /// The state before.
    fn end(&mut self) -> State {
        if let Some(gate) = self.gate {
            gate.clear_waiting();
            gate.leave();
        }
        std::mem::replace(&mut self.state, State::Ended)
    }
}

impl Drop for Submit<'_> {
    fn drop(&mut self) {
        if let State::Running(_) = self.state {
            if let State::Running(running) = self.end() {
                running.abandon();
            }
        }
    }
}

impl fmt::Debug for Submit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.state {
            State::New(operation) => write!(f, "Submit({}, not begun)", operation.name()),
            State::Running(_) => f.write_str("Submit(in flight)"),
            State::Ended => f.write_str("Submit(ended)"),
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
