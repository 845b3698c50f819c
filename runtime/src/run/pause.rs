//! The turn of a guest, which stops where it would wait and lets another thread wait in its place.
//!
//! Until then that thread has the driver (`resting`). Code that needs the driver meanwhile, or
//! changes what is waited for, ends the wait first.

use std::time::Duration;

use trio_platform::{Driver, Wait};

use super::Run;
use super::quiet::Plan;
use crate::task::NurseryRef;

impl Run {
    /// One turn of a run that is a guest, up to where it would wait: if it returns something to
    /// wait for, the turn is not over.
    pub(crate) fn turn_as_guest(&self, root: &NurseryRef) -> Option<Pause> {
        self.work();
        let pause = self.begin_turn_of_guest(root);
        self.rest();
        pause
    }

    fn begin_turn_of_guest(&self, root: &NurseryRef) -> Option<Pause> {
        self.call_deferred();
        self.open_inbox(root);
        if root.ready.is_empty() {
            if let Some(pause) = self.begin_wait(root) {
                return Some(pause);
            }
        } else {
            self.look();
        }
        self.turn.set(self.turn.get().wrapping_add(1));
        root.drive_root();
        None
    }

    /// Steps 1 to 3 of a turn of a guest in which no task is ready, as far as they take no time.
    fn begin_wait(&self, root: &NurseryRef) -> Option<Pause> {
        let plan = self.plan();
        let lasted = self.quiet_time(&plan);
        if self.collect(root) {
            return None;
        }
        if plan.timeout.is_zero() {
            if lasted(self) {
                self.all_blocked(&plan, root);
            }
            return None;
        }
        root.expect_notice();
        if !self.driver().begin_wait() {
            return None;
        }
        self.resting.set(self.driver.take());
        self.waited_for.set(true);
        let lasted = Box::new(lasted);
        Some(Pause { plan, lasted })
    }

    /// The rest of the turn that has returned `pause`, once the other thread has returned.
    pub(crate) fn end_wait(&self, root: &NurseryRef, pause: Pause) {
        self.work();
        self.waited_for.set(false);
        self.driver().end_wait();
        if !self.collect(root) && (pause.lasted)(self) {
            self.all_blocked(&pause.plan, root);
        }
        self.turn.set(self.turn.get().wrapping_add(1));
        root.drive_root();
        self.rest();
    }

    /// Ends the wait of another thread, if there is one: something has changed that it does not
    /// know about.
    #[inline]
    pub(crate) fn stir(&self) {
        if self.waited_for.get() {
            self.end_rest();
        }
    }

    #[cold]
    fn end_rest(&self) {
        self.waited_for.set(false);
        self.shared.unpark();
    }

    /// The driver, for somebody who finds it gone: a thread waits in its place.
    #[cold]
    #[inline(never)]
    pub(super) fn disturb<'a>(
        &self,
        place: &'a mut Option<Box<dyn Driver>>,
    ) -> &'a mut Box<dyn Driver> {
        let driver = self.resting.take();
        self.stir();
        place.insert(driver.expect("the driver lives as long as the run is running"))
    }
}

/// Where a turn of a guest has stopped, for another thread to wait.
pub(crate) struct Pause {
    plan: Plan,
    lasted: Box<dyn FnOnce(&Run) -> bool>,
}

impl Pause {
    /// How long the thread waits; `None` until it is woken.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        match self.plan.wait {
            Wait::Poll => Some(Duration::ZERO),
            Wait::For(timeout) => Some(timeout),
            Wait::Forever => None,
        }
    }
}
