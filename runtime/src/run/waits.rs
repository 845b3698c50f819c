//! The waits of a run: how each ends, and what becomes of those that nobody polls any more.

use std::task::Waker;

use trio_platform::{Descriptor, Token};

use super::Run;
use crate::cancel::Effects;
use crate::task::{NodeRef, NurseryRef};

impl Run {
    pub(crate) fn finish_wait(&self, wait: u32) {
        let mut effects = Effects::default();
        self.tree.borrow_mut().finish_wait(wait, &mut effects);
        self.apply(effects);
    }

    /// The same for a wait that belongs to no operation.
    #[inline]
    pub(crate) fn claim_wait(&self, wait: u32) {
        let claimed = self.tree.borrow_mut().claim_wait(wait);
        if let Some(Some(waker)) = claimed {
            self.defer_wake(waker);
        }
        if self.instrumented.get() {
            self.tell_scheduled();
        }
    }

    /// Has the task of this wait look at what it waits for, without ending the wait.
    pub(crate) fn nudge_wait(&self, wait: u32) {
        let mut effects = Effects::default();
        self.tree.borrow_mut().nudge_wait(wait, &mut effects);
        self.apply(effects);
    }

    /// Ends a wait whose descriptor is going to be closed: if it has an operation, that is asked to
    /// end; otherwise it is a watch.
    pub(crate) fn close_wait(&self, wait: u32, descriptor: Option<&Descriptor>) {
        let operation = self.tree.borrow().operation(wait);
        if let Some(key) = operation {
            return self.driver().cancel(key);
        }
        if let Some(descriptor) = descriptor {
            self.driver().unwatch(descriptor);
        }
        self.finish_wait(wait);
    }

    #[inline]
    pub(crate) fn release_wait(&self, wait: u32) {
        let task = self.tree.borrow_mut().remove_plain_wait(wait);
        if task.is_none() {
            self.release_any_wait(wait);
        }
    }

    fn release_any_wait(&self, wait: u32) {
        let ended = self.tree.borrow_mut().remove_wait(wait);
        if let Some(nursery) = &ended.counted {
            nursery.remove_orphan();
        }
    }

    /// The operation of this wait has been abandoned: it counts against its task's nursery.
    pub(crate) fn orphan(&self, wait: u32) {
        let mut tree = self.tree.borrow_mut();
        let nursery = match tree.take_counted(wait) {
            Some(nursery) => Some(nursery),
            None => {
                let nursery = tree.nursery_of(wait);
                if let Some(nursery) = &nursery {
                    nursery.add_orphan();
                }
                nursery
            }
        };
        tree.orphan_wait(wait, nursery);
    }

    /// Asks the operations that `task` has left behind, forgotten or moved elsewhere, to end, and
    /// lets those in line behind it look.
    pub(crate) fn settle_left_behind(&self, task: &NodeRef, nursery: &NurseryRef) {
        let waiting = self.tree.borrow().left_watching(task);
        for (wait, place) in waiting {
            // Nobody is going to look at the stream. A wait of this kind that is polled again
            // elsewhere begins anew; other waits go on there.
            if self.driver().unwatch_at(place, Token(u64::from(wait))) {
                self.finish_wait(wait);
            }
        }
        let left = self.tree.borrow().left_behind(task);
        for (wait, key) in left {
            nursery.add_orphan();
            self.tree.borrow_mut().count_wait(wait, nursery.clone());
            self.driver().cancel(key);
        }
        let held_up = self.tree.borrow_mut().held_up(task);
        for wait in held_up {
            self.nudge_wait(wait);
        }
    }

    pub(crate) fn watch_orphans(&self, wait: u32) {
        self.orphan_watchers.borrow_mut().insert(wait);
    }

    pub(crate) fn unwatch_orphans(&self, wait: u32) {
        self.orphan_watchers.borrow_mut().remove(&wait);
    }

    pub(crate) fn defer_wake(&self, waker: Waker) {
        self.deferred.borrow_mut().push(waker);
        self.stir();
    }
}
