//! Blocking functions on threads of their own, and calls back into the run (W).

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, ThreadId};

use futures::future::{Either, select};
use trio::lowlevel::{
    RunVar, current_trio_token, in_run, in_task, start_thread_soon, task_tree, thread_statistics,
};
use trio::sync::{Borrower, CapacityLimiter};
use trio::testing::{active_thread_count, wait_all_tasks_blocked, wait_all_threads_completed};
use trio::to_thread::ThreadLimiter;
use trio::{
    CancelScope, Error, Result, RunFinished, TaskLocal, Usage, checkpoint, fail_after, from_thread,
    move_on_after, open_nursery, sleep, sleep_forever, to_thread,
};

use crate::support::{builders, failure, foreign_thread, oops, secs, shape};

/// A function that blocks until it gets a message, and the sender of that message.
fn blocking() -> (impl FnOnce() + Send, mpsc::Sender<()>) {
    let (go, wait) = mpsc::channel::<()>();
    (
        move || {
            wait.recv().ok();
        },
        go,
    )
}

#[trio::test(backend = "all")]
async fn w1_a_function_runs_on_another_thread_and_its_value_comes_back() -> Result<()> {
    let here = thread::current().id();
    let there = to_thread::run_sync(|| {
        assert!(!in_run() && !in_task());
        thread::current().id()
    })
    .await?;
    assert_ne!(there, here);
    let failed = to_thread::run_sync(|| Err::<(), _>("its own")).await?;
    assert_eq!(failed, Err("its own"), "an error is a value as well");
    Ok(())
}

#[trio::test]
async fn w1_a_panic_of_the_function_goes_on_in_the_task() -> Result<()> {
    let call = to_thread::run_sync(|| panic!("on the thread"));
    let caught = futures::FutureExt::catch_unwind(AssertUnwindSafe(call)).await;
    let panic = caught.expect_err("it panics");
    assert_eq!(panic.downcast_ref(), Some(&"on the thread"));
    let still = to_thread::run_sync(|| 7).await?;
    assert_eq!(still, 7);
    Ok(())
}

#[trio::test]
async fn w1_in_a_cancelled_scope_the_function_is_not_called() -> Result<()> {
    let called = Arc::new(AtomicUsize::new(0));
    for abandon in [false, true] {
        let scope = CancelScope::new();
        scope.cancel("");
        let count = called.clone();
        let call = to_thread::run_sync(move || count.fetch_add(1, Ordering::Relaxed));
        let ended = scope.enter(call.abandon_on_cancel(abandon)).await?;
        assert_eq!(ended, None);
        assert!(scope.cancelled_caught());
    }
    wait_all_threads_completed().await?;
    assert_eq!(called.load(Ordering::Relaxed), 0);
    Ok(())
}

#[trio::test(backend = "all")]
async fn w1_a_cancel_waits_for_the_function_and_its_value_is_returned() -> Result<()> {
    let (function, go) = blocking();
    let scope = CancelScope::new();
    let value = Cell::new(None);
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            let ended = scope
                .enter(async {
                    let call = to_thread::run_sync(move || {
                        function();
                        7
                    });
                    value.set(Some(call.await?));
                    checkpoint().await
                })
                .await?;
            assert_eq!(ended, None, "the next checkpoint reports");
            Ok(())
        });
        wait_all_tasks_blocked(secs(0)).await?;
        scope.cancel("");
        for _ in 0..10 {
            checkpoint().await?;
        }
        assert_eq!(value.get(), None);
        assert_eq!(active_thread_count(), 1);
        go.send(()).expect("the thread waits");
        Ok(())
    })
    .await?;
    assert_eq!(value.get(), Some(7));
    Ok(())
}

#[trio::test(backend = "all")]
async fn w1_with_abandon_a_cancel_leaves_the_function_to_itself() -> Result<()> {
    let (function, go) = blocking();
    let (ended, end) = mpsc::channel();
    let dropped = Arc::new(());
    let held = dropped.clone();
    let scope = CancelScope::new();
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            let call = to_thread::run_sync(move || {
                function();
                ended.send(()).expect("the test waits");
                held
            });
            let value = scope.enter(call.abandon_on_cancel(true)).await?;
            assert!(value.is_none());
            Ok(())
        });
        wait_all_tasks_blocked(secs(0)).await?;
        scope.cancel("");
        Ok(())
    })
    .await?;
    assert!(scope.cancelled_caught());
    assert_eq!(active_thread_count(), 0);
    go.send(()).expect("the thread is still there");
    to_thread::run_sync(move || end.recv())
        .await?
        .expect("it goes on");
    while Arc::strong_count(&dropped) > 1 {
        checkpoint().await?;
    }
    Ok(())
}

#[test]
fn w1_a_function_that_outlives_the_run_ends_quietly() {
    let (function, go) = blocking();
    let (ended, end) = mpsc::channel();
    trio::run(async move {
        let call = to_thread::run_sync(move || {
            function();
            ended.send(()).expect("the test waits");
        });
        let ended = move_on_after(
            std::time::Duration::from_millis(1),
            call.abandon_on_cancel(true),
        );
        assert_eq!(ended.await?, None);
        Ok::<(), Error>(())
    })
    .unwrap();
    go.send(()).expect("the thread outlives the run");
    end.recv().expect("it goes on to its end");
}

/// Counts who has a token, and hands out as many as it is asked for.
#[derive(Default)]
struct Recorder {
    acquired: RefCell<Vec<Borrower>>,
    released: RefCell<Vec<Borrower>>,
    refuse: Cell<bool>,
    fail: Cell<bool>,
}

impl ThreadLimiter for Recorder {
    fn acquire_on_behalf_of(
        self: Rc<Self>,
        borrower: Borrower,
    ) -> Pin<Box<dyn Future<Output = Result<()>>>> {
        Box::pin(async move {
            if self.refuse.get() {
                return oops("no more");
            }
            self.acquired.borrow_mut().push(borrower);
            checkpoint().await
        })
    }

    fn release_on_behalf_of(&self, borrower: Borrower) -> Result<()> {
        self.released.borrow_mut().push(borrower);
        if self.fail.get() {
            return oops("not taken back");
        }
        Ok(())
    }
}

#[trio::test(backend = "all")]
async fn k5_a_limiter_of_ones_own_needs_two_methods() -> Result<()> {
    let limiter = Rc::new(Recorder::default());
    let inside = to_thread::run_sync(|| 7).limiter(limiter.clone()).await?;
    assert_eq!(inside, 7);
    to_thread::run_sync(|| ()).limiter(limiter.clone()).await?;
    let acquired = limiter.acquired.borrow();
    assert_eq!(acquired.len(), 2);
    assert_ne!(acquired[0], acquired[1], "each call is another borrower");
    assert_eq!(*acquired, *limiter.released.borrow());
    Ok(())
}

#[trio::test]
async fn w2_an_error_of_the_limiter_is_the_error_of_the_call() -> Result<()> {
    let limiter = Rc::new(Recorder::default());
    limiter.fail.set(true);
    let call = to_thread::run_sync(|| 7).limiter(limiter.clone());
    assert_eq!(failure(call.await), "not taken back");
    // A panic of the function takes precedence.
    let call = to_thread::run_sync(|| panic!("first")).limiter(limiter.clone());
    let caught = futures::FutureExt::catch_unwind(AssertUnwindSafe(call)).await;
    assert_eq!(
        caught.expect_err("it panics").downcast_ref(),
        Some(&"first")
    );
    limiter.refuse.set(true);
    let call = to_thread::run_sync(|| unreachable!()).limiter(limiter.clone());
    assert_eq!(failure::<()>(call.await), "no more");
    assert_eq!(limiter.released.borrow().len(), 2);
    Ok(())
}

#[test]
fn w2_the_token_of_a_function_that_outlives_its_run_is_not_given_back() {
    let (function, go) = blocking();
    let (ended, end) = mpsc::channel::<()>();
    let limiter = Rc::new(Recorder::default());
    let call = to_thread::run_sync(move || {
        function();
        drop(ended);
    });
    let call = call.limiter(limiter.clone()).abandon_on_cancel(true);
    let left = trio::run(move_on_after(std::time::Duration::from_millis(1), call));
    assert!(matches!(left, Ok(None)), "{left:?}");
    go.send(()).expect("the thread outlives the run");
    assert!(end.recv().is_err(), "it goes on to its end");
    assert_eq!(limiter.acquired.borrow().len(), 1);
    assert_eq!(
        limiter.released.borrow().len(),
        0,
        "there is nobody to do it"
    );
}

#[trio::test(backend = "all")]
async fn w2_the_token_is_given_back_when_the_function_has_ended_and_not_before() -> Result<()> {
    let limiter = Rc::new(Recorder::default());
    let (function, go) = blocking();
    let scope = CancelScope::new();
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            let call = to_thread::run_sync(function).limiter(limiter.clone());
            let ended = scope.enter(call.abandon_on_cancel(true)).await?;
            assert_eq!(ended, None);
            Ok(())
        });
        wait_all_tasks_blocked(secs(0)).await?;
        scope.cancel("");
        Ok(())
    })
    .await?;
    assert_eq!(limiter.acquired.borrow().len(), 1);
    assert_eq!(limiter.released.borrow().len(), 0, "the thread still works");
    go.send(()).expect("the thread waits");
    while limiter.released.borrow().is_empty() {
        checkpoint().await?;
    }
    Ok(())
}

#[trio::test(backend = "all")]
async fn w2_no_more_than_forty_run_at_once_and_all_have_their_turn() -> Result<()> {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (go, wait) = mpsc::channel::<()>();
    let wait = Arc::new(std::sync::Mutex::new(wait));
    let scope = CancelScope::new();
    let done = Cell::new(0);
    open_nursery(async |nursery| {
        for n in 0..100 {
            let (now, most, wait) = (now.clone(), most.clone(), wait.clone());
            let (scope, done) = (&scope, &done);
            nursery.start_soon(async move {
                let call = to_thread::run_sync(move || {
                    let others = now.fetch_add(1, Ordering::SeqCst);
                    most.fetch_max(others + 1, Ordering::SeqCst);
                    let told = wait.lock().unwrap().recv();
                    now.fetch_sub(1, Ordering::SeqCst);
                    told.expect("it is told once for each");
                });
                // The second is abandoned at work; every other one gets its value.
                match n % 2 {
                    0 => assert!(CancelScope::new().enter(call).await?.is_some()),
                    _ if n == 1 => {
                        assert!(scope.enter(call.abandon_on_cancel(true)).await?.is_none())
                    }
                    _ => call.await?,
                }
                done.set(done.get() + 1);
                Ok(())
            });
        }
        while most.load(Ordering::SeqCst) < 40 {
            checkpoint().await?;
        }
        wait_all_tasks_blocked(secs(0)).await?;
        assert_eq!(active_thread_count(), 40);
        scope.cancel("");
        checkpoint().await?;
        checkpoint().await?;
        assert_eq!(done.get(), 1);
        // Its thread still has the token.
        assert_eq!(active_thread_count(), 39);
        for _ in 0..100 {
            go.send(()).expect("they wait");
        }
        Ok(())
    })
    .await?;
    assert_eq!(done.get(), 100);
    assert_eq!(most.load(Ordering::SeqCst), 40);
    Ok(())
}

#[trio::test]
async fn w2_the_default_limiter_can_be_told_another_number() -> Result<()> {
    let limiter = to_thread::current_default_thread_limiter();
    assert_eq!((limiter.total_tokens(), limiter.borrowed_tokens()), (40, 0));
    limiter.set_total_tokens(1);
    let (function, go) = blocking();
    open_nursery(async |nursery| {
        nursery.start_soon(async { to_thread::run_sync(function).await });
        nursery.start_soon(async { to_thread::run_sync(|| ()).await });
        wait_all_tasks_blocked(secs(0)).await?;
        assert_eq!(active_thread_count(), 1);
        assert_eq!(limiter.statistics().tasks_waiting, 1);
        // A call with a limiter of its own is not held up.
        let own = Rc::new(CapacityLimiter::new(1));
        assert_eq!(to_thread::run_sync(|| 7).limiter(own.clone()).await?, 7);
        assert_eq!(own.borrowed_tokens(), 0);
        go.send(()).expect("the thread waits");
        Ok(())
    })
    .await?;
    assert_eq!(limiter.borrowed_tokens(), 0);
    Ok(())
}

#[trio::test(backend = "all")]
async fn w2_a_call_that_is_cancelled_in_the_queue_takes_no_token() -> Result<()> {
    let (go, wait) = mpsc::channel::<()>();
    let wait = Arc::new(std::sync::Mutex::new(wait));
    open_nursery(async |nursery| {
        for _ in 0..40 {
            let wait = wait.clone();
            nursery.start_soon(async {
                to_thread::run_sync(move || wait.lock().unwrap().recv().ok()).await?;
                Ok(())
            });
        }
        wait_all_tasks_blocked(secs(0)).await?;
        let queued = CancelScope::new();
        let called = Cell::new(false);
        open_nursery(async |inner| {
            inner.start_soon(async {
                let ended = queued.enter(to_thread::run_sync(|| ())).await?;
                called.set(ended.is_some());
                Ok(())
            });
            wait_all_tasks_blocked(secs(0)).await?;
            assert_eq!(active_thread_count(), 40);
            queued.cancel("");
            Ok(())
        })
        .await?;
        assert!(!called.get());
        for _ in 0..40 {
            go.send(()).expect("they wait");
        }
        wait_all_threads_completed().await?;
        // As many as before get their turn at once.
        for _ in 0..40 {
            nursery.start_soon(async { to_thread::run_sync(|| ()).await });
        }
        Ok(())
    })
    .await
}

/// A value of the run that re-entries look at.
static SCOPE: RunVar<CancelScope> = RunVar::new("scope");
static WHO: TaskLocal<&str> = TaskLocal::new("who");

#[trio::test(backend = "all")]
async fn w4_what_a_thread_asks_for_runs_in_the_task_that_waits_for_it() -> Result<()> {
    let here = thread::current().id();
    open_nursery(async |nursery| {
        let host = async {
            let names = to_thread::run_sync(move || {
                let name = || task_tree().children[0].name.clone();
                let one = from_thread::run_sync(move || {
                    assert_eq!(thread::current().id(), here);
                    assert!(in_task());
                    (name(), WHO.get())
                })?;
                let other = from_thread::run(async move || {
                    checkpoint().await?;
                    assert_eq!(thread::current().id(), here);
                    Ok((name(), WHO.get()))
                })?;
                Ok::<_, Error>((one, other))
            })
            .await??;
            let expected = ("host".to_owned(), Some("ada"));
            assert_eq!(names, (expected.clone(), expected));
            Ok(())
        };
        nursery.start_soon_named("host", WHO.scope("ada", host));
        Ok(())
    })
    .await
}

#[trio::test(backend = "all")]
async fn w4_a_cancelled_host_cancels_what_its_thread_awaits_and_not_what_it_calls() -> Result<()> {
    let scope = CancelScope::new();
    drop(SCOPE.set(scope.clone()));
    let ended = scope
        .enter(async {
            to_thread::run_sync(|| {
                from_thread::run_sync(|| SCOPE.with(|scope| scope.unwrap().cancel("from below")))?;
                // What is called works as always.
                assert_eq!(from_thread::run_sync(|| 7)?, 7);
                // So does what is awaited, if it has no checkpoint.
                assert_eq!(from_thread::run(async || Ok(8))?, 8);
                from_thread::run(async || sleep_forever().await)
            })
            .await?
        })
        .await?;
    assert_eq!(
        ended, None,
        "the error came through the thread to the scope"
    );
    assert!(scope.cancelled_caught());
    Ok(())
}

#[trio::test(backend = "all")]
async fn w4_a_cancel_reaches_what_a_thread_awaits_already() -> Result<()> {
    let scope = CancelScope::new();
    let seen = Cell::new(false);
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            let call = to_thread::run_sync(|| from_thread::run(async || sleep_forever().await));
            let ended = scope.enter(async { call.await? }).await?;
            seen.set(ended.is_none());
            Ok(())
        });
        // Until the task waits for what its thread has requested.
        loop {
            let tree = task_tree();
            if tree
                .children
                .iter()
                .any(|task| task.waiting_in.contains(&"sleep_forever"))
            {
                break;
            }
            checkpoint().await?;
        }
        scope.cancel("");
        Ok(())
    })
    .await?;
    assert!(seen.get());
    Ok(())
}

#[trio::test(backend = "all")]
async fn w4_for_an_abandoned_thread_a_system_task_does_it() -> Result<()> {
    let call = to_thread::run_sync(|| {
        let task = from_thread::run(async || {
            checkpoint().await?;
            assert!(in_task());
            let root = trio::lowlevel::current_root_task();
            Ok(root
                .children
                .into_iter()
                .map(|task| task.name)
                .collect::<Vec<_>>())
        })?;
        let called = from_thread::run_sync(|| (in_run(), in_task()))?;
        Ok::<_, Error>((task, called))
    });
    let (tasks, called) = call.abandon_on_cancel(true).await??;
    assert_eq!(tasks, ["main", "from_thread"]);
    assert_eq!(called, (true, false));
    // The scope of the host does not enclose it.
    let scope = CancelScope::new();
    drop(SCOPE.set(scope.clone()));
    let (told, wait) = mpsc::channel();
    let call = to_thread::run_sync(move || {
        from_thread::run_sync(|| SCOPE.with(|scope| scope.unwrap().cancel("")))?;
        let done = from_thread::run(async || sleep(std::time::Duration::from_millis(1)).await);
        told.send(shape_of(done)).expect("the test waits");
        Ok::<(), Error>(())
    });
    let ended = scope.enter(call.abandon_on_cancel(true)).await?;
    assert!(ended.is_none());
    let done = to_thread::run_sync(move || wait.recv()).await?;
    assert_eq!(done.expect("the thread goes on"), "ended well");
    Ok(())
}

fn shape_of(result: Result<()>) -> String {
    result.map_or_else(|error| shape(&error), |()| "ended well".to_owned())
}

#[trio::test]
async fn w4_a_panic_of_what_a_thread_asks_for_is_the_threads() -> Result<()> {
    for abandon in [false, true] {
        let call = to_thread::run_sync(|| {
            let sync = catch_unwind(|| from_thread::run_sync(|| panic!("sync")));
            let future = catch_unwind(|| from_thread::run::<_, ()>(async || panic!("future")));
            (sync.is_err(), future.is_err())
        });
        let panicked = call.abandon_on_cancel(abandon).await?;
        assert_eq!(panicked, (true, true));
    }
    Ok(())
}

#[trio::test]
async fn w5_on_the_thread_of_a_run_it_is_refused() -> Result<()> {
    let check = |result: Result<()>| {
        let error = result
            .expect_err("it would block the run")
            .downcast::<Usage>();
        let text = error.expect("a mistake of the caller").to_string();
        assert!(
            text.starts_with("this would block a thread that is in a run"),
            "{text}"
        );
    };
    check(from_thread::run_sync(|| ()));
    check(from_thread::run(async || Ok(())));
    check(from_thread::check_cancelled());
    check(current_trio_token().run_sync(|| ()));
    check(current_trio_token().run(async || Ok(())));
    // On the thread of another run as well, even though a task waits for it.
    let inside = to_thread::run_sync(move || trio::run(async { from_thread::run_sync(|| ()) }));
    check(inside.await?);
    Ok(())
}

#[test]
fn w5_a_thread_of_ones_own_needs_a_token() {
    let check = |result: Result<()>| {
        let error = result.expect_err("nobody waits").downcast::<Usage>();
        let text = error.expect("a mistake of the caller").to_string();
        assert!(
            text.starts_with("this thread was not begun by `to_thread::run_sync`"),
            "{text}"
        );
    };
    check(from_thread::run_sync(|| ()));
    check(from_thread::run(async || Ok(())));
    check(from_thread::check_cancelled());
}

#[trio::test(backend = "all")]
async fn w5_with_a_token_any_thread_can_call_and_await() -> Result<()> {
    let here = thread::current().id();
    let token = current_trio_token();
    let (done, wait) = mpsc::channel();
    foreign_thread(move || {
        let sync = token.run_sync(|| thread::current().id());
        let future = token.run(async || {
            checkpoint().await?;
            Ok(thread::current().id())
        });
        let failed = failure(token.run(async || oops::<()>("its own")));
        let panicked = catch_unwind(AssertUnwindSafe(|| token.run_sync(|| panic!("its own"))));
        done.send((sync, future, failed, panicked.is_err()))
            .expect("the test waits");
    });
    let ended = to_thread::run_sync(move || wait.recv()).await?;
    let (sync, future, failed, panicked) = ended.expect("the thread sends");
    assert_eq!((sync?, future?), (here, here));
    assert_eq!(failed, "its own");
    assert!(panicked);
    Ok(())
}

#[test]
fn w5_a_thread_that_waits_when_the_run_ends_learns_of_it() {
    for (name, builder) in builders() {
        let (done, wait) = mpsc::channel();
        let token = builder.run(async {
            let token = current_trio_token();
            let other = token.clone();
            foreign_thread(move || {
                let cancelled = other.run(async || sleep_forever().await);
                done.send(failure(cancelled)).expect("the test waits");
            });
            // Until it waits in the run.
            while trio::lowlevel::current_root_task().children.len() < 2 {
                checkpoint().await?;
            }
            wait_all_tasks_blocked(secs(0)).await?;
            Ok::<_, Error>(token)
        });
        assert_eq!(wait.recv().as_deref(), Ok("cancelled"), "{name}");
        let token = token.unwrap();
        let finished = |result: Result<()>| {
            assert!(result.expect_err("no run").is::<RunFinished>(), "{name}");
        };
        finished(token.run_sync(|| ()));
        finished(token.run(async || Ok(())));
    }
}

#[test]
fn w5_a_thread_that_outlives_its_run_learns_of_it() {
    let (function, go) = blocking();
    let (done, wait) = mpsc::channel();
    trio::run(async move {
        let call = to_thread::run_sync(move || {
            function();
            let results = (
                from_thread::run_sync(|| ()),
                from_thread::run(async || Ok(())),
            );
            done.send(results).expect("the test waits");
        });
        let call = call.abandon_on_cancel(true);
        let left = move_on_after(std::time::Duration::from_millis(1), call).await?;
        assert!(left.is_none());
        Ok::<(), Error>(())
    })
    .unwrap();
    go.send(()).expect("the thread waits");
    let (sync, future) = wait.recv().expect("the thread sends");
    assert!(sync.expect_err("no run").is::<RunFinished>());
    assert!(future.expect_err("no run").is::<RunFinished>());
}

#[test]
fn w5_during_the_end_of_a_run_a_host_still_serves_its_thread() {
    let (done, wait) = mpsc::channel();
    trio::run(async move {
        trio::lowlevel::spawn_system_task(async move {
            let ended = sleep_forever().await;
            let cleanup = CancelScope::new().shielded();
            let call = to_thread::run_sync(|| {
                let slept = || async { sleep(std::time::Duration::from_millis(1)).await };
                from_thread::run(slept)
            });
            cleanup.enter(call).await?.expect("shielded")?;
            done.send(()).expect("the test waits");
            ended
        })?;
        checkpoint().await
    })
    .unwrap();
    assert_eq!(wait.recv(), Ok(()));
}

#[trio::test(backend = "all")]
async fn w6_a_thread_can_ask_whether_its_call_has_been_cancelled() -> Result<()> {
    for abandon in [false, true] {
        let scope = CancelScope::new();
        let (begun, begin) = mpsc::channel();
        let (told, wait) = mpsc::channel();
        open_nursery(async |nursery| {
            nursery.start_soon(async {
                let call = to_thread::run_sync(move || {
                    from_thread::check_cancelled().expect("not yet");
                    begun.send(()).expect("the test waits");
                    let error = loop {
                        match from_thread::check_cancelled() {
                            Ok(()) => thread::yield_now(),
                            Err(error) => break error,
                        }
                    };
                    let again = from_thread::check_cancelled().is_err();
                    let reason = error
                        .as_cancelled()
                        .and_then(|it| it.reason().map(str::to_owned));
                    told.send((reason, again)).ok();
                    Err::<(), _>(error)
                });
                let ended = scope
                    .enter(async { call.abandon_on_cancel(abandon).await? })
                    .await?;
                assert!(ended.is_none(), "it came out as the cancel of the scope");
                Ok(())
            });
            to_thread::run_sync(move || begin.recv())
                .await?
                .expect("it begins");
            scope.cancel("enough");
            let heard = to_thread::run_sync(move || wait.recv()).await?;
            let expected = (Some("enough".to_owned()), true);
            assert_eq!(heard.expect("the thread hears"), expected);
            Ok(())
        })
        .await?;
        assert!(scope.cancelled_caught());
    }
    Ok(())
}

#[trio::test]
async fn w7_threads_are_kept_and_used_again() -> Result<()> {
    let mut seen: HashSet<ThreadId> = HashSet::new();
    for _ in 0..100 {
        seen.insert(to_thread::run_sync(|| thread::current().id()).await?);
    }
    // Other tests of this binary use the same threads at the same time, so another thread may be
    // taken now and then; but there was no new thread for each call.
    assert!(seen.len() < 100, "{} threads for 100 calls", seen.len());
    let statistics = thread_statistics();
    assert!(
        statistics.living >= 1 && statistics.begun >= 1,
        "{statistics:?}"
    );
    Ok(())
}

#[test]
fn w7_there_are_as_many_threads_as_there_is_work() {
    // None of them continues before all of them work.
    let count = 64;
    let all = Arc::new(std::sync::Barrier::new(count));
    let (done, end) = mpsc::channel();
    for _ in 0..count {
        let (all, done) = (all.clone(), done.clone());
        let deliver = move |result: thread::Result<bool>| done.send(result.is_ok()).unwrap();
        start_thread_soon(move || all.wait().is_leader(), deliver, None).unwrap();
    }
    assert_eq!(end.iter().take(count).filter(|ok| *ok).count(), count);
}

#[trio::test]
async fn w7_an_idle_thread_holds_nothing_of_its_last_call() -> Result<()> {
    let value = Arc::new(());
    let captured = value.clone();
    to_thread::run_sync(move || drop(captured.clone())).await?;
    assert_eq!(Arc::strong_count(&value), 1, "gone when the call returns");
    let returned = value.clone();
    let back = to_thread::run_sync(move || returned).await?;
    assert_eq!(Arc::strong_count(&back), 2, "the value, and what came back");
    Ok(())
}

#[trio::test(backend = "all")]
async fn w8_a_thread_can_await_a_thread() -> Result<()> {
    let depth = to_thread::run_sync(|| {
        let outer = thread::current().id();
        from_thread::run(async move || {
            to_thread::run_sync(move || {
                assert_ne!(thread::current().id(), outer, "that one is busy");
                from_thread::run(async || {
                    checkpoint().await?;
                    Ok(2)
                })
            })
            .await?
        })
    })
    .await??;
    assert_eq!(depth, 2);
    Ok(())
}

#[trio::test]
async fn w8_going_to_and_fro_ends_when_it_is_cancelled() -> Result<()> {
    let scope = CancelScope::new();
    let turns = Rc::new(Cell::new(0));
    static TURNS: RunVar<Rc<Cell<u32>>> = RunVar::new("turns");
    drop(TURNS.set(turns.clone()));
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            let ended = scope
                .enter(async {
                    to_thread::run_sync(|| {
                        loop {
                            from_thread::run(async || {
                                TURNS.with(|turns| turns.map(|turns| turns.set(turns.get() + 1)));
                                checkpoint().await
                            })?;
                        }
                    })
                    .await?
                })
                .await?;
            assert!(Option::<()>::is_none(&ended));
            Ok(())
        });
        while turns.get() < 100 {
            checkpoint().await?;
        }
        scope.cancel("");
        Ok(())
    })
    .await?;
    assert!(scope.cancelled_caught());
    Ok(())
}

#[trio::test(backend = "all")]
async fn w9_a_nursery_stays_open_for_a_function_whose_future_was_dropped() -> Result<()> {
    let (function, go) = blocking();
    let ended = Arc::new(AtomicUsize::new(0));
    let count = ended.clone();
    let order = RefCell::new(Vec::new());
    open_nursery(async |outer| {
        outer.start_soon(async {
            open_nursery(async |_| {
                let call = to_thread::run_sync(move || {
                    function();
                    count.fetch_add(1, Ordering::SeqCst);
                });
                // A foreign combinator drops the loser.
                let turn = std::pin::pin!(checkpoint());
                let first = select(Box::pin(call), turn).await;
                assert!(matches!(first, Either::Right(_)));
                drop(first);
                Ok(())
            })
            .await?;
            order.borrow_mut().push("the nursery has ended");
            assert_eq!(ended.load(Ordering::SeqCst), 1);
            Ok(())
        });
        wait_all_tasks_blocked(secs(0)).await?;
        assert_eq!(active_thread_count(), 0);
        order.borrow_mut().push("the function may end");
        go.send(()).expect("the thread waits");
        Ok(())
    })
    .await?;
    assert_eq!(
        *order.borrow(),
        ["the function may end", "the nursery has ended"]
    );
    Ok(())
}

#[test]
fn w9_a_run_that_panics_waits_for_a_function_that_may_not_be_abandoned() {
    let ended = Arc::new(AtomicUsize::new(0));
    let count = ended.clone();
    let (function, go) = blocking();
    let run = || {
        trio::run(async {
            let call = to_thread::run_sync(move || {
                function();
                count.fetch_add(1, Ordering::SeqCst);
            });
            let turn = std::pin::pin!(checkpoint());
            let _running = select(Box::pin(call), turn).await;
            go.send(()).expect("the thread waits");
            panic!("with a call under way");
        })
    };
    let panicked = catch_unwind(AssertUnwindSafe(run));
    assert!(panicked.is_err());
    assert_eq!(ended.load(Ordering::SeqCst), 1);
}

#[test]
fn w9_a_call_that_is_forgotten_does_not_hold_its_thread_for_ever() {
    let (done, wait) = mpsc::channel();
    let (function, go) = blocking();
    trio::run(async {
        let call = to_thread::run_sync(move || {
            function();
            let result = from_thread::run_sync(|| ());
            done.send(result.is_err()).ok();
        });
        let turn = std::pin::pin!(checkpoint());
        let running = select(Box::pin(call), turn).await;
        let _ = std::mem::ManuallyDrop::new(running);
        go.send(()).expect("the thread waits");
    });
    assert_eq!(wait.recv(), Ok(true), "the end of the run has told it");
}

#[cfg(target_os = "linux")]
#[trio::test]
async fn w10_a_thread_is_named_after_its_function_and_task_or_as_it_is_told() -> Result<()> {
    fn name() -> String {
        let path = "/proc/thread-self/comm";
        std::fs::read_to_string(path).unwrap().trim_end().to_owned()
    }
    assert_eq!(to_thread::run_sync(name).await?, "name from main");
    let told = to_thread::run_sync(name).name("a name of more than fifteen bytes");
    assert_eq!(told.await?, "a name of more");
    // In the pool a thread has its own name again, a little later, when it has delivered.
    let thread = to_thread::run_sync(rustix::thread::gettid).name("passing");
    let path = format!("/proc/self/task/{}/comm", thread.await?.as_raw_nonzero());
    let idle = async {
        while !std::fs::read_to_string(&path)?.starts_with("trio ") {
            checkpoint().await?;
        }
        Ok(())
    };
    fail_after(secs(60), idle).await
}

#[test]
fn w11_a_job_of_the_pool_delivers_what_it_returned_or_its_panic() {
    let (done, wait) = mpsc::channel();
    let other = done.clone();
    start_thread_soon(
        || 7,
        move |result| {
            done.send(result.ok()).ok();
        },
        None,
    )
    .unwrap();
    assert_eq!(wait.recv(), Ok(Some(7)));
    let job = || -> u32 { panic!("in a job") };
    start_thread_soon(
        job,
        move |result| {
            other.send(result.ok()).ok();
        },
        Some("job"),
    )
    .unwrap();
    assert_eq!(wait.recv(), Ok(None));
}

#[test]
fn w11_a_panic_while_delivering_goes_no_further() {
    let (done, wait) = mpsc::channel();
    for n in 0..3 {
        let done = done.clone();
        let deliver = move |_| {
            done.send(n).expect("the test waits");
            panic!("while delivering");
        };
        start_thread_soon(|| (), deliver, None).unwrap();
        assert_eq!(wait.recv(), Ok(n));
    }
}

#[trio::test(backend = "all")]
async fn w12_a_test_can_wait_for_all_threads() -> Result<()> {
    // None: at once.
    assert_eq!(active_thread_count(), 0);
    wait_all_threads_completed().await?;
    let (one, go_one) = blocking();
    let (other, go_other) = blocking();
    let waited = Cell::new(false);
    open_nursery(async |nursery| {
        nursery.start_soon(async { to_thread::run_sync(one).await });
        nursery.start_soon(async { to_thread::run_sync(other).await });
        wait_all_tasks_blocked(secs(0)).await?;
        assert_eq!(active_thread_count(), 2);
        nursery.start_soon(async {
            wait_all_threads_completed().await?;
            assert_eq!(active_thread_count(), 0);
            waited.set(true);
            Ok(())
        });
        go_one.send(()).expect("the thread waits");
        while active_thread_count() > 1 {
            checkpoint().await?;
        }
        wait_all_tasks_blocked(secs(0)).await?;
        assert!(!waited.get());
        go_other.send(()).expect("the thread waits");
        Ok(())
    })
    .await?;
    assert!(waited.get());
    // It can be cancelled.
    let (function, go) = blocking();
    open_nursery(async |nursery| {
        nursery.start_soon(async { to_thread::run_sync(function).await });
        wait_all_tasks_blocked(secs(0)).await?;
        let scope = CancelScope::new();
        scope.cancel("");
        assert_eq!(scope.enter(wait_all_threads_completed()).await?, None);
        go.send(()).expect("the thread waits");
        Ok(())
    })
    .await
}
