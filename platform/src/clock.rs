//! The one place that reads time, and the type in which every deadline is kept.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;
#[cfg(doc)]
use std::time::Instant;

/// A moment on the clock of one run, in nanoseconds since an origin that only that clock knows.
///
/// Times of different runs cannot be compared in any useful way: each system clock starts at an
/// origin of its own. Arithmetic saturates, so [`Time::NEVER`] stays never, whatever is added.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// # use trio_platform as trio;
/// use trio::Time;
///
/// let later = Time::PAST + Duration::from_secs(2);
/// assert_eq!(later - Time::PAST, Duration::from_secs(2));
/// assert_eq!(Time::NEVER + Duration::from_secs(1), Time::NEVER);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// The deadline that never comes; Trio's positive infinity.
    pub const NEVER: Self = Self(u64::MAX);

    /// The deadline that is always due; Trio's negative infinity.
    pub const PAST: Self = Self(0);

    /// The moment `nanos` nanoseconds after the origin of the clock.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the origin of the clock.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to `self`, or zero if `self` is not later.
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NEVER => f.write_str("Time(never)"),
            Self::PAST => f.write_str("Time(past)"),
            Self(nanos) => write!(f, "Time({:?})", Duration::from_nanos(nanos)),
        }
    }
}

impl Add<Duration> for Time {
    type Output = Self;

    fn add(self, after: Duration) -> Self {
        let nanos = u64::try_from(after.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }
}

impl Sub<Duration> for Time {
    type Output = Self;

    fn sub(self, before: Duration) -> Self {
        if self == Self::NEVER {
            return self;
        }
        let nanos = u64::try_from(before.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_sub(nanos))
    }
}

impl Sub for Time {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.saturating_since(earlier)
    }
}

/// The system's monotonic clock, counted from an origin that differs from clock to clock.
///
/// The origin lies between 10,000 and 200,000 seconds in the past, at random, so that a program
/// that mixes up the times of two runs, or takes them for seconds since start, is found out early.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    /// What is added to the system's time.
    shift: u64,
}

impl SystemClock {
    /// A clock that runs from now on.
    pub fn new() -> Self {
        use std::hash::{BuildHasher, RandomState};
        let spread = RandomState::new().hash_one(0_u8) % 190_000_000_000_000;
        let origin = 10_000_000_000_000 + spread;
        Self {
            shift: origin.wrapping_sub(monotonic()),
        }
    }

    /// The time on this clock.
    #[inline]
    pub fn now(&self) -> Time {
        Time(monotonic().wrapping_add(self.shift))
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

/// The system's monotonic time in nanoseconds, from whatever it counts from; it wraps after 584 years.
///
/// A run under load reads it once a turn. What [`Instant`] does with it, to seconds and nanoseconds and
/// back, took a quarter of that: 54 ns where this takes 42.
#[cfg(target_os = "linux")]
#[inline]
#[expect(clippy::cast_sign_loss, reason = "the time since the system began")]
fn monotonic() -> u64 {
    // Not by rustix, which looks for the kernel's page by itself, and finds none under valgrind.
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: what is behind the pointer is ours, and of the type that is written there.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    debug_assert_eq!(failed, 0, "every Linux has this clock");
    (now.tv_sec as u64)
        .wrapping_mul(1_000_000_000)
        .wrapping_add(now.tv_nsec as u64)
}

/// The same where [`Instant`] is what there is.
#[cfg(not(target_os = "linux"))]
#[allow(clippy::disallowed_methods)] // this is the one place that reads the clock
fn monotonic() -> u64 {
    use std::sync::OnceLock;
    use std::time::Instant;
    static FIRST: OnceLock<Instant> = OnceLock::new();
    let since = FIRST.get_or_init(Instant::now).elapsed();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
