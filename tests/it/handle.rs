//! A child that is cancelled through its handle (J4, J5), whatever it waits in at that moment.
//!
//! A child that contains only one wait has no scope of its own; a child that contains more has one.
//! Both must look the same from outside, so each shape of waiting has its turn, and everything that
//! may happen between two steps is tried at random.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use trio::instrument::{Instrument, Task};
use trio::lowlevel::current_root_task;
use trio::testing::{MockClock, wait_all_tasks_blocked};
use trio::{
    Builder, CancelScope, ChildState, Error, Event, JoinHandle, MemoryReceiveChannel,
    MemorySendChannel, Result, checkpoint, current_effective_deadline, current_time, fail_after,
    is_draining, open_memory_channel, open_nursery, sleep, sleep_forever,
};

use crate::network::seeds;
use crate::support::{begin, secs};

/// The reason of a cancellation, as the cancelled task sees it.
fn reason<T>(result: Result<T>) -> String {
    let error = result.err().expect("it has been cancelled");
    let cancelled = error.as_cancelled().expect("nothing else has happened");
    cancelled.reason().unwrap_or_default().to_owned()
}

/// Two waits of one task; ready with whichever comes first.
async fn either<T>(
    one: impl Future<Output = Result<T>>,
    other: impl Future<Output = Result<T>>,
) -> Result<T> {
    let (mut one, mut other) = (pin!(one), pin!(other));
    poll_fn(|context| match one.as_mut().poll(context) {
        Poll::Pending => other.as_mut().poll(context),
        ready => ready,
    })
    .await
}

#[trio::test(backend = "all", clock = "autojump")]
async fn j4_everything_that_a_child_waits_in_afterwards_is_cancelled_too() -> Result<()> {
    open_nursery(async |nursery| {
        let mut child = nursery.spawn(async {
            assert_eq!(reason(sleep_forever().await), "enough");
            assert_eq!(reason(checkpoint().await), "enough");
            assert_eq!(reason(sleep(secs(1)).await), "enough");
            assert_eq!(
                reason(either(sleep(secs(1)), sleep_forever()).await),
                "enough"
            );
            assert!(is_draining());
            assert!(current_effective_deadline() == trio::Time::PAST);
            let inside = CancelScope::new().enter(sleep(secs(1))).await;
            assert_eq!(reason(inside), "enough");
            assert_eq!(reason(fail_after(secs(5), checkpoint()).await), "enough");
            let below = open_nursery(async |nursery| {
                nursery.start_soon(sleep_forever());
                Ok(())
            });
            assert!(
                below
                    .await
                    .unwrap_err()
                    .leaves()
                    .all(|it| it.as_cancelled().is_some())
            );
            let begun = current_time();
            CancelScope::new().shielded().enter(sleep(secs(3))).await?;
            assert_eq!(current_time() - begun, secs(3));
            sleep_forever().await
        });
        wait_all_tasks_blocked(secs(0)).await?;
        child.cancel("enough");
        child.cancel("a later reason");
        assert_eq!(child.wait().await?, ChildState::Cancelled);
        Ok(())
    })
    .await
}

#[trio::test(clock = "autojump")]
async fn j4_two_waits_of_one_child_both_end() -> Result<()> {
    for scopes in [false, true] {
        open_nursery(async |nursery| {
            let mut child = nursery.spawn(async {
                let mut ends = Vec::new();
                let mut note = |result: Result<()>| ends.push(reason(result));
                let (one, other) = (sleep_forever(), sleep(secs(9)));
                let (mut one, mut other) = (pin!(one), pin!(other));
                let scope = CancelScope::new();
                let mut third = pin!(scope.enter(sleep_forever()));
                begin(&mut one).await;
                if scopes {
                    // If one of them is in a scope, the task has one too.
                    begin(&mut third).await;
                }
                begin(&mut other).await;
                note(one.await);
                note(other.await);
                if scopes {
                    note(third.await.map(drop));
                }
                assert_eq!(ends, vec!["both"; ends.len()]);
                Ok(ends.len())
            });
            wait_all_tasks_blocked(secs(0)).await?;
            child.cancel("both");
            assert_eq!(child.join().await?, 2 + usize::from(scopes));
            Ok(())
        })
        .await?;
    }
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn j4_a_wait_that_another_task_has_taken_over_goes_on_there() -> Result<()> {
    open_nursery(async |nursery| {
        let asleep = || Some(Box::pin(sleep(secs(5))));
        let shared = RefCell::new(asleep());
        let shared = &shared;
        open_nursery(async |nursery| {
            let mut first = nursery.spawn(async {
                let mut wait = shared.take().expect("it is there");
                begin(&mut wait).await;
                shared.replace(Some(wait));
                sleep_forever().await
            });
            wait_all_tasks_blocked(secs(0)).await?;
            let mut second = nursery.spawn(async {
                let wait = shared.take().expect("it is there");
                wait.await
            });
            wait_all_tasks_blocked(secs(0)).await?;
            let begun = current_time();
            first.cancel("");
            assert_eq!(first.wait().await?, ChildState::Cancelled);
            second.join().await?;
            assert_eq!(current_time() - begun, secs(5));

            // And the other way round: the task that has taken it over is cancelled in it.
            shared.replace(asleep());
            let mut first = nursery.spawn(async {
                let mut wait = shared.take().expect("it is there");
                begin(&mut wait).await;
                shared.replace(Some(wait));
                sleep(secs(60)).await
            });
            wait_all_tasks_blocked(secs(0)).await?;
            let mut second = nursery.spawn(async {
                let wait = shared.take().expect("it is there");
                assert_eq!(reason(wait.await), "second");
                Ok(())
            });
            wait_all_tasks_blocked(secs(0)).await?;
            second.cancel("second");
            second.join().await?;
            first.join().await?;
            Ok(())
        })
        .await?;
        nursery.cancel_scope().cancel("");
        Ok(())
    })
    .await
}

#[trio::test(clock = "autojump")]
async fn j4_what_has_come_is_kept_and_the_next_cancel_point_reports() -> Result<()> {
    open_nursery(async |nursery| {
        let event = Event::new();
        let event = &event;
        open_nursery(async |nursery| {
            let mut child = nursery.spawn(async {
                event.wait().await?;
                assert_eq!(reason(checkpoint().await), "too late");
                Ok("it had come")
            });
            wait_all_tasks_blocked(secs(0)).await?;
            event.set();
            child.cancel("too late");
            assert_eq!(child.join().await?, "it had come");
            Ok(())
        })
        .await?;
        nursery.cancel_scope().cancel("");
        Ok(())
    })
    .await
}

#[trio::test(clock = "autojump")]
async fn j5_the_first_of_two_cancellations_is_the_one_that_is_told() -> Result<()> {
    for own_first in [true, false] {
        for begun in [true, false] {
            let told = Cell::new(None);
            open_nursery(async |nursery| {
                let child = nursery.spawn(async {
                    let first = reason(sleep_forever().await);
                    assert_eq!(reason(checkpoint().await), first);
                    told.set(Some(first));
                    checkpoint().await
                });
                if begun {
                    wait_all_tasks_blocked(secs(0)).await?;
                }
                let around = nursery.cancel_scope();
                match own_first {
                    true => {
                        child.cancel("own");
                        around.cancel("around");
                    }
                    false => {
                        around.cancel("around");
                        child.cancel("own");
                    }
                }
                Ok(())
            })
            .await?;
            let first = if own_first { "own" } else { "around" };
            assert_eq!(told.take().as_deref(), Some(first), "begun: {begun}");
        }
    }
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn j4_the_task_tree_shows_that_a_child_has_been_cancelled() -> Result<()> {
    open_nursery(async |nursery| {
        let mut child = nursery.spawn_named("unwanted", sleep_forever());
        child.cancel("before it has run");
        let tree = current_root_task().to_string();
        let line = tree.lines().find(|line| line.contains("unwanted"));
        let line = line.expect("it is there");
        assert!(line.ends_with("and has been cancelled"), "{line}");
        assert_eq!(child.wait().await?, ChildState::Cancelled);
        Ok(())
    })
    .await
}

#[trio::test(clock = "autojump")]
async fn j4_a_child_that_is_dropped_after_it_was_cancelled_leaves_nothing() -> Result<()> {
    let mut nursery = Box::pin(open_nursery(async |nursery| {
        let child = nursery.spawn(sleep_forever());
        checkpoint().await?;
        checkpoint().await?;
        child.cancel("");
        sleep_forever().await
    }));
    for _ in 0..3 {
        begin(&mut nursery).await;
        checkpoint().await?;
    }
    drop(nursery);
    // A task at the same places in memory and in the tree.
    open_nursery(async |nursery| {
        let mut child = nursery.spawn(sleep(secs(1)));
        child.join().await
    })
    .await
}

/// Asks for the scope of each task between its steps.
struct Nosy;

impl Instrument for Nosy {
    fn before_task_step(&mut self, _: &Task) {
        current_effective_deadline();
    }

    fn after_task_step(&mut self, _: &Task) {
        current_effective_deadline();
    }
}

#[test]
fn j4_an_instrument_that_asks_for_scopes_does_not_keep_a_cancel_from_a_child() {
    let main = open_nursery(async |nursery| {
        let mut child = nursery.spawn(sleep(secs(60)));
        wait_all_tasks_blocked(secs(0)).await?;
        let begun = current_time();
        child.cancel("");
        assert_eq!(child.wait().await?, ChildState::Cancelled);
        assert_eq!(current_time(), begun);
        Ok(())
    });
    let run = Builder::new().clock(MockClock::autojump()).instrument(Nosy);
    run.run(main).expect("nothing fails");
}

// Everything together.

/// Waits for the next word in one of several ways.
async fn hear(words: &MemoryReceiveChannel<u64>, way: u64) -> Result<u64> {
    match way {
        0 => Ok(words.receive().await?),
        1 => {
            either(async { Ok(words.receive().await?) }, async {
                sleep_forever().await?;
                unreachable!("only a cancel ends it")
            })
            .await
        }
        2 => fail_after(secs(1_000_000), async { Ok(words.receive().await?) }).await,
        3 => {
            let heard = CancelScope::new().enter(async { Ok(words.receive().await?) });
            Ok(heard.await?.expect("nobody has cancelled the scope"))
        }
        4 => {
            checkpoint().await?;
            Ok(words.receive().await?)
        }
        _ => {
            let heard = Cell::new(0);
            open_nursery(async |nursery| {
                nursery.start_soon(async {
                    heard.set(words.receive().await?);
                    Ok(())
                });
                Ok(())
            })
            .await?;
            Ok(heard.get())
        }
    }
}

/// A child, as far as it is known from outside.
struct Child<'scope> {
    handle: JoinHandle<'scope, ()>,
    words: MemorySendChannel<u64>,
    said: u64,
    heard: Rc<Cell<u64>>,
    cancelled: bool,
}

async fn one_life(seed: u64, steps: u64) -> Result<()> {
    let state = Cell::new(seed);
    let random = |below: u64| {
        // Knuth's multiplier, whose upper half is the better one.
        let next = state.get().wrapping_mul(6_364_136_223_846_793_005);
        state.set(next.wrapping_add(1_442_695_040_888_963_407));
        (state.get() >> 33) % below
    };
    open_nursery(async |nursery| {
        let mut children: Vec<Child<'_>> = Vec::new();
        for step in 0..steps {
            let at = usize::try_from(random(8)).expect("below eight");
            match random(4) {
                _ if at >= children.len() => {
                    let (send, receive) = open_memory_channel(1);
                    let first = random(6);
                    let heard = Rc::new(Cell::new(0));
                    let count = heard.clone();
                    let handle = nursery.spawn(async move {
                        let mut way = first;
                        loop {
                            way = hear(&receive, way).await?;
                            count.set(count.get() + 1);
                        }
                    });
                    children.push(Child {
                        handle,
                        words: send,
                        said: 0,
                        heard,
                        cancelled: false,
                    });
                }
                0 => {
                    let child = &mut children[at];
                    child.handle.cancel("at random");
                    child.cancelled = true;
                }
                _ => {
                    let child = &mut children[at];
                    if !child.cancelled && child.words.try_send(random(6)).is_ok() {
                        child.said += 1;
                    }
                }
            }
            if random(3) > 0 {
                wait_all_tasks_blocked(secs(0)).await?;
                for child in &children {
                    let expected = match child.cancelled {
                        true => ChildState::Cancelled,
                        false => ChildState::Running,
                    };
                    assert_eq!(child.handle.state(), expected, "seed {seed}, step {step}");
                    let heard = child.heard.get();
                    assert!(
                        child.cancelled || heard == child.said,
                        "seed {seed}, step {step}"
                    );
                }
                children.retain(|child| !child.cancelled);
            }
        }
        nursery.cancel_scope().cancel("the end");
        Ok(())
    })
    .await
}

#[test]
fn j4_children_end_when_they_are_cancelled_and_never_else_for_every_seed() {
    for seed in seeds(200) {
        let run = Builder::new().seed(seed).clock(MockClock::autojump());
        let life: Result<(), Error> = run.run(one_life(seed, 60));
        life.unwrap();
    }
}
