//! Locks and events: order, hand-off, and what a cancel, a drop or a leak does to them.

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::Rc;

use futures::FutureExt;
use trio::sync::{Event, Lock, StrictFifoLock};
use trio::testing::wait_all_tasks_blocked;
use trio::{CancelScope, Result, checkpoint, open_nursery, sleep_forever};

use crate::support::{begin, failure, oops, secs};

#[trio::test]
async fn f1_whoever_has_waited_longest_has_the_lock_before_the_release_returns() -> Result<()> {
    let lock = Lock::new(Vec::new());
    open_nursery(async |nursery| {
        let guard = lock.acquire().await?;
        for n in 0..5 {
            let lock = &lock;
            nursery.start_soon(async move {
                let mut order = lock.acquire().await?;
                order.push(n);
                checkpoint().await
            });
        }
        wait_all_tasks_blocked(secs(0)).await?;
        assert_eq!(lock.statistics().tasks_waiting, 5);
        drop(guard);
        // It has been handed over: nobody gets in between, not even the task that has just released
        // it.
        assert!(lock.is_locked());
        assert!(lock.try_acquire().is_err());
        assert_eq!(lock.statistics().tasks_waiting, 4);
        let late = lock.acquire().await?;
        assert_eq!(*late, [0, 1, 2, 3, 4]);
        Ok(())
    })
    .await?;
    assert!(!lock.is_locked());
    Ok(())
}

#[trio::test]
async fn f2_who_is_cancelled_leaves_the_queue_and_is_handed_nothing() -> Result<()> {
    let lock = Lock::new(Vec::new());
    let scope = CancelScope::new();
    open_nursery(async |nursery| {
        let guard = lock.acquire().await?;
        for n in 0..4 {
            let (lock, scope) = (&lock, scope.clone());
            nursery.start_soon(async move {
                let work = async {
                    lock.acquire().await?.push(n);
                    Ok(())
                };
                match n {
                    0 => scope.enter(work).await.map(drop),
                    _ => work.await,
                }
            });
            checkpoint().await?;
        }
        wait_all_tasks_blocked(secs(0)).await?;
        // The first in the queue is cancelled, and in the same step the lock is released.
        scope.cancel("");
        assert_eq!(lock.statistics().tasks_waiting, 3);
        drop(guard);
        Ok(())
    })
    .await?;
    assert!(scope.cancelled_caught());
    assert_eq!(lock.into_inner(), [1, 2, 3]);
    Ok(())
}

#[trio::test]
async fn r1_a_lock_that_was_handed_over_before_the_cancel_is_returned() -> Result<()> {
    let lock = Lock::new(());
    let scope = CancelScope::new();
    let had = Cell::new(false);
    open_nursery(async |nursery| {
        let guard = lock.acquire().await?;
        nursery.start_soon(async {
            let inside = async {
                let _guard = lock.acquire().await?;
                had.set(true);
                assert_eq!(failure(checkpoint().await), "cancelled");
                Ok(())
            };
            scope.enter(inside).await.map(drop)
        });
        wait_all_tasks_blocked(secs(0)).await?;
        drop(guard);
        scope.cancel("too late");
        Ok(())
    })
    .await?;
    assert!(had.get());
    assert!(!lock.is_locked());
    Ok(())
}

#[trio::test]
async fn k1_a_guard_releases_the_lock_however_its_task_ends() -> Result<()> {
    let lock = StrictFifoLock::new(());
    let hold = async |how: fn() -> Result<()>| {
        let _guard = lock.acquire().await?;
        checkpoint().await?;
        how()
    };
    assert_eq!(failure(hold(|| oops("failed")).await), "failed");
    assert!(!lock.is_locked());

    let scope = CancelScope::new();
    let cut_short = scope.enter(async {
        let _guard = lock.acquire().await?;
        scope.cancel("");
        sleep_forever().await
    });
    assert_eq!(cut_short.await?, None);
    assert!(!lock.is_locked());

    let panics = std::panic::AssertUnwindSafe(hold(|| panic!("on purpose")));
    assert!(panics.catch_unwind().await.is_err());
    assert!(lock.try_acquire().is_ok(), "there is no poison");

    let mut dropped = pin!(hold(|| Ok(())));
    begin(&mut dropped).await;
    assert!(lock.is_locked());
    Ok(())
}

#[trio::test]
async fn k1_statistics_tell_where_the_lock_was_asked_for() -> Result<()> {
    let lock = Lock::new(());
    let owner = || {
        let owner = lock.statistics().owner;
        owner.map(|place| (place.file(), place.line()))
    };
    assert_eq!(owner(), None);
    let line = line!() + 1;
    let guard = lock.acquire().await?;
    assert_eq!(owner(), Some((file!(), line)));
    let line = line!() + 1;
    let mut next = lock.acquire();
    begin(&mut next).await;
    drop(guard);
    assert_eq!(owner(), Some((file!(), line)), "it has been handed over");
    drop(next);
    assert_eq!(owner(), None);
    let line = line!() + 1;
    let guard = lock.try_acquire()?;
    assert_eq!(owner(), Some((file!(), line)));
    drop(guard);
    Ok(())
}

#[trio::test]
#[expect(clippy::mem_forget, reason = "what is leaked is the subject")]
async fn k1_a_guard_that_is_forgotten_keeps_the_lock_and_who_waits_can_be_cancelled() -> Result<()>
{
    let lock = Lock::new(1);
    std::mem::forget(lock.acquire().await?);
    assert!(lock.is_locked());
    let waited = trio::move_on_after(std::time::Duration::from_millis(1), lock.acquire()).await?;
    assert!(waited.is_none());
    assert_eq!(lock.statistics().tasks_waiting, 0);
    Ok(())
}

#[trio::test]
async fn k9_a_future_that_is_dropped_with_the_lock_in_its_hands_passes_it_on() -> Result<()> {
    let lock = Lock::new(());
    let guard = lock.acquire().await?;
    let mut first = Box::pin(lock.acquire());
    let mut second = Box::pin(lock.acquire());
    begin(&mut first).await;
    begin(&mut second).await;
    drop(guard);
    drop(first);
    assert!(lock.is_locked());
    assert_eq!(lock.statistics().tasks_waiting, 0);
    drop(second.await?);
    assert!(!lock.is_locked());
    Ok(())
}

#[trio::test]
#[expect(clippy::mem_forget, reason = "what is leaked is the subject")]
async fn k9_a_future_that_was_forgotten_is_passed_over_once_its_task_has_ended() -> Result<()> {
    let lock = Rc::new(Lock::new(()));
    let guard = lock.acquire().await?;
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            let lock = lock.clone();
            let mut forgotten = Box::pin(async move { lock.acquire().await.map(drop) });
            begin(&mut forgotten).await;
            std::mem::forget(forgotten);
            Ok(())
        });
        Ok(())
    })
    .await?;
    assert_eq!(lock.statistics().tasks_waiting, 0);
    drop(guard);
    assert!(!lock.is_locked());
    Ok(())
}

#[trio::test]
async fn k9_a_future_that_was_passed_over_in_another_task_begins_anew() -> Result<()> {
    let lock = Lock::new(());
    let guard = lock.acquire().await?;
    let moved = RefCell::new(None);
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            let mut acquire = lock.acquire();
            begin(&mut acquire).await;
            *moved.borrow_mut() = Some(acquire);
            Ok(())
        });
        Ok(())
    })
    .await?;
    let mut here = moved.take().unwrap();
    drop(guard);
    let guard = lock.try_acquire().expect("it was passed over");
    begin(&mut here).await;
    assert_eq!(lock.statistics().tasks_waiting, 1);
    drop(guard);
    drop(here.await?);
    Ok(())
}

#[trio::test]
async fn k6_an_event_wakes_all_who_wait_and_stays_set() -> Result<()> {
    let event = Event::new();
    assert!(!event.is_set());
    let woken = Cell::new(0);
    open_nursery(async |nursery| {
        for _ in 0..3 {
            nursery.start_soon(async {
                event.wait().await?;
                woken.set(woken.get() + 1);
                Ok(())
            });
        }
        wait_all_tasks_blocked(secs(0)).await?;
        assert_eq!(event.statistics().tasks_waiting, 3);
        event.set();
        event.set();
        assert_eq!(event.statistics().tasks_waiting, 0);
        assert_eq!(woken.get(), 0, "they run when their turn comes");
        Ok(())
    })
    .await?;
    assert_eq!(woken.get(), 3);
    event.wait().await?;

    let scope = CancelScope::new();
    scope.cancel("");
    let waited = scope.enter(event.wait()).await?;
    assert_eq!(
        waited, None,
        "to wait for what has happened is a checkpoint too"
    );
    Ok(())
}
