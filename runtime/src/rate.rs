//! A rate limiter, by the clock of the run: at most so many per period.
//!
//! Where a semaphore limits how much happens at once, this limits how often something begins:
//! requests to a service that counts them, or lines in a log.
//!
//! 1. Permits accrue at an even pace, one each `per / rate`, up to as many as may be used at once.
//! 2. First come, first served. While somebody waits, nobody else gets a permit.
//! 3. Each waiter in the line has a timer, for the moment at which its permit accrues if all before
//!    it take theirs; the first in the line has it for the moment at which the next permit accrues.
//!    A waiter that leaves the line, cancelled or dropped, takes no permit with it, and the next
//!    gets its place.
//! 4. A waiter woken by its timer keeps its place until it is polled, in the turn that woke it or
//!    the next. One that has not been polled by then is forgotten, or polled by a combinator that
//!    takes its time: it is passed over, and takes no permit. If it is polled after all, it is back
//!    in its old place. So those behind a forgotten waiter get their permits when they would have
//!    got them anyway.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use trio_platform::Time;

use crate::checkpoint::enter_operation;
use crate::context;
use crate::error::{Error, Result};
use crate::run::Run;
use crate::wait::Parked;

/// Limits how often something begins: so many per period, evenly spaced, first come, first served.
///
/// It counts by the clock of the run that uses it; in another run it starts afresh.
///
/// # Examples
///
/// ```
/// # use trio_runtime as trio;
/// # trio::Builder::new().clock(trio::testing::MockClock::autojump()).run(async {
/// use std::time::Duration;
/// use trio::{RateLimiter, current_time};
///
/// let ten_a_second = RateLimiter::new(10, Duration::from_secs(1));
/// let start = current_time();
/// for _ in 0..21 {
///     ten_a_second.acquire().await?;
/// }
/// assert_eq!(current_time() - start, Duration::from_secs(2));
/// # Ok::<(), trio::Error>(()) }).unwrap();
/// ```
#[derive(Debug)]
pub struct RateLimiter {
    interval: Duration,
    /// How far ahead of the even pace permits may be taken.
    ahead: Duration,
    /// When the next permit would be due at the even pace.
    due: Cell<Time>,
    /// The run that uses this clock.
    run: Cell<u64>,
    /// The waiters, by the numbers that they drew when they came.
    line: RefCell<BTreeMap<u64, Place>>,
    drawn: Cell<u64>,
    acquired: Cell<u64>,
}

/// A place in the line: a wait, and the run that it belongs to.
#[derive(Clone, Copy, Debug)]
struct Place {
    run: u64,
    wait: u32,
    /// The turn in which its wait was first seen to be over.
    over: Option<u32>,
}

/// The state of a waiter that has a place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Waits,
    /// Has been woken or cancelled, and not been polled since.
    Woken,
    /// Will not come back: its run or its task has ended.
    Left,
}

impl Place {
    fn of(parked: &Parked) -> Self {
        Self {
            run: parked.run().id,
            wait: parked.wait(),
            over: None,
        }
    }

    /// The state as seen from the `current` run.
    fn who(&self, current: Option<&Rc<Run>>) -> Who {
        let Some(run) = current.filter(|run| run.id == self.run && !run.has_ended()) else {
            return Who::Left;
        };
        let tree = run.tree.borrow();
        match (tree.is_left(self.wait), tree.is_over(self.wait)) {
            (true, _) => Who::Left,
            (false, true) => Who::Woken,
            (false, false) => Who::Waits,
        }
    }

    /// Whether it is passed over from now on (rule 4).
    fn is_lost(&mut self, current: Option<&Rc<Run>>) -> bool {
        let (Who::Woken, Some(run)) = (self.who(current), current) else {
            return self.who(current) == Who::Left;
        };
        let turn = run.turn.get();
        turn.wrapping_sub(*self.over.get_or_insert(turn)) >= PATIENCE
    }
}

/// A future that has not been polled this many turns after it was found woken counts as forgotten. One
/// turn is for the poll itself, and one for a foreign waker, which is called between turns.
const PATIENCE: u32 = 2;

/// A snapshot of a [`RateLimiter`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RateLimiterStatistics {
    /// How many permits have been taken.
    pub acquired: u64,
    /// How many tasks wait for one.
    pub tasks_waiting: usize,
}

impl RateLimiter {
    /// A limiter that lets `rate` through in each period `per`, one at a time.
    ///
    /// # Panics
    ///
    /// If `rate` is zero: nobody would ever get through.
    #[track_caller]
    pub fn new(rate: u32, per: Duration) -> Self {
        assert!(rate > 0, "a rate of zero would let nobody through");
        Self {
            interval: per / rate,
            ahead: Duration::ZERO,
            due: Cell::new(Time::PAST),
            run: Cell::new(0),
            line: RefCell::default(),
            drawn: Cell::new(0),
            acquired: Cell::new(0),
        }
    }

    /// Lets up to `at_once` through without a pause between them, if that many permits have
    /// accumulated while nobody came. The rate in the long run is the same.
    ///
    /// # Panics
    ///
    /// If `at_once` is zero: then not even one would get through.
    #[must_use]
    #[track_caller]
    pub fn burst(mut self, at_once: u32) -> Self {
        assert!(at_once > 0, "a burst of zero would let nobody through");
        self.ahead = self.interval.saturating_mul(at_once - 1);
        self
    }

    /// Waits for a permit, and takes it.
    ///
    /// # Cancellation
    ///
    /// A checkpoint. `Cancelled` means that no permit was taken.
    ///
    /// # Errors
    ///
    /// `Cancelled` only.
    pub fn acquire(&self) -> AcquireRate<'_> {
        AcquireRate {
            limiter: self,
            standing: None,
        }
    }

    /// Takes a permit if there is one and nobody waits; returns whether it did.
    ///
    /// # Panics
    ///
    /// Outside of a run.
    #[track_caller]
    pub fn try_acquire(&self) -> bool {
        if self.first().is_some() {
            return false;
        }
        let now = self.now();
        if self.earliest(now) > now {
            return false;
        }
        self.take(now);
        true
    }

    /// How many permits have been taken, and how many tasks wait for one.
    pub fn statistics(&self) -> RateLimiterStatistics {
        RateLimiterStatistics {
            acquired: self.acquired.get(),
            tasks_waiting: self.waiting(),
        }
    }

    fn waiting(&self) -> usize {
        let line = self.line.borrow();
        context::try_with(|run| {
            let who = line.values().map(|place| place.who(run));
            who.filter(|who| *who == Who::Waits).count()
        })
    }

    /// When there will be a permit; not after `now` if there is one already.
    fn earliest(&self, now: Time) -> Time {
        self.earliest_behind(0, now)
    }

    /// The same for a waiter that has this many others before it.
    fn earliest_behind(&self, others: usize, now: Time) -> Time {
        let others = u32::try_from(others).unwrap_or(u32::MAX);
        let due = self.due.get() + self.interval.saturating_mul(others);
        match due.saturating_since(now).checked_sub(self.ahead) {
            Some(left) => now + left,
            None => now,
        }
    }

    fn take(&self, now: Time) {
        self.due.set(self.due.get().max(now) + self.interval);
        self.acquired.set(self.acquired.get() + 1);
    }

    /// The time on the clock of the run that uses the limiter now. Moments of an earlier run mean
    /// nothing there.
    fn now(&self) -> Time {
        let (run, now) = context::with(|run| (run.id, run.now()));
        if self.run.replace(run) != run {
            self.due.set(Time::PAST);
        }
        now
    }

    /// The first in the line; passes over those that are lost.
    fn first(&self) -> Option<(u64, Place)> {
        let mut passed = false;
        let first = context::try_with(|run| {
            let mut line = self.line.borrow_mut();
            while let Some(mut first) = line.first_entry() {
                if !first.get_mut().is_lost(run) {
                    return Some((*first.key(), *first.get()));
                }
                first.remove();
                passed = true;
            }
            None
        });
        if let Some((_, first)) = first.filter(|_| passed) {
            self.wake_in_time(first, 0);
        }
        first
    }

    /// Puts a waiter into the line, unless it is in it already.
    fn stand(&self, number: u64, place: Place) {
        if self.line.borrow().contains_key(&number) {
            return;
        }
        let first = self.first();
        let ahead = first.is_some_and(|(first, _)| first < number);
        let mut line = self.line.borrow_mut();
        // At most: a waiter that stood here before may get a place before some of them.
        let others = if ahead { line.len() } else { 0 };
        line.insert(number, place);
        drop(line);
        self.wake_in_time(place, others);
    }

    /// Wakes the waiter that has this many others before it when there is a permit for it.
    fn wake_in_time(&self, place: Place, others: usize) {
        if place.over.is_none() {
            let earliest = self.earliest_behind(others, self.now());
            context::with(|run| run.tree.borrow_mut().set_wait_timer(place.wait, earliest));
        }
    }

    /// Takes a permit for a waiter that was woken because there was one, if there still is and
    /// nobody before it waits.
    fn take_in_turn(&self, number: u64) -> bool {
        let now = self.now();
        let first = self.first();
        if first.is_some_and(|(first, _)| first < number) || self.earliest(now) > now {
            return false;
        }
        self.take(now);
        true
    }

    /// Removes a waiter from the line; the next may become the first.
    fn leave(&self, number: u64) {
        self.line.borrow_mut().remove(&number);
        if let Some((first, place)) = self.first() {
            if first > number {
                self.wake_in_time(place, 0);
            }
        }
    }
}

/// The future of [`RateLimiter::acquire`].
#[must_use = "futures do nothing unless polled"]
pub struct AcquireRate<'a> {
    limiter: &'a RateLimiter,
    standing: Option<Standing>,
}

/// What a future that waits for its permit holds.
struct Standing {
    number: u64,
    parked: Parked,
}

impl Future for AcquireRate<'_> {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let this = &mut *self;
        let limiter = this.limiter;
        let number = match &this.standing {
            None => {
                ready!(enter_operation(context))?;
                if limiter.try_acquire() {
                    return Poll::Ready(Ok(()));
                }
                let number = limiter.drawn.get();
                limiter.drawn.set(number + 1);
                number
            }
            Some(Standing { number, parked }) => {
                let number = *number;
                let Poll::Ready(cancelled) = parked.poll_woken(context) else {
                    // It may have been passed over on the way from a task that has ended to this
                    // one.
                    limiter.stand(number, Place::of(parked));
                    return Poll::Pending;
                };
                if cancelled.is_some() || limiter.take_in_turn(number) {
                    this.standing = None;
                    limiter.leave(number);
                    return Poll::Ready(cancelled.map_or(Ok(()), |it| Err(Error::cancelled(it))));
                }
                // The number of a wait that is over may be reused as soon as the wait is gone.
                limiter.line.borrow_mut().remove(&number);
                this.standing = None;
                number
            }
        };
        let parked = Parked::new(context, "RateLimiter");
        limiter.stand(number, Place::of(&parked));
        this.standing = Some(Standing { number, parked });
        Poll::Pending
    }
}

impl Drop for AcquireRate<'_> {
    fn drop(&mut self) {
        if let Some(Standing { number, .. }) = self.standing.take() {
            self.limiter.leave(number);
        }
    }
}

impl fmt::Debug for AcquireRate<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AcquireRate")
    }
}
