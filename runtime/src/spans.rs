//! Reports to `tracing` what happens in a run: a span for each task, and events around it.
//!
//! An [`Instrument`] like any other: it has a cost while it is in a run, and none otherwise. The
//! span of a task is a child of the span that was current where the task was spawned, so it is
//! inside that of its parent task. It is entered while the task is polled, so that whatever the
//! task logs is logged in it. If the instrument is removed in the middle of a step, or dropped with
//! its run, it leaves the spans that it has entered.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use tracing::{Level, Span, event, span};

use crate::instrument::{Instrument, Task, TaskId};

/// Reports the tasks of a run to [`tracing`].
///
/// | target       | level | what                                                                     |
/// |--------------|-------|--------------------------------------------------------------------------|
/// | `trio::run`  | debug | events: the run begins and ends                                          |
/// | `trio::task` | info  | a span a task, named `task`, with the fields `name` and `place`           |
/// | `trio::task` | debug | events: it was spawned, it has ended                                     |
/// | `trio::task` | trace | an event: it has become ready                                            |
/// | `trio::io`   | trace | events: the loop asks the driver, and is answered; the field `timeout`    |
///
/// With or without this instrument, a run that [nothing can wake](crate::Deadlock), and a loop that
/// a [watchdog](crate::Watchdog) sees blocked, are reported to `tracing` as warnings of the target
/// `trio::run`, unless the program has set a handler of its own.
///
/// Needs the feature `tracing`.
///
/// # Examples
///
/// ```
/// # mod trio { pub use trio_runtime::*; pub mod instrument { pub use trio_runtime::*; } }
/// use trio::Builder;
/// use trio::instrument::Tracing;
///
/// // With a subscriber of your choice in place:
/// Builder::new().instrument(Tracing::new()).run(async {
///     tracing::info!("inside the span of the main task");
/// });
/// ```
#[derive(Default)]
pub struct Tracing {
    spans: HashMap<TaskId, Span>,
    /// The spans of the tasks that are being polled, each inside the one before.
    entered: Vec<Span>,
}

impl Tracing {
    /// An instrument that has seen nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The span of `task`; created now if the task is older than the instrument.
    fn span(&mut self, task: &Task) -> Span {
        let new = || {
            let (name, place) = (task.name(), task.place());
            span!(target: "trio::task", Level::INFO, "task", name, %place)
        };
        self.spans.entry(task.id()).or_insert_with(new).clone()
    }
}

fn enter(span: &Span) {
    span.with_subscriber(|(id, subscriber)| subscriber.enter(id));
}

fn exit(span: &Span) {
    span.with_subscriber(|(id, subscriber)| subscriber.exit(id));
}

impl Instrument for Tracing {
    fn before_run(&mut self) {
        event!(target: "trio::run", Level::DEBUG, "the run begins");
    }

    fn after_run(&mut self) {
        event!(target: "trio::run", Level::DEBUG, "the run has ended");
    }

    fn task_spawned(&mut self, task: &Task) {
        let span = self.span(task);
        event!(target: "trio::task", parent: &span, Level::DEBUG, "spawned");
    }

    fn task_scheduled(&mut self, task: &Task) {
        let span = self.span(task);
        event!(target: "trio::task", parent: &span, Level::TRACE, "ready");
    }

    fn before_task_step(&mut self, task: &Task) {
        // A body is polled while its task is, so its task's span is entered already.
        if !task.is_body() {
            let span = self.span(task);
            enter(&span);
            self.entered.push(span);
        }
    }

    fn after_task_step(&mut self, task: &Task) {
        if !task.is_body() {
            // There is none if the instrument was added in this very step.
            if let Some(span) = self.entered.pop() {
                exit(&span);
            }
        }
    }

    fn task_exited(&mut self, task: &Task) {
        if let Some(span) = self.spans.remove(&task.id()) {
            event!(target: "trio::task", parent: &span, Level::DEBUG, "ended");
        }
    }

    fn before_io_wait(&mut self, timeout: Duration) {
        event!(target: "trio::io", Level::TRACE, ?timeout, "waiting");
    }

    fn after_io_wait(&mut self, timeout: Duration) {
        event!(target: "trio::io", Level::TRACE, ?timeout, "waited");
    }
}

impl Drop for Tracing {
    fn drop(&mut self) {
        while let Some(span) = self.entered.pop() {
            exit(&span);
        }
    }
}

impl fmt::Debug for Tracing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracing")
            .field("tasks", &self.spans.len())
            .finish_non_exhaustive()
    }
}
