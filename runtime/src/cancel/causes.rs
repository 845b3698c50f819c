//! The cancellations that are at work in a run, counted by hand.
//!
//! A scope that is cancelled passes its cancellation to every scope and every wait below, and a
//! [`Cancelled`] may be sent to any thread, so each clone of it costs an atomic count. So each
//! cancellation is kept here once, and everything in the tree holds only its number, which costs an
//! addition to copy. A clone is made only for what leaves the tree, as the error of an operation.
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
    /// The last cancellation made. A line of code that cancels many scopes or tasks, or a timeout
    /// that many run into, makes the same one each time; they share it.
    latest: Option<(Glance, Cause)>,
}

/// What a cancellation is made of, as far as a quick comparison can tell.
struct Glance {
    source: CancelSource,
    /// Its address, or zero.
    place: usize,
    reason: Text,
    /// What the task is called by: see `Node::called_by`.
    task: Text,
}

/// The address and the length of a text.
type Text = (usize, usize);

struct Place {
    /// `None` if the place is free.
    cancelled: Option<Cancelled>,
    /// A clone that has come back, kept for the next who asks for one. Each clone, and each drop of
    /// a clone, is an atomic count, and tasks that are cancelled one after the other mostly end one
    /// after the other.
    spare: Option<Cancelled>,
    /// How many hold the number; in a free place, the next free place.
    count: u32,
}

/// The number of a cancellation, plus one. Copied only by [`Causes::share`].
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

    /// The bare number, for a word that has other uses at other times.
    #[inline]
    pub(crate) fn into_number(self) -> u32 {
        self.0.get()
    }

    /// The reverse of [`into_number`](Self::into_number), whose result must not be used again.
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

    /// The number of the cancellation that was made last, if it is made of the same things. This
    /// saves working out what the task is called.
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

    /// The number of a new cancellation, which is the last one from now on if it can be compared.
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

    /// Copies a number for another holder.
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
        // A reason that is dropped here with the rest runs no user code.
        drop(self.one_less(cause));
    }

    /// Returns what a number stands for, and gives the number back; a clone is made only if others
    /// hold it too.
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

    /// Gives a number back, together with a clone that its holder has had made.
    #[inline]
    pub(super) fn release_with(&mut self, cause: Cause, back: Cancelled) {
        let place = &mut self.places[cause.index()];
        let same = place.cancelled.as_ref().is_some_and(|kept| kept.is(&back));
        if same && place.count > 1 && place.spare.is_none() {
            place.spare = Some(back);
            place.count -= 1;
            return;
        }
        // Dropping it runs no user code.
        drop(back);
        self.release(cause);
    }

    /// Counts one holder less; returns what the number stood for if it was the last.
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
    /// `None` if a text was made at run time: it cannot be recognised as the same as another.
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

    /// Whether a cancellation made of these would be the one described here, as far as a quick
    /// comparison can tell.
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

/// Zero if there is no place.
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

/// No text is at address zero.
const NO_TEXT: Text = (0, 0);
