//! The waits, in places that are reused, and for each scope a list of the waits in it.
//!
//! Everything that waits comes through here, each message of a server at least once. So a place
//! that is freed is not cleared: what few waits use is empty in it already, and a new wait writes
//! no more than it needs.
//!
//! 1. A place is taken if and only if it has a task. A free one holds only the number of the next
//!    free place.
//! 2. A wait that is taken stands in the list of its scope, whose head belongs to the scope and is
//!    lent to each call that changes the list.
//! 3. It also stands in the list of its task, whose head belongs to the task, so that it is found
//!    if the task ends without having taken it back. Nearly every task waits in one place at a
//!    time, so a wait that is alone writes only the head, and a free place has no link to a next
//!    one.

use std::ops::{Index, IndexMut};
use std::rc::Rc;
use std::task::Waker;

use trio_platform::{Key, prefetch};

use super::causes::Cause;
use super::tree::{NONE, id};
use crate::sync::reschedule::Aborter;
use crate::task::{NodeRef, NurseryRef};
use crate::timers::TimerKey;

/// The waits of a run, by their numbers.
pub(super) struct Waits {
    places: Vec<Wait>,
    free: u32,
    lines: Lines,
}

/// The waits that others before them in a line may hold up.
#[derive(Default)]
struct Lines {
    /// Every wait that stands in a line, and perhaps some that no longer do, until the next
    /// cleaning.
    standing: Vec<u32>,
    /// How many there must be before cleaning is worth while.
    enough: usize,
}

/// One reason why a task does not run.
pub(super) struct Wait {
    /// The task that waits; for a body, the task that opened the nursery. `None` if the place is
    /// free.
    task: Option<NodeRef>,
    /// The waker to call instead of the task, if a combinator has put its own in place.
    pub(super) waker: Option<Waker>,
    pub(super) scope: u32,
    previous: u32,
    /// The next in the list of the scope, or the next free place.
    next: u32,
    /// The neighbours in the list of the task; the one before means nothing if this is the first.
    of_task: (u32, u32),
    pub(super) timer: Option<TimerKey>,
    pub(super) object: Object,
    pub(super) state: WaitState,
    /// Whether cancellations pass it by.
    pub(super) shielded: bool,
    /// Is asked to end the wait, and then does, or does not. The future holds another handle.
    pub(super) aborter: Option<Rc<dyn Aborter>>,
    /// The nursery that must not end before the operation does.
    pub(super) counted: Option<NurseryRef>,
    /// What the task waits in, for the task tree.
    pub(super) what: &'static str,
}

/// What is waited for, as far as the run needs it when the future is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Object {
    Operation(Key),
    /// A descriptor that the driver may watch, in this place.
    Watch(u32),
    /// A turn in this line, whose first may hold up those behind it.
    Line(usize),
    Other,
}

#[derive(Debug)]
pub(crate) enum WaitState {
    Waiting,
    /// What was waited for has come.
    Woken,
    /// Cancelled: it has not come, and will not.
    Aborted(Cause),
    /// Cancelled, but the operation's own completion decides.
    Asked(Cause),
    /// The future is gone; the entry lives until the operation ends.
    Orphan,
    /// Nothing is waited for at the moment, but will be again: the place is kept.
    Resting,
}

/// What a wait leaves when it ends; to be dropped when nothing is borrowed, since foreign wakers
/// run foreign code.
pub(crate) struct Ended {
    /// The nursery that counts its operation.
    pub(crate) counted: Option<NurseryRef>,
    #[expect(dead_code, reason = "held to be dropped")]
    rest: (Option<NodeRef>, Option<Waker>, Option<Rc<dyn Aborter>>),
}

impl Waits {
    pub(super) fn new() -> Self {
        Self {
            places: Vec::new(),
            free: NONE,
            lines: Lines::default(),
        }
    }

    /// Adds a wait of `task` in `scope`, at the head of its list.
    #[inline]
    pub(super) fn insert(
        &mut self,
        task: NodeRef,
        scope: u32,
        alone: bool,
        first: &mut u32,
        what: &'static str,
    ) -> u32 {
        // `NONE` is beyond the end.
        if self.free as usize >= self.places.len() {
            self.grow();
        }
        let wait = self.free;
        let entry = &mut self.places[wait as usize];
        debug_assert!(entry.task.is_none(), "a place is taken once");
        self.free = entry.next;
        if alone {
            task.set_lone_wait(wait);
        }
        let others = task.waits.replace(wait);
        entry.task = Some(task);
        entry.what = what;
        if others != NONE {
            self.chain(wait, others);
        }
        self.link(wait, scope, first);
        wait
    }

    /// Makes a wait the first of its task, before those that begin with `others`.
    #[cold]
    fn chain(&mut self, wait: u32, others: u32) {
        self.places[wait as usize].of_task.1 = others;
        if let Some(other) = self.places.get_mut(others as usize) {
            other.of_task.0 = wait;
        }
    }

    /// Removes a wait, which is not the only one, from the list of its task.
    #[cold]
    fn unchain(&mut self, wait: u32) {
        let entry = &mut self.places[wait as usize];
        let (previous, next) = std::mem::replace(&mut entry.of_task, (NONE, NONE));
        if entry.task().waits.get() == wait {
            entry.task().waits.set(next);
        } else {
            self.places[previous as usize].of_task.1 = next;
        }
        if let Some(next) = self.places.get_mut(next as usize) {
            next.of_task.0 = previous;
        }
    }

    /// Adds a free place at the end.
    #[cold]
    fn grow(&mut self) {
        self.free = id(self.places.len());
        self.places.push(Wait {
            task: None,
            waker: None,
            scope: NONE,
            previous: NONE,
            next: NONE,
            of_task: (NONE, NONE),
            timer: None,
            object: Object::Other,
            state: WaitState::Waiting,
            shielded: false,
            aborter: None,
            counted: None,
            what: "",
        });
    }

    /// Frees the place of a wait that has nothing but its task, as nearly all do; returns the task.
    /// With any other it does nothing.
    #[inline]
    pub(super) fn remove_plain(&mut self, wait: u32, first: &mut u32) -> Option<NodeRef> {
        if !self.places[wait as usize].is_plain() {
            return None;
        }
        self.unlink(wait, first);
        self.free_place(wait)
    }

    /// Frees the place of a wait that is over and has nothing but its task; returns the task and,
    /// if the wait was aborted, why. With any other it does nothing.
    #[inline]
    pub(super) fn remove_over(
        &mut self,
        wait: u32,
        first: &mut u32,
    ) -> Option<(Option<Cause>, NodeRef)> {
        let entry = &mut self.places[wait as usize];
        debug_assert!(entry.is_over(), "what has not ended is not taken out");
        if !entry.is_bare() {
            return None;
        }
        let cause = match std::mem::replace(&mut entry.state, WaitState::Waiting) {
            WaitState::Aborted(cause) => Some(cause),
            _ => None,
        };
        self.unlink(wait, first);
        Some((cause, self.free_place(wait)?))
    }

    /// Frees the place of a wait, whose timer has been taken back.
    pub(super) fn remove(&mut self, wait: u32, first: &mut u32) -> Ended {
        self.unlink(wait, first);
        let entry = &mut self.places[wait as usize];
        debug_assert!(entry.timer.is_none(), "a wait that ends has no deadline");
        let counted = entry.counted.take();
        let (waker, aborter) = (entry.waker.take(), entry.aborter.take());
        let rest = (self.free_place(wait), waker, aborter);
        Ended { counted, rest }
    }

    #[inline(always)]
    fn free_place(&mut self, wait: u32) -> Option<NodeRef> {
        let free = std::mem::replace(&mut self.free, wait);
        let entry = &mut self.places[wait as usize];
        entry.next = free;
        entry.object = Object::Other;
        entry.state = WaitState::Waiting;
        entry.shielded = false;
        let alone = entry.task().waits.get() == wait && entry.of_task.1 == NONE;
        if alone {
            entry.task().waits.set(NONE);
        } else {
            self.unchain(wait);
        }
        let task = self.places[wait as usize].task.take()?;
        task.end_lone_wait(wait);
        Some(task)
    }

    #[inline]
    pub(super) fn link(&mut self, wait: u32, scope: u32, first: &mut u32) {
        let next = std::mem::replace(first, wait);
        let entry = &mut self.places[wait as usize];
        entry.scope = scope;
        entry.previous = NONE;
        entry.next = next;
        if let Some(next) = self.places.get_mut(next as usize) {
            next.previous = wait;
        }
    }

    #[inline(always)]
    pub(super) fn unlink(&mut self, wait: u32, first: &mut u32) {
        let Wait { previous, next, .. } = self.places[wait as usize];
        match self.places.get_mut(previous as usize) {
            Some(previous) => previous.next = next,
            None => *first = next,
        }
        if let Some(next) = self.places.get_mut(next as usize) {
            next.previous = previous;
        }
    }

    /// Prefetches the memory of a wait that is about to end.
    #[inline]
    pub(super) fn foresee(&self, wait: u32) {
        let place = self.places.as_ptr().wrapping_add(wait as usize);
        prefetch(place, size_of::<Wait>());
    }

    /// The task that waits in a place, if one does.
    #[inline]
    pub(super) fn task(&self, wait: u32) -> Option<&NodeRef> {
        self.places.get(wait as usize)?.task.as_ref()
    }

    /// The waits of `task`, with their numbers.
    pub(super) fn of<'a>(&'a self, task: &NodeRef) -> impl Iterator<Item = (u32, &'a Wait)> {
        let numbered = |wait: u32| Some((wait, self.places.get(wait as usize)?));
        std::iter::successors(numbered(task.waits.get()), move |(_, entry)| {
            numbered(entry.of_task.1)
        })
    }

    /// Moves a wait to another task; returns the previous one.
    pub(super) fn set_task(&mut self, wait: u32, task: &NodeRef) -> Option<NodeRef> {
        self.unchain(wait);
        let others = task.waits.replace(wait);
        if others != NONE {
            self.chain(wait, others);
        }
        let entry = &mut self.places[wait as usize];
        let before = entry.task.replace(task.clone());
        if let Some(line) = entry.line() {
            // Those whose task had ended have been cleaned away.
            self.stand_in(wait, line);
        }
        before
    }

    /// Notes that a wait stands in `line`.
    pub(super) fn stand_in(&mut self, wait: u32, line: usize) {
        self.places[wait as usize].object = Object::Line(line);
        self.lines.standing.push(wait);
        if self.lines.standing.len() > self.lines.enough {
            self.clean_lines();
        }
    }

    /// The lines in which `task`, which has ended, still stands: nothing will remove it from them,
    /// and the tasks behind it may go on.
    pub(super) fn left_lines(&self, task: &NodeRef) -> Vec<usize> {
        let waits = self.of(task);
        waits.filter_map(|(_, entry)| entry.line()).collect()
    }

    /// The waits in `line` that would notice if the one before them was gone.
    pub(super) fn standing_in(&mut self, line: usize) -> Vec<u32> {
        self.clean_lines();
        let standing = self.lines.standing.iter().copied();
        let here = |wait: &u32| self.places[*wait as usize].line() == Some(line);
        standing.filter(here).collect()
    }

    /// Removes the waits that no longer stand in a line, and those that have been left.
    #[cold]
    fn clean_lines(&mut self) {
        let Lines { standing, enough } = &mut self.lines;
        // A place that was taken again may have put its number here twice.
        standing.sort_unstable();
        standing.dedup();
        standing.retain(|wait| {
            let entry = &self.places[*wait as usize];
            entry.line().is_some() && !entry.is_left()
        });
        *enough = 2 * standing.len() + LINES_FEW;
    }
}

/// So few are not worth cleaning.
const LINES_FEW: usize = 32;

impl Index<u32> for Waits {
    type Output = Wait;

    #[inline]
    fn index(&self, wait: u32) -> &Wait {
        &self.places[wait as usize]
    }
}

impl IndexMut<u32> for Waits {
    #[inline]
    fn index_mut(&mut self, wait: u32) -> &mut Wait {
        &mut self.places[wait as usize]
    }
}

impl Wait {
    /// Whether a cancellation reaches it: it is not over, and has not been asked to end (L5).
    #[inline]
    pub(super) fn is_to_abort(&self) -> bool {
        matches!(self.state, WaitState::Waiting) && !self.shielded
    }

    #[inline]
    pub(super) fn operation(&self) -> Option<Key> {
        match self.object {
            Object::Operation(key) => Some(key),
            Object::Watch(_) | Object::Line(_) | Object::Other => None,
        }
    }

    fn line(&self) -> Option<usize> {
        match self.object {
            Object::Line(line) => Some(line),
            Object::Operation(_) | Object::Watch(_) | Object::Other => None,
        }
    }

    /// Whether nobody would notice if it was ended.
    #[inline]
    pub(super) fn is_left(&self) -> bool {
        self.waker.is_none() && self.task().is_done()
    }

    /// Whether it has nothing but its task.
    #[inline]
    fn is_plain(&self) -> bool {
        use WaitState::{Resting, Waiting, Woken};
        matches!(self.state, Waiting | Woken | Resting) && self.is_bare()
    }

    /// Whether it has nothing but its task and its state.
    #[inline]
    pub(super) fn is_bare(&self) -> bool {
        self.waker.is_none()
            && self.timer.is_none()
            && self.aborter.is_none()
            && self.counted.is_none()
    }

    /// Whether it has ended, however that happened.
    #[inline]
    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, WaitState::Woken | WaitState::Aborted(_))
    }

    /// Keeps the place of a wait that has nothing but its task for the next one; `false` if what
    /// was waited for has not come.
    #[inline]
    pub(super) fn rest(&mut self) -> bool {
        if !matches!(self.state, WaitState::Woken) || self.waker.is_some() {
            return false;
        }
        debug_assert!(self.is_plain(), "only a plain wait is kept");
        debug_assert!(
            self.operation().is_none(),
            "an operation has a wait of its own"
        );
        self.state = WaitState::Resting;
        true
    }

    /// Waits again.
    #[inline]
    pub(super) fn resume(&mut self) {
        debug_assert!(matches!(self.state, WaitState::Resting), "nobody waits");
        self.state = WaitState::Waiting;
    }

    /// The task that waits.
    #[inline]
    pub(super) fn task(&self) -> &NodeRef {
        self.task.as_ref().expect("a wait has a task until it ends")
    }

    /// The next one in the list of its scope, or `NONE`.
    pub(super) fn next(&self) -> u32 {
        self.next
    }
}
