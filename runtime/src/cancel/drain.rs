//! The gentle stage of a shutdown, as seen by the code that is being shut down.
//!
//! | | asks | code that does not look | ends with |
//! |-|------|-------------------------|-----------|
//! | [`CancelScope::drain`](crate::CancelScope::drain) | to finish, and begin nothing new | is not disturbed | the grace period |
//! | [`CancelScope::cancel`](crate::CancelScope::cancel) | to stop now | gets `Cancelled` from its next operation | the scope |
//! Code takes part in draining explicitly: with [`is_draining`] in the condition of a loop, or with
//! [`until_draining`] around an operation that waits for new work. Both respond to a cancellation
//! too, which includes the gentler request. Code that cleans up, under [`cleanup`], is always
//! draining.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;

use super::scope::{InScope, Source};
use crate::context;
use crate::error::Result;
use crate::time::sleep_forever;

/// Whether the caller has been asked to finish what it is doing and to begin nothing new: an
/// enclosing scope is being [drained](crate::CancelScope::drain), or has been cancelled.
///
/// # Panics
///
/// Outside of a run.
///
/// # Examples
///
/// ```
/// # use trio_runtime as trio;
/// # trio::run(async {
/// use std::time::Duration;
/// use trio::{CancelScope, checkpoint, is_draining};
///
/// let scope = CancelScope::new();
/// let rounds = scope.enter(async {
///     let mut rounds = 0;
///     while !is_draining() {
///         rounds += 1; // a round is never cut short
///         if rounds == 3 {
///             scope.drain(Duration::from_secs(10), "enough");
///         }
///         checkpoint().await?;
///     }
///     Ok(rounds)
/// });
/// assert_eq!(rounds.await?, Some(3));
/// # Ok::<(), trio::Error>(()) }).unwrap();
/// ```
#[track_caller]
pub fn is_draining() -> bool {
    context::with(|run| run.is_draining())
}

/// Runs `future` until it ends, or until an enclosing scope begins to
/// [drain](crate::CancelScope::drain): `None` if that came first.
///
/// Put it around each wait for new work, such as a connection or a request: a graceful shutdown takes
/// no more than that. The future is cancelled, not dropped: if its operation has happened all the
/// same, its value is returned, so that no accepted connection is lost.
///
/// # Cancellation
///
/// Not a checkpoint by itself. A cancellation of an enclosing scope passes through.
///
/// # Errors
///
/// What the future returned, without the cancellation that draining caused.
///
/// # Examples
///
/// ```
/// # use trio_runtime as trio;
/// # async fn accept() -> trio::Result<u32> { trio::sleep_forever().await.map(|()| 0) }
/// # async fn serve(_: u32) -> trio::Result<()> { Ok(()) }
/// # trio::run(async {
/// use std::time::Duration;
/// use trio::{open_nursery, until_draining};
///
/// open_nursery(async |nursery| {
///     nursery.cancel_scope().drain(Duration::from_secs(10), "shutting down");
///     while let Some(connection) = until_draining(accept()).await? {
///         nursery.start_soon(serve(connection));
///     }
///     Ok(()) // and the nursery waits for the connections
/// })
/// .await
/// # }).unwrap();
/// ```
pub fn until_draining<F: Future<Output = Result<T>>, T>(future: F) -> UntilDraining<F> {
    UntilDraining {
        inside: InScope::new(future, Source::Soft),
    }
}

/// Waits until an enclosing scope is being [drained](crate::CancelScope::drain).
///
/// # Cancellation
///
/// A checkpoint.
///
/// # Errors
///
/// `Cancelled` only.
pub async fn wait_draining() -> Result<()> {
    until_draining(sleep_forever()).await.map(drop)
}

/// Runs `future` even if the caller has been cancelled, for at most `grace`: `None` if that was too
/// short.
///
/// For what has to be sent or written before the end: under a shield, so that it works in a cancelled
/// scope at all, and bounded, so that it cannot hold up a shutdown for ever. Inside, [`is_draining`]
/// is true.
///
/// # Cancellation
///
/// Cancellations of enclosing scopes do not reach the future; the next checkpoint after the call
/// reports them.
///
/// # Errors
///
/// What the future returned, without the cancellation that the end of the grace period caused.
///
/// # Examples
///
/// ```
/// # use trio_runtime as trio;
/// # trio::run(async {
/// use std::time::Duration;
/// use trio::{CancelScope, cleanup, sleep, sleep_forever};
///
/// let scope = CancelScope::with_timeout(Duration::from_millis(1));
/// let mut said_goodbye = None;
/// scope
///     .enter(async {
///         let result = sleep_forever().await;
///         let goodbye = sleep(Duration::from_millis(1));
///         said_goodbye = cleanup(Duration::from_secs(5), goodbye).await?;
///         result
///     })
///     .await?;
/// assert!(said_goodbye.is_some());
/// # Ok::<(), trio::Error>(()) }).unwrap();
/// ```
#[track_caller]
pub fn cleanup<F: Future<Output = Result<T>>, T>(grace: Duration, future: F) -> super::MoveOn<F> {
    super::timeout::in_scope(future, Source::Cleanup(super::timeout::here(grace)))
}

pin_project! {
    /// The future of [`until_draining`].
    #[must_use = "futures do nothing unless polled"]
    pub struct UntilDraining<F> {
        #[pin]
        inside: InScope<F>,
    }
}

impl<F: Future<Output = Result<T>>, T> Future for UntilDraining<F> {
    type Output = Result<Option<T>>;

    #[inline]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let inside = self.project().inside;
        inside.poll(context, Some, |left, result| left.catch(result).0)
    }
}

impl<F> fmt::Debug for UntilDraining<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UntilDraining")
    }
}
