//! Waiting, with a lock released meanwhile, until another task says that something has changed.
//!
//! Each waiting task stands in the list of the condition. A notification moves its entry to the end
//! of the queue of the lock, without waking anyone; the lock then reaches it as it reaches
//! everybody in that queue. The future keeps the guard, which has no lock meanwhile.
//!
//! | If the future is | it                                                                    |
//! |------------------|-----------------------------------------------------------------------|
//! | cancelled while it waits for a notification | takes the lock again, in spite of the cancel, and returns `Cancelled` |
//! | cancelled after it was notified | waits for the lock nevertheless, and returns `Ok`: the notification counts |
//! | dropped          | leaves a guard that has no lock; if it was notified, it passes that on     |
//! | forgotten        | leaves such a guard too; a notification that comes while its task lives is lost |
//! | taken to another task | may return without having been notified                           |

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::lock::{LockGuard, LockStatistics, Place, RawLock};
use super::wait_list::{Leaving, Outcome, WaitList, Waiter};
use crate::cancel::Cancelled;
use crate::checkpoint::enter_operation;
use crate::error::{Error, Result};

/// Lets tasks wait for a change of what a [`Lock`](super::Lock) guards.
///
/// One lock may have several conditions, as in a queue that is sometimes full and sometimes empty.
/// A condition belongs to the lock of the tasks that wait on it.
///
/// # Examples
///
/// ```
/// # use trio_runtime as trio;
/// # trio::run(async {
/// use trio::sync::{Condition, Lock};
///
/// let (items, changed) = (Lock::new(Vec::new()), Condition::new());
/// let (items, changed) = (&items, &changed);
/// trio::open_nursery(async |nursery| {
///     nursery.start_soon(async move {
///         let mut items = items.acquire().await?;
///         changed.wait_for(&mut items, |items| items.len() >= 2).await?;
///         assert_eq!(*items, ["one", "two"]);
///         Ok(())
///     });
///     for item in ["one", "two"] {
///         let mut items = items.acquire().await?;
///         items.push(item);
///         changed.notify_one(&items);
///     }
///     Ok(())
/// })
/// .await
/// # }).unwrap();
/// ```
#[doc(alias = "Condvar")]
#[doc(alias = "Notify")]
#[derive(Default)]
pub struct Condition {
    waiting: WaitList<Sleeping>,
    /// The address of the lock that the waiting tasks have released.
    lock: Cell<usize>,
}

/// A task that waits on a condition.
struct Sleeping {
    /// Where the wait began; becomes the owner's place when the lock is handed over.
    place: Place,
    /// Its entry in the queue of the lock, once it has been notified.
    key: u32,
}

/// A snapshot of a [`Condition`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConditionStatistics {
    /// How many wait to be notified.
    pub tasks_waiting: usize,
    /// The state of the lock.
    pub lock_statistics: LockStatistics,
}

impl Condition {
    /// A condition, which belongs to no lock until a task waits on it.
    pub const fn new() -> Self {
        Self {
            waiting: WaitList::new(),
            lock: Cell::new(0),
        }
    }

    /// Releases the lock, waits until notified, and takes the lock again.
    ///
    /// Nothing happens between the release and the wait, so no notification is missed. When this
    /// returns, the lock is held; but another task may have had the lock in between, and undone
    /// what was waited for, so check again, as [`wait_for`](Self::wait_for) does.
    ///
    /// # Cancellation
    ///
    /// A checkpoint. `Cancelled` means that there was no notification. The lock is held again even
    /// then, so a cancelled wait may take a while to return: taking the lock is shielded. If the
    /// cancel comes after the notification, this returns `Ok`.
    ///
    /// # Errors
    ///
    /// `Cancelled` only.
    ///
    /// # Panics
    ///
    /// If others wait on this condition with another lock. When it is polled outside of a run.
    ///
    /// A combinator that drops this future half-way leaves a guard that has no lock, and that
    /// panics when its value is touched.
    #[track_caller]
    pub fn wait<'c, 'g, 'a, T: ?Sized>(
        &'c self,
        guard: &'g mut LockGuard<'a, T>,
    ) -> ConditionWait<'c, 'g, 'a, T> {
        ConditionWait {
            condition: self,
            guard,
            place: Location::caller(),
            state: State::Begin,
        }
    }

    /// Waits until `is_so` returns `true` for the value, with the lock held. Does not wait if it
    /// does so at once.
    ///
    /// # Cancellation
    ///
    /// A checkpoint. `Cancelled` means that `is_so` returned `false` when last asked. The lock is
    /// held again in any case, as with [`wait`](Self::wait).
    ///
    /// # Errors
    ///
    /// `Cancelled` only.
    ///
    /// # Panics
    ///
    /// As [`wait`](Self::wait).
    #[doc(alias = "wait_while")]
    pub async fn wait_for<T: ?Sized>(
        &self,
        guard: &mut LockGuard<'_, T>,
        mut is_so: impl FnMut(&mut T) -> bool,
    ) -> Result<()> {
        std::future::poll_fn(enter_operation).await?;
        while !is_so(guard) {
            self.wait(guard).await?;
        }
        Ok(())
    }

    /// Notifies the task that has waited longest.
    ///
    /// # Panics
    ///
    /// As [`notify`](Self::notify).
    pub fn notify_one<T: ?Sized>(&self, guard: &LockGuard<'_, T>) {
        self.notify(guard, 1);
    }

    /// Notifies the `count` tasks that have waited longest, or all if there are fewer. They join
    /// the queue for the lock, in order, behind those already in it.
    ///
    /// The guard proves that the lock is held; otherwise a change could be missed.
    ///
    /// # Panics
    ///
    /// If the guard is not that of the lock that the waiting tasks have released, or has no lock.
    pub fn notify<T: ?Sized>(&self, guard: &LockGuard<'_, T>, count: usize) {
        let raw = guard.held();
        self.check(raw);
        for _ in 0..count {
            if !self.notify_next(raw) {
                return;
            }
        }
    }

    /// Notifies all who wait now.
    ///
    /// # Panics
    ///
    /// As [`notify`](Self::notify).
    #[doc(alias = "notify_waiters")]
    pub fn notify_all<T: ?Sized>(&self, guard: &LockGuard<'_, T>) {
        self.notify(guard, usize::MAX);
    }

    /// How many tasks wait to be notified, and the state of the lock of `guard`.
    pub fn statistics<T: ?Sized>(&self, guard: &LockGuard<'_, T>) -> ConditionStatistics {
        ConditionStatistics {
            tasks_waiting: self.waiting.waiting(),
            lock_statistics: guard.lock.statistics(),
        }
    }

    fn notify_next(&self, raw: &RawLock) -> bool {
        let moved = self.waiting.move_first(|wait, sleeping| {
            // From here on it counts as notified, and a cancel does not undo that.
            wait.shield();
            sleeping.key = raw.queue.push(wait, sleeping.place);
        });
        moved.is_some()
    }

    fn check(&self, raw: &RawLock) {
        let address = std::ptr::from_ref(raw).addr();
        assert!(
            self.lock.get() == address || !self.waiting.has_waiting(),
            "a condition belongs to one lock: others wait on it with another"
        );
        self.lock.set(address);
    }
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Condition")
            .field("tasks_waiting", &self.waiting.waiting())
            .finish()
    }
}

/// The future of [`Condition::wait`].
#[must_use = "futures do nothing unless polled"]
pub struct ConditionWait<'c, 'g, 'a, T: ?Sized> {
    condition: &'c Condition,
    guard: &'g mut LockGuard<'a, T>,
    place: Place,
    state: State,
}

enum State {
    Begin,
    /// The lock has been released.
    Sleeping(Option<Waiter>),
    /// In the queue for the lock, with the cancellation to report once it is held.
    Locking(Option<Waiter>, Option<Cancelled>),
    Ended,
}

impl<T: ?Sized> Future for ConditionWait<'_, '_, '_, T> {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let this = &mut *self;
        let raw = &this.guard.lock.raw;
        loop {
            match &mut this.state {
                State::Begin => {
                    ready!(enter_operation(context))?;
                    this.condition.check(this.guard.held());
                    let sleeping = Sleeping {
                        place: this.place,
                        key: 0,
                    };
                    let waiting = &this.condition.waiting;
                    let waiter = Waiter::stand(waiting, "Condition::wait", sleeping);
                    this.guard.put_aside();
                    this.state = State::Sleeping(Some(waiter));
                    if let State::Sleeping(Some(waiter)) = &this.state {
                        waiter.follow(context);
                    }
                    return Poll::Pending;
                }
                State::Sleeping(waiter) => {
                    let waiting = &this.condition.waiting;
                    let outcome = ready!(Waiter::poll(waiter, waiting, context));
                    this.state = match outcome {
                        Outcome::Moved(waiter, Sleeping { key, .. }) => {
                            State::Locking(Some(waiter.at(key)), None)
                        }
                        Outcome::Cancelled(cancelled, _) => State::Locking(None, Some(cancelled)),
                        // It may have missed a notification: better to return once too often than
                        // never.
                        Outcome::Lapsed(_) => State::Locking(None, None),
                        Outcome::Claimed(_) => unreachable!("a notification moves the entry"),
                    };
                }
                State::Locking(waiter, cancelled) => {
                    ready!(raw.poll_acquire_shielded(waiter, context, this.place));
                    let cancelled = cancelled.take();
                    this.state = State::Ended;
                    this.guard.take_back();
                    let result = cancelled.map_or(Ok(()), |it| Err(Error::cancelled(it)));
                    return Poll::Ready(result);
                }
                State::Ended => panic!("a future is not polled after its end"),
            }
        }
    }
}

impl<T: ?Sized> Drop for ConditionWait<'_, '_, '_, T> {
    fn drop(&mut self) {
        let raw = &self.guard.lock.raw;
        let (waiter, notified) = match std::mem::replace(&mut self.state, State::Ended) {
            State::Sleeping(Some(waiter)) => match waiter.leave(&self.condition.waiting) {
                Leaving::Moved(waiter, Sleeping { key, .. }) => (Some(waiter.at(key)), true),
                Leaving::Claimed(_) | Leaving::Unclaimed(_) => return,
            },
            State::Locking(waiter, cancelled) => (waiter, cancelled.is_none()),
            State::Begin | State::Sleeping(None) | State::Ended => return,
        };
        // The notification goes to the next task while this one's place in the queue, or the lock
        // itself, still keeps the lock from being free.
        if notified {
            self.condition.notify_next(raw);
        }
        if let Some(waiter) = waiter {
            raw.give_up(waiter);
        }
    }
}

impl<T: ?Sized> fmt::Debug for ConditionWait<'_, '_, '_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConditionWait(at {})", self.place)
    }
}
