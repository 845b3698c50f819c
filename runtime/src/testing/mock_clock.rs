//! A clock that a test moves: by hand, at a rate, or by itself when everybody waits.
//!
//! 1. The clock shows `base + rate × real time since the base was taken`. Changing the rate, and
//!    jumping, take a new base, so that time never goes back and never skips on its own.
//! 2. With a rate of zero, the default, real time does not matter, and arithmetic is exact.
//! 3. The clock knows no run, and creating one affects nothing: a run that was built with it reads
//!    its settings in each turn.
//! 4. A clone is the same clock. It may outlive its run, and serve a second one.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use trio_platform::{SystemClock, Time};

use crate::context;
use crate::time::Clock;

/// A clock under the control of a test; clones are the same clock.
///
/// It starts at an arbitrary time and stands still, unless it is given a [rate](Self::set_rate).
/// With an autojump threshold it jumps to the next deadline by itself once every task has been
/// blocked for that long, in real time. Zero is right unless the test waits for something outside
/// the run: threads, other processes, the kernel's side of a socket. Those are not tasks, and a
/// clock that jumps at once does not wait for them; a threshold of some milliseconds does.
///
/// A task that waits for all others to be blocked
/// ([`wait_all_tasks_blocked`](super::wait_all_tasks_blocked)) is served before a jump.
///
/// # Examples
///
/// ```
/// # use trio_runtime as trio;
/// use std::time::Duration;
/// use trio::{Builder, current_time, sleep};
/// use trio::testing::MockClock;
///
/// Builder::new().clock(MockClock::autojump()).run(async {
///     let before = current_time();
///     sleep(Duration::from_secs(3600)).await?; // takes no time at all
///     assert_eq!(current_time() - before, Duration::from_secs(3600));
///     Ok::<(), trio::Error>(())
/// }).unwrap();
/// ```
#[derive(Clone)]
pub struct MockClock(Rc<Inner>);

struct Inner {
    /// What the clock showed when the base was taken.
    base: Cell<Time>,
    /// When that was, in real time; only used if there is a rate.
    real: Cell<Time>,
    rate: Cell<f64>,
    threshold: Cell<Option<Duration>>,
    system: SystemClock,
}

/// Far enough from the origin that a deadline in the past can be distinguished from [`Time::PAST`].
const START: Time = Time::from_nanos(1_000_000_000_000);

impl MockClock {
    /// A clock that only [`jump`](Self::jump) moves.
    pub fn new() -> Self {
        Self(Rc::new(Inner {
            base: Cell::new(START),
            real: Cell::new(Time::PAST),
            rate: Cell::new(0.0),
            threshold: Cell::new(None),
            system: SystemClock::new(),
        }))
    }

    /// A clock that jumps to the next deadline as soon as every task is blocked.
    pub fn autojump() -> Self {
        let clock = Self::new();
        clock.set_autojump_threshold(Some(Duration::ZERO));
        clock
    }

    /// Moves the clock on. Deadlines that this passes take effect in the next turn of the loop.
    pub fn jump(&self, by: Duration) {
        self.rebase(self.now() + by);
    }

    /// How fast the clock goes, in its seconds per second of real time; zero means that it stands
    /// still.
    pub fn rate(&self) -> f64 {
        self.0.rate.get()
    }

    /// Lets the clock run at `rate` from now on, starting from the time that it shows now.
    ///
    /// # Panics
    ///
    /// If `rate` is negative, infinite or not a number.
    ///
    /// # Examples
    ///
    /// ```
    /// # use trio_runtime as trio;
    /// use std::time::Duration;
    /// use trio::{Builder, sleep};
    /// use trio::testing::MockClock;
    ///
    /// let clock = MockClock::new();
    /// clock.set_rate(1000.0);
    /// Builder::new().clock(clock).run(sleep(Duration::from_secs(2))).unwrap(); // two milliseconds
    /// ```
    #[track_caller]
    pub fn set_rate(&self, rate: f64) {
        assert!(
            rate.is_finite() && rate >= 0.0,
            "the rate of a clock is a finite number of seconds a second, zero or more, not {rate}"
        );
        self.rebase(self.now());
        self.0.rate.set(rate);
    }

    /// How long every task must have been blocked, in real time, for a jump; `None` for never.
    pub fn set_autojump_threshold(&self, threshold: Option<Duration>) {
        self.0.threshold.set(threshold);
        stir();
    }

    fn rebase(&self, now: Time) {
        self.0.base.set(now);
        self.0.real.set(self.0.system.now());
        stir();
    }
}

/// Wakes a run that is a guest and may wait by the old settings; a run with another clock is woken
/// in vain.
fn stir() {
    context::try_with(|run| {
        if let Some(run) = run {
            run.stir();
        }
    });
}

impl Default for MockClock {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MockClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MockClock")
            .field("now", &self.now())
            .field("rate", &self.rate())
            .field("autojump_threshold", &self.0.threshold.get())
            .finish()
    }
}

impl Clock for MockClock {
    fn now(&self) -> Time {
        let Inner {
            base, real, rate, ..
        } = &*self.0;
        if rate.get() == 0.0 {
            return base.get();
        }
        let passed = self.0.system.now() - real.get();
        // A deadline beyond the largest duration does not matter.
        let passed = Duration::try_from_secs_f64(passed.as_secs_f64() * rate.get());
        base.get() + passed.unwrap_or(Duration::MAX)
    }

    fn wait_until(&self, deadline: Time) -> Duration {
        let left = deadline - self.now();
        if left.is_zero() {
            return Duration::ZERO;
        }
        // Infinite without a rate. Rounded up, so that the deadline has come when the wait is over.
        let wait = Duration::try_from_secs_f64(left.as_secs_f64() / self.rate());
        wait.map_or(Duration::MAX, |wait| {
            wait.saturating_add(Duration::from_nanos(1))
        })
    }

    fn autojump_threshold(&self) -> Option<Duration> {
        self.0.threshold.get()
    }

    fn autojump(&self, deadline: Time) {
        self.rebase(self.now().max(deadline));
    }
}
