//! Readiness through epoll without anything in between.
//!
//! `polling` keeps time by a timerfd and re-arms its notifier after each wait: five system calls
//! where one is enough. It also hides what makes the short cut below safe. This file does the same
//! for Linux in the fewest calls; `selector.rs` hides the difference.
//!
//! # When a short transfer is as good as `WouldBlock`
//!
//! epoll(7) grants that a stream socket which took or gave fewer bytes than asked for is drained,
//! and that the next edge is reported. Two things may hide behind the short transfer without a
//! further edge: an end of file or an error that arrived together with the data, and urgent data,
//! at whose mark a read stops short. For TCP each of them can be recognised:
//!
//! * Whatever arrives after the report that led to the transfer is an edge of its own, and will be
//!   reported: epoll takes a file off its ready list *before* it looks at the file's state.
//! * Whatever arrived before is in the flags of that report, or of an earlier one: the peer's end as
//!   `RDHUP`, everything fatal as `HUP` or `ERR`, urgent data as `PRI`. Such a report is not
//!   [`plain`](super::selector::Report::plain), and ends the short cut for good.
//! * A short send has passed the place in the kernel that asks to be told about room
//!   (`SOCK_NOSPACE`), as one that failed with `EAGAIN` has.
//!
//! Other sockets stop short for reasons of their own (a Unix socket at each message that carries
//! descriptors), so the short cut is for TCP only.

use std::cell::RefCell;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{CreateFlags, Event, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::io::Errno;
use socket2::Protocol;

use super::selector::{EVENTS_MAX, Interests, Report, WAKE_KEY};
use super::wake::Wake;
use crate::fd::Descriptor;

/// An epoll instance and its waker.
pub(super) struct Epoll {
    epoll: OwnedFd,
    wake: Arc<Wake>,
    events: RefCell<Vec<Event>>,
}

impl Epoll {
    pub(super) fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let wake = Arc::new(Wake::new()?);
        let data = EventData::new_u64(WAKE_KEY as u64);
        let flags = EventFlags::IN | EventFlags::ET;
        epoll::add(&epoll, wake.readable_end(), data, flags)?;
        let events = RefCell::new(Vec::with_capacity(EVENTS_MAX.get()));
        Ok(Self {
            epoll,
            wake,
            events,
        })
    }

    pub(super) fn wake(&self) -> &Arc<Wake> {
        &self.wake
    }

    /// Another number for the same instance.
    pub(super) fn try_clone_descriptor(&self) -> io::Result<OwnedFd> {
        self.epoll.try_clone()
    }

    /// Whether short transfers on `descriptor` may be trusted until a report says otherwise.
    pub(super) fn drains(&self, descriptor: &Descriptor) -> bool {
        let protocol = descriptor.socket().and_then(|socket| socket.protocol());
        matches!(protocol, Ok(Some(Protocol::TCP)))
    }

    pub(super) fn add(
        &self,
        descriptor: &Descriptor,
        key: usize,
        interests: Interests,
    ) -> io::Result<()> {
        let data = EventData::new_u64(key as u64);
        epoll::add(&self.epoll, descriptor, data, flags(interests))?;
        Ok(())
    }

    pub(super) fn modify(
        &self,
        descriptor: &Descriptor,
        key: usize,
        interests: Interests,
    ) -> io::Result<()> {
        let data = EventData::new_u64(key as u64);
        epoll::modify(&self.epoll, descriptor, data, flags(interests))?;
        Ok(())
    }

    pub(super) fn remove(&self, raw: std::os::fd::RawFd) {
        // SAFETY: the number must be that of a descriptor that stays open meanwhile. It is: the only
        // caller has it from an object that it is lent (`Registry::forget`).
        let source = unsafe { BorrowedFd::borrow_raw(raw) };
        // Fails only for a source that was never added, and then there is nothing to remove.
        let _ = epoll::delete(&self.epoll, source);
    }

    #[inline]
    pub(super) fn wait(
        &self,
        timeout: Option<Duration>,
        mut react: impl FnMut(Report),
    ) -> io::Result<()> {
        let timeout = timeout.map(|timeout| self.wait_finely(timeout));
        let mut events = self.events.borrow_mut();
        events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut *events), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in events.iter() {
            let key = event.data.u64() as usize;
            if key != WAKE_KEY {
                react(report(key, event.flags));
            }
        }
        Ok(())
    }

    /// If `timeout` is short, waits until there is something to take or it is over, to the nanosecond;
    /// gives how long is left to wait, in whatever the call counts.
    ///
    /// `epoll_wait` counts in milliseconds, and `epoll_pwait2` is newer than the sandboxes in which
    /// this driver runs. An error ends the wait early; what is behind it, the next call says.
    #[inline(never)]
    fn wait_finely(&self, timeout: Duration) -> Timespec {
        if timeout.is_zero() || timeout >= COARSE {
            // The call counts milliseconds in an int; the caller comes back for the rest.
            return timespec(timeout.min(LONGEST));
        }
        let mut ready = [PollFd::new(&self.epoll, PollFlags::IN)];
        let _ = poll(&mut ready, Some(&timespec(timeout)));
        timespec(Duration::ZERO)
    }
}

impl std::fmt::Debug for Epoll {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Epoll").field(&self.epoll).finish()
    }
}

fn flags(interests: Interests) -> EventFlags {
    let mut flags = EventFlags::ET;
    if interests.readable {
        flags |= EventFlags::IN | EventFlags::RDHUP | EventFlags::PRI;
    }
    if interests.writable {
        flags |= EventFlags::OUT;
    }
    flags
}

fn report(key: usize, flags: EventFlags) -> Report {
    let fatal = EventFlags::HUP | EventFlags::ERR;
    let odd = fatal | EventFlags::RDHUP | EventFlags::PRI;
    Report {
        key,
        readable: flags.intersects(EventFlags::IN | odd),
        writable: flags.intersects(EventFlags::OUT | fatal),
        plain: !flags.intersects(odd),
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}

/// From here on a millisecond of rounding matters less than a system call.
const COARSE: Duration = Duration::from_millis(16);

/// As long as a wait is asked for at once.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
