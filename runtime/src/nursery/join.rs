//! The handle of one child: its value, its state, and how it is cancelled alone.
//!
//! A join begins by letting a child go first that is about to be polled, and waits only if that has not
//! ended then. Until it waits it stands nowhere: dropped or forgotten it leaves a task that is polled once
//! for nothing, and in another task it begins to wait there. A wait is the usual one (`wait.rs`), to which
//! the child has the number as long as the join lives.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use crate::cancel::given;
use crate::checkpoint::enter_operation;
use crate::context;
use crate::error::{Error, Result};
use crate::task::{NodeRef, Output};
use crate::wait::Parked;

/// A handle to a child, from [`Nursery::spawn`](super::Nursery::spawn): to wait for its value, or
/// to cancel it alone.
///
/// Valid only inside the nursery. Dropping it gives up the value and nothing else: the child goes on
/// as before.
#[must_use = "without the handle the value is lost; `start_soon` is for children without one"]
pub struct JoinHandle<'scope, T> {
    output: Output<T>,
    scope: PhantomData<std::cell::Cell<&'scope ()>>,
}

impl<T> JoinHandle<'_, T> {
    pub(super) fn new(output: Output<T>) -> Self {
        Self {
            output,
            scope: PhantomData,
        }
    }

    /// Whether the child has ended.
    pub fn is_finished(&self) -> bool {
        self.output.node().is_done()
    }

    /// Whether the child is still running, and if not, how it ended.
    pub fn state(&self) -> ChildState {
        state(self.output.node())
    }

    /// Cancels this child and no other. If the child then ends with that cancellation, this is not an
    /// error and cancels nobody else; there is just no value. It may still end well, with a value.
    ///
    /// `reason` is for people who read the error; it may be empty. Does nothing if the child has
    /// ended.
    #[doc(alias = "abort")]
    #[track_caller]
    pub fn cancel(&self, reason: impl Into<Cow<'static, str>>) {
        let child = self.output.node();
        let Some(home) = child.home().filter(|_| !child.is_done()) else {
            return;
        };
        home.cancel_child(child, given(reason.into()), Location::caller());
    }

    /// Waits for the child to end, and returns its value.
    ///
    /// # Cancellation
    ///
    /// A checkpoint. `Cancelled` means that the value has not been taken; the child goes on.
    ///
    /// # Errors
    ///
    /// [`NoValue`] if there is none. The error of a child goes to its nursery, which it cancels; so
    /// a failure mostly appears here as `Cancelled`.
    pub fn join(&mut self) -> Join<'_, T> {
        Join {
            output: &self.output,
            ended: self.ended(),
        }
    }

    /// Waits for the child to end, and returns how it ended; the value is left to be
    /// [joined](Self::join).
    ///
    /// # Cancellation
    ///
    /// A checkpoint. The child goes on.
    ///
    /// # Errors
    ///
    /// `Cancelled` only.
    pub fn wait(&mut self) -> Ended<'_> {
        self.ended()
    }

    fn ended(&self) -> Ended<'_> {
        Ended {
            node: self.output.node(),
            stepped_back: false,
            parked: None,
        }
    }
}

impl<T> fmt::Debug for JoinHandle<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle")
            .field("state", &self.state())
            .finish()
    }
}

/// The state of a child; see [`JoinHandle::state`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ChildState {
    /// It has not ended.
    Running,
    /// It has ended well. Its value may have been taken.
    Finished,
    /// It has ended with an error or a panic, which went to its nursery: a cancellation of the
    /// nursery, too.
    Failed,
    /// It has ended with nothing but a cancellation meant for it alone: by [`JoinHandle::cancel`],
    /// or by a service nursery whose body had ended.
    Cancelled,
}

/// There is no value to be joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NoValue {
    /// The child has failed. Its error has gone to its nursery.
    Failed,
    /// The child was cancelled through its handle.
    Cancelled,
    /// The value has been taken by an earlier `join`.
    Taken,
}

impl fmt::Display for NoValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Failed => "the child has failed: its error went to its nursery",
            Self::Cancelled => "the child was cancelled and has no value",
            Self::Taken => "the value of the child has been taken already",
        })
    }
}

impl std::error::Error for NoValue {}

fn state(node: &NodeRef) -> ChildState {
    match (node.is_done(), node.is_failed(), node.is_cancelled()) {
        (false, ..) => ChildState::Running,
        (true, true, _) => ChildState::Failed,
        (true, _, true) => ChildState::Cancelled,
        _ => ChildState::Finished,
    }
}

/// The future of [`JoinHandle::wait`].
#[must_use = "futures do nothing unless polled"]
pub struct Ended<'a> {
    node: &'a NodeRef,
    /// The child has been let go first, which is done once.
    stepped_back: bool,
    parked: Option<Parked>,
}

impl Future for Ended<'_> {
    type Output = Result<ChildState>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<ChildState>> {
        ready!(self.poll_done(context))?;
        Poll::Ready(Ok(state(self.node)))
    }
}

impl Ended<'_> {
    /// Ready when the child has ended. Of many that are joined one after the other most have ended
    /// before they are asked for, and so have those that were let go first: that is inlined, and the
    /// rest called.
    #[inline]
    fn poll_done(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        if self.parked.is_none() {
            // Who has stepped back has passed here before, and success wins.
            if !(self.stepped_back && self.node.is_done()) {
                ready!(enter_operation(context))?;
            }
            if self.node.is_done() {
                return Poll::Ready(Ok(()));
            }
        }
        self.poll_waiting(context)
    }

    /// Lets the child go first, once: a child that is going to be polled before the joiner, if that
    /// yields, has mostly ended then, and nothing has to wait. `false` if the joiner has to.
    #[inline]
    fn step_back(&mut self, context: &Context<'_>) -> bool {
        if self.stepped_back {
            return false;
        }
        self.stepped_back = true;
        context::with(|run| {
            // With a waker of others it is theirs when the joiner is polled.
            if !run.current.owns(context.waker()) {
                return false;
            }
            run.current.with(|joiner| {
                let ahead = joiner.filter(|joiner| self.node.is_ahead_of(joiner));
                // What its waker would do, which would first have to find out on which thread it is.
                ahead.is_some_and(|joiner| {
                    joiner.schedule();
                    true
                })
            })
        })
    }

    #[inline(never)]
    fn poll_waiting(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        if self.parked.is_none() {
            if self.step_back(context) {
                return Poll::Pending;
            }
            let parked = Parked::new(context, "join");
            self.node.set_joiner(Some(parked.wait()));
            self.parked = Some(parked);
            return Poll::Pending;
        }
        if !self.node.is_done() {
            if let Some(cancelled) = ready!(Parked::poll_ended(&mut self.parked, context)) {
                self.node.set_joiner(None);
                return Poll::Ready(Err(Error::cancelled(cancelled)));
            }
        }
        self.parked = None;
        Poll::Ready(Ok(()))
    }
}

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        if self.parked.is_some() {
            self.node.set_joiner(None);
        }
    }
}

impl fmt::Debug for Ended<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ended")
    }
}

/// The future of [`JoinHandle::join`].
#[must_use = "futures do nothing unless polled"]
pub struct Join<'a, T> {
    output: &'a Output<T>,
    ended: Ended<'a>,
}

impl<T> Future for Join<'_, T> {
    type Output = Result<T>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        ready!(self.ended.poll_done(context))?;
        Poll::Ready(match self.output.take() {
            Some(value) => Ok(value),
            None => Err(missing(state(self.ended.node))),
        })
    }
}

/// Why there is no value. A child that failed has cancelled its nursery, and with it most who wait
/// for the child: they hear of that, so that one failure is not told as two.
#[cold]
fn missing(state: ChildState) -> Error {
    let why = match state {
        ChildState::Cancelled => return NoValue::Cancelled.into(),
        ChildState::Failed => NoValue::Failed,
        ChildState::Running | ChildState::Finished => NoValue::Taken,
    };
    let cancelled = context::with(|run| run.cancelled());
    cancelled.map_or_else(|| why.into(), Error::cancelled)
}

impl<T> fmt::Debug for Join<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Join")
    }
}
