//! Something that happens once, and wakes everyone who has waited for it.
//!
//! The flag is the event, and the list holds the tasks that wait for it. A future borrows the
//! event, which therefore lives as long as anyone waits. Dropping a future takes it out of the
//! list; one that is forgotten is woken in vain.
//!
//! A future that [`select`](crate::select) chooses from keeps a wait of its own beside that of the
//! choice. This is harmless because an event takes nothing from anybody: the other futures see that
//! it has happened by looking.

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use super::wait_list::{Outcome, WaitList, Waiter};
use crate::channel::{Selectable, waiters::Place};
use crate::checkpoint::enter_operation;
use crate::error::{Error, Result};

/// A flag that is raised once, and that tasks can wait for.
///
/// It cannot be lowered again: for something that happens repeatedly, make a new event each time,
/// or use a [`Condition`](super::Condition) or a channel. To wait for an event or an operation of a
/// channel, whichever comes first, pass the future of [`wait`](Self::wait) to
/// [`select`](crate::select).
///
/// # Examples
///
/// ```
/// # use trio_runtime as trio;
/// # trio::run(async {
/// use trio::sync::Event;
///
/// let done = Event::new();
/// let done_ref = &done;
/// trio::open_nursery(async |nursery| {
///     nursery.start_soon(async move { done_ref.wait().await });
///     done.set();
///     Ok(())
/// })
/// .await?;
/// assert!(done.is_set());
/// # Ok::<(), trio::Error>(()) }).unwrap();
/// ```
#[derive(Default)]
pub struct Event {
    set: Cell<bool>,
    waiting: WaitList<()>,
}

/// A snapshot of an [`Event`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EventStatistics {
    /// How many wait for it.
    pub tasks_waiting: usize,
}

impl Event {
    /// An event that has not happened.
    pub const fn new() -> Self {
        Self {
            set: Cell::new(false),
            waiting: WaitList::new(),
        }
    }

    /// Whether it has happened.
    pub fn is_set(&self) -> bool {
        self.set.get()
    }

    /// Raises the flag, and wakes all tasks that wait. Does nothing the second time.
    pub fn set(&self) {
        self.set.set(true);
        while self.waiting.claim_first(|()| ()).is_some() {}
    }

    /// Waits until it has happened. The order in which waiting tasks are woken is unspecified.
    ///
    /// # Cancellation
    ///
    /// A checkpoint. `Cancelled` means that it had not happened when the cancel came.
    ///
    /// # Errors
    ///
    /// `Cancelled` only.
    ///
    /// # Panics
    ///
    /// When it is polled outside of a run.
    pub fn wait(&self) -> EventWait<'_> {
        EventWait {
            event: self,
            waiter: None,
        }
    }

    /// How many wait.
    pub fn statistics(&self) -> EventStatistics {
        EventStatistics {
            tasks_waiting: self.waiting.waiting(),
        }
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("set", &self.is_set())
            .field("tasks_waiting", &self.waiting.waiting())
            .finish()
    }
}

/// The future of [`Event::wait`].
#[must_use = "futures do nothing unless polled"]
pub struct EventWait<'a> {
    event: &'a Event,
    waiter: Option<Waiter>,
}

impl Future for EventWait<'_> {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let this = &mut *self;
        if this.waiter.is_some() {
            let waiting = &this.event.waiting;
            match ready!(Waiter::poll(&mut this.waiter, waiting, context)) {
                Outcome::Claimed(()) => return Poll::Ready(Ok(())),
                Outcome::Cancelled(cancelled, ()) => {
                    return Poll::Ready(Err(Error::cancelled(cancelled)));
                }
                Outcome::Lapsed(()) => {}
                Outcome::Moved(..) => unreachable!("nobody moves who waits for an event"),
            }
        }
        ready!(enter_operation(context))?;
        if this.event.is_set() {
            return Poll::Ready(Ok(()));
        }
        let waiting = &this.event.waiting;
        Waiter::join(&mut this.waiter, waiting, context, "Event::wait", ());
        Poll::Pending
    }
}

/// As one of several that [`select`](crate::select) chooses from: anything else that comes in the
/// same turn takes precedence.
impl Selectable for EventWait<'_> {
    type Output = Result<()>;

    const REMOTE: bool = false;

    fn attempt(&mut self) -> Option<Result<()>> {
        self.event.is_set().then_some(Ok(()))
    }

    fn enlist(&mut self, place: &Place<'_>) -> bool {
        // A new wait each time: an event keeps no order that could be lost.
        self.abandon();
        let context = Context::from_waker(place.waker());
        let waiting = &self.event.waiting;
        Waiter::join(&mut self.waiter, waiting, &context, "Event::wait", ());
        true
    }

    fn withdraw(&mut self) -> Option<Result<()>> {
        None
    }

    fn abandon(&mut self) {
        if let Some(waiter) = self.waiter.take() {
            drop(waiter.leave(&self.event.waiting));
        }
    }

    fn is_settled(&mut self, waker: &Waker) -> bool {
        if let Some(waiter) = &self.waiter {
            waiter.refresh(&Context::from_waker(waker));
        }
        self.event.is_set()
    }
}

impl Drop for EventWait<'_> {
    fn drop(&mut self) {
        if let Some(waiter) = self.waiter.take() {
            drop(waiter.leave(&self.event.waiting));
        }
    }
}

impl fmt::Debug for EventWait<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EventWait")
    }
}
