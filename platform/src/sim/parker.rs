//! How the thread of a simulated driver waits for real: for other threads, when nothing in the
//! simulated world is going to happen.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread};

use crate::driver::Unpark;

/// The waiting place of one driver.
#[derive(Debug)]
pub(super) struct Parker {
    /// The thread that made the driver, which is the one that runs it: a driver is not `Send`.
    thread: Thread,
    /// Whether an [`Unparker`](crate::Unparker) has called since the last turn looked.
    called: AtomicBool,
    /// Whether the thread waits, or is about to.
    waits: AtomicBool,
}

impl Parker {
    /// The waiting place of the current thread.
    pub(super) fn new() -> Self {
        Self {
            thread: thread::current(),
            called: AtomicBool::new(false),
            waits: AtomicBool::new(false),
        }
    }

    /// Whether an unparker has called; forgets it.
    pub(super) fn take_call(&self) -> bool {
        self.called.swap(false, Ordering::Acquire)
    }

    /// Announces that the thread is going to [wait](Parker::wait). From here on each
    /// [`Parker::nudge`] and each call of an unparker ends that wait. Said with the world locked,
    /// so that whoever changes the world afterwards sees it.
    pub(super) fn announce(&self) {
        self.waits.store(true, Ordering::Relaxed);
    }

    /// Waits until somebody calls or nudges; may return without a reason.
    pub(super) fn wait(&self) {
        if !self.called.load(Ordering::Acquire) {
            thread::park();
        }
        self.waits.store(false, Ordering::Relaxed);
    }

    /// Ends a wait without a call, because the world has changed. Called with the world locked.
    pub(super) fn nudge(&self) {
        if self.waits.load(Ordering::Relaxed) {
            self.thread.unpark();
        }
    }
}

impl Unpark for Parker {
    fn unpark(&self) {
        self.called.store(true, Ordering::Release);
        self.thread.unpark();
    }
}
