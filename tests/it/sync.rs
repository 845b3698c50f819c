//! Semaphores, limiters, conditions, reader-writer locks and barriers; locks and events are in `lock.rs`.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use trio::channel::{MemoryReceiveChannel, MemorySendChannel};
use trio::sync::{
    Barrier, Borrower, CapacityLimiter, Condition, Event, Lock, RwLock, Semaphore, StrictFifoLock,
};
use trio::testing::wait_all_tasks_blocked;
use trio::{
    CancelScope, Result, Usage, WouldBlock, checkpoint, open_memory_channel, open_nursery,
    sleep_forever,
};

use crate::support::{begin, failure, secs};

/// Something that one task at a time can have, whatever its guard is.
trait Exclusive {
    async fn acquire(&self) -> Result<impl Sized>;
    fn try_acquire(&self) -> Option<impl Sized>;
}

macro_rules! exclusive {
    ($type:ty) => {
        impl Exclusive for $type {
            async fn acquire(&self) -> Result<impl Sized> {
                <$type>::acquire(self).await
            }

            fn try_acquire(&self) -> Option<impl Sized> {
                <$type>::try_acquire(self).ok()
            }
        }
    };
}

exclusive!(Lock<()>);
exclusive!(Semaphore);
exclusive!(CapacityLimiter);

impl Exclusive for RwLock<()> {
    async fn acquire(&self) -> Result<impl Sized> {
        self.write().await
    }

    fn try_acquire(&self) -> Option<impl Sized> {
        self.try_write().ok()
    }
}

/// A lock made of a channel: to put something in is to have it; taking it out releases it.
struct Slot(MemorySendChannel<()>, MemoryReceiveChannel<()>);

impl Exclusive for Slot {
    async fn acquire(&self) -> Result<impl Sized> {
        self.0.send(()).await?;
        Ok(Release(|| self.1.try_receive().expect("it has it")))
    }

    fn try_acquire(&self) -> Option<impl Sized> {
        self.0.try_send(()).ok()?;
        Some(Release(|| self.1.try_receive().expect("it has it")))
    }
}

/// The other way round: to take out what is in it is to have it; putting it back releases it.
struct Token(MemorySendChannel<()>, MemoryReceiveChannel<()>);

impl Exclusive for Token {
    async fn acquire(&self) -> Result<impl Sized> {
        self.1.receive().await?;
        Ok(Release(|| self.0.try_send(()).expect("there is room")))
    }

    fn try_acquire(&self) -> Option<impl Sized> {
        self.1.try_receive().ok()?;
        Some(Release(|| self.0.try_send(()).expect("there is room")))
    }
}

/// A guard that calls a function when it is dropped.
struct Release<F: FnMut()>(F);

impl<F: FnMut()> Drop for Release<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Runs `test` with each kind of lock.
macro_rules! with_each {
    ($test:ident) => {
        let (send, receive) = open_memory_channel(1);
        $test(&Slot(send, receive)).await?;
        with_each_that_is_taken!($test);
    };
}

/// The same without a [`Slot`]: a send that has been handed its room has happened, even if nobody
/// polls the future any more.
macro_rules! with_each_that_is_taken {
    ($test:ident) => {
        let (send, receive) = open_memory_channel(1);
        send.send(()).await?;
        $test(&Token(send, receive)).await?;
        $test(&Lock::new(())).await?;
        $test(&StrictFifoLock::new(())).await?;
        $test(&Semaphore::new(1)).await?;
        $test(&CapacityLimiter::new(1)).await?;
        $test(&RwLock::new(())).await?;
    };
}

#[expect(clippy::mem_forget, reason = "what is leaked is the subject")]
async fn passes_over_who_was_forgotten(lock: &impl Exclusive) -> Result<()> {
    let guard = lock.acquire().await?;
    let (finish, acquired) = (Event::new(), Cell::new(false));
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            let mut forgotten = Box::pin(lock.acquire());
            begin(&mut forgotten).await;
            std::mem::forget(forgotten);
            finish.wait().await
        });
        wait_all_tasks_blocked(secs(0)).await?;
        nursery.start_soon(async {
            let _guard = lock.acquire().await?;
            acquired.set(true);
            Ok(())
        });
        wait_all_tasks_blocked(secs(0)).await?;
        finish.set();
        wait_all_tasks_blocked(secs(0)).await?;
        assert!(!acquired.get(), "somebody has it");
        drop(guard);
        wait_all_tasks_blocked(secs(0)).await?;
        assert!(acquired.get(), "nobody else waits");
        Ok(())
    })
    .await?;
    assert!(lock.try_acquire().is_some(), "nobody has it");
    Ok(())
}

#[trio::test]
async fn k9_who_was_forgotten_at_the_head_of_a_line_of_any_kind_holds_up_nobody() -> Result<()> {
    with_each!(passes_over_who_was_forgotten);
    Ok(())
}

async fn excludes(lock: &impl Exclusive) -> Result<()> {
    let inside = Cell::new(0);
    let rounds = Cell::new(0);
    open_nursery(async |nursery| {
        for _ in 0..5 {
            nursery.start_soon(async {
                for _ in 0..10 {
                    let _guard = lock.acquire().await?;
                    inside.set(inside.get() + 1);
                    checkpoint().await?;
                    assert_eq!(inside.replace(0), 1);
                    rounds.set(rounds.get() + 1);
                }
                Ok(())
            });
        }
        Ok(())
    })
    .await?;
    assert_eq!(rounds.get(), 50);
    Ok(())
}

#[trio::test]
async fn f1_a_lock_of_each_kind_excludes() -> Result<()> {
    with_each!(excludes);
    Ok(())
}

async fn rotates(lock: &impl Exclusive) -> Result<()> {
    let record = RefCell::new(Vec::new());
    open_nursery(async |nursery| {
        let first = lock.acquire().await?;
        for name in 0..3 {
            let record = &record;
            nursery.start_soon(async move {
                for _ in 0..10 {
                    let _guard = lock.acquire().await?;
                    record.borrow_mut().push(name);
                }
                Ok(())
            });
            wait_all_tasks_blocked(secs(0)).await?;
        }
        drop(first);
        Ok(())
    })
    .await?;
    assert_eq!(record.into_inner(), [0, 1, 2].repeat(10));
    Ok(())
}

#[trio::test]
async fn f1_loopers_rotate_in_the_order_in_which_they_came() -> Result<()> {
    with_each!(rotates);
    Ok(())
}

async fn hands_over(lock: &impl Exclusive) -> Result<()> {
    let had = Cell::new(false);
    open_nursery(async |nursery| {
        let first = lock.acquire().await?;
        nursery.start_soon(async {
            let _guard = lock.acquire().await?;
            had.set(true);
            Ok(())
        });
        wait_all_tasks_blocked(secs(0)).await?;
        drop(first);
        assert!(lock.try_acquire().is_none(), "it belongs to the child");
        assert!(!had.get());
        Ok(())
    })
    .await?;
    assert!(had.get());
    assert!(lock.try_acquire().is_some());
    Ok(())
}

#[trio::test]
async fn f1_what_was_handed_over_cannot_be_tried() -> Result<()> {
    with_each!(hands_over);
    Ok(())
}

async fn passes_over(lock: &impl Exclusive) -> Result<()> {
    let record = RefCell::new(Vec::new());
    let scopes = [(); 4].map(|()| CancelScope::new());
    open_nursery(async |nursery| {
        let first = lock.acquire().await?;
        for (name, scope) in scopes.iter().enumerate() {
            let record = &record;
            nursery.start_soon(async move {
                let work = async {
                    let _guard = lock.acquire().await?;
                    record.borrow_mut().push(name);
                    Ok(())
                };
                scope.enter(work).await.map(drop)
            });
            wait_all_tasks_blocked(secs(0)).await?;
        }
        // The first and one in the middle, in the same step in which it is released.
        scopes[0].cancel("");
        scopes[2].cancel("");
        drop(first);
        Ok(())
    })
    .await?;
    assert_eq!(record.into_inner(), [1, 3]);
    assert!(scopes[0].cancelled_caught() && scopes[2].cancelled_caught());
    assert!(lock.try_acquire().is_some());
    Ok(())
}

#[trio::test]
async fn f2_who_is_cancelled_is_passed_over_by_each_kind() -> Result<()> {
    with_each!(passes_over);
    Ok(())
}

async fn keeps_what_came_first(lock: &impl Exclusive) -> Result<()> {
    let scope = CancelScope::new();
    let had = Cell::new(false);
    open_nursery(async |nursery| {
        let first = lock.acquire().await?;
        nursery.start_soon(async {
            let inside = async {
                let _guard = lock.acquire().await?;
                had.set(true);
                checkpoint().await
            };
            scope.enter(inside).await.map(drop)
        });
        wait_all_tasks_blocked(secs(0)).await?;
        drop(first);
        scope.cancel("too late for the lock");
        Ok(())
    })
    .await?;
    assert!(had.get() && scope.cancelled_caught());
    assert!(lock.try_acquire().is_some());
    Ok(())
}

#[trio::test]
async fn r1_what_was_handed_over_before_the_cancel_is_returned_by_each_kind() -> Result<()> {
    with_each!(keeps_what_came_first);
    Ok(())
}

async fn passes_on(lock: &impl Exclusive) -> Result<()> {
    let held = lock.acquire().await?;
    let mut dropped = Box::pin(lock.acquire());
    let mut next = Box::pin(lock.acquire());
    begin(&mut dropped).await;
    begin(&mut next).await;
    drop(held);
    drop(dropped);
    assert!(lock.try_acquire().is_none(), "it is the next one's");
    drop(next.await?);
    assert!(lock.try_acquire().is_some());
    Ok(())
}

#[trio::test]
async fn k9_what_a_dropped_future_was_handed_goes_to_the_next_in_each_kind() -> Result<()> {
    with_each_that_is_taken!(passes_on);
    Ok(())
}

async fn looks_first(lock: &impl Exclusive) -> Result<()> {
    let scope = CancelScope::new();
    scope.cancel("");
    let had = scope.enter(async { lock.acquire().await.map(drop) });
    assert_eq!(had.await?, None);
    assert!(lock.try_acquire().is_some(), "nothing was taken");
    Ok(())
}

#[trio::test]
async fn c1_taking_what_is_free_is_a_checkpoint_too() -> Result<()> {
    with_each!(looks_first);
    Ok(())
}

#[test]
fn k10_what_does_not_wait_works_outside_of_a_run() {
    let event = const { Event::new() };
    event.set();
    assert!(event.is_set());

    let mut lock = const { Lock::new(1) };
    *lock.try_acquire().unwrap() += 1;
    assert_eq!(*lock.get_mut(), 2);
    assert_eq!(format!("{lock:?}"), "Lock { value: 2, tasks_waiting: 0 }");

    let semaphore = const { Semaphore::new(0) };
    semaphore.release().unwrap();
    semaphore.try_acquire().unwrap().forget();
    assert_eq!(semaphore.value(), 0);

    let limiter = const { CapacityLimiter::new(1) };
    drop(limiter.try_acquire().unwrap());
    let lock = const { RwLock::new(1) };
    assert_eq!(*lock.try_read().unwrap(), 1);
    drop(const { (Condition::new(), Barrier::new(2)) });
}

#[test]
fn k10_a_future_of_a_run_that_has_ended_begins_anew_in_another() {
    let lock = Lock::new(());
    let guard = lock.try_acquire().unwrap();
    let mut acquire = Box::pin(lock.acquire());
    trio::run(begin(&mut acquire));
    assert_eq!(lock.statistics().tasks_waiting, 0);
    drop(guard);
    assert!(!lock.is_locked(), "nobody is handed it who cannot come");
    trio::run(acquire).map(drop).unwrap();
    assert!(!lock.is_locked());
}

#[trio::test]
async fn k3_a_semaphore_may_be_released_by_anyone_up_to_its_bound() -> Result<()> {
    let semaphore = Semaphore::new(1);
    assert_eq!(semaphore.max_value(), None);
    for value in 2..10 {
        semaphore.release()?;
        assert_eq!(semaphore.value(), value);
    }
    let bounded = Semaphore::with_max_value(1, 1);
    let error = bounded.release().expect_err("it is at its maximum");
    assert!(error.is::<Usage>());
    let told = "above its max_value of 1: a permit that is dropped has been released by that";
    assert!(error.to_string().ends_with(told), "{error}");
    let permit = bounded.acquire().await?;
    assert_eq!(bounded.statistics().value, 0);
    bounded.release()?;
    drop(permit);
    assert_eq!(bounded.value(), 1, "it stays at its maximum");
    // The permit goes to the one who waits, and the value stays.
    let permit = bounded.acquire().await?;
    let mut waiting = bounded.acquire();
    begin(&mut waiting).await;
    assert_eq!(bounded.statistics().tasks_waiting, 1);
    bounded.release()?;
    assert_eq!(bounded.value(), 0);
    drop(waiting.await?);
    drop(permit);
    Ok(())
}

#[test]
#[should_panic = "not more than its max_value"]
fn k3_a_semaphore_does_not_begin_above_its_bound() {
    drop(Semaphore::with_max_value(2, 1));
}

#[trio::test]
async fn k4_a_borrower_has_one_token() -> Result<()> {
    let limiter = CapacityLimiter::new(2);
    let (one, other) = (Borrower::new(), Borrower::new());
    let token = limiter.acquire_on_behalf_of(one).await?;
    assert_eq!(token.borrower(), Some(one));
    let again = limiter.acquire_on_behalf_of(one).await;
    assert!(again.expect_err("it has one").is::<Usage>());
    let again = limiter.try_acquire_on_behalf_of(one);
    assert!(again.expect_err("it has one").is::<Usage>());

    let unnamed = limiter.acquire().await?;
    assert_eq!(unnamed.borrower(), None);
    let full = limiter.try_acquire_on_behalf_of(other);
    assert!(full.expect_err("both are out").is::<WouldBlock>());
    let mut waiting = limiter.acquire_on_behalf_of(other);
    begin(&mut waiting).await;
    let again = limiter.acquire_on_behalf_of(other).await;
    assert!(again.expect_err("it waits for one").is::<Usage>());
    let statistics = limiter.statistics();
    assert_eq!(statistics.borrowed_tokens, 2);
    assert_eq!(statistics.borrowers, [one]);
    assert_eq!(statistics.tasks_waiting, 1);

    // The borrower has it before the task that waits for it has run.
    drop(unnamed);
    assert_eq!(limiter.statistics().borrowers, [one, other]);
    let token_of_other = waiting.await?;

    token.forget();
    limiter.release_on_behalf_of(one)?;
    let twice = limiter.release_on_behalf_of(one);
    assert!(twice.expect_err("it has none").is::<Usage>());
    drop(token_of_other);
    assert_eq!(limiter.borrowed_tokens(), 0);
    Ok(())
}

#[trio::test]
async fn k4_the_total_can_be_changed_while_tokens_are_out() -> Result<()> {
    let limiter = CapacityLimiter::new(2);
    let mut held = vec![limiter.acquire().await?, limiter.acquire().await?];
    let mut waiting: Vec<_> = (0..3).map(|_| limiter.acquire()).collect();
    for future in &mut waiting {
        begin(future).await;
    }
    limiter.set_total_tokens(4);
    assert_eq!(limiter.borrowed_tokens(), 4);
    assert_eq!(limiter.statistics().tasks_waiting, 1);
    let last = waiting.pop().unwrap();
    for future in waiting {
        held.push(future.await?);
    }
    limiter.set_total_tokens(2);
    assert_eq!(limiter.available_tokens(), -2);
    held.truncate(2);
    assert_eq!(limiter.available_tokens(), 0);
    assert_eq!(limiter.statistics().tasks_waiting, 1, "there was no room");
    held.pop();
    held.push(last.await?);
    assert_eq!(limiter.total_tokens(), 2);
    Ok(())
}

#[trio::test]
async fn k4_with_no_tokens_nobody_passes() -> Result<()> {
    let limiter = CapacityLimiter::new(1);
    let token = limiter.acquire().await?;
    limiter.set_total_tokens(0);
    let (one, other) = (Borrower::new(), Borrower::new());
    let mut first = limiter.acquire_on_behalf_of(one);
    let mut second = Box::pin(limiter.acquire_on_behalf_of(other));
    begin(&mut first).await;
    begin(&mut second).await;
    drop(token);
    assert_eq!(limiter.statistics().tasks_waiting, 2);
    // A wait that is given up leaves nothing behind.
    drop(second);
    assert_eq!(limiter.statistics().tasks_waiting, 1);
    limiter.set_total_tokens(1);
    assert_eq!(limiter.statistics().borrowers, [one]);
    drop(first.await?);
    drop(limiter.try_acquire_on_behalf_of(other)?);

    let none = CapacityLimiter::new(0);
    assert!(none.try_acquire().is_err());
    Ok(())
}

#[trio::test]
async fn k4_a_borrower_that_was_cancelled_may_borrow_again() -> Result<()> {
    let limiter = CapacityLimiter::new(1);
    let borrower = Borrower::new();
    let token = limiter.acquire().await?;
    let waited = trio::move_on_after(
        std::time::Duration::from_millis(1),
        limiter.acquire_on_behalf_of(borrower),
    );
    assert!(waited.await?.is_none());
    drop(token);
    drop(limiter.acquire_on_behalf_of(borrower).await?);
    Ok(())
}

#[trio::test]
#[expect(clippy::mem_forget, reason = "what is leaked is the subject")]
async fn k9_a_borrower_whose_wait_was_forgotten_may_borrow_again_when_its_task_has_ended()
-> Result<()> {
    // By a child that ends, by a child that is cancelled, and by the body of a nursery.
    for case in 0..3 {
        let limiter = Rc::new(CapacityLimiter::new(1));
        let borrower = Borrower::new();
        let token = limiter.acquire().await?;
        let (finish, scope) = (Event::new(), CancelScope::new());
        let forget = async || {
            let limiter = limiter.clone();
            let mut wait =
                Box::pin(async move { limiter.acquire_on_behalf_of(borrower).await.map(drop) });
            begin(&mut wait).await;
            std::mem::forget(wait);
            finish.wait().await
        };
        open_nursery(async |nursery| {
            nursery.start_soon(async {
                match case {
                    0 => forget().await,
                    1 => scope.enter(forget()).await.map(drop),
                    _ => open_nursery(async |_| forget().await).await,
                }
            });
            wait_all_tasks_blocked(secs(0)).await?;
            let again = limiter.acquire_on_behalf_of(borrower).await;
            let error = again.expect_err("the task that waits for it lives");
            assert!(error.is::<Usage>(), "{error} (case {case})");
            match case {
                1 => scope.cancel(""),
                _ => finish.set(),
            }
            wait_all_tasks_blocked(secs(0)).await?;

            let full = limiter.try_acquire_on_behalf_of(borrower);
            let error = full.expect_err("the token is out");
            assert!(error.is::<WouldBlock>(), "{error} (case {case})");
            let mut again = limiter.acquire_on_behalf_of(borrower);
            begin(&mut again).await;
            drop(token);
            assert_eq!(limiter.statistics().borrowers, [borrower]);
            drop(again.await?);
            assert_eq!(limiter.borrowed_tokens(), 0, "none is lost (case {case})");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

#[trio::test]
async fn k4_a_wait_that_was_over_takes_nothing_from_the_next_of_its_borrower() -> Result<()> {
    let limiter = CapacityLimiter::new(1);
    let borrower = Borrower::new();
    let token = limiter.acquire().await?;
    // The task of each has ended, and the futures have not been dropped.
    let (mut to_drop, mut to_poll) = (
        limiter.acquire_on_behalf_of(borrower),
        limiter.acquire_on_behalf_of(borrower),
    );
    for wait in [&mut to_drop, &mut to_poll] {
        open_nursery(async |nursery| {
            nursery.start_soon(async move {
                begin(wait).await;
                Ok(())
            });
            Ok(())
        })
        .await?;
    }
    let mut waiting = limiter.acquire_on_behalf_of(borrower);
    begin(&mut waiting).await;
    drop(to_drop);
    let error = to_poll.await.expect_err("the next waits by now");
    assert!(error.is::<Usage>(), "{error}");
    let again = limiter.try_acquire_on_behalf_of(borrower);
    let error = again.expect_err("it waits still");
    assert!(error.is::<Usage>(), "{error}");
    drop(token);
    assert_eq!(limiter.statistics().borrowers, [borrower]);
    drop(waiting.await?);
    assert_eq!(limiter.borrowed_tokens(), 0);
    Ok(())
}

#[trio::test]
async fn k4_without_a_bound_nobody_waits() -> Result<()> {
    let limiter = CapacityLimiter::unbounded();
    assert_eq!(limiter.available_tokens(), isize::MAX);
    let mut tokens = Vec::new();
    for _ in 0..1000 {
        tokens.push(limiter.acquire().await?);
    }
    limiter.set_total_tokens(1000);
    assert!(limiter.try_acquire().is_err());
    Ok(())
}

/// Five tasks that wait on a condition, in order, and record when they have the lock again.
async fn five_wait(
    lock: &Lock<Vec<u32>>,
    condition: &Condition,
    body: impl AsyncFnOnce() -> Result<()>,
) -> Result<()> {
    open_nursery(async |nursery| {
        for n in 0..5 {
            nursery.start_soon(async move {
                let mut order = lock.acquire().await?;
                condition.wait(&mut order).await?;
                order.push(n);
                Ok(())
            });
            wait_all_tasks_blocked(secs(0)).await?;
        }
        body().await
    })
    .await
}

#[trio::test]
async fn f3_who_is_notified_stands_in_line_for_the_lock_in_order() -> Result<()> {
    let (lock, condition) = (Lock::new(Vec::new()), Condition::new());
    five_wait(&lock, &condition, async || {
        let order = lock.acquire().await?;
        assert_eq!(condition.statistics(&order).tasks_waiting, 5);
        condition.notify_one(&order);
        let statistics = condition.statistics(&order);
        assert_eq!(statistics.tasks_waiting, 4);
        assert_eq!(statistics.lock_statistics.tasks_waiting, 1);
        assert!(statistics.lock_statistics.locked);
        condition.notify(&order, 2);
        assert_eq!(condition.statistics(&order).tasks_waiting, 2);
        drop(order);
        wait_all_tasks_blocked(secs(0)).await?;
        let order = lock.acquire().await?;
        assert_eq!(*order, [0, 1, 2]);
        condition.notify_all(&order);
        condition.notify_all(&order);
        Ok(())
    })
    .await?;
    assert_eq!(lock.into_inner(), [0, 1, 2, 3, 4]);
    Ok(())
}

#[trio::test]
async fn k2_a_wait_that_is_cancelled_has_the_lock_again() -> Result<()> {
    let (lock, condition) = (Lock::new(0), Condition::new());
    let scope = CancelScope::new();
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            let waits = async {
                let mut value = lock.acquire().await?;
                let result = condition.wait(&mut value).await;
                assert_eq!(failure(result), "cancelled");
                assert_eq!(*value, 1, "whoever had the lock meanwhile has released it");
                *value = 2;
                Ok(())
            };
            scope.enter(waits).await.map(drop)
        });
        wait_all_tasks_blocked(secs(0)).await?;
        let mut value = lock.acquire().await?;
        scope.cancel("");
        wait_all_tasks_blocked(secs(0)).await?;
        *value = 1;
        assert_eq!(lock.statistics().tasks_waiting, 1);
        Ok(())
    })
    .await?;
    assert_eq!(lock.into_inner(), 2);
    Ok(())
}

#[trio::test]
async fn k2_who_was_notified_returns_so_though_it_be_cancelled_in_line() -> Result<()> {
    let (lock, condition) = (Lock::new(()), Condition::new());
    let scope = CancelScope::new();
    let notified = Cell::new(false);
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            let waits = async {
                let mut guard = lock.acquire().await?;
                condition.wait(&mut guard).await?;
                notified.set(true);
                checkpoint().await
            };
            scope.enter(waits).await.map(drop)
        });
        wait_all_tasks_blocked(secs(0)).await?;
        let guard = lock.acquire().await?;
        condition.notify_one(&guard);
        scope.cancel("");
        wait_all_tasks_blocked(secs(0)).await?;
        assert!(!notified.get(), "the lock is not free");
        drop(guard);
        Ok(())
    })
    .await?;
    assert!(notified.get());
    assert!(scope.cancelled_caught());
    Ok(())
}

#[trio::test]
async fn k2_waiting_in_a_cancelled_scope_does_not_release_the_lock() -> Result<()> {
    let (lock, condition) = (Lock::new(()), Condition::new());
    let mut guard = lock.acquire().await?;
    let scope = CancelScope::new();
    scope.cancel("");
    let ended = scope
        .enter(async {
            let result = condition.wait(&mut guard).await;
            assert!(lock.is_locked());
            assert_eq!(
                failure(condition.wait_for(&mut guard, |()| true).await),
                "cancelled"
            );
            result
        })
        .await?;
    assert_eq!(ended, None);
    Ok(())
}

#[trio::test]
async fn k2_waiting_for_something_looks_each_time() -> Result<()> {
    let (lock, condition) = (Lock::new(0), Condition::new());
    let seen = RefCell::new(Vec::new());
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            let mut value = lock.acquire().await?;
            condition
                .wait_for(&mut value, |value| {
                    seen.borrow_mut().push(*value);
                    *value >= 2
                })
                .await
        });
        for _ in 0..3 {
            wait_all_tasks_blocked(secs(0)).await?;
            let mut value = lock.acquire().await?;
            *value += 1;
            condition.notify_all(&value);
        }
        Ok(())
    })
    .await?;
    assert_eq!(seen.into_inner(), [0, 1, 2]);
    Ok(())
}

#[trio::test]
async fn k2_a_wait_that_is_dropped_passes_its_notification_on() -> Result<()> {
    let (lock, condition) = (Lock::new(Vec::new()), Condition::new());
    let mut aside = lock.acquire().await?;
    let mut dropped = Box::pin(condition.wait(&mut aside));
    begin(&mut dropped).await;
    five_wait(&lock, &condition, async || {
        let order = lock.acquire().await?;
        condition.notify_one(&order);
        drop(dropped);
        assert_eq!(condition.statistics(&order).tasks_waiting, 4);
        drop(order);
        wait_all_tasks_blocked(secs(0)).await?;
        let order = lock.acquire().await?;
        assert_eq!(*order, [0]);
        condition.notify_all(&order);
        Ok(())
    })
    .await?;
    assert_eq!(format!("{aside:?}"), "LockGuard(put aside)");
    drop(aside);
    assert!(!lock.is_locked());
    Ok(())
}

#[test]
#[should_panic = "this guard has no lock any more"]
fn k2_a_guard_without_its_lock_says_so() {
    let (lock, condition) = (Lock::new(0), Condition::new());
    trio::run(async {
        let mut guard = lock.acquire().await.unwrap();
        let mut dropped = Box::pin(condition.wait(&mut guard));
        begin(&mut dropped).await;
        drop(dropped);
        assert_eq!(*guard, 0);
    });
}

#[test]
#[should_panic = "a condition belongs to one lock"]
fn k2_a_condition_belongs_to_one_lock() {
    let (one, other, condition) = (Lock::new(0), Lock::new(0), Condition::new());
    trio::run(async {
        let mut guard = one.acquire().await.unwrap();
        let mut waiting = Box::pin(condition.wait(&mut guard));
        begin(&mut waiting).await;
        condition.notify_one(&other.acquire().await.unwrap());
    });
}

#[trio::test]
async fn k7_many_read_or_one_writes_and_nobody_overtakes() -> Result<()> {
    let lock = RwLock::new(0);
    let (one, two) = (lock.read().await?, lock.try_read().unwrap());
    assert_eq!((*one, *two), (0, 0));
    let mut write = Box::pin(lock.write());
    begin(&mut write).await;
    let mut late = Box::pin(lock.read());
    begin(&mut late).await;
    assert!(lock.try_read().is_err(), "a writer waits");
    let statistics = lock.statistics();
    assert_eq!(
        (statistics.readers, statistics.locked_for_writing),
        (2, false)
    );
    assert_eq!(statistics.tasks_waiting_read, 1);
    assert_eq!(statistics.tasks_waiting_write, 1);
    drop((one, two));
    assert!(lock.statistics().locked_for_writing);
    let mut writer = write.await?;
    *writer = 1;
    // A writer that becomes a reader lets other readers in.
    let reader = writer.downgrade();
    assert_eq!(*reader, 1);
    assert_eq!(*late.await?, 1);
    assert!(lock.try_write().is_err());
    drop(reader);
    *lock.write().await? = 2;
    assert_eq!(lock.into_inner(), 2);
    Ok(())
}

#[trio::test]
async fn k7_a_writer_that_gives_up_lets_the_readers_behind_it_in() -> Result<()> {
    let lock = RwLock::new(0);
    let reader = lock.read().await?;
    let mut write = Box::pin(lock.write());
    begin(&mut write).await;
    let mut late = Box::pin(lock.read());
    begin(&mut late).await;
    drop(write);
    assert_eq!(lock.statistics().readers, 2);
    drop(late);
    assert_eq!(lock.statistics().readers, 1);

    // The same when it is cancelled: as soon as it has run.
    let scope = CancelScope::new();
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            let write = async { lock.write().await.map(drop) };
            scope.enter(write).await.map(drop)
        });
        wait_all_tasks_blocked(secs(0)).await?;
        nursery.start_soon(async { lock.read().await.map(drop) });
        wait_all_tasks_blocked(secs(0)).await?;
        scope.cancel("");
        Ok(())
    })
    .await?;
    drop(reader);
    Ok(())
}

#[trio::test]
#[expect(clippy::mem_forget, reason = "what is leaked is the subject")]
async fn k7_readers_behind_a_forgotten_writer_go_on_when_its_task_has_ended() -> Result<()> {
    // By a child that ends, by a child that is cancelled, and by the body of a nursery.
    for case in 0..3 {
        let lock = Rc::new(RwLock::new(0));
        let reader = lock.read().await?;
        let (finish, scope, read) = (Event::new(), CancelScope::new(), Cell::new(0));
        let forget = async || {
            let lock = lock.clone();
            let mut write = Box::pin(async move { lock.write().await.map(drop) });
            begin(&mut write).await;
            std::mem::forget(write);
            finish.wait().await
        };
        open_nursery(async |nursery| {
            nursery.start_soon(async {
                match case {
                    0 => forget().await,
                    1 => scope.enter(forget()).await.map(drop),
                    _ => open_nursery(async |_| forget().await).await,
                }
            });
            wait_all_tasks_blocked(secs(0)).await?;
            for _ in 0..3 {
                nursery.start_soon(async {
                    let _guard = lock.read().await?;
                    read.set(read.get() + 1);
                    Ok(())
                });
            }
            wait_all_tasks_blocked(secs(0)).await?;
            assert_eq!(read.get(), 0, "the task of the writer lives (case {case})");
            match case {
                1 => scope.cancel(""),
                _ => finish.set(),
            }
            wait_all_tasks_blocked(secs(0)).await?;
            assert_eq!(
                read.get(),
                3,
                "nobody is before them any more (case {case})"
            );
            Ok(())
        })
        .await?;
        assert_eq!(lock.statistics().readers, 1);
        drop(reader);
    }
    Ok(())
}

#[trio::test]
#[expect(clippy::mem_forget, reason = "what is leaked is the subject")]
async fn k7_so_do_those_behind_another_that_is_forgotten_in_a_task_that_lives() -> Result<()> {
    let lock = RwLock::new(0);
    let reader = lock.read().await?;
    let (finish, read) = (Event::new(), Cell::new(false));
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            let mut write = Box::pin(lock.write());
            begin(&mut write).await;
            std::mem::forget(write);
            finish.wait().await
        });
        wait_all_tasks_blocked(secs(0)).await?;
        // The next in line: to wake this task is to poll nothing that stands there.
        let mut next = Box::pin(lock.read());
        begin(&mut next).await;
        std::mem::forget(next);
        nursery.start_soon(async {
            let _guard = lock.read().await?;
            read.set(true);
            Ok(())
        });
        wait_all_tasks_blocked(secs(0)).await?;
        assert!(!read.get(), "the task of the writer lives");
        finish.set();
        wait_all_tasks_blocked(secs(0)).await?;
        assert!(read.get(), "nobody is before it any more");
        Ok(())
    })
    .await?;
    drop(reader);
    Ok(())
}

#[trio::test]
async fn k8_a_barrier_lets_all_pass_when_enough_have_come_and_again() -> Result<()> {
    let barrier = Barrier::new(3);
    let leaders = Cell::new(0);
    let passed = Cell::new(0);
    open_nursery(async |nursery| {
        for _ in 0..3 {
            nursery.start_soon(async {
                for round in 0..4 {
                    let leader = barrier.wait().await?.is_leader();
                    leaders.set(leaders.get() + u32::from(leader));
                    assert!(passed.get() >= round * 3, "nobody is a round ahead");
                    passed.set(passed.get() + 1);
                }
                Ok(())
            });
        }
        Ok(())
    })
    .await?;
    assert_eq!((leaders.get(), passed.get()), (4, 12));
    assert!(Barrier::new(1).wait().await?.is_leader());
    Ok(())
}

#[trio::test]
async fn k8_who_is_cancelled_at_a_barrier_has_not_come() -> Result<()> {
    let barrier = Barrier::new(2);
    let scope = CancelScope::new();
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            scope
                .enter(async { barrier.wait().await.map(drop) })
                .await?;
            Ok(())
        });
        wait_all_tasks_blocked(secs(0)).await?;
        let statistics = barrier.statistics();
        assert_eq!((statistics.parties, statistics.tasks_waiting), (2, 1));
        scope.cancel("");
        let mut second = Box::pin(barrier.wait());
        begin(&mut second).await;
        let mut dropped = Box::pin(async {
            barrier.wait().await?;
            sleep_forever().await
        });
        drop(second);
        begin(&mut dropped).await;
        assert_eq!(barrier.statistics().tasks_waiting, 1);
        assert!(barrier.wait().await?.is_leader());
        Ok(())
    })
    .await
}
