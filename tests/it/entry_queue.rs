//! What other threads leave in the inbox of a run, and system tasks (Q, ST).

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Poll, Waker};

use trio::lowlevel::{
    RunVar, TrioToken, current_root_task, current_trio_token, in_run, in_task, spawn_system_task,
    spawn_system_task_named,
};
use trio::testing::{MockClock, wait_all_tasks_blocked};
use trio::{
    Builder, CancelScope, CancelSource, Error, Result, RunFinished, checkpoint, current_time,
    open_nursery, sleep, sleep_forever,
};

use crate::support::{builders, foreign_thread, oops, secs};

/// What calls have done in this run.
static LOG: RunVar<Rc<RefCell<Vec<u32>>>> = RunVar::with_default("log", Rc::default);

/// The task that waits for the next call.
static WAITING: RunVar<Waker> = RunVar::new("waiting");

fn log(entry: u32) {
    LOG.with(|log| log.unwrap().borrow_mut().push(entry));
    WAITING.with(|waker| waker.map_or((), Waker::wake_by_ref));
}

fn logged() -> Vec<u32> {
    LOG.with(|log| log.unwrap().borrow().clone())
}

/// The text of a panic.
fn text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .expect("a text")
}

#[test]
fn q1_tokens_of_one_run_are_equal_and_of_two_are_not() {
    let token = || trio::run(async { (current_trio_token(), current_trio_token()) });
    let (one, same) = token();
    let (other, _) = token();
    assert_eq!(one, same);
    assert_ne!(one, other);
    assert_eq!(format!("{one:?}"), "TrioToken(finished)");
    trio::run(async {
        let token = current_trio_token();
        assert_eq!(format!("{token:?}"), "TrioToken(running)");
    });
}

#[trio::test(backend = "all")]
async fn q1_a_function_is_called_soon_and_not_at_once() -> Result<()> {
    let token = current_trio_token();
    token.run_sync_soon(|| {
        assert!(in_run() && !in_task(), "it is called by the run itself");
        log(1);
    })?;
    assert_eq!(logged(), []);
    assert_eq!(token.statistics().queued, 1);
    wait_all_tasks_blocked(secs(0)).await?;
    assert_eq!(logged(), [1]);
    assert_eq!(token.statistics().queued, 0);
    Ok(())
}

#[test]
fn q1_after_the_run_nothing_is_taken() {
    let token = trio::run(async { current_trio_token() });
    assert_eq!(token.run_sync_soon(|| ()), Err(RunFinished::new()));
    let idempotent = token.run_sync_soon_idempotent(1, || ());
    assert_eq!(idempotent, Err(RunFinished::new()));
    assert!(token.is_finished());
    let dropped = Arc::new(());
    let held = dropped.clone();
    let refused = token.run_sync_soon(move || drop(held));
    assert!(refused.is_err());
    assert_eq!(Arc::strong_count(&dropped), 1, "what is refused is dropped");
}

#[test]
fn q1_what_was_accepted_is_called_though_the_main_task_has_ended_or_failed() {
    let called = Arc::new(AtomicUsize::new(0));
    let count = |token: &TrioToken| {
        let called = called.clone();
        token.run_sync_soon(move || {
            called.fetch_add(1, Ordering::Relaxed);
        })
    };
    for (name, builder) in builders() {
        let result: Result<()> = builder.run(async {
            count(&current_trio_token())?;
            oops("main")
        });
        assert!(result.is_err(), "{name}");
    }
    assert_eq!(called.load(Ordering::Relaxed), 3);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        trio::run(async {
            count(&current_trio_token()).unwrap();
            panic!("main");
        });
    }));
    assert!(panicked.is_err());
    assert_eq!(called.load(Ordering::Relaxed), 4);
}

#[trio::test(backend = "all")]
async fn q2_calls_are_made_in_the_order_in_which_they_were_asked_for() -> Result<()> {
    let token = current_trio_token();
    for n in 0..1000 {
        token.run_sync_soon(move || log(n))?;
    }
    while logged().len() < 1000 {
        checkpoint().await?;
    }
    assert_eq!(logged(), (0..1000).collect::<Vec<_>>());
    Ok(())
}

#[trio::test(backend = "all")]
async fn q2_the_same_function_with_the_same_key_is_called_once() -> Result<()> {
    fn ask(token: &TrioToken, entry: u32) -> Result<(), RunFinished> {
        // One place in the source, and so one function, whatever it captures.
        token.run_sync_soon_idempotent(u64::from(entry), move || log(entry))
    }
    let token = current_trio_token();
    token.run_sync_soon(|| log(0))?;
    for entry in [1, 2, 1, 2, 1] {
        ask(&token, entry)?;
    }
    // Another function with the same key, and one without a key.
    token.run_sync_soon_idempotent(1, || log(3))?;
    token.run_sync_soon(|| log(4))?;
    token.run_sync_soon(|| log(4))?;
    wait_all_tasks_blocked(secs(0)).await?;
    assert_eq!(logged(), [0, 1, 2, 3, 4, 4]);
    ask(&token, 1)?;
    wait_all_tasks_blocked(secs(0)).await?;
    assert_eq!(logged(), [0, 1, 2, 3, 4, 4, 1], "it was pending no more");
    Ok(())
}

#[trio::test(backend = "all")]
async fn q2_a_call_that_asks_for_itself_is_made_again_later() -> Result<()> {
    fn ask(token: TrioToken, left: u32) -> Result<(), RunFinished> {
        let again = token.clone();
        token.run_sync_soon_idempotent(0, move || {
            log(left);
            if left > 0 {
                ask(again, left - 1).expect("the run is running");
            }
        })
    }
    ask(current_trio_token(), 2)?;
    while logged().len() < 3 {
        checkpoint().await?;
    }
    assert_eq!(logged(), [2, 1, 0]);
    Ok(())
}

#[test]
fn q3_a_call_that_panics_fails_the_run_and_the_others_are_made() {
    let called = Arc::new(AtomicUsize::new(0));
    let seen = Cell::new(false);
    let run = || {
        trio::run(async {
            let token = current_trio_token();
            token.run_sync_soon(|| panic!("in a call"))?;
            let called = called.clone();
            token.run_sync_soon(move || {
                called.fetch_add(1, Ordering::Relaxed);
            })?;
            let error = sleep_forever().await.expect_err("the run is cancelled");
            let cancelled = error.as_cancelled().expect("a cancellation");
            let reason = cancelled.reason().expect("a reason");
            assert_eq!(reason, "a function given to `run_sync_soon` panicked");
            seen.set(true);
            Ok::<(), Error>(())
        })
    };
    let panic = catch_unwind(AssertUnwindSafe(run)).expect_err("the run has failed");
    assert_eq!(text(&*panic), "in a call");
    assert!(
        seen.get(),
        "the main task was cancelled, and could clean up"
    );
    assert_eq!(called.load(Ordering::Relaxed), 1);
}

#[test]
fn q3_a_call_that_panics_when_the_main_task_has_ended_fails_the_run_too() {
    let called = Arc::new(AtomicUsize::new(0));
    let run = || {
        trio::run(async {
            let token = current_trio_token();
            token.run_sync_soon(|| panic!("late")).unwrap();
            let called = called.clone();
            let last = move || {
                called.fetch_add(1, Ordering::Relaxed);
            };
            token.run_sync_soon(last).unwrap();
        })
    };
    let panic = catch_unwind(AssertUnwindSafe(run)).expect_err("the run has failed");
    assert_eq!(text(&*panic), "late");
    assert_eq!(called.load(Ordering::Relaxed), 1);
    trio::run(async {}); // The thread can be used for another run.
}

#[trio::test(backend = "all")]
async fn q4_a_run_that_sleeps_is_woken_by_every_call() -> Result<()> {
    let token = current_trio_token();
    let (send, receive) = mpsc::channel();
    let asker = foreign_thread(move || {
        for n in 0..200 {
            let send = send.clone();
            // Both in one call: the test stops the loop to join this thread when all is logged.
            let told = token.run_sync_soon(move || {
                log(n);
                send.send(()).expect("the test waits");
            });
            told.expect("the run waits");
            // Each is requested when the one before has been made: so the run has gone to sleep, or
            // is about to.
            receive.recv().expect("the run answers");
        }
    });
    while logged().len() < 200 {
        wait_for_news().await;
    }
    asker.join().expect("it does not panic");
    assert_eq!(logged(), (0..200).collect::<Vec<_>>());
    Ok(())
}

/// Sleeps until a call has been made.
async fn wait_for_news() {
    let before = logged().len();
    poll_fn(|context| {
        if logged().len() > before {
            return Poll::Ready(());
        }
        drop(WAITING.set(context.waker().clone()));
        Poll::Pending
    })
    .await;
}

#[trio::test(backend = "all")]
async fn q4_calls_from_many_threads_all_arrive() -> Result<()> {
    let token = current_trio_token();
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let token = token.clone();
            foreign_thread(move || {
                for n in 0..500 {
                    let call = move || log(thread * 1000 + n);
                    token.run_sync_soon(call).expect("the run waits");
                }
            })
        })
        .collect();
    while logged().len() < 2000 {
        checkpoint().await?;
    }
    for thread in threads {
        thread.join().expect("it does not panic");
    }
    let all = logged();
    for thread in 0..4 {
        let own = all.iter().filter(|entry| **entry / 1000 == thread);
        let own: Vec<u32> = own.map(|entry| entry % 1000).collect();
        assert_eq!(own, (0..500).collect::<Vec<_>>(), "in order");
    }
    Ok(())
}

#[test]
fn q4_a_call_that_asks_for_itself_for_ever_starves_no_task() {
    let left = Arc::new(Mutex::new(None));
    fn again(token: TrioToken, left: Arc<Mutex<Option<Result<(), RunFinished>>>>) {
        log(0);
        let next = (token.clone(), left.clone());
        let asked = token.run_sync_soon(move || again(next.0, next.1));
        *left.lock().unwrap() = Some(asked);
    }
    let end = left.clone();
    trio::run(async move {
        let token = current_trio_token();
        let first = token.clone();
        token.run_sync_soon(move || again(first, end))?;
        for _ in 0..100 {
            checkpoint().await?;
        }
        let calls = logged().len();
        assert!((50..=101).contains(&calls), "one a turn, and not {calls}");
        Ok::<(), Error>(())
    })
    .unwrap();
    let last = left.lock().unwrap().take();
    assert_eq!(last, Some(Err(RunFinished::new())), "so it came to an end");
}

#[trio::test]
async fn f5_calls_and_tasks_take_turns() -> Result<()> {
    let token = current_trio_token();
    for n in 0..3 {
        let again = token.clone();
        token.run_sync_soon(move || {
            log(n);
            again.run_sync_soon(move || log(10 + n)).unwrap();
        })?;
    }
    log(100);
    checkpoint().await?;
    log(101);
    checkpoint().await?;
    log(102);
    assert_eq!(logged(), [100, 0, 1, 2, 101, 10, 11, 12, 102]);
    Ok(())
}

#[test]
fn q4_a_call_is_no_quiet_time() {
    // The clock jumps when nothing has happened for a while; a call counts as something.
    let clock = MockClock::autojump();
    clock.set_autojump_threshold(Some(secs(3600)));
    Builder::new().clock(clock).run(async {
        let token = current_trio_token();
        let before = current_time();
        open_nursery(async |nursery| {
            nursery.start_soon(async {
                sleep(secs(1)).await?;
                Ok(())
            });
            foreign_thread(move || {
                let (called, wait) = mpsc::channel();
                // This one makes no task ready.
                token.run_sync_soon(move || called.send(()).expect("it waits"))?;
                wait.recv().expect("the run is running");
                token.run_sync_soon(|| log(1))
            });
            wait_for_news().await;
            nursery.cancel_scope().cancel("seen");
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(current_time(), before);
    });
}

#[trio::test(backend = "all")]
async fn st1_a_system_task_lives_beside_the_main_task() -> Result<()> {
    let ran = Rc::new(Cell::new(false));
    let seen = ran.clone();
    spawn_system_task(async move {
        checkpoint().await?;
        seen.set(true);
        Ok(())
    })?;
    wait_all_tasks_blocked(secs(0)).await?;
    assert!(ran.get());
    Ok(())
}

#[test]
fn st1_system_tasks_are_cancelled_and_waited_for_when_the_main_task_has_ended() {
    for (name, builder) in builders() {
        let cleaned = Rc::new(Cell::new(None));
        let seen = cleaned.clone();
        builder
            .run(async move {
                spawn_system_task(async move {
                    let error = sleep_forever().await.expect_err("the run ends");
                    let source = error.as_cancelled().map(trio::Cancelled::source);
                    let cleanup = CancelScope::new().shielded();
                    cleanup
                        .enter(sleep(std::time::Duration::from_millis(1)))
                        .await?;
                    seen.set(source);
                    Err(error)
                })?;
                checkpoint().await
            })
            .unwrap();
        assert_eq!(cleaned.get(), Some(CancelSource::Shutdown), "{name}");
    }
}

#[test]
fn st2_a_system_task_that_fails_cancels_the_main_task_and_fails_the_run() {
    let cleaned = Cell::new(false);
    let run = || {
        trio::run(async {
            spawn_system_task_named("janitor", async { oops("slipped") })?;
            let error = sleep_forever().await.expect_err("the run is cancelled");
            let cancelled = error.as_cancelled().expect("a cancellation");
            let reason = cancelled.reason().expect("a reason");
            assert_eq!(reason, "child task janitor raised slipped");
            cleaned.set(true);
            Ok::<(), Error>(())
        })
    };
    let panic = catch_unwind(AssertUnwindSafe(run)).expect_err("the run has failed");
    assert_eq!(text(&*panic), "a system task failed: slipped");
    assert!(cleaned.get());
}

#[test]
fn st2_a_group_keeps_its_shape_without_its_cancellations() {
    let run = || {
        trio::run(async {
            spawn_system_task(async {
                open_nursery(async |nursery| {
                    nursery.start_soon(async { oops("one") });
                    nursery.start_soon(sleep_forever());
                    Ok(())
                })
                .await
            })?;
            spawn_system_task(sleep_forever())?;
            sleep_forever().await
        })
    };
    let panic = catch_unwind(AssertUnwindSafe(|| drop::<Result<()>>(run())));
    let panic = panic.expect_err("the run has failed");
    // Around the nursery of the task is that of all system tasks, and the cancellations are gone.
    assert_eq!(
        text(&*panic),
        "a system task failed: errors in system tasks (1 error)\n\
         └─ errors in a nursery (1 error)\n   \
         └─ one"
    );
}

#[test]
fn st2_the_panic_of_a_system_task_goes_on_from_the_run() {
    let run = || {
        trio::run(async {
            spawn_system_task(async { panic!("in a system task") })?;
            sleep_forever().await
        })
    };
    let panic = catch_unwind(AssertUnwindSafe(|| drop::<Result<()>>(run())));
    assert_eq!(
        text(&*panic.expect_err("the run has failed")),
        "in a system task"
    );
}

#[trio::test]
async fn st3_a_system_task_is_in_none_of_the_scopes_of_who_started_it() -> Result<()> {
    let outcome = Rc::new(RefCell::new(None));
    let seen = outcome.clone();
    let scope = CancelScope::new();
    scope
        .enter(async {
            scope.cancel("");
            spawn_system_task(async move {
                *seen.borrow_mut() = Some(checkpoint().await.is_ok());
                Ok(())
            })?;
            Ok(())
        })
        .await?;
    wait_all_tasks_blocked(secs(0)).await?;
    assert_eq!(*outcome.borrow(), Some(true));
    Ok(())
}

#[trio::test]
async fn st3_system_tasks_stand_in_the_tree_beside_the_main_task() -> Result<()> {
    spawn_system_task_named("janitor", sleep_forever())?;
    wait_all_tasks_blocked(secs(0)).await?;
    let root = current_root_task();
    let names: Vec<&str> = root.children.iter().map(|task| &*task.name).collect();
    assert_eq!(names, ["main", "janitor"]);
    assert_eq!(root.children[1].waiting_in, ["sleep_forever"]);
    Ok(())
}

#[test]
fn st4_a_run_that_has_no_system_tasks_any_more_takes_none() {
    let refused = Arc::new(Mutex::new(None));
    let seen = refused.clone();
    trio::run(async move {
        let last = move || {
            *seen.lock().unwrap() = Some(spawn_system_task(async { Ok(()) }));
        };
        // The main task ends before this is called.
        current_trio_token().run_sync_soon(last).unwrap();
    });
    assert_eq!(*refused.lock().unwrap(), Some(Err(RunFinished::new())));
}
