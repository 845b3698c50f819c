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
//! If the first three have nothing to do, and only one nursery has anything ready, that nursery
//! makes the next turn itself, without going up through the nurseries around it and down again
//! ([`Run::next_turn_here`]). At least one turn in 16 is made by the loop.
//!
//! What other threads have left in the inbox is dealt with when a turn begins, and so after the
//! input and the deadlines of the turn before. A call that comes in meanwhile waits for the next
//! turn.
//!
//! The run ends when the main task has. Then, in this order: system tasks are cancelled and waited
//! for; the inbox is closed, and the calls that it has accepted are made (Q1); the values of the
//! run are dropped, while its clock and its driver are still there for their destructors;
//! everything in flight is cancelled and collected, before anything that it could touch is freed
//! (D7).

mod observe;
mod order;
mod pause;
mod quiet;
mod scopes;
mod turn;
mod waits;

pub(crate) use pause::Pause;

use std::borrow::Cow;
use std::cell::{Cell, RefCell, RefMut};
use std::collections::BTreeSet;
use std::future::Future;
use std::panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;
use std::time::Duration;

use trio_platform::{Backend, Completed, Driver, DriverStatistics, SystemClock, Time};

use crate::cancel::{Here, Position, ROOT, Tree};
use crate::checkpoint::BUDGET;
use crate::context::{self, Entered, Shared};
use crate::deadlock::{Handler, Silence};
use crate::error::{Result, Usage};
use crate::guest::Tick;
use crate::instrument::{Event, Instruments};
use crate::nursery::{Failure, Open, spawn_root};
use crate::run_var::RunVars;
use crate::task::{Current, NodeRef, NurseryRef, Output, Remote, Siblings};
use crate::testing::Seen;
use crate::thread::{Call, Threads, Watched};
use crate::time::Clock;

/// How long the end of a run waits for the kernel to return its operations.
const DRAIN_BOUND: Duration = Duration::from_secs(5);

/// Stack that must be left for a further level of scopes.
const STACK_RESERVE: usize = if cfg!(debug_assertions) { 256 } else { 128 } * 1024;

/// Everything that a run knows, shared by what is inside it.
///
/// In this order in memory: what each turn and each message looks at comes first, on as few cache lines as
/// possible, because a turn that comes after a sleep finds none of them in the first cache.
#[repr(C, align(64))]
pub(crate) struct Run {
    pub(crate) turn: Cell<u32>,
    /// The number of nurseries in which something is ready.
    queues: Cell<u32>,
    /// Operations that the task may still complete in this turn.
    pub(crate) budget: Cell<u32>,
    /// Whether a turn may be made without the loop ([`Run::next_turn_here`]).
    turns_inside: Cell<bool>,
    pub(crate) instrumented: Cell<bool>,
    /// Whether anything observes what tasks do: an instrument, or the watchdog.
    pub(crate) observed: Cell<bool>,
    /// Set when the tree has gone: code that has kept the run finds nothing there.
    ended: Cell<bool>,
    pub(crate) current: Current,
    /// `None` once the run has ended, even if something leaked keeps the run alive.
    driver: RefCell<Option<Box<dyn Driver>>>,
    pub(crate) shared: Arc<Shared>,
    /// How many scopes of the tree are cancelled: mostly none, and then no checkpoint looks there.
    effective: Rc<Cell<u32>>,
    pub(crate) position: Position,
    /// What a turn collects; empty between turns, and kept for its storage.
    completed: RefCell<Vec<Completed>>,
    /// Foreign wakers, to be called between turns, when nothing is borrowed.
    deferred: RefCell<Vec<Waker>>,
    idle_waiters: RefCell<Vec<(Duration, u32)>>,
    watchdog: Option<Watched>,
    clock: RunClock,
    backend: Backend,
    /// How long nothing has happened in a run that seems to wait for nothing.
    silence: Silence,
    pub(crate) tree: RefCell<Tree>,
    // Few turns look at the rest.
    pub(crate) id: u64,
    main: RefCell<Option<NodeRef>>,
    /// The nursery of the main task and the system tasks, until it takes no more of them.
    root: RefCell<Option<NurseryRef>>,
    pub(crate) threads: Threads,
    pub(crate) vars: RunVars,
    /// Where the driver is while another thread waits in its place; code that wants it ends the
    /// wait.
    resting: Cell<Option<Box<dyn Driver>>>,
    /// Whether another thread waits, and nobody has told it to return.
    waited_for: Cell<bool>,
    /// What a host calls, if the run is a guest.
    pub(crate) guest: RefCell<Option<Weak<dyn Tick>>>,
    fallback: Option<String>,
    remote_wakes: Cell<Vec<Arc<Remote>>>,
    calls: Cell<Vec<Call>>,
    /// The waits for the end of an orphan. A set, because thousands of them may be cancelled at once.
    orphan_watchers: RefCell<BTreeSet<u32>>,
    /// The checks that want to know whether a task has passed a checkpoint; the innermost last.
    counting: RefCell<Vec<(Option<NodeRef>, Seen)>>,
    /// The nurseries that are open, for the task tree.
    pub(crate) nurseries: Siblings,
    /// Decides the order of tasks, if a seed was given.
    random: Cell<Option<u64>>,
    /// Where the next choice among several that are ready begins.
    choices: Cell<u64>,
    stack_limit: usize,
    pub(crate) instruments: Instruments,
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

/// A run that has begun and not ended, as held by the code that makes its turns. Dropping it
/// half-way drops the tasks as they stand, and takes everything back from the kernel; so do the
/// fields, in this order.
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

/// Takes everything back from the kernel when the run ends.
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
        // What is left may hold foreign code: values, wakers, abort functions. When that is
        // dropped, it finds a run in which no scope is entered and nothing waits.
        self.run.position.replace(Here::at(ROOT));
        if let Some(main) = self.run.main_task() {
            main.scope.set(ROOT);
        }
        let values = self.run.vars.take();
        // A destructor that panics must not keep the kernel's memory from being returned.
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
        // A leaked nursery or waiting future keeps the run alive, and the run would keep it alive
        // in turn: the cycle is broken here.
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
            queues: Cell::new(0),
            turns_inside: Cell::new(false),
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
            completed: RefCell::default(),
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

    /// Where system tasks go, as long as it takes them.
    pub(crate) fn root(&self) -> Option<NurseryRef> {
        self.root.borrow().clone()
    }

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

    /// Whether the run has given up its driver and its scopes.
    #[inline]
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.get()
    }

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

    pub(crate) fn task_name(&self) -> Option<Cow<'static, str>> {
        self.with_task(|task| task.map(|task| task.name()))
    }

    /// Calls `f` with the task whose code runs, itself or in the body of a nursery.
    #[inline]
    pub(crate) fn with_task<R>(&self, f: impl FnOnce(Option<&NodeRef>) -> R) -> R {
        self.current.with(|node| {
            f(node.and_then(|node| match node.nursery() {
                Some(nursery) => nursery.task(),
                None => Some(node),
            }))
        })
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

    /// The driver. Never held while code of a user can run.
    #[inline]
    pub(crate) fn driver(&self) -> RefMut<'_, dyn Driver> {
        RefMut::map(self.driver.borrow_mut(), |driver| {
            match driver {
                Some(driver) => driver,
                none => self.disturb(none),
            }
            .as_mut()
        })
    }

    pub(crate) fn backend(&self) -> (Backend, Option<&str>) {
        (self.backend, self.fallback.as_deref())
    }

    pub(crate) fn driver_statistics(&self) -> DriverStatistics {
        self.driver().statistics()
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

/// What belongs to the code around a poll: see [`Run::put_aside`].
#[derive(Clone, Copy)]
pub(crate) struct Around {
    here: Here,
    budget: u32,
}
