//! A value that one task at a time may work on, even across waits.
//!
//! The lock consists of its `holder` and its queue; the value lies beside them in a `RefCell`,
//! which only the guard borrows, so that the compiler's rules hold without unsafe code.
//!
//! | If             | then                                                                     |
//! |----------------|--------------------------------------------------------------------------|
//! | a guard is dropped, however its task ends | the first in the queue becomes the holder  |
//! | a guard is forgotten | the lock stays locked; those who wait for it wait until cancelled     |
//! | a future is dropped after it was handed the lock | the lock goes to the next in the queue    |
//! | the holder panics | the guard is dropped; there is no poisoning, as there is none in Trio     |
//!
//! 1. There is no holder only if nobody who could be claimed waits: a release hands the lock over.

use std::cell::{Cell, RefCell, RefMut};
use std::fmt;
use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::wait_list::{Leaving, Outcome, WaitList, Waiter};
use crate::checkpoint::enter_operation;
use crate::error::{Error, Result, WouldBlock};

/// A place in the code: the one that asked for a lock.
pub(super) type Place = &'static Location<'static>;

/// A lock around a value, for one holder at a time, first come, first served.
///
/// `Lock::new(())` is a bare lock, like Trio's. Its guard may be held while the task waits. If yours
/// never are, use a [`RefCell`] instead.
///
/// The lock belongs to the guard, not to a task: a guard can be passed to another task, and two
/// futures of one task, inside a combinator, can wait for each other. So a task that asks for a lock
/// that it holds itself is not refused, as it is in Trio, but waits for ever; the task tree shows
/// this, and [`Lock::statistics`] says where the lock was taken.
///
/// # Examples
///
/// ```
/// # use trio_runtime as trio;
/// # trio::run(async {
/// use trio::sync::Lock;
///
/// let total = Lock::new(0);
/// let total_ref = &total;
/// trio::open_nursery(async |nursery| {
///     for n in 1..=4 {
///         nursery.start_soon(async move {
///             let mut total = total_ref.acquire().await?;
///             let before = *total;
///             trio::checkpoint().await?; // nobody else comes in between
///             *total = before + n;
///             Ok(())
///         });
///     }
///     Ok(())
/// })
/// .await?;
/// assert_eq!(total.into_inner(), 10);
/// # Ok::<(), trio::Error>(()) }).unwrap();
/// ```
#[derive(Default)]
#[doc(alias = "Mutex")]
pub struct Lock<T: ?Sized> {
    pub(super) raw: RawLock,
    value: RefCell<T>,
}

/// A [`Lock`], for those who rely on its order.
///
/// In Trio a `Lock` happens to be fair and a `StrictFIFOLock` promises it. Here both promise it.
#[doc(alias = "StrictFIFOLock")]
pub type StrictFifoLock<T> = Lock<T>;

/// A snapshot of a [`Lock`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LockStatistics {
    /// Whether it is held.
    pub locked: bool,
    /// Where its holder asked for it.
    pub owner: Option<&'static Location<'static>>,
    /// How many wait for it.
    pub tasks_waiting: usize,
}

impl<T> Lock<T> {
    /// A lock around `value`, which is not held.
    pub const fn new(value: T) -> Self {
        Self {
            raw: RawLock::new(),
            value: RefCell::new(value),
        }
    }

    /// The value.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

impl<T: ?Sized> Lock<T> {
    /// Waits for the lock, and holds it until the guard is dropped.
    ///
    /// # Cancellation
    ///
    /// A checkpoint. `Cancelled` means that the lock was not taken. Once it has been handed over,
    /// it is returned, cancelled or not.
    ///
    /// # Errors
    ///
    /// `Cancelled` only.
    ///
    /// # Panics
    ///
    /// When it is polled outside of a run.
    #[doc(alias = "lock")]
    #[track_caller]
    pub fn acquire(&self) -> Acquire<'_, T> {
        Acquire {
            lock: self,
            place: Location::caller(),
            waiter: None,
        }
    }

    /// Takes the lock if nobody has it.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`] if it is held, or has been handed to a task that has not run since.
    #[doc(alias = "acquire_nowait")]
    #[doc(alias = "try_lock")]
    #[track_caller]
    pub fn try_acquire(&self) -> Result<LockGuard<'_, T>, WouldBlock> {
        if self.raw.try_acquire(Location::caller()) {
            Ok(LockGuard::new(self))
        } else {
            Err(WouldBlock::new())
        }
    }

    /// Whether the lock is held.
    #[doc(alias = "locked")]
    pub fn is_locked(&self) -> bool {
        self.raw.holder.get().is_some()
    }

    /// The value, which nobody else can reach now.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    /// Whether it is held, where it was taken, and how many tasks wait for it.
    pub fn statistics(&self) -> LockStatistics {
        let owner = self.raw.holder.get();
        LockStatistics {
            locked: owner.is_some(),
            owner,
            tasks_waiting: self.raw.queue.waiting(),
        }
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Lock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_struct("Lock");
        match self.value.try_borrow() {
            Ok(value) if !self.is_locked() => text.field("value", &&*value),
            _ => text.field("value", &format_args!("(locked)")),
        };
        text.field("tasks_waiting", &self.raw.queue.waiting())
            .finish()
    }
}

impl<T> From<T> for Lock<T> {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}

/// The future of [`Lock::acquire`].
#[must_use = "futures do nothing unless polled"]
pub struct Acquire<'a, T: ?Sized> {
    lock: &'a Lock<T>,
    place: Place,
    waiter: Option<Waiter>,
}

impl<'a, T: ?Sized> Future for Acquire<'a, T> {
    type Output = Result<LockGuard<'a, T>>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let raw = &this.lock.raw;
        ready!(raw.poll_acquire(&mut this.waiter, context, this.place))?;
        Poll::Ready(Ok(LockGuard::new(this.lock)))
    }
}

impl<T: ?Sized> Drop for Acquire<'_, T> {
    #[inline]
    fn drop(&mut self) {
        if let Some(waiter) = self.waiter.take() {
            self.lock.raw.give_up(waiter);
        }
    }
}

impl<T: ?Sized> fmt::Debug for Acquire<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Acquire(at {})", self.place)
    }
}

/// The right to the value of a [`Lock`]; dropping it releases the lock.
#[must_use = "the lock is released when the guard is dropped"]
pub struct LockGuard<'a, T: ?Sized> {
    pub(super) lock: &'a Lock<T>,
    /// `None` while a wait on a condition has released the lock.
    value: Option<RefMut<'a, T>>,
}

impl<'a, T: ?Sized> LockGuard<'a, T> {
    /// The guard of the task that holds the lock.
    #[inline]
    fn new(lock: &'a Lock<T>) -> Self {
        Self {
            lock,
            value: Some(lock.value.borrow_mut()),
        }
    }

    /// The lock, which must be held at the moment.
    pub(super) fn held(&self) -> &'a RawLock {
        if self.value.is_none() {
            put_aside();
        }
        &self.lock.raw
    }

    /// Releases the lock for a while.
    pub(super) fn put_aside(&mut self) {
        self.value = None;
        self.lock.raw.release();
    }

    /// Restores the guard: the lock has been acquired again.
    pub(super) fn take_back(&mut self) {
        self.value = Some(self.lock.value.borrow_mut());
    }
}

impl<T: ?Sized> Deref for LockGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        self.value.as_deref().unwrap_or_else(|| put_aside())
    }
}

impl<T: ?Sized> DerefMut for LockGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_deref_mut().unwrap_or_else(|| put_aside())
    }
}

#[cold]
fn put_aside() -> ! {
    panic!(
        "this guard has no lock any more: a wait on a condition was dropped or forgotten half-way; \
         drop the guard, and acquire the lock again"
    )
}

impl<T: ?Sized> Drop for LockGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        if self.value.take().is_some() {
            self.lock.raw.release();
        }
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for LockGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => f.debug_tuple("LockGuard").field(&&**value).finish(),
            None => f.write_str("LockGuard(put aside)"),
        }
    }
}

impl<T: ?Sized + fmt::Display> fmt::Display for LockGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&**self, f)
    }
}

/// A lock without its value.
#[derive(Default)]
pub(super) struct RawLock {
    /// Where the holder asked for the lock; `None` if nobody holds it.
    holder: Cell<Option<Place>>,
    pub(super) queue: WaitList<Place>,
}

impl RawLock {
    const fn new() -> Self {
        Self {
            holder: Cell::new(None),
            queue: WaitList::new(),
        }
    }

    #[inline]
    fn try_acquire(&self, place: Place) -> bool {
        let free = self.holder.get().is_none();
        if free {
            self.holder.set(Some(place));
        }
        free
    }

    #[inline]
    fn poll_acquire(
        &self,
        waiter: &mut Option<Waiter>,
        context: &mut Context<'_>,
        place: Place,
    ) -> Poll<Result<()>> {
        if waiter.is_some() {
            match ready!(Waiter::poll(waiter, &self.queue, context)) {
                Outcome::Claimed(_) => return Poll::Ready(Ok(())),
                Outcome::Cancelled(cancelled, _) => {
                    return Poll::Ready(Err(Error::cancelled(cancelled)));
                }
                Outcome::Lapsed(_) => {}
                Outcome::Moved(..) => unreachable!("nobody moves who waits for a lock"),
            }
        }
        ready!(enter_operation(context))?;
        if self.try_acquire(place) {
            return Poll::Ready(Ok(()));
        }
        Waiter::join(waiter, &self.queue, context, "Lock::acquire", place);
        Poll::Pending
    }

    /// Acquires the lock even if cancelled. The waiter may have come from another list.
    pub(super) fn poll_acquire_shielded(
        &self,
        waiter: &mut Option<Waiter>,
        context: &mut Context<'_>,
        place: Place,
    ) -> Poll<()> {
        loop {
            if waiter.is_some() {
                match ready!(Waiter::poll(waiter, &self.queue, context)) {
                    Outcome::Claimed(_) => return Poll::Ready(()),
                    Outcome::Lapsed(_) => {}
                    Outcome::Cancelled(..) => unreachable!("the wait is shielded"),
                    Outcome::Moved(..) => unreachable!("nobody moves who waits for a lock"),
                }
            }
            if self.try_acquire(place) {
                return Poll::Ready(());
            }
            let joined = waiter.insert(Waiter::stand(&self.queue, "Lock::acquire", place));
            joined.shield();
            joined.follow(context);
        }
    }

    /// Hands the lock to the task that has waited longest, or frees it.
    #[inline]
    pub(super) fn release(&self) {
        let holder = self.queue.claim_first(|place| *place);
        self.holder.set(holder);
    }

    /// The waiting future has been dropped.
    pub(super) fn give_up(&self, waiter: Waiter) {
        if let Leaving::Claimed(_) = waiter.leave(&self.queue) {
            self.release();
        }
    }
}
