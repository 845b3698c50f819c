//! Observers of a run, which are notified of every task, step and wait, and cost nothing while
//! there are none.
//!
//! An [`Instrument`] is added to a run before it begins ([`Builder::instrument`](crate::Builder)) or
//! while it runs ([`add_instrument`]). Use one to count, to trace, or to find out what blocks the
//! loop.
//!
//! 1. Hooks are called in order, at once or as soon as the change that an event is part of is
//!    complete. So a hook may call anything that a task may call and that is not asynchronous.
//! 2. What a hook does itself is not reported to any instrument, so no hook can call itself.
//! 3. A hook that panics is reported on standard error, and its instrument is removed and never
//!    called again; the others and the run go on.
//! 4. While there is no instrument each event costs one branch.
//!
//! # Examples
//!
//! ```
//! # mod trio { pub use trio_runtime::*; pub mod instrument { pub use trio_runtime::*; } }
//! use std::cell::Cell;
//! use std::rc::Rc;
//! use trio::instrument::{Instrument, Task};
//! use trio::{Builder, checkpoint};
//!
//! struct Steps(Rc<Cell<u32>>);
//!
//! impl Instrument for Steps {
//!     fn before_task_step(&mut self, _: &Task) {
//!         self.0.set(self.0.get() + 1);
//!     }
//! }
//!
//! let steps = Rc::new(Cell::new(0));
//! Builder::new().instrument(Steps(steps.clone())).run(async { checkpoint().await }).unwrap();
//! assert_eq!(steps.get(), 2, "up to the checkpoint, and from there");
//! ```

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::time::Duration;

use crate::context;
use crate::error::{Result, Usage};
use crate::task::NodeRef;

/// An observer. Every method does nothing unless it is overridden.
///
/// The methods about a task's steps and its end are called as if from that task; those about the
/// run and about waiting, from no task. If one panics, that is reported on standard error and the
/// instrument is removed; the run goes on.
pub trait Instrument {
    /// The run begins.
    fn before_run(&mut self) {}
    /// The run has ended; nothing is in flight.
    fn after_run(&mut self) {}
    /// A task has been spawned.
    fn task_spawned(&mut self, task: &Task) {
        let _ = task;
    }
    /// A task, or the body of a nursery, has become ready.
    fn task_scheduled(&mut self, task: &Task) {
        let _ = task;
    }
    /// A task, or the body of a nursery, is about to be polled.
    fn before_task_step(&mut self, task: &Task) {
        let _ = task;
    }
    /// A task, or the body of a nursery, has been polled.
    fn after_task_step(&mut self, task: &Task) {
        let _ = task;
    }
    /// A task has ended.
    fn task_exited(&mut self, task: &Task) {
        let _ = task;
    }
    /// The loop is about to ask the driver for completions, and to wait for them for at most
    /// `timeout`.
    fn before_io_wait(&mut self, timeout: Duration) {
        let _ = timeout;
    }
    /// The driver has returned.
    fn after_io_wait(&mut self, timeout: Duration) {
        let _ = timeout;
    }
}

/// A task, as an observer sees it and as [`current_task`](crate::lowlevel::current_task) returns
/// it.
#[derive(Clone)]
pub struct Task {
    id: TaskId,
    name: Cow<'static, str>,
    place: &'static Location<'static>,
    body: bool,
}

impl Task {
    pub(crate) fn of(node: &NodeRef) -> Self {
        let mut named = node.clone();
        while named.is_body() {
            match named.home().and_then(|home| home.task().cloned()) {
                Some(task) => named = task,
                None => break,
            }
        }
        Self {
            id: TaskId::of(&named),
            name: named.name(),
            place: node.place(),
            body: node.is_body(),
        }
    }

    /// The number of the task. The body of a nursery has that of the task that opened it.
    pub fn id(&self) -> TaskId {
        self.id
    }

    /// The name of the task.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the task was spawned; for a body, where its nursery was opened.
    pub fn place(&self) -> &'static Location<'static> {
        self.place
    }

    /// Whether this is the body of a nursery, which is a part of the task that opened it.
    pub fn is_body(&self) -> bool {
        self.body
    }
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Task({} from {})", self.name, self.place)
    }
}

/// Distinguishes the tasks that are alive. The number of a task that has ended is used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(usize);

impl TaskId {
    pub(crate) fn of(task: &NodeRef) -> Self {
        Self(task.address())
    }
}

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TaskId({:#x})", self.0)
    }
}

/// Names an instrument that was added while the run runs, for
/// [`remove_instrument`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InstrumentKey {
    run: u64,
    number: u64,
}

/// Adds an observer to this run, from the next event on.
///
/// # Panics
///
/// Outside of a run.
///
/// # Examples
///
/// ```
/// # mod trio { pub use trio_runtime::*; pub mod instrument { pub use trio_runtime::*; } }
/// # trio::run(async {
/// use trio::lowlevel::{add_instrument, remove_instrument};
///
/// struct Nothing;
/// impl trio::instrument::Instrument for Nothing {}
///
/// let key = add_instrument(Nothing);
/// remove_instrument(key)?;
/// assert!(remove_instrument(key).is_err(), "it is not there any more");
/// # Ok::<(), trio::Error>(()) }).unwrap();
/// ```
#[track_caller]
pub fn add_instrument<I: Instrument + 'static>(instrument: I) -> InstrumentKey {
    context::with(|run| {
        let number = run.instruments.add(instrument);
        run.instruments_changed();
        InstrumentKey {
            run: run.id,
            number,
        }
    })
}

/// Removes an observer from this run; none of its methods is called any more.
///
/// # Errors
///
/// [`Usage`] if it is not there: it has been removed already, by this function or because it
/// panicked, or it belongs to another run.
///
/// # Panics
///
/// Outside of a run.
#[track_caller]
pub fn remove_instrument(key: InstrumentKey) -> Result<()> {
    context::with(|run| {
        if key.run != run.id || !run.instruments.remove(key.number) {
            let text = "there is no such instrument in this run: it was removed, or has panicked";
            return Err(Usage::new(text).into());
        }
        run.instruments_changed();
        Ok(())
    })
}

/// The observers of one run.
#[derive(Default)]
pub(crate) struct Instruments {
    /// Empty while they are being notified.
    entries: RefCell<Vec<Entry>>,
    /// The numbers of those to notify, available even while the entries are elsewhere.
    numbers: RefCell<Vec<u64>>,
    /// What has become ready since the last event that was reported.
    scheduled: RefCell<Vec<Task>>,
    telling: Cell<bool>,
    added: Cell<u64>,
}

struct Entry {
    number: u64,
    name: &'static str,
    instrument: Box<dyn Instrument>,
}

impl Instruments {
    pub(crate) fn add<I: Instrument + 'static>(&self, instrument: I) -> u64 {
        let number = self.added.get();
        self.added.set(number + 1);
        self.numbers.borrow_mut().push(number);
        self.entries.borrow_mut().push(Entry {
            number,
            name: std::any::type_name::<I>(),
            instrument: Box::new(instrument),
        });
        number
    }

    /// Removes an observer; returns whether it was there.
    fn remove(&self, number: u64) -> bool {
        let before = self.numbers.borrow().len();
        self.numbers.borrow_mut().retain(|known| *known != number);
        self.sweep();
        self.numbers.borrow().len() < before
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.numbers.borrow().is_empty()
    }

    /// Notes that a task has become ready. May be called whatever is borrowed.
    pub(crate) fn scheduled(&self, task: Task) {
        if !self.telling.get() {
            self.scheduled.borrow_mut().push(task);
        }
    }

    /// Reports the tasks that have become ready, and then `event`. Nothing of the run may be
    /// borrowed.
    pub(crate) fn tell(&self, event: &Event<'_>) {
        self.tell_scheduled();
        if self.telling.replace(true) {
            return;
        }
        self.tell_one(event);
        self.telling.set(false);
        self.sweep();
    }

    /// Reports the tasks that have become ready.
    pub(crate) fn tell_scheduled(&self) {
        if self.scheduled.borrow().is_empty() || self.telling.replace(true) {
            return;
        }
        for task in self.scheduled.take() {
            self.tell_one(&Event::Scheduled(&task));
        }
        self.telling.set(false);
        self.sweep();
    }

    fn tell_one(&self, event: &Event<'_>) {
        let mut entries = self.entries.take();
        for entry in &mut entries {
            if !self.numbers.borrow().contains(&entry.number) {
                continue;
            }
            let instrument = entry.instrument.as_mut();
            if catch_unwind(AssertUnwindSafe(|| event.tell(instrument))).is_err() {
                let name = entry.name;
                eprintln!("trio: the instrument {name} panicked and has been removed");
                let gone = entry.number;
                self.numbers.borrow_mut().retain(|known| *known != gone);
            }
        }
        // Those that have been added meanwhile come last.
        entries.append(&mut self.entries.borrow_mut());
        self.entries.replace(entries);
    }

    /// Drops the instruments that have been removed.
    fn sweep(&self) {
        let numbers = self.numbers.borrow();
        let entries = self.entries.take().into_iter();
        let (kept, gone): (Vec<Entry>, Vec<Entry>) =
            entries.partition(|entry| numbers.contains(&entry.number));
        drop(numbers);
        self.entries.borrow_mut().extend(kept);
        for entry in gone {
            // Its destructor is user code as well.
            if catch_unwind(AssertUnwindSafe(|| drop(entry))).is_err() {
                eprintln!("trio: an instrument panicked while it was dropped");
            }
        }
    }

    /// Drops them all, at the end of the run.
    pub(crate) fn clear(&self) {
        self.numbers.borrow_mut().clear();
        self.scheduled.borrow_mut().clear();
        self.sweep();
    }
}

/// An event, as reported to an instrument.
pub(crate) enum Event<'a> {
    BeforeRun,
    AfterRun,
    Spawned(&'a Task),
    Scheduled(&'a Task),
    BeforeStep(&'a Task),
    AfterStep(&'a Task),
    Exited(&'a Task),
    BeforeIo(Duration),
    AfterIo(Duration),
}

impl Event<'_> {
    fn tell(&self, instrument: &mut dyn Instrument) {
        match *self {
            Self::BeforeRun => instrument.before_run(),
            Self::AfterRun => instrument.after_run(),
            Self::Spawned(task) => instrument.task_spawned(task),
            Self::Scheduled(task) => instrument.task_scheduled(task),
            Self::BeforeStep(task) => instrument.before_task_step(task),
            Self::AfterStep(task) => instrument.after_task_step(task),
            Self::Exited(task) => instrument.task_exited(task),
            Self::BeforeIo(timeout) => instrument.before_io_wait(timeout),
            Self::AfterIo(timeout) => instrument.after_io_wait(timeout),
        }
    }
}
