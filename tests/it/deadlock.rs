//! A run that nothing can wake reports it, and only such a run does (DK).

use std::cell::{Cell, RefCell};
use std::future::{Future, pending};
use std::io::Write;
use std::net::Ipv4Addr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;

use futures::channel::oneshot;
use rustix::process::{Signal as Raw, getpid, kill_process};
use trio::instrument::{Deadlock, Instrument};
use trio::io::ReceiveStream;
use trio::io::signal::{Signal, open_signal_receiver};
use trio::lowlevel::{RunVar, current_trio_token, task_tree};
use trio::net::open_tcp_listeners;
use trio::testing::{MockClock, memory_stream_pair, wait_all_tasks_blocked};
use trio::{
    Backend, Builder, CancelScope, CancelSource, Error, Event, HostCall, Lock, Result, cleanup,
    current_time, fail_after, move_on_after, open_memory_channel, open_nursery,
    open_thread_channel, sleep, sleep_forever, to_thread,
};

use crate::support::{builders, connection, foreign_thread, secs};

/// Runs a program that comes to a standstill; returns the report.
fn report<F: Future<Output = Result<()>>>(builder: Builder, program: F) -> String {
    let told = Rc::new(RefCell::new(Vec::new()));
    let tell = told.clone();
    let scope = CancelScope::new();
    let rescue = scope.clone();
    let builder = builder.on_deadlock(move |deadlock| {
        tell.borrow_mut().push(deadlock.to_string());
        rescue.cancel("a deadlock");
    });
    let ended = builder.run(scope.enter(program)).unwrap();
    assert_eq!(ended, None, "the handler may cancel");
    let told = told.take();
    assert_eq!(told.len(), 1, "told once: {told:?}");
    told.into_iter().next().unwrap()
}

/// Reports when the loop goes to sleep. By then the run has examined itself, if it ever does,
/// because under a clock that jumps it does so in a turn that does not wait.
struct Asleep(mpsc::Sender<()>);

impl Instrument for Asleep {
    fn before_io_wait(&mut self, timeout: Duration) {
        if !timeout.is_zero() {
            // The receiver may be gone after the first message.
            let _ = self.0.send(());
        }
    }
}

/// A run that examines itself at once, and a message when it sleeps.
fn watched(backend: Backend) -> (Builder, mpsc::Receiver<()>) {
    let (send, asleep) = mpsc::channel();
    let builder = Builder::new().backend(backend).clock(MockClock::autojump());
    (builder.instrument(Asleep(send)), asleep)
}

/// Runs a program that waits for something which happens when the loop sleeps, and not before; it
/// must not be reported.
fn check_silent(program: impl AsyncFn(mpsc::Receiver<()>) -> Result<()>) {
    for backend in [Backend::IoUring, Backend::Polling] {
        let (builder, asleep) = watched(backend);
        let builder = builder.on_deadlock(|deadlock| panic!("a false report: {deadlock}"));
        builder.run(program(asleep)).unwrap();
    }
}

/// The failure of a run that may not deadlock.
#[track_caller]
fn failure<T>(run: impl FnOnce() -> T) -> String {
    let Err(panic) = catch_unwind(AssertUnwindSafe(run)) else {
        panic!("the run must fail");
    };
    *panic.downcast().expect("a message")
}

/// The line of the report about the task called `name`.
#[track_caller]
fn line<'a>(report: &'a str, name: &str) -> &'a str {
    let found = report
        .lines()
        .find(|line| line.trim_start().starts_with(name));
    found.unwrap_or_else(|| panic!("nothing about {name} in\n{report}"))
}

#[test]
fn dk1_two_tasks_that_wait_for_each_other_are_reported_on_every_driver() {
    for (name, builder) in builders() {
        let (one, other) = (Event::new(), Event::new());
        let report = report(builder, async {
            open_nursery(async |nursery| {
                nursery.start_soon_named("left", async {
                    one.wait().await?;
                    other.set();
                    Ok(())
                });
                nursery.start_soon_named("right", async {
                    other.wait().await?;
                    one.set();
                    Ok(())
                });
                Ok(())
            })
            .await
        });
        assert!(
            report.starts_with("deadlock: every task of this run waits"),
            "{name}: {report}"
        );
        for task in ["left", "right"] {
            let line = line(&report, task);
            assert!(line.contains("tests/it/deadlock.rs"), "{name}: {line}");
            assert!(line.ends_with("waits in Event::wait"), "{name}: {line}");
        }
    }
}

#[test]
fn dk1_a_lock_whose_guard_sleeps_is_reported() {
    let lock = Lock::new(());
    let report = report(Builder::new(), async {
        open_nursery(async |nursery| {
            nursery.start_soon_named("keeper", async {
                let _guard = lock.acquire().await?;
                sleep_forever().await
            });
            nursery.start_soon_named("asker", async {
                let _guard = lock.acquire().await?;
                Ok(())
            });
            Ok(())
        })
        .await
    });
    assert!(
        line(&report, "keeper").ends_with("waits in sleep_forever"),
        "{report}"
    );
    assert!(
        line(&report, "asker").ends_with("waits in Lock::acquire"),
        "{report}"
    );
}

#[test]
fn dk1_a_channel_with_both_ends_in_one_task_is_reported() {
    let report = report(Builder::new(), async {
        let (_send, receive) = open_memory_channel::<()>(0);
        receive.receive().await?;
        Ok(())
    });
    assert!(report.contains("receive"), "{report}");
}

#[test]
fn dk1_a_task_whose_waker_nobody_kept_is_reported() {
    let run = || Builder::new().fail_on_deadlock().run(pending::<()>());
    let report = failure(run);
    assert!(
        line(&report, "main").contains("tests/it/deadlock.rs"),
        "{report}"
    );
}

#[test]
fn dk1_streams_in_memory_are_reported() {
    let report = report(Builder::new(), async {
        let (mut ours, _theirs) = memory_stream_pair();
        ours.receive().await?;
        Ok(())
    });
    assert!(report.contains("waits in"), "{report}");
}

#[test]
fn dk1_what_came_before_makes_no_difference() {
    // A thread, a token, a connection, a deadline and a waker elsewhere: all of these are gone.
    for backend in [Backend::IoUring, Backend::Polling] {
        let report = report(Builder::new().backend(backend), async {
            to_thread::run_sync(|| ()).await?;
            drop(current_trio_token());
            let (client, server) = connection().await?;
            open_nursery(async |nursery| {
                nursery.start_soon(async {
                    client.send_all(b"x").await?;
                    Ok(())
                });
                server.receive().await?;
                Ok(())
            })
            .await?;
            drop((client, server));
            move_on_after(Duration::from_millis(1), sleep_forever()).await?;
            let (send, receive) = oneshot::channel();
            let thread = foreign_thread(move || send.send(()));
            receive.await?;
            drop(thread.join());
            Event::new().wait().await
        });
        assert!(
            line(&report, "main").ends_with("waits in Event::wait"),
            "{report}"
        );
    }
}

#[test]
fn dk1_a_thread_that_lets_go_in_silence_is_noticed() {
    for backend in [Backend::IoUring, Backend::Polling] {
        let (builder, asleep) = watched(backend);
        let report = report(builder, async {
            let token = current_trio_token();
            let thread = foreign_thread(move || {
                asleep.recv().unwrap();
                drop(token);
            });
            Event::new().wait().await?;
            drop(thread);
            Ok(())
        });
        assert!(
            line(&report, "main").ends_with("waits in Event::wait"),
            "{report}"
        );
    }
}

#[test]
fn dk2_a_function_on_a_thread_is_waited_for() {
    check_silent(async |asleep| {
        to_thread::run_sync(move || asleep.recv().unwrap()).await?;
        Ok(())
    });
}

#[test]
fn dk2_a_token_on_a_thread_can_wake() {
    static EVENT: RunVar<Rc<Event>> = RunVar::new("event");
    check_silent(async |asleep| {
        let event = Rc::new(Event::new());
        EVENT.set(event.clone());
        let token = current_trio_token();
        let thread = foreign_thread(move || {
            asleep.recv().unwrap();
            token.run_sync_soon(|| EVENT.with(|event| event.unwrap().set()))
        });
        event.wait().await?;
        thread.join().unwrap().map_err(Error::from)
    });
}

#[test]
fn dk2_a_waker_on_a_thread_can_wake() {
    check_silent(async |asleep| {
        let (send, receive) = oneshot::channel();
        let thread = foreign_thread(move || {
            asleep.recv().unwrap();
            send.send(())
        });
        receive.await?;
        assert_eq!(thread.join().unwrap(), Ok(()));
        Ok(())
    });
}

#[test]
fn dk2_a_channel_to_a_thread_can_wake() {
    check_silent(async |asleep| {
        let (send, receive) = open_thread_channel(1);
        let thread = foreign_thread(move || {
            asleep.recv().unwrap();
            send.try_send(7).is_ok()
        });
        assert_eq!(receive.receive().await?, 7);
        assert!(thread.join().unwrap());
        Ok(())
    });
}

#[test]
fn dk2_a_listener_waits_for_the_world() {
    check_silent(async |asleep| {
        let listeners = open_tcp_listeners((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listeners[0].local_address()?;
        let client = foreign_thread(move || {
            asleep.recv().unwrap();
            std::net::TcpStream::connect(address).unwrap()
        });
        let stream = listeners[0].accept().await?;
        let mut client = client.join().unwrap();
        // The same for a connection that is silent on both sides for a while.
        let answer = foreign_thread(move || client.write_all(b"x").map(|()| client));
        assert_eq!(stream.receive().await?.as_deref(), Some(&b"x"[..]));
        drop(answer.join());
        stream.aclose().await?;
        Ok(())
    });
}

#[test]
fn dk2_a_signal_can_end_a_wait() {
    check_silent(async |asleep| {
        let mut signals = open_signal_receiver(&[Signal::USER_1])?;
        let sender = foreign_thread(move || {
            asleep.recv().unwrap();
            kill_process(getpid(), Raw::USR1)
        });
        assert_eq!(signals.next().await?, Signal::USER_1);
        sender.join().unwrap().map_err(std::io::Error::from)?;
        Ok(())
    });
}

#[test]
fn dk2_the_host_of_a_guest_may_do_anything() {
    for backend in [Backend::IoUring, Backend::Polling] {
        let (send, calls) = mpsc::channel::<HostCall>();
        let event = Rc::new(Event::new());
        let waited = event.clone();
        let (output, outcome) = mpsc::channel();
        let (builder, _asleep) = watched(backend);
        let guest = builder
            .on_deadlock(|deadlock| panic!("a false report: {deadlock}"))
            .start_guest_run(
                async move { waited.wait().await },
                move |call| drop(send.send(call)),
                move |outcome| output.send(outcome).unwrap(),
            )
            .unwrap();
        while !guest.is_finished() {
            match calls.recv_timeout(Duration::from_millis(100)) {
                Ok(call) => call(),
                // Now it waits, and for nobody but this.
                Err(_) => event.set(),
            }
        }
        assert!(outcome.recv().unwrap().is_ok_and(|result| result.is_ok()));
    }
}

#[test]
fn dk2_a_deadline_ends_a_wait_by_itself() {
    for (_, builder) in builders() {
        let builder = builder.on_deadlock(|deadlock| panic!("a false report: {deadlock}"));
        let program = async {
            // Longer than a run waits before it examines itself.
            let patience = Duration::from_millis(120);
            assert_eq!(move_on_after(patience, Event::new().wait()).await?, None);
            sleep(patience).await
        };
        builder.run(program).unwrap();
    }
}

#[test]
fn dk3_a_clock_that_stands_comes_to_no_deadline() {
    let clock = MockClock::new();
    let report = report(Builder::new().clock(clock), sleep(secs(5)));
    assert!(report.contains("`MockClock::autojump`"), "{report}");
    // With a clock that somebody moves in time it is no deadlock.
    let clock = MockClock::new();
    let mover = clock.clone();
    let moved = Cell::new(false);
    let builder = Builder::new().clock(clock).on_deadlock(move |_| {
        mover.jump(secs(5));
    });
    let program = async {
        sleep(secs(5)).await?;
        moved.set(true);
        Ok::<_, Error>(())
    };
    builder.run(program).unwrap();
    assert!(moved.get(), "a handler may move the clock too");
}

#[test]
fn dk4_who_only_sleeps_does_it_on_purpose() {
    fn check(program: impl Future<Output = Result<()>>, expected: bool) {
        let seen = Rc::new(Cell::new(None));
        let see = seen.clone();
        let builder = Builder::new().on_deadlock(move |deadlock: &Deadlock| {
            see.set(Some(deadlock.is_on_purpose()));
            panic!("seen: {deadlock}");
        });
        failure(|| builder.run(program).unwrap());
        assert_eq!(seen.get(), Some(expected));
    }
    check(sleep_forever(), true);
    let nested = open_nursery(async |nursery| {
        nursery.start_soon(sleep_forever());
        nursery.start_soon(sleep_forever());
        Ok(())
    });
    check(nested, true);
    let event = Event::new();
    let mixed = open_nursery(async |nursery| {
        nursery.start_soon(sleep_forever());
        event.wait().await
    });
    check(mixed, false);
    check(pending(), false);
}

#[test]
fn dk5_a_handler_that_panics_fails_the_run_in_an_orderly_way() {
    for (name, builder) in builders() {
        let cleaned = Cell::new(false);
        let program = async {
            let result = Event::new().wait().await;
            let error = result.expect_err("it is cancelled");
            let cancelled = error.as_cancelled().expect("a cancellation");
            assert_eq!(cancelled.source(), CancelSource::Nursery);
            assert_eq!(
                cancelled.reason(),
                Some("nothing could wake the run any more")
            );
            cleanup(secs(5), sleep(Duration::from_millis(1))).await?;
            cleaned.set(true);
            Err::<(), _>(error)
        };
        let text = failure(|| builder.fail_on_deadlock().run(program));
        assert!(text.starts_with("deadlock: every task"), "{name}: {text}");
        assert!(text.contains("waits in Event::wait"), "{name}: {text}");
        assert!(cleaned.get(), "{name}: tasks clean up");
    }
}

#[test]
fn dk5_if_cancelling_is_of_no_avail_tasks_are_dropped() {
    struct Dropped<'a>(&'a Cell<bool>);
    impl Drop for Dropped<'_> {
        fn drop(&mut self) {
            self.0.set(true);
        }
    }
    for (name, builder) in builders() {
        let dropped = Cell::new(false);
        let program = async {
            let _mark = Dropped(&dropped);
            let scope = CancelScope::new();
            scope.set_shield(true);
            scope.enter(Event::new().wait()).await
        };
        let text = failure(|| builder.fail_on_deadlock().run(program));
        assert!(text.starts_with("deadlock: every task"), "{name}: {text}");
        assert!(dropped.get(), "{name}");
    }
}

#[trio::test]
#[should_panic(expected = "deadlock: every task of this run waits")]
async fn dk6_a_test_that_nothing_can_wake_fails() {
    Event::new().wait().await.unwrap();
}

#[trio::test(clock = "autojump", backend = "all", seeds = 2)]
#[should_panic(expected = "deadlock: every task of this run waits")]
async fn dk6_a_test_that_nothing_can_wake_fails_on_every_driver_and_under_every_seed() {
    sleep(secs(1)).await.unwrap();
    Event::new().wait().await.unwrap();
}

#[test]
fn rn9_a_tree_shows_deadlines_inside_of_tasks_and_what_is_cancelled() {
    Builder::new()
        .clock(MockClock::autojump())
        .run(async {
            let scope = CancelScope::new();
            open_nursery(async |nursery| {
                nursery.start_soon_named("timed", async {
                    fail_after(secs(5), sleep_forever()).await
                });
                nursery.start_soon_named("shielded", async {
                    let shield = CancelScope::new();
                    shield.set_shield(true);
                    scope.enter(shield.enter(sleep(secs(1)))).await?;
                    Ok(())
                });
                wait_all_tasks_blocked(secs(0)).await?;
                scope.cancel("test");
                let tree = task_tree();
                let text = tree.to_string();
                assert!(
                    line(&text, "timed")
                        .ends_with("waits in sleep_forever for another 5.0s at most"),
                    "{text}"
                );
                assert!(
                    line(&text, "shielded").ends_with("waits in sleep"),
                    "{text}"
                );
                let task =
                    |name: &str| tree.children.iter().find(|task| task.name == name).unwrap();
                assert_eq!(task("timed").deadline, Some(current_time() + secs(5)));
                assert!(!task("shielded").cancelled, "a shield is between");
                nursery.cancel_scope().cancel("done");
                let tree = task_tree();
                let timed = tree
                    .children
                    .iter()
                    .find(|task| task.name == "timed")
                    .unwrap();
                assert!(timed.cancelled && timed.deadline.is_none(), "{tree}");
                Ok(())
            })
            .await
        })
        .unwrap();
}
