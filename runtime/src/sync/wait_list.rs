//! The list of futures that wait for something, first come, first served: the basis of every
//! primitive and every channel of this crate.
//!
//! A future that has to wait registers one wait with the run, through which a cancel finds it, and
//! an entry in one list or in several, through which whoever has something to give finds it. To
//! give is to *claim* the wait: that succeeds once, whoever tries. From then on the entry holds
//! what was given, even though the future has not been polled yet.
//!
//! | The future is           | and its entry                                                      |
//! |-------------------------|--------------------------------------------------------------------|
//! | claimed, then cancelled | keeps what it was given; the future returns it (semantics R1, F1)   |
//! | cancelled, then polled  | was passed over by every claim meanwhile, and goes in that poll (F2)  |
//! | dropped                 | goes at once; its primitive passes on what it was given             |
//! | forgotten               | stays, and may be given something as long as its task lives; after  |
//! |                         | that it is passed over                                              |
//! | taken to another task   | stays, unless a claim passed it over in between: then the future     |
//! |                         | begins again                                                        |
//! | polled by a combinator  | stays; the waker of the last poll is called                         |
//! | left by a run that ended| is passed over; the future begins again in the next run              |
//! | in several lists        | is claimed in one of them: the others pass it over                  |
//!
//! 1. An entry is linked as long as it may be claimed: until it is claimed, passed over because its
//!    wait is over, moved to another list, or removed by its future.
//! 2. An entry that is not linked lives until its future removes it. So an entry never outlives its
//!    wait, unless both were forgotten together, and the number of a wait is never used after its
//!    end.
//! 3. The links are numbers of entries in a slab that the list owns. Nothing here points into a
//!    future: a future is only expected to come back, and nothing goes wrong if it does not.
//! 4. No user code runs while the list is borrowed, except what `give` does.

use std::cell::{Cell, RefCell, RefMut};
use std::fmt;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use slab::Slab;

use super::reschedule::Aborter;
use crate::cancel::{Cancelled, Tree};
use crate::context;
use crate::run::Run;
use crate::wait::Parked;

const NONE: u32 = u32::MAX;

/// Futures that wait, each with a value: what it brought, or what it is given.
pub(crate) struct WaitList<T> {
    /// The first and the last linked entry.
    ends: Cell<(u32, u32)>,
    entries: RefCell<Slab<Entry<T>>>,
}

struct Entry<T> {
    wait: WaitId,
    previous: u32,
    next: u32,
    place: Place,
    value: T,
}

/// The state of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the list.
    Linked,
    /// Claimed: the value is what was given.
    Claimed,
    /// No longer in the list, because the wait was over when somebody looked.
    Passed,
    /// In another list; the value says where.
    Moved,
}

/// A wait, as seen by those who may end it.
#[derive(Clone)]
pub(crate) struct WaitId {
    run: Rc<Run>,
    wait: u32,
}

impl PartialEq for WaitId {
    fn eq(&self, other: &Self) -> bool {
        self.wait == other.wait && Rc::ptr_eq(&self.run, &other.run)
    }
}

impl fmt::Debug for WaitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WaitId({} of run {})", self.wait, self.run.id)
    }
}

impl WaitId {
    #[inline]
    pub(crate) fn of(parked: &Parked) -> Self {
        Self {
            run: parked.run().clone(),
            wait: parked.wait(),
        }
    }

    /// Ends the wait and wakes its future, if nothing has ended it before.
    #[inline]
    pub(crate) fn claim(&self) -> bool {
        let claimed = self.tree().and_then(|mut tree| tree.claim_wait(self.wait));
        self.wake(claimed)
    }

    /// Whether a claim would succeed.
    #[inline]
    pub(crate) fn is_waiting(&self) -> bool {
        self.tree().is_some_and(|tree| tree.is_waiting(self.wait))
    }

    /// Ends the wait and wakes its future, if that still waits, whether or not it was asked to end.
    pub(super) fn report(&self) -> bool {
        let reported = self.tree().and_then(|mut tree| tree.report_wait(self.wait));
        self.wake(reported)
    }

    /// Makes a cancel ask `aborter` instead of ending the wait.
    pub(super) fn abort_with(&self, aborter: Rc<dyn Aborter>) {
        if let Some(mut tree) = self.tree() {
            tree.set_aborter(self.wait, aborter);
        }
    }

    /// Keeps cancellations from a wait that has not been ended yet.
    pub(crate) fn shield(&self) {
        if let Some(mut tree) = self.tree() {
            tree.shield_wait(self.wait);
        }
    }

    /// The tree in which the wait is, unless its run has ended.
    #[inline]
    fn tree(&self) -> Option<RefMut<'_, Tree>> {
        (!self.run.has_ended()).then(|| self.run.tree.borrow_mut())
    }

    /// A foreign waker is called between turns, when nothing is borrowed.
    #[inline]
    fn wake(&self, ended: Option<Option<Waker>>) -> bool {
        let succeeded = ended.is_some();
        if let Some(waker) = ended.flatten() {
            self.run.defer_wake(waker);
        }
        succeeded
    }
}

impl<T> WaitList<T> {
    pub(crate) const fn new() -> Self {
        Self {
            ends: Cell::new((NONE, NONE)),
            entries: RefCell::new(Slab::new()),
        }
    }

    /// Whether nothing is linked; a wait that is over still counts.
    #[inline]
    fn is_empty(&self) -> bool {
        self.ends.get().0 == NONE
    }

    /// Whether anybody who could be claimed waits.
    #[inline]
    pub(crate) fn has_waiting(&self) -> bool {
        !self.is_empty() && self.first_waiting(&mut self.entries.borrow_mut()).is_some()
    }

    /// How many that could be claimed wait.
    pub(crate) fn waiting(&self) -> usize {
        let mut count = 0;
        self.each_waiting(|_| count += 1);
        count
    }

    /// Calls `look` for each that waits and could be claimed, in order.
    pub(crate) fn each_waiting(&self, mut look: impl FnMut(&T)) {
        let entries = self.entries.borrow();
        let mut key = self.ends.get().0;
        while key != NONE {
            let entry = &entries[key as usize];
            if entry.wait.is_waiting() {
                look(&entry.value);
            }
            key = entry.next;
        }
    }

    /// Appends a wait. The key is the entry's until it is removed.
    #[inline]
    pub(crate) fn push(&self, wait: WaitId, value: T) -> u32 {
        let mut entries = self.entries.borrow_mut();
        let (first, last) = self.ends.get();
        let key = entries.insert(Entry {
            wait,
            previous: last,
            next: NONE,
            place: Place::Linked,
            value,
        });
        let key = u32::try_from(key).expect("fewer than four thousand million wait at once");
        match last {
            NONE => self.ends.set((key, key)),
            _ => {
                entries[last as usize].next = key;
                self.ends.set((first, key));
            }
        }
        key
    }

    /// Claims the one that has waited longest, and lets `give` fill in the value.
    #[inline]
    pub(crate) fn claim_first<R>(&self, give: impl FnOnce(&mut T) -> R) -> Option<R> {
        if self.is_empty() {
            return None;
        }
        let mut entries = self.entries.borrow_mut();
        loop {
            let key = self.unlink_first(&mut entries)?;
            let entry = &mut entries[key as usize];
            if entry.wait.claim() {
                entry.place = Place::Claimed;
                return Some(give(&mut entry.value));
            }
            entry.place = Place::Passed;
        }
    }

    /// Claims the one that has waited longest if `give` returns something for it; otherwise nobody.
    pub(crate) fn claim_first_if<R>(&self, give: impl FnOnce(&mut T) -> Option<R>) -> Option<R> {
        if self.is_empty() {
            return None;
        }
        let mut entries = self.entries.borrow_mut();
        let key = self.first_waiting(&mut entries)?;
        let entry = &mut entries[key as usize];
        let given = give(&mut entry.value)?;
        let claimed = entry.wait.claim();
        debug_assert!(claimed, "nothing has happened since it was found waiting");
        self.unlink(&mut entries, key, Place::Claimed);
        Some(given)
    }

    /// Moves the one that has waited longest from this list to another: `keep` is given the wait,
    /// and leaves in the value where it went.
    pub(crate) fn move_first<R>(&self, keep: impl FnOnce(WaitId, &mut T) -> R) -> Option<R> {
        if self.is_empty() {
            return None;
        }
        let mut entries = self.entries.borrow_mut();
        let key = self.first_waiting(&mut entries)?;
        self.unlink(&mut entries, key, Place::Moved);
        let entry = &mut entries[key as usize];
        Some(keep(entry.wait.clone(), &mut entry.value))
    }

    /// Whether an entry for which `is` holds can still be claimed. Entries for which it holds but whose
    /// wait is over are passed over at once: their futures may live, and must not come back to
    /// their places from another task after somebody else was let in instead.
    pub(crate) fn find_or_pass_over(&self, is: impl Fn(&T) -> bool) -> bool {
        let mut entries = self.entries.borrow_mut();
        let mut key = self.ends.get().0;
        while key != NONE {
            let entry = &entries[key as usize];
            let next = entry.next;
            if is(&entry.value) {
                if entry.wait.is_waiting() {
                    return true;
                }
                self.unlink(&mut entries, key, Place::Passed);
            }
            key = next;
        }
        false
    }

    /// The first that could be claimed; passes over those before it.
    fn first_waiting(&self, entries: &mut Slab<Entry<T>>) -> Option<u32> {
        loop {
            let key = self.ends.get().0;
            if key == NONE {
                return None;
            }
            if entries[key as usize].wait.is_waiting() {
                return Some(key);
            }
            self.unlink(entries, key, Place::Passed);
        }
    }

    #[inline]
    fn unlink_first(&self, entries: &mut Slab<Entry<T>>) -> Option<u32> {
        let (first, last) = self.ends.get();
        if first == NONE {
            return None;
        }
        let next = entries[first as usize].next;
        match next {
            NONE => self.ends.set((NONE, NONE)),
            _ => {
                entries[next as usize].previous = NONE;
                self.ends.set((next, last));
            }
        }
        Some(first)
    }

    fn unlink(&self, entries: &mut Slab<Entry<T>>, key: u32, place: Place) {
        let entry = &mut entries[key as usize];
        debug_assert_eq!(entry.place, Place::Linked, "an entry is unlinked once");
        entry.place = place;
        let (previous, next) = (entry.previous, entry.next);
        let (mut first, mut last) = self.ends.get();
        match previous {
            NONE => first = next,
            _ => entries[previous as usize].next = next,
        }
        match next {
            NONE => last = previous,
            _ => entries[next as usize].previous = previous,
        }
        self.ends.set((first, last));
    }

    /// Removes an entry for good. Returns its value and its state. For a future that waits in
    /// several lists; one that waits in a single list holds a [`Waiter`].
    #[inline]
    pub(crate) fn remove(&self, key: u32) -> (Place, T) {
        let mut entries = self.entries.borrow_mut();
        let place = entries[key as usize].place;
        if place == Place::Linked {
            self.unlink(&mut entries, key, Place::Passed);
        }
        (place, entries.remove(key as usize).value)
    }

    /// Removes an entry that has been claimed or moved; returns its state otherwise.
    #[inline]
    pub(crate) fn take(&self, key: u32) -> Result<(Place, T), Place> {
        let mut entries = self.entries.borrow_mut();
        match entries[key as usize].place {
            place @ (Place::Claimed | Place::Moved) => {
                Ok((place, entries.remove(key as usize).value))
            }
            place @ (Place::Linked | Place::Passed) => Err(place),
        }
    }
}

impl<T> Default for WaitList<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> fmt::Debug for WaitList<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} waiting", self.waiting())
    }
}

/// A future's place in a list: its wait, and its entry. The future must return it, by polling it to
/// the end or by [`Waiter::leave`], so every future that holds one has a `Drop` that does.
pub(crate) struct Waiter {
    parked: Parked,
    key: u32,
}

/// How the wait of a [`Waiter`] has ended; in each case with the value of the entry.
pub(crate) enum Outcome<T> {
    /// The value is what was given.
    Claimed(T),
    /// Nothing was given, and nothing will be.
    Cancelled(Cancelled, T),
    /// The place in the list was lost, because the future had left its task: begin again.
    Lapsed(T),
    /// The entry moved to another list, where the wait continues; the value says where.
    Moved(Waiter, T),
}

impl Waiter {
    /// Begins to wait, at the end of `list`, under the current scope, which is not cancelled.
    /// `what` is what the task tree says that the task waits in.
    ///
    /// Must be the last thing that the future does, for it may run a foreign waker's code, which
    /// may give, or cancel: by then the future stands in line, and its `Drop` finds the wait.
    #[inline]
    pub(crate) fn join<T>(
        slot: &mut Option<Self>,
        list: &WaitList<T>,
        context: &Context<'_>,
        what: &'static str,
        value: T,
    ) {
        slot.insert(Self::stand(list, what, value)).follow(context);
    }

    /// The same without running foreign code: the future is not woken until the wait
    /// [follows](Self::follow).
    #[inline]
    pub(super) fn stand<T>(list: &WaitList<T>, what: &'static str, value: T) -> Self {
        let parked = context::with(|run| Parked::begin(run, what));
        let key = list.push(WaitId::of(&parked), value);
        Self { parked, key }
    }

    /// Makes the wait wake whoever polls, for the first time.
    #[inline]
    pub(super) fn follow(&self, context: &Context<'_>) {
        self.parked.follow(context);
    }

    /// The same wait in another list, where its entry is `key`.
    pub(crate) fn at(mut self, key: u32) -> Self {
        self.key = key;
        self
    }

    /// The same for a line in which the first may hold up those behind it: when the task of a wait
    /// in `line` ends without having left it, all others in the line are polled.
    pub(super) fn join_line<T>(
        slot: &mut Option<Self>,
        list: &WaitList<T>,
        context: &Context<'_>,
        what: &'static str,
        value: T,
        line: usize,
    ) {
        let waiter = slot.insert(Self::stand(list, what, value));
        let (run, wait) = (waiter.parked.run(), waiter.parked.wait());
        run.tree.borrow_mut().stand_in(wait, line);
        waiter.follow(context);
    }

    /// Follows the future to wherever it is polled now.
    pub(crate) fn refresh(&self, context: &Context<'_>) {
        self.parked.refresh(context);
    }

    /// Keeps cancellations from this wait.
    pub(crate) fn shield(&self) {
        WaitId::of(&self.parked).shield();
    }

    /// Ready when the wait is over, or continues in another list. The slot is empty then.
    pub(crate) fn poll<T>(
        slot: &mut Option<Self>,
        list: &WaitList<T>,
        context: &Context<'_>,
    ) -> Poll<Outcome<T>> {
        let waiter = slot.as_ref().expect("a wait is polled until it is over");
        // What was given is returned: nothing checks for a cancel after that (R3).
        let place = match list.take(waiter.key) {
            Ok((Place::Claimed, value)) => {
                *slot = None;
                return Poll::Ready(Outcome::Claimed(value));
            }
            Ok((_, value)) => {
                let waiter = slot.take().expect("it was just looked at");
                return Poll::Ready(Outcome::Moved(waiter, value));
            }
            Err(place) => place,
        };
        let outcome = if waiter.parked.run().has_ended() {
            None
        } else {
            match waiter.parked.poll_woken(context) {
                Poll::Pending if place == Place::Linked => return Poll::Pending,
                Poll::Pending | Poll::Ready(None) => None,
                Poll::Ready(Some(cancelled)) => Some(cancelled),
            }
        };
        let waiter = slot.take().expect("it was just looked at");
        Poll::Ready(match (waiter.remove(list), outcome) {
            // Moving a wait with a foreign waker runs foreign code, which may have given something.
            ((Place::Claimed, value), _) => Outcome::Claimed(value),
            ((Place::Moved, value), None) => Outcome::Moved(waiter, value),
            ((_, value), Some(cancelled)) => Outcome::Cancelled(cancelled, value),
            ((_, value), None) => Outcome::Lapsed(value),
        })
    }

    fn remove<T>(&self, list: &WaitList<T>) -> (Place, T) {
        list.remove(self.key)
    }

    /// Gives up the wait.
    pub(crate) fn leave<T>(self, list: &WaitList<T>) -> Leaving<T> {
        match self.remove(list) {
            (Place::Claimed, value) => Leaving::Claimed(value),
            (Place::Moved, value) => Leaving::Moved(self, value),
            (Place::Linked | Place::Passed, value) => Leaving::Unclaimed(value),
        }
    }
}

/// The state of a wait when its future gave it up, with the value of the entry.
pub(crate) enum Leaving<T> {
    /// The value is what was given, and has to be passed on.
    Claimed(T),
    Unclaimed(T),
    /// The wait is in another list, and has to be given up there.
    Moved(Waiter, T),
}
