//! Nurseries: who lives in them, when they end, and what comes out (N, J, F4).

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures::future::LocalBoxFuture;

use trio::instrument::{Instrument, add_instrument, remove_instrument};
use trio::lowlevel::{TaskTree, cancel_shielded_checkpoint, task_tree};
use trio::testing::wait_all_tasks_blocked;
use trio::{
    Builder, CancelScope, Event, NoValue, Result, TreeVar, checkpoint, current_time, move_on_after,
    open_nursery, sleep, sleep_forever,
};

use crate::network::pair;
use crate::support::{begin, failure, oops, secs};

#[trio::test]
async fn n1_a_nursery_has_a_scope_around_its_body_and_its_children() -> Result<()> {
    let child = Cell::new(false);
    let around = CancelScope::new();
    let ended = around
        .enter(async {
            open_nursery(async |nursery| {
                assert!(!nursery.cancel_scope().cancel_called());
                nursery.start_soon(async {
                    assert_eq!(failure(sleep_forever().await), "cancelled");
                    child.set(true);
                    Ok(())
                });
                checkpoint().await?;
                nursery.cancel_scope().cancel("");
                checkpoint().await
            })
            .await?;
            checkpoint().await?;
            Ok("not what is around")
        })
        .await?;
    assert_eq!(ended, Some("not what is around"));
    assert!(child.get());
    Ok(())
}

#[trio::test]
async fn n1_a_body_cut_short_by_its_own_nursery_gives_the_default() -> Result<()> {
    let value: Option<u32> = open_nursery(async |nursery| {
        nursery.cancel_scope().cancel("");
        checkpoint().await?;
        Ok(Some(7))
    })
    .await?;
    assert_eq!(value, None);
    let value: u32 = open_nursery(async |nursery| {
        nursery.cancel_scope().cancel("");
        Ok(7)
    })
    .await?;
    assert_eq!(value, 7, "a body that ended by itself keeps its value");
    // The same if a child is the one that notices.
    let value: u32 = open_nursery(async |nursery| {
        nursery.start_soon(sleep_forever());
        nursery.cancel_scope().cancel("");
        Ok(7)
    })
    .await?;
    assert_eq!(value, 7);
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn n2_the_body_counts_as_a_child_of_its_own() -> Result<()> {
    let start = current_time();
    open_nursery(async |nursery| {
        nursery.start_soon(sleep(secs(1)));
        assert_eq!(nursery.child_count(), 1, "the body is not counted");
        sleep(secs(3)).await?;
        assert_eq!(nursery.child_count(), 0);
        Ok(())
    })
    .await?;
    assert_eq!(current_time() - start, secs(3), "the body is waited for");
    open_nursery(async |nursery| {
        nursery.start_soon(sleep(secs(2)));
        Ok(())
    })
    .await?;
    assert_eq!(current_time() - start, secs(5), "and so are the children");
    Ok(())
}

#[trio::test(backend = "all", clock = "autojump")]
async fn n3_an_error_of_a_child_cancels_its_siblings_and_the_body() -> Result<()> {
    let cancelled = Cell::new(0);
    let notice = async || {
        let result = sleep_forever().await;
        assert!(result.as_ref().is_err_and(|error| error.is_cancelled()));
        cancelled.set(cancelled.get() + 1);
        result
    };
    let result = open_nursery(async |nursery| {
        nursery.start_soon(notice());
        nursery.start_soon(async {
            sleep(secs(1)).await?;
            oops("child")
        });
        nursery.start_soon(notice());
        notice().await
    })
    .await;
    assert_eq!(failure(result), "[child]");
    assert_eq!(cancelled.get(), 3);
    Ok(())
}

#[trio::test]
async fn n3_an_error_of_the_body_cancels_the_children() -> Result<()> {
    let cancelled = Cell::new(false);
    let result = open_nursery(async |nursery| {
        nursery.start_soon(async {
            let result = sleep_forever().await;
            cancelled.set(true);
            result
        });
        checkpoint().await?;
        oops::<()>("body")
    })
    .await;
    assert_eq!(failure(result), "[body]");
    assert!(cancelled.get());
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn n4_the_wait_at_the_end_is_not_cancelled_the_children_decide() -> Result<()> {
    let start = current_time();
    let scope = CancelScope::new();
    let ended = scope
        .enter(open_nursery(async |nursery| {
            nursery.start_soon(async {
                CancelScope::new().shielded().enter(sleep(secs(5))).await?;
                Ok(())
            });
            nursery.start_soon(async {
                sleep(secs(1)).await?;
                scope.cancel("while the opener waits");
                Ok(())
            });
            Ok("the body's value")
        }))
        .await?;
    assert_eq!(current_time() - start, secs(5));
    assert_eq!(ended, Some("the body's value"));
    assert!(scope.cancel_called());
    assert!(
        !scope.cancelled_caught(),
        "the wait has recorded no cancellation"
    );
    Ok(())
}

#[trio::test]
async fn n5_a_nursery_with_nothing_to_wait_for_ends_at_once() -> Result<()> {
    let mut nursery = Box::pin(open_nursery(async |_| Ok(7)));
    let polled = poll_fn(|context| Poll::Ready(nursery.as_mut().poll(context))).await;
    assert!(
        matches!(polled, Poll::Ready(Ok(7))),
        "it costs no turn of the loop"
    );
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn n6_children_may_be_added_as_long_as_one_lives() -> Result<()> {
    let start = current_time();
    let order = RefCell::new(Vec::new());
    open_nursery(async |nursery| {
        let order = &order;
        nursery.start_soon(async move {
            sleep(secs(1)).await?;
            // The body has ended, and the opener waits.
            for n in [2, 1] {
                nursery.start_soon(async move {
                    sleep(secs(n)).await?;
                    order.borrow_mut().push(n);
                    nursery.start_soon(async move {
                        sleep(secs(n)).await?;
                        order.borrow_mut().push(10 * n);
                        Ok(())
                    });
                    Ok(())
                });
            }
            Ok(())
        });
        Ok(())
    })
    .await?;
    assert_eq!(order.take(), [1, 2, 10, 20]);
    assert_eq!(current_time() - start, secs(5));
    Ok(())
}

#[trio::test]
async fn n7_all_errors_come_as_one_group_in_the_order_of_arrival() -> Result<()> {
    let result = open_nursery(async |nursery| {
        nursery.start_soon(async {
            cancel_shielded_checkpoint().await;
            oops("second")
        });
        nursery.start_soon(async {
            drop(sleep_forever().await);
            oops("fourth")
        });
        nursery.start_soon(async { oops("first") });
        drop(sleep_forever().await);
        oops::<()>("third, the body")
    })
    .await;
    let error = result.expect_err("four have failed");
    let mut told: Vec<String> = error.leaves().map(ToString::to_string).collect();
    // Those that were only woken by a cancel come after, in any order.
    told[1..].sort();
    assert_eq!(told, ["first", "fourth", "second", "third, the body"]);
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn n7_neither_the_body_nor_a_child_goes_first() -> Result<()> {
    for body_after in [1, 3] {
        let result = open_nursery(async |nursery| {
            nursery.start_soon(async {
                shielded_sleep(2).await?;
                oops("child")
            });
            shielded_sleep(body_after).await?;
            oops::<()>("body")
        })
        .await;
        let expected = if body_after == 1 {
            "[body child]"
        } else {
            "[child body]"
        };
        assert_eq!(failure(result), expected);
    }
    Ok(())
}

async fn shielded_sleep(seconds: u64) -> Result<()> {
    CancelScope::new()
        .shielded()
        .enter(sleep(secs(seconds)))
        .await?;
    Ok(())
}

#[trio::test]
async fn n7_a_single_error_is_a_group_of_one() -> Result<()> {
    let child = open_nursery(async |nursery| {
        nursery.start_soon(async { oops("child") });
        Ok(())
    });
    assert_eq!(failure(child.await), "[child]");
    let body = open_nursery(async |_| oops::<()>("body"));
    assert_eq!(failure(body.await), "[body]");
    Ok(())
}

#[trio::test]
async fn n8_cancellations_from_outside_leave_as_a_group() -> Result<()> {
    let scope = CancelScope::new();
    let ended = scope
        .enter(async {
            scope.cancel("");
            let lone = open_nursery(async |_| checkpoint().await).await;
            assert_eq!(failure(lone), "[cancelled]");
            let several = open_nursery(async |nursery| {
                nursery.start_soon(sleep_forever());
                nursery.start_soon(sleep_forever());
                sleep_forever().await
            })
            .await;
            let error = several.expect_err("cancelled");
            assert!(error.is_cancelled() && error.as_cancelled().is_none());
            assert_eq!(error.leaves().count(), 3);
            Err::<(), _>(error)
        })
        .await?;
    assert_eq!(ended, None);
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn n9_a_body_that_returns_does_not_cancel_the_children() -> Result<()> {
    let done = Cell::new(false);
    let value = open_nursery(async |nursery| {
        nursery.start_soon(async {
            sleep(secs(1)).await?;
            done.set(true);
            Ok(())
        });
        Ok("early")
    })
    .await?;
    assert_eq!(value, "early");
    assert!(done.get());
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn n10_a_child_is_cancelled_with_the_nursery_and_not_with_who_started_it() -> Result<()> {
    let start = current_time();
    let cancelled = CancelScope::new();
    open_nursery(async |nursery| {
        let shortly = move_on_after(secs(1), async {
            nursery.start_soon(sleep(secs(5)));
            sleep_forever().await
        });
        assert_eq!(shortly.await?, None);
        cancelled.cancel("");
        let started = cancelled
            .enter(async {
                nursery.start_soon(sleep(secs(6)));
                Ok(())
            })
            .await?;
        assert_eq!(started, Some(()));
        // An inner nursery does not pass its cancellation to children of the outer one.
        open_nursery(async |inner| {
            inner.start_soon(async {
                inner.cancel_scope().cancel("");
                nursery.start_soon(sleep(secs(7)));
                Ok(())
            });
            Ok(())
        })
        .await
    })
    .await?;
    assert_eq!(current_time() - start, secs(8));
    Ok(())
}

/// The order in which five tasks take their steps.
async fn steps() -> Result<Vec<usize>> {
    let order = RefCell::new(Vec::new());
    open_nursery(async |nursery| {
        for n in 0..5 {
            let order = &order;
            nursery.start_soon(async move {
                for _ in 0..4 {
                    order.borrow_mut().push(n);
                    checkpoint().await?;
                }
                Ok(())
            });
        }
        Ok(())
    })
    .await?;
    Ok(order.take())
}

#[test]
fn n11_the_order_of_children_depends_on_the_seed() {
    let with = |seed| Builder::new().seed(seed).run(steps()).ok();
    let mut orders: Vec<_> = (0..10).map(with).collect();
    assert_eq!(
        orders,
        (0..10).map(with).collect::<Vec<_>>(),
        "the same for the same seed"
    );
    orders.sort();
    orders.dedup();
    assert!(orders.len() > 5, "and different for different ones");
}

#[test]
fn f4_tasks_that_are_ready_take_one_step_each_in_every_turn() {
    for seed in [None, Some(1), Some(2)] {
        let builder = match seed {
            None => Builder::new(),
            Some(seed) => Builder::new().seed(seed),
        };
        let order = builder.run(steps()).expect("nothing fails");
        for turn in order.chunks(5) {
            let mut turn = turn.to_vec();
            turn.sort_unstable();
            assert_eq!(turn, [0, 1, 2, 3, 4]);
        }
        if seed.is_none() {
            assert_eq!(
                order,
                [0, 1, 2, 3, 4].repeat(4),
                "in the order in which they got ready"
            );
        }
    }
}

#[trio::test(backend = "all")]
async fn f4_who_never_rests_and_joins_without_end_keep_nobody_from_io() -> Result<()> {
    let (client, server) = pair().await?;
    let (steps, over) = (Cell::new(0_u64), Cell::new(false));
    let turn = async || {
        steps.set(steps.get() + 1);
        assert!(steps.get() < 1_000_000, "the rest is kept waiting for ever");
        checkpoint().await
    };
    let busy = open_nursery(async |nursery| {
        nursery.start_soon(async {
            while !over.get() {
                turn().await?;
            }
            Ok(())
        });
        while !over.get() {
            assert_eq!(nursery.spawn(async { Ok(7) }).join().await?, 7);
        }
        Ok(())
    });
    open_nursery(async |nursery| {
        nursery.start_soon(busy);
        nursery.start_soon(async {
            while let Some(data) = server.receive().await? {
                server.send_all(data).await?;
            }
            Ok(())
        });
        for _ in 0..50 {
            client.send_all(b"echo").await?;
            assert_eq!(&*client.receive().await?.expect("it is open"), b"echo");
        }
        client.send_eof().await?;
        over.set(true);
        Ok(())
    })
    .await
}

/// The levels on the way down to the bottom.
#[derive(Clone, Copy, Debug)]
enum Level {
    /// A nursery whose child contains the next level.
    Child,
    /// A nursery whose body contains the next level.
    Body,
    /// A combinator with wakers of its own.
    Foreign,
}

/// The waker of a combinator: a different one in each poll.
struct PassOn(Waker);

impl Wake for PassOn {
    fn wake(self: Arc<Self>) {
        self.0.wake_by_ref();
    }
}

/// Runs `bottom` below this many levels.
fn below<'a>(
    levels: &'a [Level],
    bottom: &'a dyn Fn() -> LocalBoxFuture<'a, Result<()>>,
) -> LocalBoxFuture<'a, Result<()>> {
    Box::pin(async move {
        let Some((level, levels)) = levels.split_first() else {
            return bottom().await;
        };
        match level {
            Level::Child => {
                open_nursery(async |nursery| {
                    nursery.start_soon(below(levels, bottom));
                    Ok(())
                })
                .await
            }
            Level::Body => open_nursery(async |_| below(levels, bottom).await).await,
            Level::Foreign => {
                let mut future = below(levels, bottom);
                poll_fn(|context| {
                    let waker = Arc::new(PassOn(context.waker().clone())).into();
                    future.as_mut().poll(&mut Context::from_waker(&waker))
                })
                .await
            }
        }
    })
}

/// Every way down with up to three levels.
fn ways_down() -> Vec<Vec<Level>> {
    let mut ways = vec![vec![]];
    for from in 0..40 {
        if let Some(way) = ways.get(from).filter(|way| way.len() < 3).cloned() {
            for level in [Level::Child, Level::Body, Level::Foreign] {
                ways.push(way.iter().copied().chain([level]).collect());
            }
        }
    }
    assert_eq!(ways.len(), 1 + 3 + 9 + 27);
    ways
}

#[test]
fn f4_a_task_below_nested_nurseries_takes_one_step_a_turn_whatever_is_in_between() {
    for builder in [Builder::new(), Builder::new().seed(1)] {
        builder.run(step_below()).expect("nothing fails");
    }
}

async fn step_below() -> Result<()> {
    for way in ways_down() {
        let steps = Cell::new(0_u32);
        let bottom = || -> LocalBoxFuture<'_, Result<()>> {
            Box::pin(async {
                for _ in 0..20 {
                    checkpoint().await?;
                    steps.set(steps.get() + 1);
                }
                Ok(())
            })
        };
        open_nursery(async |nursery| {
            nursery.start_soon(below(&way, &bottom));
            while steps.get() == 0 {
                checkpoint().await?;
            }
            let (first, mut turns) = (steps.get(), 0);
            while steps.get() < 20 {
                checkpoint().await?;
                turns += 1;
                // With a seed, either of the two may come first in a turn.
                assert!((first + turns).abs_diff(steps.get()) <= 1, "{way:?}");
            }
            Ok(())
        })
        .await?;
    }
    Ok(())
}

#[test]
fn f4_wakes_from_above_and_from_inside_reach_the_bottom_whatever_is_in_between() {
    for builder in [Builder::new(), Builder::new().seed(1)] {
        builder.run(answer_below()).expect("nothing fails");
    }
}

async fn answer_below() -> Result<()> {
    for way in ways_down() {
        let (asked, answered) = (Cell::new(0_u32), Cell::new(0_u32));
        let (question, answer) = (RefCell::default(), RefCell::default());
        let wait = async |event: &RefCell<Rc<Event>>| {
            let event = event.borrow().clone();
            event.wait().await
        };
        let set = |event: &RefCell<Rc<Event>>| event.take().set();
        let bottom = || -> LocalBoxFuture<'_, Result<()>> {
            Box::pin(async {
                for n in 0..10 {
                    if asked.get() <= n {
                        wait(&question).await?;
                    }
                    // On its own, too, in every other round.
                    if n % 2 == 0 {
                        checkpoint().await?;
                    }
                    answered.set(answered.get() + 1);
                    set(&answer);
                }
                Ok(())
            })
        };
        open_nursery(async |nursery| {
            nursery.start_soon(below(&way, &bottom));
            for n in 0..10 {
                // Before the bottom waits, or while it does.
                if n % 3 == 0 {
                    checkpoint().await?;
                }
                asked.set(n + 1);
                set(&question);
                if answered.get() <= n {
                    wait(&answer).await?;
                }
                assert_eq!(answered.get(), n + 1, "{way:?}");
            }
            Ok(())
        })
        .await?;
    }
    Ok(())
}

#[trio::test]
async fn f4_an_instrument_that_comes_or_goes_within_a_step_stops_nobody() -> Result<()> {
    struct Nothing;
    impl Instrument for Nothing {}
    for way in ways_down() {
        let rounds = Cell::new(0);
        let bottom = || -> LocalBoxFuture<'_, Result<()>> {
            Box::pin(async {
                for _ in 0..3 {
                    let key = add_instrument(Nothing);
                    checkpoint().await?;
                    checkpoint().await?;
                    remove_instrument(key)?;
                    checkpoint().await?;
                    rounds.set(rounds.get() + 1);
                }
                Ok(())
            })
        };
        below(&way, &bottom).await?;
        assert_eq!(rounds.get(), 3, "{way:?}");
    }
    Ok(())
}

#[trio::test]
async fn f4_a_task_that_wakes_itself_waits_for_the_next_turn() -> Result<()> {
    let steps = Cell::new(0_u32);
    open_nursery(async |nursery| {
        nursery.start_soon(poll_fn(|context| {
            steps.set(steps.get() + 1);
            context.waker().wake_by_ref();
            if steps.get() < 10 {
                Poll::Pending
            } else {
                Poll::Ready(Ok(()))
            }
        }));
        checkpoint().await?;
        for _ in 0..9 {
            let before = steps.get();
            checkpoint().await?;
            assert_eq!(steps.get(), before + 1);
        }
        Ok(())
    })
    .await
}

#[trio::test(backend = "all")]
async fn f4_who_is_woken_by_a_task_that_was_alone_takes_a_step_in_the_next_turn() -> Result<()> {
    for way in ways_down() {
        // Whenever the wake comes in a row of turns in which nothing else is ready.
        for delay in 0..40 {
            let (event, heard) = (Event::new(), Cell::new(false));
            let bottom = || -> LocalBoxFuture<'_, Result<()>> {
                Box::pin(async {
                    for _ in 0..delay {
                        checkpoint().await?;
                    }
                    event.set();
                    // The end of this turn, and that of the next.
                    checkpoint().await?;
                    checkpoint().await?;
                    assert!(heard.get(), "{way:?} {delay}");
                    Ok(())
                })
            };
            open_nursery(async |nursery| {
                nursery.start_soon(below(&way, &bottom));
                event.wait().await?;
                heard.set(true);
                Ok(())
            })
            .await?;
        }
    }
    Ok(())
}

#[trio::test(backend = "all")]
async fn f4_what_is_polled_beside_a_nursery_takes_its_steps_when_it_is_woken() -> Result<()> {
    let (steps, event) = (Cell::new(0_u32), Event::new());
    let nursery = open_nursery(async |nursery| {
        nursery.start_soon(async {
            for n in 0..100 {
                if n == 57 {
                    event.set();
                }
                checkpoint().await?;
                steps.set(steps.get() + 1);
            }
            Ok(())
        });
        Ok(())
    });
    let beside = async {
        // The child takes no step before the first of this future, and then one for each of these.
        assert_eq!(steps.get(), 0);
        for n in 1..30 {
            checkpoint().await?;
            assert!(steps.get().abs_diff(n) <= 1, "{} {n}", steps.get());
        }
        event.wait().await?;
        assert!(steps.get().abs_diff(58) <= 1, "{}", steps.get());
        Result::Ok(())
    };
    let (all, one) = futures::join!(nursery, beside);
    all.and(one)
}

#[trio::test(backend = "all")]
async fn f4_a_poll_by_hand_in_a_step_of_a_task_is_one_step_for_its_children() -> Result<()> {
    let steps = Cell::new(0_u32);
    let mut nursery = Box::pin(open_nursery(async |nursery| {
        nursery.start_soon(async {
            for _ in 0..100 {
                checkpoint().await?;
                steps.set(steps.get() + 1);
            }
            Ok(())
        });
        Ok(())
    }));
    begin(&mut nursery).await;
    for step in 0..50 {
        let before = steps.get();
        checkpoint().await?;
        assert_eq!(steps.get(), before);
        begin(&mut nursery).await;
        // The first step of the child ends where it yields for the first time.
        assert_eq!(steps.get(), before + u32::from(step > 0));
    }
    nursery.await
}

#[trio::test]
async fn f4_a_task_that_is_alone_hides_no_deadline() -> Result<()> {
    for way in ways_down() {
        let bottom = || -> LocalBoxFuture<'_, Result<()>> {
            Box::pin(async {
                loop {
                    checkpoint().await?;
                }
            })
        };
        let long = move_on_after(Duration::from_millis(1), below(&way, &bottom));
        assert_eq!(long.await?, None, "{way:?}");
    }
    Ok(())
}

#[trio::test]
async fn n16_a_body_that_wakes_itself_in_its_last_step_leaves_nothing_behind() -> Result<()> {
    static HELD: TreeVar<Rc<()>> = TreeVar::new("held");
    let value = Rc::new(());
    let inside = open_nursery(async |_| {
        poll_fn(|context| {
            context.waker().wake_by_ref();
            Poll::Ready(())
        })
        .await;
        Ok(())
    });
    HELD.scope(value.clone(), inside).await?;
    assert_eq!(Rc::strong_count(&value), 1);
    Ok(())
}

/// Records when it is dropped.
struct Guard<'a>(&'a Cell<u32>);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

#[trio::test]
async fn n14_a_nursery_that_is_dropped_drops_its_children_with_it() -> Result<()> {
    let dropped = Cell::new(0);
    let polls = Cell::new(0);
    let mut nursery = Box::pin(open_nursery(async |nursery| {
        for _ in 0..2 {
            nursery.start_soon(async {
                let _guard = Guard(&dropped);
                polls.set(polls.get() + 1);
                open_nursery(async |inner| {
                    inner.start_soon(async {
                        let _guard = Guard(&dropped);
                        sleep_forever().await
                    });
                    Ok(())
                })
                .await
            });
        }
        sleep_forever().await
    }));
    for _ in 0..5 {
        poll_once(&mut nursery).await;
        checkpoint().await?;
    }
    assert_eq!((polls.get(), dropped.get()), (2, 0));
    drop(nursery);
    assert_eq!((polls.get(), dropped.get()), (2, 4));
    for _ in 0..5 {
        checkpoint().await?;
    }
    assert_eq!(polls.get(), 2, "nobody polls what has been dropped");
    Ok(())
}

/// Polls like a combinator that puts its own waker in between; the future must go on.
async fn poll_once<F: Future>(future: &mut std::pin::Pin<Box<F>>) {
    let mut context = Context::from_waker(Waker::noop());
    assert!(future.as_mut().poll(&mut context).is_pending());
    std::future::ready(()).await;
}

#[test]
fn n15_a_nursery_that_is_forgotten_is_not_polled_again_and_the_run_ends() {
    let polls = Cell::new(0);
    trio::run(async {
        let mut nursery = Box::pin(open_nursery(async |nursery| {
            nursery.start_soon(async {
                loop {
                    polls.set(polls.get() + 1);
                    checkpoint().await?;
                }
            });
            sleep_forever().await
        }));
        for _ in 0..3 {
            poll_once(&mut nursery).await;
            assert_eq!(checkpoint().await.ok(), Some(()));
        }
        let before = polls.get();
        assert!(before > 0);
        #[expect(clippy::mem_forget, reason = "that is the subject")]
        std::mem::forget(nursery);
        for _ in 0..5 {
            assert_eq!(checkpoint().await.ok(), Some(()));
        }
        assert_eq!(polls.get(), before);
    });
}

#[trio::test]
async fn n16_what_a_child_owns_is_gone_when_the_nursery_ends() -> Result<()> {
    let dropped = Cell::new(0);
    open_nursery(async |nursery| {
        for _ in 0..3 {
            nursery.start_soon(async {
                let _guard = Guard(&dropped);
                sleep_forever().await
            });
        }
        let never_begun = Guard(&dropped);
        checkpoint().await?;
        nursery.cancel_scope().cancel("");
        nursery.start_soon(async move {
            let _guard = never_begun;
            checkpoint().await
        });
        Ok(())
    })
    .await?;
    assert_eq!(dropped.get(), 4);
    Ok(())
}

#[trio::test]
async fn n16_a_body_that_is_woken_after_its_end_keeps_nothing_of_the_nursery_alive() -> Result<()> {
    static HELD: TreeVar<Rc<()>> = TreeVar::new("held");
    let value = Rc::new(());
    let kept: Cell<Option<Waker>> = Cell::new(None);
    let kept = &kept;
    let open = open_nursery(async |nursery| {
        nursery.start_soon(async {
            checkpoint().await?;
            // This ends the nursery, too.
            kept.take().expect("the body has run").wake();
            Ok(())
        });
        poll_fn(|context| {
            kept.set(Some(context.waker().clone()));
            Poll::Ready(Ok(()))
        })
        .await
    });
    HELD.scope(value.clone(), open).await?;
    checkpoint().await?;
    assert_eq!(Rc::strong_count(&value), 1);
    Ok(())
}

#[trio::test]
async fn n17_children_borrow_what_is_around_the_nursery() -> Result<()> {
    let mut words = vec!["one".to_owned()];
    let mut count = 0;
    let total = Cell::new(0);
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            checkpoint().await?;
            words.push("two".to_owned());
            Ok(())
        });
        nursery.start_soon(async {
            count += 1;
            total.set(total.get() + 1);
            Ok(())
        });
        total.set(total.get() + 1);
        Ok(())
    })
    .await?;
    assert_eq!((words.len(), count, total.get()), (2, 1, 2));
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn j1_join_returns_the_value_of_the_child() -> Result<()> {
    let text = "borrowed".to_owned();
    open_nursery(async |nursery| {
        let mut early = nursery.spawn(async { Ok(text.as_str()) });
        let mut late = nursery.spawn(async {
            sleep(secs(3)).await?;
            Ok(text.len())
        });
        assert!(!early.is_finished());
        sleep(secs(1)).await?;
        assert!(early.is_finished() && !late.is_finished());
        assert_eq!(early.join().await?, "borrowed");
        assert_eq!(late.join().await?, 8);
        let again = late.join().await.expect_err("the value has been taken");
        assert_eq!(again.downcast_ref(), Some(&NoValue::Taken));
        Ok(())
    })
    .await
}

#[trio::test]
async fn j1_a_child_that_ends_in_its_first_step_is_joined_in_the_same_turn() -> Result<()> {
    let turns = Cell::new(0);
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            loop {
                turns.set(turns.get() + 1);
                checkpoint().await?;
            }
        });
        checkpoint().await?;
        let before = turns.get();
        let mut child = nursery.spawn(async { Ok(turns.get()) });
        assert_eq!(child.join().await?, before + 1);
        assert_eq!(turns.get(), before + 1);
        nursery.cancel_scope().cancel("done");
        Ok(())
    })
    .await
}

#[trio::test(clock = "autojump")]
async fn j1_a_joiner_that_is_cancelled_by_the_first_step_of_the_child_hears_of_it() -> Result<()> {
    for ends in [false, true] {
        let scope = CancelScope::new();
        open_nursery(async |nursery| {
            let mut child = nursery.spawn(async {
                scope.cancel("by the child");
                if !ends {
                    sleep(secs(1)).await?;
                }
                Ok(7)
            });
            let joined = scope.enter(child.join()).await?;
            assert_eq!(
                joined,
                ends.then_some(7),
                "success wins, and nothing else does"
            );
            if !ends {
                assert_eq!(child.join().await?, 7, "the child goes on");
            }
            Ok(())
        })
        .await?;
    }
    Ok(())
}

#[trio::test]
async fn j1_a_join_that_has_let_its_child_go_first_may_be_awaited_elsewhere() -> Result<()> {
    let event = Event::new();
    open_nursery(async |nursery| {
        let mut child = nursery.spawn(async {
            event.wait().await?;
            Ok(7)
        });
        let mut join = Box::pin(child.join());
        poll_fn(|context| {
            assert!(join.as_mut().poll(context).is_pending());
            Poll::Ready(())
        })
        .await;
        open_nursery(async |inside| {
            inside.start_soon(async {
                assert_eq!(join.await?, 7);
                Ok(())
            });
            wait_all_tasks_blocked(Duration::ZERO).await?;
            assert!(task_tree().to_string().contains("join"));
            event.set();
            Ok(())
        })
        .await
    })
    .await
}

#[trio::test]
async fn j1_a_waker_of_others_is_called_when_the_child_has_ended_and_not_before() -> Result<()> {
    open_nursery(async |nursery| {
        let calls = Arc::new(Calls::default());
        let waker = Waker::from(calls.clone());
        let mut child = nursery.spawn(async {
            checkpoint().await?;
            Ok(7)
        });
        let mut join = Box::pin(child.join());
        let mut poll = || join.as_mut().poll(&mut Context::from_waker(&waker));
        assert!(poll().is_pending());
        checkpoint().await?;
        assert_eq!(calls.0.load(Ordering::Relaxed), 0);
        checkpoint().await?;
        checkpoint().await?;
        assert_eq!(calls.0.load(Ordering::Relaxed), 1);
        assert!(matches!(poll(), Poll::Ready(Ok(7))));
        Ok(())
    })
    .await
}

/// Counts how often it is called.
#[derive(Default)]
struct Calls(AtomicU32);

impl Wake for Calls {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[trio::test(clock = "autojump")]
async fn j2_a_handle_that_is_dropped_gives_up_the_value_and_not_the_child() -> Result<()> {
    let (done, dropped) = (Cell::new(false), Cell::new(0));
    open_nursery(async |nursery| {
        let handle = nursery.spawn(async {
            sleep(secs(1)).await?;
            done.set(true);
            Ok(Guard(&dropped))
        });
        drop(handle);
        Ok(())
    })
    .await?;
    assert!(done.get());
    assert_eq!(dropped.get(), 1);
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn j3_the_error_of_a_child_goes_to_the_nursery_and_the_joiner_is_cancelled() -> Result<()> {
    let result = open_nursery(async |nursery| {
        let mut handle = nursery.spawn(async {
            sleep(secs(1)).await?;
            oops::<u32>("child")
        });
        let value = handle.join().await?;
        Ok(value)
    })
    .await;
    assert_eq!(
        failure(result),
        "[child]",
        "and there is no second error for it"
    );

    let result = open_nursery(async |nursery| {
        let mut handle = nursery.spawn(async { oops::<u32>("child") });
        let shield = CancelScope::new().shielded();
        let joined = shield.enter(async { handle.join().await }).await;
        assert!(
            joined.is_err_and(|error| error.downcast_ref() == Some(&NoValue::Failed)),
            "nothing else to say"
        );
        Ok(())
    })
    .await;
    assert_eq!(failure(result), "[child]");
    Ok(())
}

#[trio::test]
async fn the_task_tree_shows_who_lives_where() -> Result<()> {
    open_nursery(async |nursery| {
        nursery.start_soon_named("parent", async {
            open_nursery(async |inner| {
                inner.start_soon_named("leaf", sleep_forever());
                inner.start_soon(sleep_forever());
                Ok(())
            })
            .await
        });
        wait_all_tasks_blocked(secs(0)).await?;
        let tree = task_tree();
        assert_eq!((tree.name.as_str(), tree.children.len()), ("main", 1));
        let parent = &tree.children[0];
        assert_eq!((parent.name.as_str(), parent.children.len()), ("parent", 2));
        let leaf = &parent.children[0];
        assert_eq!(leaf.name, "leaf");
        assert_eq!(leaf.waiting_in, ["sleep_forever"]);
        assert!(leaf.place.file().ends_with("nursery.rs"));
        assert!(leaf.children.is_empty());
        assert!(
            parent.children[1].name.contains("SleepForever"),
            "named after its type"
        );
        nursery.cancel_scope().cancel("");
        Ok(())
    })
    .await?;
    assert!(task_tree().children.is_empty());
    Ok(())
}

/// The tasks and the nurseries that they live in: `main(one two(three))`.
fn outline(tree: &TaskTree) -> String {
    let mut children: Vec<String> = tree.children.iter().map(outline).collect();
    children.sort();
    match children.is_empty() {
        true => tree.name.clone(),
        false => format!("{}({})", tree.name, children.join(" ")),
    }
}

#[trio::test]
async fn the_task_tree_follows_what_is_opened_and_what_fails() -> Result<()> {
    let look = async || {
        wait_all_tasks_blocked(secs(0)).await?;
        Ok::<_, trio::Error>(outline(&task_tree()))
    };
    open_nursery(async |first| {
        first.start_soon_named("one", sleep_forever());
        let failed = open_nursery(async |second| {
            second.start_soon_named("two", sleep_forever());
            open_nursery(async |third| {
                third.start_soon_named("three", sleep_forever());
                assert_eq!(look().await?, "main(one three two)");
                third.cancel_scope().cancel("");
                Ok(())
            })
            .await?;
            assert_eq!(look().await?, "main(one two)");
            oops::<()>("in the second")
        });
        assert_eq!(failure(failed.await), "[in the second]");
        assert_eq!(look().await?, "main(one)");
        first.cancel_scope().cancel("");
        Ok(())
    })
    .await?;
    assert_eq!(look().await?, "main");
    Ok(())
}

#[trio::test]
async fn the_task_tree_shows_a_child_with_its_starter_until_it_reports() -> Result<()> {
    let ready = Event::new();
    let children = |name: &str| {
        let tree = task_tree();
        let found = std::iter::once(&tree)
            .chain(&tree.children)
            .find(|task| task.name == name);
        found.expect("it lives").children.len()
    };
    open_nursery(async |nursery| {
        nursery.start_soon_named("starter", async {
            let child = async |status: trio::TaskStatus<()>| {
                ready.wait().await?;
                status.started(())?;
                sleep_forever().await
            };
            nursery.start(child).await?;
            sleep_forever().await
        });
        wait_all_tasks_blocked(secs(0)).await?;
        assert_eq!((children("main"), children("starter")), (1, 1));
        ready.set();
        wait_all_tasks_blocked(secs(0)).await?;
        assert_eq!((children("main"), children("starter")), (2, 0));
        nursery.cancel_scope().cancel("");
        Ok(())
    })
    .await
}
