//! Readiness through the `polling` crate: epoll, kqueue or IOCP.
//!
//! Edges where the system has them, else one report at a time, which has to be asked for again.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use polling::{Event, Events, PollMode, Poller};

use super::selector::{EVENTS_MAX, Interests, Report};
use super::source::Raw;
use super::wake::Wake;
use crate::fd::Descriptor;

#[cfg(unix)]
use super::selector::WAKE_KEY;

/// A poller and its waker.
pub(super) struct Portable {
    poller: Arc<Poller>,
    mode: PollMode,
    events: RefCell<Events>,
    wake: Arc<Wake>,
}

impl Portable {
    /// Watches for edges if the system has them and `edges` does not forbid it.
    pub(super) fn new(edges: bool) -> io::Result<Self> {
        let poller = Arc::new(Poller::new()?);
        let mode = if edges && poller.supports_edge() {
            PollMode::Edge
        } else {
            PollMode::Oneshot
        };
        let events = RefCell::new(Events::with_capacity(EVENTS_MAX));
        #[cfg(unix)]
        let wake = Arc::new(Wake::new()?);
        #[cfg(windows)]
        let wake = Arc::new(Wake::new(poller.clone()));
        #[cfg(unix)]
        {
            let number = std::os::fd::AsRawFd::as_raw_fd(&wake.readable_end());
            let event = Event::readable(WAKE_KEY);
            // SAFETY: the source must be deleted before it is dropped. `Portable` holds the waker,
            // and deletes it in its own drop.
            unsafe { poller.add_with_mode(number, event, PollMode::Edge) }?;
        }
        Ok(Self {
            poller,
            mode,
            events,
            wake,
        })
    }

    /// Another number for the same epoll or kqueue.
    #[cfg(unix)]
    pub(super) fn try_clone_descriptor(&self) -> io::Result<std::os::fd::OwnedFd> {
        std::os::fd::AsFd::as_fd(&*self.poller).try_clone_to_owned()
    }

    pub(super) fn is_one_shot(&self) -> bool {
        self.mode == PollMode::Oneshot
    }

    pub(super) fn wake(&self) -> &Arc<Wake> {
        &self.wake
    }

    pub(super) fn add(&self, raw: Raw, key: usize, interests: Interests) -> io::Result<()> {
        // SAFETY: the source must be deleted before it is dropped. `Selector::add` demands it, and
        // the only caller leaves a `Registry` with the descriptor, which the drop of its `Inner` calls
        // before it drops the object that closes (`fd.rs`), and which calls `Selector::remove`.
        unsafe {
            self.poller
                .add_with_mode(raw, event(key, interests), self.mode)
        }
    }

    pub(super) fn modify(
        &self,
        descriptor: &Descriptor,
        key: usize,
        interests: Interests,
    ) -> io::Result<()> {
        self.poller
            .modify_with_mode(descriptor, event(key, interests), self.mode)
    }

    pub(super) fn remove(&self, raw: Raw) {
        // SAFETY: the number must be that of a descriptor that stays open meanwhile. It is: the only
        // caller has it from an object that it is lent (`Registry::forget`).
        #[cfg(unix)]
        let source = unsafe { std::os::fd::BorrowedFd::borrow_raw(raw) };
        // SAFETY: as above.
        #[cfg(windows)]
        let source = unsafe { std::os::windows::io::BorrowedSocket::borrow_raw(raw) };
        // Fails only for a source that was never added, and then there is nothing to remove.
        drop(self.poller.delete(source));
    }

    pub(super) fn wait(
        &self,
        timeout: Option<Duration>,
        mut react: impl FnMut(Report),
    ) -> io::Result<()> {
        let mut events = self.events.borrow_mut();
        events.clear();
        // Interrupted waits go on inside, and times are rounded up.
        self.poller.wait(&mut events, timeout)?;
        for event in events.iter() {
            #[cfg(unix)]
            if event.key == WAKE_KEY {
                #[cfg(not(target_os = "linux"))]
                self.wake.clear();
                continue;
            }
            react(Report {
                key: event.key,
                readable: event.readable,
                writable: event.writable,
                // `polling` does not tell.
                plain: false,
            });
        }
        Ok(())
    }
}

impl std::fmt::Debug for Portable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Portable")
            .field("poller", &self.poller)
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

#[cfg(unix)]
impl Drop for Portable {
    fn drop(&mut self) {
        drop(self.poller.delete(self.wake.readable_end()));
    }
}

fn event(key: usize, interests: Interests) -> Event {
    Event::new(key, interests.readable, interests.writable)
}
