//! Waking a driver that waits in its selector, from another thread or from a signal handler.
//!
//! 1. [`Wake::take`] is called whenever a turn that has waited ends, and nowhere else. So while
//!    `called` is set, the signal to the selector is on its way, or lies there, or has just ended
//!    the wait of a turn that is about to end: no second one is needed.
//! 2. Both sides go through `called` with a read-modify-write, so what a thread did before it
//!    called is seen after the turn that took the call.
//!
//! `polling` has a notifier of its own. Under kqueue it allocates memory, which a signal handler
//! must not; under epoll it costs two system calls a wait, called or not. So it serves Windows only,
//! where no signal interrupts a thread.

#[cfg(unix)]
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::driver::Unpark;

/// Ends the current or the next wait of a driver; outlives it without harm.
#[derive(Debug)]
pub(super) struct Wake {
    called: AtomicBool,
    signal: Signal,
}

impl Wake {
    /// A waker that nobody has called.
    #[cfg(unix)]
    pub(super) fn new() -> io::Result<Self> {
        let signal = Signal::new()?;
        let called = AtomicBool::new(false);
        Ok(Self { called, signal })
    }

    /// A waker that nobody has called.
    #[cfg(windows)]
    pub(super) fn new(poller: std::sync::Arc<polling::Poller>) -> Self {
        let called = AtomicBool::new(false);
        let signal = Signal(poller);
        Self { called, signal }
    }

    /// Whether there was a call, which has now been answered (rule 1).
    pub(super) fn take(&self) -> bool {
        self.called.swap(false, Ordering::SeqCst)
    }

    /// What becomes readable at a call.
    #[cfg(unix)]
    pub(super) fn readable_end(&self) -> std::os::fd::BorrowedFd<'_> {
        self.signal.readable_end()
    }

    /// Makes room for the next call.
    #[cfg(all(unix, not(target_os = "linux")))]
    pub(super) fn clear(&self) {
        self.signal.clear();
    }
}

impl Unpark for Wake {
    /// Does nothing but one atomic exchange and, at most, one system call that does not wait.
    /// Except on Linux that call may change `errno`, which every signal handler must restore.
    fn unpark(&self) {
        if !self.called.swap(true, Ordering::SeqCst) {
            self.signal.send();
        }
    }
}

/// An eventfd. The selector watches it for edges, and each write is one, so nobody reads it.
#[cfg(target_os = "linux")]
#[derive(Debug)]
struct Signal(std::os::fd::OwnedFd);

#[cfg(target_os = "linux")]
impl Signal {
    fn new() -> io::Result<Self> {
        use rustix::event::{EventfdFlags, eventfd};
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self(fd))
    }

    fn send(&self) {
        // Fails only when the count is full, after 2^64 calls.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    fn readable_end(&self) -> std::os::fd::BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&self.0)
    }
}

/// A pair of sockets. By rule 1 few bytes are ever under way, so a write never finds it full.
#[cfg(all(unix, not(target_os = "linux")))]
#[derive(Debug)]
struct Signal {
    write: std::os::unix::net::UnixStream,
    read: std::os::unix::net::UnixStream,
}

#[cfg(all(unix, not(target_os = "linux")))]
impl Signal {
    fn new() -> io::Result<Self> {
        let (write, read) = std::os::unix::net::UnixStream::pair()?;
        write.set_nonblocking(true)?;
        read.set_nonblocking(true)?;
        Ok(Self { write, read })
    }

    fn send(&self) {
        drop(io::Write::write(&mut &self.write, &[1]));
    }

    fn readable_end(&self) -> std::os::fd::BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&self.read)
    }

    fn clear(&self) {
        let mut bytes = [0; 64];
        while io::Read::read(&mut &self.read, &mut bytes).is_ok_and(|count| count > 0) {}
    }
}

/// The notifier of `polling`, a packet posted to the completion port.
#[cfg(windows)]
#[derive(Debug)]
struct Signal(std::sync::Arc<polling::Poller>);

#[cfg(windows)]
impl Signal {
    fn send(&self) {
        // Fails only for want of kernel memory; there is nobody to tell.
        drop(self.0.notify());
    }
}
