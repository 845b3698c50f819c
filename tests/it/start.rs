//! Starting a child and waiting until it is ready (T).

use std::cell::Cell;
use std::future::Future;

use trio::testing::wait_all_tasks_blocked;
use trio::{
    CancelScope, ClosedResource, Error, Result, TaskStatus, Usage, checkpoint, current_time,
    move_on_after, open_nursery, sleep, sleep_forever,
};

use crate::support::{failure, oops, secs};

/// Ready after two seconds, with the value, and ends two seconds later.
async fn two_and_two(status: TaskStatus<u32>) -> Result<()> {
    sleep(secs(2)).await?;
    status.started(21)?;
    sleep(secs(2)).await
}

#[trio::test(backend = "all", clock = "autojump")]
async fn t2_start_returns_the_value_and_the_nursery_waits_for_the_rest() -> Result<()> {
    let start = current_time();
    open_nursery(async |nursery| {
        let value = nursery.start(two_and_two).await?;
        assert_eq!(value, 21);
        assert_eq!(current_time() - start, secs(2));
        assert_eq!(nursery.child_count(), 1);
        Ok(())
    })
    .await?;
    assert_eq!(current_time() - start, secs(4));
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn t2_a_function_that_can_be_started_can_be_awaited_as_well() -> Result<()> {
    let start = current_time();
    two_and_two(TaskStatus::ignored()).await?;
    assert_eq!(current_time() - start, secs(4));
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn t2_scopes_around_the_call_apply_until_the_child_has_started() -> Result<()> {
    let start = current_time();
    open_nursery(async |nursery| {
        let slow = move_on_after(secs(1), nursery.start(two_and_two)).await?;
        assert_eq!(slow, None, "cancelled before it had started");
        assert_eq!(current_time() - start, secs(1));
        let quick = move_on_after(secs(3), nursery.start(two_and_two)).await?;
        assert_eq!(quick, Some(21));
        Ok(())
    })
    .await?;
    assert_eq!(current_time() - start, secs(5), "and not afterwards");
    Ok(())
}

#[trio::test]
async fn t2_errors_before_started_come_out_of_the_call_and_leave_the_nursery_alone() -> Result<()> {
    open_nursery(async |nursery| {
        let sibling = nursery.spawn(sleep_forever());
        let result = nursery.start::<(), _, _>(async |_| oops("early")).await;
        assert_eq!(failure(result), "early");
        checkpoint().await?;
        assert!(!nursery.cancel_scope().cancel_called());
        assert!(!sibling.is_finished());
        nursery.cancel_scope().cancel("");
        Ok(())
    })
    .await
}

/// Ready after this many seconds, and ends after as many again.
async fn twice(seconds: u64, status: TaskStatus<()>) -> Result<()> {
    sleep(secs(seconds)).await?;
    status.started(())?;
    sleep(secs(seconds)).await
}

#[trio::test(clock = "autojump")]
async fn t3_a_start_that_is_pending_keeps_the_nursery_open() -> Result<()> {
    let start = current_time();
    open_nursery(async |nursery| {
        for seconds in [1, 3] {
            nursery.start_soon(nursery.start(move |status| twice(seconds, status)));
        }
        Ok(())
    })
    .await?;
    assert_eq!(current_time() - start, secs(6));
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn t3_also_if_the_child_fails_in_the_end() -> Result<()> {
    let start = current_time();
    let result = open_nursery(async |nursery| {
        nursery.start_soon(async {
            nursery.start(|status| twice(1, status)).await?;
            nursery
                .start::<(), _, _>(async |_| {
                    sleep(secs(6)).await?;
                    oops("in the end")
                })
                .await
        });
        Ok(())
    })
    .await;
    assert_eq!(failure(result), "[in the end]");
    assert_eq!(current_time() - start, secs(7));
    Ok(())
}

/// Starts a child with a sleeping child of its own in a nursery that is cancelled just before the
/// child reports, or just after; returns how many are woken.
async fn start_in_a_cancelled_nursery(cancel_first: bool) -> Result<u32> {
    let woken = Cell::new(0);
    let notice = async || {
        let result = sleep_forever().await;
        woken.set(woken.get() + 1);
        result
    };
    open_nursery(async |nursery| {
        let child = async |status: TaskStatus<()>| {
            open_nursery(async |inner| {
                inner.start_soon(notice());
                inner.start_soon(async {
                    let scope = CancelScope::new();
                    scope.enter(notice()).await.map(drop)
                });
                wait_all_tasks_blocked(secs(0)).await?;
                if cancel_first {
                    nursery.cancel_scope().cancel("first");
                    status.started(())?;
                } else {
                    status.started(())?;
                    nursery.cancel_scope().cancel("afterwards");
                }
                assert_eq!(failure(checkpoint().await), "cancelled");
                Ok(())
            })
            .await
        };
        // The call itself is out of reach of the nursery's cancellation.
        let shield = CancelScope::new().shielded();
        let started = shield.enter(nursery.start(child)).await?;
        assert_eq!(started, Some(()));
        Ok(())
    })
    .await?;
    Ok(woken.get())
}

#[trio::test]
async fn t4_started_moves_the_child_under_the_nursery_with_all_that_sleeps_in_it() -> Result<()> {
    assert_eq!(start_in_a_cancelled_nursery(true).await?, 2);
    assert_eq!(start_in_a_cancelled_nursery(false).await?, 2);
    Ok(())
}

#[trio::test]
async fn t4_the_value_may_be_nothing_or_a_borrow() -> Result<()> {
    let word = "around".to_owned();
    open_nursery(async |nursery| {
        let nothing: () = nursery.start(async |status| status.started(())).await?;
        assert_eq!(nothing, ());
        let lent: &str = nursery
            .start(async |status| status.started(word.as_str()))
            .await?;
        assert_eq!(lent, "around");
        Ok(())
    })
    .await
}

#[trio::test(clock = "autojump")]
async fn t5_a_report_in_a_cancelled_call_is_in_vain() -> Result<()> {
    let moved = &Cell::new(false);
    open_nursery(async |nursery| {
        let scope = CancelScope::new();
        let stop = scope.clone();
        let ended = scope
            .enter(nursery.start(async move |status| {
                stop.cancel("");
                status.started(())?;
                moved.set(nursery.child_count() > 0);
                sleep_forever().await
            }))
            .await?;
        assert_eq!(ended, None, "the call ends as the child does: cancelled");
        assert!(!moved.get());

        // Without another checkpoint, the child has a value for the call.
        let scope = CancelScope::new();
        let stop = scope.clone();
        let ended = scope
            .enter(nursery.start(async move |status| {
                stop.cancel("");
                status.started("value")
            }))
            .await?;
        assert_eq!(ended, Some("value"));
        assert!(!scope.cancelled_caught());

        // And if it fails afterwards, the call returns the error.
        let scope = CancelScope::new();
        let stop = scope.clone();
        let result = scope
            .enter(nursery.start(async move |status| {
                stop.cancel("");
                status.started(())?;
                oops("afterwards")
            }))
            .await;
        assert_eq!(failure(result), "afterwards");
        assert!(!nursery.cancel_scope().cancel_called());
        Ok(())
    })
    .await
}

#[trio::test]
async fn t6_started_may_be_called_once() -> Result<()> {
    let result = open_nursery(async |nursery| {
        nursery
            .start(async |status| {
                status.started(1)?;
                let twice = status.started(2).expect_err("it has been called");
                assert!(twice.is::<Usage>());
                Err(twice)
            })
            .await
    })
    .await;
    assert_eq!(
        failure(result),
        "[`started` was called twice on the same task status]"
    );
    Ok(())
}

#[trio::test]
async fn t7_a_child_that_ends_without_a_report_is_a_mistake() -> Result<()> {
    open_nursery(async |nursery| {
        let result = nursery.start::<(), _, _>(async |_| Ok(())).await;
        let error = result.expect_err("nothing was reported");
        assert!(error.is::<Usage>());
        assert_eq!(
            error.to_string(),
            "the task ended without calling `started` on its task status"
        );
        Ok(())
    })
    .await
}

#[trio::test]
async fn t9_a_child_counts_when_it_has_started() -> Result<()> {
    open_nursery(async |nursery| {
        nursery
            .start(async |status| {
                checkpoint().await?;
                assert_eq!(nursery.child_count(), 0);
                status.started(())?;
                checkpoint().await?;
                assert_eq!(nursery.child_count(), 1);
                Ok(())
            })
            .await
    })
    .await
}

#[trio::test(clock = "autojump")]
async fn t10_a_failure_after_started_is_the_nurserys() -> Result<()> {
    let returned = Cell::new(false);
    let result = open_nursery(async |nursery| {
        nursery
            .start(async |status| {
                status.started(())?;
                sleep(secs(1)).await?;
                oops("late")
            })
            .await?;
        returned.set(true);
        let result = sleep_forever().await;
        assert!(result.as_ref().is_err_and(Error::is_cancelled));
        result
    })
    .await;
    assert!(returned.get());
    assert_eq!(failure(result), "[late]");
    Ok(())
}

#[trio::test]
async fn t10_also_if_it_fails_in_the_same_breath() -> Result<()> {
    let result = open_nursery(async |nursery| {
        let started = nursery
            .start(async |status| {
                status.started("started")?;
                oops("at once")
            })
            .await?;
        assert_eq!(started, "started");
        sleep_forever().await
    })
    .await;
    assert_eq!(failure(result), "[at once]");
    Ok(())
}

#[trio::test]
async fn t11_a_call_that_is_dropped_drops_a_child_that_has_not_started_and_no_other() -> Result<()>
{
    let (first, second) = (Cell::new(0), Cell::new(0));
    open_nursery(async |nursery| {
        for (count, ready) in [(&first, false), (&second, true)] {
            let mut starting = Box::pin(nursery.start(async move |status| {
                count.set(1);
                if ready {
                    status.started(())?;
                }
                checkpoint().await?;
                count.set(2);
                Ok(())
            }));
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            assert!(starting.as_mut().poll(&mut context).is_pending());
            checkpoint().await?;
            let polled = starting.as_mut().poll(&mut context);
            assert_eq!(count.get(), 1);
            assert_eq!(polled.is_ready(), ready);
        }
        Ok(())
    })
    .await?;
    assert_eq!((first.get(), second.get()), (1, 2));
    Ok(())
}

// T12: into a nursery that is cancelled, from a place that its cancellation does not reach.

/// Starts what `task` returns under a shield, in a nursery that fails after a second.
async fn start_shielded<R>(task: impl FnOnce(TaskStatus<u8>) -> R) -> (String, Option<Result<u8>>)
where
    R: Future<Output = Result<()>>,
{
    let mut started = None;
    let result = open_nursery(async |nursery| {
        nursery.start_soon(async {
            sleep(secs(1)).await?;
            oops("broken")
        });
        let shield = CancelScope::new().shielded();
        let start = async { Ok(nursery.start(task).await) };
        started = shield.enter(start).await?;
        checkpoint().await
    })
    .await;
    (failure(result), started)
}

#[trio::test(backend = "all", clock = "autojump")]
async fn t12_a_nursery_that_fails_does_not_wait_for_a_start_that_nobody_has_told() -> Result<()> {
    let start = current_time();
    let cleaned = Cell::new(false);
    let (error, started) = start_shielded(async |_| {
        let result = sleep_forever().await;
        cleaned.set(true);
        result
    })
    .await;
    assert_eq!(error, "[broken]");
    let refused = started.expect("it was not cancelled").unwrap_err();
    assert!(refused.is::<ClosedResource>(), "{refused}");
    assert!(cleaned.get());
    assert_eq!(current_time() - start, secs(1));
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn t12_a_report_after_that_has_no_effect_and_an_error_comes_out() -> Result<()> {
    let (_, started) = start_shielded(async |status| {
        drop(sleep_forever().await);
        status.started(7)
    })
    .await;
    assert_eq!(started.expect("it was not cancelled")?, 7, "it ended well");
    let (_, started) = start_shielded(async |_| {
        drop(sleep_forever().await);
        oops("while cleaning up")
    })
    .await;
    assert_eq!(
        failure(started.expect("it was not cancelled")),
        "while cleaning up"
    );
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn t12_in_a_nursery_that_is_cancelled_already_it_runs_to_its_first_cancel_point() -> Result<()>
{
    let begun = Cell::new(false);
    open_nursery(async |nursery| {
        nursery.cancel_scope().cancel("");
        let shield = CancelScope::new().shielded();
        let start = shield.enter(nursery.start::<(), _, _>(async |_| {
            begun.set(true);
            sleep_forever().await
        }));
        assert!(start.await.is_err_and(|error| error.is::<ClosedResource>()));
        Ok(())
    })
    .await?;
    assert!(begun.get());
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn t12_whoever_is_cancelled_with_the_nursery_hears_of_that() -> Result<()> {
    let result = open_nursery(async |nursery| {
        nursery.start_soon(async {
            sleep(secs(1)).await?;
            oops("broken")
        });
        let start = nursery.start::<(), _, _>(async |_| sleep_forever().await);
        let error = start.await.unwrap_err();
        assert!(error.is_cancelled());
        Err::<(), _>(error)
    })
    .await;
    assert_eq!(failure(result), "[broken]");
    Ok(())
}
