//! Waiting for the value of one child.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use crate::checkpoint::enter_operation;
use crate::context;
use crate::error::{Error, Result, Usage};
use crate::task::Output;
use crate::wait::Parked;

/// The right to the value of a child, from [`Nursery::spawn`](super::Nursery::spawn).
///
/// Valid inside the nursery only. Dropping it gives up the value; the child goes on.
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

    /// Waits for the child to end, and returns its value.
    ///
    /// # Cancellation
    ///
    /// A checkpoint. `Cancelled` means that the value has not been taken; the child goes on.
    ///
    /// # Errors
    ///
    /// [`Usage`] if the child has failed, or if its value has been taken: the error of a child goes
    /// to its nursery, which is cancelled by it, so that this is mostly seen as `Cancelled`.
    pub fn join(&mut self) -> Join<'_, T> {
        Join {
            output: &self.output,
            parked: None,
        }
    }
}

impl<T> fmt::Debug for JoinHandle<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle")
            .field("finished", &self.is_finished())
            .finish()
    }
}

/// The future of [`JoinHandle::join`].
#[must_use = "futures do nothing unless polled"]
pub struct Join<'a, T> {
    output: &'a Output<T>,
    parked: Option<Parked>,
}

impl<T> Future for Join<'_, T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        let this = &mut *self;
        let node = this.output.node();
        if let Some(parked) = &this.parked {
            if !node.is_done() {
                if let Some(cancelled) = ready!(parked.poll_woken(context)) {
                    node.set_joiner(None);
                    this.parked = None;
                    return Poll::Ready(Err(Error::cancelled(cancelled)));
                }
            }
        } else {
            ready!(enter_operation(context))?;
            if !node.is_done() {
                let parked = Parked::new(context, "join");
                node.set_joiner(Some(parked.wait()));
                this.parked = Some(parked);
                return Poll::Pending;
            }
        }
        this.parked = None;
        Poll::Ready(this.output.take().ok_or_else(missing))
    }
}

/// Why there is no value. A child that failed has cancelled its nursery, and with it most who wait
/// for the child: they hear of that, so that one failure is not told as two.
fn missing() -> Error {
    let cancelled = context::with(|run| run.cancelled());
    match cancelled {
        Some(cancelled) => Error::cancelled(cancelled),
        None => Usage::new(
            "the child has failed, or its value has been taken: the error of a child goes to its \
             nursery",
        )
        .into(),
    }
}

impl<T> Drop for Join<'_, T> {
    fn drop(&mut self) {
        if self.parked.is_some() {
            self.output.node().set_joiner(None);
        }
    }
}

impl<T> fmt::Debug for Join<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Join")
    }
}
