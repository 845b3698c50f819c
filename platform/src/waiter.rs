//! The wait of a driver, done by another thread than the driver's.
//!
//! Where a run is a guest on the loop of another library, its thread must not sleep in
//! [`Driver::turn`](crate::Driver::turn). Only a descriptor crosses to the thread that sleeps in its
//! place: one that becomes readable when a turn has something to collect, or when an
//! [`Unparker`](crate::Unparker) calls. The queues of the kernel stay with the thread that owns the
//! driver. A waiter may outlive its driver, and then waits until its time is up.

use std::fmt;
use std::io;
use std::time::Duration;

#[cfg(unix)]
use std::os::fd::OwnedFd;
#[cfg(unix)]
use std::sync::Arc;

#[cfg(unix)]
use rustix::event::{PollFd, PollFlags, Timespec, poll};
#[cfg(unix)]
use rustix::io::Errno;

/// What [`Driver::waiter`](crate::Driver::waiter) gives to another thread.
#[derive(Clone)]
pub struct Waiter {
    #[cfg(unix)]
    bell: Arc<OwnedFd>,
    /// What rings the bell. A thread that was woken looks whether the bell rings, and sleeps on if
    /// the driver has taken that away meanwhile.
    #[cfg(unix)]
    _ringer: Arc<dyn Send + Sync>,
}

impl Waiter {
    /// Waits on `bell`, which is readable when the driver has something to collect, and stays so for
    /// a wake as long as there is the `ringer`.
    #[cfg(unix)]
    pub(crate) fn new(bell: Arc<OwnedFd>, ringer: Arc<dyn Send + Sync>) -> Self {
        Self {
            bell,
            _ringer: ringer,
        }
    }

    /// Blocks this thread until the driver has something to collect or is woken, for at most
    /// `timeout`: to the nanosecond where the system counts these, else to the next millisecond. May
    /// return early without a reason.
    ///
    /// # Errors
    ///
    /// What the system says when it cannot wait.
    #[cfg(unix)]
    pub fn wait(&self, timeout: Option<Duration>) -> io::Result<()> {
        let mut bell = [PollFd::new(&self.bell, PollFlags::IN)];
        let timeout = timeout.map(timespec);
        match poll(&mut bell, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Fails: no driver of this system can be waited for from another thread.
    ///
    /// # Errors
    ///
    /// Always.
    #[cfg(not(unix))]
    pub fn wait(&self, _timeout: Option<Duration>) -> io::Result<()> {
        Err(unavailable())
    }
}

impl fmt::Debug for Waiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Waiter")
    }
}

/// Why a driver has no waiter.
pub(crate) fn unavailable() -> io::Error {
    io::Error::new(
        io::ErrorKind::Unsupported,
        "this driver cannot be waited for by another thread: use io_uring or polling, on a Unix",
    )
}

/// Nothing is rounded, because a wait that is too long makes a deadline late. A wait that is longer than
/// the system can count is cut short, and the caller comes back for the rest.
#[cfg(unix)]
fn timespec(timeout: Duration) -> Timespec {
    let timeout = timeout.min(LONGEST);
    Timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    }
}

/// As long as a wait is asked for at once: what counts milliseconds in an `int` has room for it.
#[cfg(unix)]
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn what_is_handed_to_the_system_is_not_rounded() {
        for (secs, nanos) in [
            (0, 0),
            (0, 1),
            (0, 100_000),
            (0, 1_000_001),
            (1, 500_000_001),
        ] {
            let handed = timespec(Duration::new(secs, nanos));
            let handed = (handed.tv_sec.to_string(), handed.tv_nsec.to_string());
            assert_eq!(handed, (secs.to_string(), nanos.to_string()));
        }
        assert_eq!(timespec(Duration::MAX).tv_sec, 24 * 60 * 60);
    }
}
