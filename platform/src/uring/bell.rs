//! Waiting for a ring without entering it.
//!
//! A ring with a single submitter may be entered only by that thread, and with `DEFER_TASKRUN` nothing
//! is posted before it enters. So a thread that waits in its place has to learn in another way that
//! entering is worth while: the kernel writes to an event descriptor when it posts a completion, and
//! when it puts off work that would post one.
//!
//! A wake by an unparker rings the same bell directly, without the ring (`wakeup.rs`). The kernel would
//! ring for a write to an event descriptor too, but some milliseconds later, from another context. Newer
//! kernels (seen in 6.18) do so only once for each registration, so each wait has a registration of its
//! own: otherwise a task that waits for an event descriptor of its own would hear of the first write only.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};

use super::ring::Ring;
use crate::waiter::Waiter;

/// Rings when entering the ring is worth while.
#[derive(Debug)]
pub(super) struct Bell(Arc<OwnedFd>);

impl Bell {
    /// Makes the kernel ring for `ring` as long as that is open.
    pub(super) fn register(ring: &Ring) -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let number = event.as_fd().as_raw_fd();
        ring.submitter().register_eventfd(number)?;
        Ok(Self(Arc::new(event)))
    }

    /// Takes note of what has rung so far, and has the kernel ring for what comes from now on.
    pub(super) fn rearm(&self, ring: &Ring) -> io::Result<()> {
        let number = self.0.as_fd().as_raw_fd();
        // Fails if there is no registration, because the last one failed.
        drop(ring.submitter().unregister_eventfd());
        ring.submitter().register_eventfd(number)?;
        // Fails if it has not rung.
        let _ = rustix::io::read(&*self.0, &mut [0; 8]);
        Ok(())
    }

    /// What is written to when it rings.
    pub(super) fn event(&self) -> Arc<OwnedFd> {
        self.0.clone()
    }

    pub(super) fn waiter(&self) -> Waiter {
        Waiter::new(self.0.clone(), self.0.clone())
    }
}
