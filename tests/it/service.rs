//! Service nurseries (SN), and the handle of a child (J4 and on).

use std::cell::{Cell, RefCell};

use trio::lowlevel::cancel_shielded_checkpoint;
use trio::testing::wait_all_tasks_blocked;
use trio::{
    CancelScope, ChildState, NoValue, Result, checkpoint, current_time, move_on_after,
    open_nursery, open_service_nursery, sleep, sleep_forever,
};

use crate::support::{failure, oops, secs};

/// Waits until it is cancelled, and records when that happened.
async fn helper(log: &RefCell<Vec<&'static str>>, name: &'static str) -> Result<()> {
    let result = sleep_forever().await;
    log.borrow_mut().push(name);
    result
}

#[trio::test(backend = "all", clock = "autojump")]
async fn sn1_helpers_live_until_the_body_has_ended_and_are_then_cancelled() -> Result<()> {
    let start = current_time();
    let log = RefCell::default();
    let value = open_service_nursery(async |nursery| {
        nursery.start_soon(helper(&log, "helper"));
        sleep(secs(3)).await?;
        log.borrow_mut().push("body");
        Ok(7)
    })
    .await?;
    assert_eq!(value, 7);
    assert_eq!(log.into_inner(), ["body", "helper"]);
    assert_eq!(current_time() - start, secs(3));
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn sn1_helpers_are_waited_for() -> Result<()> {
    let start = current_time();
    open_service_nursery(async |nursery| {
        nursery.start_soon(async {
            drop(sleep_forever().await);
            CancelScope::new().shielded().enter(sleep(secs(5))).await?;
            Ok(())
        });
        checkpoint().await
    })
    .await?;
    assert_eq!(current_time() - start, secs(5));
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn sn2_helpers_are_shielded_while_a_cancelled_body_unwinds() -> Result<()> {
    let log = RefCell::default();
    let ended = move_on_after(
        secs(1),
        open_service_nursery(async |nursery| {
            nursery.start_soon(helper(&log, "helper"));
            let result = sleep_forever().await;
            CancelScope::new().shielded().enter(sleep(secs(2))).await?;
            log.borrow_mut().push("body");
            result
        }),
    )
    .await?;
    assert!(ended.is_none());
    assert_eq!(log.into_inner(), ["body", "helper"]);
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn sn2_a_body_that_beats_the_cancel_keeps_its_value() -> Result<()> {
    let scope = CancelScope::new();
    let value = scope
        .enter(open_service_nursery(async |nursery| {
            nursery.start_soon(sleep_forever());
            checkpoint().await?;
            scope.cancel("too late");
            Ok(7)
        }))
        .await?;
    assert_eq!(
        value,
        Some(7),
        "the helper was cancelled by the end of the body"
    );
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn sn2_cancelling_its_scope_cancels_the_body_first() -> Result<()> {
    let log = RefCell::default();
    open_service_nursery(async |nursery| {
        nursery.start_soon(helper(&log, "helper"));
        checkpoint().await?;
        nursery.cancel_scope().cancel("enough");
        drop(sleep_forever().await);
        cancel_shielded_checkpoint().await;
        log.borrow_mut().push("body");
        checkpoint().await
    })
    .await?;
    assert_eq!(log.into_inner(), ["body", "helper"]);
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn sn3_a_helper_that_fails_cancels_the_body_and_then_the_other_helpers() -> Result<()> {
    let log = RefCell::default();
    let result: Result<()> = open_service_nursery(async |nursery| {
        nursery.start_soon(helper(&log, "other"));
        nursery.start_soon(async {
            sleep(secs(1)).await?;
            oops("helper")
        });
        let result = sleep_forever().await;
        cancel_shielded_checkpoint().await;
        log.borrow_mut().push("body");
        result
    })
    .await;
    assert_eq!(failure(result), "[helper]");
    assert_eq!(log.into_inner(), ["body", "other"]);
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn sn3_errors_of_helpers_and_body_come_out_together() -> Result<()> {
    let result: Result<()> = open_service_nursery(async |nursery| {
        nursery.start_soon(async {
            drop(sleep_forever().await);
            oops("while cleaning up")
        });
        checkpoint().await?;
        oops("body")
    })
    .await;
    assert_eq!(failure(result), "[body while cleaning up]");
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn sn4_a_started_helper_is_protected_from_its_report_on() -> Result<()> {
    let log = RefCell::default();
    let ended = move_on_after(
        secs(2),
        open_service_nursery(async |nursery| {
            // Before the report it is a part of the call.
            let slow = nursery.start::<(), _, _>(async |_| sleep_forever().await);
            assert!(move_on_after(secs(1), slow).await?.is_none());
            let start = nursery.start(async |status| {
                status.started(())?;
                helper(&log, "helper").await
            });
            start.await?;
            let result = sleep_forever().await;
            cancel_shielded_checkpoint().await;
            log.borrow_mut().push("body");
            result
        }),
    )
    .await?;
    assert!(ended.is_none());
    assert_eq!(log.into_inner(), ["body", "helper"]);
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn sn4_a_helper_that_is_started_by_a_helper_after_the_end_is_cancelled() -> Result<()> {
    let reached = Cell::new(false);
    open_service_nursery(async |nursery| {
        nursery.start_soon(async {
            drop(sleep_forever().await);
            nursery.start_soon(async {
                reached.set(true);
                sleep_forever().await
            });
            Ok(())
        });
        checkpoint().await
    })
    .await?;
    assert!(reached.get(), "it runs up to its first cancel point");
    Ok(())
}

#[trio::test]
async fn sn5_dropped_half_way_it_drops_body_and_helpers() -> Result<()> {
    let scope = CancelScope::new();
    {
        let service = open_service_nursery(async |nursery| {
            nursery.start_soon(sleep_forever());
            sleep_forever().await
        });
        let mut service = std::pin::pin!(scope.clone().enter(service));
        assert!(futures::poll!(service.as_mut()).is_pending());
    }
    // Nothing is left of the scopes inside: a new one takes their place.
    assert!(move_on_after(secs(0), sleep_forever()).await?.is_none());
    checkpoint().await
}

// J4 and on: the handle.

#[trio::test(backend = "all", clock = "autojump")]
async fn j4_a_handle_cancels_its_child_and_nobody_else() -> Result<()> {
    open_nursery(async |nursery| {
        let mut one = nursery.spawn(sleep_forever());
        let mut other = nursery.spawn(async {
            sleep(secs(2)).await?;
            Ok("other")
        });
        wait_all_tasks_blocked(secs(0)).await?;
        assert_eq!(one.state(), ChildState::Running);
        one.cancel("not needed");
        assert_eq!(one.wait().await?, ChildState::Cancelled);
        let error = one.join().await.unwrap_err();
        assert_eq!(error.downcast_ref(), Some(&NoValue::Cancelled));
        assert!(!nursery.cancel_scope().cancel_called());
        assert_eq!(other.join().await?, "other");
        assert_eq!(other.state(), ChildState::Finished);
        Ok(())
    })
    .await
}

#[trio::test(clock = "autojump")]
async fn j4_cancelling_is_level_triggered_and_carries_its_reason() -> Result<()> {
    open_nursery(async |nursery| {
        let seen = RefCell::new(Vec::new());
        let seen_ref = &seen;
        open_nursery(async |inner| {
            // Before it has run, and while it waits in scopes and nurseries of its own.
            for turns in [0, 3] {
                let child = inner.spawn(async move {
                    let nested = open_nursery(async |deep| {
                        deep.start_soon(sleep_forever());
                        sleep_forever().await
                    });
                    let error = nested.await.unwrap_err();
                    let again = checkpoint().await.unwrap_err();
                    for leaf in error.leaves().chain([&again]) {
                        let cancelled = leaf.as_cancelled().expect("nothing else");
                        seen_ref
                            .borrow_mut()
                            .push(cancelled.reason().map(str::to_owned));
                    }
                    Err::<(), _>(again)
                });
                for _ in 0..turns {
                    checkpoint().await?;
                }
                child.cancel("why");
                child.cancel("a later reason");
            }
            Ok(())
        })
        .await?;
        assert_eq!(seen.take(), vec![Some("why".to_owned()); 6]);
        nursery.start_soon(async { Ok(()) });
        Ok(())
    })
    .await
}

#[trio::test(clock = "autojump")]
async fn j4_a_child_that_runs_sees_the_cancel_at_its_next_cancel_point() -> Result<()> {
    open_nursery(async |nursery| {
        // The handle is handed to the child itself, which has not waited for anything before.
        let (hand_over, own) = std::sync::mpsc::channel::<trio::JoinHandle<'_, ()>>();
        let mut own = Some(own);
        let child = nursery.spawn(async move {
            let own = own.take().expect("it runs once");
            let handle = own.recv().expect("handed over before it runs");
            handle.cancel("by itself");
            let error = checkpoint().await.unwrap_err();
            assert_eq!(
                error.as_cancelled().and_then(|it| it.reason()),
                Some("by itself")
            );
            Err(error)
        });
        hand_over.send(child).expect("the child is there");
        checkpoint().await?;
        checkpoint().await?;
        checkpoint().await?;
        assert!(!nursery.cancel_scope().cancel_called());
        Ok(())
    })
    .await
}

#[trio::test(clock = "autojump")]
async fn j5_a_child_that_is_cancelled_may_end_well_or_fail_all_the_same() -> Result<()> {
    let result: Result<()> = open_nursery(async |nursery| {
        let mut deaf = nursery.spawn(async {
            cancel_shielded_checkpoint().await;
            Ok("a value")
        });
        checkpoint().await?;
        deaf.cancel("");
        assert_eq!(deaf.wait().await?, ChildState::Finished);
        assert_eq!(deaf.join().await?, "a value");
        let again = deaf.join().await.unwrap_err();
        assert_eq!(again.downcast_ref(), Some(&NoValue::Taken));
        deaf.cancel("it has ended");

        let mut bad = nursery.spawn(async {
            drop(sleep_forever().await);
            oops::<()>("while cleaning up")
        });
        checkpoint().await?;
        bad.cancel("");
        drop(bad.wait().await);
        assert_eq!(bad.state(), ChildState::Failed);
        Ok(())
    })
    .await;
    assert_eq!(failure(result), "[while cleaning up]");
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn j5_a_cancel_from_around_passes_a_child_that_is_cancelled_too() -> Result<()> {
    let scope = CancelScope::new();
    let ended = scope
        .enter(open_nursery(async |nursery| {
            let child = nursery.spawn(sleep_forever());
            checkpoint().await?;
            child.cancel("first");
            scope.cancel("second");
            Ok(())
        }))
        .await?;
    // The enclosing scope is visible to the child's own, which therefore lets the error pass (S2).
    assert!(ended.is_none());
    assert!(scope.cancelled_caught());
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn j6_waiting_takes_nothing_and_can_be_given_up() -> Result<()> {
    open_nursery(async |nursery| {
        let mut child = nursery.spawn_named("sleeper", async {
            sleep(secs(2)).await?;
            Ok(7)
        });
        assert!(move_on_after(secs(1), child.wait()).await?.is_none());
        assert_eq!(format!("{child:?}"), "JoinHandle { state: Running }");
        assert_eq!(child.wait().await?, ChildState::Finished);
        assert_eq!(child.wait().await?, ChildState::Finished);
        assert_eq!(child.join().await?, 7);
        Ok(())
    })
    .await
}
