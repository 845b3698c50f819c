//! Service nurseries: helpers live until the body has ended.
//!
//! The children of such a nursery are put in a scope of their own inside that of the nursery, shielded
//! against everything around. So until the body has ended nothing cancels them, neither what cancels
//! the body nor the failure of one of them. When the body has ended, in whatever way, that scope is
//! cancelled, and takes the cancellations out of what the children return.

use std::future::Future;
use std::panic::Location;

use super::core::Open;
use super::{Nursery, drive};
use crate::error::Result;

/// Opens a nursery for helpers, which are needed for as long as `body` runs, and no longer.
///
/// It is like the nursery of [`open_nursery`](crate::open_nursery), except for when its children are
/// cancelled:
///
/// - When the body has ended, well or not, the children are cancelled and waited for. That
///   cancellation is not an error.
/// - Until then they are shielded, so a body that is cancelled can still use them to clean up.
/// - A helper that fails cancels the body; the other helpers are cancelled only when the body has
///   ended.
/// - A helper that is [started](Nursery::start) is shielded once it has reported; before, it is a
///   part of the call that starts it.
///
/// Cancelling the nursery's [scope](Nursery::cancel_scope) cancels the body.
///
/// # Cancellation
///
/// Waiting for the children is not a cancel point. Helpers that take long to clean up delay the end
/// of the call: limit that with [`cleanup`](crate::cleanup).
///
/// # Errors
///
/// A group of the errors of the body and of the helpers, in order of arrival.
///
/// # Panics
///
/// As [`open_nursery`](crate::open_nursery).
///
/// # Examples
///
/// ```
/// # use trio_runtime as trio;
/// # trio::run(async {
/// use std::cell::Cell;
/// use trio::{checkpoint, open_service_nursery};
///
/// let beats = Cell::new(0);
/// let beat = async || {
///     loop {
///         beats.set(beats.get() + 1);
///         checkpoint().await?;
///     }
/// };
/// open_service_nursery(async |helpers| {
///     helpers.start_soon(beat());
///     for _ in 0..10 {
///         checkpoint().await?;
///     }
///     Ok(()) // the heart stops here
/// })
/// .await?;
/// assert!(beats.get() >= 9);
/// # Ok::<(), trio::Error>(()) }).unwrap();
/// ```
#[doc(alias = "daemon")]
#[track_caller]
pub fn open_service_nursery<'env, F, T>(body: F) -> impl Future<Output = Result<T>>
where
    F: for<'scope> AsyncFnOnce(&'scope Nursery<'scope, 'env>) -> Result<T>,
    T: Default,
{
    let place = Location::caller();
    drive(move || Open::new(place).map(Open::into_service), body)
}
