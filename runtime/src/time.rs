//! Sleeping, and the clocks that decide how long that takes.
//!
//! A sleep registers its wait when it is first polled, directly or by `select`, and keeps it until
//! it is over or dropped: a sleep that is passed to one `select` after another goes on. One that is
//! forgotten is woken in vain.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use trio_platform::Time;

use crate::channel::{Selectable, waiters::Place};
use crate::checkpoint::{enter_operation, enter_operation_in};
use crate::context;
use crate::error::{Error, Result};
use crate::wait::Parked;

/// Where a run takes the time from.
///
/// The system's monotonic clock unless the run was built with another; see
/// [`testing::MockClock`](crate::testing::MockClock).
pub trait Clock {
    /// The time now. Never goes back.
    fn now(&self) -> Time;

    /// How long to wait, in real time, until this clock shows `deadline`; [`Duration::MAX`] if it
    /// never will by itself.
    fn wait_until(&self, deadline: Time) -> Duration;

    /// How long, in real time, every task must have been blocked before the clock jumps to the next
    /// deadline by itself; `None` if it never does.
    fn autojump_threshold(&self) -> Option<Duration> {
        None
    }

    /// Jumps to `deadline`, because [`autojump_threshold`](Self::autojump_threshold) has been
    /// reached.
    fn autojump(&self, deadline: Time) {
        let _ = deadline;
    }
}

/// The time on the clock of this run.
///
/// It cannot be compared with the time of another run.
///
/// # Panics
///
/// Outside of a run.
///
/// # Examples
///
/// ```
/// # use trio_runtime as trio;
/// # trio::run(async {
/// use std::time::Duration;
/// use trio::{current_time, sleep};
///
/// let begun = current_time();
/// sleep(Duration::from_millis(2)).await?;
/// assert!(current_time() - begun >= Duration::from_millis(2));
/// # Ok::<(), trio::Error>(()) }).unwrap();
/// ```
#[track_caller]
pub fn current_time() -> Time {
    context::with(|run| run.now())
}

/// The earliest deadline of the scopes around the caller, up to the first shield:
/// [`Time::NEVER`] if there is none, [`Time::PAST`] if the caller has been cancelled.
///
/// # Panics
///
/// Outside of a run.
#[track_caller]
pub fn current_effective_deadline() -> Time {
    context::with(|run| run.effective_deadline())
}

/// Sleeps for `duration`, never less: it is counted from the end of the turn in which the sleep
/// begins.
///
/// It can be one of the operations of a [`select`](crate::select). To limit the time of a piece of
/// code, use [`move_on_after`](crate::move_on_after).
///
/// # Cancellation
///
/// A checkpoint, also for a duration of zero.
///
/// # Errors
///
/// `Cancelled` only.
///
/// # Panics
///
/// Outside of a run.
///
/// # Examples
///
/// ```
/// # use trio_runtime as trio;
/// # trio::run(async {
/// let before = trio::current_time();
/// trio::sleep(std::time::Duration::from_millis(2)).await?;
/// assert!(trio::current_time() - before >= std::time::Duration::from_millis(2));
/// # Ok::<(), trio::Error>(()) }).unwrap();
/// ```
pub fn sleep(duration: Duration) -> Sleep {
    Sleep {
        until: Until::After(duration),
        parked: None,
    }
}

/// Sleeps until the clock of this run shows `deadline`; if it does already, this is just a
/// checkpoint.
///
/// # Cancellation
///
/// A checkpoint.
///
/// # Errors
///
/// `Cancelled` only.
///
/// # Examples
///
/// ```
/// # use trio_runtime as trio;
/// # trio::run(async {
/// use std::time::Duration;
/// use trio::{current_time, sleep_until};
///
/// let mut next = current_time();
/// for _ in 0..3 {
///     next = next + Duration::from_millis(1); // an even pace, however long a round takes
///     sleep_until(next).await?;
/// }
/// # Ok::<(), trio::Error>(()) }).unwrap();
/// ```
pub fn sleep_until(deadline: Time) -> Sleep {
    Sleep {
        until: Until::At(deadline),
        parked: None,
    }
}

/// Sleeps until cancelled: never returns `Ok`.
///
/// # Cancellation
///
/// The only way out.
///
/// # Errors
///
/// `Cancelled` only.
pub fn sleep_forever() -> SleepForever {
    SleepForever { parked: None }
}

/// The future of [`sleep`] and [`sleep_until`].
#[must_use = "futures do nothing unless polled"]
pub struct Sleep {
    until: Until,
    parked: Option<Parked>,
}

enum Until {
    /// After the first poll.
    After(Duration),
    At(Time),
    /// What is left is to yield once and to look, as [`checkpoint`](crate::checkpoint()) does.
    Yielded,
}

impl Future for Sleep {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        if self.parked.is_some() {
            let cancelled = ready!(Parked::poll_ended(&mut self.parked, context));
            return Poll::Ready(cancelled.map_or(Ok(()), |it| Err(Error::cancelled(it))));
        }
        if let Until::Yielded = self.until {
            return enter_operation(context);
        }
        ready!(enter_operation(context))?;
        if !self.begin(context) {
            self.until = Until::Yielded;
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl Sleep {
    /// Registers the wait; `false` if there is nothing to wait for.
    #[inline]
    fn begin(&mut self, context: &Context<'_>) -> bool {
        self.parked = context::with(|run| {
            let deadline = match self.until {
                // Counted from the end of this turn: one reading of the clock is enough for all
                // such sleeps.
                Until::After(duration) if !duration.is_zero() && !run.is_virtual() => {
                    let parked = Parked::in_run(run, context, "sleep");
                    parked.after(duration);
                    return Some(parked);
                }
                Until::After(duration) => run.now() + duration,
                Until::At(deadline) => deadline,
                Until::Yielded => return None,
            };
            if deadline <= run.now() {
                return None;
            }
            let parked = Parked::in_run(run, context, "sleep");
            parked.until(deadline);
            Some(parked)
        });
        self.parked.is_some()
    }
}

/// As one of several that [`select`](crate::select) chooses from: anything else that comes in the
/// same turn takes precedence.
///
/// It has a wait of its own beside that of the choice. This is harmless because a sleep takes
/// nothing from anybody: the other futures see that it has ended by looking.
impl Selectable for Sleep {
    type Output = Result<()>;

    const REMOTE: bool = false;

    fn attempt(&mut self) -> Option<Result<()>> {
        let is_over = match (&self.parked, &self.until) {
            (Some(parked), _) => parked.is_over(),
            (None, Until::After(duration)) => duration.is_zero(),
            (None, Until::At(deadline)) => context::with(|run| *deadline <= run.now()),
            (None, Until::Yielded) => true,
        };
        if !is_over {
            return None;
        }
        self.until = Until::Yielded;
        let cancelled = self.parked.take().and_then(|parked| parked.cancelled());
        Some(cancelled.map_or(Ok(()), |it| Err(Error::cancelled(it))))
    }

    fn enlist(&mut self, place: &Place<'_>) -> bool {
        let context = Context::from_waker(place.waker());
        match &self.parked {
            Some(parked) => {
                parked.refresh(&context);
                true
            }
            None => self.begin(&context),
        }
    }

    fn withdraw(&mut self) -> Option<Result<()>> {
        None
    }

    fn abandon(&mut self) {}

    fn is_settled(&mut self, waker: &Waker) -> bool {
        let parked = self.parked.as_ref();
        parked.is_some_and(|parked| {
            parked.refresh(&Context::from_waker(waker));
            parked.is_over()
        })
    }
}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sleep")
    }
}

/// The future of [`sleep_forever`].
#[must_use = "futures do nothing unless polled"]
pub struct SleepForever {
    parked: Option<Parked>,
}

impl Future for SleepForever {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        if self.parked.is_none() {
            return self.begin(context);
        }
        let cancelled = ready!(Parked::poll_ended(&mut self.parked, context));
        let cancelled = cancelled.expect("only a cancellation ends it");
        Poll::Ready(Err(Error::cancelled(cancelled)))
    }
}

impl SleepForever {
    /// The first poll. Not inlined, so that later polls need not save the registers that this one
    /// uses.
    #[inline(never)]
    fn begin(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        context::with(|run| {
            ready!(enter_operation_in(run, context))?;
            self.parked = Some(Parked::in_run(run, context, "sleep_forever"));
            Poll::Pending
        })
    }
}

impl fmt::Debug for SleepForever {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SleepForever")
    }
}
