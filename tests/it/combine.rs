//! Joins, races, values as they arrive, and maps (CB).

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Poll;

use trio::lowlevel::cancel_shielded_checkpoint;
use trio::testing::wait_all_tasks_blocked;
use trio::{
    CancelScope, Cancelled, Error, Result, TooSlow, Usage, as_completed, checkpoint, current_time,
    fail_after, for_each_concurrent, join, join_all, map_concurrent, map_concurrent_unordered,
    move_on_after, open_nursery, race, race_all, race_ok, race_ok_all, sleep, sleep_forever,
    try_join, try_join_all,
};

use crate::support::{failure, oops, secs};

/// Returns the value after this many seconds.
async fn after<T>(seconds: u64, value: T) -> Result<T> {
    sleep(secs(seconds)).await?;
    Ok(value)
}

/// Fails after this many seconds.
async fn fails<T>(seconds: u64, what: &str) -> Result<T> {
    sleep(secs(seconds)).await?;
    oops(what)
}

/// Does either, for lists of one type.
async fn ends<T>(seconds: u64, how: Result<T, &str>) -> Result<T> {
    sleep(secs(seconds)).await?;
    how.or_else(oops)
}

/// Never ends well, and records when it has cleaned up, which takes a second.
async fn reluctant<T>(ended: &Cell<bool>) -> Result<T> {
    let error = sleep_forever().await.unwrap_err();
    let scope = CancelScope::new().shielded();
    scope.enter(sleep(secs(1))).await?;
    ended.set(true);
    Err(error)
}

/// Does not check for cancels, and ends well after this many turns.
async fn deaf<T>(turns: u32, value: T) -> Result<T> {
    for _ in 0..turns {
        cancel_shielded_checkpoint().await;
    }
    Ok(value)
}

// CB1: joins.

#[trio::test(backend = "all", clock = "autojump")]
async fn cb1_values_come_in_the_order_of_the_futures_and_all_run_at_once() -> Result<()> {
    let start = current_time();
    let values = try_join_all([3, 1, 2].map(|n| after(n, n))).await?;
    assert_eq!(values, [3, 1, 2]);
    assert_eq!(current_time() - start, secs(3));
    let (number, text, unit) = try_join((after(2, 7), after(1, "seven"), sleep(secs(3)))).await?;
    assert_eq!((number, text, unit), (7, "seven", ()));
    assert_eq!(current_time() - start, secs(6));
    Ok(())
}

#[trio::test]
async fn cb1_nothing_to_join_is_joined_at_once() -> Result<()> {
    let nothing: [std::future::Ready<Result<u8>>; 0] = [];
    assert!(try_join_all(nothing).await?.is_empty());
    let nothing: [std::future::Ready<u8>; 0] = [];
    assert!(join_all(nothing).await?.is_empty());
    Ok(())
}

#[trio::test]
async fn cb1_what_is_joined_may_borrow_shared_and_mutably() -> Result<()> {
    let text = String::from("borrowed");
    let mut count = 0;
    let (length, ()) = try_join((async { Ok(text.len()) }, async {
        checkpoint().await?;
        count += 1;
        Ok(())
    }))
    .await?;
    assert_eq!((length, count), (8, 1));
    let lengths = try_join_all(text.split('r').map(async |part| Ok(part.len()))).await?;
    assert_eq!(lengths, [2, 0, 4]);
    Ok(())
}

#[trio::test]
async fn cb1_up_to_eight_of_different_types() -> Result<()> {
    async fn is<T>(value: T) -> Result<T> {
        checkpoint().await?;
        Ok(value)
    }
    let eight = (
        is(1u8),
        is(2u16),
        is(3u32),
        is("4"),
        is('5'),
        is(6.0),
        is([7]),
        is(Some(8)),
    );
    let values = try_join(eight).await?;
    assert_eq!(values, (1, 2, 3, "4", '5', 6.0, [7], Some(8)));
    let outputs = join((async { 1 }, is(2), async { "3" })).await?;
    assert!(matches!(outputs, (1, Ok(2), "3")));
    Ok(())
}

// CB2: failures.

#[trio::test(clock = "autojump")]
async fn cb2_the_first_failure_cancels_the_rest_and_waits_for_them() -> Result<()> {
    let start = current_time();
    let ended = Cell::new(false);
    let result = try_join((reluctant::<()>(&ended), fails::<()>(5, "broken"))).await;
    assert_eq!(failure(result), "[broken]");
    assert!(ended.get(), "waited for");
    assert_eq!(current_time() - start, secs(6));
    let futures = [
        fails::<()>(2, "late"),
        fails(1, "first"),
        fails(1, "second"),
    ];
    let result = try_join_all(futures).await;
    assert_eq!(failure(result), "[first second]");
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn cb2_join_keeps_the_rest_running() -> Result<()> {
    let outputs = join_all([ends(1, Err("one")), ends(2, Ok(2)), ends(3, Err("three"))]).await?;
    assert!(matches!(&outputs[..], [Err(_), Ok(2), Err(_)]));
    let (bad, good) = join((fails::<()>(1, "one"), after(2, 2))).await?;
    assert_eq!((failure(bad), good?), ("one".to_owned(), 2));
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn cb2_what_is_cancelled_from_outside_says_one_plain_cancelled() -> Result<()> {
    let scope = CancelScope::with_timeout(secs(1));
    let caught = scope
        .enter(async {
            let forever = || sleep_forever();
            assert_eq!(failure(try_join((forever(), forever())).await), "cancelled");
            assert_eq!(failure(try_join_all([forever()]).await), "cancelled");
            assert_eq!(
                failure(race((forever(), forever()), drop).await),
                "cancelled"
            );
            assert_eq!(
                failure(race_ok((forever(), forever()), drop).await),
                "cancelled"
            );
            let each = async |_| forever().await;
            assert_eq!(failure(map_concurrent(0..3, 2, each).await), "cancelled");
            let taken = as_completed([forever()], async |all| all.next().await);
            assert_eq!(failure(taken.await), "cancelled");
            let (one, two) = join((forever(), forever())).await?;
            assert_eq!(
                (failure(one), failure(two)),
                ("cancelled".into(), "cancelled".into())
            );
            checkpoint().await
        })
        .await?;
    assert!(caught.is_none());
    assert!(scope.cancelled_caught());
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn cb2_values_that_beat_the_cancel_are_returned() -> Result<()> {
    let scope = CancelScope::new();
    scope.cancel("before it began");
    let values = scope.enter(try_join((deaf(2, 1), deaf(1, 2)))).await?;
    assert_eq!(values, Some((1, 2)));
    Ok(())
}

/// A cancellation that is unrelated to the place where it is returned.
async fn stray() -> Result<Cancelled> {
    let mut kept = None;
    move_on_after(secs(0), async {
        kept = sleep_forever().await.err();
        Ok(())
    })
    .await?;
    let error = kept.expect("it was cancelled");
    Ok(error.as_cancelled().expect("it is one").clone())
}

#[trio::test(clock = "autojump")]
async fn cb2_a_cancellation_that_nobody_asked_for_is_passed_on_as_it_is() -> Result<()> {
    let stray = stray().await?;
    let fail = async || Err::<u8, Error>(stray.clone().into());
    assert_eq!(failure(try_join((fail(), after(9, 1))).await), "cancelled");
    assert_eq!(failure(try_join_all([fail(), fail()]).await), "cancelled");
    let group = async || Err::<u8, _>(Error::group("several", vec![stray.clone().into()]));
    assert_eq!(failure(try_join_all([group()]).await), "cancelled");
    assert_eq!(
        failure(race((fail(), after(9, 1)), drop).await),
        "cancelled"
    );
    assert_eq!(
        failure(race_ok((fail(), after(9, 1)), drop).await),
        "cancelled"
    );
    assert_eq!(
        failure(map_concurrent(0..3, 2, async |_| fail().await).await),
        "cancelled"
    );
    let unordered = map_concurrent_unordered(0..3, 2, async |_| fail().await);
    assert_eq!(failure(unordered.await), "cancelled");
    let taken = as_completed([fail()], async |all| all.next().await);
    assert_eq!(failure(taken.await), "cancelled");
    Ok(())
}

#[test]
fn cb2_a_panic_of_one_cancels_the_rest_and_goes_on() {
    let cleaned = Rc::new(Cell::new(false));
    let seen = cleaned.clone();
    let run = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        trio::run(async move {
            let other = async {
                let error = sleep_forever().await.unwrap_err();
                seen.set(true);
                Err::<(), Error>(error)
            };
            let bad = async {
                checkpoint().await?;
                if seen.get() {
                    return Ok(());
                }
                panic!("on purpose")
            };
            try_join((other, bad)).await
        })
    }));
    let Err(panic) = run else {
        panic!("it goes on")
    };
    assert_eq!(panic.downcast_ref(), Some(&"on purpose"));
    assert!(cleaned.get());
}

// CB3: a race is over when all have ended.

#[trio::test(backend = "all", clock = "autojump")]
async fn cb3_the_first_end_wins_and_the_losers_have_ended_when_it_returns() -> Result<()> {
    let start = current_time();
    let ended = Cell::new(false);
    let won = race((reluctant(&ended), after(3, "won")), drop).await?;
    assert_eq!(won, "won");
    assert!(ended.get());
    assert_eq!(current_time() - start, secs(4));
    assert_eq!(race_all([5, 1, 3].map(|n| after(n, n)), drop).await?, 1);
    assert_eq!(current_time() - start, secs(5));
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn cb3_a_failure_decides_a_race_too() -> Result<()> {
    let start = current_time();
    let result = race((fails(1, "broken"), after(9, ())), drop).await;
    assert_eq!(failure(result), "[broken]");
    assert_eq!(current_time() - start, secs(1));
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn cb3_of_attempts_the_first_that_succeeds_wins() -> Result<()> {
    let start = current_time();
    let attempts = [
        ends(1, Err("one")),
        ends(3, Ok("won")),
        ends(2, Err("two")),
        ends(9, Ok("slow")),
    ];
    assert_eq!(race_ok_all(attempts, drop).await?, "won");
    assert_eq!(current_time() - start, secs(3));
    assert_eq!(race_ok((fails(1, "one"), after(2, 2)), drop).await?, 2);
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn cb3_if_all_fail_all_failures_come_out_in_order() -> Result<()> {
    let attempts = [fails::<()>(3, "c"), fails(1, "a"), fails(2, "b")];
    assert_eq!(failure(race_ok_all(attempts, drop).await), "[a b c]");
    let scope = CancelScope::with_timeout(secs(2));
    let result = scope
        .enter(race_ok((fails::<()>(1, "a"), sleep_forever()), drop))
        .await;
    assert_eq!(failure(result), "[a]", "and the cancel went to its scope");
    assert!(scope.cancelled_caught());
    Ok(())
}

#[trio::test]
async fn cb3_nobody_wins_a_race_without_futures() -> Result<()> {
    let nobody: [std::future::Ready<Result<()>>; 0] = [];
    assert!(
        race_all(nobody, drop)
            .await
            .is_err_and(|error| error.is::<Usage>())
    );
    let nobody: [std::future::Ready<Result<()>>; 0] = [];
    assert!(
        race_ok_all(nobody, drop)
            .await
            .is_err_and(|error| error.is::<Usage>())
    );
    Ok(())
}

// CB4: nothing is lost.

#[trio::test(clock = "autojump")]
async fn cb4_a_success_that_is_not_returned_goes_to_the_sink() -> Result<()> {
    let mut late = Vec::new();
    let won = race((deaf(1, 1), deaf(2, 2)), |value| late.push(value)).await?;
    assert_eq!((won, &late[..]), (1, &[2][..]));
    late.clear();
    let won = race_all((1..=4).map(|n| deaf(5 - n, n)), |value| late.push(value)).await?;
    assert_eq!((won, &late[..]), (4, &[3, 2, 1][..]));
    late.clear();
    let won = race_ok((fails(0, "x"), deaf(3, 1), deaf(4, 2)), |value| {
        late.push(value)
    })
    .await?;
    assert_eq!((won, &late[..]), (1, &[2][..]));
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn cb4_a_winner_goes_to_the_sink_if_a_loser_fails_on_its_way_out() -> Result<()> {
    let bad_loser = async || {
        drop(sleep_forever().await);
        oops::<u32>("in cleaning up")
    };
    let mut late = Vec::new();
    let result = race((after(1, 1), bad_loser()), |value| late.push(value)).await;
    assert_eq!(failure(result), "[in cleaning up]");
    assert_eq!(late, [1]);
    let result = race_ok((after(1, 1), bad_loser()), drop).await;
    assert_eq!(result?, 1, "of attempts the failures do not count");
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn cb4_a_success_after_the_failure_that_decided_goes_to_the_sink() -> Result<()> {
    let mut late = Vec::new();
    let result = race((fails(0, "first"), deaf(9, 2)), |value| late.push(value)).await;
    assert_eq!(failure(result), "[first]");
    assert_eq!(late, [2]);
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn cb4_a_success_under_a_cancelled_scope_is_returned() -> Result<()> {
    let scope = CancelScope::new();
    scope.cancel("");
    let won = scope
        .enter(race((sleep_forever(), deaf(2, ())), drop))
        .await?;
    assert_eq!(won, Some(()));
    assert!(!scope.cancelled_caught());
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn cb4_a_race_loses_no_channel_item_as_a_select_would() -> Result<()> {
    // Two queues with an item in each; a race over both takes one, and whatever it took too many is
    // returned.
    let queues = [RefCell::new(vec![1]), RefCell::new(vec![2])];
    let take = async |index: usize| {
        std::future::poll_fn(|context| match queues[index].borrow_mut().pop() {
            Some(item) => Poll::Ready(Ok((index, item))),
            None => {
                context.waker().wake_by_ref();
                Poll::Pending
            }
        })
        .await
    };
    let returned = |(index, item): (usize, u32)| queues[index].borrow_mut().push(item);
    let (index, item) = race((take(0), take(1)), returned).await?;
    let left: u32 = queues
        .iter()
        .map(|queue| queue.borrow().iter().sum::<u32>())
        .sum();
    assert_eq!((item + left, queues[1 - index].borrow().len()), (3, 1));
    Ok(())
}

// CB5: values as they arrive.

#[trio::test(backend = "all", clock = "autojump")]
async fn cb5_values_come_in_the_order_in_which_the_futures_end() -> Result<()> {
    let order = as_completed([3, 1, 2].map(|n| after(n, n)), async |all| {
        let mut order = Vec::new();
        while let Some(value) = all.next().await? {
            order.push(value);
            assert_eq!(all.size_hint(), (0, 3 - order.len()));
        }
        assert_eq!(all.next().await?, None);
        Ok(order)
    })
    .await?;
    assert_eq!(order, [1, 2, 3]);
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn cb5_the_futures_go_on_while_the_body_does_something_else() -> Result<()> {
    let start = current_time();
    as_completed([1, 2, 3].map(|n| after(n, n)), async |all| {
        sleep(secs(10)).await?;
        assert_eq!((all.try_next(), all.try_next()), (Some(1), Some(2)));
        assert_eq!(all.next().await?, Some(3));
        assert_eq!(all.try_next(), None);
        Ok(())
    })
    .await?;
    assert_eq!(current_time() - start, secs(10));
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn cb5_a_body_that_has_seen_enough_ends_the_rest() -> Result<()> {
    let ended = Cell::new(false);
    let futures = async |n: u64| {
        if n == 0 {
            reluctant(&ended).await
        } else {
            after(n, n).await
        }
    };
    let first = as_completed((0..3).map(futures), async |all| all.next().await).await?;
    assert_eq!(first, Some(1));
    assert!(ended.get());
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn cb5_a_failure_of_a_future_or_of_the_body_cancels_the_rest() -> Result<()> {
    let result = as_completed([ends(1, Err("broken")), ends(9, Ok(1))], async |all| {
        while all.next().await?.is_some() {}
        Ok(())
    });
    assert_eq!(failure(result.await), "[broken]");
    let result = as_completed([after(9, 1)], async |_| oops::<()>("in the body"));
    assert_eq!(failure(result.await), "[in the body]");
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn cb5_after_a_failure_no_body_believes_that_it_has_seen_everything() -> Result<()> {
    let futures = [ends(1, Ok(1)), ends(2, Err("broken"))];
    let result = as_completed(futures, async |all| {
        // The cancel that the failure sends does not get in here.
        let shield = CancelScope::new().shielded();
        let drained = shield.enter(async {
            let mut count = 0;
            while all.next().await?.is_some() {
                count += 1;
            }
            Ok(count)
        });
        assert_eq!(failure(drained.await), "cancelled");
        Ok(())
    });
    assert_eq!(failure(result.await), "[broken]");
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn cb5_a_cancelled_next_has_taken_nothing() -> Result<()> {
    as_completed([after(2, "value")], async |all| {
        assert!(move_on_after(secs(1), all.next()).await?.is_none());
        assert_eq!(all.next().await?, Some("value"));
        Ok(())
    })
    .await
}

// CB6: maps.

#[trio::test(backend = "all", clock = "autojump")]
async fn cb6_a_map_keeps_order_and_limit() -> Result<()> {
    let start = current_time();
    let (running, most) = (Cell::new(0), Cell::new(0));
    let values = map_concurrent([4, 3, 2, 1, 1, 1], 3, async |n| {
        running.set(running.get() + 1);
        most.set(most.get().max(running.get()));
        sleep(secs(n)).await?;
        running.set(running.get() - 1);
        Ok(n * 10)
    })
    .await?;
    assert_eq!(values, [40, 30, 20, 10, 10, 10]);
    assert_eq!(most.get(), 3);
    assert_eq!(current_time() - start, secs(4));
    let values = map_concurrent_unordered([4, 3, 2, 1], usize::MAX, async |n| after(n, n).await);
    assert_eq!(values.await?, [1, 2, 3, 4]);
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn cb6_items_are_taken_when_there_is_room_and_not_before() -> Result<()> {
    let taken = Cell::new(0);
    let endless = std::iter::from_fn(|| {
        taken.set(taken.get() + 1);
        Some(taken.get())
    });
    let result = for_each_concurrent(endless, 4, async |n| {
        sleep(secs(1)).await?;
        assert!(taken.get() <= n + 4, "item {n} of {}", taken.get());
        if n == 10 { oops("enough") } else { Ok(()) }
    });
    assert_eq!(failure(result.await), "[enough]");
    assert!(taken.get() <= 14);
    Ok(())
}

#[trio::test]
async fn cb6_a_map_over_what_never_waits_starves_nobody_and_can_be_cancelled() -> Result<()> {
    let scope = CancelScope::new();
    let count = Cell::new(0u64);
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            checkpoint().await?;
            scope.cancel("seen enough");
            Ok(())
        });
        let endless = for_each_concurrent(0u64.., 2, async |_| {
            count.set(count.get() + 1);
            Ok(())
        });
        assert!(scope.enter(endless).await?.is_none());
        Ok(())
    })
    .await?;
    assert!(count.get() < 2000, "{}", count.get());
    Ok(())
}

#[test]
#[should_panic(expected = "a limit of zero")]
fn cb6_a_limit_of_zero_is_refused() {
    drop(map_concurrent([1], 0, async |_| Ok(())));
}

// CB7: dropped, timed out, named.

#[trio::test(clock = "autojump")]
async fn cb7_dropped_half_way_it_drops_what_is_in_it() -> Result<()> {
    let alive = Rc::new(());
    let holder = async |alive: Rc<()>| {
        sleep_forever().await?;
        drop(alive);
        Ok(())
    };
    {
        let race = race((holder(alive.clone()), holder(alive.clone())), drop);
        let mut race = std::pin::pin!(race);
        assert!(futures::poll!(race.as_mut()).is_pending());
        wait_all_tasks_blocked(secs(0)).await?;
        assert!(futures::poll!(race.as_mut()).is_pending());
        assert_eq!(Rc::strong_count(&alive), 3);
    }
    assert_eq!(Rc::strong_count(&alive), 1);
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn cb7_a_timeout_around_it_ends_it_in_its_own_way() -> Result<()> {
    let ended = Cell::new(false);
    let slow = fail_after(
        secs(2),
        try_join((reluctant::<()>(&ended), sleep_forever())),
    );
    assert!(slow.await.is_err_and(|error| error.is::<TooSlow>()));
    assert!(ended.get());
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn cb7_the_task_tree_shows_each_by_its_own_name_and_the_place_of_the_call() -> Result<()> {
    async fn first_of_two() -> Result<()> {
        sleep_forever().await
    }
    let look = async {
        checkpoint().await?;
        let tree = trio::lowlevel::task_tree().to_string();
        assert!(tree.contains("first_of_two (tests/it/combine.rs"), "{tree}");
        Ok(())
    };
    race((first_of_two(), look), drop).await
}
