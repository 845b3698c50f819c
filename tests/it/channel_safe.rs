//! A producer that works only on demand (A).

use std::cell::{Cell, RefCell};
use std::time::Duration;

use trio::channel::{MemoryReceiveChannel, ReceiveError, Yielder};
use trio::testing::wait_all_tasks_blocked;
use trio::{
    CancelScope, Error, Result, checkpoint, move_on_after, open_nursery, safe_channel,
    sleep_forever,
};

use crate::support::{failure, oops, secs};

async fn settle() -> Result<()> {
    wait_all_tasks_blocked(Duration::ZERO).await
}

/// The numbers from zero, for as long as somebody receives them.
async fn count(numbers: &Yielder<u32>) -> Result<()> {
    for n in 0.. {
        numbers.send(n).await?;
    }
    Ok(())
}

#[trio::test]
async fn a1_the_producer_is_one_task_for_its_whole_life() -> Result<()> {
    let whole = safe_channel(
        async |numbers: &Yielder<u32>| {
            // Scopes and nurseries may surround the places where it hands over.
            open_nursery(async |nursery| {
                nursery.start_soon(async { sleep_forever().await });
                let scope = CancelScope::with_timeout(secs(3600));
                scope
                    .enter(async {
                        for n in 0..3 {
                            numbers.send(n).await?;
                        }
                        Ok(())
                    })
                    .await?;
                nursery
                    .cancel_scope()
                    .cancel("the helper is not needed any more");
                Ok(())
            })
            .await
        },
        async |numbers| {
            let mut sum = 0;
            while let Some(n) = numbers.next().await? {
                sum += n;
            }
            Ok(sum)
        },
    );
    assert_eq!(whole.await?, 3);
    Ok(())
}

#[trio::test]
async fn a1_producers_nest() -> Result<()> {
    let pairs = safe_channel(count, async |outer| {
        let mut pairs = Vec::new();
        while let Some(a) = outer.next().await? {
            if a == 2 {
                break;
            }
            safe_channel(count, async |inner| {
                while let Some(b) = inner.next().await? {
                    pairs.push((a, b));
                    if b == 1 {
                        break;
                    }
                }
                Ok(())
            })
            .await?;
        }
        Ok(pairs)
    });
    assert_eq!(pairs.await?, [(0, 0), (0, 1), (1, 0), (1, 1)]);
    Ok(())
}

#[trio::test]
async fn a2_the_producer_never_runs_ahead() -> Result<()> {
    let log = RefCell::new(Vec::new());
    let producer = async |numbers: &Yielder<u32>| {
        for n in 0..3 {
            log.borrow_mut().push(format!("made {n}"));
            numbers.send(n).await?;
        }
        log.borrow_mut().push("went on".to_owned());
        Ok(())
    };
    safe_channel(producer, async |numbers| {
        settle().await?;
        log.borrow_mut().push("begin".to_owned());
        while let Some(n) = numbers.next().await? {
            settle().await?;
            log.borrow_mut().push(format!("got {n}"));
        }
        Ok(())
    })
    .await?;
    let expected = [
        "begin", "made 0", "got 0", "made 1", "got 1", "made 2", "got 2", "went on",
    ];
    assert_eq!(log.into_inner(), expected);
    Ok(())
}

#[trio::test]
async fn a2_what_is_not_asked_is_never_begun() -> Result<()> {
    let begun = Cell::new(false);
    let producer = async |numbers: &Yielder<u32>| {
        begun.set(true);
        count(numbers).await
    };
    safe_channel(producer, async |_| settle().await).await?;
    assert!(!begun.get());
    // Cancelled before the first receive.
    let cancelled = move_on_after(
        secs(0),
        safe_channel(producer, async |numbers| Ok(numbers.receive().await?)),
    );
    assert_eq!(cancelled.await?, None);
    assert!(!begun.get());
    // Closed before it.
    let closed = safe_channel(producer, async |numbers| {
        numbers.close();
        assert!(matches!(numbers.receive().await, Err(ReceiveError::Closed)));
        Ok(())
    });
    closed.await?;
    assert!(!begun.get());
    Ok(())
}

#[trio::test]
async fn a2_a_receive_that_was_cancelled_is_not_waited_for() -> Result<()> {
    let made = Cell::new(0);
    let producer = async |numbers: &Yielder<u32>| {
        for n in 0.. {
            made.set(n + 1);
            numbers.send(n).await?;
        }
        Ok(())
    };
    safe_channel(producer, async |numbers| {
        assert_eq!(numbers.receive().await?, 0);
        let scope = CancelScope::new();
        open_nursery(async |nursery| {
            nursery.start_soon(async {
                let received = scope.enter(async { Ok(numbers.receive().await?) }).await?;
                assert_eq!(received, None);
                Ok(())
            });
            checkpoint().await?;
            scope.cancel("changed my mind");
            Ok(())
        })
        .await?;
        settle().await?;
        assert!(made.get() <= 2, "it has made {}", made.get());
        assert_eq!(numbers.receive().await?, 1, "nothing is lost");
        Ok(())
    })
    .await
}

#[trio::test]
async fn a2_several_receivers_are_served_in_their_order() -> Result<()> {
    let got = RefCell::new(Vec::new());
    let got_ref = &got;
    safe_channel(count, async |numbers: &MemoryReceiveChannel<u32>| {
        open_nursery(async |nursery| {
            for task in 0..2 {
                nursery.start_soon(async move {
                    for _ in 0..2 {
                        let n = numbers.receive().await?;
                        got_ref.borrow_mut().push((task, n));
                    }
                    Ok(())
                });
            }
            Ok(())
        })
        .await
    })
    .await?;
    assert_eq!(got.into_inner(), [(0, 0), (1, 1), (0, 2), (1, 3)]);
    Ok(())
}

/// The error of a block whose producer hands over once and then may fail, and whose body takes it
/// and then may fail.
async fn errors(producer: Option<&str>, body: Option<&str>, drain: bool) -> String {
    let result = safe_channel(
        async |numbers: &Yielder<u32>| {
            let handed = numbers.send(0).await;
            match producer {
                Some(what) => oops(what),
                None => handed,
            }
        },
        async |numbers| {
            assert_eq!(numbers.receive().await?, 0);
            if drain {
                while numbers.next().await?.is_some() {}
            }
            body.map_or(Ok(()), oops)
        },
    );
    failure(result.await)
}

#[trio::test]
async fn a3_one_error_comes_as_it_is_and_two_in_a_group() -> Result<()> {
    assert_eq!(errors(Some("producer"), None, true).await, "producer");
    assert_eq!(errors(Some("cleanup"), None, false).await, "cleanup");
    assert_eq!(errors(None, Some("body"), true).await, "body");
    assert_eq!(errors(None, Some("body"), false).await, "body");
    // The body had failed on its own when the producer was cancelled.
    assert_eq!(
        errors(Some("cleanup"), Some("body"), false).await,
        "[body cleanup]"
    );
    // The producer had failed, which cut the body short.
    assert_eq!(
        errors(Some("producer"), Some("body"), true).await,
        "producer"
    );
    Ok(())
}

#[trio::test]
async fn a3_a_group_of_the_users_own_stays_as_it_is() -> Result<()> {
    let error = safe_channel(count, async |_| {
        Err::<(), _>(Error::group("mine", vec![Error::msg("one")]))
    });
    assert_eq!(failure(error.await), "[one]");
    let error = safe_channel(
        async |numbers: &Yielder<u32>| {
            numbers.send(1).await?;
            Err(Error::group("mine", vec![Error::msg("one")]))
        },
        async |numbers| {
            while numbers.next().await?.is_some() {}
            Ok(())
        },
    );
    assert_eq!(failure(error.await), "[one]");
    Ok(())
}

#[trio::test]
async fn a3_the_error_after_the_last_value_never_passes_for_the_end() -> Result<()> {
    for turns in 0..5 {
        let result = safe_channel(
            async |numbers: &Yielder<u32>| {
                numbers.send(1).await?;
                for _ in 0..turns {
                    checkpoint().await?;
                }
                oops("late")
            },
            async |numbers| {
                let mut got = 0;
                while numbers.next().await?.is_some() {
                    got += 1;
                    checkpoint().await?;
                }
                Err::<(), _>(Error::msg(format!("the end was seen after {got}")))
            },
        );
        assert_eq!(failure(result.await), "late");
    }
    Ok(())
}

#[trio::test]
async fn a3_a_cancel_from_outside_comes_out_as_one() -> Result<()> {
    let order = RefCell::new(Vec::new());
    let scope = CancelScope::new();
    let ended = scope.enter(async {
        let inside = safe_channel(
            async |numbers: &Yielder<u32>| {
                let result = count(numbers).await;
                order.borrow_mut().push(("producer", failure(result)));
                // It returns the cancellation.
                checkpoint().await
            },
            async |numbers| {
                numbers.receive().await?;
                scope.cancel("");
                let result = numbers.receive().await;
                order
                    .borrow_mut()
                    .push(("body", failure(result.map_err(Error::from))));
                checkpoint().await
            },
        );
        let error = inside.await.unwrap_err();
        assert!(error.as_cancelled().is_some(), "no group: {error:?}");
        Err::<(), _>(error)
    });
    assert_eq!(ended.await?, None);
    let mut order = order.into_inner();
    order.sort_unstable();
    let cancelled = "cancelled".to_owned();
    assert_eq!(
        order,
        [("body", cancelled.clone()), ("producer", cancelled)]
    );
    Ok(())
}

#[trio::test]
async fn a3_errors_go_before_a_cancel_from_outside() -> Result<()> {
    /// Cancels from outside, and lets either side fail while it cleans up.
    async fn check(producer_fails: bool, body_fails: bool) -> String {
        let scope = CancelScope::new();
        let result = scope.enter(safe_channel(
            async |numbers: &Yielder<u32>| match count(numbers).await {
                Err(_) if producer_fails => oops("cleanup of the producer"),
                result => result,
            },
            async |numbers| {
                numbers.receive().await?;
                scope.cancel("");
                match numbers.receive().await {
                    Err(_) if body_fails => oops("cleanup of the body"),
                    result => Ok(result.map(drop)?),
                }
            },
        ));
        match result.await {
            Ok(ended) => format!("{ended:?}"),
            error => failure(error),
        }
    }
    assert_eq!(check(false, false).await, "None");
    assert_eq!(check(true, false).await, "cleanup of the producer");
    assert_eq!(check(false, true).await, "cleanup of the body");
    assert_eq!(
        check(true, true).await,
        "[cleanup of the body cleanup of the producer]"
    );
    Ok(())
}

#[trio::test]
async fn a3_what_the_body_came_to_in_spite_of_a_cancel_is_returned() -> Result<()> {
    let scope = CancelScope::new();
    let value = scope.enter(safe_channel(count, async |numbers| {
        let first = numbers.receive().await?;
        scope.cancel("too late");
        Ok(first)
    }));
    assert_eq!(value.await?, Some(0));
    Ok(())
}

#[trio::test]
async fn a3_a_producer_that_was_cancelled_does_not_pass_for_one_that_has_ended() -> Result<()> {
    let scope = CancelScope::new();
    let part = scope.enter(safe_channel(count, async |numbers| {
        let first = numbers.receive().await?;
        scope.cancel("");
        let shield = CancelScope::new().shielded();
        let rest = shield.enter(async { numbers.next().await });
        assert_eq!(rest.await?, Some(None), "there is no more");
        Ok(first)
    }));
    assert_eq!(part.await?, None, "but that is not all that there is");
    Ok(())
}

#[trio::test]
async fn a3_a_cancel_inside_the_producer_stays_there() -> Result<()> {
    let got = safe_channel(
        async |numbers: &Yielder<u32>| {
            let scope = CancelScope::new();
            scope
                .enter(async {
                    numbers.send(1).await?;
                    scope.cancel("");
                    numbers.send(2).await
                })
                .await?;
            numbers.send(3).await
        },
        async |numbers| {
            let mut got = Vec::new();
            while let Some(n) = numbers.next().await? {
                got.push(n);
            }
            Ok(got)
        },
    );
    assert_eq!(got.await?, [1, 3]);
    Ok(())
}

#[trio::test]
async fn a4_a_block_that_ends_early_ends_its_producer_where_it_stands() -> Result<()> {
    let log = RefCell::new(Vec::new());
    let value = safe_channel(
        async |numbers: &Yielder<u32>| {
            let result = count(numbers).await;
            log.borrow_mut().push(failure(result));
            // Cleanup may wait under a shield.
            let shield = CancelScope::new().shielded();
            shield.enter(async { checkpoint().await }).await?;
            log.borrow_mut().push("cleaned up".to_owned());
            checkpoint().await
        },
        async |numbers| Ok(numbers.receive().await?),
    );
    assert_eq!(value.await?, 0);
    assert_eq!(log.into_inner(), ["cancelled", "cleaned up"]);
    Ok(())
}

#[trio::test]
async fn a5_closing_the_receiving_end_elsewhere_ends_both_sides() -> Result<()> {
    for before_the_first in [false, true] {
        let ended = Cell::new(false);
        let producer = async |numbers: &Yielder<u32>| {
            let result = count(numbers).await;
            ended.set(true);
            result
        };
        safe_channel(producer, async |numbers: &MemoryReceiveChannel<u32>| {
            if !before_the_first {
                numbers.receive().await?;
            }
            open_nursery(async |nursery| {
                nursery.start_soon(async {
                    numbers.close();
                    Ok(())
                });
                let refused = loop {
                    if let Err(refused) = numbers.receive().await {
                        break refused;
                    }
                };
                assert!(matches!(refused, ReceiveError::Closed));
                Ok(())
            })
            .await?;
            settle().await?;
            assert!(
                ended.get() || before_the_first,
                "without waiting for the block"
            );
            Ok(())
        })
        .await?;
    }
    Ok(())
}
