//! Timeouts that count from the last progress, not from the beginning.

use std::time::Duration;

use super::CancelScope;
use crate::error::{Result, TooSlow};

/// Runs the future that `f` returns for as long as it makes progress, and fails with [`TooSlow`]
/// once it has made none for `timeout`.
///
/// A download may take an hour as long as something arrives every few seconds: that is what this
/// limits, where [`fail_after`](crate::fail_after) limits the whole. The code says that it has made
/// progress by [`Progress::made`].
///
/// # Cancellation
///
/// Not a checkpoint by itself; see [`CancelScope::enter`](crate::CancelScope::enter).
///
/// # Errors
///
/// [`TooSlow`] if no progress was made for that long and the future ended with nothing but that
/// cancellation; it says where progress was last made. Otherwise what the future returned.
///
/// # Examples
///
/// ```
/// # use trio_runtime as trio;
/// # trio::run(async {
/// use std::time::Duration;
/// use trio::{TooSlow, fail_if_idle, sleep, sleep_forever};
///
/// let error = fail_if_idle(Duration::from_millis(50), async |progress| {
///     for _ in 0..10 {
///         sleep(Duration::from_millis(10)).await?; // 100 ms in all
///         progress.made();
///     }
///     sleep_forever().await // from here on nothing moves
/// })
/// .await
/// .unwrap_err();
/// assert!(error.is::<TooSlow>());
/// # });
/// ```
#[track_caller]
pub fn fail_if_idle<F, T>(timeout: Duration, f: F) -> impl Future<Output = Result<T>>
where
    F: AsyncFnOnce(Progress) -> Result<T>,
{
    let progress = Progress::new(timeout);
    async move {
        let scope = progress.scope.clone();
        let ended = scope.enter(f(progress)).await?;
        ended.ok_or_else(|| {
            let cancelled = scope.cancellation();
            TooSlow::at(cancelled.and_then(|cancelled| cancelled.place())).into()
        })
    }
}

/// Runs the future that `f` returns for as long as it makes progress: `Ok(None)` once it has made
/// none for `timeout`; see [`fail_if_idle`].
///
/// # Cancellation
///
/// As for [`fail_if_idle`].
///
/// # Errors
///
/// What the future returned, without the cancellation that the lack of progress caused.
#[track_caller]
pub fn move_on_if_idle<F, T>(timeout: Duration, f: F) -> impl Future<Output = Result<Option<T>>>
where
    F: AsyncFnOnce(Progress) -> Result<T>,
{
    let progress = Progress::new(timeout);
    async move {
        let scope = progress.scope.clone();
        scope.enter(f(progress)).await
    }
}

/// How code under [`fail_if_idle`] or [`move_on_if_idle`] says that it makes progress.
#[derive(Clone, Debug)]
pub struct Progress {
    scope: CancelScope,
    timeout: Duration,
}

impl Progress {
    /// A scope whose deadline names the caller as the place of the last progress, until there is
    /// some.
    #[track_caller]
    fn new(timeout: Duration) -> Self {
        let scope = CancelScope::with_timeout(timeout);
        Self { scope, timeout }
    }

    /// Restarts the timeout from now. Costs a reading of the clock and moving a deadline. Has no
    /// effect once the timeout has expired.
    #[track_caller]
    pub fn made(&self) {
        self.scope.set_timeout(self.timeout);
    }

    /// Like [`made`](Self::made), with another timeout from now on.
    #[track_caller]
    pub fn made_and_allow(&mut self, timeout: Duration) {
        self.timeout = timeout;
        self.made();
    }
}
