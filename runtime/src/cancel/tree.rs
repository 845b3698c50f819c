//! The scopes of a run as a tree, and what waits under each: where cancelling happens.
//!
//! 1. Every scope that has been entered has a slot, linked under the scope it was entered in. The
//!    slot goes when the scope is left.
//! 2. A slot is effective, and has a record of why, if its own scope has been cancelled, or if it
//!    is not shielded and the slot above is effective. This holds at all times, so that a
//!    checkpoint looks at one slot.
//! 3. Every task that waits has a wait in the list of the scope that it waits under. When a scope
//!    becomes effective each wait under it is aborted, at once and at most once (semantics L2, L5):
//!    either it is over, or (an operation of the driver) it is asked to end and its completion
//!    decides (D1, D2).
//! 4. Nothing here recurses: ten thousand nested scopes are cancelled by a loop (trap 32).
//! 5. A task that can be cancelled by itself is *apart*. It gets a scope of its own as soon as it
//!    contains more than one wait: another wait, a scope, a nursery, a timeout that waits. Until
//!    then its one wait stands in the list of the enclosing scope, and the task has the number of
//!    that wait. Cancelling the task aborts that wait and leaves a mark at the task, which counts
//!    as an effective scope. When the task gets its scope, the wait or the mark goes there; when it
//!    ends, the mark does what leaving the scope would have done. Most tasks that are spawned never
//!    have a scope.

use std::borrow::Cow;
use std::cell::Cell;
use std::panic::Location;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use trio_platform::{Key, Time};

use super::causes::{Cause, Causes};
use super::scope::Handle;
use super::scopes::{Details, Scopes};
use super::waits::{Ended, Object, WaitState, Waits};
use super::{After, CancelSource, Cancelled};
use crate::sync::reschedule::Aborter;
use crate::task::{Current, NodeRef, NurseryRef};
use crate::timers::{Target, Timers};

/// No scope, and no wait.
pub(super) const NONE: u32 = u32::MAX;

/// How many operations, wakers and aborters memory is kept for between changes.
const KEPT: usize = 64;

/// The scope around everything in a run; never cancelled.
pub(crate) const ROOT: u32 = 0;

pub(crate) struct Tree {
    scopes: Scopes,
    /// How many scopes are effective, so that nobody has to look at each of them.
    effective: Rc<Cell<u32>>,
    waits: Waits,
    causes: Causes,
    pub(crate) timers: Timers,
    /// The scopes that have been asked to drain, and by whom; mostly none. They are few, so the
    /// question whether code is draining is answered by looking up each enclosing scope here.
    drains: Vec<(u32, Cancelled)>,
    /// The lists of an earlier change, for the next change that needs some.
    spare: Option<Box<Lists>>,
}

/// What is left to do once the tree is no longer borrowed: mostly nothing.
#[derive(Default)]
#[must_use = "what is left to do is done by `Run::apply`"]
pub(crate) struct Effects(Option<Box<Lists>>);

#[derive(Default)]
pub(crate) struct Lists {
    /// Operations to ask the driver to cancel.
    pub(crate) cancels: Vec<Key>,
    /// Foreign wakers to call.
    pub(crate) wakers: Vec<Waker>,
    /// Aborters to ask; each decides how its wait ends.
    pub(crate) aborts: Vec<(Rc<dyn Aborter>, Cancelled)>,
}

impl Effects {
    fn lists<'a>(&'a mut self, spare: &mut Option<Box<Lists>>) -> &'a mut Lists {
        let lists = &mut self.0;
        lists.get_or_insert_with(|| spare.take().unwrap_or_default())
    }

    /// The lists, if there is anything in them.
    #[inline]
    pub(crate) fn into_lists(self) -> Option<Box<Lists>> {
        self.0
    }
}

/// What a new scope starts with.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) deadline: Time,
    pub(crate) relative: Option<Duration>,
    pub(crate) shield: bool,
    pub(crate) cancelled: Option<Cancelled>,
    /// Where the deadline was set.
    pub(crate) place: Option<&'static Location<'static>>,
    pub(crate) soft: bool,
    /// Already asked to drain, with the time that is left from entry on.
    pub(crate) drain: Option<Box<(Cancelled, Duration)>>,
}

impl Default for Entry {
    fn default() -> Self {
        Self {
            deadline: Time::NEVER,
            relative: None,
            shield: false,
            cancelled: None,
            place: None,
            soft: false,
            drain: None,
        }
    }
}

impl Entry {
    /// Whether there is nothing in it. The place of something that was never set does not matter.
    #[inline]
    pub(crate) fn is_plain(&self) -> bool {
        self.deadline == Time::NEVER
            && self.relative.is_none()
            && self.cancelled.is_none()
            && !self.shield
            && !self.soft
            && self.drain.is_none()
    }
}

/// How a scope was when it was left.
pub(crate) struct Left {
    pub(crate) own: Option<Cancelled>,
    /// Whether a cancellation from an enclosing scope was visible.
    pub(crate) outer: bool,
    /// Whether a cancellation of its own was removed from what it returns.
    pub(super) caught: bool,
    pub(crate) shield: bool,
    pub(crate) deadline: Time,
    pub(crate) handle: Option<Rc<Handle>>,
}

pub(super) fn id(index: usize) -> u32 {
    u32::try_from(index).expect("fewer than four thousand million at once")
}

impl Tree {
    pub(crate) fn new(effective: Rc<Cell<u32>>) -> Self {
        effective.set(0);
        let mut scopes = Scopes::new();
        let root = scopes.take();
        assert_eq!(root, ROOT, "the root is the first scope");
        Self {
            scopes,
            effective,
            waits: Waits::new(),
            causes: Causes::new(),
            timers: Timers::default(),
            drains: Vec::new(),
            spare: None,
        }
    }

    /// The run has ended: returns what waits, and what is left of the user's values, to be dropped
    /// when nothing is borrowed. The scopes stay, since a future that was taken out of the run
    /// leaves its own when it is dropped.
    pub(crate) fn end(&mut self) -> impl Sized + use<> {
        self.scopes.forget_waits();
        self.timers = Timers::default();
        let spare = self.spare.take();
        (std::mem::replace(&mut self.waits, Waits::new()), spare)
    }

    /// Keeps empty lists for the next change, but not the memory of one that was exceptionally
    /// large.
    pub(crate) fn keep(&mut self, mut lists: Box<Lists>) {
        lists.cancels.shrink_to(KEPT);
        lists.wakers.shrink_to(KEPT);
        lists.aborts.shrink_to(KEPT);
        self.spare = Some(lists);
    }

    // Scopes.

    /// Enters a scope under `parent`. A deadline that is already due must have been made into
    /// `cancelled`.
    pub(crate) fn enter(&mut self, parent: u32, entry: Entry) -> u32 {
        let scope = self.scopes.take();
        let kind = &mut self.scopes[scope].kind;
        (kind.shield, kind.soft) = (entry.shield, entry.soft);
        let own = match entry.cancelled {
            None if entry.soft => self.draining(parent).cloned(),
            own => own,
        };
        let own = own.map(|own| self.causes.add(own));
        if !entry.shield {
            self.inherit(scope, parent);
        }
        if let (None, Some(own)) = (&self.scopes[scope].record, &own) {
            self.scopes[scope].record = Some(self.causes.share(own));
            self.effective.set(self.effective.get() + 1);
        }
        let Entry {
            deadline,
            relative,
            place,
            ..
        } = entry;
        let limited = relative.is_some() || deadline != Time::NEVER;
        if own.is_some() || limited {
            self.scopes[scope].kind.unwatched = limited && own.is_none();
            *self.scopes.details_mut(scope) = Details {
                own,
                deadline,
                relative,
                place,
                ..Details::default()
            };
        }
        self.scopes.link(scope, parent);
        scope
    }

    /// Enters a scope with nothing of its own.
    #[inline]
    pub(crate) fn enter_plain(&mut self, parent: u32) -> u32 {
        let scope = self.scopes.take();
        self.inherit(scope, parent);
        self.scopes.link(scope, parent);
        scope
    }

    /// Enters a scope that has a timeout and nothing else. Something in it waits, or is about to,
    /// so the timeout counts from the end of this turn; if it is taken back by then, it leaves no
    /// trace.
    #[inline(always)]
    pub(crate) fn enter_timed(&mut self, parent: u32, after: After) -> u32 {
        let scope = self.enter_plain(parent);
        let timer = self.timers.set_after(after.timeout, Target::Scope(scope));
        let details = self.scopes.details_mut(scope);
        details.timer = Some(timer);
        details.relative = Some(after.timeout);
        details.place = Some(after.place);
        scope
    }

    /// A new scope is effective if the one above is.
    #[inline]
    fn inherit(&mut self, scope: u32, parent: u32) {
        if let Some(record) = &self.scopes[parent].record {
            self.scopes[scope].record = Some(self.causes.share(record));
            self.effective.set(self.effective.get() + 1);
        }
    }

    /// Leaves a scope if nothing is in it, it is not cancelled, and nobody has a handle that could
    /// be asked how it was left; returns whether that was so.
    #[inline]
    pub(crate) fn leave_plain(&mut self, scope: u32) -> bool {
        let slot = &self.scopes[scope];
        if !slot.is_plain() || !self.drains.is_empty() {
            return false;
        }
        if slot.kind.detailed && !self.forget_details(scope) {
            return false;
        }
        self.scopes.unlink(scope);
        self.scopes.free(scope);
        true
    }

    /// Takes back the deadline of a scope, unless the scope is cancelled or has a handle.
    #[inline(always)]
    fn forget_details(&mut self, scope: u32) -> bool {
        let details = self.scopes.details_mut(scope);
        if details.handle.is_some() {
            return false;
        }
        debug_assert!(details.own.is_none(), "who is cancelled has a record");
        (details.relative, details.place) = (None, None);
        details.deadline = Time::NEVER;
        if let Some(timer) = details.timer.take() {
            self.timers.unset(timer);
        }
        true
    }

    /// Leaves a scope; what is still in it moves to the enclosing scope.
    pub(crate) fn leave(&mut self, scope: u32) -> Left {
        let slot = &self.scopes[scope];
        let (parent, kind) = (slot.parent, slot.kind);
        if slot.first_child != NONE || slot.first_wait != NONE {
            self.empty(scope, parent);
        }
        self.scopes.unlink(scope);
        if !self.drains.is_empty() {
            self.drains.retain(|(drained, _)| *drained != scope);
        }
        if let Some(record) = self.scopes[scope].record.take() {
            self.causes.release(record);
            self.effective.set(self.effective.get() - 1);
        }
        let mut left = Left {
            own: None,
            outer: !kind.shield && self.is_cancelled(parent),
            caught: false,
            shield: kind.shield,
            deadline: Time::NEVER,
            handle: None,
        };
        if kind.detailed {
            self.leave_details(scope, &mut left);
        }
        self.scopes.free(scope);
        left
    }

    fn leave_details(&mut self, scope: u32, left: &mut Left) {
        let details = self.scopes.details_mut(scope);
        if let Some(timer) = details.timer.take() {
            self.timers.unset(timer);
        }
        if let Some(own) = details.own.take() {
            left.own = Some(self.causes.take(own));
        }
        left.deadline = std::mem::replace(&mut details.deadline, Time::NEVER);
        left.handle = details.handle.take();
        (details.relative, details.place) = (None, None);
    }

    /// Moves what is in a scope to the enclosing one.
    #[cold]
    fn empty(&mut self, scope: u32, parent: u32) {
        while self.scopes[scope].first_child != NONE {
            let child = self.scopes[scope].first_child;
            self.scopes.unlink(child);
            self.scopes.link(child, parent);
        }
        while self.scopes[scope].first_wait != NONE {
            let wait = self.scopes[scope].first_wait;
            self.move_wait(wait, parent);
        }
    }

    /// Moves a scope, with everything in it, under another.
    pub(crate) fn move_scope(&mut self, scope: u32, parent: u32, effects: &mut Effects) {
        self.scopes.unlink(scope);
        self.scopes.link(scope, parent);
        self.refresh(scope, effects);
        self.cancel_soft(effects);
    }

    /// The cancellation that a checkpoint under `scope` has to report.
    pub(crate) fn cancelled(&self, scope: u32) -> Option<&Cancelled> {
        let record = self.scopes[scope].record.as_ref()?;
        Some(self.causes.get(record))
    }

    #[inline]
    pub(crate) fn is_cancelled(&self, scope: u32) -> bool {
        self.scopes[scope].record.is_some()
    }

    /// The scope's own cancellation.
    pub(crate) fn own(&self, scope: u32) -> Option<&Cancelled> {
        let own = self.scopes.details(scope)?.own.as_ref()?;
        Some(self.causes.get(own))
    }

    /// The number of a cancellation, to be given to [`cancel`](Self::cancel) or
    /// [`cancel_task`](Self::cancel_task).
    pub(crate) fn new_cause(
        &mut self,
        source: CancelSource,
        reason: Option<Cow<'static, str>>,
        task: Option<&NodeRef>,
        place: &'static Location<'static>,
    ) -> Cause {
        self.causes.make(source, reason, task, Some(place))
    }

    /// The same, if it is the number of the last one made.
    #[inline]
    pub(crate) fn latest_cause(
        &mut self,
        source: CancelSource,
        reason: Option<&Cow<'static, str>>,
        task: Option<&NodeRef>,
        place: &'static Location<'static>,
    ) -> Option<Cause> {
        self.causes.latest(source, reason, task, Some(place))
    }

    /// The same for a cancellation that already exists.
    pub(crate) fn add_cause(&mut self, cancelled: Cancelled) -> Cause {
        self.causes.add(cancelled)
    }

    /// Returns what a number stands for, and gives the number back.
    pub(crate) fn take_cause(&mut self, cause: Cause) -> Cancelled {
        self.causes.take(cause)
    }

    /// Cancels a scope; the first cancellation is the one that stays (L6).
    pub(crate) fn cancel(&mut self, scope: u32, own: Cause, effects: &mut Effects) {
        let details = self.scopes.details_mut(scope);
        if details.own.is_some() {
            return self.causes.release(own);
        }
        let record = self.causes.share(&own);
        details.own = Some(own);
        // Its deadline no longer matters.
        if let Some(timer) = details.timer.take() {
            self.timers.unset(timer);
        }
        let slot = &mut self.scopes[scope];
        slot.kind.unwatched = false;
        if slot.record.is_none() && slot.first_child == NONE {
            // Mostly nothing is below, and no enclosing scope was cancelled before.
            slot.record = Some(record);
            self.effective.set(self.effective.get() + 1);
            self.abort_waits(scope, effects);
        } else {
            self.causes.release(record);
            self.refresh(scope, effects);
        }
    }

    // Tasks that are apart (rule 5).

    /// Cancels a task that is apart, in the scope `around`.
    pub(crate) fn cancel_task(
        &mut self,
        task: &NodeRef,
        around: u32,
        cause: Cause,
        effects: &mut Effects,
    ) {
        if task.is_marked() {
            return self.causes.release(cause);
        }
        // What reached the task first is what it reports (L6).
        let cause = match &self.scopes[around].record {
            Some(record) => {
                self.causes.release(cause);
                self.causes.share(record)
            }
            None => cause,
        };
        self.effective.set(self.effective.get() + 1);
        if let Some(wait) = task.lone_wait() {
            if self.waits[wait].is_to_abort() {
                let cause = self.causes.share(&cause);
                self.abort_because(wait, cause, effects);
            }
        }
        task.mark(cause);
    }

    /// A task that was cancelled while it was apart has ended: gives the mark back, and returns
    /// whether a cancellation of the scope `around` is visible.
    pub(crate) fn end_mark(&mut self, mark: Cause, around: u32) -> bool {
        self.causes.release(mark);
        self.effective.set(self.effective.get() - 1);
        self.is_cancelled(around)
    }

    /// The same for a task that has returned nothing but this cancellation, in a scope that is not
    /// cancelled.
    pub(crate) fn end_mark_with(&mut self, mark: Cause, cancelled: Cancelled) {
        self.causes.release_with(mark, cancelled);
        self.effective.set(self.effective.get() - 1);
    }

    /// Gives a task that is apart a scope of its own, with its wait or its mark.
    pub(crate) fn enter_own(&mut self, task: &NodeRef, parent: u32) -> u32 {
        let lone = task.lone_wait();
        let scope = match task.take_mark() {
            None => self.enter_plain(parent),
            Some(own) => {
                // It was counted as effective when it was marked.
                let scope = self.scopes.take();
                self.scopes[scope].record = Some(self.causes.share(&own));
                self.scopes.details_mut(scope).own = Some(own);
                self.scopes.link(scope, parent);
                scope
            }
        };
        if let Some(wait) = lone {
            self.move_wait(wait, scope);
        }
        task.set_own_scope(scope);
        scope
    }

    /// What a mark stands for.
    pub(crate) fn marked(&self, task: &NodeRef) -> Option<Cancelled> {
        task.with_mark(|mark| self.causes.get(mark).clone())
    }

    /// The scope that encloses another.
    pub(crate) fn parent(&self, scope: u32) -> u32 {
        self.scopes[scope].parent
    }

    pub(crate) fn shield(&self, scope: u32) -> bool {
        self.scopes[scope].kind.shield
    }

    pub(crate) fn set_shield(&mut self, scope: u32, shield: bool, effects: &mut Effects) {
        self.scopes[scope].kind.shield = shield;
        self.refresh(scope, effects);
        self.cancel_soft(effects);
    }

    // Draining, the gentler stage: a state that code can ask for. It cancels nothing except the
    // scopes that are made to be cancelled by it.

    /// Asks what is under a scope to finish; the first request is the one that stays.
    pub(crate) fn drain(&mut self, scope: u32, asked: Cancelled, effects: &mut Effects) {
        if !self.drains.iter().any(|(drained, _)| *drained == scope) {
            self.drains.push((scope, asked));
            self.cancel_soft(effects);
        }
    }

    /// The request to drain that is visible under `scope`.
    pub(crate) fn draining(&self, mut scope: u32) -> Option<&Cancelled> {
        if self.drains.is_empty() {
            return None;
        }
        loop {
            let own = self.drains.iter().find(|(drained, _)| *drained == scope);
            if let Some((_, asked)) = own {
                return Some(asked);
            }
            let slot = &self.scopes[scope];
            if slot.kind.shield || slot.parent == NONE {
                return None;
            }
            scope = slot.parent;
        }
    }

    /// Cancels the soft scopes that are draining. This looks at every scope of the run: draining is
    /// rare, whereas soft scopes are entered and left once an operation.
    fn cancel_soft(&mut self, effects: &mut Effects) {
        if self.drains.is_empty() {
            return;
        }
        let soft = self.scopes.iter().filter(|(_, slot)| slot.kind.soft);
        let draining = soft.filter_map(|(scope, _)| match self.own(scope) {
            None => Some((scope, self.draining(scope)?.clone())),
            Some(_) => None,
        });
        for (scope, asked) in draining.collect::<Vec<_>>() {
            let asked = self.causes.add(asked);
            self.cancel(scope, asked, effects);
        }
    }

    /// Brings the records of a scope and all below it up to date (rule 2), and aborts the waits of
    /// those that became effective (rule 3).
    fn refresh(&mut self, scope: u32, effects: &mut Effects) {
        let top = scope;
        let mut scope = scope;
        loop {
            // Goes down only where something has changed.
            let below = match self.refresh_one(scope, effects) {
                true => self.scopes[scope].first_child,
                false => NONE,
            };
            if below != NONE {
                scope = below;
                continue;
            }
            while scope != top && self.scopes[scope].next == NONE {
                scope = self.scopes[scope].parent;
            }
            if scope == top {
                return;
            }
            scope = self.scopes[scope].next;
        }
    }

    /// The same for one scope; returns whether it has become effective, or is no longer so.
    fn refresh_one(&mut self, scope: u32, effects: &mut Effects) -> bool {
        let slot = &self.scopes[scope];
        let own = self.scopes.details(scope).and_then(|it| it.own.as_ref());
        let inherited = match slot.parent {
            NONE => None,
            _ if slot.kind.shield => None,
            parent => self.scopes[parent].record.as_ref(),
        };
        let record = match (&slot.record, own, inherited) {
            (_, None, None) => None,
            // A record that is still justified is not overwritten.
            (Some(_), Some(_), Some(_)) => return false,
            (_, Some(own), None) => Some(self.causes.share(own)),
            (_, None, Some(inherited)) => Some(self.causes.share(inherited)),
            (None, Some(own), Some(_)) => Some(self.causes.share(own)),
        };
        let after = record.is_some();
        let before = std::mem::replace(&mut self.scopes[scope].record, record);
        let was = before.is_some();
        if let Some(before) = before {
            self.causes.release(before);
        }
        let count = self.effective.get();
        match (was, after) {
            (false, true) => {
                self.effective.set(count + 1);
                self.abort_waits(scope, effects);
            }
            (true, false) => self.effective.set(count - 1),
            _ => {}
        }
        was != after
    }

    fn abort_waits(&mut self, scope: u32, effects: &mut Effects) {
        let mut wait = self.scopes[scope].first_wait;
        while wait != NONE {
            let next = self.waits[wait].next();
            self.abort(wait, effects);
            wait = next;
        }
    }

    /// Aborts one wait, unless it is over or has been asked to end (L5).
    fn abort(&mut self, wait: u32, effects: &mut Effects) {
        let entry = &mut self.waits[wait];
        let Some(record) = &self.scopes[entry.scope].record else {
            return;
        };
        if !entry.is_to_abort() {
            return;
        }
        let cause = self.causes.share(record);
        self.abort_because(wait, cause, effects);
    }

    /// The same for a wait that has not ended, and has not been asked to. Mostly nobody else
    /// decides how it ends, and there is only the task to wake: that case is inlined.
    #[inline(always)]
    fn abort_because(&mut self, wait: u32, cause: Cause, effects: &mut Effects) {
        let entry = &mut self.waits[wait];
        if entry.operation().is_some() || entry.aborter.is_some() {
            return self.ask_to_end(wait, cause, effects);
        }
        entry.state = WaitState::Aborted(cause);
        if entry.is_bare() {
            // Nothing has to be taken back, and nobody else woken.
            return entry.task().schedule();
        }
        self.end_timer(wait);
        self.wake(wait, effects);
    }

    /// Aborts a wait whose end is decided by the driver, or by whoever holds the aborter.
    #[inline(never)]
    fn ask_to_end(&mut self, wait: u32, cause: Cause, effects: &mut Effects) {
        let entry = &mut self.waits[wait];
        let lists = effects.lists(&mut self.spare);
        match (entry.operation(), &entry.aborter) {
            (Some(key), _) => lists.cancels.push(key),
            (None, Some(aborter)) => {
                let cancelled = self.causes.get(&cause).clone();
                lists.aborts.push((aborter.clone(), cancelled));
            }
            (None, None) => unreachable!("somebody else decides"),
        }
        entry.state = WaitState::Asked(cause);
    }

    // Deadlines.

    pub(crate) fn deadline(&self, scope: u32) -> Time {
        let details = self.scopes.details(scope);
        details.map_or(Time::NEVER, |details| details.deadline)
    }

    pub(crate) fn relative(&self, scope: u32) -> Option<Duration> {
        self.scopes.details(scope)?.relative
    }

    pub(crate) fn set_deadline(&mut self, scope: u32, deadline: Time) {
        let details = self.scopes.details_mut(scope);
        details.deadline = deadline;
        details.relative = None;
        let own = details.own.is_some();
        if let Some(timer) = details.timer.take() {
            self.timers.unset(timer);
        }
        self.scopes[scope].kind.unwatched = !own && deadline != Time::NEVER;
        self.arm(scope);
    }

    /// Where the deadline that [`set_deadline`](Self::set_deadline) set was set.
    pub(super) fn set_place(&mut self, scope: u32, place: &'static Location<'static>) {
        self.scopes.details_mut(scope).place = Some(place);
    }

    pub(super) fn place(&self, scope: u32) -> Option<&'static Location<'static>> {
        self.scopes.details(scope)?.place
    }

    /// Starts watching the deadline of a scope in which something waits, if it has one that is not
    /// yet watched.
    #[inline]
    pub(crate) fn arm(&mut self, scope: u32) {
        if self.scopes[scope].kind.unwatched {
            self.arm_unwatched(scope);
        }
    }

    fn arm_unwatched(&mut self, scope: u32) {
        self.scopes[scope].kind.unwatched = false;
        let details = self.scopes.details_mut(scope);
        let target = Target::Scope(scope);
        details.timer = Some(match details.relative {
            Some(after) => self.timers.set_after(after, target),
            None => self.timers.set(details.deadline, target),
        });
    }

    /// Counts from `now` the timeouts that have not been counted from any moment yet.
    pub(crate) fn settle(&mut self, now: Time) {
        let scopes = &mut self.scopes;
        self.timers.settle(now, |target, deadline| {
            if let Target::Scope(scope) = target {
                let details = scopes.details_mut(scope);
                details.deadline = deadline;
                details.relative = None;
            }
        });
    }

    /// The earliest deadline that applies to a task under `scope`; past if it is cancelled (H3).
    pub(crate) fn effective_deadline(&self, mut scope: u32) -> Time {
        if self.is_cancelled(scope) {
            return Time::PAST;
        }
        let mut earliest = Time::NEVER;
        while scope != NONE {
            earliest = earliest.min(self.deadline(scope));
            let slot = &self.scopes[scope];
            scope = if slot.kind.shield { NONE } else { slot.parent };
        }
        earliest
    }

    /// The relative deadlines of `scope` and the scopes around it that have not been resolved.
    pub(crate) fn unresolved(&self, mut scope: u32) -> Vec<u32> {
        let mut found = Vec::new();
        while scope != NONE {
            if self.relative(scope).is_some() {
                found.push(scope);
            }
            scope = self.scopes[scope].parent;
        }
        found
    }

    /// Whether a deadline has passed; those not counted yet are counted from `now`.
    pub(crate) fn is_any_due(&mut self, now: Time) -> bool {
        self.settle(now);
        self.timers.is_any_due(now)
    }

    /// Lets every deadline that is due take effect.
    pub(crate) fn expire(&mut self, now: Time, effects: &mut Effects) -> bool {
        self.settle(now);
        let mut any = false;
        while let Some(target) = self.timers.expire(now) {
            any = true;
            match target {
                Target::Scope(scope) => {
                    let details = self.scopes.details_mut(scope);
                    details.timer = None;
                    let cause = self.causes.deadline(details.place);
                    self.cancel(scope, cause, effects);
                }
                Target::Wait(wait) => {
                    self.waits[wait].timer = None;
                    self.finish_wait(wait, effects);
                }
            }
        }
        any
    }

    // Handles.

    pub(crate) fn handle(&self, scope: u32) -> Option<Rc<Handle>> {
        self.scopes.details(scope)?.handle.clone()
    }

    pub(crate) fn set_handle(&mut self, scope: u32, handle: Rc<Handle>) {
        self.scopes.details_mut(scope).handle = Some(handle);
    }

    // Waits.

    /// Adds a wait of `task` under `scope`, which must not be cancelled. `alone` if the task is
    /// apart, with no other wait and no scope of its own.
    #[inline]
    pub(crate) fn insert_wait(
        &mut self,
        task: NodeRef,
        scope: u32,
        alone: bool,
        what: &'static str,
    ) -> u32 {
        let first = &mut self.scopes[scope].first_wait;
        self.waits.insert(task, scope, alone, first, what)
    }

    /// Keeps the place of a wait for the next one, if what was waited for has come and it holds no
    /// foreign waker.
    #[inline]
    pub(crate) fn rest_wait(&mut self, wait: u32) -> bool {
        self.waits[wait].rest()
    }

    /// Waits again in a place that was kept, if it is a place of `current`'s under `scope`, and if
    /// `watch` makes sure that something will end the wait.
    #[inline]
    pub(crate) fn resume_wait(
        &mut self,
        wait: u32,
        current: &Current,
        scope: u32,
        watch: impl FnOnce(u32) -> bool,
    ) -> bool {
        let resumed = self.is_current(wait, current, scope) && watch(wait);
        if resumed {
            self.waits[wait].resume();
        }
        resumed
    }

    pub(crate) fn set_operation(&mut self, wait: u32, key: Key) {
        self.waits[wait].object = Object::Operation(key);
    }

    pub(crate) fn operation(&self, wait: u32) -> Option<Key> {
        self.waits[wait].operation()
    }

    /// Notes that the driver watches a descriptor for this wait, in this place, and may do so
    /// again.
    pub(crate) fn set_watch(&mut self, wait: u32, place: u32) {
        self.waits[wait].object = Object::Watch(place);
    }

    /// The place in which the driver may watch a descriptor for this wait.
    pub(crate) fn watch(&self, wait: u32) -> Option<u32> {
        match self.waits[wait].object {
            Object::Watch(place) => Some(place),
            Object::Operation(_) | Object::Line(_) | Object::Other => None,
        }
    }

    /// The waits that a task left behind when it ended for which the driver may watch a descriptor,
    /// each with its place.
    pub(crate) fn left_watching(&self, task: &NodeRef) -> Vec<(u32, u32)> {
        let left = self.waits.of(task);
        let left = left.filter(|(_, entry)| matches!(entry.state, WaitState::Waiting));
        left.filter_map(|(wait, _)| Some((wait, self.watch(wait)?)))
            .collect()
    }

    /// Notes that a wait stands in a line, whose first may hold up those behind it.
    pub(crate) fn stand_in(&mut self, wait: u32, line: usize) {
        self.waits.stand_in(wait, line);
    }

    /// The waits that stand in a line with one that `task` left behind when it ended.
    pub(crate) fn held_up(&mut self, task: &NodeRef) -> Vec<u32> {
        let mut lines = self.waits.left_lines(task);
        lines.sort_unstable();
        lines.dedup();
        let standing = lines.into_iter();
        standing
            .flat_map(|line| self.waits.standing_in(line))
            .collect()
    }

    pub(crate) fn set_wait_timer(&mut self, wait: u32, deadline: Time) {
        self.end_timer(wait);
        if deadline != Time::NEVER {
            let timer = self.timers.set(deadline, Target::Wait(wait));
            self.waits[wait].timer = Some(timer);
        }
    }

    /// The same, for a deadline that long after the next reading of the clock.
    pub(crate) fn set_wait_timer_after(&mut self, wait: u32, after: Duration) {
        let timer = self.timers.set_after(after, Target::Wait(wait));
        self.waits[wait].timer = Some(timer);
    }

    /// The cancellation with which the operation of a wait has been asked to end, if it has.
    pub(crate) fn asked(&self, wait: u32) -> Option<&Cancelled> {
        match &self.waits[wait].state {
            WaitState::Asked(cause) => Some(self.causes.get(cause)),
            _ => None,
        }
    }

    /// Whether a wait is over: with the cancellation, which is handed out once, if that is what
    /// ended it.
    #[inline]
    pub(crate) fn outcome(&mut self, wait: u32) -> Poll<Option<Cancelled>> {
        let state = &mut self.waits[wait].state;
        match state {
            WaitState::Waiting | WaitState::Asked(_) | WaitState::Orphan | WaitState::Resting => {
                Poll::Pending
            }
            WaitState::Woken => Poll::Ready(None),
            WaitState::Aborted(_) => match std::mem::replace(state, WaitState::Woken) {
                WaitState::Aborted(cause) => Poll::Ready(Some(self.causes.take(cause))),
                _ => unreachable!("it was just looked at"),
            },
        }
    }

    /// The same; a wait that is over and has nothing but its task is removed, and its task is
    /// returned, to be dropped when nothing is borrowed.
    #[inline]
    pub(crate) fn end_wait(&mut self, wait: u32) -> Poll<(Option<Cancelled>, Option<NodeRef>)> {
        let outcome = self.outcome(wait);
        outcome.map(|cancelled| (cancelled, self.remove_plain_wait(wait)))
    }

    /// The same in one step for a wait of `current`'s under `scope`, if it has nothing but its task
    /// when it is over, as nearly all do. With any other it does nothing, and returns nothing.
    #[inline(always)]
    pub(crate) fn end_own_wait(
        &mut self,
        wait: u32,
        current: &Current,
        scope: u32,
    ) -> Option<Poll<(Option<Cancelled>, NodeRef)>> {
        if !self.is_current(wait, current, scope) {
            return None;
        }
        let entry = &self.waits[wait];
        if !entry.is_over() {
            return Some(Poll::Pending);
        }
        let first = &mut self.scopes[scope].first_wait;
        let (cause, task) = self.waits.remove_over(wait, first)?;
        let cancelled = cause.map(|cause| self.causes.take(cause));
        Some(Poll::Ready((cancelled, task)))
    }

    /// Whether a wait is over, however it ended.
    pub(crate) fn is_over(&self, wait: u32) -> bool {
        self.waits[wait].is_over()
    }

    /// Whether a wait belongs to the task that is being polled, without a foreign waker.
    #[inline]
    pub(crate) fn is_current(&self, wait: u32, current: &Current, scope: u32) -> bool {
        let entry = &self.waits[wait];
        entry.scope == scope && entry.waker.is_none() && current.is(entry.task())
    }

    /// Whether the waker of a wait does the same as `waker`.
    pub(crate) fn will_wake(&self, wait: u32, waker: &Waker) -> bool {
        let own = self.waits[wait].waker.as_ref();
        own.is_some_and(|own| own.will_wake(waker))
    }

    /// Replaces the waker of a wait, or goes back to the task's own, and returns the previous one.
    pub(crate) fn replace_waker(&mut self, wait: u32, waker: Option<Waker>) -> Option<Waker> {
        std::mem::replace(&mut self.waits[wait].waker, waker)
    }

    /// Updates a wait to where its future is polled now. Returns the task that it waited for
    /// before, to be dropped when nothing is borrowed: dropping the last handle to a body drops
    /// what its nursery has gathered.
    #[must_use = "dropped when nothing is borrowed"]
    pub(crate) fn repoll(
        &mut self,
        wait: u32,
        task: &NodeRef,
        scope: u32,
        effects: &mut Effects,
    ) -> Option<NodeRef> {
        let before = (self.waits[wait].task() != task).then(|| {
            self.waits[wait].task().end_lone_wait(wait);
            self.waits.set_task(wait, task)
        });
        if self.waits[wait].scope != scope {
            self.move_wait(wait, scope);
        }
        // The wait may have come here from a scope that was left, or been moved by its owner.
        if self.is_cancelled(scope) {
            self.abort(wait, effects);
        }
        before.flatten()
    }

    /// Removes a wait that has nothing but its task and a deadline, and returns the task; otherwise
    /// returns `None`.
    #[inline]
    pub(crate) fn remove_plain_wait(&mut self, wait: u32) -> Option<NodeRef> {
        self.end_timer(wait);
        let first = &mut self.scopes[self.waits[wait].scope].first_wait;
        self.waits.remove_plain(wait, first)
    }

    /// Removes a wait.
    pub(crate) fn remove_wait(&mut self, wait: u32) -> Ended {
        self.end_timer(wait);
        self.set_state(wait, WaitState::Waiting);
        let first = &mut self.scopes[self.waits[wait].scope].first_wait;
        self.waits.remove(wait, first)
    }

    /// Writes the state of a wait, and gives back the cancellation that the old state held.
    fn set_state(&mut self, wait: u32, state: WaitState) {
        let before = std::mem::replace(&mut self.waits[wait].state, state);
        if let WaitState::Aborted(cause) | WaitState::Asked(cause) = before {
            self.causes.release(cause);
        }
    }

    /// What was waited for has come.
    pub(crate) fn finish_wait(&mut self, wait: u32, effects: &mut Effects) {
        let entry = &mut self.waits[wait];
        if entry.operation().is_some() || matches!(entry.state, WaitState::Waiting) {
            if !matches!(entry.state, WaitState::Asked(_)) {
                entry.state = WaitState::Woken;
            }
            self.end_timer(wait);
            self.wake(wait, effects);
        }
    }

    /// Prefetches the memory of a wait that is about to end.
    #[inline]
    pub(crate) fn foresee_wait(&self, wait: u32) {
        self.waits.foresee(wait);
    }

    /// The task of a wait, if there is such a wait.
    #[inline]
    pub(crate) fn waiting_task(&self, wait: u32) -> Option<&NodeRef> {
        self.waits.task(wait)
    }

    /// Wakes the task that waits, without ending the wait.
    pub(crate) fn nudge_wait(&mut self, wait: u32, effects: &mut Effects) {
        self.wake(wait, effects);
    }

    /// Whether a wait that belongs to no operation has not been ended, and its end would be
    /// noticed: its task lives, or a foreign waker wakes whatever has the future now.
    #[inline]
    pub(crate) fn is_waiting(&self, wait: u32) -> bool {
        matches!(self.waits[wait].state, WaitState::Waiting) && !self.is_left(wait)
    }

    /// Whether nobody would notice if a wait was ended.
    #[inline]
    pub(crate) fn is_left(&self, wait: u32) -> bool {
        self.waits[wait].is_left()
    }

    /// Ends a wait with success and wakes its task, if it [is waiting](Self::is_waiting). Returns
    /// the waker to call instead of the task, if there is one.
    #[inline]
    pub(crate) fn claim_wait(&mut self, wait: u32) -> Option<Option<Waker>> {
        if !self.is_waiting(wait) {
            return None;
        }
        self.end_timer(wait);
        let entry = &mut self.waits[wait];
        entry.state = WaitState::Woken;
        let waker = entry.waker.take();
        if waker.is_none() {
            entry.task().schedule();
        }
        Some(waker)
    }

    /// Keeps cancellations from a wait.
    pub(crate) fn shield_wait(&mut self, wait: u32) {
        self.waits[wait].shielded = true;
    }

    /// Makes a cancel ask `aborter` to end the wait.
    pub(crate) fn set_aborter(&mut self, wait: u32, aborter: Rc<dyn Aborter>) {
        self.waits[wait].aborter = Some(aborter);
    }

    /// The same for a wait whose end somebody else decides, asked to end or not.
    pub(crate) fn report_wait(&mut self, wait: u32) -> Option<Option<Waker>> {
        let entry = &self.waits[wait];
        if entry.aborter.is_some() && matches!(entry.state, WaitState::Asked(_)) {
            self.set_state(wait, WaitState::Waiting);
        }
        self.claim_wait(wait)
    }

    /// The wait has no future any more: from now on its operation counts against `nursery`.
    pub(crate) fn orphan_wait(&mut self, wait: u32, nursery: Option<NurseryRef>) {
        self.set_state(wait, WaitState::Orphan);
        self.waits[wait].counted = nursery;
    }

    /// Whether the future of an operation that has not ended is gone.
    pub(crate) fn is_orphan(&self, wait: u32) -> bool {
        matches!(self.waits[wait].state, WaitState::Orphan)
    }

    /// The nursery of the task that waits.
    pub(crate) fn nursery_of(&self, wait: u32) -> Option<NurseryRef> {
        self.waits[wait].task().home()
    }

    /// The nursery that counts the operation of this wait; returned once.
    pub(crate) fn take_counted(&mut self, wait: u32) -> Option<NurseryRef> {
        self.waits[wait].counted.take()
    }

    /// The operations in flight that a task left behind when it ended, with their waits.
    pub(crate) fn left_behind(&self, task: &NodeRef) -> Vec<(u32, Key)> {
        let live = self.waits.of(task).filter(|(_, entry)| {
            matches!(entry.state, WaitState::Waiting | WaitState::Asked(_))
                && entry.counted.is_none()
        });
        live.filter_map(|(wait, entry)| Some((wait, entry.operation()?)))
            .collect()
    }

    /// Counts the operation of a wait against `nursery` until it ends.
    pub(crate) fn count_wait(&mut self, wait: u32, nursery: NurseryRef) {
        self.waits[wait].counted = Some(nursery);
    }

    /// What each wait of `task` waits in, and in which scope.
    pub(crate) fn waiting_in(&self, task: &NodeRef) -> Vec<(&'static str, u32)> {
        let waits = self.waits.of(task);
        let waits = waits.filter(|(_, entry)| !matches!(entry.state, WaitState::Resting));
        waits.map(|(_, entry)| (entry.what, entry.scope)).collect()
    }

    fn wake(&mut self, wait: u32, effects: &mut Effects) {
        let entry = &mut self.waits[wait];
        if entry.waker.is_none() {
            return entry.task().schedule();
        }
        self.wake_foreign(wait, effects);
    }

    /// The same for a wait that has a foreign waker. Out of line, so that the call above is a jump.
    #[cold]
    fn wake_foreign(&mut self, wait: u32, effects: &mut Effects) {
        if let Some(waker) = self.waits[wait].waker.take() {
            effects.lists(&mut self.spare).wakers.push(waker);
        }
    }

    #[inline]
    fn end_timer(&mut self, wait: u32) {
        if let Some(timer) = self.waits[wait].timer.take() {
            self.timers.unset(timer);
        }
    }

    /// Moves a wait from the list of its scope to that of another.
    fn move_wait(&mut self, wait: u32, scope: u32) {
        let from = self.waits[wait].scope;
        self.waits.unlink(wait, &mut self.scopes[from].first_wait);
        let first = &mut self.scopes[scope].first_wait;
        self.waits.link(wait, scope, first);
    }
}
