//! Waking a ring from another thread, or from a signal handler.
//!
//! The ring keeps a multishot poll on an event descriptor, so that a write to the descriptor ends a
//! wait. A write is a system call; a flag makes it unnecessary while the driver is awake and is going
//! to look anyway.
//!
//! The flag has three values, and every change of it is one read-modify-write of one atomic:
//!
//! | By               | From             | To         | And then                              |
//! |------------------|------------------|------------|---------------------------------------|
//! | driver, waiting  | `AWAKE`          | `ASLEEP`   | enters the kernel to wait             |
//! | driver, waiting  | `NOTIFIED`       | `AWAKE`    | does not wait                         |
//! | driver, back     | any              | `AWAKE`    | looks at what it was woken for        |
//! | any thread       | any              | `NOTIFIED` | writes, if the flag was `ASLEEP`      |
//!
//! *No wake is lost.* All changes of one atomic have one order, in which a wake comes either before
//! the driver falls asleep or after. If before, the driver finds `NOTIFIED` and does not wait. If
//! after, but before the driver is back, the first such wake finds `ASLEEP` and writes. The poll
//! sees that write whenever it comes. A poll that is armed already reports it; a poll that is armed
//! later (at the latest by the very call that waits) finds the count above zero at once, because
//! nobody ever reads it down.
//!
//! *What the waker did before is seen.* Each change is sequentially consistent, so the change by
//! which the driver takes note of a wake happens after the wake, and therefore after everything that
//! the waker wrote before it.
//!
//! *If another thread waits* in the driver's place, a wake writes to the descriptor that this thread
//! waits for. The driver reads its count down after it has fallen asleep and before it looks for the
//! last time.
//!
//! A wake that wrote while the driver was on its way back for another reason leaves a completion
//! behind, which ends one later wait without cause.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

use io_uring::{opcode, squeue, types};
use rustix::event::{EventfdFlags, eventfd};

use crate::driver::{Unpark, Unparker};

/// The driver runs, or will look before it waits.
const AWAKE: u8 = 0;
/// The driver waits, or is about to: only a write wakes it.
const ASLEEP: u8 = 1;
/// The driver has been woken since it last looked.
const NOTIFIED: u8 = 2;

/// The driver's half.
#[derive(Debug)]
pub(super) struct Wakeup(Arc<Shared>);

/// What the driver and its wakers share. Outlives the driver as long as a waker is left, which then
/// finds `AWAKE` and wakes nobody.
#[derive(Debug)]
struct Shared {
    flag: AtomicU8,
    event: OwnedFd,
    /// What another thread waits for in the driver's place, once there is such a thread (`bell.rs`).
    bell: OnceLock<Arc<OwnedFd>>,
}

impl Wakeup {
    pub(super) fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let flag = AtomicU8::new(AWAKE);
        let bell = OnceLock::new();
        Ok(Self(Arc::new(Shared { flag, event, bell })))
    }

    /// The poll that ends a wait when the descriptor is written to.
    pub(super) fn entry(&self) -> squeue::Entry {
        let event = types::Fd(self.0.event.as_fd().as_raw_fd());
        opcode::PollAdd::new(event, libc::POLLIN as u32)
            .multi(true)
            .build()
    }

    /// Announces a wait. `false` if there was a wake since the last one: then do not wait.
    pub(super) fn fall_asleep(&self) -> bool {
        let asleep =
            self.0
                .flag
                .compare_exchange(AWAKE, ASLEEP, Ordering::SeqCst, Ordering::SeqCst);
        if asleep.is_ok() {
            return true;
        }
        self.be_awake();
        false
    }

    /// Whether there was a wake since the driver fell asleep.
    pub(super) fn is_called(&self) -> bool {
        self.0.flag.load(Ordering::SeqCst) == NOTIFIED
    }

    /// Announces that the wait is over, and takes note of every wake so far.
    pub(super) fn be_awake(&self) {
        self.0.flag.swap(AWAKE, Ordering::SeqCst);
    }

    /// From now on nobody waits in the ring: a wake rings `bell` instead.
    pub(super) fn ring_instead(&self, bell: Arc<OwnedFd>) {
        // There is one bell a ring.
        drop(self.0.bell.set(bell));
    }

    pub(super) fn unparker(&self) -> Unparker {
        Unparker::new(self.0.clone())
    }
}

impl Unpark for Shared {
    fn unpark(&self) {
        if self.flag.swap(NOTIFIED, Ordering::SeqCst) == ASLEEP {
            // Fails only if the count is at its end after 2^64 writes, and then the poll sees it
            // all the same. Does not touch `errno`, which a signal handler must leave alone, on the
            // architectures where the call is made without the C library.
            let event = self.bell.get().map_or(&self.event, |bell| bell);
            let _ = rustix::io::write(event, &1_u64.to_ne_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(wakeup: &Wakeup) -> bool {
        let mut count = [0; 8];
        rustix::io::read(&wakeup.0.event, &mut count).is_ok()
    }

    #[test]
    fn a_wake_of_a_driver_that_is_awake_costs_no_system_call() {
        let wakeup = Wakeup::new().unwrap();
        wakeup.unparker().unpark();
        assert!(!written(&wakeup));
        assert!(!wakeup.fall_asleep(), "the wake was before the wait");
        assert!(wakeup.fall_asleep(), "it ends one wait only");
    }

    #[test]
    fn many_wakes_of_a_sleeping_driver_write_once() {
        let wakeup = Wakeup::new().unwrap();
        assert!(wakeup.fall_asleep());
        wakeup.unparker().unpark();
        wakeup.unparker().unpark();
        assert!(written(&wakeup));
        assert_eq!(wakeup.0.flag.load(Ordering::SeqCst), NOTIFIED);
        wakeup.be_awake();
        assert!(wakeup.fall_asleep());
    }

    #[test]
    fn an_unparker_outlives_its_driver() {
        let unparker = Wakeup::new().unwrap().unparker();
        unparker.unpark();
    }
}
