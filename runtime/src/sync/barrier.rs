//! A place where tasks wait until enough of them have arrived.
//!
//! Those who wait stand in the list; the last to arrive claims them all. One that is cancelled,
//! dropped or forgotten before then counts as not having arrived.

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::wait_list::{Leaving, Outcome, WaitList, Waiter};
use crate::checkpoint::enter_operation;
use crate::error::{Error, Result};

/// Holds tasks back until a given number of them have come, and then lets all of them pass; can be
/// used again and again.
///
/// # Examples
///
/// ```
/// # use trio_runtime as trio;
/// # trio::run(async {
/// use trio::sync::Barrier;
///
/// let barrier = Barrier::new(3);
/// let barrier_ref = &barrier;
/// trio::open_nursery(async |nursery| {
///     for _ in 0..3 {
///         nursery.start_soon(async move {
///             // Prepare …
///             let passed = barrier_ref.wait().await?;
///             if passed.is_leader() {
///                 // … and what one of them does for all.
///             }
///             Ok(())
///         });
///     }
///     Ok(())
/// })
/// .await
/// # }).unwrap();
/// ```
pub struct Barrier {
    parties: usize,
    /// How many entries the list has; more than there are waiting tasks, if some were cancelled.
    come: Cell<usize>,
    waiting: WaitList<()>,
}

/// A snapshot of a [`Barrier`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BarrierStatistics {
    /// How many must come.
    pub parties: usize,
    /// How many have come, and wait.
    pub tasks_waiting: usize,
}

/// The result of passing a [`Barrier`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarrierPassed {
    leader: bool,
}

impl BarrierPassed {
    /// Whether this task came last; among those that pass together, exactly one did.
    pub fn is_leader(&self) -> bool {
        self.leader
    }
}

impl Barrier {
    /// A barrier for `parties` tasks. With zero or one, nobody waits.
    pub const fn new(parties: usize) -> Self {
        Self {
            parties,
            come: Cell::new(0),
            waiting: WaitList::new(),
        }
    }

    /// Waits until enough tasks have come, this one included.
    ///
    /// # Cancellation
    ///
    /// A checkpoint. `Cancelled` means that this task does not count as having come, and another
    /// must.
    ///
    /// # Errors
    ///
    /// `Cancelled` only.
    ///
    /// # Panics
    ///
    /// When it is polled outside of a run.
    pub fn wait(&self) -> BarrierWait<'_> {
        BarrierWait {
            barrier: self,
            waiter: None,
        }
    }

    /// How many must come, and how many have.
    pub fn statistics(&self) -> BarrierStatistics {
        BarrierStatistics {
            parties: self.parties,
            tasks_waiting: self.waiting.waiting(),
        }
    }

    /// Whether one more task makes the barrier complete; if so, those who wait have passed.
    fn is_complete(&self) -> bool {
        // They are counted only if there may be enough, so that passing a barrier costs a constant
        // per task.
        if self.come.get() + 1 < self.parties || self.waiting.waiting() + 1 < self.parties {
            return false;
        }
        while self.waiting.claim_first(|()| ()).is_some() {
            self.come.set(self.come.get() - 1);
        }
        true
    }

    /// Notes that an entry which was not claimed is gone.
    fn leave(&self) {
        self.come.set(self.come.get() - 1);
    }
}

impl fmt::Debug for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Barrier")
            .field("parties", &self.parties)
            .field("tasks_waiting", &self.waiting.waiting())
            .finish()
    }
}

/// The future of [`Barrier::wait`].
#[must_use = "futures do nothing unless polled"]
pub struct BarrierWait<'a> {
    barrier: &'a Barrier,
    waiter: Option<Waiter>,
}

impl Future for BarrierWait<'_> {
    type Output = Result<BarrierPassed>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let barrier = this.barrier;
        if this.waiter.is_some() {
            match ready!(Waiter::poll(&mut this.waiter, &barrier.waiting, context)) {
                Outcome::Claimed(()) => {
                    return Poll::Ready(Ok(BarrierPassed { leader: false }));
                }
                Outcome::Cancelled(cancelled, ()) => {
                    barrier.leave();
                    return Poll::Ready(Err(Error::cancelled(cancelled)));
                }
                Outcome::Lapsed(()) => barrier.leave(),
                Outcome::Moved(..) => unreachable!("nobody moves who waits at a barrier"),
            }
        }
        ready!(enter_operation(context))?;
        if barrier.is_complete() {
            return Poll::Ready(Ok(BarrierPassed { leader: true }));
        }
        barrier.come.set(barrier.come.get() + 1);
        let (slot, waiting) = (&mut this.waiter, &barrier.waiting);
        Waiter::join(slot, waiting, context, "Barrier::wait", ());
        Poll::Pending
    }
}

impl Drop for BarrierWait<'_> {
    fn drop(&mut self) {
        if let Some(waiter) = self.waiter.take() {
            if let Leaving::Unclaimed(()) = waiter.leave(&self.barrier.waiting) {
                self.barrier.leave();
            }
        }
    }
}

impl fmt::Debug for BarrierWait<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BarrierWait")
    }
}
