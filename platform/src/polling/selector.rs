//! What tells the driver that a descriptor is ready: epoll under Linux, elsewhere the `polling` crate.
//!
//! Server CPU a message of an echo, in units of a bare epoll loop, was 1.0 through `epoll.rs` and 1.15
//! to 1.3 through `polling` on the same machine, which is why there are two. The tests run on both, so
//! that what serves the other systems is tested under Linux too.

use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

#[cfg(target_os = "linux")]
use super::epoll::Epoll;
#[cfg(any(test, not(target_os = "linux")))]
use super::portable::Portable;
use super::source::Raw;
use super::wake::Wake;
use crate::fd::Descriptor;

/// How readiness is learned.
#[derive(Debug)]
pub(super) enum Selector {
    /// By epoll, with nothing in between.
    #[cfg(target_os = "linux")]
    Epoll(Epoll),
    /// By whatever the system has, through the `polling` crate.
    #[cfg(any(test, not(target_os = "linux")))]
    Portable(Portable),
}

/// What is to be reported of a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Interests {
    pub(super) readable: bool,
    pub(super) writable: bool,
}

/// One report of the system.
#[derive(Clone, Copy, Debug)]
pub(super) struct Report {
    /// Which source this is about, in the words of [`Sources::key`](super::source::Sources::key).
    pub(super) key: usize,
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// Whether there is known to be nothing else to report: no end, no error, no urgent data.
    pub(super) plain: bool,
}

impl Selector {
    /// The best of this system.
    pub(super) fn new() -> io::Result<Self> {
        #[cfg(target_os = "linux")]
        return Epoll::new().map(Self::Epoll);
        #[cfg(not(target_os = "linux"))]
        return Portable::new(true).map(Self::Portable);
    }

    /// Whether a report ends the interest in its descriptor.
    pub(super) fn is_one_shot(&self) -> bool {
        match self {
            #[cfg(target_os = "linux")]
            Self::Epoll(_) => false,
            #[cfg(any(test, not(target_os = "linux")))]
            Self::Portable(portable) => portable.is_one_shot(),
        }
    }

    /// Whether [`Source::drains`](super::source::Source::drains) holds for a new source.
    pub(super) fn drains(&self, descriptor: &Descriptor) -> bool {
        match self {
            #[cfg(target_os = "linux")]
            Self::Epoll(epoll) => epoll.drains(descriptor),
            #[cfg(any(test, not(target_os = "linux")))]
            Self::Portable(_) => {
                let _ = descriptor;
                false
            }
        }
    }

    /// Reports `interests` of `descriptor` from now on, and first if they are met already.
    ///
    /// [`Selector::remove`] must be called before the descriptor is closed.
    pub(super) fn add(
        &self,
        descriptor: &Descriptor,
        raw: Raw,
        key: usize,
        interests: Interests,
    ) -> io::Result<()> {
        match self {
            #[cfg(target_os = "linux")]
            Self::Epoll(epoll) => {
                let _ = raw;
                epoll.add(descriptor, key, interests)
            }
            #[cfg(any(test, not(target_os = "linux")))]
            Self::Portable(portable) => {
                let _ = descriptor;
                portable.add(raw, key, interests)
            }
        }
    }

    /// Reports `interests` of `descriptor` from now on, and again if they are met already.
    pub(super) fn modify(
        &self,
        descriptor: &Descriptor,
        key: usize,
        interests: Interests,
    ) -> io::Result<()> {
        match self {
            #[cfg(target_os = "linux")]
            Self::Epoll(epoll) => epoll.modify(descriptor, key, interests),
            #[cfg(any(test, not(target_os = "linux")))]
            Self::Portable(portable) => portable.modify(descriptor, key, interests),
        }
    }

    /// Reports nothing more of the descriptor with this number, which is still open.
    pub(super) fn remove(&self, raw: Raw) {
        match self {
            #[cfg(target_os = "linux")]
            Self::Epoll(epoll) => epoll.remove(raw),
            #[cfg(any(test, not(target_os = "linux")))]
            Self::Portable(portable) => portable.remove(raw),
        }
    }

    /// Waits for at least one report or a call of [`Selector::wake`], for at most `timeout`, and
    /// hands each report out. May return before its time without any.
    #[inline]
    pub(super) fn wait(
        &self,
        timeout: Option<Duration>,
        react: impl FnMut(Report),
    ) -> io::Result<()> {
        match self {
            #[cfg(target_os = "linux")]
            Self::Epoll(epoll) => epoll.wait(timeout, react),
            #[cfg(any(test, not(target_os = "linux")))]
            Self::Portable(portable) => portable.wait(timeout, react),
        }
    }

    /// A descriptor that is readable while there is a report to take.
    #[cfg(unix)]
    pub(super) fn try_clone_descriptor(&self) -> io::Result<std::os::fd::OwnedFd> {
        match self {
            #[cfg(target_os = "linux")]
            Self::Epoll(epoll) => epoll.try_clone_descriptor(),
            #[cfg(any(test, not(target_os = "linux")))]
            Self::Portable(portable) => portable.try_clone_descriptor(),
        }
    }

    /// What ends a wait.
    pub(super) fn wake(&self) -> &Arc<Wake> {
        match self {
            #[cfg(target_os = "linux")]
            Self::Epoll(epoll) => epoll.wake(),
            #[cfg(any(test, not(target_os = "linux")))]
            Self::Portable(portable) => portable.wake(),
        }
    }
}

impl Interests {
    pub(super) fn is_none(self) -> bool {
        !self.readable && !self.writable
    }
}

/// The name of the waker among the keys of sources.
#[cfg(unix)]
pub(super) const WAKE_KEY: usize = usize::MAX - 1;

/// How many reports a wait takes at most.
///
/// Each may fill a block, and blocks that are emptied before others are filled stay in the cache. So
/// few reports a wait are better than many, as long as the cost of a wait is spread: 256 at once cost
/// a sixth more a message with 1000 busy connections than 16 or 64 did.
pub(super) const EVENTS_MAX: NonZeroUsize = NonZeroUsize::new(32).expect("not zero");
