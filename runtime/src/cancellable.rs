//! Turns futures of other libraries, which know nothing of cancel scopes, into operations of this
//! one.
//!
//! A scope that is cancelled asks the operations in it to end. A future of another library is not
//! such an operation: it would wait on, and the scope with it. [`cancellable`] waits for either of
//! the two.
//!
//! The future belongs to its [`Cancellable`], and is dropped with it. It is polled with the waker
//! that the caller passes, on the thread of the run, and may be woken from any thread. If it
//! panics, the drop removes the wait from its scope. A [`Cancellable`] that is forgotten keeps its
//! future for ever, and nothing else.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;

use crate::checkpoint::enter_operation;
use crate::error::{Error, Result};
use crate::wait::Parked;

/// Waits for a future of another library until it is ready or an enclosing scope is cancelled.
///
/// For futures that need no runtime of their own, such as those of other crates' channels. Without
/// this they never notice that they have been cancelled, so that a timeout around one never ends.
/// Futures made of this library's operations do not need it.
///
/// # Cancellation
///
/// A checkpoint. If cancelled, the future is dropped where it stands, because there is no other way
/// to end it; what that means is up to its library. If the future is ready, its output is returned
/// even though the scope has been cancelled.
///
/// # Errors
///
/// `Cancelled` only: errors of the future are in its output.
///
/// # Panics
///
/// Outside of a run; with the panic of the future.
///
/// # Examples
///
/// ```
/// # use trio_runtime as trio;
/// # trio::run(async {
/// use std::time::Duration;
/// use trio::{lowlevel::cancellable, move_on_after};
///
/// let never = std::future::pending::<u8>(); // a receive of another library, say
/// let waited = move_on_after(Duration::from_millis(1), cancellable(never)).await?;
/// assert_eq!(waited, None);
/// # Ok::<(), trio::Error>(()) }).unwrap();
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
            // Before the first poll, in which foreign code may cancel the scope: a wait may begin
            // only where nothing has been cancelled yet.
            *this.parked = Some(Parked::new(context, "a future of another library"));
        }
        // Before the check of the scope: what has succeeded is not lost.
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
