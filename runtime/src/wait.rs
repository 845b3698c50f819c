//! A task's place among the waiting: what every future of this library that waits holds.
//!
//! A waker that a foreign combinator has put in the task's place is cloned only when the wait is in
//! the tree already, and its future in the line in which it waits: cloning runs foreign code, which
//! may cancel the scope, set the event or close the descriptor. Such code then finds the wait, and
//! ends it as at any other time; and code about to submit an operation looks once more before it
//! does.

use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use trio_platform::{Key, Time};

use crate::cancel::{Cancelled, Effects};
use crate::context;
use crate::run::Run;

/// A registered wait. Dropping it takes the wait back, unless that has been done already.
///
/// Holds the run, and not its number, so that no call has to find it. A wait that outlives the run,
/// in a future that was forgotten or returned, finds that it has ended: it is dropped without a word, and
/// refuses to be polled, as in any other run, for nothing would ever wake it.
pub(crate) struct Parked {
    run: Rc<Run>,
    wait: u32,
}

/// The waker to call for `context`: none if the task itself is to be woken.
fn foreign<'a>(run: &Run, context: &Context<'a>) -> Option<&'a Waker> {
    let own = run.current.owns(context.waker());
    (!own).then(|| context.waker())
}

impl Parked {
    /// Registers the current task as waiting under the current scope, which is not cancelled. The wait
    /// may be over already if a waker of others had to be cloned.
    #[inline]
    pub(crate) fn new(context: &Context<'_>, what: &'static str) -> Self {
        context::with(|run| Self::in_run(run, context, what))
    }

    #[inline]
    pub(crate) fn in_run(run: &Rc<Run>, context: &Context<'_>, what: &'static str) -> Self {
        let parked = Self::begin(run, what);
        parked.follow(context);
        parked
    }

    /// The same for a future that has to stand in a line before foreign code runs. It then calls
    /// [`follow`](Self::follow); until that, only the task is woken.
    #[inline]
    pub(crate) fn begin(run: &Rc<Run>, what: &'static str) -> Self {
        let task = run.node_or_main();
        let alone = run.position.is_only_apart() && task.may_wait_alone();
        let scope = match alone {
            true => run.position.linked(),
            false => run.scope(),
        };
        let wait = run.tree.borrow_mut().insert_wait(task, scope, alone, what);
        let run = run.clone();
        Self { run, wait }
    }

    /// For the first time, makes the wait wake whoever polls its future.
    #[inline]
    pub(crate) fn follow(&self, context: &Context<'_>) {
        if let Some(waker) = foreign(&self.run, context) {
            self.follow_foreign(waker);
        }
    }

    #[cold]
    fn follow_foreign(&self, waker: &Waker) {
        let waker = waker.clone();
        let mut tree = self.run.tree.borrow_mut();
        if tree.is_over(self.wait) {
            drop(tree);
            // The task has been woken, and it is not the task that polls.
            self.run.defer_wake(waker);
            return;
        }
        let before = tree.replace_waker(self.wait, Some(waker));
        debug_assert!(before.is_none(), "nobody has followed before");
    }

    /// No wait; only says in which run others wait.
    pub(crate) fn nowhere(run: &Rc<Run>) -> Self {
        let run = run.clone();
        Self {
            run,
            wait: GIVEN_UP,
        }
    }

    /// Registers the current task as waiting under a scope that need not be around it, and is not
    /// cancelled: to learn of its cancellation.
    #[inline]
    pub(crate) fn under(
        run: &Rc<Run>,
        context: &Context<'_>,
        scope: u32,
        what: &'static str,
    ) -> Self {
        let task = run.node_or_main();
        let wait = run.tree.borrow_mut().insert_wait(task, scope, false, what);
        let run = run.clone();
        let parked = Self { run, wait };
        parked.follow(context);
        parked
    }

    /// Keeps the place of a wait whose event has come, for a caller that is going to wait again
    /// soon; [`resume`](Self::resume) checks whose it is. `false` if there is more to it than that,
    /// which [`Parked::poll_woken`] reports.
    #[inline]
    pub(crate) fn rest(&self, run: &Rc<Run>) -> bool {
        Rc::ptr_eq(run, &self.run) && run.tree.borrow_mut().rest_wait(self.wait)
    }

    /// Waits again in a place that was kept, if `watch`, which may not touch the tree, sees to it that
    /// somebody ends the wait; `false` if it does not, or if task or scope are not those of then.
    #[inline]
    pub(crate) fn resume(
        &self,
        run: &Rc<Run>,
        context: &Context<'_>,
        watch: impl FnOnce(u32) -> bool,
    ) -> bool {
        let scope = run.scope();
        self.is_of(run, context)
            && run
                .tree
                .borrow_mut()
                .resume_wait(self.wait, &run.current, scope, watch)
    }

    /// Whether the wait is of this run, and nobody has put a waker of his own in place.
    #[inline]
    fn is_of(&self, run: &Rc<Run>, context: &Context<'_>) -> bool {
        Rc::ptr_eq(run, &self.run) && run.current.owns(context.waker())
    }

    pub(crate) fn wait(&self) -> u32 {
        self.wait
    }

    /// The run in which the wait is registered.
    pub(crate) fn run(&self) -> &Rc<Run> {
        &self.run
    }

    /// Lets the wait end at `deadline`.
    pub(crate) fn until(&self, deadline: Time) {
        self.with(|run| run.tree.borrow_mut().set_wait_timer(self.wait, deadline));
    }

    /// Lets the wait end so long after this turn.
    pub(crate) fn after(&self, after: Duration) {
        self.with(|run| run.tree.borrow_mut().set_wait_timer_after(self.wait, after));
    }

    /// Ties the wait to an operation of the driver: cancelling asks that to end.
    pub(crate) fn on(&self, key: Key) {
        self.with(|run| run.tree.borrow_mut().set_operation(self.wait, key));
    }

    /// Ready when the wait is over: with the cancellation if that is what ended it.
    ///
    /// # Panics
    ///
    /// If the run of the wait has ended, as everything that polls does: a thread is in one run at a time,
    /// so that there is no other.
    #[inline]
    pub(crate) fn poll_woken(&self, context: &Context<'_>) -> Poll<Option<Cancelled>> {
        let run = self.living_run();
        self.refresh_in(run, context);
        run.tree.borrow_mut().outcome(self.wait)
    }

    /// As [`poll_woken`](Self::poll_woken), of a wait that is there, which is taken back when it is over.
    #[inline(never)]
    pub(crate) fn poll_ended(
        parked: &mut Option<Self>,
        context: &Context<'_>,
    ) -> Poll<Option<Cancelled>> {
        let waiting = parked.as_mut().expect("it waits until it is over");
        let run = waiting.living_run();
        if run.current.owns(context.waker()) && !run.position.has_pushed() {
            let mut tree = run.tree.borrow_mut();
            let polled = tree.end_own_wait(waiting.wait, &run.current, run.position.linked());
            drop(tree);
            if let Some(ended) = polled {
                let (cancelled, task) = ready!(ended);
                drop(task);
                waiting.wait = GIVEN_UP;
                *parked = None;
                return Poll::Ready(cancelled);
            }
        }
        Self::poll_ended_slowly(parked, context)
    }

    /// The same for one that has moved, or has more than its task.
    #[inline(never)]
    fn poll_ended_slowly(
        parked: &mut Option<Self>,
        context: &Context<'_>,
    ) -> Poll<Option<Cancelled>> {
        let waiting = parked.as_mut().expect("it waits until it is over");
        let run = waiting.living_run();
        waiting.refresh_in(run, context);
        let outcome = run.tree.borrow_mut().end_wait(waiting.wait);
        let (cancelled, task) = ready!(outcome);
        if task.is_some() {
            waiting.wait = GIVEN_UP;
        }
        *parked = None;
        Poll::Ready(cancelled)
    }

    /// The same for a wait [under](Self::under) a scope of its own, which has not been left.
    pub(crate) fn poll_under(&self, context: &Context<'_>, scope: u32) -> Poll<Option<Cancelled>> {
        let run = self.living_run();
        self.move_here(run, foreign(run, context), scope);
        run.tree.borrow_mut().outcome(self.wait)
    }

    /// Follows the future to wherever it is polled now.
    #[inline]
    pub(crate) fn refresh(&self, context: &Context<'_>) {
        self.refresh_in(self.living_run(), context);
    }

    #[inline]
    fn refresh_in(&self, run: &Run, context: &Context<'_>) {
        let waker = foreign(run, context);
        // If the task is apart and has no scope of its own yet, such a wait is its only one.
        let scope = run.position.linked();
        let is_here = waker.is_none()
            && !run.position.has_pushed()
            && run.tree.borrow().is_current(self.wait, &run.current, scope);
        if !is_here {
            self.move_here(run, waker, run.scope());
        }
    }

    #[cold]
    fn move_here(&self, run: &Run, waker: Option<&Waker>, scope: u32) {
        let task = run.node_or_main();
        // Cloning or dropping a foreign waker runs foreign code: nothing is borrowed here.
        let same = waker.is_some_and(|waker| run.tree.borrow().will_wake(self.wait, waker));
        if !same {
            let waker = waker.cloned();
            let before = run.tree.borrow_mut().replace_waker(self.wait, waker);
            drop(before);
        }
        let mut effects = Effects::default();
        let before = run
            .tree
            .borrow_mut()
            .repoll(self.wait, &task, scope, &mut effects);
        run.apply(effects);
        drop(before);
    }

    /// Whether the wait is over, in whatever way.
    pub(crate) fn is_over(&self) -> bool {
        let over = self.with(|run| run.tree.borrow().is_over(self.wait));
        over.unwrap_or(false)
    }

    /// The cancellation that has ended the wait, if one has; once.
    pub(crate) fn cancelled(&self) -> Option<Cancelled> {
        let outcome = self.with(|run| run.tree.borrow_mut().outcome(self.wait));
        match outcome {
            Some(Poll::Ready(cancelled)) => cancelled,
            _ => None,
        }
    }

    /// The cancellation that came while the wait began, for code about to submit an operation.
    #[inline]
    pub(crate) fn overtaken(&self) -> Option<Cancelled> {
        if self.run.is_calm() {
            return None;
        }
        self.cancelled()
    }

    /// The cancellation with which an operation has been asked to end, if it has.
    pub(crate) fn asked(&self) -> Option<Cancelled> {
        self.with(|run| run.tree.borrow().asked(self.wait).cloned())
            .flatten()
    }

    /// Gives the wait up while its operation is in flight: from now on the operation counts
    /// against the nursery of the task, until the driver reports it.
    pub(crate) fn into_orphan(mut self) {
        self.with(|run| run.orphan(self.wait));
        // The entry stays until the driver reports the operation.
        self.wait = GIVEN_UP;
    }

    /// The run that this wait belongs to, which has not ended.
    #[inline]
    fn living_run(&self) -> &Rc<Run> {
        if self.run.has_ended() {
            outlived();
        }
        &self.run
    }

    /// Calls `f` in the run that this wait belongs to; not at all if the run has ended.
    #[inline]
    pub(crate) fn with<R>(&self, f: impl FnOnce(&Rc<Run>) -> R) -> Option<R> {
        (!self.run.has_ended()).then(|| f(&self.run))
    }
}

impl Drop for Parked {
    #[inline]
    fn drop(&mut self) {
        if self.wait != GIVEN_UP {
            self.with(|run| run.release_wait(self.wait));
        }
    }
}

#[cold]
#[inline(never)]
fn outlived() -> ! {
    panic!("a wait goes on in the run in which it began, and that run has ended")
}

/// The number of no wait: it has been taken back, or given up.
const GIVEN_UP: u32 = u32::MAX;
