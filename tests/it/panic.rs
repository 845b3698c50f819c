//! Panics: not errors, but just as orderly (P).

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::task::Poll;

use trio::testing::wait_all_tasks_blocked;
use trio::{CancelScope, Result, checkpoint, open_nursery, sleep, sleep_forever};

use crate::support::{failure, on_every_driver, oops, secs};

/// Panics without the hook, which would print each panic that is expected here.
fn panic_with(what: &'static str) -> ! {
    resume_unwind(Box::new(what))
}

fn text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .expect("the tests panic with words")
}

/// What a future panics with, or its output.
async fn caught<F: Future>(future: F) -> std::result::Result<F::Output, Box<dyn Any + Send>> {
    let mut future = Box::pin(future);
    std::future::poll_fn(|context| {
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    })
    .await
}

#[track_caller]
fn said<T>(result: std::result::Result<T, Box<dyn Any + Send>>) -> String {
    match result {
        Ok(_) => panic!("this must panic"),
        Err(panic) => text(panic.as_ref()).to_owned(),
    }
}

#[test]
fn p1_a_panic_in_a_child_cancels_the_siblings_waits_and_goes_on_in_the_parent() {
    on_every_driver(|| async {
        let (ended, told) = (Cell::new(0), RefCell::new(None));
        let panic = caught(open_nursery(async |nursery| {
            nursery.start_soon_named("bad", async {
                checkpoint().await?;
                panic_with("from a child")
            });
            for _ in 0..2 {
                nursery.start_soon(async {
                    let error = sleep_forever().await.expect_err("cancelled");
                    *told.borrow_mut() = error.as_cancelled().map(ToString::to_string);
                    // Cleanup takes time, and is waited for.
                    let shield = CancelScope::new().shielded();
                    shield.enter(checkpoint()).await?;
                    ended.set(ended.get() + 1);
                    Err(error)
                });
            }
            let result = sleep_forever().await;
            ended.set(ended.get() + 1);
            result
        }))
        .await;
        assert_eq!(said(panic), "from a child");
        assert_eq!(ended.get(), 3);
        assert_eq!(
            told.take().as_deref(),
            Some("cancelled due to nursery with reason \"child task bad panicked\" from task bad")
        );
        checkpoint().await
    });
}

#[trio::test]
async fn p2_a_panic_in_the_body_does_the_same() -> Result<()> {
    let ended = Cell::new(0);
    let panic = caught(open_nursery(async |nursery| -> Result<()> {
        nursery.start_soon(async {
            let result = sleep_forever().await;
            ended.set(ended.get() + 1);
            result
        });
        checkpoint().await?;
        panic_with("from the body")
    }))
    .await;
    assert_eq!(said(panic), "from the body");
    assert_eq!(ended.get(), 1);
    Ok(())
}

#[trio::test]
async fn p3_a_panic_goes_before_errors_and_the_first_before_others() -> Result<()> {
    let panic = caught(open_nursery(async |nursery| {
        nursery.start_soon(async { oops("an error") });
        nursery.start_soon(async { panic_with("the first") });
        nursery.start_soon(async { panic_with("the second") });
        sleep_forever().await
    }))
    .await;
    assert_eq!(said(panic), "the first");
    Ok(())
}

#[trio::test]
async fn p4_a_panic_passes_nurseries_and_scopes_and_each_ends_in_order() -> Result<()> {
    let order = RefCell::new(Vec::new());
    let scope = CancelScope::new();
    let panic = caught(open_nursery(async |outer| {
        outer.start_soon(async {
            let result = sleep_forever().await;
            order.borrow_mut().push("outer sibling");
            result
        });
        outer.start_soon(async {
            let inner = open_nursery(async |inner| {
                inner.start_soon(async {
                    let result = sleep_forever().await;
                    order.borrow_mut().push("inner sibling");
                    result
                });
                wait_all_tasks_blocked(secs(0)).await?;
                panic_with("deep")
            });
            scope.enter(inner).await.map(|_: Option<()>| ())
        });
        Ok(())
    }))
    .await;
    assert_eq!(said(panic), "deep");
    assert_eq!(order.take(), ["inner sibling", "outer sibling"]);
    assert_eq!(format!("{scope:?}"), "CancelScope(exited)");
    assert!(!scope.cancel_called());
    checkpoint().await
}

#[test]
fn p5_a_panic_that_nobody_catches_leaves_the_run() {
    let panic = catch_unwind(|| {
        trio::run(async {
            open_nursery(async |nursery| {
                nursery.start_soon(async { panic_with("uncaught") });
                sleep_forever().await
            })
            .await
        })
    });
    assert_eq!(said(panic), "uncaught");
    assert_eq!(
        trio::run(async { 7 }),
        7,
        "the thread is fit for another run"
    );
}

#[trio::test(clock = "autojump")]
async fn p6_a_panic_in_a_child_that_is_being_started_comes_out_of_the_call() -> Result<()> {
    open_nursery(async |nursery| {
        let early = caught(nursery.start::<(), _, _>(async |_| panic_with("early"))).await;
        assert_eq!(said(early), "early");
        assert!(!nursery.cancel_scope().cancel_called());
        sleep(secs(1)).await
    })
    .await?;
    let late = caught(open_nursery(async |nursery| {
        nursery
            .start(async |status| {
                status.started(())?;
                panic_with("late")
            })
            .await?;
        sleep_forever().await
    }))
    .await;
    assert_eq!(said(late), "late");
    Ok(())
}

#[trio::test]
async fn p7_a_panic_while_a_child_is_dropped_does_not_keep_the_others_from_it() -> Result<()> {
    struct Bomb<'a>(&'a Cell<u32>, bool);
    impl Drop for Bomb<'_> {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
            if self.1 {
                panic_with("in a destructor");
            }
        }
    }
    let dropped = Cell::new(0);
    let mut nursery = Box::pin(open_nursery(async |nursery| {
        for armed in [false, true, false] {
            let bomb = Bomb(&dropped, armed);
            nursery.start_soon(async move {
                let _bomb = bomb;
                sleep_forever().await
            });
        }
        sleep_forever().await
    }));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    for _ in 0..3 {
        assert!(nursery.as_mut().poll(&mut context).is_pending());
        checkpoint().await?;
    }
    let panic = catch_unwind(AssertUnwindSafe(|| drop(nursery)));
    assert_eq!(said(panic), "in a destructor");
    assert_eq!(dropped.get(), 3);
    assert_eq!(
        failure(open_nursery(async |_| oops::<()>("x")).await),
        "[x]"
    );
    Ok(())
}

#[trio::test]
async fn p1_a_future_that_needs_the_loop_of_another_library_panics_and_says_so() -> Result<()> {
    let sibling = Cell::new(false);
    let panic = caught(open_nursery(async |nursery| {
        nursery.start_soon(async {
            let result = sleep_forever().await;
            sibling.set(true);
            result
        });
        nursery.start_soon(async {
            checkpoint().await?;
            tokio::spawn(async {})
                .await
                .expect("it does not come to that");
            Ok(())
        });
        sleep_forever().await
    }))
    .await
    .expect_err("there is no loop of tokio");
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    let text = owned.unwrap_or_else(|| text(&*panic));
    assert!(text.contains("Tokio"), "{text}");
    assert!(sibling.get(), "the others have ended in their own way");
    Ok(())
}
