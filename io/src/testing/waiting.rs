//! How a stream that lives in memory waits for its other side.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Poll, Waker};

use trio_runtime::{Result, sleep_forever};

/// Those who wait until something has changed.
#[derive(Debug, Default)]
pub(super) struct Waiting(RefCell<Vec<Waker>>);

impl Waiting {
    /// Lets everybody look again.
    pub(super) fn wake(&self) {
        for waker in self.0.take() {
            waker.wake();
        }
    }

    /// Waits until `look` finds something. What it finds goes before a cancellation.
    pub(super) async fn until<T>(&self, mut look: impl FnMut() -> Option<T>) -> Result<T> {
        // What ends the wait when it is cancelled, and shows it in the task tree.
        let mut cancelled = pin!(sleep_forever());
        poll_fn(|context| {
            if let Some(found) = look() {
                return Poll::Ready(Ok(found));
            }
            let mut wakers = self.0.borrow_mut();
            if !wakers.iter().any(|waker| waker.will_wake(context.waker())) {
                wakers.push(context.waker().clone());
            }
            drop(wakers);
            match cancelled.as_mut().poll(context) {
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) => unreachable!("only a cancellation ends it"),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }
}
