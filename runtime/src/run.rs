//! A run: from the first task to the last completion, one turn after another.
//!
//! A turn, in this order (`spec` of Trio, run loop; semantics R2, F4):
//!
//! 1. Work out how long to wait: not at all if a task is ready, else until the next deadline.
//! 2. Ask the driver, which submits, waits and collects; hand each completion to its wait.
//! 3. Let deadlines that have passed take effect: after completions, so that success beats a
//!    timeout of the same turn.
//! 4. Poll every task that was made ready before this point, once. What becomes ready meanwhile
//!    waits for the next turn, so that the work between two looks at the driver is bounded.
//!
//! What other threads have left in the inbox is dealt with where a turn begins, which is after the
//! input and the deadlines of the turn before. A call that comes in meanwhile waits for the next turn.
//!
//! The run ends when the main task has. Then, in this order: system tasks are cancelled and waited
//! for; the inbox is closed, and the calls that it has accepted are made (Q1); the values of the run are
//! dropped, whose destructors find its clock and its driver in place; everything in flight is
//! cancelled and collected, before anything that it could touch is freed (D7).

use std::borrow::Cow;
use std::cell::{Cell, RefCell, RefMut};
use std::future::Future;
use std::panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;
use std::time::Duration;

use trio_platform::{
    Backend, Completed, Descriptor, Driver, DriverStatistics, SystemClock, Time, Token, Wait,
};

use crate::cancel::{
    CancelSource, Cancelled, Cause, Effects, Entry, Here, Left, Lists, Position, ROOT, Tree,
};
use crate::checkpoint::BUDGET;
use crate::context::{self, Entered, Shared};
use crate::deadlock::{Deadlock, Handler, Silence};
use crate::error::{Error, NestedTooDeeply, Result, Usage};
use crate::guest::Tick;
use crate::instrument::{Event, Instruments, Task};
use crate::introspect::TaskTree;
use crate::nursery::{Failure, Open, spawn_root};
use crate::run_var::RunVars;
use crate::task::{Current, NodeRef, NurseryRef, Output, Remote, Siblings};
use crate::testing::Seen;
use crate::thread::{Call, Threads, Watched};
use crate::time::Clock;

/// No wait is longer, so that a clock that lies is found out once a day.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// By how much a wait of the kernel may end too early: its timers may count in milliseconds.
const TIMER_SLACK: Duration = Duration::from_millis(1);

/// How long the end of a run waits for the kernel to give operations back.
const DRAIN_BOUND: Duration = Duration::from_secs(5);

/// A busy run asks in one turn of so many only: a driver that needs a system call to look, and one
/// that has nothing in flight.
const POLLING_INTERVAL: u32 = 16;

/// Completions that are looked at together, so that the memory of all of them is on its way before the
/// first is dealt with.
const AT_ONCE: usize = 32;

/// Stack that must be left for a further level of scopes.
const STACK_RESERVE: usize = if cfg!(debug_assertions) { 256 } else { 128 } * 1024;

/// Everything that a run knows, shared by what is inside it.
pub(crate) struct Run {
    pub(crate) id: u64,
    pub(crate) shared: Arc<Shared>,
    pub(crate) turn: Cell<u32>,
    pub(crate) current: Current,
    main: RefCell<Option<NodeRef>>,
    /// The nursery of the main task and the system tasks, until it takes no more of them.
    root: RefCell<Option<NurseryRef>>,
    pub(crate) threads: Threads,
    pub(crate) vars: RunVars,
    pub(crate) position: Position,
    /// Operations that the task may still complete in this turn.
    pub(crate) budget: Cell<u32>,
    pub(crate) tree: RefCell<Tree>,
    /// How many scopes of the tree are cancelled: mostly none, and then no checkpoint looks there.
    effective: Rc<Cell<u32>>,
    /// Set when the tree has gone: whoever has held on to the run finds nothing there.
    ended: Cell<bool>,
    /// Gone when the run has ended, although something that was leaked may keep the run alive.
    driver: RefCell<Option<Box<dyn Driver>>>,
    /// Where the driver is while another thread waits in its place; whoever wants it ends the wait.
    resting: Cell<Option<Box<dyn Driver>>>,
    /// Whether another thread waits, and nobody has told it to return.
    waited_for: Cell<bool>,
    /// What a host calls, if the run is a guest.
    pub(crate) guest: RefCell<Option<Weak<dyn Tick>>>,
    backend: Backend,
    fallback: Option<String>,
    clock: RunClock,
    /// What a turn collects; empty between turns, and kept for its storage.
    completed: Cell<Vec<Completed>>,
    remote_wakes: Cell<Vec<Arc<Remote>>>,
    calls: Cell<Vec<Call>>,
    /// Wakers of others, to be called between turns, when nothing is borrowed.
    deferred: RefCell<Vec<Waker>>,
    orphan_watchers: RefCell<Vec<u32>>,
    /// Who wants to know whether a task is at checkpoints; the innermost last.
    counting: RefCell<Vec<(Option<NodeRef>, Seen)>>,
    idle_waiters: RefCell<Vec<(Duration, u32)>>,
    /// How long nothing has happened in a run that seems to wait for nothing.
    silence: Silence,
    /// The nurseries that are open, for the task tree.
    pub(crate) nurseries: Siblings,
    /// Decides the order of tasks, if a seed was given.
    random: Cell<Option<u64>>,
    /// Where the next choice among several that are ready begins.
    choices: Cell<u64>,
    stack_limit: usize,
    pub(crate) instrumented: Cell<bool>,
    pub(crate) instruments: Instruments,
    watchdog: Option<Watched>,
    /// Whether anybody is told of what tasks do: an instrument, or the watchdog.
    pub(crate) observed: Cell<bool>,
}

enum RunClock {
    System(SystemClock),
    Driver,
    Custom(Rc<dyn Clock>),
}

/// What a run is made of; filled in by the [`Builder`](crate::Builder).
pub(crate) struct Parts {
    pub(crate) driver: Box<dyn Driver>,
    pub(crate) fallback: Option<String>,
    pub(crate) clock: Option<Rc<dyn Clock>>,
    pub(crate) seed: Option<u64>,
    pub(crate) instruments: Instruments,
    pub(crate) on_deadlock: Handler,
    pub(crate) watchdog: Option<Watched>,
}

/// Runs `main` to its end, with everything that it starts.
pub(crate) fn run_to_end<F: Future>(
    parts: Parts,
    main: F,
    place: &'static Location<'static>,
) -> F::Output {
    let live = Live::begin(parts, main, place);
    while !live.is_main_done() {
        live.run().turn(&live.root);
    }
    live.run().end_system_tasks(&live.root);
    match live.finish() {
        Ok(value) => value,
        Err(Failure::Panic(panic)) => resume_unwind(panic),
        Err(Failure::Error(error)) => panic!("a system task failed: {error:?}"),
    }
}

/// A run that has begun and not ended, for whoever turns it. Dropping it half-way drops the tasks as
/// they stand, and takes everything back from the kernel; so do the fields, in this order.
pub(crate) struct Live<T> {
    output: Output<T>,
    pub(crate) root: NurseryRef,
    open: Open,
    ending: Ending,
    entered: Entered,
}

impl<T> Live<T> {
    /// The main task is ready to be polled, and nobody has polled it. Whoever calls this drops the
    /// run before what `main` borrows.
    pub(crate) fn begin<F>(parts: Parts, main: F, place: &'static Location<'static>) -> Self
    where
        F: Future<Output = T>,
    {
        let run = Run::new(parts);
        let entered = context::enter(run.clone());
        // Whatever happens from here on, the driver is drained before anything is freed.
        let ending = Ending { run: run.clone() };
        run.instrument(&Event::BeforeRun);
        let open = Open::root(&run, place);
        let root = open.nursery();
        *run.root.borrow_mut() = Some(root.clone());
        let output = spawn_root(&run, &root, async { Ok(main.await) }, place);
        *run.main.borrow_mut() = Some(output.node().clone());
        Self {
            output,
            root,
            open,
            ending,
            entered,
        }
    }

    pub(crate) fn run(&self) -> &Rc<Run> {
        &self.ending.run
    }

    pub(crate) fn is_main_done(&self) -> bool {
        self.output.node().is_done()
    }

    /// Ends the run after its last turn.
    pub(crate) fn finish(self) -> Result<T, Failure> {
        let Self {
            output,
            root,
            open,
            ending,
            entered,
        } = self;
        let failure = open.finish_root();
        let value = output.take();
        drop(output);
        drop(root);
        drop(ending);
        drop(entered);
        match failure {
            Some(failure) => Err(failure),
            None => Ok(value.expect("a main task that did not panic has an output")),
        }
    }
}

/// Takes back everything from the kernel when the run ends.
struct Ending {
    run: Rc<Run>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        // Calls are left only if the loop itself has panicked: nothing can execute them any more.
        drop(self.run.shared.close());
        self.run.threads.abandon_all();
        if let Some(watchdog) = &self.run.watchdog {
            watchdog.end();
        }
        drop(self.run.deferred.take());
        // What is left may hold code of others: values, wakers, functions that abort. When it goes it
        // finds a run in which no scope is entered and nothing waits.
        self.run.position.replace(Here::at(ROOT));
        if let Some(main) = self.run.main_task() {
            main.scope.set(ROOT);
        }
        let values = self.run.vars.take();
        // A destructor that panics is not to keep the kernel's memory from coming back.
        let dropped = catch_unwind(AssertUnwindSafe(|| drop(values)));
        let drained = self.run.driver().drain(DRAIN_BOUND);
        if drained.leaked > 0 {
            eprintln!(
                "trio: the kernel did not give back {} operations in {DRAIN_BOUND:?}; their memory \
                 is leaked",
                drained.leaked
            );
        }
        self.run.instrument(&Event::AfterRun);
        self.run.instruments.clear();
        // What was leaked, a nursery or a future that waits, keeps the run alive, and the run
        // would keep it: the circle ends here.
        self.run.ended.set(true);
        self.run.shared.let_go_of_driver();
        let root = self.run.root.take();
        let waits = self.run.tree.borrow_mut().end();
        while let Some(body) = self.run.nurseries.pop() {
            if let Some(nursery) = NurseryRef::of_body(body) {
                nursery.disown();
            }
        }
        drop((waits, root));
        drop(self.run.deferred.take());
        drop(self.run.driver.take());
        drop(self.run.main.take());
        if let Err(panic) = dropped {
            if !std::thread::panicking() {
                resume_unwind(panic);
            }
        }
    }
}

impl Run {
    fn new(parts: Parts) -> Rc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let Parts {
            driver,
            fallback,
            clock,
            seed,
            instruments,
            on_deadlock,
            watchdog,
        } = parts;
        let clock = match clock {
            Some(clock) => RunClock::Custom(clock),
            None if driver.virtual_time().is_some() => RunClock::Driver,
            None => RunClock::System(SystemClock::new()),
        };
        let effective = Rc::new(Cell::new(0));
        let remaining = trio_platform::stack_remaining();
        let here = trio_platform::stack_position();
        Rc::new(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            shared: Arc::new(Shared::new(driver.unparker())),
            turn: Cell::new(0),
            current: Current::default(),
            main: RefCell::new(None),
            root: RefCell::new(None),
            threads: Threads::default(),
            vars: RunVars::default(),
            position: Position::new(ROOT),
            budget: Cell::new(BUDGET),
            tree: RefCell::new(Tree::new(effective.clone())),
            effective,
            ended: Cell::new(false),
            backend: driver.backend(),
            driver: RefCell::new(Some(driver)),
            resting: Cell::new(None),
            waited_for: Cell::new(false),
            guest: RefCell::new(None),
            fallback,
            clock,
            completed: Cell::default(),
            remote_wakes: Cell::default(),
            calls: Cell::default(),
            deferred: RefCell::default(),
            orphan_watchers: RefCell::default(),
            counting: RefCell::default(),
            idle_waiters: RefCell::default(),
            silence: Silence::new(on_deadlock),
            nurseries: Siblings::default(),
            random: Cell::new(seed.map(|seed| seed.wrapping_mul(2).wrapping_add(1))),
            choices: Cell::new(seed.unwrap_or_default()),
            stack_limit: here.saturating_sub(remaining.saturating_sub(STACK_RESERVE)),
            instrumented: Cell::new(!instruments.is_empty()),
            observed: Cell::new(!instruments.is_empty() || watchdog.is_some()),
            instruments,
            watchdog,
        })
    }

    // One turn.

    fn turn(&self, root: &NurseryRef) {
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
        root.drive_root();
    }

    /// One turn of a run that is a guest, up to where it would wait: gives what to wait for, and then
    /// the turn is not over.
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

    /// The rest of the turn that has given `pause`, once the other thread has returned.
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

    /// The loop stands where it may stand for any time.
    fn rest(&self) {
        if let Some(watchdog) = &self.watchdog {
            watchdog.rest();
        }
    }

    /// The loop has rested, and is to go on from here.
    fn work(&self) {
        if let Some(watchdog) = &self.watchdog {
            watchdog.begin();
        }
    }

    /// Looks everywhere without waiting; gives whether anything has happened.
    fn collect(&self, root: &NurseryRef) -> bool {
        let mut effects = Effects::default();
        let patience = Duration::ZERO;
        let completed = self.drive_io(Wait::For(patience), patience, &mut effects);
        let expired = self.expire(&mut effects);
        self.apply(effects);
        self.call_deferred();
        let called = self.open_inbox(root);
        completed > 0 || expired || called || !root.ready.is_empty()
    }

    /// Ends the wait of another thread, if there is one: something has changed that it does not know.
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
    fn disturb(&self) -> Box<dyn Driver> {
        let driver = self.resting.take();
        self.stir();
        driver.expect("the driver lives as long as the run is running")
    }

    /// Steps 1 to 3 of a turn in which a task is ready: mostly there is nothing to be done.
    #[inline]
    fn look(&self) {
        let worth_asking = self.turn.get() % POLLING_INTERVAL == 0 || self.has_news();
        if worth_asking || !self.tree.borrow().timers.is_empty() {
            self.look_closely(worth_asking);
        }
    }

    #[inline(never)]
    fn look_closely(&self, worth_asking: bool) {
        let mut effects = Effects::default();
        if worth_asking {
            self.drive_io(Wait::Poll, Duration::ZERO, &mut effects);
        }
        self.expire(&mut effects);
        self.apply(effects);
    }

    /// Whether the driver may have something that can be had at a price worth paying in each turn.
    fn has_news(&self) -> bool {
        match self.backend {
            Backend::Polling => false,
            // Wakes from other threads come another way.
            Backend::IoUring => self.driver().in_flight() > 0,
            _ => true,
        }
    }

    /// Steps 1 to 3 of a turn in which no task is ready.
    #[inline(never)]
    fn wait(&self, root: &NurseryRef) {
        let mut effects = Effects::default();
        let plan = self.plan();
        let lasted = self.quiet_time(&plan);
        self.rest();
        let completed = self.drive_io(plan.wait, plan.timeout, &mut effects);
        self.work();
        let expired = self.expire(&mut effects);
        self.apply(effects);
        let quiet = completed == 0 && !expired && {
            self.call_deferred();
            // A call is something that has happened, whether or not it has made a task ready.
            !self.open_inbox(root) && root.ready.is_empty()
        };
        if !quiet {
            self.silence.end();
        } else if lasted(self) {
            self.all_blocked(&plan, root);
        }
    }

    /// Begins to measure whether a wait for quiet time lasts as long as it is meant to. One that a
    /// wake from elsewhere has ended early has seen nothing yet, though nothing has come of it.
    fn quiet_time(&self, plan: &Plan) -> impl FnOnce(&Self) -> bool + use<> {
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

    /// How long this turn waits, and what it means if nothing happens until then.
    fn plan(&self) -> Plan {
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
            // Somebody who waits for all to be blocked goes before a jump of the clock.
            // Without a deadline there is nothing to jump to, and the loop would look for ever.
            (None, Some(threshold)) if threshold < plan.timeout => {
                if let Some(next) = next {
                    plan.timeout = threshold;
                    plan.quiet = Quiet::Autojump(next);
                }
            }
            _ => {}
        }
        // A deadline that a clock never comes to by itself is none.
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

    /// Asks the driver, and hands each completion to its wait; gives how many there were.
    fn drive_io(&self, wait: Wait, timeout: Duration, effects: &mut Effects) -> usize {
        self.instrument(&Event::BeforeIo(timeout));
        // Taken out, for what is told of a completion may look at the run; and put back, so that no
        // turn allocates.
        let mut completed = self.completed.take();
        if let Err(error) = self.driver().turn(wait, &mut completed) {
            panic!("the {} driver cannot go on: {error}", self.backend);
        }
        let count = completed.len();
        for some in completed.chunks(AT_ONCE) {
            self.foresee(some);
            for &Completed { token, orphan } in some {
                match orphan {
                    true => self.orphan_ended(wait_of(token)),
                    false => self.operation_ended(wait_of(token), effects),
                }
            }
        }
        completed.clear();
        self.completed.set(completed);
        self.instrument(&Event::AfterIo(timeout));
        count
    }

    /// Asks for the memory that these completions are going to need, step by step: a message of a server
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

    fn operation_ended(&self, wait: u32, effects: &mut Effects) {
        let counted = {
            let mut tree = self.tree.borrow_mut();
            tree.finish_wait(wait, effects);
            tree.take_counted(wait)
        };
        if let Some(nursery) = counted {
            nursery.remove_orphan();
        }
    }

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

    /// Nothing is ready, nothing has happened, and the time is over that somebody wanted to see
    /// pass like that.
    fn all_blocked(&self, plan: &Plan, root: &NurseryRef) {
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
        // The host of a guest may do whatever a task may do.
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
            // What passes no time in a wait cannot wait for so long either.
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
        // What others hold of a run is held by the run itself too, and by each of its nodes that was
        // ever known to others.
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
        // Whoever let go of the last has left before what he had to leave: now it can be seen.
        std::sync::atomic::fence(Ordering::Acquire);
        self.shared.has_news() || !self.deferred.borrow().is_empty()
    }

    fn call_deferred(&self) {
        // Wakers of others run code of others: nothing is borrowed here.
        while let Some(waker) = { self.deferred.borrow_mut().pop() } {
            waker.wake();
        }
    }

    /// Hands out the wakes that other threads have left, and makes the calls; gives whether there
    /// were calls.
    #[inline]
    fn open_inbox(&self, root: &NurseryRef) -> bool {
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

    /// The main task has ended: system tasks end too, and what has been accepted is executed.
    fn end_system_tasks(&self, root: &NurseryRef) {
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

    /// The main task has ended: what is left is cancelled.
    pub(crate) fn shut_down(&self, root: &NurseryRef) {
        if self.owes(root) {
            let reason = Some("the main task has ended".into());
            let shutdown = Cancelled::new(CancelSource::Shutdown, reason, None, None);
            self.cancel(root.scope.get(), shutdown);
        }
    }

    /// Nothing is left: what has been accepted is executed, and nothing more is.
    pub(crate) fn end_calls(&self, root: &NurseryRef) {
        drop(self.root.take());
        for call in self.shared.close() {
            self.execute(call, root);
        }
    }

    /// Where system tasks go, as long as it takes them.
    pub(crate) fn root(&self) -> Option<NurseryRef> {
        self.root.borrow().clone()
    }

    // Time.

    pub(crate) fn now(&self) -> Time {
        match &self.clock {
            RunClock::System(clock) => clock.now(),
            RunClock::Driver => self
                .driver()
                .virtual_time()
                .expect("the driver has a clock"),
            RunClock::Custom(clock) => clock.now(),
        }
    }

    /// Whether reading the clock costs next to nothing, and time moves only when it is told to.
    pub(crate) fn is_virtual(&self) -> bool {
        !matches!(self.clock, RunClock::System(_))
    }

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

    // Scopes.

    /// The scope that the code is in.
    #[inline]
    pub(crate) fn scope(&self) -> u32 {
        if self.position.is_linked() {
            return self.position.linked();
        }
        self.link_position()
    }

    fn link_position(&self) -> u32 {
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
        // What is not linked has not been cancelled by itself (rule 2 of `cancel/position.rs`), but for
        // the task.
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

    /// Counts what the current task does from here on, until `end_counting`.
    pub(crate) fn begin_counting(&self) {
        let task = self.current_task();
        self.counting.borrow_mut().push((task, Seen::default()));
        // As if a scope were cancelled, so that who looks looks closely, and comes by `count`.
        self.effective.set(self.effective.get() + 1);
    }

    /// What was counted since the last `begin_counting`.
    pub(crate) fn counted(&self) -> Seen {
        let counting = self.counting.borrow();
        counting.last().map(|(_, seen)| *seen).unwrap_or_default()
    }

    pub(crate) fn end_counting(&self) {
        self.counting.borrow_mut().pop();
        self.effective.set(self.effective.get() - 1);
    }

    #[cold]
    fn count(&self, seen: Seen) {
        let mut counting = self.counting.borrow_mut();
        if counting.is_empty() {
            return;
        }
        let task = self.current_task();
        for (own, total) in counting.iter_mut() {
            if *own == task {
                total.looks += seen.looks;
                total.yields += seen.yields;
            }
        }
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

    /// Leaves a scope of which nobody wants to know how it ended, because its future was dropped.
    #[inline]
    pub(crate) fn leave_from_drop(&self, scope: u32) {
        if !self.tree.borrow_mut().leave_plain(scope) {
            self.leave(scope).close(false);
        }
    }

    /// Something waits in the scope: its deadline has to be watched, one that counts from now from
    /// the end of this turn, so that the clock is read once a turn.
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
        let task = self.task_name();
        let mut tree = self.tree.borrow_mut();
        tree.cause(source, reason, task, place)
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
        // What is not linked is neither shielded nor drained.
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

    /// Does what a change of the tree has left to do.
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
        // Who is asked may change the tree again, and then finds no lists to spare.
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

    // Waits.

    pub(crate) fn finish_wait(&self, wait: u32) {
        let mut effects = Effects::default();
        self.tree.borrow_mut().finish_wait(wait, &mut effects);
        self.apply(effects);
    }

    /// The same for a wait that is no operation's.
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

    /// Ends a wait whose descriptor is going to be closed: its operation is asked to end, if it has
    /// one, and else it is a watch.
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

    /// Whether the run has given up its driver and its scopes.
    #[inline]
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.get()
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

    /// Asks the operations to end that `task` has left behind, forgotten or moved elsewhere.
    pub(crate) fn settle_left_behind(&self, task: &NodeRef, nursery: &NurseryRef) {
        let waiting = self.tree.borrow().left_waiting(task);
        for wait in waiting {
            // Nobody is going to look at the stream. Whoever polls such a wait again, elsewhere,
            // begins anew; other waits go on there.
            if self.driver().unwatch_token(Token(u64::from(wait))) {
                self.finish_wait(wait);
            }
        }
        let left = self.tree.borrow().left_behind(task);
        for (wait, key) in left {
            nursery.add_orphan();
            self.tree.borrow_mut().count_wait(wait, nursery.clone());
            self.driver().cancel(key);
        }
    }

    pub(crate) fn watch_orphans(&self, wait: u32) {
        self.orphan_watchers.borrow_mut().push(wait);
    }

    pub(crate) fn unwatch_orphans(&self, wait: u32) {
        self.orphan_watchers
            .borrow_mut()
            .retain(|watcher| *watcher != wait);
    }

    pub(crate) fn watch_idle(&self, cushion: Duration, wait: u32) {
        self.idle_waiters.borrow_mut().push((cushion, wait));
    }

    pub(crate) fn unwatch_idle(&self, wait: u32) {
        self.idle_waiters
            .borrow_mut()
            .retain(|(_, waiter)| *waiter != wait);
    }

    pub(crate) fn defer_wake(&self, waker: Waker) {
        self.deferred.borrow_mut().push(waker);
        self.stir();
    }

    // Tasks.

    /// The node that is being polled; the main task when something is dropped between turns.
    #[inline]
    pub(crate) fn node_or_main(&self) -> NodeRef {
        self.current.get().unwrap_or_else(|| self.main_node())
    }

    #[cold]
    fn main_node(&self) -> NodeRef {
        self.main.borrow().clone().expect("a run has a main task")
    }

    /// The task that is being polled: for a body, the one that opened the nursery.
    pub(crate) fn current_task(&self) -> Option<NodeRef> {
        let node = self.current.get()?;
        match node.nursery() {
            Some(nursery) => nursery.task().cloned(),
            None => Some(node),
        }
    }

    pub(crate) fn main_task(&self) -> Option<NodeRef> {
        self.main.borrow().clone()
    }

    /// The nurseries that are open.
    pub(crate) fn nurseries(&self) -> Vec<NurseryRef> {
        let bodies = self.nurseries.to_vec();
        bodies.into_iter().filter_map(NurseryRef::of_body).collect()
    }

    /// Puts tasks that are ready at the same time in an order that depends on the seed.
    pub(crate) fn shuffle(&self, batch: &mut [NodeRef]) {
        let Some(mut state) = self.random.get() else {
            return;
        };
        for last in (1..batch.len()).rev() {
            // SplitMix64, by Steele, Lea and Flood: one addition and a hash.
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut hash = state;
            hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let below = last as u64 + 1;
            let other = usize::try_from((hash ^ (hash >> 31)) % below).expect("below a length");
            batch.swap(last, other);
        }
        self.random.set(Some(state));
    }

    /// A number below `below`, from a sequence that is the same in each run of the same seed: where
    /// a choice is to favour nobody.
    pub(crate) fn choose(&self, below: usize) -> usize {
        // Weyl's sequence with the golden ratio, as in `shuffle`; its upper half is the better one.
        let state = self.choices.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.choices.set(state);
        let hash = (state ^ (state >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 32;
        usize::try_from(hash).expect("half of 64 bits") % below
    }

    pub(crate) fn is_seeded(&self) -> bool {
        self.random.get().is_some()
    }

    pub(crate) fn task_name(&self) -> Option<Cow<'static, str>> {
        let node = self.current.get()?;
        let task = match node.nursery() {
            Some(nursery) => nursery.task()?,
            None => &node,
        };
        Some(task.name())
    }

    /// Where the code stands and what it may still do, to be put back after nodes have been polled.
    #[inline]
    pub(crate) fn put_aside(&self) -> Around {
        Around {
            here: self.position.here(),
            budget: self.budget.get(),
        }
    }

    #[inline]
    pub(crate) fn put_back(&self, around: Around) {
        self.position.replace(around.here);
        self.budget.set(around.budget);
    }

    /// What is polled next stands here, and has a fresh budget.
    #[inline]
    pub(crate) fn stand(&self, here: Here) {
        self.position.replace(here);
        self.budget.set(BUDGET);
    }

    // The outside.

    /// The driver. Never held while code of a user can run.
    #[inline]
    pub(crate) fn driver(&self) -> RefMut<'_, dyn Driver> {
        RefMut::map(self.driver.borrow_mut(), |driver| {
            driver.get_or_insert_with(|| self.disturb()).as_mut()
        })
    }

    pub(crate) fn backend(&self) -> (Backend, Option<&str>) {
        (self.backend, self.fallback.as_deref())
    }

    pub(crate) fn driver_statistics(&self) -> DriverStatistics {
        self.driver().statistics()
    }

    // Instruments.

    #[inline]
    fn instrument(&self, event: &Event<'_>) {
        if self.instrumented.get() {
            self.tell_instruments(event);
        }
    }

    #[cold]
    fn tell_instruments(&self, event: &Event<'_>) {
        self.instruments.tell(event);
        if self.instruments.is_empty() {
            self.instruments_changed();
        }
    }

    /// One has been added or removed: whoever looks for the flag before an event finds it.
    pub(crate) fn instruments_changed(&self) {
        let instrumented = !self.instruments.is_empty();
        self.observed.set(instrumented || self.watchdog.is_some());
        if self.instrumented.replace(instrumented) != instrumented {
            for nursery in self.nurseries() {
                nursery.update_watched();
            }
        }
    }

    /// Told at once, unless something of the run is borrowed: then by whoever borrowed it.
    #[cold]
    pub(crate) fn instrument_scheduled(&self, node: &NodeRef) {
        self.instruments.scheduled(Task::of(node));
        if self.tree.try_borrow_mut().is_ok() && self.driver.try_borrow_mut().is_ok() {
            self.tell_scheduled();
        }
    }

    #[cold]
    fn tell_scheduled(&self) {
        self.instruments.tell_scheduled();
        if self.instruments.is_empty() {
            self.instruments_changed();
        }
    }

    #[cold]
    pub(crate) fn observe_spawned(&self, node: &NodeRef) {
        if let Some(watchdog) = &self.watchdog {
            watchdog.add(node);
        }
        self.instrument(&Event::Spawned(&Task::of(node)));
    }

    #[cold]
    pub(crate) fn observe_exited(&self, node: &NodeRef) {
        if let Some(watchdog) = &self.watchdog {
            watchdog.remove(node);
        }
        if self.instrumented.get() {
            self.tell_from(node, Here::at(node.scope.get()), |task| Event::Exited(task));
        }
    }

    #[cold]
    pub(crate) fn observe_step(&self, node: &NodeRef, here: Here, before: bool) {
        if let Some(watchdog) = &self.watchdog {
            // After the step it is again the node around, which is polling its nursery.
            watchdog.poll(match before {
                true => node.address(),
                false => self.current.address(),
            });
        }
        if self.instrumented.get() {
            match before {
                true => self.tell_from(node, here, |task| Event::BeforeStep(task)),
                false => self.tell_from(node, here, |task| Event::AfterStep(task)),
            }
        }
    }

    /// The nursery of this body has been opened, or has ended.
    pub(crate) fn watch_body(&self, body: &NodeRef, opened: bool) {
        if let Some(watchdog) = &self.watchdog {
            match opened {
                true => watchdog.add(body),
                false => watchdog.remove(body),
            }
        }
    }

    /// Tells of a node as if from there.
    fn tell_from(&self, node: &NodeRef, here: Here, event: fn(&Task) -> Event<'_>) {
        let task = Task::of(node);
        let around = self.position.replace(here);
        let told = self
            .current
            .during(node, || self.tell_instruments(&event(&task)));
        self.position.replace(around);
        told.expect("the panic of an instrument is caught where it is called");
    }

    /// A task must not be in a run already.
    pub(crate) fn refuse_nesting() -> Result<()> {
        if context::is_running() {
            return Err(Usage::new(
                "`run` was called from inside a run: await the future instead, or use a thread",
            )
            .into());
        }
        Ok(())
    }
}

/// The wait that is told of by `token`.
#[inline]
fn wait_of(token: Token) -> u32 {
    u32::try_from(token.0).expect("a token is the number of a wait")
}

/// What belongs to the code around a poll: see [`Run::put_aside`].
#[derive(Clone, Copy)]
pub(crate) struct Around {
    here: Here,
    budget: u32,
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

struct Plan {
    wait: Wait,
    timeout: Duration,
    quiet: Quiet,
}

/// What it means that nothing happens for as long as a turn waits.
#[derive(PartialEq, Eq)]
enum Quiet {
    Nothing,
    /// The run waits for nothing that could come, as it seems.
    Deadlock,
    /// Those who wait for all tasks to be blocked, with this cushion.
    Waiters(Duration),
    /// The clock jumps to the next deadline.
    Autojump(Time),
}
