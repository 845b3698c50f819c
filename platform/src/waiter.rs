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
use std::os::fd::{AsRawFd, OwnedFd};
#[cfg(unix)]
use std::sync::Arc;

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
    /// `timeout`. May return early without a reason.
    ///
    /// # Errors
    ///
    /// What the system says when it cannot wait.
    #[cfg(unix)]
    pub fn wait(&self, timeout: Option<Duration>) -> io::Result<()> {
        let mut bell = libc::pollfd {
            fd: self.bell.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: the list has one entry, which lives on this stack until the call returns.
        let count = unsafe { libc::poll(&raw mut bell, 1, milliseconds(timeout)) };
        if count >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        match error.kind() {
            io::ErrorKind::Interrupted => Ok(()),
            _ => Err(error),
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

/// Rounded up, so that a deadline has come when the wait is over.
#[cfg(unix)]
fn milliseconds(timeout: Option<Duration>) -> libc::c_int {
    let Some(timeout) = timeout else { return -1 };
    let rounded = timeout.as_nanos().div_ceil(1_000_000);
    libc::c_int::try_from(rounded).unwrap_or(libc::c_int::MAX)
}
