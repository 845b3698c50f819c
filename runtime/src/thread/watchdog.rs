//! The watchdog: a thread beside a run that notices when its loop is stuck, and says why.
//!
//! A task that computes for long, or blocks its thread, keeps all others waiting, and nothing in
//! the loop can notice, because the loop itself stands still. So a thread looks at the pulse of the
//! run (`pulse.rs`): a turn that is the same at several looks in a row is taking too long.
//!
//! 1. In each step the run stores which node it polls, and nothing else. The names of nodes are in
//!    a table under a lock, which the run takes when a task or a nursery begins or ends. The
//!    watchdog takes the lock to look up a node, and checks the pulse again while holding it: a
//!    node that has ended since is not mistaken for one that is stuck, because it is removed after
//!    its step.
//! 2. A run at rest is not blocked, however long it rests, and the watchdog sleeps as well.
//! 3. Time is the system's, whatever the clock of the run says.
//! 4. The thread belongs to the run, and is joined when the run ends, however it ends. If it is in
//!    the callback at that moment, the run waits for it.
//! 5. A callback that panics is reported on standard error, and ends the watchdog; the run goes on
//!    without one.
//!
//! It is not reported where in its code the blocked thread is: looking at the stack of another
//! thread takes a signal whose handler may do next to nothing, and there is no safe way to do it.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

use trio_platform::{SystemClock, Time};

use super::pulse::Pulse;
use super::sync::{Mutex, lock};
use crate::instrument::Task;
use crate::task::NodeRef;

/// Reports turns of a run's loop that take too long; for [`Builder::watchdog`](crate::Builder::watchdog).
///
/// While the loop is blocked, no connection is answered and no deadline kept. The usual cause is a
/// task that computes, or that calls something that blocks: that belongs [on a
/// thread](crate::to_thread::run_sync), or has to be broken up by
/// [checkpoints](crate::checkpoint()). The watchdog reports *while* it lasts, and once more when it
/// is over.
///
/// A run that waits for the kernel is never reported, nor is the host of a guest. A thread that the
/// system does not schedule looks like one that blocks.
///
/// It costs two stores a step, a lock each time a task or a nursery begins or ends, and a thread that
/// looks four times per threshold and sleeps while the run does. A run without a watchdog pays nothing.
///
/// # Examples
///
/// ```
/// # mod trio { pub use trio_runtime::*; pub mod instrument { pub use trio_runtime::*; } }
/// use std::sync::mpsc;
/// use std::time::Duration;
/// use trio::Builder;
/// use trio::instrument::Watchdog;
///
/// let (tell, told) = mpsc::channel();
/// let watchdog = Watchdog::new()
///     .threshold(Duration::from_millis(20))
///     .on_blocked(move |blocked| drop(tell.send(blocked.to_string())));
/// let report = Builder::new().watchdog(watchdog).run(async move {
///     // A mistake: this blocks the loop, here until the watchdog has seen it.
///     told.recv()
/// })?;
/// assert!(report.contains("the task main"), "{report}");
/// # Ok::<(), mpsc::RecvError>(())
/// ```
#[must_use = "a watchdog watches the run that it is given to by `Builder::watchdog`"]
pub struct Watchdog {
    threshold: Duration,
    callback: Callback,
}

type Callback = Box<dyn FnMut(&Blocked) + Send>;

impl Watchdog {
    /// A watchdog that prints to standard error, and with the feature `tracing` also logs a warning,
    /// when a turn takes longer than a tenth of a second.
    pub fn new() -> Self {
        Self {
            threshold: THRESHOLD,
            callback: Box::new(print),
        }
    }

    /// Sets how long a turn may take.
    ///
    /// # Panics
    ///
    /// If that is less than a millisecond, which is about what a system needs to schedule a thread.
    #[doc(alias = "slow_callback_duration")]
    #[track_caller]
    pub fn threshold(mut self, threshold: Duration) -> Self {
        assert!(
            threshold >= SHORTEST,
            "a watchdog cannot tell what is shorter than {SHORTEST:?}, and was given {threshold:?}"
        );
        self.threshold = threshold;
        self
    }

    /// Calls `function` instead of printing: once while a turn lasts, as soon as it has taken too
    /// long, and once when it is over.
    ///
    /// It is called on the thread of the watchdog, and must return for the run to end. If it panics,
    /// that is reported on standard error, and the run goes on without a watchdog.
    pub fn on_blocked(mut self, function: impl FnMut(&Blocked) + Send + 'static) -> Self {
        self.callback = Box::new(function);
        self
    }
}

impl Default for Watchdog {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Watchdog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watchdog")
            .field("threshold", &self.threshold)
            .finish_non_exhaustive()
    }
}

/// What asyncio's debug mode uses, and about what a person notices.
const THRESHOLD: Duration = Duration::from_millis(100);

const SHORTEST: Duration = Duration::from_millis(1);

/// In how many looks a turn must have been the same. If the whole process is stopped for a while,
/// at most one or two looks see the same turn.
const LOOKS: u32 = 4;

/// A turn of the loop that takes or took too long, as the [`Watchdog`] reports it.
///
/// Its [`Display`](fmt::Display) is what is printed.
#[derive(Clone, Debug)]
pub struct Blocked {
    task: Option<Task>,
    lasted: Duration,
    one_poll: bool,
    over: bool,
}

impl Blocked {
    /// The task, or body of a nursery, that was being polled when the turn had taken too long.
    /// `None` if it was not a task but a call from another thread, a waker, or some handler.
    pub fn task(&self) -> Option<&Task> {
        self.task.as_ref()
    }

    /// How long the turn has lasted so far, or in all. The true time may be up to a quarter of the
    /// threshold longer, and is never shorter.
    pub fn lasted(&self) -> Duration {
        self.lasted
    }

    /// Whether, as far as was seen, all that time went into one poll of that task, rather than into
    /// many tasks in the same turn.
    pub fn is_one_poll(&self) -> bool {
        self.one_poll
    }

    /// Whether the loop is turning again.
    pub fn is_over(&self) -> bool {
        self.over
    }
}

impl fmt::Display for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lasted = self.lasted;
        match self.over {
            false => write!(
                f,
                "the loop has not gone on for {lasted:.0?}, and still does not: "
            )?,
            true => write!(f, "the loop goes on after {lasted:.0?}: ")?,
        }
        let Some(task) = &self.task else {
            return f
                .write_str("what took so long is no task but a call, a waker or an instrument");
        };
        let (name, place) = (task.name(), task.place());
        match (task.is_body(), self.one_poll) {
            (false, true) => write!(f, "the task {name} ({place}) was polled"),
            (true, true) => write!(f, "the task {name} was polled, in its nursery at {place}"),
            (_, false) => write!(
                f,
                "many tasks were polled in one turn, at last {name} ({place})"
            ),
        }
    }
}

fn print(blocked: &Blocked) {
    #[cfg(feature = "tracing")]
    tracing::event!(target: "trio::run", tracing::Level::WARN, "{blocked}");
    eprintln!("trio: {blocked}");
}

/// The watchdog of a run, as the run holds it; ends when it is dropped.
pub(crate) struct Watched {
    shared: Arc<Shared>,
    thread: Thread,
    join: Cell<Option<JoinHandle<()>>>,
}

/// Shared by the run and its watchdog.
struct Shared {
    pulse: Pulse,
    /// The nodes that could be polled, by their addresses.
    nodes: Mutex<HashMap<usize, Task>>,
    ended: AtomicBool,
}

impl Watchdog {
    /// Starts to watch a run that is at rest.
    pub(crate) fn watch(self) -> io::Result<Watched> {
        let shared = Arc::new(Shared {
            pulse: Pulse::new(),
            nodes: Mutex::new(HashMap::new()),
            ended: AtomicBool::new(false),
        });
        let eyes = Eyes {
            shared: shared.clone(),
            threshold: self.threshold,
            callback: self.callback,
            clock: SystemClock::new(),
        };
        let thread = thread::Builder::new().name("trio watchdog".to_owned());
        let join = thread.spawn(move || eyes.watch())?;
        Ok(Watched {
            shared,
            thread: join.thread().clone(),
            join: Cell::new(Some(join)),
        })
    }
}

impl Watched {
    /// The run begins to work after a rest.
    pub(crate) fn begin(&self) {
        if self.shared.pulse.begin() {
            self.thread.unpark();
        }
    }

    /// The next turn begins.
    #[inline]
    pub(crate) fn go_on(&self) {
        if self.shared.pulse.go_on() {
            self.thread.unpark();
        }
    }

    /// The run rests until it begins again.
    pub(crate) fn rest(&self) {
        if self.shared.pulse.rest() {
            self.thread.unpark();
        }
    }

    /// Stores what is polled from now on, by its address; zero for nothing.
    #[inline]
    pub(crate) fn poll(&self, node: usize) {
        self.shared.pulse.poll(node);
    }

    /// Adds a new task or nursery.
    pub(crate) fn add(&self, node: &NodeRef) {
        let task = Task::of(node);
        lock(&self.shared.nodes).insert(node.address(), task);
    }

    /// Removes a node that has ended, and is not being polled.
    pub(crate) fn remove(&self, node: &NodeRef) {
        let task = lock(&self.shared.nodes).remove(&node.address());
        drop(task);
    }

    /// Ends the watch, and waits for the thread.
    pub(crate) fn end(&self) {
        let Some(join) = self.join.take() else {
            return;
        };
        self.shared.ended.store(true, Ordering::Release);
        self.thread.unpark();
        // Its panics are caught where they happen.
        drop(join.join());
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.end();
    }
}

/// The watchdog on its own thread.
struct Eyes {
    shared: Arc<Shared>,
    threshold: Duration,
    callback: Callback,
    clock: SystemClock,
}

impl Eyes {
    fn watch(mut self) {
        let period = self.threshold / LOOKS;
        let mut rested = None;
        while !self.has_ended() {
            let turn = self.shared.pulse.turn();
            if !Pulse::is_at_rest(turn) {
                rested = None;
                if self.watch_turn(turn, period).is_err() {
                    eprintln!(
                        "trio: the callback of the watchdog has panicked: the run is not watched \
                         any more"
                    );
                    return;
                }
            } else if rested.replace(turn) != Some(turn) {
                // A run that alternates between work and rest should not pay for waking the
                // watchdog each time.
                thread::park_timeout(period);
            } else if self.shared.pulse.fall_asleep(turn) && !self.has_ended() {
                thread::park();
            }
        }
    }

    fn has_ended(&self) -> bool {
        self.shared.ended.load(Ordering::Acquire)
    }

    /// Watches `turn` to its end, and reports it if it takes too long.
    fn watch_turn(&mut self, turn: usize, period: Duration) -> thread::Result<()> {
        let begin = self.clock.now();
        let node = self.shared.pulse.node();
        let mut one_poll = true;
        let mut looks = 0;
        while looks < LOOKS || self.clock.now().saturating_since(begin) < self.threshold {
            thread::park_timeout(period);
            if self.has_ended() || self.shared.pulse.turn() != turn {
                return Ok(());
            }
            one_poll &= self.shared.pulse.node() == node;
            looks += 1;
        }
        let Some(task) = self.shared.task(turn) else {
            return Ok(());
        };
        let mut blocked = Blocked {
            task,
            lasted: self.since(begin),
            one_poll,
            over: false,
        };
        self.tell(&blocked)?;
        while !self.has_ended() && self.shared.pulse.turn() == turn {
            // The end is reported at once if the run sees that the watchdog sleeps, and soon
            // otherwise.
            if self.shared.pulse.fall_asleep(turn) {
                thread::park_timeout(period);
            }
        }
        blocked.lasted = self.since(begin);
        blocked.over = true;
        self.tell(&blocked)
    }

    fn since(&self, begin: Time) -> Duration {
        self.clock.now().saturating_since(begin)
    }

    fn tell(&mut self, blocked: &Blocked) -> thread::Result<()> {
        let callback = &mut self.callback;
        catch_unwind(AssertUnwindSafe(|| callback(blocked)))
    }
}

impl Shared {
    /// What is polled, if `turn` is still going on.
    fn task(&self, turn: usize) -> Option<Option<Task>> {
        let nodes = lock(&self.nodes);
        // Under the lock: what is polled now has not been removed (rule 1).
        let task = nodes.get(&self.pulse.node()).cloned();
        (self.pulse.turn() == turn).then_some(task)
    }
}
