//! What the driver remembers about a descriptor that an operation has had to wait for.
//!
//! 1. A descriptor gets a [`Source`] when an operation first has to wait for it, and keeps it until
//!    it is closed. Just before that the [`Registry`] takes the descriptor out of the selector, while it is
//!    still open, and forgets the source.
//! 2. A [`Side`] is *blocked* while it is armed and not ready. Only then may a system call be
//!    spared, for only then is the system going to say when it would succeed.
//! 3. Operations queue on a side only while it is blocked.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::{Rc, Weak};

use slab::Slab;

use super::selector::{Interests, Selector};
use crate::driver::{Key, Token};
use crate::fd::{Descriptor, Object, Registrar, simulated};
use crate::op::Interest;

/// The number by which the system knows a descriptor.
#[cfg(unix)]
pub(super) type Raw = std::os::fd::RawFd;
/// The number by which the system knows a descriptor.
#[cfg(windows)]
pub(super) type Raw = std::os::windows::io::RawSocket;

/// The number of `descriptor`.
///
/// # Errors
///
/// `InvalidInput` if it is not the system's.
pub(super) fn raw(descriptor: &Descriptor) -> io::Result<Raw> {
    raw_of(descriptor.object())
}

fn raw_of(object: &Object) -> io::Result<Raw> {
    match object {
        #[cfg(unix)]
        Object::Socket(socket) => Ok(std::os::fd::AsRawFd::as_raw_fd(socket)),
        #[cfg(windows)]
        Object::Socket(socket) => Ok(std::os::windows::io::AsRawSocket::as_raw_socket(socket)),
        #[cfg(unix)]
        Object::File(file) => Ok(std::os::fd::AsRawFd::as_raw_fd(file)),
        Object::Simulated(_) => Err(simulated()),
    }
}

/// One registered descriptor.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) raw: Raw,
    pub(super) readable: Side,
    pub(super) writable: Side,
    /// Whether a transfer of fewer bytes than were asked for shows that the side is not ready any
    /// more, as `WouldBlock` would: see `epoll.rs`.
    pub(super) drains: bool,
    /// Whom to tell, once, when the descriptor has become readable.
    pub(super) watcher: Option<Token>,
}

impl Source {
    pub(super) fn new(raw: Raw, drains: bool) -> Self {
        Self {
            raw,
            readable: Side::new(),
            writable: Side::new(),
            drains,
            watcher: None,
        }
    }

    #[inline]
    pub(super) fn side(&mut self, interest: Interest) -> &mut Side {
        match interest {
            Interest::Readable => &mut self.readable,
            Interest::Writable => &mut self.writable,
        }
    }

    /// Remembers what a transfer has shown about the readiness for `interest`: `None` that it would
    /// have blocked, `Some(true)` that it was short.
    #[inline]
    pub(super) fn note(&mut self, interest: Interest, is_short: Option<bool>) {
        if is_short.is_none_or(|is_short| is_short && self.drains) {
            self.side(interest).ready = false;
        }
    }

    /// Everyone who waits, in whatever way.
    pub(super) fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        self.readable.keys().chain(self.writable.keys())
    }

    /// Reports `token` with the next report of the system, if it is certain that there will be one.
    pub(super) fn watch(&mut self, token: Token) -> bool {
        if !self.readable.is_blocked() {
            return false;
        }
        let before = self.watcher.replace(token);
        debug_assert!(before.is_none(), "a stream is watched by one at a time");
        true
    }

    /// What the selector has been asked to report.
    pub(super) fn armed(&self) -> Interests {
        Interests {
            readable: self.readable.armed,
            writable: self.writable.armed,
        }
    }

    /// What the selector has to report for those who wait.
    pub(super) fn wanted(&self) -> Interests {
        Interests {
            readable: self.readable.is_wanted(),
            writable: self.writable.is_wanted(),
        }
    }
}

/// One direction of a descriptor.
#[derive(Debug)]
pub(super) struct Side {
    /// Whether the selector is going to report this direction, once it is ready.
    pub(super) armed: bool,
    /// Whether an attempt may succeed, as far as is known. Nothing is known at first, so it may.
    pub(super) ready: bool,
    /// `None` until an operation has had to wait: most streams are watched only, and there are many.
    queue: Option<Box<Queue>>,
}

/// Operations that wait on one side.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// For their turn to be attempted, first come, first served.
    pub(super) waiting: VecDeque<Key>,
    /// For the next report; they take nothing.
    pub(super) watching: Vec<Key>,
}

impl Side {
    fn new() -> Self {
        Self {
            armed: false,
            ready: true,
            queue: None,
        }
    }

    /// Whether an attempt is known to fail, and a report to come when it is not (rule 2).
    #[inline]
    pub(super) fn is_blocked(&self) -> bool {
        self.armed && !self.ready
    }

    /// The operations that wait, for one more.
    pub(super) fn queue(&mut self) -> &mut Queue {
        self.queue.get_or_insert_default()
    }

    /// The operations that wait, if any ever have.
    #[inline]
    pub(super) fn waiting(&mut self) -> Option<&mut Queue> {
        self.queue.as_deref_mut()
    }

    /// Whether an operation waits.
    pub(super) fn is_wanted(&self) -> bool {
        self.keys().next().is_some()
    }

    fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        let queue = self.queue.as_deref().into_iter();
        queue.flat_map(|queue| queue.waiting.iter().chain(&queue.watching).copied())
    }

    /// Takes an operation out of its queue; `false` if it is in none.
    pub(super) fn withdraw(&mut self, key: Key) -> bool {
        let Some(queue) = self.waiting() else {
            return false;
        };
        if let Some(place) = queue.waiting.iter().position(|&waiting| waiting == key) {
            queue.waiting.remove(place);
            return true;
        }
        let place = queue.watching.iter().position(|&watching| watching == key);
        if let Some(place) = place {
            queue.watching.remove(place);
        }
        place.is_some()
    }
}

/// All registered descriptors of one driver.
#[derive(Debug, Default)]
pub(super) struct Sources {
    slab: Slab<(usize, Source)>,
    /// Of the next source, so that a late report of a closed descriptor finds nothing rather than
    /// the descriptor that took its place. Wraps, after more descriptors than reports can be late.
    generation: usize,
}

impl Sources {
    /// Takes a source in, and returns its index.
    pub(super) fn insert(&mut self, source: Source) -> io::Result<usize> {
        if self.slab.vacant_key() >= INDEX_MASK {
            return Err(io::Error::other("too many descriptors in one driver"));
        }
        self.generation = self.generation.wrapping_add(1) & (usize::MAX >> INDEX_BITS);
        Ok(self.slab.insert((self.generation, source)))
    }

    pub(super) fn remove(&mut self, index: usize) -> Source {
        self.slab.remove(index).1
    }

    #[cfg(test)]
    pub(super) fn get(&self, index: usize) -> Option<&Source> {
        self.slab.get(index).map(|(_, source)| source)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, index: usize) -> &mut Source {
        &mut self.slab[index].1
    }

    /// Ends the watch of `token` if it is that of the source at `index`, which may have gone; gives
    /// whether it was.
    pub(super) fn take_watch(&mut self, index: u32, token: Token) -> bool {
        let source = self.slab.get_mut(index as usize);
        let watcher = source.map(|(_, source)| &mut source.watcher);
        let own = watcher.filter(|watcher| **watcher == Some(token));
        own.is_some_and(|watcher| watcher.take().is_some())
    }

    /// What the selector is to call the source. Never one of the highest numbers, which have a
    /// meaning of their own.
    pub(super) fn key(&self, index: usize) -> usize {
        self.slab[index].0 << INDEX_BITS | index
    }

    /// Whether nothing is registered.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }

    /// The source that the selector calls `key`, with its index, if it still exists.
    #[inline]
    pub(super) fn find(&mut self, key: usize) -> Option<(usize, &mut Source)> {
        let index = key & INDEX_MASK;
        let (generation, source) = self.slab.get_mut(index)?;
        (*generation == key >> INDEX_BITS).then_some((index, source))
    }
}

/// Where each registered descriptor has its source forgotten (rule 1).
#[derive(Debug)]
pub(super) struct Registry {
    pub(super) selector: Rc<Selector>,
    /// Gone when the driver is; a descriptor may then be registered with another.
    pub(super) sources: Weak<RefCell<Sources>>,
}

impl Registrar for Registry {
    fn is_live(&self) -> bool {
        self.sources.strong_count() > 0
    }

    fn forget(&self, index: usize, object: &Object) {
        if let Ok(raw) = raw_of(object) {
            self.selector.remove(raw);
        }
        if let Some(sources) = self.sources.upgrade() {
            let source = sources.borrow_mut().remove(index);
            // An operation in flight holds its descriptor, and a registration ends with the last
            // holder of its descriptor.
            debug_assert!(source.wanted().is_none(), "nobody waits for what is closed");
        }
    }
}

/// How many bits of the selector's key are the index of a source; the rest is its generation.
const INDEX_BITS: u32 = if usize::BITS == 64 { 32 } else { 20 };
const INDEX_MASK: usize = (1 << INDEX_BITS) - 1;
