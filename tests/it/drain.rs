//! Draining (DR), cleanup with a time limit (CU), and idle timeouts (ID).

use std::cell::Cell;
use std::time::Duration;

use trio::lowlevel::cancel_shielded_checkpoint;
use trio::testing::wait_all_tasks_blocked;
use trio::{
    CancelScope, CancelSource, Error, Result, TooSlow, checkpoint, cleanup, current_time,
    fail_after, fail_if_idle, is_draining, move_on_after, move_on_if_idle, open_nursery,
    open_service_nursery, sleep, sleep_forever, until_draining, wait_draining,
};

use crate::support::{failure, secs};

#[trio::test(backend = "all", clock = "autojump")]
async fn dr1_draining_asks_and_disturbs_nobody_who_does_not_look() -> Result<()> {
    let start = current_time();
    let scope = CancelScope::new();
    open_nursery(async |nursery| {
        let mut inside = nursery.spawn(scope.enter(async {
            assert!(!is_draining());
            sleep(secs(5)).await?;
            assert!(is_draining());
            checkpoint().await?;
            Ok("finished")
        }));
        sleep(secs(1)).await?;
        scope.drain(secs(10), "closing");
        assert!(!scope.cancel_called());
        assert!(!is_draining(), "not here");
        assert_eq!(inside.join().await?, Some("finished"));
        Ok(())
    })
    .await?;
    assert_eq!(current_time() - start, secs(5));
    Ok(())
}

#[trio::test(backend = "all", clock = "autojump")]
async fn dr2_until_draining_ends_what_waits_and_is_over_at_once_afterwards() -> Result<()> {
    let start = current_time();
    let scope = CancelScope::new();
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            sleep(secs(3)).await?;
            scope.drain(Duration::MAX, "closing");
            Ok(())
        });
        let served = scope.enter(async {
            let mut served = 0;
            while until_draining(sleep(secs(1))).await?.is_some() {
                served += 1;
            }
            assert!(until_draining(sleep_forever()).await?.is_none());
            wait_draining().await?;
            Ok(served)
        });
        let served = served.await?.expect("it was not cancelled");
        assert!((2..=3).contains(&served), "{served}");
        Ok(())
    })
    .await?;
    assert_eq!(current_time() - start, secs(3));
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn dr2_what_has_happened_is_returned_and_errors_pass() -> Result<()> {
    let scope = CancelScope::new();
    scope.drain(Duration::MAX, "");
    let ended = scope.enter(async {
        let won = until_draining(async {
            cancel_shielded_checkpoint().await;
            Ok(7)
        });
        assert_eq!(won.await?, Some(7));
        let result = until_draining(async { Err::<(), _>(Error::msg("broken")) }).await;
        assert_eq!(failure(result), "broken");
        let told = Cell::new(None);
        let asked = until_draining(async {
            let error = sleep_forever().await.unwrap_err();
            told.set(error.as_cancelled().map(|cancelled| cancelled.source()));
            Err::<(), _>(error)
        });
        assert!(asked.await?.is_none());
        assert_eq!(told.get(), Some(CancelSource::Drain));
        Ok(())
    });
    assert_eq!(ended.await?, Some(()));
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn dr3_the_scope_is_cancelled_when_the_grace_period_is_over() -> Result<()> {
    let start = current_time();
    let scope = CancelScope::new();
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            sleep(secs(1)).await?;
            scope.drain(secs(10), "");
            scope.drain(secs(4), "a later one may shorten it");
            scope.drain(secs(20), "and not lengthen it");
            Ok(())
        });
        assert!(scope.enter(sleep_forever()).await?.is_none());
        Ok(())
    })
    .await?;
    assert_eq!(current_time() - start, secs(5));
    assert!(scope.cancelled_caught());

    let scope = CancelScope::with_timeout(secs(2));
    let ended = scope.enter(async {
        scope.drain(secs(10), "an earlier deadline stays");
        sleep_forever().await
    });
    assert!(ended.await?.is_none());
    assert_eq!(current_time() - start, secs(7));
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn dr4_it_reaches_scopes_nurseries_and_tasks_inside_and_nothing_around() -> Result<()> {
    let (outer, inner) = (CancelScope::new(), CancelScope::new());
    let both = outer.enter(async {
        inner.drain(Duration::MAX, "");
        assert!(!is_draining());
        inner
            .enter(open_nursery(async |nursery| {
                nursery.start_soon(async {
                    assert!(is_draining());
                    move_on_after(secs(1), wait_draining()).await?;
                    Ok(())
                });
                Ok(())
            }))
            .await?;
        assert!(!is_draining());
        outer.drain(Duration::MAX, "");
        assert!(is_draining());
        wait_draining().await
    });
    assert_eq!(both.await?, Some(()));
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn dr5_a_shield_keeps_it_out_until_it_is_lowered() -> Result<()> {
    let start = current_time();
    let scope = CancelScope::new();
    let shield = CancelScope::new().shielded();
    scope.drain(Duration::MAX, "");
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            sleep(secs(3)).await?;
            shield.set_shield(false);
            Ok(())
        });
        let ended = scope.enter(shield.enter(async {
            assert!(!is_draining());
            wait_draining().await?;
            assert!(is_draining());
            Ok(())
        }));
        assert_eq!(ended.await?, Some(Some(())));
        Ok(())
    })
    .await?;
    assert_eq!(current_time() - start, secs(3));
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn dr5_helpers_of_a_service_nursery_are_not_asked_before_the_body_has_ended() -> Result<()> {
    let scope = CancelScope::new();
    let early = Cell::new(true);
    scope.drain(Duration::MAX, "");
    let ended = scope.enter(open_service_nursery(async |nursery| {
        nursery.start_soon(async {
            let result = wait_draining().await;
            assert!(!early.get());
            result
        });
        sleep(secs(1)).await?;
        assert!(is_draining());
        early.set(false);
        Ok(())
    }));
    assert_eq!(ended.await?, Some(()));
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn dr6_whoever_is_cancelled_is_draining_too() -> Result<()> {
    let scope = CancelScope::new();
    scope.cancel("");
    let ended = scope.enter(async {
        assert!(is_draining());
        assert_eq!(failure(until_draining(sleep_forever()).await), "cancelled");
        wait_draining().await
    });
    assert!(ended.await?.is_none());
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn dr6_before_entry_the_period_counts_from_entry_and_the_first_reason_stays() -> Result<()> {
    let scope = CancelScope::new();
    scope.drain(secs(9), "the first");
    scope.drain(secs(3), "the second");
    sleep(secs(100)).await?;
    let start = current_time();
    let reason = Cell::new(None);
    let ended = scope.enter(async {
        let told = until_draining(async {
            let error = sleep_forever().await.unwrap_err();
            let cancelled = error.as_cancelled().expect("it is one");
            reason.set(cancelled.reason().map(str::to_owned));
            Err::<(), _>(error)
        });
        told.await?;
        sleep_forever().await
    });
    assert!(ended.await?.is_none());
    assert_eq!(current_time() - start, secs(3));
    assert_eq!(reason.take().as_deref(), Some("the first"));
    scope.drain(secs(1), "it has been left");
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn dr7_a_started_task_that_moves_under_a_draining_nursery_is_asked() -> Result<()> {
    open_nursery(async |nursery| {
        nursery.cancel_scope().drain(Duration::MAX, "");
        let elsewhere = CancelScope::new().shielded();
        let start = nursery.start(async |status| {
            let waiting = async {
                open_nursery(async |inner| {
                    inner.start_soon(wait_draining());
                    wait_all_tasks_blocked(secs(0)).await?;
                    assert!(!is_draining());
                    status.started(())?;
                    Ok(())
                })
                .await
            };
            waiting.await?;
            assert!(is_draining());
            Ok(())
        });
        elsewhere.enter(start).await?;
        Ok(())
    })
    .await
}

// Clean-up.

#[trio::test(backend = "all", clock = "autojump")]
async fn cu1_cleaning_up_works_in_a_cancelled_scope_and_is_bounded() -> Result<()> {
    let start = current_time();
    let ended = move_on_after(secs(1), async {
        let result = sleep_forever().await;
        let short = cleanup(secs(5), async {
            assert!(is_draining());
            sleep(secs(2)).await?;
            Ok("goodbye")
        });
        assert_eq!(short.await?, Some("goodbye"));
        assert_eq!(current_time() - start, secs(3));
        assert!(cleanup(secs(5), sleep_forever()).await?.is_none());
        assert_eq!(current_time() - start, secs(8));
        assert_eq!(failure(checkpoint().await), "cancelled");
        result
    });
    assert!(ended.await?.is_none());
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn cu2_timeouts_can_be_shielded() -> Result<()> {
    let start = current_time();
    let ended = move_on_after(secs(1), async {
        let result = sleep_forever().await;
        assert!(
            move_on_after(secs(2), sleep_forever())
                .shielded()
                .await?
                .is_none()
        );
        let slow = fail_after(secs(2), sleep_forever()).shielded().await;
        assert!(slow.is_err_and(|error| error.is::<TooSlow>()));
        assert_eq!(fail_after(secs(9), sleep(secs(1))).shielded().await?, ());
        result
    });
    assert!(ended.await?.is_none());
    assert_eq!(current_time() - start, secs(6));
    Ok(())
}

// Idleness.

#[trio::test(backend = "all", clock = "autojump")]
async fn id1_progress_lets_the_time_count_anew() -> Result<()> {
    let start = current_time();
    let steps = Cell::new(0);
    let moving = fail_if_idle(secs(3), async |progress| {
        for _ in 0..10 {
            sleep(secs(2)).await?;
            progress.made();
            steps.set(steps.get() + 1);
        }
        sleep(secs(5)).await
    });
    assert!(moving.await.is_err_and(|error| error.is::<TooSlow>()));
    assert_eq!((steps.get(), current_time() - start), (10, secs(23)));

    let ended = move_on_if_idle(secs(3), async |mut progress| {
        sleep(secs(2)).await?;
        progress.made_and_allow(secs(60));
        sleep(secs(50)).await?;
        Ok("done")
    });
    assert_eq!(ended.await?, Some("done"));
    assert!(
        move_on_if_idle(secs(3), async |_| sleep_forever().await)
            .await?
            .is_none()
    );
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn l7_idleness_tells_where_progress_was_made_last() -> Result<()> {
    #[track_caller]
    fn check(ended: Result<()>, line: u32) {
        let slow = ended.expect_err("nothing moves").downcast::<TooSlow>();
        let place = slow.expect("that is the error").place();
        let told = place.map(|place| (place.file(), place.line()));
        assert_eq!(told, Some((file!(), line)));
    }
    let never = fail_if_idle(secs(1), async |_| sleep_forever().await);
    check(never.await, line!() - 1);
    let line = line!() + 4;
    let stuck = fail_if_idle(secs(1), async |mut progress| {
        progress.made();
        sleep(secs(1) / 2).await?;
        progress.made_and_allow(secs(2));
        sleep_forever().await
    });
    check(stuck.await, line);
    let line = line!() + 1;
    let over = move_on_if_idle(secs(1), async |_| {
        let error = sleep_forever().await.expect_err("nothing moves");
        let place = error.as_cancelled().and_then(|cancelled| cancelled.place());
        assert_eq!(place.map(|place| place.line()), Some(line));
        Err::<(), _>(error)
    });
    assert!(over.await?.is_none());
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn id2_a_cancel_from_around_is_no_idleness() -> Result<()> {
    let scope = CancelScope::with_timeout(secs(1));
    let ended = scope
        .enter(fail_if_idle(secs(5), async |_| sleep_forever().await))
        .await?;
    assert!(ended.is_none());
    Ok(())
}
