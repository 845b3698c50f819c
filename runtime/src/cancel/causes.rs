//! The cancellations that are at work in a run, counted by hand.
//!
//! A scope that is cancelled hands its cancellation to every scope and every wait below, and
//! [`Cancelled`] may go to any thread, so each of its clones is an atomic count. In here it is kept
//! once, and those in the tree have its number, which costs an addition to copy. Only what leaves the
//! tree, as the error of an operation, is a clone.
//!
//! Whoever has a number owes it to [`Causes::release`] or to [`Causes::take`], once.

use std::num::NonZeroU32;

use super::Cancelled;
use super::tree::{NONE, id};

/// The cancellations, by their numbers.
pub(super) struct Causes {
    places: Vec<Place>,
    /// The first free place, or `NONE`.
    free: u32,
}

struct Place {
    /// `None` if the place is free.
    cancelled: Option<Cancelled>,
    /// How many have the number; of a free place the next that is free.
    count: u32,
}

/// The number of a cancellation, and one more. Not to be copied but by [`Causes::share`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Cause(NonZeroU32);

impl Cause {
    fn new(index: usize) -> Self {
        let number = NonZeroU32::MIN.checked_add(id(index));
        Self(number.expect("fewer than four thousand million at once"))
    }

    fn index(&self) -> usize {
        self.0.get() as usize - 1
    }
}

impl Causes {
    pub(super) fn new() -> Self {
        Self {
            places: Vec::new(),
            free: NONE,
        }
    }

    pub(super) fn add(&mut self, cancelled: Cancelled) -> Cause {
        let place = Place {
            cancelled: Some(cancelled),
            count: 1,
        };
        // `NONE` is beyond the end.
        let index = self.free as usize;
        if let Some(free) = self.places.get_mut(index) {
            self.free = free.count;
            *free = place;
            return Cause::new(index);
        }
        self.places.push(place);
        Cause::new(self.places.len() - 1)
    }

    /// The same number for another.
    #[inline]
    pub(super) fn share(&mut self, cause: &Cause) -> Cause {
        self.places[cause.index()].count += 1;
        Cause(cause.0)
    }

    pub(super) fn get(&self, cause: &Cause) -> &Cancelled {
        let place = &self.places[cause.index()];
        place
            .cancelled
            .as_ref()
            .expect("a number that was not given back")
    }

    /// Gives a number back.
    #[inline]
    pub(super) fn release(&mut self, cause: Cause) {
        // What is left of it is dropped here: a reason, which runs nobody's code.
        drop(self.one_less(cause));
    }

    /// Gives a number back for what it stands for; a clone only if others have it too.
    #[inline]
    pub(super) fn take(&mut self, cause: Cause) -> Cancelled {
        match self.places[cause.index()].count {
            1 => self
                .one_less(cause)
                .expect("the last number gives the place back"),
            _ => {
                let cancelled = self.get(&cause).clone();
                self.release(cause);
                cancelled
            }
        }
    }

    /// One number less; what it stood for if that was the last.
    #[inline]
    fn one_less(&mut self, cause: Cause) -> Option<Cancelled> {
        let place = &mut self.places[cause.index()];
        if place.count > 1 {
            place.count -= 1;
            return None;
        }
        place.count = std::mem::replace(&mut self.free, cause.0.get() - 1);
        place.cancelled.take()
    }
}
