//! One turn of the loop: look outside, hand out what has come, poll what is ready.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use trio_platform::{Backend, Completed, Token, Wait};

use super::Run;
use super::quiet::longest;
use crate::cancel::{CancelSource, Cancelled, Effects};
use crate::instrument::Event;
use crate::task::NurseryRef;
use crate::thread::Call;

/// A busy run asks the driver only once in so many turns, if the driver needs a system call to look
/// or has nothing in flight.
const POLLING_INTERVAL: u32 = 16;

/// How many completions are looked at together, so that the memory of all of them is on its way
/// before the first is dealt with.
const AT_ONCE: usize = 32;

impl Run {
    // Here and below, what few turns do is a call instead of being inlined: a turn that is made for one
    // message comes after a sleep, which has taken its code out of the first cache, and waits for each line.
    pub(super) fn turn(&self, root: &NurseryRef) {
        if let Some(watchdog) = &self.watchdog {
            watchdog.go_on();
        }
        self.call_deferred();
        self.open_inbox(root);
        if root.ready.is_empty() {
            self.wait(root);
        } else {
            self.look();
        }
        self.turn.set(self.turn.get().wrapping_add(1));
        self.turns_inside.set(self.watchdog.is_none());
        root.drive_root();
    }

    /// Begins the next turn from inside a nursery in which something is ready, and returns whether
    /// it did. If nothing is ready anywhere else and the loop would find nothing to do, returning
    /// to the loop would only mean coming down again through every enclosing nursery.
    ///
    /// The children are still polled from inside the future of their nursery, in a poll that goes
    /// on. No code around it notices: each task on the way down is in a step that it takes for this
    /// nursery alone ([`leave_turns_to_loop`](Self::leave_turns_to_loop) is called where that is
    /// not so), and nothing else that it may poll has been woken. As soon as anything is, in a task
    /// or by a foreign waker, the nursery's poll ends.
    pub(crate) fn next_turn_here(&self) -> bool {
        let turn = self.turn.get();
        let alone = self.queues.get() == 1 && self.turns_inside.get();
        if !alone || self.is_worth_asking() || self.shared.has_news() || self.is_any_due() {
            return false;
        }
        if !self.deferred.borrow().is_empty() {
            return false;
        }
        self.turn.set(turn.wrapping_add(1));
        true
    }

    /// Whether a deadline has passed. Counts, as [`expire`](Self::expire) does, those from now that have
    /// not been counted.
    fn is_any_due(&self) -> bool {
        if self.tree.borrow().timers.is_empty() {
            return false;
        }
        // A virtual clock may do anything when it is read, and only the loop decides its time.
        self.is_virtual() || {
            let now = self.now();
            self.tree.borrow_mut().is_any_due(now)
        }
    }

    /// In this turn a nursery is polled in the step of a task that has itself been woken, or by
    /// foreign code. That step or code goes on after the nursery has been polled, and must not be
    /// kept waiting: the next turn is made by the loop.
    #[inline]
    pub(crate) fn leave_turns_to_loop(&self) {
        self.turns_inside.set(false);
    }

    /// Something is ready in a nursery in which nothing was.
    #[inline]
    pub(crate) fn one_queue_more(&self) {
        self.queues.set(self.queues.get() + 1);
    }

    /// Nothing is ready any more in a nursery in which something was.
    #[inline]
    pub(crate) fn one_queue_less(&self) {
        self.queues.set(self.queues.get() - 1);
    }

    /// The loop is at a point where it may rest for any length of time.
    pub(super) fn rest(&self) {
        if let Some(watchdog) = &self.watchdog {
            watchdog.rest();
        }
    }

    /// The loop has rested, and is to go on from here.
    pub(super) fn work(&self) {
        if let Some(watchdog) = &self.watchdog {
            watchdog.begin();
        }
    }

    /// Looks everywhere without waiting; returns whether anything has happened.
    pub(super) fn collect(&self, root: &NurseryRef) -> bool {
        let mut effects = Effects::default();
        let completed = self.drive_io(Wait::For(Duration::ZERO), &mut effects);
        let expired = self.expire(&mut effects);
        self.apply(effects);
        self.call_deferred();
        let called = self.open_inbox(root);
        completed > 0 || expired || called || !root.ready.is_empty()
    }

    /// Steps 1 to 3 of a turn in which a task is ready: mostly there is nothing to be done.
    #[inline(never)]
    pub(super) fn look(&self) {
        let worth_asking = self.is_worth_asking();
        if worth_asking || !self.tree.borrow().timers.is_empty() {
            self.look_closely(worth_asking);
        }
    }

    #[inline(never)]
    fn look_closely(&self, worth_asking: bool) {
        let mut effects = Effects::default();
        if worth_asking {
            self.drive_io(Wait::Poll, &mut effects);
        }
        self.expire(&mut effects);
        self.apply(effects);
    }

    /// Whether a turn in which a task is ready asks the driver.
    #[inline]
    fn is_worth_asking(&self) -> bool {
        self.turn.get() % POLLING_INTERVAL == 0 || self.has_news()
    }

    /// Whether the driver may have something, and looking is cheap enough to do in each turn.
    pub(super) fn has_news(&self) -> bool {
        match self.backend {
            Backend::Polling => false,
            // Wakes from other threads take another path.
            Backend::IoUring => self.driver().in_flight() > 0,
            _ => true,
        }
    }

    /// Steps 1 to 3 of a turn in which no task is ready.
    #[inline]
    fn wait(&self, root: &NurseryRef) {
        match self.waits_for_driver() {
            true => self.wait_for_driver(root),
            false => self.wait_as_planned(root),
        }
    }

    /// The wait of most turns of a server. The code that runs after a wait is no longer in the near
    /// caches, so there is little of it.
    #[inline]
    fn wait_for_driver(&self, root: &NurseryRef) {
        let mut effects = Effects::default();
        self.rest();
        let completed = self.drive_io(Wait::Forever, &mut effects);
        self.work();
        self.apply(effects);
        if completed > 0 || self.has_something_else(root) {
            self.silence.end();
        }
    }

    #[inline(never)]
    fn wait_as_planned(&self, root: &NurseryRef) {
        let mut effects = Effects::default();
        let plan = self.plan();
        let lasted = self.quiet_time(&plan);
        self.rest();
        let completed = self.drive_io(plan.wait, &mut effects);
        self.work();
        let expired = self.expire(&mut effects);
        self.apply(effects);
        if completed > 0 || expired || self.has_something_else(root) {
            self.silence.end();
        } else if lasted(self) {
            self.all_blocked(&plan, root);
        }
    }

    /// Whether something has happened that neither the driver nor the clock reports.
    #[cold]
    fn has_something_else(&self, root: &NurseryRef) -> bool {
        self.call_deferred();
        // A call counts as something that happened, whether or not it has made a task ready.
        self.open_inbox(root) || !root.ready.is_empty()
    }

    /// Asks the driver, and hands each completion to its wait; returns how many there were.
    #[inline(never)]
    fn drive_io(&self, wait: Wait, effects: &mut Effects) -> usize {
        if self.instrumented.get() {
            self.instrument(&Event::BeforeIo(longest(wait)));
        }
        // Kept for its storage, so that no turn allocates. Nobody else looks at it.
        let mut completed = self.completed.borrow_mut();
        // Not at the end: a panic below must leave nothing that is dealt with a second time.
        completed.clear();
        if let Err(error) = self.driver().turn(wait, &mut completed) {
            panic!("the {} driver cannot go on: {error}", self.backend);
        }
        let count = completed.len();
        match completed.as_slice() {
            // To ask for its memory would be too late: it is needed at once.
            &[alone] => self.ended(alone, effects),
            all => self.all_ended(all, effects),
        }
        drop(completed);
        if self.instrumented.get() {
            self.instrument(&Event::AfterIo(longest(wait)));
        }
        count
    }

    #[inline(never)]
    fn all_ended(&self, completed: &[Completed], effects: &mut Effects) {
        for some in completed.chunks(AT_ONCE) {
            self.foresee(some);
            some.iter().for_each(|&one| self.ended(one, effects));
        }
    }

    #[inline]
    fn ended(&self, completed: Completed, effects: &mut Effects) {
        let wait = wait_of(completed.token);
        match completed.orphan {
            true => self.orphan_ended(wait),
            false => self.operation_ended(wait, effects),
        }
    }

    /// Prefetches, step by step, the memory that these completions are going to need: a message of a server
    /// with many connections finds nothing of its own in the near caches (`platform/src/prefetch.rs`).
    #[inline]
    fn foresee(&self, completed: &[Completed]) {
        let tree = self.tree.borrow();
        let waits = || completed.iter().map(|completed| wait_of(completed.token));
        waits().for_each(|wait| tree.foresee_wait(wait));
        let tasks = || waits().filter_map(|wait| tree.waiting_task(wait));
        tasks().for_each(|task| task.foresee());
        tasks().for_each(|task| task.foresee_poll());
    }

    #[inline]
    fn operation_ended(&self, wait: u32, effects: &mut Effects) {
        let counted = {
            let mut tree = self.tree.borrow_mut();
            tree.finish_wait(wait, effects);
            tree.take_counted(wait)
        };
        if let Some(nursery) = counted {
            counted_ended(nursery);
        }
    }

    #[cold]
    fn orphan_ended(&self, wait: u32) {
        let ended = {
            let mut tree = self.tree.borrow_mut();
            debug_assert!(tree.is_orphan(wait), "an orphan has nobody who waits");
            tree.remove_wait(wait)
        };
        if let Some(nursery) = ended.counted {
            nursery.remove_orphan();
        }
        for watcher in self.orphan_watchers.take() {
            self.finish_wait(watcher);
        }
    }

    fn expire(&self, effects: &mut Effects) -> bool {
        if self.tree.borrow().timers.is_empty() {
            return false;
        }
        let now = self.now();
        self.tree.borrow_mut().expire(now, effects)
    }

    #[inline]
    pub(super) fn call_deferred(&self) {
        if !self.deferred.borrow().is_empty() {
            self.call_all_deferred();
        }
    }

    #[inline(never)]
    fn call_all_deferred(&self) {
        // Foreign wakers run foreign code: nothing is borrowed here.
        while let Some(waker) = { self.deferred.borrow_mut().pop() } {
            waker.wake();
        }
    }

    /// Hands out the wakes that other threads have left, and makes the calls; returns whether there
    /// were any.
    #[inline]
    pub(super) fn open_inbox(&self, root: &NurseryRef) -> bool {
        self.shared.has_news() && self.empty_inbox(root)
    }

    #[inline(never)]
    fn empty_inbox(&self, root: &NurseryRef) -> bool {
        let (mut wakes, mut calls) = (self.remote_wakes.take(), self.calls.take());
        self.shared.collect(&mut wakes, &mut calls);
        wakes.drain(..).for_each(|wake| wake.deliver());
        let any = !calls.is_empty();
        calls.drain(..).for_each(|call| self.execute(call, root));
        self.remote_wakes.set(wakes);
        self.calls.set(calls);
        any
    }

    fn execute(&self, call: Call, root: &NurseryRef) {
        let work = match call {
            Call::Plain(work) => work,
            Call::Keyed(key, work) => {
                self.shared.begin(&key);
                work
            }
            Call::Thread { call, ended } => return self.threads.notice(self, call, ended),
        };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(work)) {
            let reason = "a function given to `run_sync_soon` panicked";
            root.call_panicked(panic, reason);
        }
    }

    /// Ends the system tasks after the main task, and executes the calls that have been accepted.
    pub(super) fn end_system_tasks(&self, root: &NurseryRef) {
        self.shut_down(root);
        while self.owes(root) {
            self.turn(root);
        }
        self.end_calls(root);
    }

    /// Whether something is left of a run whose main task has ended.
    pub(crate) fn owes(&self, root: &NurseryRef) -> bool {
        root.child_count() > 0 || self.threads.owed() > 0
    }

    /// Cancels what the main task has left.
    pub(crate) fn shut_down(&self, root: &NurseryRef) {
        if self.owes(root) {
            let reason = Some("the main task has ended".into());
            let shutdown = Cancelled::new(CancelSource::Shutdown, reason, None, None);
            self.cancel(root.scope.get(), shutdown);
        }
    }

    /// Executes the calls that have been accepted, and accepts no more. To be called when no task is left.
    pub(crate) fn end_calls(&self, root: &NurseryRef) {
        drop(self.root.take());
        for call in self.shared.close() {
            self.execute(call, root);
        }
    }
}

/// An operation has ended that was counted against `nursery`.
#[cold]
fn counted_ended(nursery: NurseryRef) {
    nursery.remove_orphan();
}

/// The wait that `token` stands for.
#[inline]
fn wait_of(token: Token) -> u32 {
    u32::try_from(token.0).expect("a token is the number of a wait")
}
