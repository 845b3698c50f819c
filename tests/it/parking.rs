//! The parts from which users build primitives: parking lots (PL), and waits that others end (RS).

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use futures::FutureExt;
use trio::lowlevel::{Abort, ParkingLot, Reschedule, in_run, in_task, wait_task_rescheduled};
use trio::testing::wait_all_tasks_blocked;
use trio::{
    BrokenResource, CancelScope, Cancelled, Error, Nursery, Result, Usage, checkpoint,
    move_on_after, open_nursery, sleep_forever,
};

use crate::support::{begin, failure, oops, secs};

/// Children that are parked, in order, and record when they have been unparked.
async fn park<'scope, 'env>(
    nursery: &'scope Nursery<'scope, 'env>,
    lot: &'env ParkingLot,
    numbers: std::ops::Range<u32>,
    record: &'env RefCell<Vec<u32>>,
) -> Result<()> {
    for number in numbers {
        nursery.start_soon(async move {
            lot.park().await?;
            record.borrow_mut().push(number);
            Ok(())
        });
        wait_all_tasks_blocked(secs(0)).await?;
    }
    Ok(())
}

#[trio::test]
async fn pl1_those_who_have_been_parked_longest_are_unparked_first() -> Result<()> {
    let lot = ParkingLot::new();
    let record = RefCell::new(Vec::new());
    assert!(lot.is_empty());
    assert_eq!(lot.unpark(5) + lot.unpark_all(), 0);
    open_nursery(async |nursery| {
        park(nursery, &lot, 0..6, &record).await?;
        assert_eq!((lot.len(), lot.statistics().tasks_waiting), (6, 6));
        assert_eq!(lot.unpark(1), 1);
        wait_all_tasks_blocked(secs(0)).await?;
        assert_eq!(*record.borrow(), [0]);
        assert_eq!(lot.unpark(2), 2);
        wait_all_tasks_blocked(secs(0)).await?;
        assert_eq!(*record.borrow(), [0, 1, 2]);
        assert_eq!(lot.unpark_all(), 3);
        assert_eq!(lot.unpark(usize::MAX), 0);
        assert!(lot.is_empty());
        Ok(())
    })
    .await?;
    assert_eq!(record.into_inner(), [0, 1, 2, 3, 4, 5]);
    Ok(())
}

#[trio::test]
async fn pl2_who_is_cancelled_leaves_the_lot_and_who_was_unparked_first_is_not() -> Result<()> {
    let lot = ParkingLot::new();
    let record = RefCell::new(Vec::new());
    let scope = CancelScope::new();
    open_nursery(async |nursery| {
        park(nursery, &lot, 0..1, &record).await?;
        nursery.start_soon(async {
            assert_eq!(scope.enter(lot.park()).await?, None);
            Ok(())
        });
        wait_all_tasks_blocked(secs(0)).await?;
        park(nursery, &lot, 1..2, &record).await?;
        scope.cancel("");
        assert_eq!(lot.len(), 2);
        assert_eq!(lot.unpark(2), 2);
        Ok(())
    })
    .await?;
    assert_eq!(record.into_inner(), [0, 1]);

    let late = CancelScope::new();
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            assert_eq!(late.enter(lot.park()).await?, Some(()));
            Ok(())
        });
        wait_all_tasks_blocked(secs(0)).await?;
        lot.unpark(1);
        late.cancel("too late");
        Ok(())
    })
    .await
}

#[trio::test]
async fn pl3_who_is_moved_to_another_lot_is_unparked_cancelled_and_dropped_there() -> Result<()> {
    let (from, to) = (ParkingLot::new(), ParkingLot::new());
    let record = RefCell::new(Vec::new());
    let scope = CancelScope::new();
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            assert_eq!(scope.enter(from.park()).await?, None);
            Ok(())
        });
        wait_all_tasks_blocked(secs(0)).await?;
        park(nursery, &from, 0..3, &record).await?;
        let mut dropped = Box::pin(from.park());
        begin(&mut dropped).await;

        assert_eq!(from.repark(&to, 3), 3);
        assert_eq!((from.len(), to.len()), (2, 3));
        assert_eq!(from.repark_all(&to), 2);
        assert_eq!(to.repark_all(&to.clone()), 0, "it is the same lot");
        assert_eq!((from.len(), to.len()), (0, 5));
        scope.cancel("");
        drop(dropped);
        assert_eq!((from.unpark_all(), to.len()), (0, 3));
        // And on to a third, to which the waiters hold the last handles.
        let third = ParkingLot::new();
        to.repark(&third, 2);
        assert_eq!(third.unpark(1), 1);
        third.unpark_all();
        drop(third);
        wait_all_tasks_blocked(secs(0)).await?;
        assert_eq!(*record.borrow(), [0, 1]);
        to.unpark_all();
        Ok(())
    })
    .await?;
    assert_eq!(record.into_inner(), [0, 1, 2]);
    Ok(())
}

#[trio::test]
async fn pl4_a_wake_that_was_meant_for_one_goes_on_if_that_one_is_dropped() -> Result<()> {
    let lot = ParkingLot::new();
    let mut first = Box::pin(lot.park());
    let mut second = Box::pin(lot.park());
    begin(&mut first).await;
    begin(&mut second).await;
    lot.unpark(1);
    drop(first);
    assert!(lot.is_empty());
    second.await?;

    // If all were woken, nobody else was meant.
    let mut first = Box::pin(lot.park());
    begin(&mut first).await;
    lot.unpark_all();
    let mut late = Box::pin(lot.park());
    begin(&mut late).await;
    drop(first);
    assert_eq!(lot.len(), 1);
    Ok(())
}

/// The error of a task that is parked in a broken lot, with its cause.
fn broken(result: Result<()>) -> String {
    let error = result.expect_err("the lot is broken");
    let broken = error
        .downcast_ref::<BrokenResource>()
        .expect("by nothing else");
    broken.cause().expect("it is known").to_string()
}

#[trio::test]
async fn pl5_a_broken_lot_fails_whoever_is_parked_and_whoever_comes() -> Result<()> {
    let lot = ParkingLot::new();
    let found = RefCell::new(Vec::new());
    open_nursery(async |nursery| {
        for _ in 0..2 {
            nursery.start_soon(async {
                let words = broken(lot.park().await);
                found.borrow_mut().push(words);
                Ok(())
            });
        }
        wait_all_tasks_blocked(secs(0)).await?;
        lot.break_lot();
        assert!(lot.is_empty());
        Ok(())
    })
    .await?;
    assert_eq!(found.take(), ["the parking lot was broken by main"; 2]);
    open_nursery(async |nursery| {
        nursery.start_soon_named("second", async {
            lot.break_lot();
            Ok(())
        });
        Ok(())
    })
    .await?;
    assert_eq!(lot.broken_by(), ["main", "second"]);
    assert_eq!(
        broken(lot.park().await),
        "the parking lot was broken by main, second"
    );

    // Tasks that are moved into it find it broken, too.
    let other = ParkingLot::new();
    let mut moved = Box::pin(other.park());
    begin(&mut moved).await;
    assert_eq!(other.repark_all(&lot), 1);
    assert_eq!(
        broken(moved.await),
        "the parking lot was broken by main, second"
    );
    Ok(())
}

#[trio::test]
async fn pl5_a_task_can_break_the_lot_that_it_is_parked_in_itself() -> Result<()> {
    let lot = ParkingLot::new();
    let (parked, ()) = futures::join!(lot.park(), async { lot.break_lot() });
    assert_eq!(broken(parked), "the parking lot was broken by main");
    Ok(())
}

#[trio::test]
async fn pl6_a_breaker_breaks_the_lot_however_its_task_ends_unless_disarmed() -> Result<()> {
    let lot = ParkingLot::new();
    let works = async |how: Result<()>| {
        let breaker = lot.breaker();
        checkpoint().await?;
        how?;
        breaker.disarm();
        Ok::<(), Error>(())
    };
    works(Ok(())).await?;
    assert!(lot.broken_by().is_empty());

    let result = open_nursery(async |nursery| {
        nursery.start_soon_named("fails", works(oops("failed")));
        nursery.start_soon_named("is cancelled", async {
            let _breaker = lot.breaker();
            sleep_forever().await
        });
        assert_eq!(
            failure(lot.park().await),
            "the resource was broken from the other side"
        );
        Ok(())
    })
    .await;
    assert_eq!(failure(result), "[failed]");
    let mut by = lot.broken_by();
    by.sort();
    assert_eq!(by, ["fails", "is cancelled"]);

    let panics = ParkingLot::new();
    let panicked = std::panic::AssertUnwindSafe(async {
        let _breaker = panics.breaker();
        panic!("on purpose");
    });
    assert!(panicked.catch_unwind().await.is_err());
    assert_eq!(panics.broken_by(), ["main"]);
    Ok(())
}

/// Where a waiting task puts its handle.
type Slot<T> = Rc<Cell<Option<Reschedule<T>>>>;

/// Waits with the handle in `slot`, and with an abort function that answers `answer` and counts.
async fn wait_in(slot: &Slot<u32>, aborts: &Rc<Cell<u32>>, answer: Abort) -> Result<u32> {
    let aborts = aborts.clone();
    wait_task_rescheduled(|handle| {
        slot.set(Some(handle));
        move |_| {
            aborts.set(aborts.get() + 1);
            answer
        }
    })
    .await
}

#[trio::test]
async fn rs1_a_task_returns_what_it_is_rescheduled_with() -> Result<()> {
    let (slot, aborts) = (Slot::default(), Rc::default());
    let given: [fn() -> Result<u32>; 2] = [|| Ok(7), || oops("seven")];
    for outcome in given {
        open_nursery(async |nursery| {
            nursery.start_soon(async {
                let found = wait_in(&slot, &aborts, Abort::Succeeded).await;
                assert_eq!(format!("{found:?}"), format!("{:?}", outcome()));
                Ok(())
            });
            wait_all_tasks_blocked(secs(0)).await?;
            let handle = slot.take().unwrap();
            assert!(handle.is_waiting());
            handle.reschedule(outcome()).unwrap();
            nursery.cancel_scope().cancel("too late");
            Ok(())
        })
        .await?;
    }
    assert_eq!(aborts.get(), 0);

    // It may be rescheduled before it has begun to wait.
    let at_once = wait_task_rescheduled(|handle| {
        handle.reschedule(Ok(1)).unwrap();
        |_| Abort::Succeeded
    });
    assert_eq!(at_once.await?, 1);
    Ok(())
}

#[trio::test]
async fn rs2_a_cancel_calls_the_abort_function_before_it_returns() -> Result<()> {
    let (slot, aborts) = (Slot::default(), Rc::new(Cell::new(0)));
    let scope = CancelScope::new();
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            let waits = scope.enter(wait_in(&slot, &aborts, Abort::Succeeded));
            assert_eq!(waits.await?, None);
            Ok(())
        });
        wait_all_tasks_blocked(secs(0)).await?;
        scope.cancel("");
        assert_eq!(aborts.get(), 1);
        // Anything that comes now is too late, and is returned.
        let handle = slot.take().unwrap();
        assert!(!handle.is_waiting());
        assert_eq!(handle.reschedule(Ok(7)).unwrap_err()?, 7);
        Ok(())
    })
    .await?;

    let begun = scope_that_is_cancelled().enter(wait_in(&slot, &aborts, Abort::Succeeded));
    assert_eq!(begun.await?, None);
    assert!(slot.take().is_none(), "it has not begun");
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn rs2_an_abort_function_is_called_by_whoever_cancels() -> Result<()> {
    /// Waits until it is cancelled; returns whether that was in a run, and in a task.
    async fn waits(where_: &Rc<Cell<(bool, bool)>>) -> Result<()> {
        let where_ = where_.clone();
        wait_task_rescheduled(move |handle: Reschedule<()>| {
            move |_| {
                where_.set((in_run(), in_task()));
                drop(handle);
                Abort::Succeeded
            }
        })
        .await
    }
    let where_ = Rc::default();
    assert_eq!(move_on_after(secs(1), waits(&where_)).await?, None);
    assert_eq!(where_.get(), (true, false), "a deadline is no task's doing");
    let scope = CancelScope::new();
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            assert_eq!(scope.enter(waits(&where_)).await?, None);
            Ok(())
        });
        wait_all_tasks_blocked(secs(0)).await?;
        where_.set((false, false));
        scope.cancel("");
        assert_eq!(where_.get(), (true, true), "in the task that cancels");
        Ok(())
    })
    .await
}

fn scope_that_is_cancelled() -> CancelScope {
    let scope = CancelScope::new();
    scope.cancel("");
    scope
}

#[trio::test]
async fn rs3_who_cannot_be_aborted_waits_on_and_gets_what_comes() -> Result<()> {
    let (slot, aborts) = (Slot::default(), Rc::new(Cell::new(0)));
    let scope = CancelScope::new();
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            let waits = async {
                assert_eq!(wait_in(&slot, &aborts, Abort::Failed).await?, 7);
                assert_eq!(failure(checkpoint().await), "cancelled");
                Ok(())
            };
            assert_eq!(scope.enter(waits).await?, Some(()));
            Ok(())
        });
        wait_all_tasks_blocked(secs(0)).await?;
        scope.cancel("");
        wait_all_tasks_blocked(secs(0)).await?;
        let handle = slot.take().unwrap();
        assert!(handle.is_waiting());
        handle.reschedule(Ok(7)).unwrap();
        Ok(())
    })
    .await?;
    assert_eq!(aborts.get(), 1);
    Ok(())
}

#[trio::test]
async fn l5_a_slow_abort_is_asked_for_once_and_comes_though_a_shield_was_raised() -> Result<()> {
    let (outer, inner) = (CancelScope::new(), CancelScope::new());
    let slot: Slot<()> = Slot::default();
    let kept: Rc<RefCell<Vec<Cancelled>>> = Rc::default();
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            let ended = outer.enter(inner.enter(async {
                let result = wait_task_rescheduled(|handle| {
                    slot.set(Some(handle));
                    let kept = kept.clone();
                    move |cancelled: Option<Cancelled>| {
                        kept.borrow_mut().extend(cancelled);
                        Abort::Failed
                    }
                })
                .await;
                assert_eq!(failure(result), "cancelled");
                // The shield applies to what comes after.
                checkpoint().await
            }));
            assert_eq!(ended.await?, Some(Some(())));
            Ok(())
        });
        wait_all_tasks_blocked(secs(0)).await?;
        outer.cancel("first");
        inner.set_shield(true);
        inner.set_shield(false);
        outer.cancel("second");
        assert_eq!(kept.borrow().len(), 1);
        inner.set_shield(true);
        wait_all_tasks_blocked(secs(0)).await?;
        let cancelled = kept.borrow_mut().pop().unwrap();
        assert_eq!(cancelled.reason(), Some("first"));
        slot.take()
            .unwrap()
            .reschedule(Err(cancelled.into()))
            .unwrap();
        Ok(())
    })
    .await
}

#[trio::test]
async fn rs4_a_handle_that_is_dropped_does_not_leave_the_task_waiting() -> Result<()> {
    let dropped = wait_task_rescheduled(|handle: Reschedule<()>| {
        drop(handle);
        |_| Abort::Succeeded
    });
    assert!(dropped.await.expect_err("nobody reschedules").is::<Usage>());

    // After a cancel that could not be carried out, dropping the handle ends the wait as cancelled.
    let (slot, aborts) = (Slot::default(), Rc::default());
    let scope = CancelScope::new();
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            let waits = scope.enter(wait_in(&slot, &aborts, Abort::Failed));
            assert_eq!(waits.await?, None);
            Ok(())
        });
        wait_all_tasks_blocked(secs(0)).await?;
        scope.cancel("");
        drop(slot.take());
        Ok(())
    })
    .await
}

#[trio::test]
async fn rs5_a_future_that_is_dropped_aborts_and_gives_back_what_comes_later() -> Result<()> {
    let (slot, aborts) = (Slot::default(), Rc::new(Cell::new(0)));
    let mut waits = Box::pin(wait_in(&slot, &aborts, Abort::Failed));
    begin(&mut waits).await;
    drop(waits);
    assert_eq!(aborts.get(), 1);
    let handle = slot.take().unwrap();
    assert_eq!(handle.reschedule(Ok(3)).unwrap_err()?, 3);
    Ok(())
}

#[trio::test]
async fn rs6_a_panic_in_an_abort_function_is_that_of_the_task_that_waits() -> Result<()> {
    let (slot, aborts): (Slot<u32>, _) = (Slot::default(), Rc::new(Cell::new(0)));
    let scope = CancelScope::new();
    let panicked = std::panic::AssertUnwindSafe(open_nursery(async |nursery| {
        nursery.start_soon(async {
            let waits = wait_task_rescheduled(|handle| {
                slot.set(Some(handle));
                |_| panic!("on purpose")
            });
            scope.enter(waits).await.map(drop)
        });
        // The waits after it are aborted nevertheless.
        for _ in 0..2 {
            nursery.start_soon(async {
                let mine = Slot::default();
                let waits = scope.enter(wait_in(&mine, &aborts, Abort::Succeeded));
                assert_eq!(waits.await?, None);
                Ok(())
            });
        }
        wait_all_tasks_blocked(secs(0)).await?;
        scope.cancel("");
        assert_eq!(aborts.get(), 2);
        Ok(())
    }));
    let words = panicked
        .catch_unwind()
        .await
        .expect_err("it goes on in the parent");
    assert_eq!(words.downcast_ref(), Some(&"on purpose"));
    Ok(())
}
