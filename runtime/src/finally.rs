//! Cleaning up after a body, however it ended, without losing its error.

use std::future::Future;

use crate::error::Result;

/// Runs `body`, and then `cleanup`, however the body ended. Errors of both are kept.
///
/// The cleanup is subject to the cancellation of enclosing scopes, like any code. If it has to wait
/// for something, put that under a shield with a time limit of its own:
///
/// ```
/// # use trio_runtime as trio;
/// # trio::run(async {
/// use std::time::Duration;
/// use trio::{CancelScope, Error, finally, sleep};
///
/// async fn say_goodbye() -> Result<(), Error> {
///     sleep(Duration::from_millis(1)).await
/// }
///
/// let result: Result<(), Error> = finally(
///     async { Err(Error::msg("the connection was lost")) },
///     async {
///         let grace = CancelScope::with_timeout(Duration::from_secs(1)).shielded();
///         grace.enter(say_goodbye()).await?;
///         Ok(())
///     },
/// )
/// .await;
/// assert_eq!(result.unwrap_err().to_string(), "the connection was lost");
/// # });
/// ```
///
/// If this future is dropped, or the body panics, the cleanup is dropped with it: what must happen
/// even then belongs in a destructor.
///
/// # Cancellation
///
/// That of the body and of the cleanup. If both report a cancellation, it is reported once.
///
/// # Errors
///
/// The one error there is, as it is; or both in a group, the body's first.
pub async fn finally<T>(
    body: impl Future<Output = Result<T>>,
    cleanup: impl Future<Output = Result<()>>,
) -> Result<T> {
    let result = body.await;
    match (result, cleanup.await) {
        (Ok(value), Ok(())) => Ok(value),
        (Ok(_), Err(error)) | (Err(error), Ok(())) => Err(error),
        (Err(first), Err(second)) => Err(first.and(second)),
    }
}
