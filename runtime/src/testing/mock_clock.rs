//! A clock that stands still until it is told to jump, or until everybody waits.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use trio_platform::Time;

use crate::time::Clock;

/// A clock under the control of a test; clones are the same clock.
///
/// Starts at an arbitrary moment and stands still. With an autojump threshold it jumps to the next
/// deadline by itself once every task has been blocked for so long, in real time: zero is right
/// unless the test waits for real I/O.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use trio_runtime::{Builder, current_time, sleep};
/// use trio_runtime::testing::MockClock;
///
/// Builder::new().clock(MockClock::autojump()).run(async {
///     let before = current_time();
///     sleep(Duration::from_secs(3600)).await?; // takes no time at all
///     assert_eq!(current_time() - before, Duration::from_secs(3600));
///     Ok::<(), trio_runtime::Error>(())
/// }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct MockClock(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    now: Cell<Time>,
    threshold: Cell<Option<Duration>>,
}

/// Far enough from the origin that a deadline in the past can be told from [`Time::PAST`].
const START: Time = Time::from_nanos(1_000_000_000_000);

impl MockClock {
    /// A clock that only [`jump`](Self::jump) moves.
    pub fn new() -> Self {
        Self(Rc::new(Inner {
            now: Cell::new(START),
            threshold: Cell::new(None),
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
        self.0.now.set(self.0.now.get() + by);
    }

    /// How long every task must have been blocked, in real time, for a jump; `None` for never.
    pub fn set_autojump_threshold(&self, threshold: Option<Duration>) {
        self.0.threshold.set(threshold);
    }
}

impl Default for MockClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for MockClock {
    fn now(&self) -> Time {
        self.0.now.get()
    }

    fn wait_until(&self, deadline: Time) -> Duration {
        if deadline <= self.now() {
            Duration::ZERO
        } else {
            Duration::MAX
        }
    }

    fn autojump_threshold(&self) -> Option<Duration> {
        self.0.threshold.get()
    }

    fn autojump(&self, deadline: Time) {
        self.0.now.set(self.0.now.get().max(deadline));
    }
}
