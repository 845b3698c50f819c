//! A number of permits, taken and given back.
//!
//! | If                   | then                                                              |
//! |----------------------|-------------------------------------------------------------------|
//! | a permit is dropped  | it goes to the first in the queue, or back into the value         |
//! | a permit is forgotten, by `forget` or by a leak | it is missing until somebody releases one |
//! | a future is dropped after it was handed a permit | the permit goes to the next in the queue |
//!
//! 1. The value is above zero only if nobody who could be claimed waits.

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::mem::ManuallyDrop;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::wait_list::{Leaving, Outcome, WaitList, Waiter};
use crate::checkpoint::enter_operation;
use crate::error::{Error, Result, Usage, WouldBlock};

/// A number that acquiring decreases by one and releasing increases by one; acquiring waits while
/// it is zero.
///
/// To limit how many tasks do something at the same time, [`CapacityLimiter`](super::CapacityLimiter)
/// is the better choice: it knows who has what, and its limit can be changed. A semaphore belongs to
/// nobody: any code may [release](Self::release) it, as often as it likes, up to the maximum if there
/// is one.
///
/// # Examples
///
/// ```
/// # use trio_runtime as trio;
/// # trio::run(async {
/// use trio::sync::Semaphore;
///
/// let slots = Semaphore::new(2);
/// let one = slots.acquire().await?;
/// let two = slots.acquire().await?;
/// assert!(slots.try_acquire().is_err());
/// drop(one);
/// assert_eq!(slots.value(), 1);
/// # drop(two);
/// # Ok::<(), trio::Error>(()) }).unwrap();
/// ```
pub struct Semaphore {
    value: Cell<usize>,
    max: usize,
    queue: WaitList<()>,
}

/// A snapshot of a [`Semaphore`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SemaphoreStatistics {
    /// How often it can be acquired without waiting.
    pub value: usize,
    /// What the value may be at most, if that is bounded.
    pub max_value: Option<usize>,
    /// How many wait for it.
    pub tasks_waiting: usize,
}

impl Semaphore {
    /// A semaphore with this value, which may grow without bound.
    pub const fn new(initial: usize) -> Self {
        Self::with_max_value(initial, usize::MAX)
    }

    /// A semaphore with this value, which may grow to `max_value`.
    ///
    /// # Panics
    ///
    /// If `initial` is more than `max_value`.
    #[track_caller]
    pub const fn with_max_value(initial: usize, max_value: usize) -> Self {
        assert!(
            initial <= max_value,
            "the initial value of a semaphore is not more than its max_value"
        );
        Self {
            value: Cell::new(initial),
            max: max_value,
            queue: WaitList::new(),
        }
    }

    /// How often it can be acquired now without waiting.
    pub fn value(&self) -> usize {
        self.value.get()
    }

    /// What the value may be at most; `None` if there is no bound.
    pub fn max_value(&self) -> Option<usize> {
        Some(self.max).filter(|max| *max != usize::MAX)
    }

    /// Waits until the value is more than zero, and takes one from it.
    ///
    /// # Cancellation
    ///
    /// A checkpoint. `Cancelled` means that nothing was taken.
    ///
    /// # Errors
    ///
    /// `Cancelled` only.
    ///
    /// # Panics
    ///
    /// When it is polled outside of a run.
    pub fn acquire(&self) -> SemaphoreAcquire<'_> {
        SemaphoreAcquire {
            semaphore: self,
            waiter: None,
        }
    }

    /// Takes one from the value if it is more than zero.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`] if it is zero.
    #[doc(alias = "acquire_nowait")]
    pub fn try_acquire(&self) -> Result<SemaphorePermit<'_>, WouldBlock> {
        match self.take_one() {
            true => Ok(SemaphorePermit { semaphore: self }),
            false => Err(WouldBlock::new()),
        }
    }

    /// Adds one to the value, or hands it to whoever has waited longest; whether or not one was
    /// taken before.
    ///
    /// # Errors
    ///
    /// [`Usage`] if nobody waits and the value is at its maximum already; it stays there.
    pub fn release(&self) -> Result<()> {
        if self.put_back() {
            return Ok(());
        }
        let max = self.max;
        Err(Usage::new(format!(
            "a semaphore was released above its max_value of {max}: a permit that is dropped has \
             been released by that"
        ))
        .into())
    }

    /// The value, its bound, and how many wait.
    pub fn statistics(&self) -> SemaphoreStatistics {
        SemaphoreStatistics {
            value: self.value(),
            max_value: self.max_value(),
            tasks_waiting: self.queue.waiting(),
        }
    }

    #[inline]
    fn take_one(&self) -> bool {
        let value = self.value.get();
        if value > 0 {
            self.value.set(value - 1);
        }
        value > 0
    }

    /// Returns whether there was room.
    #[inline]
    fn put_back(&self) -> bool {
        if self.queue.claim_first(|()| ()).is_some() {
            return true;
        }
        let value = self.value.get();
        if value < self.max {
            self.value.set(value + 1);
        }
        value < self.max
    }
}

impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_struct("Semaphore");
        text.field("value", &self.value());
        if let Some(max) = self.max_value() {
            text.field("max_value", &max);
        }
        text.field("tasks_waiting", &self.queue.waiting()).finish()
    }
}

/// The future of [`Semaphore::acquire`].
#[must_use = "futures do nothing unless polled"]
pub struct SemaphoreAcquire<'a> {
    semaphore: &'a Semaphore,
    waiter: Option<Waiter>,
}

impl<'a> Future for SemaphoreAcquire<'a> {
    type Output = Result<SemaphorePermit<'a>>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let semaphore = this.semaphore;
        if this.waiter.is_some() {
            match ready!(Waiter::poll(&mut this.waiter, &semaphore.queue, context)) {
                Outcome::Claimed(()) => return Poll::Ready(Ok(SemaphorePermit { semaphore })),
                Outcome::Cancelled(cancelled, ()) => {
                    return Poll::Ready(Err(Error::cancelled(cancelled)));
                }
                Outcome::Lapsed(()) => {}
                Outcome::Moved(..) => unreachable!("nobody moves who waits for a semaphore"),
            }
        }
        ready!(enter_operation(context))?;
        if semaphore.take_one() {
            return Poll::Ready(Ok(SemaphorePermit { semaphore }));
        }
        let (slot, queue) = (&mut this.waiter, &semaphore.queue);
        Waiter::join(slot, queue, context, "Semaphore::acquire", ());
        Poll::Pending
    }
}

impl Drop for SemaphoreAcquire<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(waiter) = self.waiter.take() {
            if let Leaving::Claimed(()) = waiter.leave(&self.semaphore.queue) {
                self.semaphore.put_back();
            }
        }
    }
}

impl fmt::Debug for SemaphoreAcquire<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SemaphoreAcquire")
    }
}

/// A permit of a [`Semaphore`]; dropping it releases it.
///
/// If others have released the semaphore up to its maximum meanwhile, dropping it adds nothing.
#[must_use = "the semaphore is released when the permit is dropped"]
pub struct SemaphorePermit<'a> {
    semaphore: &'a Semaphore,
}

impl SemaphorePermit<'_> {
    /// Gives up the permit without releasing it; [`Semaphore::release`] can do that later.
    pub fn forget(self) {
        let _ = ManuallyDrop::new(self);
    }
}

impl Drop for SemaphorePermit<'_> {
    #[inline]
    fn drop(&mut self) {
        self.semaphore.put_back();
    }
}

impl fmt::Debug for SemaphorePermit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SemaphorePermit")
    }
}
