//! A queue of waiting tasks, for primitives of your own.
//!
//! A lot is shared by its handles and by the futures that are parked in it, so that a waiter which
//! was moved to another lot keeps that lot alive.
//!
//! | If a parked future is | then                                                              |
//! |-----------------------|-------------------------------------------------------------------|
//! | cancelled             | it leaves whichever lot it is in, and returns `Cancelled`          |
//! | unparked, then cancelled | it returns `Ok`: it may take what it was woken for               |
//! | unparked by a count, then dropped | the wake goes to the next: it may have been the only one |
//! | unparked with all, then dropped | nothing: everybody was woken                             |
//! | forgotten             | it stays parked as long as its task lives, and is then passed over  |
//!
//! Once broken, a lot stays broken, and nobody is parked in it.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use super::wait_list::{Leaving, Outcome, WaitId, WaitList, Waiter};
use crate::checkpoint::enter_operation;
use crate::context;
use crate::error::{BrokenResource, Error, Result};

/// A place where tasks wait until they are unparked, first come, first served.
///
/// A lot has no state but its queue. The primitive built on it keeps the state, changes it before
/// it unparks a task, and gives that task what it waited for. Clones are handles to the same lot.
///
/// # Examples
///
/// A gate that, unlike an [`Event`](crate::sync::Event), can be shut again:
///
/// ```
/// # use trio_runtime as trio;
/// # trio::run(async {
/// use std::cell::Cell;
/// use trio::{Result, lowlevel::{ParkingLot, checkpoint_if_cancelled}};
///
/// #[derive(Default)]
/// struct Gate {
///     open: Cell<bool>,
///     lot: ParkingLot,
/// }
///
/// impl Gate {
///     fn open(&self) {
///         self.open.set(true);
///         self.lot.unpark_all();
///     }
///
///     async fn pass(&self) -> Result<()> {
///         match self.open.get() {
///             true => checkpoint_if_cancelled().await,
///             false => self.lot.park().await,
///         }
///     }
/// }
///
/// let gate = Gate::default();
/// let gate_ref = &gate;
/// trio::open_nursery(async |nursery| {
///     nursery.start_soon(async move { gate_ref.pass().await });
///     trio::checkpoint().await?;
///     assert_eq!(gate.lot.len(), 1);
///     gate.open();
///     Ok(())
/// })
/// .await
/// # }).unwrap();
/// ```
#[derive(Clone, Default)]
pub struct ParkingLot(Rc<Lot>);

#[derive(Default)]
struct Lot {
    queue: WaitList<Parking>,
    broken_by: RefCell<Vec<Cow<'static, str>>>,
}

/// The state of a parked future.
enum Parking {
    Parked,
    /// Unparked, or notified that the lot is broken. Either alone, in which case a wake that the
    /// future did not take goes on to the next, or with all others.
    Woken {
        alone: bool,
        broken: bool,
    },
    /// Moved to another lot, where it has this entry.
    In(Rc<Lot>, u32),
}

/// A snapshot of a [`ParkingLot`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ParkingLotStatistics {
    /// How many are parked.
    pub tasks_waiting: usize,
}

impl ParkingLot {
    /// An empty lot.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many are parked.
    pub fn len(&self) -> usize {
        self.0.queue.waiting()
    }

    /// Whether nobody is parked.
    pub fn is_empty(&self) -> bool {
        !self.0.queue.has_waiting()
    }

    /// Waits until unparked.
    ///
    /// # Cancellation
    ///
    /// A checkpoint. `Cancelled` means that this future has not been unparked, and will not be. Once
    /// it has been unparked it returns `Ok`, cancelled or not.
    ///
    /// # Errors
    ///
    /// `Cancelled`. [`BrokenResource`] if the lot is broken, or becomes so meanwhile; its cause
    /// says by which task.
    ///
    /// # Panics
    ///
    /// When it is polled outside of a run.
    pub fn park(&self) -> Park {
        Park {
            lot: self.0.clone(),
            waiter: None,
        }
    }

    /// Unparks the `count` tasks that have been parked longest, or all if there are fewer. Returns
    /// how many there were.
    pub fn unpark(&self, count: usize) -> usize {
        (0..count).take_while(|_| self.0.wake(true, false)).count()
    }

    /// Unparks all. Returns how many there were.
    pub fn unpark_all(&self) -> usize {
        (0..).take_while(|_| self.0.wake(false, false)).count()
    }

    /// Moves the `count` tasks that have been parked longest to the end of another lot, without
    /// waking them; if that lot is broken, they get its error. Returns how many were moved. Moving
    /// into the same lot does nothing.
    pub fn repark(&self, other: &Self, count: usize) -> usize {
        if Rc::ptr_eq(&self.0, &other.0) {
            return 0;
        }
        let moved = (0..count)
            .take_while(|_| self.0.move_first(&other.0))
            .count();
        if !other.0.broken_by.borrow().is_empty() {
            other.0.wake_broken();
        }
        moved
    }

    /// Moves all to the end of another lot. Returns how many there were.
    pub fn repark_all(&self, other: &Self) -> usize {
        self.repark(other, usize::MAX)
    }

    /// Breaks the lot in the name of the current task: tasks that are parked, and those that come
    /// later, get [`BrokenResource`]. A lot can be broken again, which adds to
    /// [`broken_by`](Self::broken_by).
    pub fn break_lot(&self) {
        let task = context::try_with(|run| run.and_then(|run| run.task_name()));
        let name = task.unwrap_or(Cow::Borrowed("something outside of a task"));
        self.0.broken_by.borrow_mut().push(name);
        self.0.wake_broken();
    }

    /// The names of the tasks that have broken the lot, in order; empty if none has.
    pub fn broken_by(&self) -> Vec<String> {
        let names = self.0.broken_by.borrow();
        names.iter().map(|name| name.clone().into_owned()).collect()
    }

    /// A guard that breaks the lot when it is dropped, unless it is
    /// [disarmed](ParkingLotBreaker::disarm): for a task that must do something before the others
    /// can go on, and may be cancelled or fail instead.
    ///
    /// # Examples
    ///
    /// ```
    /// # use trio_runtime as trio;
    /// # trio::run(async {
    /// use trio::{BrokenResource, lowlevel::ParkingLot};
    ///
    /// let lot = ParkingLot::new();
    /// {
    ///     let _breaker = lot.breaker();
    ///     // Fails before it unparks anybody …
    /// }
    /// assert_eq!(lot.broken_by(), ["main"]);
    /// let error = lot.park().await.unwrap_err();
    /// assert!(error.is::<BrokenResource>());
    /// # });
    /// ```
    #[doc(alias = "add_parking_lot_breaker")]
    pub fn breaker(&self) -> ParkingLotBreaker {
        ParkingLotBreaker(Some(self.clone()))
    }

    /// How many are parked.
    pub fn statistics(&self) -> ParkingLotStatistics {
        ParkingLotStatistics {
            tasks_waiting: self.len(),
        }
    }
}

impl fmt::Debug for ParkingLot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_struct("ParkingLot");
        text.field("tasks_waiting", &self.len());
        let broken_by = self.0.broken_by.borrow();
        if !broken_by.is_empty() {
            text.field("broken_by", &broken_by);
        }
        text.finish()
    }
}

impl Lot {
    fn wake(&self, alone: bool, broken: bool) -> bool {
        let woken = Parking::Woken { alone, broken };
        let woken = self.queue.claim_first(|parking| *parking = woken);
        woken.is_some()
    }

    fn wake_broken(&self) {
        while self.wake(false, true) {}
    }

    fn move_first(&self, other: &Rc<Self>) -> bool {
        let enter = |wait: WaitId, parking: &mut Parking| {
            let key = other.queue.push(wait, Parking::Parked);
            *parking = Parking::In(other.clone(), key);
        };
        self.queue.move_first(enter).is_some()
    }

    /// An error if the lot is broken.
    fn check(&self) -> Result<()> {
        let broken_by = self.broken_by.borrow();
        if broken_by.is_empty() {
            return Ok(());
        }
        let names = broken_by.join(", ");
        let cause = io::Error::other(format!("the parking lot was broken by {names}"));
        Err(BrokenResource::because(cause).into())
    }
}

/// The future of [`ParkingLot::park`].
#[must_use = "futures do nothing unless polled"]
pub struct Park {
    /// The lot that the future is parked in, or will be.
    lot: Rc<Lot>,
    waiter: Option<Waiter>,
}

impl Future for Park {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let this = &mut *self;
        while this.waiter.is_some() {
            match ready!(Waiter::poll(&mut this.waiter, &this.lot.queue, context)) {
                Outcome::Claimed(Parking::Woken { broken, .. }) => {
                    return Poll::Ready(if broken { this.lot.check() } else { Ok(()) });
                }
                Outcome::Moved(waiter, Parking::In(lot, key)) => {
                    this.waiter = Some(waiter.at(key));
                    this.lot = lot;
                }
                Outcome::Cancelled(cancelled, _) => {
                    return Poll::Ready(Err(Error::cancelled(cancelled)));
                }
                Outcome::Lapsed(_) => {}
                Outcome::Claimed(_) | Outcome::Moved(..) => {
                    unreachable!("whoever wakes or moves says so")
                }
            }
        }
        this.lot.check()?;
        ready!(enter_operation(context))?;
        let (slot, queue) = (&mut this.waiter, &this.lot.queue);
        Waiter::join(slot, queue, context, "ParkingLot::park", Parking::Parked);
        Poll::Pending
    }
}

impl Drop for Park {
    fn drop(&mut self) {
        let Some(mut waiter) = self.waiter.take() else {
            return;
        };
        loop {
            match waiter.leave(&self.lot.queue) {
                Leaving::Moved(moved, Parking::In(lot, key)) => {
                    waiter = moved.at(key);
                    self.lot = lot;
                }
                Leaving::Claimed(Parking::Woken { alone: true, .. }) => {
                    self.lot.wake(true, false);
                    return;
                }
                _ => return,
            }
        }
    }
}

impl fmt::Debug for Park {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Park")
    }
}

/// Breaks a [`ParkingLot`] when it is dropped; see [`ParkingLot::breaker`].
#[derive(Debug)]
#[must_use = "the lot is broken when this is dropped"]
pub struct ParkingLotBreaker(Option<ParkingLot>);

impl ParkingLotBreaker {
    /// Drops the guard without breaking the lot.
    #[doc(alias = "remove_parking_lot_breaker")]
    pub fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for ParkingLotBreaker {
    fn drop(&mut self) {
        if let Some(lot) = &self.0 {
            lot.break_lot();
        }
    }
}
