//! Checkpoints: where a task can be cancelled, and where it lets others run.
//!
//! Every asynchronous operation of this library checks for a cancellation before it does anything,
//! whether or not it would have to wait (semantics C1, C5). It yields only when the task has used
//! up its budget for this turn (C1): a task whose operations never wait starves nobody, and no
//! operation pays for a turn of the loop.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use crate::cancel::Cancelled;
use crate::context;
use crate::error::{Error, Result};
use crate::run::Run;

/// How many operations a task may complete in one turn before it has to let others run.
pub(crate) const BUDGET: u32 = 128;

/// What every operation does first: reports a cancellation, or yields if the budget is used up.
#[inline]
pub(crate) fn enter_operation(context: &mut Context<'_>) -> Poll<Result<()>> {
    match context::with(|run| run.passes()) {
        true => Poll::Ready(Ok(())),
        false => stop(context).map_err(Error::cancelled),
    }
}

#[inline]
pub(crate) fn enter_operation_in(run: &Run, context: &Context<'_>) -> Poll<Result<()>> {
    if run.passes() {
        return Poll::Ready(Ok(()));
    }
    stop_at_operation(run, context).map_err(Error::cancelled)
}

/// The same as [`enter_operation`], but returns the bare cancellation. Not inlined, so that
/// operations that other crates instantiate find the run without a call for the address of a
/// thread-local.
pub(crate) fn pass(context: &Context<'_>) -> Poll<Result<(), Cancelled>> {
    // The slow path is outside the closure, so that the common result is a truth value in a
    // register.
    match context::with(|run| run.passes()) {
        true => Poll::Ready(Ok(())),
        false => stop(context),
    }
}

#[cold]
fn stop(context: &Context<'_>) -> Poll<Result<(), Cancelled>> {
    context::with(|run| stop_at_operation(run, context))
}

#[cold]
fn stop_at_operation(run: &Run, context: &Context<'_>) -> Poll<Result<(), Cancelled>> {
    let budget = run.budget.get();
    run.budget.set(budget.saturating_sub(1));
    if let Some(cancelled) = run.cancelled() {
        return Poll::Ready(Err(cancelled));
    }
    if budget == 0 {
        context.waker().wake_by_ref();
        return Poll::Pending;
    }
    Poll::Ready(Ok(()))
}

/// The cancellation that the current code has to report.
#[inline]
fn cancelled() -> Option<Cancelled> {
    if context::with(|run| run.is_calm()) {
        return None;
    }
    context::with(|run| run.cancelled())
}

/// Lets every other task run, then checks for a cancellation.
///
/// Always yields, and checks afterwards, so that a deadline that has just passed is seen (C6).
///
/// # Cancellation
///
/// A checkpoint, and nothing else.
///
/// # Errors
///
/// `Cancelled` only.
///
/// # Examples
///
/// ```
/// # use trio_runtime as trio;
/// # trio::run(async {
/// for n in 0..1_000_000 {
///     // A long computation lets others run now and then.
///     if n % 100_000 == 0 {
///         trio::checkpoint().await?;
///     }
/// }
/// # Ok::<(), trio::Error>(()) }).unwrap();
/// ```
#[doc(alias = "yield_now")]
pub fn checkpoint() -> Checkpoint {
    Checkpoint {
        yielded: false,
        look: true,
    }
}

/// The future of [`checkpoint`].
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Checkpoint {
    yielded: bool,
    look: bool,
}

impl Future for Checkpoint {
    type Output = Result<()>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        if !self.yielded {
            self.yielded = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        if !self.look {
            return Poll::Ready(Ok(()));
        }
        Poll::Ready(match cancelled() {
            Some(cancelled) => Err(Error::cancelled(cancelled)),
            None => Ok(()),
        })
    }
}

/// Checks for a cancellation, without letting other tasks run.
///
/// # Cancellation
///
/// A cancel point, but not a point where other tasks can run.
///
/// # Errors
///
/// `Cancelled` only.
pub fn checkpoint_if_cancelled() -> CheckpointIfCancelled {
    CheckpointIfCancelled { yielding: None }
}

/// The future of [`checkpoint_if_cancelled`].
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct CheckpointIfCancelled {
    yielding: Option<Checkpoint>,
}

impl Future for CheckpointIfCancelled {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        if self.yielding.is_none() {
            if !context::with(|run| run.is_cancelled()) {
                return Poll::Ready(Ok(()));
            }
            self.yielding = Some(checkpoint());
        }
        let checkpoint = self.yielding.as_mut().expect("just made");
        Pin::new(checkpoint).poll(context)
    }
}

/// Lets every other task run, without checking for a cancellation.
///
/// # Cancellation
///
/// None: this is no cancel point.
pub fn cancel_shielded_checkpoint() -> ShieldedCheckpoint {
    ShieldedCheckpoint(Checkpoint {
        yielded: false,
        look: false,
    })
}

/// The future of [`cancel_shielded_checkpoint`].
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct ShieldedCheckpoint(Checkpoint);

impl Future for ShieldedCheckpoint {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let result = ready!(Pin::new(&mut self.0).poll(context));
        debug_assert!(result.is_ok(), "a shielded checkpoint does not look");
        Poll::Ready(())
    }
}
