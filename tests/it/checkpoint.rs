//! Checkpoints: where a task is cancelled, and where it lets others run (C).

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;

use trio::lowlevel::{
    cancel_shielded_checkpoint, cancellable, checkpoint_if_cancelled, driver_statistics,
    enter_operation,
};
use trio::testing::{MockClock, wait_all_tasks_blocked};
use trio::{
    Builder, CancelScope, Result, Time, checkpoint, current_time, move_on_after,
    open_memory_channel, open_nursery, sleep, sleep_forever, sleep_until,
};

use crate::support::{connection, failure, foreign_thread, secs};

/// A scope that has been cancelled but not entered.
fn cancelled() -> CancelScope {
    let scope = CancelScope::new();
    scope.cancel("");
    scope
}

/// Whether `operation` reports a cancellation in a scope that has been cancelled.
async fn is_cancel_point(operation: impl Future<Output = Result<()>>) -> bool {
    let scope = cancelled();
    let result = scope.enter(operation).await;
    assert!(result.is_ok(), "nothing else can go wrong: {result:?}");
    scope.cancelled_caught()
}

#[trio::test(backend = "all", clock = "autojump")]
async fn c1_every_operation_looks_for_a_cancel_even_if_it_need_not_wait() -> Result<()> {
    assert!(is_cancel_point(checkpoint()).await);
    assert!(is_cancel_point(sleep(secs(0))).await);
    assert!(is_cancel_point(sleep(secs(1))).await);
    assert!(is_cancel_point(sleep_until(Time::PAST)).await);
    assert!(is_cancel_point(sleep_forever()).await);
    assert!(is_cancel_point(enter_operation()).await);
    assert!(is_cancel_point(wait_all_tasks_blocked(secs(0))).await);
    assert!(is_cancel_point(checkpoint_if_cancelled()).await);
    open_nursery(async |nursery| {
        let mut handle = nursery.spawn(async { Ok(7) });
        checkpoint().await?;
        assert!(handle.is_finished());
        let scope = cancelled();
        assert_eq!(scope.enter(handle.join()).await?, None);
        assert_eq!(
            handle.join().await?,
            7,
            "the cancelled join has taken nothing"
        );
        Ok(())
    })
    .await
}

#[trio::test(backend = "all")]
async fn c1_streams_look_for_a_cancel_with_the_data_at_hand() -> Result<()> {
    let (mut here, there) = connection().await?;
    there.send_all(b"data").await?;
    // Whatever the driver does on its own, the bytes are there now.
    let mut buffer = [0; 16];
    assert_eq!(here.receive_some(&mut buffer[..1]).await?, 1);

    assert!(is_cancel_point(async { here.receive().await.map(drop) }).await);
    assert!(is_cancel_point(async { here.send_all(b"x").await }).await);
    assert!(is_cancel_point(async { here.send_eof().await }).await);
    assert_eq!(here.receive_some(&mut buffer).await?, 3);
    assert_eq!(&buffer[..3], b"ata");
    trio::aclose_forcefully(&mut here).await?;
    assert!(there.receive().await?.is_none(), "nothing was sent");
    Ok(())
}

/// How many operations a task completes before its sibling runs again.
async fn operations_in_one_turn() -> Result<u32> {
    let most = Cell::new(0);
    let count = Cell::new(0);
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            for _ in 0..1000 {
                enter_operation().await?;
                count.set(count.get() + 1);
            }
            Ok(())
        });
        for _ in 0..100 {
            checkpoint().await?;
            most.set(most.get().max(count.take()));
        }
        Ok(())
    })
    .await?;
    Ok(most.get())
}

#[trio::test]
async fn c1_a_task_yields_when_it_has_used_up_its_budget() -> Result<()> {
    assert_eq!(operations_in_one_turn().await?, 128);
    Ok(())
}

#[trio::test(backend = "all")]
async fn c1_operations_that_need_not_wait_share_a_look_at_the_system() -> Result<()> {
    const ROUNDS: u64 = 1280;
    let (send, receive) = open_memory_channel(1);
    let before = driver_statistics().enters;
    for round in 0..ROUNDS {
        send.send(round).await?;
        assert_eq!(receive.receive().await?, round);
    }
    let looks = driver_statistics().enters - before;
    // Two operations a round, and at most one system call in each turn.
    assert!(looks <= 2 * ROUNDS / 128 + 1, "{looks}");
    Ok(())
}

#[trio::test]
async fn c2_what_is_not_asynchronous_works_in_a_cancelled_scope() -> Result<()> {
    let ran = Cell::new(false);
    let scope = cancelled();
    let value = scope
        .enter(async {
            open_nursery(async |nursery| {
                nursery.start_soon(async {
                    ran.set(true);
                    Ok(())
                });
                nursery.cancel_scope().set_deadline(current_time());
                nursery.cancel_scope().set_shield(false);
                let inner = CancelScope::new();
                inner.cancel("also");
                assert!(inner.cancel_called());
                Ok(())
            })
            .await?;
            Ok("not a checkpoint in it")
        })
        .await?;
    assert_eq!(value, Some("not a checkpoint in it"));
    assert!(ran.get());
    assert!(!scope.cancelled_caught());
    Ok(())
}

#[trio::test]
async fn c4_a_nursery_without_a_checkpoint_in_it_is_none_either() -> Result<()> {
    assert!(!is_cancel_point(open_nursery(async |_| Ok(()))).await);
    let child = open_nursery(async |nursery| {
        nursery.start_soon(async { Ok(()) });
        Ok(())
    });
    assert!(!is_cancel_point(child).await);
    Ok(())
}

#[trio::test]
async fn c4_an_error_of_the_body_comes_out_of_a_cancelled_scope() {
    let result = cancelled()
        .enter(open_nursery(async |_| crate::support::oops::<()>("body")))
        .await;
    assert_eq!(failure(result), "[body]");
}

#[trio::test(backend = "all")]
async fn c5_cancelled_means_that_nothing_was_received() -> Result<()> {
    let (here, there) = connection().await?;
    let scope = CancelScope::new();
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            let received = scope.enter(async { here.receive().await }).await?;
            assert!(received.is_none(), "there was nothing to receive");
            Ok(())
        });
        checkpoint().await?;
        checkpoint().await?;
        scope.cancel("");
        Ok(())
    })
    .await?;
    assert!(scope.cancelled_caught());
    there.send_all(b"late").await?;
    let data = here.receive().await?;
    assert_eq!(data.as_deref(), Some(&b"late"[..]));
    Ok(())
}

#[trio::test]
async fn c5_a_value_that_came_before_the_cancel_is_returned() -> Result<()> {
    let scope = CancelScope::new();
    open_nursery(async |nursery| {
        let mut handle = nursery.spawn(async {
            checkpoint().await?;
            Ok(7)
        });
        nursery.start_soon(async {
            checkpoint().await?;
            // In the turn in which the sibling before this one ended.
            scope.cancel("too late for the value");
            Ok(())
        });
        let joined = scope
            .enter(async {
                assert_eq!(handle.join().await?, 7);
                assert_eq!(failure(checkpoint().await), "cancelled");
                Ok(())
            })
            .await?;
        assert_eq!(joined, Some(()));
        Ok(())
    })
    .await
}

#[test]
fn c6_a_checkpoint_sees_a_deadline_that_has_just_passed() {
    async fn check(operation: impl Future<Output = Result<()>>, clock: &MockClock) {
        let scope = CancelScope::with_timeout(secs(1));
        let ended = scope
            .enter(async {
                clock.jump(secs(2));
                operation.await
            })
            .await;
        assert!(matches!(ended, Ok(None)), "{ended:?}");
    }
    let clock = MockClock::new();
    Builder::new().clock(clock.clone()).run(async {
        check(checkpoint(), &clock).await;
        check(sleep(secs(0)), &clock).await;
        check(sleep_until(Time::PAST), &clock).await;
    });
}

#[trio::test]
async fn c6_a_checkpoint_always_lets_others_run() -> Result<()> {
    let steps = Cell::new(0);
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            loop {
                cancel_shielded_checkpoint().await;
                steps.set(steps.get() + 1);
                checkpoint_if_cancelled().await?;
            }
        });
        checkpoint().await?;
        checkpoint().await?;
        for before in steps.get()..10 {
            assert_eq!(steps.get(), before);
            checkpoint().await?;
        }
        assert_eq!(steps.get(), 10, "one step each for one checkpoint each");
        nursery.cancel_scope().cancel("");
        Ok(())
    })
    .await
}

#[trio::test]
async fn c6_the_halves_of_a_checkpoint_are_one_thing_each() -> Result<()> {
    assert!(is_cancel_point(checkpoint_if_cancelled()).await);
    let shielded = async {
        cancel_shielded_checkpoint().await;
        Ok(())
    };
    assert!(!is_cancel_point(shielded).await);

    let others = Cell::new(0);
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            others.set(others.get() + 1);
            Ok(())
        });
        checkpoint_if_cancelled().await?;
        assert_eq!(others.get(), 0, "looking does not yield");
        cancel_shielded_checkpoint().await;
        assert_eq!(others.get(), 1, "the other half does");
        Ok(())
    })
    .await
}

#[trio::test(backend = "all")]
async fn c7_a_cancelled_send_all_has_sent_a_part_from_the_front() -> Result<()> {
    let (here, there) = connection().await?;
    let sent = (0..=250).collect::<Vec<u8>>().repeat(64 << 10);
    let scope = CancelScope::new();
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            let done = scope.enter(here.send_all(&sent)).await?;
            assert_eq!(done, None, "more than any socket holds");
            drop(here);
            Ok(())
        });
        // A first part has arrived, so the sender is in the middle.
        let mut received = there
            .receive()
            .await?
            .map(|data| data.to_vec())
            .unwrap_or_default();
        scope.cancel("");
        while let Some(data) = there.receive().await? {
            received.extend_from_slice(&data);
        }
        assert!(received.len() < sent.len());
        assert!(received[..] == sent[..received.len()], "it is a prefix");
        Ok(())
    })
    .await
}

#[trio::test(backend = "all")]
async fn c8_a_cancelled_close_closes() -> Result<()> {
    let (here, there) = connection().await?;
    let scope = cancelled();
    let closed = scope.enter(here.aclose()).await?;
    assert_eq!(closed, None);
    assert!(scope.cancelled_caught());
    assert!(
        there.receive().await?.is_none(),
        "the other side sees the end"
    );
    here.aclose().await?;
    here.aclose().await?;
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn c9_a_future_of_others_ends_with_the_scope() -> Result<()> {
    let (sender, mut receiver) = futures::channel::oneshot::channel::<u8>();
    let waited = move_on_after(secs(1), cancellable(&mut receiver)).await?;
    assert_eq!(waited, None);
    // It was only borrowed, so it can be awaited again.
    sender.send(7).unwrap();
    let waited = move_on_after(secs(1), cancellable(&mut receiver)).await?;
    assert_eq!(waited, Some(Ok(7)));
    Ok(())
}

#[trio::test]
async fn c9_a_future_of_others_is_dropped_by_the_cancellation() -> Result<()> {
    let held = Rc::new(());
    let holder = held.clone();
    let scope = CancelScope::new();
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            let waited = scope.enter(cancellable(async move {
                std::future::pending::<()>().await;
                drop(holder);
            }));
            assert_eq!(waited.await?, None);
            assert_eq!(Rc::strong_count(&held), 1);
            Ok(())
        });
        wait_all_tasks_blocked(secs(0)).await?;
        assert_eq!(Rc::strong_count(&held), 2);
        scope.cancel("enough");
        Ok(())
    })
    .await
}

#[trio::test]
async fn c9_a_future_of_others_that_is_ready_goes_first() -> Result<()> {
    let scope = CancelScope::new();
    // It cancels the scope that it is in, and is ready in the same poll: its output counts.
    let ready = scope.enter(cancellable(async { scope.cancel("by itself") }));
    assert_eq!(ready.await?, Some(()));
    // The same, but it is not ready.
    let scope = CancelScope::new();
    let never = scope.enter(cancellable(async {
        scope.cancel("by itself");
        std::future::pending::<()>().await;
    }));
    assert_eq!(never.await?, None);
    // It is a cancel point: in a cancelled scope, the future is not polled at all.
    let scope = CancelScope::new();
    scope.cancel("before");
    let begun = Cell::new(false);
    let late = scope.enter(cancellable(async { begun.set(true) }));
    assert_eq!(late.await?, None);
    assert!(!begun.get());
    Ok(())
}

#[trio::test]
async fn c9_a_future_of_others_is_woken_from_any_thread() -> Result<()> {
    let (sender, receiver) = futures::channel::oneshot::channel::<u8>();
    let thread = foreign_thread(move || sender.send(3));
    assert_eq!(cancellable(receiver).await?, Ok(3));
    thread.join().unwrap().unwrap();
    Ok(())
}
