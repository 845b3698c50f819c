//! What the library offers to tests: waiting until all are blocked, order, checkpoints, seeds (Z).

use std::cell::{Cell, RefCell};
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::time::Duration;

use futures::FutureExt;
use trio::instrument::Instrument;
use trio::lowlevel::{cancel_shielded_checkpoint, checkpoint_if_cancelled, enter_operation};
use trio::testing::{
    Clock, MockClock, Sequencer, assert_checkpoints, assert_no_checkpoints, wait_all_tasks_blocked,
};
use trio::{
    Builder, CancelScope, Error, Result, Usage, checkpoint, current_time, fail_after,
    move_on_after, open_nursery, sleep, sleep_forever,
};

use crate::support::{failure, oops, secs};

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The text of the panic of `future`, which must have one.
async fn panic_of<T>(future: impl Future<Output = T>) -> String {
    match AssertUnwindSafe(future).catch_unwind().await {
        Ok(_) => panic!("this must panic"),
        Err(panic) => match panic.downcast::<String>() {
            Ok(text) => *text,
            Err(panic) => (*panic.downcast_ref::<&str>().expect("a text")).to_owned(),
        },
    }
}

#[trio::test(backend = "all")]
async fn z1_a_checkpoint_looks_and_lets_others_run() -> Result<()> {
    assert_checkpoints(checkpoint()).await?;
    assert_checkpoints(enter_operation()).await?;
    assert_checkpoints(sleep(secs(0))).await?;
    assert_checkpoints(sleep(Duration::from_nanos(1))).await?;
    assert_checkpoints(wait_all_tasks_blocked(secs(0))).await?;
    assert_checkpoints(async {
        checkpoint_if_cancelled().await?;
        cancel_shielded_checkpoint().await;
        Ok::<(), Error>(())
    })
    .await?;
    // The body of a nursery belongs to the same task.
    assert_checkpoints(open_nursery(async |_| enter_operation().await)).await?;
    let value = assert_checkpoints(async {
        checkpoint().await?;
        Ok::<_, Error>(7)
    });
    assert_eq!(value.await?, 7);

    let text = panic_of(assert_checkpoints(async { Ok::<(), Error>(()) })).await;
    assert!(
        text.ends_with("neither looked for a cancellation nor let others run"),
        "{text}"
    );
    assert!(text.contains("tests/it/test_kit.rs:"), "{text}");
    let text = panic_of(assert_checkpoints(checkpoint_if_cancelled())).await;
    assert!(text.ends_with("and never let others run"), "{text}");
    let yields = cancel_shielded_checkpoint().map(Ok::<(), Error>);
    let text = panic_of(assert_checkpoints(yields)).await;
    assert!(
        text.ends_with("and never looked for a cancellation"),
        "{text}"
    );
    Ok(())
}

#[trio::test(backend = "all")]
async fn z1_nothing_is_asked_of_a_future_that_fails() -> Result<()> {
    assert_eq!(
        failure(assert_checkpoints(async { oops::<()>("first") }).await),
        "first"
    );
    let scope = CancelScope::new();
    scope.cancel("");
    let ended = scope
        .enter(assert_checkpoints(checkpoint_if_cancelled()))
        .await?;
    assert_eq!(ended, None);
    Ok(())
}

#[trio::test(backend = "all")]
async fn z1_no_checkpoint_means_neither_half() -> Result<()> {
    assert_eq!(assert_no_checkpoints(async { 7 }).await, 7);
    assert_no_checkpoints(open_nursery(async |_| Ok(()))).await?;
    let failed = assert_no_checkpoints(async { oops::<()>("as it is") }).await;
    assert_eq!(failure(failed), "as it is");

    let text = panic_of(assert_no_checkpoints(checkpoint())).await;
    assert!(text.ends_with("and it yielded"), "{text}");
    assert!(text.contains("tests/it/test_kit.rs:"), "{text}");
    let text = panic_of(assert_no_checkpoints(cancel_shielded_checkpoint())).await;
    assert!(text.ends_with("and it yielded"), "{text}");
    let text = panic_of(assert_no_checkpoints(checkpoint_if_cancelled())).await;
    assert!(text.ends_with("and it looked for a cancellation"), "{text}");
    let text = panic_of(assert_no_checkpoints(enter_operation())).await;
    assert!(text.ends_with("and it looked for a cancellation"), "{text}");
    // A failure is no excuse.
    let fails = async {
        checkpoint_if_cancelled().await?;
        oops::<()>("x")
    };
    let text = panic_of(assert_no_checkpoints(fails)).await;
    assert!(text.ends_with("and it looked for a cancellation"), "{text}");
    Ok(())
}

#[trio::test]
async fn z1_the_checkpoints_of_other_tasks_do_not_count() -> Result<()> {
    let busy = async || loop {
        enter_operation().await?;
    };
    open_nursery(async |nursery| {
        nursery.start_soon(async { busy().await });
        nursery.start_soon(async {
            for _ in 0..3 {
                assert_no_checkpoints(async {}).await;
                checkpoint().await?;
            }
            // The wait for a child is not the child's checkpoint.
            let yields = assert_checkpoints(open_nursery(async |inner| {
                inner.start_soon(checkpoint());
                Ok(())
            }));
            let text = panic_of(yields).await;
            assert!(text.ends_with("never looked for a cancellation"), "{text}");
            // Nested checks both count.
            assert_checkpoints(assert_checkpoints(checkpoint())).await?;
            nursery.cancel_scope().cancel("seen enough");
            Ok(())
        });
        Ok(())
    })
    .await
}

#[trio::test]
async fn z1_after_a_panic_nothing_is_counted_any_more() -> Result<()> {
    panic_of(assert_checkpoints::<_, (), Error>(async {
        panic!("inside")
    }))
    .await;
    panic_of(assert_no_checkpoints(async { panic!("inside") })).await;
    assert_no_checkpoints(async {}).await;
    let scope = CancelScope::new();
    assert_eq!(scope.enter(async { Ok(7) }).await?, Some(7));
    checkpoint().await
}

#[trio::test(backend = "all")]
async fn z7_turns_come_in_their_order() -> Result<()> {
    let (sequencer, order) = (Sequencer::new(), RefCell::new(Vec::new()));
    open_nursery(async |nursery| {
        for numbers in [[5, 8], [4, 7], [3, 6], [0, 9], [1, 2]] {
            let (sequencer, order) = (&sequencer, &order);
            nursery.start_soon(async move {
                for number in numbers {
                    let turn = sequencer.turn(number).await?;
                    order.borrow_mut().push(number);
                    checkpoint().await?;
                    drop(turn);
                }
                Ok(())
            });
        }
        Ok(())
    })
    .await?;
    assert_eq!(order.take(), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert!(format!("{sequencer:?}").starts_with("Sequencer { turn: 10"));
    Ok(())
}

#[trio::test]
async fn z7_a_step_that_fails_ends_its_turn_as_well() -> Result<()> {
    let sequencer = Sequencer::new();
    let step = async |number| {
        let _turn = sequencer.turn(number).await?;
        oops::<()>("in the step")
    };
    assert_eq!(failure(step(0).await), "in the step");
    assert_eq!(failure(step(1).await), "in the step");
    drop(sequencer.turn(2).await?);
    Ok(())
}

#[trio::test]
async fn z7_a_number_is_one_step() -> Result<()> {
    let sequencer = Sequencer::new();
    let first = sequencer.turn(0).await?;
    let again = sequencer.turn(0).await;
    assert_eq!(
        failure(again),
        "turn 0 of a sequencer has been asked for twice: each number is one step"
    );
    drop(first);
    drop(sequencer.turn(1).await?);
    let late = sequencer.turn(0).await;
    assert!(late.is_err_and(|error| error.is::<Usage>()));
    Ok(())
}

#[trio::test]
async fn z7_a_turn_that_was_cancelled_breaks_the_sequence_for_all() -> Result<()> {
    let sequencer = Sequencer::new();
    let broken = Cell::new(0);
    open_nursery(async |nursery| {
        for number in [2, 3] {
            let (sequencer, broken) = (&sequencer, &broken);
            nursery.start_soon(async move {
                let error = sequencer.turn(number).await.map(drop);
                assert!(failure(error).starts_with("the sequence is broken"));
                broken.set(broken.get() + 1);
                Ok(())
            });
        }
        let scope = CancelScope::new();
        let inside = scope.clone();
        let sequencer = &sequencer;
        nursery.start_soon(async move {
            let ended = inside
                .enter(async { sequencer.turn(1).await.map(drop) })
                .await?;
            assert_eq!(ended, None, "the one that was cancelled learns just that");
            Ok(())
        });
        wait_all_tasks_blocked(secs(0)).await?;
        assert_eq!(broken.get(), 0);
        scope.cancel("");
        wait_all_tasks_blocked(secs(0)).await?;
        assert_eq!(broken.get(), 2, "whoever waits");
        Ok(())
    })
    .await?;
    assert!(failure(sequencer.turn(0).await).starts_with("the sequence is broken"));
    assert!(failure(sequencer.turn(100).await).starts_with("the sequence is broken"));
    Ok(())
}

#[trio::test]
async fn z7_a_turn_that_was_dropped_while_it_waited_breaks_the_sequence() -> Result<()> {
    let sequencer = Sequencer::new();
    assert!(sequencer.turn(1).now_or_never().is_none());
    assert!(failure(sequencer.turn(0).await).starts_with("the sequence is broken"));
    // A turn that was never polled has asked for nothing.
    let sequencer = Sequencer::new();
    drop(sequencer.turn(0));
    drop(sequencer.turn(0).await?);
    Ok(())
}

#[trio::test]
async fn z7_a_turn_that_has_come_goes_before_a_cancel() -> Result<()> {
    let sequencer = Sequencer::new();
    let scope = CancelScope::new();
    let first = sequencer.turn(0).await?;
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            let ended = scope
                .enter(async {
                    drop(sequencer.turn(1).await?);
                    Ok(7)
                })
                .await?;
            assert_eq!(ended, Some(7));
            Ok(())
        });
        wait_all_tasks_blocked(secs(0)).await?;
        drop(first);
        scope.cancel("too late");
        Ok(())
    })
    .await?;
    drop(sequencer.turn(2).await?);
    Ok(())
}

#[trio::test(backend = "all")]
async fn z8_all_are_blocked_when_nobody_can_run() -> Result<()> {
    let ran = Cell::new(0);
    open_nursery(async |nursery| {
        for turns in [1, 10, 100] {
            let ran = &ran;
            nursery.start_soon(async move {
                for _ in 0..turns {
                    checkpoint().await?;
                }
                ran.set(ran.get() + 1);
                sleep_forever().await
            });
        }
        wait_all_tasks_blocked(secs(0)).await?;
        assert_eq!(ran.get(), 3);
        nursery.cancel_scope().cancel("");
        Ok(())
    })
    .await
}

/// Counts the turns of the loop.
struct Turns(Rc<Cell<u32>>);

impl Instrument for Turns {
    fn before_io_wait(&mut self, _: Duration) {
        self.0.set(self.0.get() + 1);
    }
}

#[test]
fn z8_the_smallest_cushion_first_equal_ones_together_and_larger_ones_begin_anew() {
    let record = RefCell::new(Vec::new());
    let turns = Rc::new(Cell::new(0));
    let real = MockClock::new();
    real.set_rate(1.0);
    let builder = Builder::new().clock(MockClock::new());
    let result = builder.instrument(Turns(turns.clone())).run(async {
        open_nursery(async |nursery| {
            for cushion in [8, 1, 4, 1] {
                let (record, turns, real) = (&record, &turns, &real);
                nursery.start_soon(async move {
                    wait_all_tasks_blocked(millis(cushion)).await?;
                    record.borrow_mut().push((cushion, turns.get(), real.now()));
                    Ok(())
                });
            }
            Ok(())
        })
        .await
    });
    assert!(result.is_ok());
    let record = record.take();
    let cushions: Vec<u64> = record.iter().map(|(cushion, ..)| *cushion).collect();
    assert_eq!(cushions, [1, 1, 4, 8]);
    assert_eq!(record[0].1, record[1].1, "equal ones in the same turn");
    for pair in record[1..].windows(2) {
        let [(_, _, before), (cushion, _, now)] = pair else {
            unreachable!("a pair is two");
        };
        assert!(*now - *before >= millis(*cushion), "{record:?}");
    }
}

#[trio::test]
async fn z8_only_a_deadline_that_comes_counts_as_activity() -> Result<()> {
    let start = current_time();
    open_nursery(async |nursery| {
        nursery.start_soon(sleep(millis(2)));
        nursery.start_soon(async {
            move_on_after(secs(1000), sleep_forever()).await?;
            Ok(())
        });
        wait_all_tasks_blocked(millis(5)).await?;
        assert!(
            current_time() - start >= millis(7),
            "the cushion begins anew after the short sleep"
        );
        nursery.cancel_scope().cancel("");
        Ok(())
    })
    .await
}

#[trio::test]
async fn z8_waiting_for_all_to_be_blocked_can_be_cancelled() -> Result<()> {
    let ended = move_on_after(millis(1), wait_all_tasks_blocked(secs(1000))).await?;
    assert_eq!(ended, None);
    fail_after(secs(100), wait_all_tasks_blocked(secs(0))).await
}

#[trio::test(seeds = 5)]
async fn z9_a_test_runs_under_every_seed() -> Result<()> {
    let order = RefCell::new(Vec::new());
    open_nursery(async |nursery| {
        for number in 0..10 {
            let order = &order;
            nursery.start_soon(async move {
                checkpoint().await?;
                order.borrow_mut().push(number);
                Ok(())
            });
        }
        Ok(())
    })
    .await?;
    let mut order = order.take();
    order.sort();
    assert_eq!(order, (0..10).collect::<Vec<_>>(), "whatever the order was");
    Ok(())
}
