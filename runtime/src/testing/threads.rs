//! Waiting until no task waits for a thread.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use crate::checkpoint::enter_operation;
use crate::context;
use crate::error::{Error, Result};
use crate::wait::Parked;

/// How many calls of [`to_thread::run_sync`](crate::to_thread::run_sync) the tasks of this run wait
/// for. A call that has been abandoned is not counted, though its thread may still work.
///
/// # Panics
///
/// Outside of a run.
#[track_caller]
pub fn active_thread_count() -> usize {
    context::with(|run| run.threads.awaited())
}

/// Waits until no task of this run waits for a thread any more.
///
/// [`wait_all_tasks_blocked`](super::wait_all_tasks_blocked) counts a task that waits for a thread
/// as blocked, because threads are outside of the run; this is for tests that have to see the
/// thread's work done.
///
/// # Cancellation
///
/// A checkpoint.
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
/// use trio::testing::{active_thread_count, wait_all_threads_completed};
/// use trio::{open_nursery, to_thread};
///
/// open_nursery(async |nursery| {
///     nursery.start_soon(async { to_thread::run_sync(|| ()).await });
///     wait_all_threads_completed().await?;
///     assert_eq!(active_thread_count(), 0);
///     Ok(())
/// })
/// .await?;
/// # Ok::<(), trio::Error>(()) }).unwrap();
/// ```
pub fn wait_all_threads_completed() -> WaitAllThreadsCompleted {
    WaitAllThreadsCompleted { parked: None }
}

/// The future of [`wait_all_threads_completed`].
#[must_use = "futures do nothing unless polled"]
pub struct WaitAllThreadsCompleted {
    parked: Option<Parked>,
}

impl Future for WaitAllThreadsCompleted {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        loop {
            match self.parked.take() {
                None => {
                    ready!(enter_operation(context))?;
                    if active_thread_count() == 0 {
                        return Poll::Ready(Ok(()));
                    }
                    let parked = Parked::new(context, "wait_all_threads_completed");
                    context::with(|run| run.threads.watch(parked.wait()));
                    self.parked = Some(parked);
                    return Poll::Pending;
                }
                Some(parked) => match parked.poll_woken(context) {
                    Poll::Pending => {
                        self.parked = Some(parked);
                        return Poll::Pending;
                    }
                    Poll::Ready(Some(cancelled)) => {
                        context::with(|run| run.threads.unwatch(parked.wait()));
                        return Poll::Ready(Err(Error::cancelled(cancelled)));
                    }
                    // There were none for a moment, but by now there may be some again.
                    Poll::Ready(None) => {}
                },
            }
        }
    }
}

impl Drop for WaitAllThreadsCompleted {
    fn drop(&mut self) {
        if let Some(parked) = self.parked.take() {
            parked.with(|run| run.threads.unwatch(parked.wait()));
        }
    }
}

impl fmt::Debug for WaitAllThreadsCompleted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WaitAllThreadsCompleted")
    }
}
