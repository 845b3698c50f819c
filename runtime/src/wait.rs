//! A task's place among the waiting: what every future of this library that waits holds.

use std::marker::PhantomData;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use trio_platform::{Key, Time};

use crate::cancel::{Cancelled, Effects, WaitState};
use crate::context;
use crate::run::Run;

/// A registered wait. Dropping it takes the wait back, unless [`Parked::into_orphan`] was called.
pub(crate) struct Parked {
    run: u64,
    wait: u32,
    /// Only the thread of the run can take the wait back, so it must not leave it.
    thread: PhantomData<Rc<()>>,
}

/// The waker to call for `context`: none if the task itself is to be woken.
fn foreign<'a>(run: &Run, context: &Context<'a>) -> Option<&'a Waker> {
    let own = run.current.owns(context.waker());
    (!own).then(|| context.waker())
}

impl Parked {
    /// Registers the current task as waiting under the current scope, which is not cancelled.
    pub(crate) fn new(context: &Context<'_>, what: &'static str) -> Self {
        context::with(|run| Self::in_run(run, context, what))
    }

    pub(crate) fn in_run(run: &Run, context: &Context<'_>, what: &'static str) -> Self {
        Self::under(run, context, run.scope(), what)
    }

    /// Registers the current task as waiting under a scope that need not be around it, and is not
    /// cancelled: to learn of its cancellation.
    pub(crate) fn under(run: &Run, context: &Context<'_>, scope: u32, what: &'static str) -> Self {
        let waker = foreign(run, context).cloned();
        let task = run.node_or_main();
        let mut tree = run.tree.borrow_mut();
        let wait = tree.insert_wait(task, waker, scope, what);
        Self {
            run: run.id,
            wait,
            thread: PhantomData,
        }
    }

    pub(crate) fn wait(&self) -> u32 {
        self.wait
    }

    /// Lets the wait end at `deadline`.
    pub(crate) fn until(&self, deadline: Time) {
        self.with(|run| run.tree.borrow_mut().set_wait_timer(self.wait, deadline));
    }

    /// Ties the wait to an operation of the driver: cancelling asks that to end.
    pub(crate) fn on(&self, key: Key) {
        self.with(|run| run.tree.borrow_mut().set_operation(self.wait, key));
    }

    /// Ready when the wait is over: with the cancellation if that is what ended it.
    pub(crate) fn poll_woken(&self, context: &Context<'_>) -> Poll<Option<Cancelled>> {
        self.refresh(context);
        let state = self.with(|run| run.tree.borrow_mut().outcome(self.wait));
        state.unwrap_or(Poll::Pending)
    }

    /// The same for a wait [under](Self::under) a scope of its own, which has not been left.
    pub(crate) fn poll_under(&self, context: &Context<'_>, scope: u32) -> Poll<Option<Cancelled>> {
        self.refresh_in(context, |_| scope);
        let state = self.with(|run| run.tree.borrow_mut().outcome(self.wait));
        state.unwrap_or(Poll::Pending)
    }

    /// Follows the future to wherever it is polled now.
    pub(crate) fn refresh(&self, context: &Context<'_>) {
        self.refresh_in(context, Run::scope);
    }

    #[inline]
    fn refresh_in(&self, context: &Context<'_>, scope: impl FnOnce(&Run) -> u32) {
        self.with(|run| {
            let waker = foreign(run, context);
            let scope = scope(run);
            if waker.is_none() && run.tree.borrow().is_current(self.wait, &run.current, scope) {
                return;
            }
            let task = run.node_or_main();
            let mut effects = Effects::default();
            run.tree
                .borrow_mut()
                .repoll(self.wait, &task, waker, scope, &mut effects);
            run.apply(effects);
        });
    }

    /// Has the driver forget the stream that it watches for this wait, if it does.
    pub(crate) fn end_watch(&self) {
        self.with(|run| {
            let stream = run.tree.borrow_mut().take_watched(self.wait);
            if let Some(stream) = stream {
                run.driver().unwatch(&stream);
            }
        });
    }

    /// The cancellation with which an operation has been asked to end, if it has.
    pub(crate) fn asked(&self) -> Option<Cancelled> {
        self.with(|run| match run.tree.borrow().wait_state(self.wait) {
            WaitState::Asked(cancelled) => Some(cancelled.clone()),
            _ => None,
        })
        .flatten()
    }

    /// Gives the wait up while its operation is in flight: from now on the operation counts
    /// against the nursery of the task, until the driver reports it.
    pub(crate) fn into_orphan(self) {
        self.with(|run| run.orphan(self.wait));
        // The entry stays until the driver reports the operation.
        let _ = std::mem::ManuallyDrop::new(self);
    }

    /// Calls `f` in the run that this wait belongs to; not at all if the run has ended.
    pub(crate) fn with<R>(&self, f: impl FnOnce(&Rc<Run>) -> R) -> Option<R> {
        context::try_with(|run| run.filter(|run| run.id == self.run).map(f))
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        self.with(|run| run.release_wait(self.wait));
    }
}
