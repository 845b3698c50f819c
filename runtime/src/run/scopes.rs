//! The scopes of a run, as its code sees them: where it stands, what is cancelled there, until when.
//!
//! The tree decides; the effects of a change are carried out here, once the tree is no longer
//! borrowed.

use std::borrow::Cow;
use std::panic::Location;
use std::time::Duration;

use trio_platform::Time;

use super::Run;
use super::STACK_RESERVE;
use crate::cancel::{CancelSource, Cancelled, Cause, Effects, Entry, Here, Left, Lists};
use crate::error::{Error, NestedTooDeeply, Result};
use crate::task::NodeRef;
use crate::testing::Seen;

impl Run {
    pub(crate) fn effective_deadline(&self) -> Time {
        self.effective_deadline_of(self.scope())
    }

    /// The earliest deadline of a scope and those around it.
    pub(crate) fn effective_deadline_of(&self, scope: u32) -> Time {
        let unresolved = self.tree.borrow().unresolved(scope);
        for scope in unresolved {
            self.resolve(scope);
        }
        self.tree.borrow().effective_deadline(scope)
    }

    /// The scope that the code is in.
    #[inline]
    pub(crate) fn scope(&self) -> u32 {
        if self.position.is_linked() {
            return self.position.linked();
        }
        self.link_position()
    }

    #[inline(never)]
    fn link_position(&self) -> u32 {
        // The common case: a timeout around one operation, in a task whose scope is linked.
        if let Some((parent, after)) = self.position.only_one() {
            let scope = self.tree.borrow_mut().enter_timed(parent, after);
            self.position.replace(Here::at(scope));
            return scope;
        }
        self.link_several()
    }

    /// The same where the task is apart, or one that has been pushed stands in another.
    #[inline(never)]
    fn link_several(&self) -> u32 {
        if self.position.is_only_apart() {
            let scope = self.enter_own(self.position.linked());
            self.position.replace(Here::at(scope));
            return scope;
        }
        self.position.link(|parent, after| match after {
            Some(after) => self.tree.borrow_mut().enter_timed(parent, after),
            None => self.enter_own(parent),
        })
    }

    /// Enters the scope of the task that is being polled, which is apart.
    fn enter_own(&self, parent: u32) -> u32 {
        let task = self.current.get().expect("only a task is apart");
        self.tree.borrow_mut().enter_own(&task, parent)
    }

    /// Enters a scope inside another, which need not be that of the code.
    pub(crate) fn enter_under(&self, parent: u32, entry: Entry) -> u32 {
        self.tree.borrow_mut().enter(parent, entry)
    }

    /// The cancellation that a checkpoint has to report.
    #[inline]
    pub(crate) fn cancelled(&self) -> Option<Cancelled> {
        if self.is_calm() {
            return None;
        }
        self.look_for_cancelled()
    }

    /// Whether nothing in the run is cancelled.
    #[inline]
    pub(crate) fn is_calm(&self) -> bool {
        self.effective.get() == 0
    }

    /// Whether a checkpoint has nothing to report and nothing to wait for: nothing in the run is
    /// cancelled, and the task may go on. Counts against its budget then.
    #[inline]
    pub(crate) fn passes(&self) -> bool {
        let budget = self.budget.get();
        let passes = budget > 0 && self.is_calm();
        if passes {
            self.budget.set(budget - 1);
        }
        passes
    }

    fn look_for_cancelled(&self) -> Option<Cancelled> {
        self.count(Seen {
            looks: 1,
            yields: 1,
        });
        // A scope that is not linked has not been cancelled by itself (rule 2 of
        // `cancel/position.rs`), unless it is the task's.
        let tree = self.tree.borrow();
        let marked = self.apart().and_then(|task| tree.marked(&task));
        marked.or_else(|| tree.cancelled(self.position.linked()).cloned())
    }

    /// The task that is being polled, if it is apart.
    fn apart(&self) -> Option<NodeRef> {
        self.current.get().filter(|_| self.position.is_apart())
    }

    /// Whether a checkpoint has something to report, for one that yields only then.
    pub(crate) fn is_cancelled(&self) -> bool {
        if self.effective.get() == 0 {
            return false;
        }
        self.count(Seen {
            looks: 1,
            yields: 0,
        });
        let marked = self.apart().is_some_and(|task| task.is_marked());
        marked || self.tree.borrow().is_cancelled(self.position.linked())
    }

    /// Whether a scope with nothing but this timeout may stay out of the tree until something in it
    /// waits. Not one that is over at once; and a virtual clock is read on entry, as it costs nothing.
    #[inline]
    pub(crate) fn may_link_later(&self, timeout: Duration) -> bool {
        !timeout.is_zero() && !self.is_virtual()
    }

    /// Enters a scope inside the current one.
    pub(crate) fn enter(&self, mut entry: Entry) -> u32 {
        if self.is_virtual() {
            if let Some(relative) = entry.relative.filter(|relative| !relative.is_zero()) {
                entry.deadline = self.now() + relative;
                entry.relative = None;
            }
        }
        let due = entry.relative.is_some_and(|relative| relative.is_zero())
            || (entry.deadline != Time::NEVER && entry.deadline <= self.now());
        if due && entry.cancelled.is_none() {
            entry.cancelled = Some(Cancelled::by_deadline(entry.place));
        }
        let around = self.scope();
        self.tree.borrow_mut().enter(around, entry)
    }

    /// Enters a scope inside the current one that has nothing of its own.
    #[inline]
    pub(crate) fn enter_plain(&self) -> u32 {
        let around = self.scope();
        self.tree.borrow_mut().enter_plain(around)
    }

    /// Leaves a scope that has come to its end.
    pub(crate) fn leave(&self, scope: u32) -> Left {
        self.tree.borrow_mut().leave(scope)
    }

    /// Leaves a scope whose future was dropped, so that nobody asks how it ended.
    #[inline]
    pub(crate) fn leave_from_drop(&self, scope: u32) {
        if !self.tree.borrow_mut().leave_plain(scope) {
            self.leave(scope).close(false);
        }
    }

    /// Something waits in the scope, so its deadline has to be watched. A deadline that counts from
    /// now counts from the end of this turn, so that the clock is read once a turn.
    #[inline]
    pub(crate) fn watch(&self, scope: u32) {
        self.tree.borrow_mut().arm(scope);
    }

    /// Turns a deadline that counts from entry into a moment on the clock.
    pub(crate) fn resolve(&self, scope: u32) {
        let relative = self.tree.borrow().relative(scope);
        if let Some(relative) = relative {
            let deadline = self.now() + relative;
            self.tree.borrow_mut().set_deadline(scope, deadline);
        }
    }

    pub(crate) fn cancel(&self, scope: u32, cancelled: Cancelled) {
        let cause = self.tree.borrow_mut().add_cause(cancelled);
        self.cancel_for(scope, cause);
    }

    /// The same by the number of the cancellation.
    pub(crate) fn cancel_for(&self, scope: u32, cause: Cause) {
        let mut effects = Effects::default();
        self.tree.borrow_mut().cancel(scope, cause, &mut effects);
        self.apply(effects);
    }

    /// Cancels a task that is apart, in the scope `around`.
    pub(crate) fn cancel_task(&self, task: &NodeRef, around: u32, cause: Cause) {
        let mut effects = Effects::default();
        self.tree
            .borrow_mut()
            .cancel_task(task, around, cause, &mut effects);
        self.apply(effects);
    }

    /// The cancellation that the code which runs, in whatever task, asks for at `place`.
    pub(crate) fn asked_for(
        &self,
        source: CancelSource,
        reason: Option<Cow<'static, str>>,
        place: &'static Location<'static>,
    ) -> Cause {
        // Compared in place, and only moved if it is not the same as before.
        let asked = reason.as_ref();
        let latest = self.with_task(|task| {
            let mut tree = self.tree.borrow_mut();
            tree.latest_cause(source, asked, task, place)
        });
        latest.unwrap_or_else(|| self.new_cause(source, reason, place))
    }

    #[inline(never)]
    fn new_cause(
        &self,
        source: CancelSource,
        reason: Option<Cow<'static, str>>,
        place: &'static Location<'static>,
    ) -> Cause {
        self.with_task(|task| {
            let mut tree = self.tree.borrow_mut();
            tree.new_cause(source, reason, task, place)
        })
    }

    /// Asks what is in a scope to come to an end, and cancels it after `grace` if that is earlier than
    /// its deadline.
    pub(crate) fn drain(&self, scope: u32, asked: Cancelled, grace: Duration) {
        let mut effects = Effects::default();
        self.tree.borrow_mut().drain(scope, asked, &mut effects);
        self.apply(effects);
        self.resolve(scope);
        let deadline = self.now() + grace;
        let mut tree = self.tree.borrow_mut();
        if deadline < tree.deadline(scope) {
            tree.set_deadline(scope, deadline);
        }
        drop(tree);
        self.stir();
    }

    /// Whether the code has been asked to come to an end, softly or not.
    pub(crate) fn is_draining(&self) -> bool {
        if self.cancelled().is_some() {
            return true;
        }
        // A scope that is not linked is neither shielded nor drained.
        self.tree
            .borrow()
            .draining(self.position.linked())
            .is_some()
    }

    pub(crate) fn set_shield(&self, scope: u32, shield: bool) {
        let mut effects = Effects::default();
        self.tree
            .borrow_mut()
            .set_shield(scope, shield, &mut effects);
        self.apply(effects);
    }

    pub(crate) fn move_scope(&self, scope: u32, parent: u32) {
        let mut effects = Effects::default();
        self.tree
            .borrow_mut()
            .move_scope(scope, parent, &mut effects);
        self.apply(effects);
    }

    /// Carries out the effects of a change of the tree.
    #[inline]
    pub(crate) fn apply(&self, effects: Effects) {
        if let Some(lists) = effects.into_lists() {
            self.apply_lists(lists);
        }
        if self.instrumented.get() {
            self.tell_scheduled();
        }
    }

    fn apply_lists(&self, mut lists: Box<Lists>) {
        if !lists.cancels.is_empty() {
            let mut driver = self.driver();
            for key in lists.cancels.drain(..) {
                driver.cancel(key);
            }
        }
        if !lists.wakers.is_empty() {
            self.deferred.borrow_mut().append(&mut lists.wakers);
            self.stir();
        }
        // An aborter may change the tree again, and then finds no spare lists.
        for (aborter, cancelled) in lists.aborts.drain(..) {
            aborter.abort(cancelled);
        }
        self.tree.borrow_mut().keep(lists);
    }

    /// Refuses another level when the stack has no room for it.
    #[inline]
    pub(crate) fn check_depth(&self) -> Result<()> {
        if trio_platform::stack_position() < self.stack_limit {
            return Err(self.too_deep());
        }
        Ok(())
    }

    #[cold]
    fn too_deep(&self) -> Error {
        let below = self
            .stack_limit
            .saturating_sub(trio_platform::stack_position());
        NestedTooDeeply::new(STACK_RESERVE.saturating_sub(below)).into()
    }
}
