//! A loop that is blocked is reported while it is blocked (WD).
//!
//! The tests block for real, until the watchdog has noticed: no test passes by being slow.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use trio::instrument::{Blocked, Watchdog};
use trio::lowlevel::current_trio_token;
use trio::testing::MockClock;
use trio::{Backend, Builder, Error, HostCall, Result, Workers, checkpoint, open_nursery, sleep};

use crate::support::{builders, secs};

/// A watchdog that reports early, and the reports.
fn watchdog() -> (Watchdog, Receiver<Blocked>) {
    let (tell, told) = channel();
    let watchdog = Watchdog::new()
        .threshold(Duration::from_millis(10))
        .on_blocked(tell_to(tell));
    (watchdog, told)
}

fn tell_to(tell: Sender<Blocked>) -> impl FnMut(&Blocked) + Send {
    // The receiver may have seen enough.
    move |blocked| drop(tell.send(blocked.clone()))
}

/// The next report about the task called `name`; this blocks the loop until it comes. If the
/// machine is slow, something else may be reported before.
fn wait_for(told: &Receiver<Blocked>, name: &str, over: bool) -> Blocked {
    loop {
        let blocked = told.recv().unwrap();
        let task = blocked.task().map(|task| task.name());
        if task == Some(name) && blocked.is_over() == over {
            return blocked;
        }
    }
}

#[test]
fn wd1_a_task_that_blocks_is_named_while_it_does_and_when_it_is_over() {
    for (name, builder) in builders() {
        let (watchdog, told) = watchdog();
        let told = &told;
        let program = open_nursery(async |nursery| {
            nursery.start_soon(checkpoint());
            nursery.start_soon_named("stubborn", async move {
                // On a slow machine, what came before in the turn may be part of the report.
                let mut seen = None;
                for _ in 0..20 {
                    checkpoint().await?;
                    let blocked = wait_for(told, "stubborn", false);
                    assert!(blocked.lasted() >= Duration::from_millis(10));
                    if blocked.is_one_poll() {
                        seen = Some(blocked);
                        break;
                    }
                }
                let blocked = seen.expect("it blocks in one poll");
                let task = blocked.task().unwrap();
                assert!(task.place().file().ends_with("watchdog.rs") && !task.is_body());
                let text = blocked.to_string();
                assert!(text.contains("and still does not"), "{text}");
                assert!(
                    text.contains("the task stubborn (tests/it/watchdog.rs:"),
                    "{text}"
                );
                checkpoint().await?;
                let over = wait_for(told, "stubborn", true);
                assert!(over.lasted() >= blocked.lasted());
                assert!(
                    over.to_string().contains("the loop goes on after"),
                    "{over}"
                );
                Ok(())
            });
            Ok(())
        });
        let result = builder.watchdog(watchdog).run(program);
        assert!(result.is_ok(), "{name}: {result:?}");
    }
}

#[test]
fn wd1_the_body_of_a_nursery_is_named_after_its_task() {
    let (watchdog, told) = watchdog();
    let program = open_nursery(async |nursery| {
        nursery.start_soon(checkpoint());
        checkpoint().await?;
        let blocked = wait_for(&told, "main", false);
        assert!(blocked.task().unwrap().is_body());
        let text = blocked.to_string();
        assert!(
            text.contains("the task main was polled, in its nursery at tests/it/"),
            "{text}"
        );
        Ok(())
    });
    Builder::new().watchdog(watchdog).run(program).unwrap();
}

#[test]
fn wd1_after_a_child_it_is_the_task_around_that_blocks() {
    let (watchdog, told) = watchdog();
    let program = async {
        open_nursery(async |nursery| {
            nursery.start_soon_named("quick", checkpoint());
            Ok(())
        })
        .await?;
        let blocked = wait_for(&told, "main", false);
        assert!(!blocked.task().unwrap().is_body());
        Ok::<_, Error>(())
    };
    Builder::new().watchdog(watchdog).run(program).unwrap();
}

#[test]
fn wd1_what_blocks_outside_of_tasks_is_told_without_a_name() {
    let (watchdog, told) = watchdog();
    let (report, reported) = channel();
    let program = async {
        let block = move || {
            let unnamed = told.iter().find(|blocked| blocked.task().is_none());
            report.send(unnamed.unwrap().to_string()).unwrap();
        };
        current_trio_token().run_sync_soon(block)?;
        let text = loop {
            checkpoint().await?;
            if let Ok(text) = reported.try_recv() {
                break text;
            }
        };
        assert!(text.contains("no task but a call"), "{text}");
        Ok::<_, Error>(())
    };
    Builder::new().watchdog(watchdog).run(program).unwrap();
}

#[test]
fn wd1_many_tasks_in_one_turn_are_not_one_poll() {
    let (watchdog, told) = watchdog();
    let seen = Mutex::new(None);
    let program = open_nursery(async |nursery| {
        for _ in 0..1000 {
            nursery.start_soon_named("little", async {
                // Each takes less than the time between two looks.
                if seen.lock().unwrap().is_none() {
                    let blocked = told.recv_timeout(Duration::from_millis(1)).ok();
                    let last = |blocked: &Blocked| blocked.task().unwrap().name() == "little";
                    *seen.lock().unwrap() = blocked.filter(last);
                }
                Ok(())
            });
        }
        Ok(())
    });
    Builder::new().watchdog(watchdog).run(program).unwrap();
    let blocked = seen.into_inner().unwrap().unwrap();
    assert!(!blocked.is_one_poll(), "{blocked}");
    assert!(
        blocked
            .to_string()
            .contains("many tasks were polled in one turn"),
        "{blocked}"
    );
}

#[test]
fn wd2_a_run_that_waits_does_not_block() {
    for backend in [Backend::IoUring, Backend::Polling] {
        let (watchdog, told) = watchdog();
        let builder = Builder::new().backend(backend).watchdog(watchdog);
        let program = async {
            sleep(Duration::from_millis(300)).await?;
            // It is still watching, and none of its earlier reports counted the wait.
            let lasted = told.try_iter().map(|blocked| blocked.lasted()).max();
            assert!(lasted < Some(Duration::from_millis(250)), "{lasted:?}");
            wait_for(&told, "main", false);
            Ok::<_, Error>(())
        };
        builder.run(program).unwrap();
    }
}

#[test]
fn wd2_time_is_that_of_the_system() {
    let (watchdog, told) = watchdog();
    let clock = MockClock::autojump();
    let program = async {
        sleep(secs(3600)).await?;
        clock.jump(secs(3600));
        checkpoint().await?;
        let blocked = wait_for(&told, "main", false);
        assert!(blocked.lasted() < secs(3600));
        Ok::<_, Error>(())
    };
    let builder = Builder::new().clock(clock.clone()).watchdog(watchdog);
    builder.run(program).unwrap();
}

#[test]
fn wd3_a_guest_is_watched_and_its_host_is_not() {
    let (watchdog, told) = watchdog();
    let told = Arc::new(Mutex::new(told));
    let (send, calls) = channel::<HostCall>();
    let reports = told.clone();
    let program = async move {
        checkpoint().await?;
        wait_for(&reports.lock().unwrap(), "main", false);
        sleep(Duration::from_millis(1)).await?;
        Ok::<_, Error>(())
    };
    let host = move |call| drop(send.send(call));
    let (output, outcome) = channel();
    let done = move |outcome: std::thread::Result<Result<()>>| output.send(outcome).unwrap();
    let builder = Builder::new().watchdog(watchdog);
    let guest = builder.start_guest_run(program, host, done).unwrap();
    // The host does something else for a long time before each call.
    let busy = Duration::from_millis(100);
    let (_never, elsewhere) = channel::<()>();
    while !guest.is_finished() {
        let call = calls.recv().unwrap();
        assert!(elsewhere.recv_timeout(busy).is_err());
        call();
    }
    outcome.recv().unwrap().unwrap().unwrap();
    let told: Vec<Blocked> = told.lock().unwrap().try_iter().collect();
    let hosts = told
        .iter()
        .find(|blocked| blocked.task().is_none() && blocked.lasted() > busy / 2);
    assert!(hosts.is_none(), "{hosts:?}");
}

#[test]
fn wd3_each_worker_has_a_watchdog() {
    let (tell, told) = channel();
    let (tell, told) = (Mutex::new(tell), Mutex::new(told));
    let workers = Workers::new(2).builder(move |_| {
        let tell = tell.lock().unwrap().clone();
        let watchdog = Watchdog::new().threshold(Duration::from_millis(10));
        Builder::new().watchdog(watchdog.on_blocked(tell_to(tell)))
    });
    workers
        .run(async |worker| {
            checkpoint().await?;
            if worker.index() == 1 {
                let told = told.lock().unwrap();
                assert!(told.iter().any(|blocked| !blocked.is_over()));
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn wd4_a_callback_that_panics_ends_the_watchdog_and_not_the_run() {
    let (tell, told) = channel();
    let callback = move |blocked: &Blocked| {
        tell.send(blocked.is_over()).unwrap();
        panic!("the callback's own");
    };
    let watchdog = Watchdog::new().threshold(Duration::from_millis(1));
    let program = async {
        assert!(!told.recv().unwrap());
        // It has dropped the callback: nothing more is reported.
        assert!(told.recv().is_err());
        checkpoint().await?;
        Ok::<_, Error>(7)
    };
    let value = Builder::new()
        .watchdog(watchdog.on_blocked(callback))
        .run(program);
    assert_eq!(value.unwrap(), 7);
}

#[test]
fn wd5_the_thread_ends_with_the_run_however_that_ends() {
    fn watched(alive: &Arc<()>) -> Builder {
        let alive = alive.clone();
        let callback = move |_: &Blocked| assert_eq!(Arc::weak_count(&alive), 0);
        Builder::new().watchdog(Watchdog::new().on_blocked(callback))
    }
    let alive = Arc::new(());
    watched(&alive).run(async {
        assert_eq!(Arc::strong_count(&alive), 2);
    });
    assert_eq!(
        Arc::strong_count(&alive),
        1,
        "the thread has let go of its callback"
    );
    let panics = || watched(&alive).run(async { panic!("the program's own") });
    assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
    assert_eq!(Arc::strong_count(&alive), 1);
    drop(watched(&alive));
    assert_eq!(Arc::strong_count(&alive), 1);
    let main = async {};
    let guest = watched(&alive).start_guest_run(main, drop::<HostCall>, drop);
    drop(guest.unwrap());
    assert_eq!(Arc::strong_count(&alive), 1);
}

#[test]
#[should_panic(expected = "a watchdog cannot tell what is shorter than 1ms, and was given 0ns")]
fn wd6_a_threshold_that_no_thread_can_keep_is_refused() {
    drop(Watchdog::new().threshold(Duration::ZERO));
}
