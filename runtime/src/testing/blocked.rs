//! Waiting until every other task is blocked.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use crate::checkpoint::enter_operation;
use crate::context;
use crate::error::{Error, Result};
use crate::wait::Parked;

/// Waits until every other task has been blocked for at least `cushion`, in real time.
///
/// With a cushion of zero this returns as soon as no other task can run, so that a test can be sure
/// that the others have reached the places where they wait. Tasks that wait for the outside world
/// count as blocked.
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
/// use std::time::Duration;
/// use trio::testing::wait_all_tasks_blocked;
/// use trio::open_nursery;
/// use trio::sync::Event;
///
/// let event = Event::new();
/// open_nursery(async |nursery| {
///     nursery.start_soon(async { event.wait().await });
///     wait_all_tasks_blocked(Duration::ZERO).await?;
///     assert_eq!(event.statistics().tasks_waiting, 1);
///     event.set();
///     Ok(())
/// })
/// .await
/// # }).unwrap();
/// ```
pub fn wait_all_tasks_blocked(cushion: Duration) -> WaitAllTasksBlocked {
    WaitAllTasksBlocked {
        cushion,
        parked: None,
    }
}

/// The future of [`wait_all_tasks_blocked`].
#[must_use = "futures do nothing unless polled"]
pub struct WaitAllTasksBlocked {
    cushion: Duration,
    parked: Option<Parked>,
}

impl Future for WaitAllTasksBlocked {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        match &self.parked {
            None => {
                ready!(enter_operation(context))?;
                let parked = Parked::new(context, "wait_all_tasks_blocked");
                context::with(|run| run.watch_idle(self.cushion, parked.wait()));
                self.parked = Some(parked);
                Poll::Pending
            }
            Some(parked) => {
                let cancelled = ready!(parked.poll_woken(context));
                context::with(|run| run.unwatch_idle(parked.wait()));
                self.parked = None;
                Poll::Ready(cancelled.map_or(Ok(()), |it| Err(Error::cancelled(it))))
            }
        }
    }
}

impl Drop for WaitAllTasksBlocked {
    fn drop(&mut self) {
        if let Some(parked) = &self.parked {
            parked.with(|run| run.unwatch_idle(parked.wait()));
        }
    }
}

impl fmt::Debug for WaitAllTasksBlocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WaitAllTasksBlocked")
    }
}
