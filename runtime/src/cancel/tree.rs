//! The scopes of a run as a tree, and what waits under each: where cancelling happens.
//!
//! 1. Every scope that has been entered has a slot, linked under the scope it was entered in. The
//!    slot goes when the scope is left.
//! 2. `effective` of a slot is true if its own scope has been cancelled, or if it is not shielded
//!    and the slot above is effective. It is kept true to that at all times, so that a checkpoint
//!    looks at one flag.
//! 3. Every task that waits has a wait in the list of the scope that it waits under. When a scope
//!    becomes effective each wait under it is aborted, at once and at most once (semantics L2, L5):
//!    either it is over, or (an operation of the driver) it is asked to end and its completion
//!    decides (D1, D2).
//! 4. Nothing here recurses: ten thousand nested scopes are cancelled by a loop (trap 32).

use std::cell::Cell;
use std::panic::Location;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use slab::Slab;
use trio_platform::{Key, Time};

use super::Cancelled;
use super::scope::Handle;
use super::waits::{Ended, WaitState, Waits};
use crate::sync::reschedule::Aborter;
use crate::task::{Current, NodeRef, NurseryRef};
use crate::timers::{Target, TimerKey, Timers};

/// No scope, and no wait.
pub(super) const NONE: u32 = u32::MAX;

/// The scope around everything in a run; never cancelled.
pub(crate) const ROOT: u32 = 0;

pub(crate) struct Tree {
    scopes: Slab<Slot>,
    /// How many scopes are effective, for those who do not want to look at each.
    effective: Rc<Cell<u32>>,
    waits: Waits,
    pub(crate) timers: Timers,
    /// The scopes that have been asked to drain, and by whom; mostly none. Few, so that who asks
    /// whether it is draining looks for each scope around it in here.
    drains: Vec<(u32, Cancelled)>,
}

struct Slot {
    parent: u32,
    previous: u32,
    next: u32,
    first_child: u32,
    first_wait: u32,
    shield: bool,
    /// Whether the scope is cancelled as soon as it is draining.
    soft: bool,
    effective: bool,
    /// The scope's own cancellation.
    own: Option<Cancelled>,
    /// What is delivered while `effective`.
    record: Option<Cancelled>,
    deadline: Time,
    /// A deadline that is counted from a moment which has not been read off the clock yet.
    relative: Option<Duration>,
    timer: Option<TimerKey>,
    handle: Option<Rc<Handle>>,
    /// Where the deadline was set.
    place: Option<&'static Location<'static>>,
}

/// What is left to do once the tree is no longer borrowed.
#[derive(Default)]
pub(crate) struct Effects {
    /// Operations to ask the driver to cancel.
    pub(crate) cancels: Vec<Key>,
    /// Wakers of others to call.
    pub(crate) wakers: Vec<Waker>,
    /// Those who decide how a wait ends, to be asked.
    pub(crate) aborts: Vec<(Rc<dyn Aborter>, Cancelled)>,
}

/// What a new scope starts with.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) deadline: Time,
    pub(crate) relative: Option<Duration>,
    pub(crate) shield: bool,
    pub(crate) cancelled: Option<Cancelled>,
    /// Where the deadline was set.
    pub(crate) place: Option<&'static Location<'static>>,
    pub(crate) soft: bool,
    /// Asked to drain already, with the time that is left from entry on.
    pub(crate) drain: Option<(Cancelled, Duration)>,
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

/// How a scope was when it was left.
pub(crate) struct Left {
    pub(crate) own: Option<Cancelled>,
    /// Whether a cancellation from outside was visible.
    pub(crate) outer: bool,
    /// Whether one of the scope's own has been taken out of what it returns.
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
        let mut scopes = Slab::new();
        let root = scopes.insert(Slot::new(NONE, &Entry::default()));
        assert_eq!(id(root), ROOT, "the root is the first scope");
        Self {
            scopes,
            effective,
            waits: Waits::new(),
            timers: Timers::default(),
            drains: Vec::new(),
        }
    }

    /// The run has ended: gives what waits, and what is left in it of users, to be dropped when nothing
    /// is borrowed. The scopes stay, for a future that was taken out of the run leaves its own when
    /// it is dropped.
    pub(crate) fn end(&mut self) -> impl Sized + use<> {
        for (_, slot) in &mut self.scopes {
            slot.first_wait = NONE;
            slot.timer = None;
        }
        self.timers = Timers::default();
        std::mem::replace(&mut self.waits, Waits::new())
    }

    fn slot(&self, scope: u32) -> &Slot {
        &self.scopes[scope as usize]
    }

    fn slot_mut(&mut self, scope: u32) -> &mut Slot {
        &mut self.scopes[scope as usize]
    }

    // Scopes.

    /// Enters a scope under `parent`. A deadline that is due must have become `cancelled` before.
    pub(crate) fn enter(&mut self, parent: u32, entry: &Entry) -> u32 {
        let mut slot = Slot::new(parent, entry);
        slot.own.clone_from(&entry.cancelled);
        if slot.soft && slot.own.is_none() {
            slot.own = self.draining(parent).cloned();
        }
        let above = self.slot(parent);
        if above.effective && !slot.shield {
            slot.record.clone_from(&above.record);
        }
        if slot.record.is_none() {
            slot.record.clone_from(&slot.own);
        }
        slot.effective = slot.record.is_some();
        if slot.effective {
            self.effective.set(self.effective.get() + 1);
        }
        let scope = id(self.scopes.insert(slot));
        self.link(scope, parent);
        scope
    }

    /// Leaves a scope; what is still in it goes to the scope around it.
    pub(crate) fn leave(&mut self, scope: u32) -> Left {
        let parent = self.slot(scope).parent;
        while self.slot(scope).first_child != NONE {
            let child = self.slot(scope).first_child;
            self.unlink(child);
            self.link(child, parent);
        }
        while self.slot(scope).first_wait != NONE {
            let wait = self.slot(scope).first_wait;
            self.move_wait(wait, parent);
        }
        self.unlink(scope);
        if !self.drains.is_empty() {
            self.drains.retain(|(drained, _)| *drained != scope);
        }
        let slot = self.scopes.remove(scope as usize);
        if slot.effective {
            self.effective.set(self.effective.get() - 1);
        }
        if let Some(timer) = slot.timer {
            self.timers.unset(timer);
        }
        Left {
            own: slot.own,
            outer: !slot.shield && self.slot(parent).effective,
            caught: false,
            shield: slot.shield,
            deadline: slot.deadline,
            handle: slot.handle,
        }
    }

    fn link(&mut self, scope: u32, parent: u32) {
        let first = self.slot(parent).first_child;
        let slot = self.slot_mut(scope);
        slot.parent = parent;
        slot.previous = NONE;
        slot.next = first;
        if first != NONE {
            self.slot_mut(first).previous = scope;
        }
        self.slot_mut(parent).first_child = scope;
    }

    fn unlink(&mut self, scope: u32) {
        let Slot {
            parent,
            previous,
            next,
            ..
        } = *self.slot(scope);
        match previous {
            NONE => self.slot_mut(parent).first_child = next,
            _ => self.slot_mut(previous).next = next,
        }
        if next != NONE {
            self.slot_mut(next).previous = previous;
        }
    }

    /// Moves a scope, with everything in it, under another.
    pub(crate) fn move_scope(&mut self, scope: u32, parent: u32, effects: &mut Effects) {
        self.unlink(scope);
        self.link(scope, parent);
        self.refresh(scope, effects);
        self.cancel_soft(effects);
    }

    /// The cancellation that a checkpoint under `scope` has to report.
    pub(crate) fn cancelled(&self, scope: u32) -> Option<&Cancelled> {
        self.slot(scope).record.as_ref()
    }

    pub(crate) fn is_cancelled(&self, scope: u32) -> bool {
        self.slot(scope).effective
    }

    /// The scope's own cancellation.
    pub(crate) fn own(&self, scope: u32) -> Option<&Cancelled> {
        self.slot(scope).own.as_ref()
    }

    /// Cancels a scope; the first cancellation is the one that stays (L6).
    pub(crate) fn cancel(&mut self, scope: u32, cancelled: Cancelled, effects: &mut Effects) {
        let slot = self.slot_mut(scope);
        if slot.own.is_none() {
            slot.own = Some(cancelled);
            if let Some(timer) = slot.timer.take() {
                self.timers.unset(timer);
            }
            self.refresh(scope, effects);
        }
    }

    pub(crate) fn shield(&self, scope: u32) -> bool {
        self.slot(scope).shield
    }

    pub(crate) fn set_shield(&mut self, scope: u32, shield: bool, effects: &mut Effects) {
        self.slot_mut(scope).shield = shield;
        self.refresh(scope, effects);
        self.cancel_soft(effects);
    }

    // Draining, the softer level: a state that code can ask for, and no cancellation but of the scopes
    // that are made for it.

    /// Asks what is under a scope to come to an end; the first request is the one that stays.
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
            let slot = self.slot(scope);
            if slot.shield || slot.parent == NONE {
                return None;
            }
            scope = slot.parent;
        }
    }

    /// Cancels the soft scopes that are draining. Looks at every scope of the run: draining is rare,
    /// and entering and leaving soft scopes, once an operation, is not.
    fn cancel_soft(&mut self, effects: &mut Effects) {
        if self.drains.is_empty() {
            return;
        }
        let soft = self
            .scopes
            .iter()
            .filter(|(_, slot)| slot.soft && slot.own.is_none());
        let draining = soft.filter_map(|(index, _)| {
            let scope = id(index);
            Some((scope, self.draining(scope)?.clone()))
        });
        for (scope, asked) in draining.collect::<Vec<_>>() {
            self.cancel(scope, asked, effects);
        }
    }

    /// Brings `effective` of a scope and all below it up to date (rule 2), and aborts the waits of
    /// those that became effective (rule 3).
    fn refresh(&mut self, scope: u32, effects: &mut Effects) {
        let top = scope;
        let mut scope = scope;
        loop {
            // Down only where something has changed.
            let below = match self.refresh_one(scope, effects) {
                true => self.slot(scope).first_child,
                false => NONE,
            };
            if below != NONE {
                scope = below;
                continue;
            }
            while scope != top && self.slot(scope).next == NONE {
                scope = self.slot(scope).parent;
            }
            if scope == top {
                return;
            }
            scope = self.slot(scope).next;
        }
    }

    /// The same for one scope; gives whether `effective` has changed.
    fn refresh_one(&mut self, scope: u32, effects: &mut Effects) -> bool {
        let slot = self.slot(scope);
        let inherited = match slot.parent {
            NONE => None,
            _ if slot.shield => None,
            parent => self.slot(parent).record.as_ref(),
        };
        let record = match (&slot.record, &slot.own, inherited) {
            (_, None, None) => None,
            // A record that is still justified is not overwritten.
            (Some(record), Some(_), Some(_)) => Some(record.clone()),
            (_, Some(own), None) => Some(own.clone()),
            (_, None, Some(inherited)) => Some(inherited.clone()),
            (None, Some(own), Some(_)) => Some(own.clone()),
        };
        let slot = self.slot_mut(scope);
        let before = slot.effective;
        slot.effective = record.is_some();
        slot.record = record;
        let after = slot.effective;
        let count = self.effective.get();
        match (before, after) {
            (false, true) => {
                self.effective.set(count + 1);
                self.abort_waits(scope, effects);
            }
            (true, false) => self.effective.set(count - 1),
            _ => {}
        }
        after != before
    }

    fn abort_waits(&mut self, scope: u32, effects: &mut Effects) {
        let mut wait = self.slot(scope).first_wait;
        while wait != NONE {
            let next = self.waits[wait].next();
            self.abort(wait, effects);
            wait = next;
        }
    }

    /// Aborts one wait, unless it is over or has been asked to end (L5).
    fn abort(&mut self, wait: u32, effects: &mut Effects) {
        let entry = &self.waits[wait];
        let Some(record) = self.slot(entry.scope).record.clone() else {
            return;
        };
        let entry = &mut self.waits[wait];
        if !matches!(entry.state, WaitState::Waiting) || entry.shielded {
            return;
        }
        match (entry.operation, &entry.aborter) {
            (Some(key), _) => {
                entry.state = WaitState::Asked(record);
                effects.cancels.push(key);
            }
            (None, Some(aborter)) => {
                effects.aborts.push((aborter.clone(), record.clone()));
                entry.state = WaitState::Asked(record);
            }
            (None, None) => {
                entry.state = WaitState::Aborted(record);
                self.end_timer(wait);
                self.wake(wait, effects);
            }
        }
    }

    // Deadlines.

    pub(crate) fn deadline(&self, scope: u32) -> Time {
        self.slot(scope).deadline
    }

    pub(crate) fn relative(&self, scope: u32) -> Option<Duration> {
        self.slot(scope).relative
    }

    pub(crate) fn set_deadline(&mut self, scope: u32, deadline: Time) {
        let slot = self.slot_mut(scope);
        slot.deadline = deadline;
        slot.relative = None;
        if let Some(timer) = slot.timer.take() {
            self.timers.unset(timer);
        }
        self.arm(scope);
    }

    /// Where the deadline was set that [`set_deadline`](Self::set_deadline) has set.
    pub(super) fn set_place(&mut self, scope: u32, place: &'static Location<'static>) {
        self.slot_mut(scope).place = Some(place);
    }

    pub(super) fn place(&self, scope: u32) -> Option<&'static Location<'static>> {
        self.slot(scope).place
    }

    /// Whether the scope has a deadline that nothing watches yet.
    pub(crate) fn needs_arming(&self, scope: u32) -> bool {
        let slot = self.slot(scope);
        slot.timer.is_none()
            && slot.own.is_none()
            && (slot.relative.is_some() || slot.deadline != Time::NEVER)
    }

    /// Starts watching the deadline of a scope in which something waits.
    pub(crate) fn arm(&mut self, scope: u32) {
        if self.needs_arming(scope) {
            let slot = self.slot(scope);
            let timer = match slot.relative {
                Some(after) => self.timers.set_after(after, Target::Scope(scope)),
                None => self.timers.set(slot.deadline, Target::Scope(scope)),
            };
            self.slot_mut(scope).timer = Some(timer);
        }
    }

    /// Counts deadlines that were armed without one from `now`.
    pub(crate) fn settle(&mut self, now: Time) {
        let scopes = &mut self.scopes;
        self.timers.settle(now, |target, deadline| {
            if let Target::Scope(scope) = target {
                let slot = &mut scopes[scope as usize];
                slot.deadline = deadline;
                slot.relative = None;
            }
        });
    }

    /// The earliest deadline that a task under `scope` feels; past if it is cancelled (H3).
    pub(crate) fn effective_deadline(&self, mut scope: u32) -> Time {
        if self.is_cancelled(scope) {
            return Time::PAST;
        }
        let mut earliest = Time::NEVER;
        while scope != NONE {
            let slot = self.slot(scope);
            earliest = earliest.min(slot.deadline);
            scope = if slot.shield { NONE } else { slot.parent };
        }
        earliest
    }

    /// Relative deadlines of `scope` and those around it that have not been resolved.
    pub(crate) fn unresolved(&self, mut scope: u32) -> Vec<u32> {
        let mut found = Vec::new();
        while scope != NONE {
            let slot = self.slot(scope);
            if slot.relative.is_some() {
                found.push(scope);
            }
            scope = slot.parent;
        }
        found
    }

    /// Lets every deadline that is due take effect.
    pub(crate) fn expire(&mut self, now: Time, effects: &mut Effects) -> bool {
        self.settle(now);
        let mut any = false;
        while let Some(target) = self.timers.expire(now) {
            any = true;
            match target {
                Target::Scope(scope) => {
                    self.slot_mut(scope).timer = None;
                    let cancelled = Cancelled::by_deadline(self.slot(scope).place);
                    self.cancel(scope, cancelled, effects);
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
        self.slot(scope).handle.clone()
    }

    pub(crate) fn set_handle(&mut self, scope: u32, handle: Rc<Handle>) {
        self.slot_mut(scope).handle = Some(handle);
    }

    // Waits.

    /// A wait of `task` under `scope`, which must not be cancelled.
    #[inline]
    pub(crate) fn insert_wait(
        &mut self,
        task: NodeRef,
        waker: Option<Waker>,
        scope: u32,
        what: &'static str,
    ) -> u32 {
        let first = &mut self.scopes[scope as usize].first_wait;
        self.waits.insert(task, waker, scope, first, what)
    }

    /// Keeps the place of a wait that is over for the next one; `false` if that cannot be.
    #[inline]
    pub(crate) fn rest_wait(&mut self, wait: u32) -> bool {
        self.waits[wait].rest()
    }

    /// Waits again in a place that was kept, if that is a place of `current`'s under `scope`.
    #[inline]
    pub(crate) fn resume_wait(&mut self, wait: u32, current: &Current, scope: u32) -> bool {
        let own = self.is_current(wait, current, scope);
        if own {
            self.waits[wait].resume();
        }
        own
    }

    pub(crate) fn set_operation(&mut self, wait: u32, key: Key) {
        self.waits[wait].operation = Some(key);
    }

    pub(crate) fn operation(&self, wait: u32) -> Option<Key> {
        self.waits[wait].operation
    }

    /// The waits without an operation that a task has left behind when it ended.
    pub(crate) fn left_waiting(&self, task: &NodeRef) -> Vec<u32> {
        let left = self.waits.of(task).filter(|(_, entry)| {
            matches!(entry.state, WaitState::Waiting) && entry.operation.is_none()
        });
        left.map(|(wait, _)| wait).collect()
    }

    pub(crate) fn set_wait_timer(&mut self, wait: u32, deadline: Time) {
        self.end_timer(wait);
        if deadline != Time::NEVER {
            let timer = self.timers.set(deadline, Target::Wait(wait));
            self.waits[wait].timer = Some(timer);
        }
    }

    /// The same, so long after the next reading of the clock.
    pub(crate) fn set_wait_timer_after(&mut self, wait: u32, after: Duration) {
        let timer = self.timers.set_after(after, Target::Wait(wait));
        self.waits[wait].timer = Some(timer);
    }

    pub(crate) fn wait_state(&self, wait: u32) -> &WaitState {
        &self.waits[wait].state
    }

    /// Whether a wait is over: with the cancellation, which is handed out once, if that ended it.
    #[inline]
    pub(crate) fn outcome(&mut self, wait: u32) -> Poll<Option<Cancelled>> {
        let state = &mut self.waits[wait].state;
        match state {
            WaitState::Waiting | WaitState::Asked(_) | WaitState::Orphan | WaitState::Resting => {
                Poll::Pending
            }
            WaitState::Woken => Poll::Ready(None),
            WaitState::Aborted(_) => match std::mem::replace(state, WaitState::Woken) {
                WaitState::Aborted(cancelled) => Poll::Ready(Some(cancelled)),
                _ => unreachable!("it was just looked at"),
            },
        }
    }

    /// Whether a wait is that of the task that is being polled, without a foreign waker.
    #[inline]
    pub(crate) fn is_current(&self, wait: u32, current: &Current, scope: u32) -> bool {
        let entry = &self.waits[wait];
        entry.scope == scope && entry.waker.is_none() && current.is(entry.task())
    }

    /// Whether a wait has a waker that does what `waker` does.
    pub(crate) fn will_wake(&self, wait: u32, waker: &Waker) -> bool {
        let own = self.waits[wait].waker.as_ref();
        own.is_some_and(|own| own.will_wake(waker))
    }

    /// Gives a wait another waker, or the task's own, and returns the one before.
    pub(crate) fn replace_waker(&mut self, wait: u32, waker: Option<Waker>) -> Option<Waker> {
        std::mem::replace(&mut self.waits[wait].waker, waker)
    }

    /// Brings a wait up to date with where its future is polled now. Gives the task that it waited for
    /// before, to be dropped when nothing is borrowed: with the last handle to a body goes what its
    /// nursery has gathered.
    #[must_use = "dropped when nothing is borrowed"]
    pub(crate) fn repoll(
        &mut self,
        wait: u32,
        task: &NodeRef,
        scope: u32,
        effects: &mut Effects,
    ) -> Option<NodeRef> {
        let entry = &mut self.waits[wait];
        let before = (entry.task() != task).then(|| entry.set_task(task));
        if entry.scope != scope {
            self.move_wait(wait, scope);
        }
        // The wait may have come here from a scope that was left, or been moved by its owner.
        if self.is_cancelled(scope) {
            self.abort(wait, effects);
        }
        before.flatten()
    }

    /// Takes a wait out that has nothing but its task, and gives that; else gives nothing.
    #[inline]
    pub(crate) fn remove_plain_wait(&mut self, wait: u32) -> Option<NodeRef> {
        let first = &mut self.scopes[self.waits[wait].scope as usize].first_wait;
        self.waits.remove_plain(wait, first)
    }

    /// Takes a wait out.
    pub(crate) fn remove_wait(&mut self, wait: u32) -> Ended {
        self.end_timer(wait);
        let first = &mut self.scopes[self.waits[wait].scope as usize].first_wait;
        self.waits.remove(wait, first)
    }

    /// What was waited for has come.
    pub(crate) fn finish_wait(&mut self, wait: u32, effects: &mut Effects) {
        let entry = &mut self.waits[wait];
        if entry.operation.is_some() || matches!(entry.state, WaitState::Waiting) {
            if !matches!(entry.state, WaitState::Asked(_)) {
                entry.state = WaitState::Woken;
            }
            self.end_timer(wait);
            self.wake(wait, effects);
        }
    }

    /// Wakes whoever waits, without ending the wait.
    pub(crate) fn nudge_wait(&mut self, wait: u32, effects: &mut Effects) {
        self.wake(wait, effects);
    }

    /// Whether a wait that is no operation's has not been ended, and somebody would hear if it was:
    /// its task lives, or a waker of others calls whoever has the future now.
    #[inline]
    pub(crate) fn is_waiting(&self, wait: u32) -> bool {
        matches!(self.waits[wait].state, WaitState::Waiting) && !self.is_left(wait)
    }

    /// Whether nobody would hear if a wait was ended.
    #[inline]
    pub(crate) fn is_left(&self, wait: u32) -> bool {
        let entry = &self.waits[wait];
        entry.waker.is_none() && entry.task().is_done()
    }

    /// Ends a wait with success and wakes its task, if it [is waiting](Self::is_waiting). Gives the
    /// waker to be called instead of the task, if there is one.
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

    /// Has a cancel ask `aborter` to end the wait.
    pub(crate) fn set_aborter(&mut self, wait: u32, aborter: Rc<dyn Aborter>) {
        self.waits[wait].aborter = Some(aborter);
    }

    /// The same for a wait whose end somebody else decides, asked to end or not.
    pub(crate) fn report_wait(&mut self, wait: u32) -> Option<Option<Waker>> {
        let entry = &mut self.waits[wait];
        if entry.aborter.is_some() && matches!(entry.state, WaitState::Asked(_)) {
            entry.state = WaitState::Waiting;
        }
        self.claim_wait(wait)
    }

    /// Nobody waits any more: from now on the operation counts against `nursery`.
    pub(crate) fn orphan_wait(&mut self, wait: u32, nursery: Option<NurseryRef>) {
        self.waits[wait].state = WaitState::Orphan;
        self.waits[wait].counted = nursery;
    }

    /// The nursery of the task that waits.
    pub(crate) fn nursery_of(&self, wait: u32) -> Option<NurseryRef> {
        self.waits[wait].task().home()
    }

    /// The nursery that counts the operation of this wait, once.
    pub(crate) fn take_counted(&mut self, wait: u32) -> Option<NurseryRef> {
        self.waits[wait].counted.take()
    }

    /// The operations in flight that a task has left behind when it ended, with their waits.
    pub(crate) fn left_behind(&self, task: &NodeRef) -> Vec<(u32, Key)> {
        let live = self.waits.of(task).filter(|(_, entry)| {
            matches!(entry.state, WaitState::Waiting | WaitState::Asked(_))
                && entry.counted.is_none()
        });
        live.filter_map(|(wait, entry)| Some((wait, entry.operation?)))
            .collect()
    }

    /// Counts the operation of a wait against `nursery` until it ends.
    pub(crate) fn count_wait(&mut self, wait: u32, nursery: NurseryRef) {
        self.waits[wait].counted = Some(nursery);
    }

    /// What each wait of `task` waits in.
    pub(crate) fn waiting_in(&self, task: &NodeRef) -> Vec<&'static str> {
        let waits = self.waits.of(task);
        let waits = waits.filter(|(_, entry)| !matches!(entry.state, WaitState::Resting));
        waits.map(|(_, entry)| entry.what).collect()
    }

    fn wake(&mut self, wait: u32, effects: &mut Effects) {
        let entry = &mut self.waits[wait];
        match entry.waker.take() {
            None => entry.task().schedule(),
            Some(waker) => effects.wakers.push(waker),
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
        self.waits
            .unlink(wait, &mut self.scopes[from as usize].first_wait);
        self.waits
            .link(wait, scope, &mut self.scopes[scope as usize].first_wait);
    }
}

impl Slot {
    fn new(parent: u32, entry: &Entry) -> Self {
        Self {
            parent,
            previous: NONE,
            next: NONE,
            first_child: NONE,
            first_wait: NONE,
            shield: entry.shield,
            soft: entry.soft,
            effective: false,
            own: None,
            record: None,
            deadline: entry.deadline,
            relative: entry.relative,
            timer: None,
            handle: None,
            place: entry.place,
        }
    }
}
