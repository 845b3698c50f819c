//! Something that happens once, and wakes everyone who has waited for it.
//!
//! The flag is the event, and the list is who waits for it; a future borrows the event, so that the
//! event lives as long as anyone waits. Dropping a future takes it out of the list; one that is
//! forgotten is woken in vain.
//!
//! The list is one of those of channels, so that [`select`](crate::select) can choose a wait among
//! other operations: an event takes nothing and gives nothing, but it may be what came first.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::task::Waker;

use crate::cancel::Cancelled;
use crate::channel::operation::{Operation, future};
use crate::channel::waiters::{Claim, Place, Ticket, Waiters};
use crate::error::{Error, Result};

/// A flag that is raised once, and that tasks can wait for.
///
/// There is no way back: for something that happens again and again make a new event each time, or
/// use a [`Condition`](super::Condition), or a channel. For whatever comes first, the event or an
/// operation of a channel, [`select`](crate::select) takes the future of [`wait`](Self::wait).
///
/// # Examples
///
/// ```
/// # trio_runtime::run(async {
/// use trio_runtime::sync::Event;
///
/// let done = Event::new();
/// let done_ref = &done;
/// trio_runtime::open_nursery(async |nursery| {
///     nursery.start_soon(async move { done_ref.wait().await });
///     done.set();
///     Ok(())
/// })
/// .await?;
/// assert!(done.is_set());
/// # Ok::<(), trio_runtime::Error>(()) }).unwrap();
/// ```
pub struct Event {
    set: Cell<bool>,
    /// Each with whether it was the event that ended the wait.
    waiting: RefCell<Waiters<Ticket, bool>>,
}

/// What an [`Event`] looks like at a moment.
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
            waiting: RefCell::new(Waiters::new()),
        }
    }

    /// Whether it has happened.
    pub fn is_set(&self) -> bool {
        self.set.get()
    }

    /// Lets it happen, and wakes all who wait. Again changes nothing.
    pub fn set(&self) {
        self.set.set(true);
        let mut waiting = self.waiting.borrow_mut();
        while let Some((waiter, ())) = waiting.claim_first() {
            *waiting.payload(waiter) = true;
        }
    }

    /// Waits until it has happened. In which order those who wait are woken is not promised.
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
        EventWait::new(WaitOperation {
            event: self,
            key: None,
        })
    }

    /// How many wait.
    pub fn statistics(&self) -> EventStatistics {
        EventStatistics {
            tasks_waiting: self.waiting.borrow().len(),
        }
    }
}

impl Default for Event {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("set", &self.is_set())
            .field("tasks_waiting", &self.waiting.borrow().len())
            .finish()
    }
}

future! {
    /// The future of [`Event::wait`].
    pub EventWait<'a,> of WaitOperation<'a>, Result<()>
}

/// A wait for an event, as it is attempted and stands in the list.
struct WaitOperation<'a> {
    event: &'a Event,
    key: Option<u32>,
}

impl WaitOperation<'_> {
    /// Leaves the list, if it stands there; gives whether the event has ended the wait.
    fn leave(&mut self) -> bool {
        match self.key.take() {
            Some(key) => self.event.waiting.borrow_mut().remove(key).1,
            None => false,
        }
    }
}

impl Operation for WaitOperation<'_> {
    type Output = Result<()>;

    const WHAT: &'static str = "Event::wait";

    fn attempt(&mut self) -> Option<Self::Output> {
        self.leave();
        self.event.is_set().then_some(Ok(()))
    }

    fn enlist(&mut self, place: &Place<'_>) -> bool {
        let mut waiting = self.event.waiting.borrow_mut();
        self.key = Some(waiting.insert(Ticket::at(place), 0, false));
        true
    }

    fn withdraw(&mut self) -> Option<Self::Output> {
        self.leave().then_some(Ok(()))
    }

    fn refused(&mut self, cancelled: Cancelled) -> Self::Output {
        Err(Error::cancelled(cancelled))
    }

    fn abandon(&mut self) {
        self.leave();
    }

    fn is_settled(&mut self, _waker: &Waker) -> bool {
        let Some(key) = self.key else { return false };
        self.event.waiting.borrow().is_settled(key)
    }
}

impl Drop for WaitOperation<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}
