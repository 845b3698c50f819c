//! Who watches a run: instruments, the watchdog, and tests that count checkpoints.
//!
//! Nothing is looked at here unless somebody watches; a flag says so.

use super::Run;
use crate::cancel::Here;
use crate::instrument::{Event, Task};
use crate::task::NodeRef;
use crate::testing::Seen;

impl Run {
    /// Counts what the current task does from here on, until `end_counting`.
    pub(crate) fn begin_counting(&self) {
        let task = self.current_task();
        self.counting.borrow_mut().push((task, Seen::default()));
        // As if a scope were cancelled, so that checkpoints take the slow path, which passes
        // `count`.
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
    pub(super) fn count(&self, seen: Seen) {
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

    #[inline]
    pub(super) fn instrument(&self, event: &Event<'_>) {
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

    /// An observer has been added or removed: the flag is up to date before the next event.
    pub(crate) fn instruments_changed(&self) {
        let instrumented = !self.instruments.is_empty();
        self.observed.set(instrumented || self.watchdog.is_some());
        if self.instrumented.replace(instrumented) != instrumented {
            for nursery in self.nurseries() {
                nursery.update_watched();
            }
        }
    }

    /// Reported at once, unless something of the run is borrowed: then by the code that borrowed
    /// it.
    #[cold]
    pub(crate) fn instrument_scheduled(&self, node: &NodeRef) {
        self.instruments.scheduled(Task::of(node));
        if self.tree.try_borrow_mut().is_ok() && self.driver.try_borrow_mut().is_ok() {
            self.tell_scheduled();
        }
    }

    #[cold]
    pub(super) fn tell_scheduled(&self) {
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

    /// Reports a node as if from there.
    fn tell_from(&self, node: &NodeRef, here: Here, event: fn(&Task) -> Event<'_>) {
        let task = Task::of(node);
        let around = self.position.replace(here);
        let told = self
            .current
            .during(node, || self.tell_instruments(&event(&task)));
        self.position.replace(around);
        told.expect("the panic of an instrument is caught where it is called");
    }
}
