//! How long a turn waits, and what it means if nothing happens until then.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use trio_platform::{SystemClock, Time, Wait};

use super::{Run, RunClock};
use crate::deadlock::Deadlock;
use crate::introspect::TaskTree;
use crate::task::NurseryRef;

/// The longest wait, so that a clock that lies is found out once a day.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// By how much a wait of the kernel may end too early: its timers may count in milliseconds.
const TIMER_SLACK: Duration = Duration::from_millis(1);

impl Run {
    /// Begins to measure whether a wait for quiet time lasts as long as it is meant to. A wait that
    /// a wake from elsewhere has ended early proves nothing yet, even if the wake had no effect.
    pub(super) fn quiet_time(&self, plan: &Plan) -> impl FnOnce(&Self) -> bool + use<> {
        let timed = plan.quiet != Quiet::Nothing && !plan.timeout.is_zero();
        let timeout = plan.timeout;
        let clock = timed.then(SystemClock::new);
        let time = move |run: &Self| {
            let clock = clock?;
            Some(run.driver().virtual_time().unwrap_or_else(|| clock.now()))
        };
        let begin = time(self);
        move |run| match (begin, time(run)) {
            (Some(begin), Some(end)) => end.saturating_since(begin) + TIMER_SLACK >= timeout,
            _ => true,
        }
    }

    /// Whether the [plan](Self::plan) is to wait for what the driver has in flight, and nothing else.
    #[inline]
    pub(super) fn waits_for_driver(&self) -> bool {
        matches!(self.clock, RunClock::System(_))
            && self.tree.borrow().timers.is_empty()
            && self.idle_waiters.borrow().is_empty()
            && !self.driver().is_idle()
    }

    /// How long this turn waits, and what it means if nothing happens until then.
    pub(super) fn plan(&self) -> Plan {
        let (next, until) = self.next_deadline();
        let mut plan = Plan {
            wait: Wait::Forever,
            timeout: until.min(LONGEST_WAIT),
            quiet: Quiet::Nothing,
        };
        let cushion = self
            .idle_waiters
            .borrow()
            .iter()
            .map(|(cushion, _)| *cushion)
            .min();
        let threshold = match &self.clock {
            RunClock::Custom(clock) => clock.autojump_threshold(),
            RunClock::System(_) | RunClock::Driver => None,
        };
        match (cushion, threshold) {
            (Some(cushion), _) if cushion < plan.timeout => {
                plan.timeout = cushion;
                plan.quiet = Quiet::Waiters(cushion);
            }
            // A wait for all tasks to be blocked goes before a jump of the clock. Without a
            // deadline there is nothing to jump to, and the loop would look for ever.
            (None, Some(threshold)) if threshold < plan.timeout => {
                if let Some(next) = next {
                    plan.timeout = threshold;
                    plan.quiet = Quiet::Autojump(next);
                }
            }
            _ => {}
        }
        // A deadline that the clock never reaches by itself counts as none.
        let comes = next.is_some() && until < Duration::MAX;
        if !comes && plan.quiet == Quiet::Nothing {
            if let Some(patience) = self.suspects_deadlock() {
                plan.timeout = patience.min(LONGEST_WAIT);
                plan.quiet = Quiet::Deadlock;
            }
        }
        let bounded = next.is_some() || plan.quiet != Quiet::Nothing;
        plan.wait = match plan.timeout {
            Duration::ZERO => Wait::Poll,
            timeout if bounded => Wait::For(timeout),
            // Without a deadline there is nothing to wake up for.
            _ => Wait::Forever,
        };
        plan
    }

    /// The next deadline, and how long to wait for it.
    fn next_deadline(&self) -> (Option<Time>, Duration) {
        if self.tree.borrow().timers.is_empty() {
            return (None, LONGEST_WAIT);
        }
        let now = self.now();
        let next = {
            let mut tree = self.tree.borrow_mut();
            tree.settle(now);
            tree.timers.next()
        };
        let until = next.map(|deadline| match &self.clock {
            RunClock::System(_) | RunClock::Driver => deadline.saturating_since(now),
            RunClock::Custom(clock) => clock.wait_until(deadline),
        });
        (next, until.unwrap_or(LONGEST_WAIT))
    }

    /// Nothing is ready, nothing has happened, and the time for which somebody waited for that is
    /// over.
    pub(super) fn all_blocked(&self, plan: &Plan, root: &NurseryRef) {
        match plan.quiet {
            Quiet::Nothing => {}
            Quiet::Deadlock => self.look_for_deadlock(root),
            Quiet::Waiters(cushion) => {
                let waiters = self.idle_waiters.take();
                let (due, rest) = waiters.into_iter().partition(|(own, _)| *own == cushion);
                let due: Vec<(Duration, u32)> = due;
                *self.idle_waiters.borrow_mut() = rest;
                for (_, wait) in due {
                    self.finish_wait(wait);
                }
            }
            Quiet::Autojump(next) => {
                if let RunClock::Custom(clock) = &self.clock {
                    clock.autojump(next);
                }
            }
        }
    }

    /// For how long nothing must happen until the run is looked at more closely: nothing has a
    /// deadline, and the driver has nothing to report. `None` if it is certain that something may
    /// happen, or if the run has been looked at and all is said.
    fn suspects_deadlock(&self) -> Option<Duration> {
        // The host of a guest may do anything that a task may do.
        if !self.driver().is_idle() || !self.threads.is_idle() || self.guest.borrow().is_some() {
            return None;
        }
        self.silence.patience(|| match &self.clock {
            RunClock::System(_) => None,
            RunClock::Driver => Some(Duration::ZERO),
            RunClock::Custom(clock) => clock.autojump_threshold(),
        })
    }

    /// Nothing has happened for long enough in a run that has a reason to suspect itself.
    #[cold]
    fn look_for_deadlock(&self, root: &NurseryRef) {
        if self.can_be_woken() {
            // Where no time passes in a wait, a longer wait is impossible too.
            let timed = !matches!(self.clock, RunClock::Driver);
            return self.silence.lengthen(timed);
        }
        let clock_stands = self.tree.borrow_mut().timers.next().is_some();
        let deadlock = Deadlock::new(TaskTree::of_run(self), clock_stands);
        if let Err(panic) = self.silence.report(&deadlock) {
            root.call_panicked(panic, "nothing could wake the run any more");
        }
    }

    /// Whether anybody outside holds something by which the run can be woken: a token, a waker, or
    /// the other end of a call.
    fn can_be_woken(&self) -> bool {
        // What others hold of a run is also held by the run itself, and by each of its nodes that
        // was ever handed out.
        let mut own = 1;
        for nursery in self.nurseries() {
            let children = nursery.children();
            let nodes = children.iter().chain([nursery.body()]);
            for wakers in nodes.filter_map(|node| node.wakers()) {
                if wakers > 0 {
                    return true;
                }
                own += 1;
            }
        }
        if Arc::strong_count(&self.shared) > own {
            return true;
        }
        // A thread leaves what it has to leave before it lets go of the last reference: now that
        // can be seen.
        std::sync::atomic::fence(Ordering::Acquire);
        self.shared.has_news() || !self.deferred.borrow().is_empty()
    }

    pub(crate) fn watch_idle(&self, cushion: Duration, wait: u32) {
        self.idle_waiters.borrow_mut().push((cushion, wait));
    }

    pub(crate) fn unwatch_idle(&self, wait: u32) {
        self.idle_waiters
            .borrow_mut()
            .retain(|(_, waiter)| *waiter != wait);
    }
}

/// The longest that such a wait lasts.
#[cold]
pub(super) fn longest(wait: Wait) -> Duration {
    match wait {
        Wait::Poll => Duration::ZERO,
        Wait::For(timeout) => timeout,
        Wait::Forever => LONGEST_WAIT,
    }
}

pub(super) struct Plan {
    pub(super) wait: Wait,
    pub(super) timeout: Duration,
    quiet: Quiet,
}

/// What it means that nothing happens for as long as a turn waits.
#[derive(PartialEq, Eq)]
pub(super) enum Quiet {
    Nothing,
    /// The run seems to wait for nothing that could come.
    Deadlock,
    /// Wakes those who wait for all tasks to be blocked, with this cushion.
    Waiters(Duration),
    /// The clock jumps to the next deadline.
    Autojump(Time),
}
