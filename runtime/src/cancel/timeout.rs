//! Scopes with nothing but a deadline: when it has passed, the caller goes on without the value, or
//! fails.

use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use trio_platform::Time;

use super::scope::{InScope, Source};
use super::{After, CancelSource, Cancelled, Left};
use crate::error::{Result, TooSlow};

/// Runs `future` for at most `timeout`: `Ok(None)` if it was too slow.
///
/// At the deadline the future is cancelled, not dropped: it may clean up, and if it ends with
/// anything other than the cancellation, that is returned. A future that is ready at once costs no
/// clock reading and sets no timer; time is counted from the end of the turn in which something in
/// it first waits.
///
/// # Cancellation
///
/// Not a checkpoint by itself; see [`CancelScope::enter`](crate::CancelScope::enter).
///
/// # Errors
///
/// What the future returned, without the cancellation that the deadline caused.
///
/// # Examples
///
/// ```
/// # use trio_runtime as trio;
/// # trio::run(async {
/// use std::time::Duration;
/// use trio::{move_on_after, sleep_forever};
///
/// let quick = move_on_after(Duration::from_secs(5), async { Ok(7) }).await?;
/// assert_eq!(quick, Some(7));
///
/// let slow = move_on_after(Duration::from_millis(1), sleep_forever()).await?;
/// assert!(slow.is_none());
/// # Ok::<(), trio::Error>(()) }).unwrap();
/// ```
///
/// The future has to return [`Result`], because a cancellation reaches it as an
/// [`Error`](crate::Error). If an operation has an error type of its own, as those of channels have,
/// or none at all, wrap it in an `async` block:
///
/// ```
/// # use trio_runtime as trio;
/// # trio::run(async {
/// # use std::time::Duration;
/// # use trio::{move_on_after, open_memory_channel};
/// let (_sender, receiver) = open_memory_channel::<u8>(1);
/// let received = move_on_after(Duration::from_millis(1), async { Ok(receiver.receive().await?) });
/// assert_eq!(received.await?, None);
/// # Ok::<(), trio::Error>(()) }).unwrap();
/// ```
#[doc(alias = "timeout")]
#[track_caller]
pub fn move_on_after<F: Future<Output = Result<T>>, T>(timeout: Duration, future: F) -> MoveOn<F> {
    MoveOn {
        inside: InScope::new(future, after(timeout)),
    }
}

/// Runs `future` until `deadline` at the latest; see [`move_on_after`].
///
/// # Cancellation
///
/// As for [`move_on_after`].
///
/// # Errors
///
/// As for [`move_on_after`].
#[doc(alias = "timeout_at")]
#[track_caller]
pub fn move_on_at<F: Future<Output = Result<T>>, T>(deadline: Time, future: F) -> MoveOn<F> {
    MoveOn {
        inside: InScope::new(future, at(deadline)),
    }
}

/// Runs `future` for at most `timeout`, and fails with [`TooSlow`] if that was not enough; see
/// [`move_on_after`] for which futures it takes.
///
/// # Cancellation
///
/// As for [`move_on_after`].
///
/// # Errors
///
/// [`TooSlow`] if the deadline passed and the future ended with nothing but that cancellation; else
/// what the future returned.
///
/// # Examples
///
/// ```
/// # use trio_runtime as trio;
/// # trio::run(async {
/// use std::time::Duration;
/// use trio::{TooSlow, fail_after, sleep_forever};
///
/// let error = fail_after(Duration::from_millis(1), sleep_forever()).await.unwrap_err();
/// assert!(error.is::<TooSlow>());
/// # Ok::<(), trio::Error>(()) }).unwrap();
/// ```
#[doc(alias = "timeout")]
#[track_caller]
pub fn fail_after<F: Future<Output = Result<T>>, T>(timeout: Duration, future: F) -> FailAfter<F> {
    FailAfter {
        inside: InScope::new(future, after(timeout)),
    }
}

/// Runs `future` until `deadline` at the latest, and fails with [`TooSlow`] if that was not enough;
/// see [`fail_after`].
///
/// # Cancellation
///
/// As for [`move_on_after`].
///
/// # Errors
///
/// As for [`fail_after`].
#[doc(alias = "timeout_at")]
#[track_caller]
pub fn fail_at<F: Future<Output = Result<T>>, T>(deadline: Time, future: F) -> FailAfter<F> {
    FailAfter {
        inside: InScope::new(future, at(deadline)),
    }
}

/// A future in a scope that nobody else knows about.
pub(super) fn in_scope<F>(future: F, source: Source) -> MoveOn<F> {
    MoveOn {
        inside: InScope::new(future, source),
    }
}

#[track_caller]
fn after(timeout: Duration) -> Source {
    Source::Timeout(here(timeout))
}

/// The timeout, and the place of the caller.
#[track_caller]
pub(super) fn here(timeout: Duration) -> After {
    let place = Location::caller();
    After { timeout, place }
}

#[track_caller]
fn at(deadline: Time) -> Source {
    Source::Deadline(deadline, Location::caller())
}

pin_project! {
    /// The future of [`move_on_after`] and [`move_on_at`].
    #[must_use = "futures do nothing unless polled"]
    pub struct MoveOn<F> {
        #[pin]
        inside: InScope<F>,
    }
}

impl<F: Future<Output = Result<T>>, T> Future for MoveOn<F> {
    type Output = Result<Option<T>>;

    #[inline]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let inside = self.project().inside;
        inside.poll(context, Some, |left, result| left.catch(result).0)
    }
}

impl<F> MoveOn<F> {
    /// Keeps cancellations of enclosing scopes from the future, so that only the deadline ends it: a
    /// limit for what has to be done in any case. See [`cleanup`](crate::cleanup).
    ///
    /// Has no effect once the future has been polled.
    pub fn shielded(mut self) -> Self {
        self.inside.shield();
        self
    }
}

impl<F> fmt::Debug for MoveOn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MoveOn")
    }
}

pin_project! {
    /// The future of [`fail_after`] and [`fail_at`].
    #[must_use = "futures do nothing unless polled"]
    pub struct FailAfter<F> {
        #[pin]
        inside: InScope<F>,
    }
}

impl<F: Future<Output = Result<T>>, T> Future for FailAfter<F> {
    type Output = Result<T>;

    #[inline]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let inside = self.project().inside;
        inside.poll(context, |value| value, in_time)
    }
}

/// Turns the result into a failure if it was the deadline that ended the future.
fn in_time<T>(left: Left, result: Result<T>) -> Result<T> {
    match left.catch(result) {
        (Ok(Some(value)), _) => Ok(value),
        (Ok(None), caught) => {
            let source = caught.as_ref().map(Cancelled::source);
            debug_assert_eq!(
                source,
                Some(CancelSource::Deadline),
                "nobody else has a handle"
            );
            Err(TooSlow::at(caught.and_then(|cancelled| cancelled.place())).into())
        }
        (Err(error), _) => Err(error),
    }
}

impl<F> FailAfter<F> {
    /// Keeps cancellations of enclosing scopes from the future, so that only the deadline ends it: a
    /// limit for what has to be done in any case. See [`cleanup`](crate::cleanup).
    ///
    /// Has no effect once the future has been polled.
    pub fn shielded(mut self) -> Self {
        self.inside.shield();
        self
    }
}

impl<F> fmt::Debug for FailAfter<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FailAfter")
    }
}
