//! Observers of a run: what is reported to them, in which order, and what they may do (IN).

use std::cell::{Cell, RefCell};
use std::panic::catch_unwind;
use std::rc::Rc;
use std::time::Duration;

use futures::FutureExt;
use trio::instrument::{Instrument, InstrumentKey, Task, add_instrument, remove_instrument};
use trio::lowlevel::{current_task, in_run, in_task, task_tree};
use trio::{
    Builder, CancelScope, Result, Usage, checkpoint, current_effective_deadline, current_time,
    open_nursery, sleep, sleep_forever,
};

use crate::support::{failure, secs};

type Log = Rc<RefCell<Vec<String>>>;

/// Records every event.
#[derive(Clone, Default)]
struct Noting {
    log: Log,
    /// Whether to record steps of bodies as well.
    bodies: bool,
}

impl Noting {
    fn note(&self, what: &str, task: &Task) {
        if self.bodies || !task.is_body() {
            self.log
                .borrow_mut()
                .push(format!("{what} {}", task.name()));
        }
    }

    fn note_run(&self, what: &str) {
        self.log.borrow_mut().push(what.to_owned());
    }
}

impl Instrument for Noting {
    fn before_run(&mut self) {
        self.note_run("run");
    }

    fn after_run(&mut self) {
        self.note_run("end");
    }

    fn task_spawned(&mut self, task: &Task) {
        self.note("spawned", task);
    }

    fn task_scheduled(&mut self, task: &Task) {
        self.note("scheduled", task);
    }

    fn before_task_step(&mut self, task: &Task) {
        self.note("before", task);
    }

    fn after_task_step(&mut self, task: &Task) {
        self.note("after", task);
    }

    fn task_exited(&mut self, task: &Task) {
        self.note("exited", task);
    }

    fn before_io_wait(&mut self, _: Duration) {
        self.note_run("io {");
    }

    fn after_io_wait(&mut self, _: Duration) {
        self.note_run("} io");
    }
}

/// The log without what the loop does on its own.
fn of_tasks(log: &Log) -> Vec<String> {
    let log = log.take();
    log.into_iter()
        .filter(|line| line.contains(' ') && !line.contains("io"))
        .collect()
}

#[test]
fn in1_the_events_of_a_task_come_in_their_order() {
    let noting = Noting::default();
    let log = noting.log.clone();
    let result = Builder::new().instrument(noting).run(async {
        checkpoint().await?;
        checkpoint().await
    });
    assert!(result.is_ok());
    let all = log.borrow().clone();
    assert_eq!(all.first().map(String::as_str), Some("run"));
    assert_eq!(all.last().map(String::as_str), Some("end"));
    assert_eq!(
        of_tasks(&log),
        [
            "spawned main",
            "scheduled main",
            "before main",
            // A checkpoint makes its task ready before the step ends.
            "scheduled main",
            "after main",
            "before main",
            "scheduled main",
            "after main",
            "before main",
            "after main",
            "exited main",
        ]
    );
    let waits = |word: &str| all.iter().filter(|line| *line == word).count();
    assert_eq!(waits("io {"), waits("} io"));
    assert!(waits("io {") > 0, "the loop has looked at the driver");
}

#[test]
fn in1_the_steps_of_two_tasks_lie_side_by_side() {
    let noting = Noting::default();
    let log = noting.log.clone();
    let result = Builder::new().instrument(noting).run(async {
        open_nursery(async |nursery| {
            nursery.start_soon_named("one", checkpoint());
            nursery.start_soon_named("two", checkpoint());
            Ok(())
        })
        .await
    });
    assert!(result.is_ok());
    let log = of_tasks(&log);
    let of = |task: &str| {
        let own = log.iter().filter(|line| line.ends_with(task));
        own.map(|line| line.split(' ').next().unwrap_or_default())
            .collect::<Vec<_>>()
    };
    let life = [
        "spawned",
        "scheduled",
        "before",
        "scheduled",
        "after",
        "before",
        "after",
        "exited",
    ];
    assert_eq!(of("one"), life);
    assert_eq!(of("two"), life);
    let at = |line: &str| log.iter().position(|other| other == line).unwrap();
    assert!(at("before main") < at("before one"), "inside their parent");
    assert!(at("after one") < at("before two"), "one after the other");
    assert!(at("exited one") < at("exited main"));
}

#[test]
fn in1_a_nursery_is_told_of_as_the_body_of_the_task_that_opened_it() {
    /// A body, and the task whose step came before.
    type Steps = Rc<RefCell<Vec<(Task, Option<Task>)>>>;
    #[derive(Default)]
    struct Bodies(Steps, Option<Task>);
    impl Instrument for Bodies {
        fn before_task_step(&mut self, task: &Task) {
            if task.is_body() {
                self.0.borrow_mut().push((task.clone(), self.1.clone()));
            } else {
                self.1 = Some(task.clone());
            }
        }
    }
    let seen = Bodies::default();
    let bodies = seen.0.clone();
    let result = Builder::new()
        .instrument(seen)
        .run(async { open_nursery(async |_| checkpoint().await).await });
    assert!(result.is_ok());
    let bodies = bodies.take();
    assert_eq!(bodies.len(), 2, "two steps of one body");
    for (body, around) in bodies {
        let main = around.expect("a body is polled inside its task");
        assert_eq!(body.name(), "main");
        assert_eq!(body.id(), main.id());
        assert_ne!(body.place(), main.place());
        assert!(format!("{body:?}").starts_with("Task(main from "));
    }
}

#[test]
fn in1_a_task_that_is_dropped_with_its_nursery_has_ended() {
    let noting = Noting::default();
    let log = noting.log.clone();
    Builder::new().instrument(noting).run(async {
        let dropped = open_nursery(async |nursery| {
            nursery.start_soon_named("dropped", sleep_forever());
            nursery.start_soon_named("never polled", sleep_forever());
            sleep_forever().await
        });
        assert!(dropped.now_or_never().is_none());
    });
    let log = log.take();
    for line in ["exited dropped", "exited never polled", "exited main"] {
        assert_eq!(
            log.iter().filter(|other| *other == line).count(),
            1,
            "{line}"
        );
    }
}

#[test]
fn in2_hooks_are_called_as_if_from_the_task_that_they_tell_of() {
    #[derive(Default)]
    struct Where(Rc<RefCell<Vec<(&'static str, bool)>>>);
    impl Where {
        fn look(&self, hook: &'static str) {
            assert!(in_run(), "every hook is inside the run");
            assert!(current_time() > trio::Time::PAST);
            self.0.borrow_mut().push((hook, in_task()));
        }
    }
    impl Instrument for Where {
        fn before_run(&mut self) {
            self.look("before_run");
        }
        fn after_run(&mut self) {
            self.look("after_run");
        }
        fn before_task_step(&mut self, task: &Task) {
            self.look("before_task_step");
            assert_eq!(current_task().id(), task.id());
            assert_eq!(current_effective_deadline(), trio::Time::NEVER, "its own");
        }
        fn after_task_step(&mut self, task: &Task) {
            self.look("after_task_step");
            assert_eq!(current_task().id(), task.id());
        }
        fn task_exited(&mut self, task: &Task) {
            self.look("task_exited");
            assert_eq!(current_task().id(), task.id());
        }
        fn before_io_wait(&mut self, _: Duration) {
            self.look("before_io_wait");
        }
        fn after_io_wait(&mut self, _: Duration) {
            self.look("after_io_wait");
        }
    }
    let seen = Where::default();
    let log = seen.0.clone();
    let result = Builder::new()
        .instrument(seen)
        .run(async { sleep(Duration::from_micros(1)).await });
    assert!(result.is_ok());
    let log = log.take();
    for (hook, in_task) in &log {
        assert_eq!(*in_task, hook.contains("task"), "{hook}");
    }
    for hook in ["before_run", "after_io_wait", "task_exited", "after_run"] {
        assert!(log.iter().any(|(seen, _)| *seen == hook), "{hook}");
    }
}

/// Panics in a hook of the caller's choice, and counts the calls.
struct Crashing {
    hook: &'static str,
    calls: Rc<Cell<u32>>,
    after: Rc<Cell<u32>>,
}

impl Crashing {
    fn called(&self, hook: &str) {
        self.calls.set(self.calls.get() + 1);
        if self.after.get() > 0 {
            self.after.set(self.after.get() + 1);
        }
        if hook == self.hook {
            self.after.set(1);
            panic!("by design, in {hook}");
        }
    }
}

impl Instrument for Crashing {
    fn before_run(&mut self) {
        self.called("before_run");
    }
    fn task_spawned(&mut self, _: &Task) {
        self.called("task_spawned");
    }
    fn task_scheduled(&mut self, _: &Task) {
        self.called("task_scheduled");
    }
    fn before_task_step(&mut self, _: &Task) {
        self.called("before_task_step");
    }
    fn after_task_step(&mut self, _: &Task) {
        self.called("after_task_step");
    }
    fn task_exited(&mut self, _: &Task) {
        self.called("task_exited");
    }
    fn before_io_wait(&mut self, _: Duration) {
        self.called("before_io_wait");
    }
    fn after_run(&mut self) {
        self.called("after_run");
    }
}

#[test]
fn in3_one_that_panics_is_removed_and_the_run_goes_on() {
    let hooks = [
        "before_run",
        "task_spawned",
        "task_scheduled",
        "before_task_step",
        "after_task_step",
        "before_io_wait",
        "task_exited",
        "after_run",
    ];
    for hook in hooks {
        let (calls, after) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let crashing = Crashing {
            hook,
            calls: calls.clone(),
            after: after.clone(),
        };
        let noting = Noting::default();
        let log = noting.log.clone();
        let builder = Builder::new().instrument(crashing).instrument(noting);
        let value = builder.run(async {
            sleep(Duration::from_micros(1)).await?;
            open_nursery(async |nursery| {
                nursery.start_soon_named("child", checkpoint());
                Ok(())
            })
            .await?;
            Ok::<_, trio::Error>(7)
        });
        assert_eq!(value.ok(), Some(7), "{hook}");
        assert_eq!(
            after.get(),
            1,
            "{hook}: it panicked and was never called again"
        );
        assert!(calls.get() >= 1);
        let log = log.take();
        assert_eq!(log.first().map(String::as_str), Some("run"), "{hook}");
        assert_eq!(log.last().map(String::as_str), Some("end"), "{hook}");
        assert!(log.contains(&"exited child".to_owned()), "{hook}");
        assert_eq!(Rc::strong_count(&calls), 1, "{hook}: it has been dropped");
    }
}

#[trio::test]
async fn in4_instruments_come_and_go_while_the_run_runs() -> Result<()> {
    let noting = Noting::default();
    let log = noting.log.clone();
    checkpoint().await?;
    let scope = CancelScope::new();
    open_nursery(async |nursery| {
        let stop = scope.clone();
        nursery.start_soon_named("before it came", async move {
            stop.enter(sleep_forever()).await?;
            Ok(())
        });
        checkpoint().await?;
        let first = add_instrument(noting.clone());
        scope.cancel("");
        checkpoint().await?;
        remove_instrument(first)?;
        assert!(
            log.borrow()
                .contains(&"scheduled before it came".to_owned()),
            "a nursery that was open by then is told of as well"
        );
        log.take();
        nursery.start_soon_named("unseen", checkpoint());
        checkpoint().await?;
        assert_eq!(log.take(), Vec::<String>::new());
        let again: Result<()> = remove_instrument(first);
        assert!(again.is_err_and(|error| error.is::<Usage>()), "it is gone");
        Ok(())
    })
    .await?;
    let (one, two) = (Noting::default(), Noting::default());
    let (one_log, two_log) = (one.log.clone(), two.log.clone());
    let keys = [add_instrument(one), add_instrument(two)];
    assert_ne!(keys[0], keys[1]);
    checkpoint().await?;
    remove_instrument(keys[0])?;
    checkpoint().await?;
    remove_instrument(keys[1])?;
    let (one, two) = (one_log.take(), two_log.take());
    assert!(
        two.starts_with(&one),
        "while both were there both saw the same"
    );
    assert!(two.len() > one.len());
    Ok(())
}

#[test]
fn in4_a_key_is_good_in_its_own_run_only() {
    let key: InstrumentKey = trio::run(async { add_instrument(Noting::default()) });
    trio::run(async {
        let _other = add_instrument(Noting::default());
        let error = remove_instrument(key).expect_err("another run");
        assert!(error.to_string().contains("no such instrument in this run"));
    });
    assert!(catch_unwind(|| add_instrument(Noting::default())).is_err());
}

#[test]
fn in5_a_hook_may_change_the_run_and_is_not_told_of_what_it_does() {
    /// Cancels a scope, adds another, and removes itself, from inside its hooks.
    struct Meddling {
        scope: CancelScope,
        own: Rc<Cell<Option<InstrumentKey>>>,
        other: Option<Noting>,
        calls: Rc<Cell<u32>>,
    }
    impl Instrument for Meddling {
        fn task_scheduled(&mut self, _: &Task) {
            drop(task_tree());
            assert!(current_effective_deadline() > trio::Time::PAST);
        }
        fn before_task_step(&mut self, task: &Task) {
            self.calls.set(self.calls.get() + 1);
            if task.name() != "trigger" {
                return;
            }
            self.scope.cancel("by an instrument");
            if let Some(other) = self.other.take() {
                add_instrument(other);
            }
            if let Some(own) = self.own.take() {
                remove_instrument(own).expect("it is there");
            }
        }
    }
    let noting = Noting::default();
    let log = noting.log.clone();
    let calls = Rc::new(Cell::new(0));
    let result: Result<()> = trio::run(async {
        let scope = CancelScope::new();
        let own = Rc::new(Cell::new(None));
        let meddling = Meddling {
            scope: scope.clone(),
            own: own.clone(),
            other: Some(noting),
            calls: calls.clone(),
        };
        own.set(Some(add_instrument(meddling)));
        open_nursery(async |nursery| {
            nursery.start_soon_named("trigger", async {
                let before = calls.get();
                checkpoint().await?;
                checkpoint().await?;
                assert_eq!(calls.get(), before, "it has removed itself");
                Ok(())
            });
            let ended = scope.enter(sleep_forever()).await?;
            assert_eq!(ended, None);
            Ok(())
        })
        .await
    });
    assert!(result.is_ok(), "{result:?}");
    assert_eq!(Rc::strong_count(&calls), 1, "it has been dropped");
    assert!(log.take().contains(&"exited trigger".to_owned()));
}

#[test]
fn in5_hooks_run_where_the_state_of_the_run_may_be_looked_at() {
    /// Inspects everything whenever a task becomes ready, which happens in the middle of changes.
    struct Looking(Rc<Cell<u32>>);
    impl Instrument for Looking {
        fn task_scheduled(&mut self, _: &Task) {
            let deadline = current_effective_deadline();
            let statistics = trio::lowlevel::driver_statistics();
            assert!(!format!("{deadline:?} {statistics:?}").is_empty());
            drop(task_tree());
            self.0.set(self.0.get() + 1);
        }
    }
    let looks = Rc::new(Cell::new(0));
    let result = Builder::new().run(async {
        let key = add_instrument(Looking(looks.clone()));
        let result = open_nursery(async |nursery| {
            nursery.start_soon(sleep_forever());
            nursery.start_soon(async {
                trio::move_on_after(Duration::from_micros(1), sleep(secs(9))).await?;
                sleep(Duration::from_micros(1)).await?;
                nursery.spawn(checkpoint()).join().await?;
                let (here, there) = crate::support::connection().await?;
                there.send_all(b"x").await?;
                here.receive().await?;
                crate::support::oops("enough")
            });
            Ok(())
        })
        .await;
        assert_eq!(failure(result), "[enough]");
        // It would be gone if it had panicked.
        remove_instrument(key)
    });
    assert!(result.is_ok(), "{result:?}");
    assert!(looks.get() > 5, "{looks:?}");
}

#[test]
fn in6_hooks_that_are_not_written_do_nothing() {
    struct Nothing;
    impl Instrument for Nothing {}
    let value = Builder::new().instrument(Nothing).run(async {
        checkpoint().await.expect("nobody cancels");
        7
    });
    assert_eq!(value, 7);
}
