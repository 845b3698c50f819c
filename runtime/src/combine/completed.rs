//! The values of several futures, in the order in which they arrive.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::{Together, only_cancelled, plain, start};
use crate::cancel::{CancelSource, Cancelled};
use crate::checkpoint::enter_operation;
use crate::context;
use crate::error::{Error, Result};
use crate::nursery::{Nursery, open_nursery_at};
use crate::wait::Parked;

/// Runs `futures` concurrently with `body`, which takes their values as they come.
///
/// The futures go on while the body does something else. When the body has ended, futures that are
/// still running are cancelled and waited for; values that it has not taken are dropped.
///
/// # Cancellation
///
/// Not a cancel point by itself; [`Completed::next`] is one.
///
/// # Errors
///
/// A group of what went wrong in the futures and in the body, in order of arrival; one plain
/// `Cancelled` if nothing else did. The first failure of a future cancels the rest and the body.
///
/// # Examples
///
/// ```
/// # use trio_runtime as trio;
/// # trio::run(async {
/// use std::time::Duration;
/// use trio::{as_completed, sleep};
///
/// let naps = [3, 1, 2].map(async |ms| {
///     sleep(Duration::from_millis(10 * ms)).await?;
///     Ok(ms)
/// });
/// let order = as_completed(naps, async |values| {
///     let mut order = Vec::new();
///     while let Some(value) = values.next().await? {
///         order.push(value);
///     }
///     Ok(order)
/// })
/// .await?;
/// assert_eq!(order, [1, 2, 3]);
/// # Ok::<(), trio::Error>(()) }).unwrap();
/// ```
#[track_caller]
pub fn as_completed<I, F, T, B, R>(futures: I, body: B) -> impl Future<Output = Result<R>>
where
    I: IntoIterator<Item = F>,
    F: Future<Output = Result<T>>,
    B: for<'a> AsyncFnOnce(&'a mut Completed<'_, T>) -> Result<R>,
{
    let place = Location::caller();
    async move {
        let together = Together::default();
        let arrivals = Arrivals {
            values: RefCell::default(),
            running: Cell::new(0),
            broken: RefCell::default(),
            waiting: Cell::new(None),
        };
        let (together_ref, arrivals_ref) = (&together, &arrivals);
        let mut value = None;
        let value_ref = &mut value;
        let result = open_nursery_at(place, async |nursery: &Nursery<'_, '_>| {
            for future in futures {
                arrivals_ref.running.set(arrivals_ref.running.get() + 1);
                start(nursery, place, future, |output| {
                    let output = output.map_err(|error| together_ref.note(error));
                    arrivals_ref.arrive(output)
                });
            }
            let mut completed = Completed(arrivals_ref);
            *value_ref = Some(
                body(&mut completed)
                    .await
                    .map_err(|error| together_ref.note(error))?,
            );
            nursery.cancel_as(Cancelled::new(
                CancelSource::Nursery,
                Some("nobody takes further values".into()),
                None,
                None,
            ));
            Ok(())
        })
        .await;
        match (value, result) {
            (Some(value), Ok(())) => Ok(value),
            (Some(value), Err(error)) if error.is_cancelled() => Ok(value),
            (_, Err(error)) => Err(plain(error)),
            (None, Ok(())) => Err(together.missing("the body ended without a value")),
        }
    }
}

/// The values of the futures of [`as_completed`], as they arrive.
pub struct Completed<'a, T>(&'a Arrivals<T>);

impl<T> Completed<'_, T> {
    /// The next value, in the order in which the futures ended; `None` if there will be no more.
    ///
    /// # Cancellation
    ///
    /// A checkpoint. `Cancelled` means that no value was taken.
    ///
    /// # Errors
    ///
    /// `Cancelled` only: the failure of a future cancels the body, and comes out of
    /// [`as_completed`].
    #[expect(
        clippy::should_implement_trait,
        reason = "the name that streams have for it, and it returns a future"
    )]
    pub fn next(&mut self) -> NextCompleted<'_, T> {
        NextCompleted {
            arrivals: self.0,
            parked: None,
        }
    }

    /// The next value, if it is there already.
    pub fn try_next(&mut self) -> Option<T> {
        self.0.values.borrow_mut().pop_front()
    }

    /// How many values wait to be taken, and how many futures have not ended.
    pub fn size_hint(&self) -> (usize, usize) {
        (self.0.values.borrow().len(), self.0.running.get())
    }
}

impl<T> fmt::Debug for Completed<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (waiting, running) = self.size_hint();
        f.debug_struct("Completed")
            .field("waiting", &waiting)
            .field("running", &running)
            .finish()
    }
}

/// Shared by the futures and the body.
struct Arrivals<T> {
    values: RefCell<VecDeque<T>>,
    running: Cell<usize>,
    /// Returned to the body once a future has failed: to say that there are no more values would be
    /// a lie, and the cancellation from the nursery does not reach a body under a shield.
    broken: RefCell<Option<Cancelled>>,
    /// The wait of the body, if it waits.
    waiting: Cell<Option<u32>>,
}

impl<T> Arrivals<T> {
    fn arrive(&self, output: Result<T>) -> Result<()> {
        self.running.set(self.running.get() - 1);
        let arrived = output.map(|value| self.values.borrow_mut().push_back(value));
        if let Err(error) = &arrived {
            let reason = Some("another future has failed".into());
            let failed = || Cancelled::new(CancelSource::Nursery, reason, None, None);
            let cancelled = only_cancelled(error).unwrap_or_else(failed);
            self.broken.borrow_mut().get_or_insert(cancelled);
        }
        if let Some(wait) = self.waiting.take() {
            context::with(|run| run.finish_wait(wait));
        }
        arrived
    }
}

/// The future of [`Completed::next`].
#[must_use = "futures do nothing unless polled"]
pub struct NextCompleted<'a, T> {
    arrivals: &'a Arrivals<T>,
    parked: Option<Parked>,
}

impl<T> Future for NextCompleted<'_, T> {
    type Output = Result<Option<T>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        match &this.parked {
            None => ready!(enter_operation(context))?,
            Some(parked) => {
                let cancelled = ready!(parked.poll_woken(context));
                this.leave();
                // A cancel that came first has taken nothing: what is there stays for the next
                // call.
                if let Some(cancelled) = cancelled {
                    return Poll::Ready(Err(Error::cancelled(cancelled)));
                }
            }
        }
        if let Some(value) = this.arrivals.values.borrow_mut().pop_front() {
            return Poll::Ready(Ok(Some(value)));
        }
        if let Some(cancelled) = &*this.arrivals.broken.borrow() {
            return Poll::Ready(Err(Error::cancelled(cancelled.clone())));
        }
        if this.arrivals.running.get() == 0 {
            return Poll::Ready(Ok(None));
        }
        let parked = Parked::new(context, "as_completed");
        this.arrivals.waiting.set(Some(parked.wait()));
        this.parked = Some(parked);
        Poll::Pending
    }
}

impl<T> NextCompleted<'_, T> {
    fn leave(&mut self) {
        if self.parked.take().is_some() {
            self.arrivals.waiting.set(None);
        }
    }
}

impl<T> Drop for NextCompleted<'_, T> {
    fn drop(&mut self) {
        self.leave();
    }
}

impl<T> fmt::Debug for NextCompleted<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NextCompleted")
    }
}
