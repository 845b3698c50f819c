//! A cancel scope as an object: made, shared, entered once, queried afterwards (CS).

use std::cell::Cell;
use std::future::Future;
use std::task::Poll;

use trio::testing::MockClock;
use trio::{
    Builder, CancelScope, CancelSource, Result, Time, Usage, checkpoint, current_time,
    open_nursery, sleep, sleep_forever,
};

use crate::support::{failure, secs};

#[trio::test(clock = "autojump")]
async fn cs1_what_is_done_to_a_scope_before_entry_takes_effect_on_entry() -> Result<()> {
    let outer = CancelScope::new();
    outer.cancel("before");
    let ran = Cell::new(false);
    let ended = outer
        .enter(async {
            ran.set(true);
            assert_eq!(failure(checkpoint().await), "cancelled");
            let inner = CancelScope::new();
            inner.set_shield(true);
            assert_eq!(inner.enter(checkpoint()).await?, Some(()));
            checkpoint().await
        })
        .await?;
    assert_eq!(ended, None);
    assert!(ran.get(), "the body runs up to its first checkpoint");
    assert_eq!(
        outer.cancellation().expect("cancelled").reason(),
        Some("before")
    );

    let timed = CancelScope::new();
    timed.set_deadline(current_time() + secs(3));
    assert_eq!(timed.deadline(), Some(current_time() + secs(3)));
    assert_eq!(timed.enter(sleep_forever()).await?, None);
    assert_eq!(
        timed.cancellation().expect("cancelled").source(),
        CancelSource::Deadline
    );
    Ok(())
}

#[trio::test]
async fn cs2_a_scope_is_entered_once() -> Result<()> {
    fn is_refused<T>(result: Result<T>) -> bool {
        let error = result
            .map(drop)
            .expect_err("the scope has been entered before");
        error.is::<Usage>() && error.to_string().contains("a cancel scope is entered once")
    }
    let scope = CancelScope::new();
    scope
        .enter(async {
            assert!(is_refused(scope.enter(checkpoint()).await), "inside itself");
            open_nursery(async |nursery| {
                nursery.start_soon(async {
                    assert!(
                        is_refused(scope.enter(checkpoint()).await),
                        "by another task"
                    );
                    Ok(())
                });
                Ok(())
            })
            .await
        })
        .await?;
    let ran = Cell::new(false);
    let body = async {
        ran.set(true);
        Ok(())
    };
    assert!(is_refused(scope.enter(body).await), "afterwards");
    assert!(!ran.get());
    Ok(())
}

#[test]
fn cs3_cancel_called_never_goes_back() {
    let clock = MockClock::new();
    Builder::new().clock(clock.clone()).run(async {
        let scope = CancelScope::with_deadline(current_time() + secs(10));
        assert!(!scope.cancel_called());
        clock.jump(secs(10));
        assert!(scope.cancel_called(), "due, though nobody has entered");
        scope.set_deadline(Time::NEVER);
        assert!(scope.cancel_called());
        let ended = scope
            .enter(async {
                assert!(scope.cancel_called());
                checkpoint().await
            })
            .await;
        assert!(matches!(ended, Ok(None)), "{ended:?}");
        assert!(scope.cancel_called() && scope.cancelled_caught());

        let scope = CancelScope::new();
        let ended = scope
            .enter(async {
                scope.set_deadline(current_time() + secs(1));
                assert!(!scope.cancel_called());
                clock.jump(secs(1));
                assert!(scope.cancel_called());
                scope.set_deadline(current_time() + secs(1));
                assert!(scope.cancel_called());
                checkpoint().await
            })
            .await;
        assert!(matches!(ended, Ok(None)), "{ended:?}");
    });
}

#[trio::test]
async fn cs4_clones_are_handles_to_the_same_scope() -> Result<()> {
    let scope = CancelScope::new();
    open_nursery(async |nursery| {
        let stop = scope.clone();
        nursery.start_soon(async move {
            stop.cancel("from another task");
            Ok(())
        });
        assert_eq!(scope.enter(sleep_forever()).await?, None);
        Ok(())
    })
    .await?;
    let cancelled = scope.cancellation().expect("cancelled");
    assert_eq!(cancelled.reason(), Some("from another task"));
    assert!(scope.clone().cancelled_caught());
    Ok(())
}

#[test]
fn cs5_a_scope_shows_its_state() {
    let fixed = CancelScope::with_deadline(Time::from_nanos(u64::MAX / 2));
    assert_eq!(format!("{fixed:?}"), "CancelScope(unbound)", "no clock");
    let kept = Builder::new().clock(MockClock::new()).run(async {
        let scope = CancelScope::new();
        let fixed = CancelScope::with_deadline(current_time() + secs(10));
        assert_eq!(format!("{fixed:?}"), "CancelScope(unbound, 10.0s left)");
        assert_eq!(format!("{scope:?}"), "CancelScope(unbound)");
        let timed = CancelScope::with_timeout(secs(10));
        assert_eq!(
            format!("{timed:?}"),
            "CancelScope(unbound, 10s after entry)"
        );
        let cancelled = CancelScope::new();
        cancelled.cancel("");
        assert_eq!(format!("{cancelled:?}"), "CancelScope(unbound, cancelled)");
        let entered = scope
            .enter(async {
                assert_eq!(format!("{scope:?}"), "CancelScope(active)");
                scope.set_timeout(secs(100));
                assert_eq!(format!("{scope:?}"), "CancelScope(active, 100.0s left)");
                scope.set_deadline(Time::NEVER);
                scope.cancel("");
                assert_eq!(format!("{scope:?}"), "CancelScope(cancelled)");
                Ok(())
            })
            .await;
        assert!(entered.is_ok());
        scope
    });
    assert_eq!(
        format!("{kept:?}"),
        "CancelScope(exited)",
        "outside of the run as well"
    );
}

#[test]
fn cs6_a_handle_outlives_its_scope_and_its_run_and_then_does_nothing() {
    let scope = CancelScope::with_deadline(Time::NEVER);
    assert_eq!(
        trio::run(scope.enter(async { Ok(7) })).ok().flatten(),
        Some(7)
    );
    scope.cancel("too late");
    scope.set_shield(true);
    scope.set_timeout(secs(1));
    assert!(!scope.cancel_called());
    assert!(!scope.cancelled_caught());
    assert!(!scope.shield());
    assert_eq!(scope.deadline(), None);
    trio::run(async {
        scope.cancel("in another run");
        assert!(!scope.cancel_called());
        assert_eq!(checkpoint().await.ok(), Some(()));
    });

    // It may be prepared before the run, too: there is no task then that could be its source.
    let scope = CancelScope::new();
    scope.cancel("from outside");
    let cancelled = scope.cancellation().expect("cancelled");
    assert_eq!(cancelled.source_task(), None);
    assert!(matches!(trio::run(scope.enter(checkpoint())), Ok(None)));
}

#[trio::test(clock = "autojump")]
async fn cs7_a_scope_whose_future_is_dropped_has_been_left() -> Result<()> {
    let outer = CancelScope::new();
    let scope = CancelScope::with_timeout(secs(1));
    let ended = outer
        .enter(async {
            {
                let mut inside = Box::pin(scope.enter(sleep_forever()));
                std::future::poll_fn(|context| {
                    assert!(inside.as_mut().poll(context).is_pending());
                    Poll::Ready(())
                })
                .await;
                assert_eq!(format!("{scope:?}"), "CancelScope(active, 1.0s left)");
            }
            assert_eq!(format!("{scope:?}"), "CancelScope(exited)");
            scope.cancel("nobody is inside");
            // Nor does its deadline matter to anybody.
            sleep(secs(5)).await?;
            Ok("undisturbed")
        })
        .await?;
    assert_eq!(ended, Some("undisturbed"));
    Ok(())
}
