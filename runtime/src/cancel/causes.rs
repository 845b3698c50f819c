//! The cancellations that are at work in a run, counted by hand.
//!
//! A scope that is cancelled hands its cancellation to every scope and every wait below, and
//! [`Cancelled`] may go to any thread, so each clone costs an atomic count. Here it is kept once,
//! and everything in the tree has only its number, which costs an addition to copy. Only what
//! leaves the tree, as the error of an operation, is a clone.
//!
//! Code that has a number passes it to [`Causes::release`] or to [`Causes::take`], exactly once.

use std::borrow::Cow;
use std::num::NonZeroU32;
use std::panic::Location;

use super::tree::{NONE, id};
use super::{CancelSource, Cancelled};
use crate::task::NodeRef;

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
struct Glance {
    source: CancelSource,
    /// The address, or zero.
    place: usize,
    reason: Text,
    /// What the task is called by: `Node::called_by`.
    task: Text,
}

/// Where a text begins, and its length.
type Text = (usize, usize);

struct Place {
    /// `None` if the place is free.
    cancelled: Option<Cancelled>,
    /// A clone that has come back, for the next that asks for one: each clone, and each drop of
    /// one, is an atomic count, and tasks that are cancelled one after the other mostly end one
    /// after the other.
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

    /// The number itself, to be kept in a word that has another use at other times.
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

    /// The number of the cancellation that was made last, if it is made of the same. Then nobody has to
    /// make out what the task is called.
    #[inline]
    pub(super) fn latest(
        &mut self,
        source: CancelSource,
        reason: Option<&Cow<'static, str>>,
        task: Option<&NodeRef>,
        place: Option<&'static Location<'static>>,
    ) -> Option<Cause> {
        let (latest, cause) = self.latest.as_ref()?;
        let same = latest.is_of(source, reason, task, place);
        same.then(|| Self::share_at(&mut self.places, cause))
    }

    /// The number of a cancellation that is not the last, and is so from now on, if it can be compared.
    pub(super) fn make(
        &mut self,
        source: CancelSource,
        reason: Option<Cow<'static, str>>,
        task: Option<&NodeRef>,
        place: Option<&'static Location<'static>>,
    ) -> Cause {
        let glance = Glance::at(source, reason.as_ref(), task, place);
        let task = task.map(|task| task.name());
        let made = self.add(Cancelled::new(source, reason, task, place));
        if let Some(glance) = glance {
            let latest = self.share(&made);
            if let Some((_, before)) = self.latest.replace((glance, latest)) {
                self.release(before);
            }
        }
        made
    }

    /// The number of the cancellation by a deadline that was set at `place`.
    pub(super) fn deadline(&mut self, place: Option<&'static Location<'static>>) -> Cause {
        let source = CancelSource::Deadline;
        let latest = self.latest(source, None, None, place);
        latest.unwrap_or_else(|| self.make(source, None, None, place))
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
    #[inline(always)]
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

    /// Gives a number back, together with a clone that its holder has had.
    #[inline]
    pub(super) fn release_with(&mut self, cause: Cause, back: Cancelled) {
        let place = &mut self.places[cause.index()];
        let same = place.cancelled.as_ref().is_some_and(|kept| kept.is(&back));
        if same && place.count > 1 && place.spare.is_none() {
            place.spare = Some(back);
            place.count -= 1;
            return;
        }
        // What is not kept goes: it runs nobody's code.
        drop(back);
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
    fn at(
        source: CancelSource,
        reason: Option<&Cow<'static, str>>,
        task: Option<&NodeRef>,
        place: Option<&'static Location<'static>>,
    ) -> Option<Self> {
        Some(Self {
            source,
            place: address(place),
            reason: reason_at(reason)?,
            task: task_at(task)?,
        })
    }

    /// Whether a cancellation of these is the one that this is of, as far as can be seen.
    #[inline]
    fn is_of(
        &self,
        source: CancelSource,
        reason: Option<&Cow<'static, str>>,
        task: Option<&NodeRef>,
        place: Option<&'static Location<'static>>,
    ) -> bool {
        self.source == source
            && self.place == address(place)
            && reason_at(reason) == Some(self.reason)
            && task_at(task) == Some(self.task)
    }
}

/// Zero for no place.
#[inline]
fn address(place: Option<&'static Location<'static>>) -> usize {
    place.map_or(0, |place| std::ptr::from_ref(place).addr())
}

#[inline]
fn reason_at(reason: Option<&Cow<'static, str>>) -> Option<Text> {
    match reason {
        None => Some(NO_TEXT),
        Some(Cow::Borrowed(text)) => Some((text.as_ptr().addr(), text.len())),
        Some(Cow::Owned(_)) => None,
    }
}

#[inline]
fn task_at(task: Option<&NodeRef>) -> Option<Text> {
    task.map_or(Some(NO_TEXT), |task| task.called_by())
}

/// No text begins nowhere.
const NO_TEXT: Text = (0, 0);
