//! A value that many tasks may read at a time, or one may write.
//!
//! | If                  | then                                                               |
//! |---------------------|--------------------------------------------------------------------|
//! | the last reader, or the writer, drops its guard | the first in the queue has the lock; if that is a reader, so have the readers behind it up to the next writer |
//! | a guard is forgotten | the lock stays as it is: those who wait for it wait until cancelled |
//! | a writer in the queue is cancelled or dropped | the readers behind it no longer wait for it |
//! | a writer in the queue is forgotten | the same, as soon as its task has ended              |
//! | a future is dropped after it was handed the lock | the lock goes to the next in the queue |
//!
//! 1. Nobody overtakes: a reader that comes while a writer waits stands behind it.
//! 2. The first in the queue never fits beside those who hold the lock.
//!
//! If a future was forgotten, rule 2 is restored when its task ends. The run cannot reach the lock, which
//! may be gone by then. Instead it has every future in this queue polled: the first to be polled hands
//! the lock to those whose turn it is, and the others continue to wait. It is not enough to wake
//! one, because the next in the queue may itself have been forgotten by a task that still runs, and would be
//! woken in vain. So each forgotten future costs everyone in the queue one poll, once.

use std::cell::{Cell, Ref, RefCell, RefMut};
use std::fmt;
use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::ptr;
use std::task::{Context, Poll, ready};

use super::wait_list::{Leaving, Outcome, WaitList, Waiter};
use crate::checkpoint::enter_operation;
use crate::error::{Error, Result, WouldBlock};

/// A lock around a value, for many readers or one writer, first come, first served.
///
/// It is fair to both: a steady stream of readers does not keep a writer out, nor the reverse. Do
/// not ask for the lock again while you hold it for reading: you might wait for a writer that waits
/// for you. If guards are never held while a task waits, use a [`RefCell`] instead.
///
/// # Examples
///
/// ```
/// # use trio_runtime as trio;
/// # trio::run(async {
/// use trio::sync::RwLock;
///
/// let config = RwLock::new("old");
/// {
///     let one = config.read().await?;
///     let two = config.read().await?;
///     assert_eq!(*one, *two);
///     assert!(config.try_write().is_err());
/// }
/// *config.write().await? = "new";
/// assert_eq!(*config.read().await?, "new");
/// # Ok::<(), trio::Error>(()) }).unwrap();
/// ```
#[derive(Default)]
pub struct RwLock<T: ?Sized> {
    raw: RawRwLock,
    value: RefCell<T>,
}

/// A snapshot of a [`RwLock`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RwLockStatistics {
    /// How many hold it for reading.
    pub readers: usize,
    /// Whether it is held for writing.
    pub locked_for_writing: bool,
    /// How many wait to read.
    pub tasks_waiting_read: usize,
    /// How many wait to write.
    pub tasks_waiting_write: usize,
}

impl<T> RwLock<T> {
    /// A lock around `value`, which is not held.
    pub const fn new(value: T) -> Self {
        Self {
            raw: RawRwLock::new(),
            value: RefCell::new(value),
        }
    }

    /// The value.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

impl<T: ?Sized> RwLock<T> {
    /// Waits for the lock, behind those who came before, and holds it for reading until the guard
    /// is dropped.
    ///
    /// # Cancellation
    ///
    /// A checkpoint. `Cancelled` means that the lock was not taken.
    ///
    /// # Errors
    ///
    /// `Cancelled` only.
    ///
    /// # Panics
    ///
    /// When it is polled outside of a run.
    pub fn read(&self) -> Read<'_, T> {
        Read {
            lock: self,
            waiter: None,
        }
    }

    /// Waits for the lock, and holds it for writing, alone, until the guard is dropped.
    ///
    /// # Cancellation
    ///
    /// A checkpoint. `Cancelled` means that the lock was not taken.
    ///
    /// # Errors
    ///
    /// `Cancelled` only.
    ///
    /// # Panics
    ///
    /// When it is polled outside of a run.
    pub fn write(&self) -> Write<'_, T> {
        Write {
            lock: self,
            waiter: None,
        }
    }

    /// Takes the lock for reading, if nobody holds it for writing and nobody waits for it.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`] if somebody does.
    pub fn try_read(&self) -> Result<RwLockReadGuard<'_, T>, WouldBlock> {
        match self.raw.try_acquire(Kind::Read) {
            true => Ok(RwLockReadGuard::new(self)),
            false => Err(WouldBlock::new()),
        }
    }

    /// Takes the lock for writing, if nobody holds it.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`] if somebody does.
    pub fn try_write(&self) -> Result<RwLockWriteGuard<'_, T>, WouldBlock> {
        match self.raw.try_acquire(Kind::Write) {
            true => Ok(RwLockWriteGuard::new(self)),
            false => Err(WouldBlock::new()),
        }
    }

    /// The value, which nobody else can reach now.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    /// Who has the lock, and how many wait.
    pub fn statistics(&self) -> RwLockStatistics {
        let (mut read, mut write) = (0, 0);
        self.raw.queue.each_waiting(|kind| match kind {
            Kind::Read => read += 1,
            Kind::Write => write += 1,
        });
        let held = self.raw.held.get();
        RwLockStatistics {
            readers: if held == WRITTEN { 0 } else { held },
            locked_for_writing: held == WRITTEN,
            tasks_waiting_read: read,
            tasks_waiting_write: write,
        }
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_struct("RwLock");
        match self.value.try_borrow() {
            Ok(value) => text.field("value", &&*value),
            Err(_) => text.field("value", &format_args!("(locked)")),
        };
        text.field("tasks_waiting", &self.raw.queue.waiting())
            .finish()
    }
}

impl<T> From<T> for RwLock<T> {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}

/// The future of [`RwLock::read`].
#[must_use = "futures do nothing unless polled"]
pub struct Read<'a, T: ?Sized> {
    lock: &'a RwLock<T>,
    waiter: Option<Waiter>,
}

/// The future of [`RwLock::write`].
#[must_use = "futures do nothing unless polled"]
pub struct Write<'a, T: ?Sized> {
    lock: &'a RwLock<T>,
    waiter: Option<Waiter>,
}

impl<'a, T: ?Sized> Future for Read<'a, T> {
    type Output = Result<RwLockReadGuard<'a, T>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let lock = self.lock;
        ready!(
            lock.raw
                .poll_acquire(&mut self.waiter, context, Kind::Read, "RwLock::read")
        )?;
        Poll::Ready(Ok(RwLockReadGuard::new(lock)))
    }
}

impl<'a, T: ?Sized> Future for Write<'a, T> {
    type Output = Result<RwLockWriteGuard<'a, T>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let lock = self.lock;
        ready!(
            lock.raw
                .poll_acquire(&mut self.waiter, context, Kind::Write, "RwLock::write")
        )?;
        Poll::Ready(Ok(RwLockWriteGuard::new(lock)))
    }
}

impl<T: ?Sized> Drop for Read<'_, T> {
    fn drop(&mut self) {
        self.lock.raw.give_up(self.waiter.take());
    }
}

impl<T: ?Sized> Drop for Write<'_, T> {
    fn drop(&mut self) {
        self.lock.raw.give_up(self.waiter.take());
    }
}

impl<T: ?Sized> fmt::Debug for Read<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Read")
    }
}

impl<T: ?Sized> fmt::Debug for Write<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Write")
    }
}

/// The right to read the value of a [`RwLock`]; dropping it gives it up.
#[must_use = "the lock is released when the guard is dropped"]
pub struct RwLockReadGuard<'a, T: ?Sized> {
    // Dropped before the lock is released, so that the next holder can borrow.
    value: Option<Ref<'a, T>>,
    lock: &'a RwLock<T>,
}

/// The right to change the value of a [`RwLock`]; dropping it gives it up.
#[must_use = "the lock is released when the guard is dropped"]
pub struct RwLockWriteGuard<'a, T: ?Sized> {
    /// `None` only while the guard is downgraded or dropped.
    value: Option<RefMut<'a, T>>,
    lock: &'a RwLock<T>,
}

impl<'a, T: ?Sized> RwLockReadGuard<'a, T> {
    /// The guard of a reader.
    fn new(lock: &'a RwLock<T>) -> Self {
        let value = Some(lock.value.borrow());
        Self { value, lock }
    }
}

impl<'a, T: ?Sized> RwLockWriteGuard<'a, T> {
    /// The guard of the writer.
    fn new(lock: &'a RwLock<T>) -> Self {
        let value = Some(lock.value.borrow_mut());
        Self { value, lock }
    }

    /// Turns this into a guard for reading, with no other writer in between; readers at the head of
    /// the queue get the lock as well.
    pub fn downgrade(mut self) -> RwLockReadGuard<'a, T> {
        let lock = self.lock;
        self.value = None;
        lock.raw.held.set(1);
        lock.raw.hand_over();
        // The lock is now the reader's: this guard has nothing left to release.
        let _ = std::mem::ManuallyDrop::new(self);
        RwLockReadGuard::new(lock)
    }
}

impl<T: ?Sized> Deref for RwLockReadGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value
            .as_deref()
            .expect("a guard has its value until it is dropped")
    }
}

impl<T: ?Sized> Deref for RwLockWriteGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value
            .as_deref()
            .expect("a guard has its value until it is dropped")
    }
}

impl<T: ?Sized> DerefMut for RwLockWriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value
            .as_deref_mut()
            .expect("a guard has its value until it is dropped")
    }
}

impl<T: ?Sized> Drop for RwLockReadGuard<'_, T> {
    fn drop(&mut self) {
        self.value = None;
        self.lock.raw.release(Kind::Read);
    }
}

impl<T: ?Sized> Drop for RwLockWriteGuard<'_, T> {
    fn drop(&mut self) {
        self.value = None;
        self.lock.raw.release(Kind::Write);
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for RwLockReadGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RwLockReadGuard").field(&&**self).finish()
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for RwLockWriteGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RwLockWriteGuard").field(&&**self).finish()
    }
}

/// `held` while a writer holds the lock.
const WRITTEN: usize = usize::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Read,
    Write,
}

/// A lock without its value.
#[derive(Default)]
struct RawRwLock {
    /// The number of readers, or `WRITTEN`.
    held: Cell<usize>,
    queue: WaitList<Kind>,
}

impl RawRwLock {
    const fn new() -> Self {
        Self {
            held: Cell::new(0),
            queue: WaitList::new(),
        }
    }

    /// The value of `held` with one holder more, if that one fits beside the present holders.
    fn with(&self, kind: Kind) -> Option<usize> {
        match (kind, self.held.get()) {
            (Kind::Read, held) if held != WRITTEN => Some(held + 1),
            (Kind::Write, 0) => Some(WRITTEN),
            _ => None,
        }
    }

    fn try_acquire(&self, kind: Kind) -> bool {
        match self.with(kind) {
            Some(held) if !self.queue.has_waiting() => {
                self.held.set(held);
                true
            }
            _ => false,
        }
    }

    fn poll_acquire(
        &self,
        waiter: &mut Option<Waiter>,
        context: &mut Context<'_>,
        kind: Kind,
        what: &'static str,
    ) -> Poll<Result<()>> {
        if waiter.is_some() {
            let mut outcome = Waiter::poll(waiter, &self.queue, context);
            if outcome.is_pending() {
                // A waiter before this one may have been forgotten, and gone without notice.
                self.hand_over();
                outcome = Waiter::poll(waiter, &self.queue, context);
            }
            match ready!(outcome) {
                Outcome::Claimed(_) => return Poll::Ready(Ok(())),
                Outcome::Cancelled(cancelled, _) => {
                    self.hand_over();
                    return Poll::Ready(Err(Error::cancelled(cancelled)));
                }
                Outcome::Lapsed(_) => self.hand_over(),
                Outcome::Moved(..) => unreachable!("nobody moves who waits for a lock"),
            }
        }
        ready!(enter_operation(context))?;
        if self.try_acquire(kind) {
            return Poll::Ready(Ok(()));
        }
        let line = ptr::from_ref(self).addr();
        Waiter::join_line(waiter, &self.queue, context, what, kind, line);
        Poll::Pending
    }

    fn release(&self, kind: Kind) {
        match kind {
            Kind::Read => self.held.set(self.held.get() - 1),
            Kind::Write => self.held.set(0),
        }
        self.hand_over();
    }

    /// Hands the lock to the first in the queue, as far as they fit.
    fn hand_over(&self) {
        while let Some(held) = self.queue.claim_first_if(|kind| self.with(*kind)) {
            self.held.set(held);
        }
    }

    /// The future has been dropped.
    fn give_up(&self, waiter: Option<Waiter>) {
        if let Some(waiter) = waiter {
            match waiter.leave(&self.queue) {
                Leaving::Claimed(kind) => self.release(kind),
                // Those behind it may fit.
                Leaving::Unclaimed(_) => self.hand_over(),
                Leaving::Moved(..) => unreachable!("nobody moves who waits for a lock"),
            }
        }
    }
}
