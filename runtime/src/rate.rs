//! So many in a time, and no more: a limiter of rates, by the clock of the run.
//!
//! Where a semaphore bounds how much happens at once, this bounds how often something begins: requests to a service that counts them, lines in a
//! log.
//!
//! 1. Permits grow at an even pace, one each `per / rate`, up to as many as may be used at once.
//! 2. Who comes first is served first. While somebody waits nobody else gets a permit.
//! 3. Only the first in the line has a timer. Who leaves the line, cancelled or dropped, takes no permit
//!    along, and the next has the place. One that is forgotten half-way holds up those behind it until
//!    its task has ended and somebody else comes.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
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

/// Lets so many through in a time, evenly spaced and first come, first served.
///
/// Counts on the clock of the run that uses it: the next run finds it unused.
///
/// # Examples
///
/// ```
/// # trio_runtime::Builder::new().clock(trio_runtime::testing::MockClock::autojump()).run(async {
/// use std::time::Duration;
/// use trio_runtime::{RateLimiter, current_time};
///
/// let ten_a_second = RateLimiter::new(10, Duration::from_secs(1));
/// let start = current_time();
/// for _ in 0..21 {
///     ten_a_second.acquire().await?;
/// }
/// assert_eq!(current_time() - start, Duration::from_secs(2));
/// # Ok::<(), trio_runtime::Error>(()) }).unwrap();
/// ```
#[derive(Debug)]
pub struct RateLimiter {
    interval: Duration,
    /// How far ahead of the even pace permits may be taken.
    ahead: Duration,
    /// When the next permit would be due at the even pace.
    due: Cell<Time>,
    /// The run on whose clock that is.
    run: Cell<u64>,
    line: RefCell<VecDeque<Place>>,
    acquired: Cell<u64>,
}

/// A place in the line: a wait, and the run that has numbered it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    run: u64,
    wait: u32,
}

impl Place {
    fn of(parked: &Parked) -> Self {
        Self {
            run: parked.run().id,
            wait: parked.wait(),
        }
    }

    /// Whether nobody is going to come back for it, as seen from the `current` run.
    fn is_left(&self, current: Option<&Rc<Run>>) -> bool {
        let own = current.filter(|run| run.id == self.run && !run.has_ended());
        own.is_none_or(|run| run.tree.borrow().is_left(self.wait))
    }
}

/// How it stands with a [`RateLimiter`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RateLimiterStatistics {
    /// How many permits have been taken.
    pub acquired: u64,
    /// How many tasks wait for one.
    pub tasks_waiting: usize,
}

impl RateLimiter {
    /// Lets `rate` through in each `per`, one at a time.
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
            acquired: Cell::new(0),
        }
    }

    /// Lets up to `at_once` through without a pause between them, if so many permits have grown while
    /// nobody came; the rate in the long run is the same.
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
            parked: None,
        }
    }

    /// Takes a permit if there is one and nobody waits; tells whether.
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

    /// How many have come through, and how many wait.
    pub fn statistics(&self) -> RateLimiterStatistics {
        RateLimiterStatistics {
            acquired: self.acquired.get(),
            tasks_waiting: self.waiting(),
        }
    }

    fn waiting(&self) -> usize {
        let line = self.line.borrow();
        context::try_with(|run| line.iter().filter(|place| !place.is_left(run)).count())
    }

    /// When there is a permit; not after `now` if there is one.
    fn earliest(&self, now: Time) -> Time {
        match self.due.get().saturating_since(now).checked_sub(self.ahead) {
            Some(left) => now + left,
            None => now,
        }
    }

    fn take(&self, now: Time) {
        self.due.set(self.due.get().max(now) + self.interval);
        self.acquired.set(self.acquired.get() + 1);
    }

    /// The time, on the clock of the run that uses the limiter now: moments of one before mean nothing
    /// there.
    fn now(&self) -> Time {
        let (run, now) = context::with(|run| (run.id, run.now()));
        if self.run.replace(run) != run {
            self.due.set(Time::PAST);
        }
        now
    }

    /// Who is first in the line, past those whom a run or a task that has ended has left there.
    fn first(&self) -> Option<Place> {
        let mut passed = false;
        let first = context::try_with(|run| {
            let mut line = self.line.borrow_mut();
            while line.front().is_some_and(|place| place.is_left(run)) {
                line.pop_front();
                passed = true;
            }
            line.front().copied()
        });
        // Who was behind those had no timer.
        if let Some(first) = first.filter(|_| passed) {
            self.wake_in_time(first);
        }
        first
    }

    /// Puts somebody at the end of the line, who is not in it already.
    fn stand(&self, place: Place) {
        if self.line.borrow().contains(&place) {
            return;
        }
        let first = self.first().is_none();
        self.line.borrow_mut().push_back(place);
        if first {
            self.wake_in_time(place);
        }
    }

    /// The first in the line wakes up when there is a permit.
    fn set_timer(&self) {
        if let Some(first) = self.first() {
            self.wake_in_time(first);
        }
    }

    fn wake_in_time(&self, first: Place) {
        let earliest = self.earliest(self.now());
        context::with(|run| run.tree.borrow_mut().set_wait_timer(first.wait, earliest));
    }

    /// Somebody is not in the line any more.
    fn leave(&self, place: Place) {
        let first = {
            let mut line = self.line.borrow_mut();
            let first = line.front() == Some(&place);
            line.retain(|other| *other != place);
            first
        };
        if first {
            self.set_timer();
        }
    }
}

/// The future of [`RateLimiter::acquire`].
#[must_use = "futures do nothing unless polled"]
pub struct AcquireRate<'a> {
    limiter: &'a RateLimiter,
    parked: Option<Parked>,
}

impl Future for AcquireRate<'_> {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let this = &mut *self;
        let limiter = this.limiter;
        if let Some(parked) = &this.parked {
            let Poll::Ready(cancelled) = parked.poll_woken(context) else {
                // It may have been passed over on the way from a task that has ended to this one.
                parked.with(|_| limiter.stand(Place::of(parked)));
                return Poll::Pending;
            };
            if cancelled.is_none() {
                limiter.take(limiter.now());
            }
            limiter.leave(Place::of(parked));
            this.parked = None;
            return Poll::Ready(cancelled.map_or(Ok(()), |it| Err(Error::cancelled(it))));
        }
        ready!(enter_operation(context))?;
        if limiter.try_acquire() {
            return Poll::Ready(Ok(()));
        }
        let parked = Parked::new(context, "RateLimiter");
        limiter.stand(Place::of(&parked));
        this.parked = Some(parked);
        Poll::Pending
    }
}

impl Drop for AcquireRate<'_> {
    fn drop(&mut self) {
        if let Some(parked) = &self.parked {
            self.limiter.leave(Place::of(parked));
        }
    }
}

impl fmt::Debug for AcquireRate<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AcquireRate")
    }
}
