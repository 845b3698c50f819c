//! The slots of the scopes, in places that are reused.
//!
//! Every nursery has a scope, and nearly every scope is entered and left without ever having a
//! deadline, a shield or a handle. So a slot has two halves. The tree walks through the first, half
//! a cache line. The second, at the same number in another list, holds what few scopes have, and is
//! read only if the first half says that there is something in it.
//!
//! A free slot is empty, so a new scope writes only its links.

use std::ops::{Index, IndexMut};
use std::panic::Location;
use std::rc::Rc;
use std::time::Duration;

use trio_platform::Time;

use super::causes::Cause;
use super::scope::Handle;
use super::tree::{NONE, id};
use crate::timers::TimerKey;

/// The slots of a run, by their numbers.
pub(super) struct Scopes {
    slots: Vec<Slot>,
    details: Vec<Details>,
    /// The first free slot, or `NONE`.
    free: u32,
}

/// Where a scope stands, and whether it is cancelled.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) parent: u32,
    pub(super) previous: u32,
    /// The next sibling, or the next free slot.
    pub(super) next: u32,
    pub(super) first_child: u32,
    pub(super) first_wait: u32,
    /// What is delivered to the waits in the scope, if it is effective.
    pub(super) record: Option<Cause>,
    pub(super) kind: Kind,
}

/// What has to be known of a scope at a glance; all of it is off in a free slot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    taken: bool,
    pub(super) shield: bool,
    /// Whether the scope is cancelled as soon as it is draining.
    pub(super) soft: bool,
    /// Whether the details hold anything.
    pub(super) detailed: bool,
    /// Whether there is a deadline that nothing watches yet.
    pub(super) unwatched: bool,
}

/// What few scopes have.
pub(super) struct Details {
    /// The scope's own cancellation.
    pub(super) own: Option<Cause>,
    pub(super) timer: Option<TimerKey>,
    pub(super) deadline: Time,
    /// A deadline counted from a moment that has not been read off the clock yet.
    pub(super) relative: Option<Duration>,
    pub(super) handle: Option<Rc<Handle>>,
    /// Where the deadline was set.
    pub(super) place: Option<&'static Location<'static>>,
}

impl Default for Details {
    fn default() -> Self {
        Self {
            own: None,
            timer: None,
            deadline: Time::NEVER,
            relative: None,
            handle: None,
            place: None,
        }
    }
}

const FREE: Slot = Slot {
    parent: NONE,
    previous: NONE,
    next: NONE,
    first_child: NONE,
    first_wait: NONE,
    record: None,
    kind: Kind {
        taken: false,
        shield: false,
        soft: false,
        detailed: false,
        unwatched: false,
    },
};

impl Scopes {
    pub(super) fn new() -> Self {
        Self {
            slots: Vec::new(),
            details: Vec::new(),
            free: NONE,
        }
    }

    /// Takes a slot, linked to nothing.
    pub(super) fn take(&mut self) -> u32 {
        // `NONE` is beyond the end.
        if self.free as usize >= self.slots.len() {
            self.grow();
        }
        let scope = self.free;
        let slot = &mut self.slots[scope as usize];
        debug_assert!(!slot.kind.taken, "a slot is taken once");
        self.free = slot.next;
        *slot = FREE;
        slot.kind.taken = true;
        scope
    }

    /// Links a scope as the first child of another.
    #[inline]
    pub(super) fn link(&mut self, scope: u32, parent: u32) {
        let slots = &mut *self.slots;
        let next = std::mem::replace(&mut slots[parent as usize].first_child, scope);
        let slot = &mut slots[scope as usize];
        slot.parent = parent;
        slot.previous = NONE;
        slot.next = next;
        // `NONE` is beyond the end.
        if let Some(next) = slots.get_mut(next as usize) {
            next.previous = scope;
        }
    }

    #[inline(always)]
    pub(super) fn unlink(&mut self, scope: u32) {
        let slots = &mut *self.slots;
        let slot = &slots[scope as usize];
        let (parent, previous, next) = (slot.parent, slot.previous, slot.next);
        match slots.get_mut(previous as usize) {
            Some(previous) => previous.next = next,
            None => slots[parent as usize].first_child = next,
        }
        if let Some(next) = slots.get_mut(next as usize) {
            next.previous = previous;
        }
    }

    /// Adds a free slot at the end.
    #[cold]
    fn grow(&mut self) {
        self.free = id(self.slots.len());
        self.slots.push(FREE);
        self.details.push(Details::default());
    }

    /// Frees a slot that is linked to nothing and empty: its contents have been taken out.
    #[inline]
    pub(super) fn free(&mut self, scope: u32) {
        let slot = &mut self.slots[scope as usize];
        debug_assert!(
            slot.record.is_none() && slot.first_child == NONE && slot.first_wait == NONE,
            "nothing is in a scope that has been left"
        );
        slot.kind = FREE.kind;
        slot.next = std::mem::replace(&mut self.free, scope);
    }

    /// The run has ended: nothing waits in any scope, and nothing watches its deadline.
    pub(super) fn forget_waits(&mut self) {
        self.slots
            .iter_mut()
            .for_each(|slot| slot.first_wait = NONE);
        self.details
            .iter_mut()
            .for_each(|details| details.timer = None);
    }

    /// What few scopes have, if this scope has any of it.
    #[inline]
    pub(super) fn details(&self, scope: u32) -> Option<&Details> {
        let detailed = self.slots[scope as usize].kind.detailed;
        detailed.then(|| &self.details[scope as usize])
    }

    /// The same, to be written.
    #[inline(always)]
    pub(super) fn details_mut(&mut self, scope: u32) -> &mut Details {
        self.slots[scope as usize].kind.detailed = true;
        &mut self.details[scope as usize]
    }

    /// All slots that are taken, with their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Slot)> {
        let slots = self.slots.iter().enumerate();
        slots
            .filter(|(_, slot)| slot.kind.taken)
            .map(|(index, slot)| (id(index), slot))
    }
}

impl Slot {
    /// Whether nothing is in the scope, and it is not cancelled: then, apart from its details, it
    /// can be left as if it had never existed.
    #[inline]
    pub(super) fn is_plain(&self) -> bool {
        self.first_child == NONE && self.first_wait == NONE && self.record.is_none()
    }
}

impl Index<u32> for Scopes {
    type Output = Slot;

    #[inline]
    fn index(&self, scope: u32) -> &Slot {
        &self.slots[scope as usize]
    }
}

impl IndexMut<u32> for Scopes {
    #[inline]
    fn index_mut(&mut self, scope: u32) -> &mut Slot {
        &mut self.slots[scope as usize]
    }
}

const _: () = assert!(size_of::<Slot>() == 32, "two slots fill a cache line");
