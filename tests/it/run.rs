//! A run from outside: what goes in, what comes out, and what is refused (RN, G6).

use std::cell::{Cell, RefCell};
use std::net::Ipv4Addr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use trio::lowlevel::{
    current_root_task, current_task, current_trio_token, driver_statistics, in_run, in_task,
    task_tree,
};
use trio::net::open_tcp_listeners;
use trio::testing::{Errno, MockClock, Simulation, wait_all_tasks_blocked};
use trio::{
    Backend, Builder, CancelScope, Error, Result, Time, backend, checkpoint, current_time,
    move_on_after, open_nursery, sleep, sleep_forever,
};

use crate::support::{builders, oops, secs, shape};

#[test]
fn rn1_a_run_returns_what_its_main_function_returns() {
    for (name, builder) in builders() {
        assert_eq!(builder.run(async { 7 }), 7, "{name}");
    }
    let value = trio::run(async {
        checkpoint().await?;
        Ok::<_, Error>("after a checkpoint")
    });
    assert_eq!(value.ok(), Some("after a checkpoint"));
    let word = "borrowed".to_owned();
    assert_eq!(trio::run(async { word.as_str() }), "borrowed");
}

#[test]
fn g6_the_error_of_the_main_function_leaves_the_run_as_it_is() {
    let result: Result<()> = trio::run(async { oops("plain") });
    assert_eq!(
        result.map_err(|error| shape(&error)),
        Err("plain".to_owned())
    );
    let result: std::result::Result<(), u32> = trio::run(async { Err(7) });
    assert_eq!(result, Err(7), "whatever its type");
}

#[trio::test]
async fn rn2_a_run_inside_a_run_is_refused() {
    let error = Builder::new()
        .try_run(async {})
        .expect_err("this thread is in a run");
    assert_eq!(
        error.to_string(),
        "`run` was called from inside a run: await the future instead, or use a thread"
    );
    let panicked = catch_unwind(|| trio::run(async {}));
    let panic = panicked.expect_err("`run` has no other way to say so");
    let text = panic.downcast_ref::<String>().expect("a text");
    assert!(text.starts_with("the run cannot begin: `run` was called from inside a run"));
    checkpoint()
        .await
        .expect("the run around is none the worse");
    std::thread::scope(|scope| {
        let other = scope.spawn(|| trio::run(async { 7 }));
        assert_eq!(other.join().ok(), Some(7), "on another thread it may");
    });
}

#[test]
fn rn3_outside_of_a_run_the_library_says_so() {
    #[track_caller]
    fn check(call: impl FnOnce()) {
        let panic = catch_unwind(AssertUnwindSafe(call)).expect_err("there is no run");
        let text = panic.downcast_ref::<&str>().expect("a text");
        assert!(text.starts_with("this works only inside a run"), "{text}");
    }
    check(|| assert!(current_time() > Time::PAST));
    check(|| drop(task_tree()));
    check(|| drop(current_task()));
    check(|| drop(backend()));
    check(|| drop(futures::executor::block_on(checkpoint())));
    check(|| drop(futures::executor::block_on(sleep(secs(1)))));
    check(|| drop(futures::executor::block_on(open_nursery(async |_| Ok(())))));
    check(|| {
        drop(futures::executor::block_on(move_on_after(
            secs(1),
            checkpoint(),
        )))
    });
}

#[test]
fn rn3_the_panic_names_the_place_of_the_call() {
    thread_local! {
        /// Where this thread last panicked.
        static PLACE: Cell<Option<(String, u32)>> = const { Cell::new(None) };
    }
    fn place_of(call: impl FnOnce()) -> (String, u32) {
        catch_unwind(AssertUnwindSafe(call)).expect_err("there is no run");
        PLACE.take().expect("the hook has seen it")
    }
    // The hook belongs to the process: it leaves panics of other threads to the previous hook.
    let before = std::panic::take_hook();
    let here = std::thread::current().id();
    std::panic::set_hook(Box::new(move |info| match info.location() {
        Some(place) if std::thread::current().id() == here => {
            PLACE.set(Some((place.file().to_owned(), place.line())));
        }
        _ => before(info),
    }));
    let of_time = place_of(|| assert!(current_time() > Time::PAST));
    let of_backend = place_of(|| drop(backend()));
    let of_workers = place_of(|| drop(trio::run_workers(0, async |_| Ok(()))));
    let of_semaphore = place_of(|| drop(trio::sync::Semaphore::with_max_value(2, 1)));
    let last = line!() - 1;
    assert_eq!(of_time, (file!().to_owned(), last - 3));
    assert_eq!(of_backend, (file!().to_owned(), last - 2));
    assert_eq!(of_workers, (file!().to_owned(), last - 1));
    assert_eq!(of_semaphore, (file!().to_owned(), last));
}

#[test]
fn rn4_code_can_ask_where_it_is() {
    assert!(!in_run() && !in_task());
    trio::run(async {
        assert!(in_run() && in_task());
        std::thread::scope(|threads| {
            let elsewhere = threads.spawn(|| in_run() || in_task()).join();
            assert!(!elsewhere.expect("it does not panic"));
        });
    });
    assert!(!in_run() && !in_task());
    for (name, builder) in builders() {
        let info = builder.run(async { backend() });
        assert_eq!(info.fallback(), None, "it was asked for");
        assert_eq!(info.to_string(), name);
    }
    let forced = Builder::new().backend(Backend::Polling);
    assert_eq!(forced.run(async { backend().backend() }), Backend::Polling);
    let world = Builder::new().simulation(Simulation::new(0));
    assert_eq!(
        world.run(async { backend().backend() }),
        Backend::Simulation
    );
}

#[trio::test]
async fn rn4_a_task_knows_itself_and_is_found_in_the_tree() -> Result<()> {
    let main = current_task();
    assert_eq!((main.name(), main.is_body()), ("main", false));
    let known = RefCell::new(vec![main.id()]);
    open_nursery(async |nursery| {
        let body = current_task();
        assert_eq!(body.id(), main.id(), "a body is a part of its task");
        assert!(!body.is_body() && body.place() == main.place());
        for name in ["one", "two"] {
            let known = &known;
            nursery.start_soon_named(name, async move {
                let own = current_task();
                assert_eq!(own.name(), name);
                known.borrow_mut().push(own.id());
                sleep_forever().await
            });
        }
        wait_all_tasks_blocked(secs(0)).await?;
        let root = current_root_task();
        let names: Vec<&str> = root.walk().map(|task| task.name.as_str()).collect();
        assert_eq!(names, ["run", "main", "one", "two"]);
        assert_eq!(root.id, None, "it is no task");
        let found: Vec<_> = task_tree().walk().filter_map(|task| task.id).collect();
        assert_eq!(found, *known.borrow());
        assert!(found[0] != found[1] && found[0] != found[2] && found[1] != found[2]);
        nursery.cancel_scope().cancel("seen");
        Ok(())
    })
    .await
}

#[test]
fn rn4_code_that_is_in_no_task_cannot_be_told_in_which() {
    trio::run(async {
        let (tell, told) = std::sync::mpsc::channel();
        let call = move || {
            let asked = catch_unwind(current_task);
            let panic = asked.expect_err("it is the run that calls this");
            let text = panic.downcast_ref::<&str>().copied().unwrap_or_default();
            tell.send(text.to_owned()).unwrap();
        };
        current_trio_token().run_sync_soon(call).unwrap();
        checkpoint().await.unwrap();
        let text = told.try_recv().expect("it has been called");
        assert!(text.starts_with("this works only in a task"), "{text}");
    });
}

#[test]
fn rn5_a_run_leaves_nothing_behind() {
    let kept = Rc::new(());
    for (name, builder) in builders() {
        let inside = kept.clone();
        builder.run(async move {
            let result = open_nursery(async |nursery| {
                let scope = CancelScope::new();
                for _ in 0..3 {
                    let (scope, inside) = (scope.clone(), inside.clone());
                    nursery.start_soon(async move {
                        // A handle inside its own scope must not keep either alive.
                        let own = scope.clone();
                        let _ = move_on_after(secs(100), async {
                            let _holds = (own, inside);
                            sleep_forever().await
                        })
                        .await?;
                        Ok(())
                    });
                }
                let own = scope.clone();
                let inside = inside.clone();
                nursery.start_soon(async move {
                    let within = own.clone();
                    own.enter(async move {
                        let _holds = (within, inside);
                        sleep_forever().await
                    })
                    .await?;
                    Ok(())
                });
                checkpoint().await?;
                checkpoint().await?;
                oops::<()>("and by an error")
            })
            .await;
            assert_eq!(
                shape(&result.expect_err("the body fails")),
                "[and by an error]"
            );
        });
        assert_eq!(Rc::strong_count(&kept), 1, "on {name}");
    }
}

#[test]
fn rn6_a_task_is_named_after_its_future_or_as_it_is_told() {
    async fn child(names: &RefCell<Vec<String>>) -> Result<()> {
        let tree = task_tree();
        names.borrow_mut().push(tree.children[0].name.clone());
        checkpoint().await
    }
    let names = RefCell::new(Vec::new());
    let result = trio::run(async {
        open_nursery(async |nursery| {
            nursery.start_soon(child(&names));
            Ok(())
        })
        .await?;
        open_nursery(async |nursery| {
            nursery.start_soon_named("a name of its own", child(&names));
            Ok(())
        })
        .await
    });
    assert!(result.is_ok(), "{result:?}");
    let names = names.take();
    assert!(names[0].ends_with("::child"), "{names:?}");
    assert_eq!(names[1], "a name of its own");
}

#[test]
fn rn7_the_clock_and_the_statistics_are_those_of_the_run() {
    let clock = MockClock::new();
    Builder::new().clock(clock.clone()).run(async {
        let start = current_time();
        clock.jump(secs(1));
        assert_eq!(current_time() - start, secs(1));
        let before = driver_statistics();
        checkpoint().await.expect("nobody cancels");
        let after = driver_statistics();
        assert_eq!(
            after.submitted, before.submitted,
            "a checkpoint submits nothing"
        );
    });
}

#[test]
fn rn8_the_run_ends_with_its_main_task_and_so_does_what_it_forgot() {
    let polls = Cell::new(0);
    let value = trio::run(async {
        let mut forgotten = Box::pin(open_nursery(async |nursery| {
            nursery.start_soon(async {
                loop {
                    polls.set(polls.get() + 1);
                    checkpoint().await?;
                }
            });
            sleep_forever().await
        }));
        futures::future::poll_immediate(&mut forgotten).await;
        #[expect(clippy::mem_forget, reason = "that is the subject")]
        std::mem::forget(forgotten);
        "ended"
    });
    assert_eq!(value, "ended");
}

#[test]
fn rn10_a_driver_that_cannot_go_on_is_a_panic_that_says_why() {
    /// Records when it is dropped.
    struct Noted<'a>(&'a Cell<u32>);
    impl Drop for Noted<'_> {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
        }
    }
    let dropped = Cell::new(0);
    let world = Simulation::new(1);
    let run = || {
        let builder = Builder::new().simulation(world.clone());
        builder.run(async {
            let listeners = open_tcp_listeners((Ipv4Addr::LOCALHOST, 0)).await?;
            let body = Noted(&dropped);
            open_nursery(async |nursery| {
                nursery.start_soon(async {
                    let _child = Noted(&dropped);
                    listeners[0].accept().await?;
                    Ok(())
                });
                checkpoint().await?;
                world.break_drivers(Errno::TooManyFilesInSystem);
                sleep(secs(1)).await
            })
            .await?;
            drop(body);
            Ok::<_, Error>(())
        })
    };
    let panic = catch_unwind(AssertUnwindSafe(run)).expect_err("there is nobody else to tell");
    let text = panic.downcast_ref::<String>().expect("a text");
    let says = "the simulation driver cannot go on: ";
    assert!(text.starts_with(says), "{text}");
    assert_eq!(dropped.get(), 2, "the tasks are dropped");
    assert_eq!(world.open_sockets(), 0, "and what they had is closed");
    assert_eq!(
        trio::run(async { 7 }),
        7,
        "the thread is free for another run"
    );
}
