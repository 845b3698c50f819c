//! Futures of others, which know nothing of cancel scopes, as operations of this library.
//!
//! A scope that is cancelled asks the operations in it to end, and a future of another library is none:
//! it would wait on, and the scope with it. [`cancellable`] waits beside it.
//!
//! The future belongs to [`Cancellable`], and so is dropped with it; it is polled with the waker that it
//! is given, on the thread of the run, and may be woken from any. One that panics leaves the wait to be
//! taken out of its scope by the drop. A [`Cancellable`] that is forgotten holds its future for ever, and
//! no more than that.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;

use crate::checkpoint::enter_operation;
use crate::error::{Error, Result};
use crate::wait::Parked;

/// Waits for a future of another library, until that is ready or a scope around is cancelled.
///
/// For futures that do not need a runtime of their own, such as those of channels of other crates:
/// without this they never see that they have been cancelled, so that a timeout around one never ends.
/// What uses [`Result`] of this library through and through does not need it.
///
/// # Cancellation
///
/// A checkpoint. If it is cancelled, the future is dropped where it stands, and what that means its
/// library says: there is no other way to end it. A future that is ready goes first.
///
/// # Errors
///
/// `Cancelled` only: what the future says is in its output.
///
/// # Panics
///
/// Outside of a run; with the panic of the future.
///
/// # Examples
///
/// ```
/// # trio_runtime::run(async {
/// use std::time::Duration;
/// use trio_runtime::{lowlevel::cancellable, move_on_after};
///
/// let never = std::future::pending::<u8>(); // a receive of another library, say
/// let waited = move_on_after(Duration::from_millis(1), cancellable(never)).await?;
/// assert_eq!(waited, None);
/// # Ok::<(), trio_runtime::Error>(()) }).unwrap();
/// ```
pub fn cancellable<F: Future>(future: F) -> Cancellable<F> {
    Cancellable {
        future,
        parked: None,
    }
}

pin_project! {
    /// The future of [`cancellable`].
    #[must_use = "futures do nothing unless polled"]
    pub struct Cancellable<F> {
        #[pin]
        future: F,
        parked: Option<Parked>,
    }
}

impl<F: Future> Future for Cancellable<F> {
    type Output = Result<F::Output>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if this.parked.is_none() {
            ready!(enter_operation(context))?;
            // Before the first poll, in which code of others may cancel the scope: one waits only
            // where nothing has been cancelled yet.
            *this.parked = Some(Parked::new(context, "a future of another library"));
        }
        // Before the look at the scope: what has succeeded is not lost.
        if let Poll::Ready(output) = this.future.poll(context) {
            *this.parked = None;
            return Poll::Ready(Ok(output));
        }
        let parked = this.parked.as_ref().expect("it has just been set");
        let cancelled = ready!(parked.poll_woken(context));
        *this.parked = None;
        let cancelled = cancelled.expect("only a cancellation ends it");
        Poll::Ready(Err(Error::cancelled(cancelled)))
    }
}

impl<F> fmt::Debug for Cancellable<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cancellable")
    }
}
