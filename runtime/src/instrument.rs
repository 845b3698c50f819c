//! Observers of a run: told of every task, step and wait, at no cost while there are none.

use std::fmt;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::time::Duration;

use crate::task::NodeRef;

/// An observer. Every method does nothing unless it is overridden.
///
/// Called synchronously, from the loop or from the code that spawns or wakes. One that panics is
/// reported on standard error and removed; the run goes on.
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
    /// It has been polled.
    fn after_task_step(&mut self, task: &Task) {
        let _ = task;
    }
    /// A task has ended.
    fn task_exited(&mut self, task: &Task) {
        let _ = task;
    }
    /// The loop is about to ask the driver, waiting for at most `timeout`.
    fn before_io_wait(&mut self, timeout: Duration) {
        let _ = timeout;
    }
    /// The driver has answered.
    fn after_io_wait(&mut self, timeout: Duration) {
        let _ = timeout;
    }
}

/// A task as an observer sees it.
#[derive(Clone)]
pub struct Task {
    name: String,
    place: &'static Location<'static>,
    body: bool,
}

impl Task {
    pub(crate) fn of(node: &NodeRef) -> Self {
        let mut named = node.clone();
        while named.is_body() {
            match named.home().and_then(|home| home.task()) {
                Some(task) => named = task,
                None => break,
            }
        }
        Self {
            name: named.name().into_owned(),
            place: node.place(),
            body: node.is_body(),
        }
    }

    /// The name of the task.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the task was spawned; of a body, where its nursery was opened.
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

/// The observers of one run.
#[derive(Default)]
pub(crate) struct Instruments(Vec<Box<dyn Instrument>>);

impl Instruments {
    pub(crate) fn add(&mut self, instrument: Box<dyn Instrument>) {
        self.0.push(instrument);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn each(&mut self, call: impl Fn(&mut dyn Instrument)) {
        self.0.retain_mut(|instrument| {
            let kept = catch_unwind(AssertUnwindSafe(|| call(instrument.as_mut()))).is_ok();
            if !kept {
                eprintln!("trio: an instrument panicked and has been removed");
            }
            kept
        });
    }
}
