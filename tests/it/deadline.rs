//! Deadlines, timeouts and sleeping (DL).

use std::cell::{Cell, RefCell};
use std::future::Future;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use trio::testing::{MockClock, wait_all_tasks_blocked};
use trio::{
    Builder, CancelScope, ChildState, Error, Result, Time, TooSlow, checkpoint,
    current_effective_deadline, current_time, fail_after, fail_at, move_on_after, move_on_at,
    open_nursery, sleep, sleep_forever, sleep_until,
};

use crate::support::{begin, failure, oops, secs};

#[trio::test(backend = "all", clock = "autojump")]
async fn dl1_what_waits_past_its_deadline_is_cancelled_then() -> Result<()> {
    let start = current_time();
    let scope = CancelScope::with_timeout(secs(3));
    let ended = scope
        .enter(async {
            sleep(secs(2)).await?;
            assert_eq!(failure(sleep(secs(100)).await), "cancelled");
            assert_eq!(current_time() - start, secs(3));
            assert_eq!(failure(checkpoint().await), "cancelled", "and stays so");
            checkpoint().await
        })
        .await?;
    assert_eq!(ended, None);
    assert_eq!(current_time() - start, secs(3));
    assert!(scope.cancel_called() && scope.cancelled_caught());
    Ok(())
}

#[trio::test]
async fn dl2_a_scope_has_no_deadline_unless_it_is_given_one() -> Result<()> {
    let scope = CancelScope::new();
    assert_eq!((scope.deadline(), scope.timeout()), (None, None));
    scope
        .enter(async {
            assert_eq!((scope.deadline(), scope.timeout()), (None, None));
            scope.set_deadline(Time::NEVER);
            assert_eq!((scope.deadline(), scope.timeout()), (None, None));
            checkpoint().await
        })
        .await?;
    assert!(!scope.cancel_called());

    let due = CancelScope::with_deadline(Time::PAST);
    assert!(due.enter(checkpoint()).await?.is_none());
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn dl3_a_timeout_counts_from_entry_and_a_deadline_does_not() -> Result<()> {
    let relative = CancelScope::with_timeout(secs(5));
    let absolute = CancelScope::with_deadline(current_time() + secs(5));
    sleep(secs(4)).await?;
    let start = current_time();
    assert_eq!(relative.enter(sleep_forever()).await?, None);
    assert_eq!(current_time() - start, secs(5));

    let absolute_in_time = absolute.enter(sleep_forever()).await?;
    assert_eq!(absolute_in_time, None);
    assert_eq!(current_time() - start, secs(5), "it was over already");
    Ok(())
}

/// What is left until the effective deadline, in whole seconds; `None` if there is no deadline. On
/// the real clock, a timeout is entered only when something asks.
fn seconds_left() -> Option<u64> {
    let deadline = current_effective_deadline();
    let left = deadline.saturating_since(current_time()) + secs(1);
    (deadline != Time::NEVER).then_some(left.as_secs())
}

#[trio::test]
async fn dl3_timeouts_entered_together_are_there_one_in_the_other_when_something_asks() -> Result<()>
{
    let innermost = async {
        assert_eq!(seconds_left(), Some(1000));
        checkpoint().await?;
        assert_eq!(seconds_left(), Some(1000));
        Ok(())
    };
    let inner = async {
        move_on_after(secs(1000), innermost).await?;
        assert_eq!(seconds_left(), Some(2000));
        // Another one in the place of the first, when the enclosing ones are already there.
        move_on_after(secs(1500), async {
            assert_eq!(seconds_left(), Some(1500));
            Ok(())
        })
        .await?;
        move_on_after(secs(1500), async { Ok(()) }).await?;
        assert_eq!(seconds_left(), Some(2000));
        Ok(())
    };
    let outer = async {
        move_on_after(secs(2000), inner).await?;
        assert_eq!(seconds_left(), Some(3000));
        Ok(())
    };
    move_on_after(secs(3000), outer).await?;
    assert_eq!(seconds_left(), None);
    Ok(())
}

#[trio::test]
async fn dl3_a_timeout_is_not_around_a_nursery_that_was_opened_before() -> Result<()> {
    let mut nursery = Box::pin(open_nursery(async |nursery| {
        let mut child = nursery.spawn(async {
            assert_eq!(seconds_left(), None);
            checkpoint().await?;
            // Within the poll of the code below, and not in its timeout.
            let ended = move_on_after(secs(1000), async {
                assert_eq!(seconds_left(), Some(1000));
                sleep_forever().await
            });
            ended.await
        });
        checkpoint().await?;
        checkpoint().await?;
        child.cancel("seen");
        assert_eq!(child.wait().await?, ChildState::Cancelled);
        Ok(())
    }));
    begin(&mut nursery).await;
    checkpoint().await?;
    let around = fail_after(secs(3000), async {
        begin(&mut nursery).await;
        assert_eq!(seconds_left(), Some(3000));
        Ok(())
    });
    fail_after(secs(4000), around).await?;
    assert_eq!(seconds_left(), None);
    nursery.await
}

#[trio::test(clock = "autojump")]
async fn dl4_deadline_and_timeout_are_two_views_after_entry_and_one_each_before() -> Result<()> {
    let scope = CancelScope::with_timeout(secs(7));
    assert_eq!((scope.deadline(), scope.timeout()), (None, Some(secs(7))));
    scope.set_timeout(secs(5));
    assert_eq!(scope.timeout(), Some(secs(5)));
    let at = current_time() + secs(9);
    let fixed = CancelScope::with_deadline(at);
    assert_eq!((fixed.deadline(), fixed.timeout()), (Some(at), None));
    // The last setting counts.
    fixed.set_timeout(secs(1));
    assert_eq!((fixed.deadline(), fixed.timeout()), (None, Some(secs(1))));

    let start = current_time();
    scope
        .enter(async {
            assert_eq!(scope.deadline(), Some(start + secs(5)));
            assert_eq!(scope.timeout(), Some(secs(5)));
            sleep(secs(2)).await?;
            assert_eq!(scope.timeout(), Some(secs(3)));
            scope.set_timeout(secs(10));
            assert_eq!(scope.deadline(), Some(start + secs(12)));
            scope.set_deadline(start + secs(4));
            assert_eq!(scope.timeout(), Some(secs(2)));
            scope.set_deadline(start);
            assert_eq!(scope.timeout(), Some(secs(0)), "never less than nothing");
            Ok(())
        })
        .await?;
    assert_eq!(scope.deadline(), Some(start), "still told after the end");
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn dl5_a_deadline_can_be_moved_while_it_is_waited_for() -> Result<()> {
    let start = current_time();
    for (to, expected) in [(secs(2), secs(2)), (secs(20), secs(20)), (secs(0), secs(1))] {
        let begin = current_time();
        let scope = CancelScope::with_timeout(secs(10));
        open_nursery(async |nursery| {
            nursery.start_soon(async {
                assert_eq!(scope.enter(sleep_forever()).await?, None);
                assert_eq!(current_time() - begin, expected);
                Ok(())
            });
            sleep(secs(1)).await?;
            // The last is in the past by then: it takes effect in the next turn.
            scope.set_deadline(begin + to);
            Ok(())
        })
        .await?;
    }
    assert_eq!(current_time() - start, secs(23));
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn dl5_moving_a_deadline_thousands_of_times_leaves_nothing_behind() -> Result<()> {
    let start = current_time();
    let scope = CancelScope::new();
    let ended = scope
        .enter(async {
            for n in 0..20_000 {
                scope.set_deadline(start + secs(10 + n % 7));
                if n % 1000 == 0 {
                    checkpoint().await?;
                }
            }
            scope.set_deadline(Time::NEVER);
            sleep(secs(100)).await?;
            scope.set_timeout(secs(1));
            sleep_forever().await
        })
        .await?;
    assert_eq!(ended, None);
    assert_eq!(current_time() - start, secs(101));
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn dl6_the_deadline_of_a_scope_that_was_left_never_comes() -> Result<()> {
    let scope = CancelScope::with_timeout(secs(5));
    assert_eq!(scope.enter(sleep(secs(1))).await?, Some(()));
    sleep(secs(10)).await?;
    assert!(!scope.cancel_called());
    scope.set_deadline(Time::PAST);
    checkpoint().await?;
    assert!(!scope.cancel_called(), "it shows how it ended");
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn dl7_its_own_deadline_reaches_a_shielded_scope() -> Result<()> {
    let start = current_time();
    let outer = CancelScope::new();
    outer.cancel("");
    outer
        .enter(async {
            let scope = CancelScope::with_timeout(secs(3)).shielded();
            assert_eq!(scope.enter(sleep_forever()).await?, None);
            assert_eq!(current_time() - start, secs(3));
            let scope = CancelScope::with_timeout(secs(3)).shielded();
            let result = scope.enter(fail_after(secs(1), sleep_forever())).await;
            assert!(result.is_err_and(|error| error.is::<TooSlow>()));
            assert_eq!(current_time() - start, secs(4));
            Ok(())
        })
        .await?;
    Ok(())
}

#[trio::test(backend = "all", clock = "autojump")]
async fn dl8_move_on_gives_none_and_fail_gives_too_slow() -> Result<()> {
    let start = current_time();
    assert_eq!(move_on_after(secs(1), sleep_forever()).await?, None);
    assert_eq!(current_time() - start, secs(1));
    assert_eq!(move_on_at(start + secs(2), sleep_forever()).await?, None);
    assert_eq!(current_time() - start, secs(2));
    for slow in [
        fail_after(secs(1), sleep_forever()).await,
        fail_at(start + secs(4), sleep_forever()).await,
        fail_at(start, checkpoint()).await,
    ] {
        let error = slow.expect_err("it is too slow");
        assert!(error.is::<TooSlow>());
        let text = error.to_string();
        assert!(
            text.starts_with("too slow: the deadline has passed that was set at tests/it/"),
            "{text}"
        );
    }
    assert_eq!(current_time() - start, secs(4));

    let in_time = || async {
        sleep(secs(1)).await?;
        Ok(7)
    };
    assert_eq!(move_on_after(secs(2), in_time()).await?, Some(7));
    assert_eq!(
        move_on_at(current_time() + secs(2), in_time()).await?,
        Some(7)
    );
    assert_eq!(fail_after(secs(2), in_time()).await?, 7);
    assert_eq!(fail_at(current_time() + secs(2), in_time()).await?, 7);
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn dl8_too_slow_is_said_by_the_scope_that_caught_and_no_other() -> Result<()> {
    // Here the enclosing scope is the one that is cancelled.
    let outer = CancelScope::new();
    outer.cancel("");
    let result = outer.enter(fail_after(secs(1), checkpoint())).await?;
    assert_eq!(result, None);
    // Both are due: the outermost catches.
    let outer = move_on_after(secs(1), fail_after(secs(1), sleep_forever())).await?;
    assert_eq!(outer, None);
    // The failure of the cleanup is reported, not the lateness.
    let result = fail_after(secs(1), async {
        let late = sleep_forever().await;
        assert_eq!(failure(late), "cancelled");
        oops::<()>("clean-up")
    })
    .await;
    assert_eq!(failure(result), "clean-up");
    // And so is a value that was found nevertheless.
    let result = fail_after(secs(1), async {
        assert_eq!(failure(sleep_forever().await), "cancelled");
        Ok("default")
    })
    .await;
    assert_eq!(result?, "default");
    // A timeout in a group with another error: the other error is what remains.
    let result: Result<()> = fail_after(secs(1), async {
        let late = sleep_forever().await.expect_err("cancelled");
        Err(Error::group("both", vec![late, Error::msg("other")]))
    })
    .await;
    assert_eq!(failure(result), "[other]");
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn dl9_sleeping_takes_as_long_as_was_said() -> Result<()> {
    let start = current_time();
    sleep(secs(3)).await?;
    assert_eq!(current_time() - start, secs(3));
    sleep_until(start + secs(5)).await?;
    assert_eq!(current_time() - start, secs(5));
    sleep_until(start).await?;
    sleep(secs(0)).await?;
    assert_eq!(current_time() - start, secs(5));
    Ok(())
}

#[test]
fn dl9_sleeping_is_never_shorter_on_the_real_clock() {
    let wanted = std::time::Duration::from_millis(20);
    trio::run(async {
        let before = current_time();
        assert!(sleep(wanted).await.is_ok());
        assert!(current_time() - before >= wanted);
    });
}

#[trio::test(clock = "autojump")]
async fn dl9_sleepers_wake_in_the_order_of_their_deadlines() -> Result<()> {
    let order = RefCell::new(Vec::new());
    open_nursery(async |nursery| {
        for n in [5, 1, 4, 2, 3] {
            let order = &order;
            nursery.start_soon(async move {
                sleep(secs(n)).await?;
                order.borrow_mut().push(n);
                Ok(())
            });
        }
        Ok(())
    })
    .await?;
    assert_eq!(order.take(), [1, 2, 3, 4, 5]);
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn dl10_sleep_forever_ends_by_cancellation_only() -> Result<()> {
    let woken = Cell::new(false);
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            // Polling it again, as a combinator may, does not end it.
            let mut forever = std::pin::pin!(sleep_forever());
            let mut polls = 0;
            let result = std::future::poll_fn(|context| {
                polls += 1;
                let poll = forever.as_mut().poll(context);
                if poll.is_pending() && polls < 10 {
                    context.waker().wake_by_ref();
                }
                poll
            })
            .await;
            woken.set(true);
            result
        });
        sleep(secs(1_000_000_000)).await?;
        assert!(!woken.get());
        nursery.cancel_scope().cancel("");
        Ok(())
    })
    .await?;
    assert!(woken.get());
    Ok(())
}

/// Whether the clock has been asked, and how often.
#[derive(Clone, Default)]
struct Counting(std::rc::Rc<Cell<u32>>);

impl trio::testing::Clock for Counting {
    fn now(&self) -> Time {
        self.0.set(self.0.get() + 1);
        Time::from_nanos(1_000_000_000)
    }

    fn wait_until(&self, _: Time) -> std::time::Duration {
        std::time::Duration::ZERO
    }
}

#[test]
fn dl11_a_timeout_of_nothing_is_due_on_entry() {
    trio::run(async {
        let ended = move_on_after(secs(0), checkpoint()).await;
        assert!(matches!(ended, Ok(None)), "{ended:?}");
        let ended = move_on_after(secs(0), async { Ok(7) }).await;
        assert!(matches!(ended, Ok(Some(7))), "{ended:?}");
    });
}

#[test]
fn dl12_time_comes_from_the_clock_of_the_run() {
    let clock = MockClock::new();
    Builder::new().clock(clock.clone()).run(async {
        let start = current_time();
        assert_eq!(current_time(), start, "it stands still");
        clock.jump(secs(10));
        assert_eq!(current_time() - start, secs(10), "and is moved at once");
    });
    let clock = Counting::default();
    Builder::new().clock(clock.clone()).run(async {
        assert_eq!(current_time(), Time::from_nanos(1_000_000_000));
    });
    assert_eq!(clock.0.get(), 1);
    trio::run(async {
        let first = current_time();
        while current_time() == first {}
        assert!(current_time() > first);
    });
}

#[trio::test(clock = "autojump")]
async fn dl12_whoever_waits_for_all_to_be_blocked_goes_before_a_jump_of_the_clock() -> Result<()> {
    let start = current_time();
    open_nursery(async |nursery| {
        nursery.start_soon(sleep(secs(10)));
        wait_all_tasks_blocked(secs(0)).await?;
        assert_eq!(current_time(), start);
        Ok(())
    })
    .await?;
    assert_eq!(current_time() - start, secs(10));
    Ok(())
}

/// Polls `future` in a task that ends before the future does, and returns the future.
async fn begun_elsewhere<F: Future + Unpin>(mut future: F) -> Result<F> {
    let moved = RefCell::new(None);
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            begin(&mut future).await;
            *moved.borrow_mut() = Some(future);
            Ok(())
        });
        Ok(())
    })
    .await?;
    Ok(moved.take().expect("the task has left it"))
}

#[trio::test(clock = "autojump")]
async fn dl9_a_sleep_that_goes_on_in_another_task_does_not_end_early() -> Result<()> {
    let before = current_time();
    let sleep = begun_elsewhere(sleep(secs(10))).await?;
    sleep.await?;
    assert_eq!(current_time() - before, secs(10));
    // It does so even in a combinator that polls only what has been woken.
    let many = FuturesUnordered::from_iter([trio::sleep(secs(10))]).into_future();
    let (ended, _) = begun_elsewhere(many).await?.await;
    assert!(ended.is_some_and(|result| result.is_ok()));
    assert_eq!(current_time() - before, secs(20));
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn dl10_sleeping_forever_goes_on_in_another_task() -> Result<()> {
    let forever = begun_elsewhere(sleep_forever()).await?;
    assert_eq!(move_on_after(secs(1), forever).await?, None);
    Ok(())
}

#[trio::test(backend = "all", clock = "autojump")]
async fn l7_a_deadline_tells_where_it_was_set() -> Result<()> {
    /// The line that the cancellation from `future` names as the place of its deadline.
    async fn told(scope: &CancelScope, future: impl Future<Output = Result<()>>) -> u32 {
        let ended = scope.enter(future).await;
        assert!(matches!(ended, Ok(None)), "{ended:?}");
        let cancelled = scope.cancellation().expect("it was cancelled");
        assert_eq!(cancelled.source(), trio::CancelSource::Deadline);
        let place = cancelled.place().expect("it was set somewhere");
        assert_eq!(place.file(), file!());
        place.line()
    }
    let after = CancelScope::with_timeout(secs(1));
    assert_eq!(told(&after, sleep_forever()).await, line!() - 1);
    let at_once = CancelScope::with_timeout(secs(0));
    assert_eq!(told(&at_once, checkpoint()).await, line!() - 1);
    let at = CancelScope::with_deadline(current_time() + secs(1));
    assert_eq!(told(&at, sleep_forever()).await, line!() - 1);
    let later = CancelScope::with_timeout(secs(100));
    later.set_timeout(secs(1));
    assert_eq!(told(&later, sleep_forever()).await, line!() - 1);
    let moved = CancelScope::new();
    let line = line!() + 2;
    let inside = async {
        moved.set_deadline(current_time() + secs(1));
        sleep_forever().await
    };
    assert_eq!(told(&moved, inside).await, line);
    let asked = CancelScope::with_timeout(secs(100));
    asked.set_deadline(Time::PAST);
    assert!(asked.cancel_called());
    let place = asked.cancellation().and_then(|cancelled| cancelled.place());
    assert_eq!(place.map(|place| place.line()), Some(line!() - 3));

    let line = line!() + 1;
    let slow = fail_after(secs(1), sleep_forever()).await;
    let error = slow.expect_err("it is too slow");
    let slow = error.downcast::<TooSlow>()?;
    assert_eq!(
        slow.place().map(|place| (place.file(), place.line())),
        Some((file!(), line))
    );
    let line = line!() + 1;
    let slow = fail_at(current_time(), checkpoint()).await;
    let slow = slow.expect_err("it is too slow").downcast::<TooSlow>()?;
    assert_eq!(slow.place().map(|place| place.line()), Some(line));
    let line = line!() + 1;
    let inner = move_on_after(secs(1), async {
        let error = sleep_forever()
            .await
            .expect_err("it does not end otherwise");
        let cancelled = error.as_cancelled().cloned().expect("that is how it ends");
        assert_eq!(cancelled.place().map(|place| place.line()), Some(line));
        Err::<(), _>(error)
    });
    assert_eq!(inner.await?, None);
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn dl8_too_slow_is_said_only_where_the_deadline_caused_it() -> Result<()> {
    // By hand, from the enclosing scope: the deadline had nothing to do with it.
    let scope = CancelScope::new();
    let ended = scope
        .enter(async {
            scope.cancel("by hand");
            fail_after(secs(1), sleep_forever()).await
        })
        .await;
    assert!(matches!(ended, Ok(None)), "{ended:?}");
    // By another deadline, that is earlier.
    let outer = fail_after(secs(1), async {
        let inner = fail_after(secs(2), sleep_forever()).await;
        assert!(inner.as_ref().is_err_and(Error::is_cancelled), "{inner:?}");
        inner
    });
    assert!(outer.await.is_err_and(|error| error.is::<TooSlow>()));
    // By a sibling.
    let failed = open_nursery(async |nursery| {
        nursery.start_soon(async {
            let slow = fail_after(secs(5), sleep_forever()).await;
            assert!(slow.as_ref().is_err_and(Error::is_cancelled), "{slow:?}");
            slow
        });
        wait_all_tasks_blocked(secs(0)).await?;
        oops::<()>("sibling")
    });
    assert_eq!(failure(failed.await), "[sibling]");
    // The future failed on its own, after its time was up.
    let own = fail_after(secs(1), async {
        drop(sleep_forever().await);
        oops::<()>("its own")
    });
    assert_eq!(failure(own.await), "its own");
    Ok(())
}
