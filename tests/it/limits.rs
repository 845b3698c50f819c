//! Deep and wide: scopes and nurseries by the thousand, children by the million (LI).

use std::cell::Cell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::time::Duration;

use trio::testing::{MockClock, wait_all_tasks_blocked};
use trio::{
    Builder, CancelScope, Error, NestedTooDeeply, Result, checkpoint, current_time, move_on_after,
    open_nursery, sleep_forever,
};

use crate::support::secs;

type Boxed<'a> = Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

/// The stack of most threads.
const SMALL_STACK: usize = 2 << 20;

/// Room for ten thousand levels of anything, even without optimisation. Only what is used takes
/// memory.
const LARGE_STACK: usize = 1 << 30;

/// Runs `body` on a thread with a stack of that size.
fn on_a_stack_of<R: Send>(bytes: usize, body: impl FnOnce() -> R + Send) -> R {
    std::thread::scope(|threads| {
        let thread = std::thread::Builder::new().stack_size(bytes);
        let handle = thread
            .spawn_scoped(threads, body)
            .expect("there is room for a thread");
        match handle.join() {
            Ok(value) => value,
            Err(panic) => resume_unwind(panic),
        }
    })
}

/// Futures inside each other: scopes, or nurseries of one child each.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Scopes,
    Timeouts,
    Nurseries,
    Bodies,
}

fn nested<'a>(
    kind: Kind,
    depth: u32,
    reached: &'a Cell<u32>,
    leaf: &'a dyn Fn() -> Boxed<'a>,
) -> Boxed<'a> {
    if depth == 0 {
        return leaf();
    }
    Box::pin(async move {
        reached.set(reached.get() + 1);
        let inside = nested(kind, depth - 1, reached, leaf);
        match kind {
            Kind::Scopes => CancelScope::new().enter(inside).await.map(drop),
            Kind::Timeouts => move_on_after(secs(1), inside).await.map(drop),
            Kind::Nurseries => {
                open_nursery(async |nursery| {
                    nursery.start_soon(inside);
                    Ok(())
                })
                .await
            }
            Kind::Bodies => open_nursery(async |_| inside.await).await,
        }
    })
}

/// Either all levels work, or the first that has no room returns an error; afterwards all is well.
fn check_depth(kind: Kind, depth: u32, least: u32) {
    let reached = Cell::new(0);
    let leaf = || -> Boxed<'_> { Box::pin(checkpoint()) };
    let result = trio::run(async {
        let result = nested(kind, depth, &reached, &leaf).await;
        checkpoint().await?;
        open_nursery(async |nursery| {
            nursery.start_soon(checkpoint());
            Ok(())
        })
        .await?;
        result
    });
    let reached = reached.get();
    match result {
        Ok(()) => assert_eq!(reached, depth),
        Err(error) => {
            // Printing a deep tree does not exhaust the stack either.
            assert!(format!("{error:?}").contains("nested too deeply"));
            let error = error.into_single().expect("only one thing went wrong");
            assert!(error.is::<NestedTooDeeply>(), "{kind:?}: {error}");
            assert!(reached >= least, "{kind:?}: only {reached} levels");
        }
    }
}

#[test]
fn li1_ten_thousand_scopes_work_or_are_refused() {
    on_a_stack_of(SMALL_STACK, || {
        check_depth(Kind::Scopes, 10_000, 300);
        check_depth(Kind::Timeouts, 10_000, 300);
    });
    on_a_stack_of(LARGE_STACK, || {
        check_depth(Kind::Scopes, 10_000, 10_000);
        check_depth(Kind::Timeouts, 10_000, 10_000);
    });
}

#[test]
fn li1_a_thousand_nurseries_work_or_are_refused() {
    on_a_stack_of(SMALL_STACK, || {
        check_depth(Kind::Nurseries, 1000, 100);
        check_depth(Kind::Bodies, 1000, 100);
    });
    on_a_stack_of(LARGE_STACK, || {
        check_depth(Kind::Nurseries, 1000, 1000);
        check_depth(Kind::Bodies, 1000, 1000);
    });
}

/// The deepest structure of this kind that a small stack holds, give or take a tenth.
fn deepest(kind: Kind) -> u32 {
    let reached = Cell::new(0);
    let leaf = || -> Boxed<'_> { Box::pin(async { Ok(()) }) };
    let result = trio::run(nested(kind, 1_000_000, &reached, &leaf));
    assert!(result.is_err());
    reached.get()
}

#[test]
fn li2_at_the_deepest_there_is_room_to_wait_to_fail_to_panic_and_to_be_dropped() {
    for kind in [Kind::Scopes, Kind::Timeouts, Kind::Nurseries, Kind::Bodies] {
        on_a_stack_of(SMALL_STACK, || {
            let depth = deepest(kind) - 5;
            let none = Cell::new(0);

            let leaf = || -> Boxed<'_> { Box::pin(sleep_forever()) };
            trio::run(async {
                let stop = CancelScope::new();
                open_nursery(async |nursery| {
                    nursery.start_soon(async {
                        let waiting = nested(kind, depth - 5, &none, &leaf);
                        assert!(stop.enter(waiting).await?.is_none());
                        Ok(())
                    });
                    wait_all_tasks_blocked(secs(0)).await?;
                    stop.cancel("seen it wait");
                    Ok(())
                })
                .await
            })
            .expect("it waits and is cancelled");

            let leaf = || -> Boxed<'_> { Box::pin(async { Err(Error::msg("deep down")) }) };
            let result = trio::run(nested(kind, depth, &none, &leaf));
            let error = result
                .expect_err("it fails")
                .into_single()
                .expect("with one error");
            assert_eq!(error.to_string(), "deep down");

            let leaf = || -> Boxed<'_> { Box::pin(async { resume_unwind(Box::new("deep")) }) };
            let run = || trio::run(nested(kind, depth, &none, &leaf));
            let panic = catch_unwind(AssertUnwindSafe(run)).expect_err("it panics");
            assert_eq!(panic.downcast_ref(), Some(&"deep"));

            let leaf = || -> Boxed<'_> { Box::pin(sleep_forever()) };
            trio::run(async {
                let mut waiting = nested(kind, depth, &none, &leaf);
                for _ in 0..3 {
                    assert!(futures::poll!(&mut waiting).is_pending());
                    assert_eq!(checkpoint().await.ok(), Some(()));
                }
                drop(waiting);
                assert_eq!(checkpoint().await.ok(), Some(()));
            });
        });
    }
}

#[test]
fn li3_cancelling_ten_thousand_scopes_needs_no_stack() {
    on_a_stack_of(LARGE_STACK, || {
        let none = Cell::new(0);
        let leaf = || -> Boxed<'_> { Box::pin(sleep_forever()) };
        for kind in [Kind::Scopes, Kind::Timeouts] {
            let ended = Builder::new().clock(MockClock::new()).run(async {
                let stop = CancelScope::new();
                let mut caught = None;
                open_nursery(async |nursery| {
                    nursery.start_soon(async {
                        caught = Some(stop.enter(nested(kind, 10_000, &none, &leaf)).await?);
                        Ok(())
                    });
                    wait_all_tasks_blocked(secs(0)).await?;
                    stop.cancel("all of them");
                    Ok(())
                })
                .await?;
                Ok::<_, Error>((caught, stop.cancelled_caught()))
            });
            assert_eq!(
                ended.expect("nothing fails"),
                (Some(None), true),
                "{kind:?}"
            );
        }
    });
}

#[test]
fn li3_ten_thousand_deadlines_at_once_cost_one_turn() {
    on_a_stack_of(LARGE_STACK, || {
        let none = Cell::new(0);
        let leaf = || -> Boxed<'_> { Box::pin(sleep_forever()) };
        let run = Builder::new().clock(MockClock::autojump());
        let result = run.run(async {
            let start = current_time();
            nested(Kind::Timeouts, 10_000, &none, &leaf).await?;
            assert_eq!(current_time() - start, secs(1));
            Ok::<_, Error>(())
        });
        assert!(result.is_ok(), "{result:?}");
    });
}

/// Runs this many children in one nursery; returns how long it took, how often they were polled in
/// all, and in how many turns.
fn children(count: u32) -> (Duration, u32, u32) {
    let (polls, turns) = (Cell::new(0), Cell::new(0));
    let result = trio::run(async {
        let start = current_time();
        open_nursery(async |nursery| {
            for _ in 0..count {
                nursery.start_soon(async {
                    polls.set(polls.get() + 1);
                    checkpoint().await?;
                    polls.set(polls.get() + 1);
                    Ok(())
                });
            }
            while nursery.child_count() > 0 {
                checkpoint().await?;
                turns.set(turns.get() + 1);
            }
            Ok(())
        })
        .await?;
        Ok::<_, Error>(current_time() - start)
    });
    (result.expect("nothing fails"), polls.get(), turns.get())
}

#[test]
fn li4_a_million_children_take_ten_times_as_long_as_a_hundred_thousand() {
    let (_, polls, turns) = children(1000);
    assert_eq!((polls, turns), (2000, 2));
    // Twice what linear cost would take, and a fifth of quadratic. Other processes may use the
    // processor during any one round, hence several rounds.
    let linear = (0..5).any(|_| {
        let (small, polls, turns) = children(100_000);
        assert_eq!((polls, turns), (200_000, 2));
        let (large, polls, turns) = children(1_000_000);
        assert_eq!((polls, turns), (2_000_000, 2));
        large < small * 20
    });
    assert!(linear, "the cost of a child grows with their number");
}

#[test]
fn li4_a_million_children_can_be_cancelled() {
    let ended = Cell::new(0);
    let result = trio::run(async {
        open_nursery(async |nursery| {
            for _ in 0..1_000_000 {
                nursery.start_soon(async {
                    let result = sleep_forever().await;
                    ended.set(ended.get() + 1);
                    result
                });
            }
            wait_all_tasks_blocked(secs(0)).await?;
            nursery.cancel_scope().cancel("all of them");
            Ok(())
        })
        .await
    });
    assert!(result.is_ok());
    assert_eq!(ended.get(), 1_000_000);
}
