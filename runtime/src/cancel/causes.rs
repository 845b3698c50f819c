//! The cancellations that are at work in a run, counted by hand.
//!
//! A scope that is cancelled hands its cancellation to every scope and every wait below, and
//! [`Cancelled`] may go to any thread, so each of its clones is an atomic count. In here it is kept
//! once, and those in the tree have its number, which costs an addition to copy. Only what leaves the
//! tree, as the error of an operation, is a clone.
//!
//! Whoever has a number owes it to [`Causes::release`] or to [`Causes::take`], once.

use std::borrow::Cow;
use std::num::NonZeroU32;
use std::panic::Location;

use super::tree::{NONE, id};
use super::{CancelSource, Cancelled};

/// The cancellations, by their numbers.
pub(super) struct Causes {
    places: Vec<Place>,
    /// The first free place, or `NONE`.
    free: u32,
    /// The one that was made last. One line that cancels many scopes or tasks, or a timeout that many
    /// run into, makes the same each time; and then they share one.
    latest: Option<(Glance, Cause)>,
}

/// What a cancellation is made of, as far as it can be compared at a glance.
#[derive(PartialEq, Eq)]
struct Glance {
    source: CancelSource,
    place: Option<usize>,
    reason: Text,
    task: Text,
}

/// Where a text begins, and its length.
type Text = (usize, usize);

struct Place {
    /// `None` if the place is free.
    cancelled: Option<Cancelled>,
    /// A clone that has come back, for the next that asks for one: each clone, and each that is dropped,
    /// is an atomic count, and who are cancelled one after the other mostly end one after the other.
    spare: Option<Cancelled>,
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

    /// The number itself, for who keeps it in a word that has another use at other times.
    #[inline]
    pub(crate) fn into_number(self) -> u32 {
        self.0.get()
    }

    /// What [`into_number`](Self::into_number) has given, which is not a number any more by that.
    #[inline]
    pub(crate) fn from_number(number: u32) -> Self {
        Self(NonZeroU32::new(number).expect("numbers begin with one"))
    }
}

impl Causes {
    pub(super) fn new() -> Self {
        Self {
            places: Vec::new(),
            free: NONE,
            latest: None,
        }
    }

    /// The number of such a cancellation: that of the last, if everything in it is the same.
    pub(super) fn make(
        &mut self,
        source: CancelSource,
        reason: Option<Cow<'static, str>>,
        task: Option<Cow<'static, str>>,
        place: Option<&'static Location<'static>>,
    ) -> Cause {
        let glance = Glance::at(source, reason.as_ref(), task.as_ref(), place);
        if let (Some(glance), Some((latest, cause))) = (&glance, &self.latest) {
            if glance == latest {
                return Self::share_at(&mut self.places, cause);
            }
        }
        self.make_new(Cancelled::new(source, reason, task, place), glance)
    }

    /// A cancellation that is not the last, and is the last from now on, if it can be compared.
    #[inline(never)]
    fn make_new(&mut self, cancelled: Cancelled, glance: Option<Glance>) -> Cause {
        let made = self.add(cancelled);
        if let Some(glance) = glance {
            let latest = self.share(&made);
            if let Some((_, before)) = self.latest.replace((glance, latest)) {
                self.release(before);
            }
        }
        made
    }

    pub(super) fn add(&mut self, cancelled: Cancelled) -> Cause {
        let place = Place {
            cancelled: Some(cancelled),
            spare: None,
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
        Self::share_at(&mut self.places, cause)
    }

    #[inline]
    fn share_at(places: &mut [Place], cause: &Cause) -> Cause {
        places[cause.index()].count += 1;
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
        let place = &mut self.places[cause.index()];
        if place.count == 1 {
            return self
                .one_less(cause)
                .expect("the last number gives the place back");
        }
        place.count -= 1;
        place.spare.take().unwrap_or_else(|| {
            let cancelled = place.cancelled.clone();
            cancelled.expect("a number that was not given back")
        })
    }

    /// Gives a number back, and what somebody has had who has the number.
    #[inline]
    pub(super) fn release_with(&mut self, cause: Cause, back: Cancelled) {
        let place = &mut self.places[cause.index()];
        if place.cancelled.as_ref().is_some_and(|kept| kept.is(&back)) {
            // One that is kept already goes: it runs nobody's code.
            place.spare = Some(back);
        }
        self.release(cause);
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
        place.spare = None;
        place.cancelled.take()
    }
}

impl Glance {
    /// `None` if a text was made while running, which is not seen to be the same as another.
    #[inline]
    fn at(
        source: CancelSource,
        reason: Option<&Cow<'static, str>>,
        task: Option<&Cow<'static, str>>,
        place: Option<&'static Location<'static>>,
    ) -> Option<Self> {
        Some(Self {
            source,
            place: place.map(|place| std::ptr::from_ref(place).addr()),
            reason: text(reason)?,
            task: text(task)?,
        })
    }
}

/// No text begins nowhere.
#[inline]
fn text(text: Option<&Cow<'static, str>>) -> Option<Text> {
    match text {
        None => Some((0, 0)),
        Some(Cow::Borrowed(text)) => Some((text.as_ptr().addr(), text.len())),
        Some(Cow::Owned(_)) => None,
    }
}
