//! Cancelling: level-triggered (L), caught by position (S), kept out by shields (H).

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::net::Ipv4Addr;
use std::rc::Rc;

use trio::instrument::{Instrument, Task};
use trio::lowlevel::{checkpoint_if_cancelled, current_statistics, driver_statistics};
use trio::net::open_tcp_listeners;
use trio::testing::{MockClock, wait_all_tasks_blocked};
use trio::{
    Backend, Builder, CancelScope, CancelSource, Cancelled, Error, Result, checkpoint,
    current_time, move_on_after, open_nursery, sleep, sleep_forever,
};

use crate::support::{connection, failure, oops, secs};

/// The cancellation that a checkpoint reports here.
async fn reported() -> Cancelled {
    let error = checkpoint()
        .await
        .expect_err("the scope has been cancelled");
    error.as_cancelled().expect("nothing else can come").clone()
}

/// Waits only to be cancelled: what a child of a nursery can wait in.
async fn hang() -> Result<()> {
    sleep_forever().await
}

#[trio::test(clock = "autojump")]
async fn l1_each_later_checkpoint_reports_again() -> Result<()> {
    let scope = CancelScope::new();
    let cleaned = Cell::new(0);
    let ended = scope
        .enter(async {
            scope.cancel("once");
            scope.cancel("twice changes nothing");
            for _ in 0..3 {
                assert_eq!(reported().await.reason(), Some("once"));
            }
            let result = sleep_forever().await;
            // Clean-up sees the cancellation too, unless it is shielded.
            assert_eq!(failure(sleep(secs(1)).await), "cancelled");
            let clean_up = CancelScope::new().shielded();
            clean_up
                .enter(async {
                    sleep(secs(1)).await?;
                    cleaned.set(cleaned.get() + 1);
                    Ok(())
                })
                .await?;
            assert_eq!(failure(checkpoint().await), "cancelled");
            result
        })
        .await?;
    assert_eq!(ended, None);
    assert_eq!(cleaned.get(), 1);
    checkpoint().await
}

/// The names of the tasks that have become ready.
#[derive(Clone, Default)]
struct Scheduled(Rc<RefCell<Vec<String>>>);

impl Instrument for Scheduled {
    fn task_scheduled(&mut self, task: &Task) {
        if !task.is_body() {
            self.0.borrow_mut().push(task.name().to_owned());
        }
    }
}

#[test]
fn l2_whoever_waits_has_been_woken_when_cancel_returns() {
    let scheduled = Scheduled::default();
    let seen = scheduled.0.clone();
    let run = Builder::new().instrument(scheduled).run(async {
        open_nursery(async |nursery| {
            let run = nursery.cancel_scope();
            open_nursery(async |inner| {
                for name in ["one", "two"] {
                    inner.start_soon_named(name, hang());
                }
                inner.start_soon_named("grandparent", async {
                    open_nursery(async |deepest| {
                        deepest.start_soon_named("grandchild", hang());
                        Ok(())
                    })
                    .await
                });
                wait_all_tasks_blocked(secs(0)).await?;
                seen.borrow_mut().clear();
                run.cancel("");
                let mut woken = seen.borrow().clone();
                woken.sort();
                assert_eq!(woken, ["grandchild", "grandparent", "main", "one", "two"]);
                Ok(())
            })
            .await
        })
        .await
    });
    assert!(run.is_ok(), "{run:?}");
}

#[test]
fn l2_the_kernel_has_been_asked_when_cancel_returns() {
    // The simulation asks its world in the next turn.
    for backend in [Backend::IoUring, Backend::Polling] {
        let program = async {
            let listeners = open_tcp_listeners((Ipv4Addr::LOCALHOST, 0)).await?;
            open_nursery(async |nursery| {
                nursery.start_soon(async { listeners[0].accept().await.map(drop) });
                wait_all_tasks_blocked(secs(0)).await?;
                let before = driver_statistics().cancels;
                assert_eq!(current_statistics().tasks_runnable, 0);
                nursery.cancel_scope().cancel("");
                let asked = driver_statistics().cancels - before;
                // What is only watched needs nobody's permission.
                let woken = current_statistics().tasks_runnable;
                assert!(asked == 1 || woken == 1, "{backend}: {asked}, {woken}");
                Ok(())
            })
            .await
        };
        Builder::new().backend(backend).run(program).unwrap();
    }
}

#[test]
fn l3_a_deadline_takes_effect_in_the_loop_on_entry_and_when_asked_for() {
    let clock = MockClock::new();
    Builder::new().clock(clock.clone()).run(async {
        let scope = CancelScope::with_timeout(secs(1));
        let ended = scope
            .enter(async {
                clock.jump(secs(2));
                checkpoint_if_cancelled().await?;
                checkpoint_if_cancelled().await?;
                assert!(scope.cancel_called(), "asking makes it so");
                checkpoint_if_cancelled().await?;
                unreachable!("it is so from now on");
            })
            .await;
        assert!(matches!(ended, Ok(None::<()>)), "{ended:?}");

        let scope = CancelScope::with_deadline(current_time());
        let ended = scope.enter(checkpoint_if_cancelled()).await;
        assert!(matches!(ended, Ok(None)), "on entry: {ended:?}");

        let scope = CancelScope::with_timeout(secs(1));
        let ended = scope
            .enter(async {
                clock.jump(secs(2));
                checkpoint().await
            })
            .await;
        assert!(matches!(ended, Ok(None)), "in the loop: {ended:?}");
    });
}

#[trio::test]
async fn l4_a_child_of_a_cancelled_nursery_runs_to_its_first_checkpoint() -> Result<()> {
    let reached = Cell::new(0);
    open_nursery(async |nursery| {
        nursery.cancel_scope().cancel("");
        nursery.start_soon(async {
            reached.set(1);
            let result = checkpoint().await;
            reached.set(2);
            result?;
            unreachable!("the checkpoint reports");
        });
        Ok(())
    })
    .await?;
    assert_eq!(reached.get(), 2);
    Ok(())
}

#[trio::test(backend = "all")]
async fn l5_an_operation_is_asked_to_end_once_and_a_later_shield_does_not_recall_it() -> Result<()>
{
    let (here, _there) = connection().await?;
    let outer = CancelScope::new();
    let inner = CancelScope::new();
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            let ended = outer
                .enter(async {
                    let ended = inner
                        .enter(async {
                            let result = here.receive().await;
                            assert!(inner.shield());
                            assert!(result.is_err_and(|error| error.is_cancelled()));
                            sleep(secs(0)).await?;
                            Ok("shielded from now on")
                        })
                        .await?;
                    assert_eq!(ended, Some("shielded from now on"));
                    checkpoint().await
                })
                .await?;
            assert_eq!(ended, None);
            Ok(())
        });
        wait_all_tasks_blocked(secs(0)).await?;
        let before = driver_statistics().cancels;
        outer.cancel("");
        inner.set_shield(true);
        outer.cancel("");
        inner.set_shield(false);
        inner.set_shield(true);
        wait_all_tasks_blocked(secs(0)).await?;
        assert!(driver_statistics().cancels <= before + 1, "asked once");
        Ok(())
    })
    .await?;
    assert!(outer.cancelled_caught());
    assert!(!inner.cancelled_caught());
    Ok(())
}

#[trio::test]
async fn l6_the_first_cancellation_is_the_one_that_is_told() -> Result<()> {
    let scope = CancelScope::new();
    scope
        .enter(async {
            scope.cancel("hello");
            scope.set_deadline(trio::Time::PAST);
            let line = line!() - 2;
            let cancelled = reported().await;
            assert_eq!(cancelled.source(), CancelSource::Explicit);
            assert_eq!(cancelled.reason(), Some("hello"));
            assert_eq!(cancelled.source_task(), Some("main"));
            let place = cancelled.place().expect("it was called");
            assert_eq!((place.file(), place.line()), (file!(), line));
            assert_eq!(
                cancelled.to_string(),
                format!(
                    "cancelled due to explicit with reason \"hello\" from task main at {place}"
                ),
            );
            Ok(())
        })
        .await?;

    let scope = CancelScope::with_deadline(trio::Time::PAST);
    let line = line!() - 1;
    scope
        .enter(async {
            scope.cancel("later");
            let cancelled = reported().await;
            let place = cancelled.place().expect("the deadline was set somewhere");
            assert_eq!((place.file(), place.line()), (file!(), line));
            assert_eq!(
                cancelled.to_string(),
                format!("cancelled due to deadline at {place}")
            );
            assert_eq!(cancelled.source_task(), None);
            Ok(())
        })
        .await?;
    Ok(())
}

#[trio::test]
async fn l6_a_scope_inside_tells_what_reached_it_first() -> Result<()> {
    let (outer, inner) = (CancelScope::new(), CancelScope::new());
    outer
        .enter(inner.enter(async {
            outer.cancel("outer");
            inner.cancel("inner");
            assert_eq!(reported().await.reason(), Some("outer"));
            Ok(())
        }))
        .await?;
    let (outer, inner) = (CancelScope::new(), CancelScope::new());
    outer
        .enter(inner.enter(async {
            inner.cancel("inner");
            outer.cancel("outer");
            assert_eq!(reported().await.reason(), Some("inner"));
            Ok(())
        }))
        .await?;
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn l6_a_deadline_that_is_set_later_tells_of_itself() -> Result<()> {
    let scope = CancelScope::new();
    scope
        .enter(async {
            scope.set_timeout(secs(1));
            assert_eq!(failure(hang().await), "cancelled");
            assert_eq!(reported().await.source(), CancelSource::Deadline);
            Ok(())
        })
        .await?;
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn l6_a_sibling_learns_which_task_failed_and_how() -> Result<()> {
    let told = RefCell::new(Vec::new());
    for already_waiting in [false, true] {
        let result = open_nursery(async |nursery| {
            let fail = async {
                if already_waiting {
                    sleep(secs(1)).await?;
                }
                oops("no such file")
            };
            nursery.start_soon_named("opener", fail);
            nursery.start_soon_named("waiter", async {
                let cancelled = reported_after(sleep_forever()).await;
                told.borrow_mut().push(cancelled);
                Ok(())
            });
            Ok(())
        })
        .await;
        assert_eq!(failure(result), "[no such file]");
    }
    for cancelled in told.take() {
        assert_eq!(cancelled.source(), CancelSource::Nursery);
        assert_eq!(cancelled.source_task(), Some("opener"));
        assert_eq!(
            cancelled.reason(),
            Some("child task opener raised no such file")
        );
    }
    Ok(())
}

async fn reported_after(wait: impl Future<Output = Result<()>>) -> Cancelled {
    let error = wait.await.expect_err("it is cancelled");
    error.as_cancelled().expect("it is cancelled").clone()
}

#[trio::test]
async fn l6_children_learn_that_it_was_the_body() -> Result<()> {
    let told = RefCell::new(None);
    let result = open_nursery(async |nursery| {
        nursery.start_soon(async {
            *told.borrow_mut() = Some(reported_after(sleep_forever()).await);
            Ok(())
        });
        checkpoint().await?;
        oops::<()>("lost interest")
    })
    .await;
    assert_eq!(failure(result), "[lost interest]");
    let told = told.take().expect("the child was cancelled");
    assert_eq!(
        told.to_string(),
        "cancelled due to nursery with reason \"code block inside nursery raised lost interest\" \
         from task main"
    );
    Ok(())
}

#[trio::test]
async fn l6_a_failure_before_started_is_that_of_the_body_which_called_start() -> Result<()> {
    let told = RefCell::new(None);
    let result = open_nursery(async |nursery| {
        nursery.start_soon(async {
            *told.borrow_mut() = Some(reported_after(sleep_forever()).await);
            Ok(())
        });
        checkpoint().await?;
        nursery
            .start::<(), _, _>(async |_| oops("not started"))
            .await
    })
    .await;
    assert_eq!(failure(result), "[not started]");
    let told = told.take().expect("the child was cancelled");
    let reason = told.reason().expect("a nursery gives one");
    assert_eq!(reason, "code block inside nursery raised not started");
    Ok(())
}

#[trio::test]
async fn l6_a_child_that_has_started_learns_of_its_new_siblings() -> Result<()> {
    let told = RefCell::new(None);
    let result = open_nursery(async |nursery| {
        nursery
            .start(async |status| {
                status.started(())?;
                *told.borrow_mut() = Some(reported_after(sleep_forever()).await);
                Ok(())
            })
            .await?;
        nursery.start_soon_named("sibling", async { oops("broken") });
        Ok(())
    })
    .await;
    assert_eq!(failure(result), "[broken]");
    let told = told.take().expect("the child was cancelled");
    assert_eq!(told.reason(), Some("child task sibling raised broken"));
    Ok(())
}

#[trio::test]
async fn s1_a_scope_catches_if_it_was_cancelled_and_nothing_around_it_was() -> Result<()> {
    let (outer, inner) = (CancelScope::new(), CancelScope::new());
    let ended = outer
        .enter(async {
            let ended = inner
                .enter(async {
                    outer.cancel("");
                    checkpoint().await
                })
                .await;
            assert_eq!(failure(ended), "cancelled");
            assert!(!inner.cancelled_caught());
            checkpoint().await
        })
        .await?;
    assert_eq!(ended, None);
    assert!(outer.cancelled_caught());

    let (outer, inner) = (CancelScope::new(), CancelScope::new());
    let ended = outer
        .enter(async {
            let ended = inner
                .enter(async {
                    inner.cancel("");
                    checkpoint().await
                })
                .await?;
            assert_eq!(ended, None);
            assert!(inner.cancelled_caught());
            checkpoint().await
        })
        .await?;
    assert_eq!(ended, Some(()), "the outer scope is not concerned");
    assert!(!outer.cancel_called());
    Ok(())
}

#[trio::test]
async fn s1_a_shielded_scope_catches_its_own_though_the_outer_one_is_cancelled() -> Result<()> {
    let outer = CancelScope::new();
    let inner = CancelScope::new().shielded();
    let ended = outer
        .enter(async {
            let ended = inner
                .enter(async {
                    outer.cancel("");
                    checkpoint().await?;
                    inner.cancel("");
                    checkpoint().await
                })
                .await?;
            assert_eq!(ended, None);
            assert!(inner.cancelled_caught());
            checkpoint().await
        })
        .await?;
    assert_eq!(ended, None);
    Ok(())
}

#[trio::test]
async fn s2_of_several_cancelled_scopes_the_outermost_catches() -> Result<()> {
    let scopes = [CancelScope::new(), CancelScope::new(), CancelScope::new()];
    let [first, second, third] = &scopes;
    let ended = first
        .enter(second.enter(third.enter(async {
            third.cancel("");
            first.cancel("");
            second.cancel("");
            checkpoint().await
        })))
        .await?;
    assert_eq!(ended, None);
    let caught = scopes.each_ref().map(CancelScope::cancelled_caught);
    assert_eq!(caught, [true, false, false]);
    Ok(())
}

#[trio::test]
async fn s3_a_cancel_of_the_outer_scope_takes_over_an_error_on_its_way() -> Result<()> {
    let (outer, inner) = (CancelScope::new(), CancelScope::new());
    let ended = outer
        .enter(async {
            inner
                .enter(async {
                    inner.cancel("inner");
                    let result = checkpoint().await;
                    outer.cancel("outer, while the error passes");
                    result
                })
                .await
        })
        .await?;
    assert_eq!(ended, None);
    assert!(outer.cancelled_caught());
    assert!(!inner.cancelled_caught());
    Ok(())
}

#[trio::test]
async fn s4_a_scope_that_was_not_cancelled_catches_nothing_even_with_a_late_shield() -> Result<()> {
    let (outer, inner) = (CancelScope::new(), CancelScope::new());
    let ended = outer
        .enter(async {
            let ended = inner
                .enter(async {
                    outer.cancel("");
                    let result = checkpoint().await;
                    inner.set_shield(true);
                    result
                })
                .await;
            assert_eq!(failure(ended), "cancelled");
            assert!(!inner.cancelled_caught());
            Err(Error::msg("only the outer scope may end this"))
        })
        .await;
    assert_eq!(
        failure::<Option<()>>(ended),
        "only the outer scope may end this"
    );
    Ok(())
}

#[trio::test]
async fn s5_cancelled_leaves_vanish_from_a_group_and_the_rest_stays() -> Result<()> {
    let scope = CancelScope::new();
    let result = scope
        .enter(async {
            scope.cancel("");
            let leaf = || async { checkpoint().await.expect_err("cancelled") };
            let inner = vec![leaf().await, Error::msg("value"), leaf().await];
            let lone = Error::group("lone", vec![leaf().await]);
            let all = vec![
                Error::group("inner", inner),
                lone,
                leaf().await,
                Error::msg("key"),
            ];
            Err::<(), _>(Error::group("all", all))
        })
        .await;
    assert!(scope.cancelled_caught());
    assert_eq!(failure(result), "[[value] key]");
    Ok(())
}

#[trio::test]
async fn s5_nothing_but_cancelled_leaves_is_a_normal_end() -> Result<()> {
    let scope = CancelScope::new();
    let ended = scope
        .enter(async {
            scope.cancel("");
            let leaf = checkpoint().await.expect_err("cancelled");
            Err::<(), _>(Error::group("all", vec![Error::group("inner", vec![leaf])]))
        })
        .await?;
    assert_eq!(ended, None);
    Ok(())
}

#[trio::test]
async fn s5_a_group_without_cancellations_passes_unchanged() -> Result<()> {
    let scope = CancelScope::new();
    let result = scope
        .enter(async {
            scope.cancel("");
            Err::<(), _>(Error::group(
                "mine",
                vec![Error::group("in it", vec![Error::msg("a")])],
            ))
        })
        .await;
    assert!(scope.cancel_called());
    assert!(!scope.cancelled_caught());
    assert_eq!(failure(result), "[[a]]");
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn s5_two_scopes_and_a_real_error_at_once() -> Result<()> {
    let outer = CancelScope::new();
    let result = outer
        .enter(async {
            let result = open_nursery(async |nursery| {
                // Each keeps the cancellation of its own nursery, and of the outer scope.
                for _ in 0..2 {
                    nursery.start_soon(hang());
                }
                nursery.start_soon(async {
                    checkpoint().await?;
                    outer.cancel("");
                    nursery.cancel_scope().cancel("");
                    oops("key")
                });
                hang().await
            })
            .await;
            let error = result.expect_err("the outer scope is the one to catch");
            let cancelled = error.leaves().filter(|leaf| leaf.is_cancelled()).count();
            assert_eq!((cancelled, error.leaves().count()), (3, 4));
            Err::<(), _>(error)
        })
        .await;
    assert_eq!(failure(result), "[key]");
    assert!(outer.cancelled_caught());
    Ok(())
}

#[trio::test]
async fn s6_a_cancel_that_nobody_noticed_ends_with_its_scope() -> Result<()> {
    let scope = CancelScope::new();
    let ended = scope
        .enter(async {
            checkpoint().await?;
            scope.cancel("after the last checkpoint");
            Ok("done")
        })
        .await?;
    assert_eq!(ended, Some("done"));
    assert!(scope.cancel_called());
    assert!(!scope.cancelled_caught());
    checkpoint().await
}

#[trio::test]
async fn s7_a_cancellation_that_was_kept_is_caught_by_nobody_later() -> Result<()> {
    let mut kept = None;
    CancelScope::new()
        .enter(async {
            let scope = CancelScope::new();
            scope.cancel("");
            scope
                .enter(async {
                    kept = checkpoint().await.err();
                    Ok(())
                })
                .await
        })
        .await?;
    let kept = kept.expect("it was cancelled");
    let scope = CancelScope::new();
    let result = scope.enter(async { Err::<(), _>(kept) }).await;
    assert_eq!(failure(result), "cancelled");
    assert!(!scope.cancelled_caught());
    Ok(())
}

#[trio::test]
async fn s7_a_cancellation_that_a_child_makes_up_cancels_its_nursery_like_any_error() -> Result<()>
{
    let mut kept = None;
    let scope = CancelScope::new();
    scope.cancel("kept");
    scope
        .enter(async {
            kept = checkpoint().await.err();
            Ok(())
        })
        .await?;
    let kept = kept.expect("it was cancelled");
    let sibling = Cell::new(false);
    open_nursery(async |nursery| {
        nursery.start_soon(async { Err(kept) });
        nursery.start_soon(async {
            let cancelled = reported_after(sleep_forever()).await;
            sibling.set(cancelled.reason() == Some("kept"));
            Ok(())
        });
        Ok(())
    })
    .await?;
    assert!(
        sibling.get(),
        "and the nursery's scope, being cancelled, has caught it"
    );
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn h1_a_shield_keeps_out_what_is_around_and_not_what_is_inside() -> Result<()> {
    let outer = CancelScope::new();
    outer
        .enter(async {
            outer.cancel("");
            let shield = CancelScope::new().shielded();
            let ended = shield
                .enter(async {
                    sleep(secs(1)).await?;
                    let inside = CancelScope::new();
                    inside.cancel("");
                    assert_eq!(inside.enter(checkpoint()).await?, None);
                    assert_eq!(move_on_after(secs(1), sleep_forever()).await?, None);
                    shield.cancel("its own");
                    assert_eq!(reported().await.reason(), Some("its own"));
                    checkpoint().await
                })
                .await?;
            assert_eq!(ended, None);
            checkpoint().await
        })
        .await?;
    assert!(outer.cancelled_caught());
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn h2_lowering_a_shield_delivers_at_once_and_raising_it_protects_at_once() -> Result<()> {
    let (outer, inner) = (CancelScope::new(), CancelScope::new().shielded());
    let record = RefCell::new(Vec::new());
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            outer
                .enter(inner.enter(async {
                    sleep(secs(1)).await?;
                    record.borrow_mut().push("slept under the shield");
                    assert_eq!(failure(sleep_forever().await), "cancelled");
                    record.borrow_mut().push("woken without it");
                    inner.set_shield(true);
                    sleep(secs(1)).await?;
                    record.borrow_mut().push("slept again");
                    Ok(())
                }))
                .await?;
            Ok(())
        });
        checkpoint().await?;
        outer.cancel("");
        sleep(secs(5)).await?;
        record.borrow_mut().push("lowered");
        inner.set_shield(false);
        Ok(())
    })
    .await?;
    assert_eq!(
        record.take(),
        [
            "slept under the shield",
            "lowered",
            "woken without it",
            "slept again"
        ]
    );
    Ok(())
}

#[trio::test]
async fn h2_a_shield_on_and_off_within_one_scope() -> Result<()> {
    let (outer, inner) = (CancelScope::new(), CancelScope::new());
    outer
        .enter(inner.enter(async {
            outer.cancel("");
            for _ in 0..3 {
                assert_eq!(failure(checkpoint().await), "cancelled");
                inner.set_shield(true);
                checkpoint().await?;
                inner.set_shield(false);
            }
            Ok(())
        }))
        .await?;
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn h3_the_effective_deadline_stops_at_a_shield() -> Result<()> {
    use trio::{Time, current_effective_deadline};
    assert_eq!(current_effective_deadline(), Time::NEVER);
    let start = current_time();
    let outer = CancelScope::with_deadline(start + secs(10));
    let inner = CancelScope::with_deadline(start + secs(20));
    outer
        .enter(inner.enter(async {
            assert_eq!(current_effective_deadline(), start + secs(10));
            inner.set_deadline(start + secs(5));
            assert_eq!(current_effective_deadline(), start + secs(5));
            inner.set_deadline(start + secs(20));
            inner.set_shield(true);
            assert_eq!(
                current_effective_deadline(),
                start + secs(20),
                "the shield's own counts"
            );
            inner.set_deadline(Time::NEVER);
            assert_eq!(current_effective_deadline(), Time::NEVER);
            outer.cancel("");
            assert_eq!(current_effective_deadline(), Time::NEVER);
            inner.set_shield(false);
            assert_eq!(current_effective_deadline(), Time::PAST, "cancelled");
            Ok(())
        }))
        .await?;
    move_on_after(secs(3), async {
        assert_eq!(current_effective_deadline(), start + secs(3));
        Ok(())
    })
    .await?;
    assert_eq!(current_effective_deadline(), Time::NEVER);
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn h4_the_shield_of_a_nursery_covers_its_children() -> Result<()> {
    let outer = CancelScope::new();
    let woken = Cell::new(0);
    outer
        .enter(open_nursery(async |nursery| {
            nursery.cancel_scope().set_shield(true);
            for _ in 0..2 {
                nursery.start_soon(async {
                    assert_eq!(failure(sleep_forever().await), "cancelled");
                    woken.set(woken.get() + 1);
                    Ok(())
                });
            }
            sleep(secs(1)).await?;
            outer.cancel("");
            sleep(secs(1)).await?;
            assert_eq!(woken.get(), 0);
            nursery.cancel_scope().set_shield(false);
            assert_eq!(failure(checkpoint().await), "cancelled");
            Ok(())
        }))
        .await?;
    assert_eq!(woken.get(), 2);
    Ok(())
}

/// One line that cancels, for any caller.
fn cancel_with(scope: &CancelScope, reason: &'static str) -> Cancelled {
    scope.cancel(reason);
    scope.cancellation().expect("it has just been cancelled")
}

#[trio::test]
async fn l6_what_is_cancelled_from_one_line_tells_each_task_and_reason() -> Result<()> {
    let told = RefCell::new(Vec::new());
    let tell = |cancelled: Cancelled| {
        let task = cancelled.source_task().unwrap_or_default().to_owned();
        let reason = cancelled.reason().unwrap_or_default().to_owned();
        told.borrow_mut().push((task, reason));
    };
    open_nursery(async |nursery| {
        for (name, reason) in [("first", "one"), ("second", "one"), ("second", "two")] {
            nursery.start_soon_named(name, async {
                tell(cancel_with(&CancelScope::new(), reason));
                tell(cancel_with(&CancelScope::new(), reason));
                Ok(())
            });
        }
        Ok(())
    })
    .await?;
    // The main task has no name of its own except that of its type, and differs from the others.
    tell(cancel_with(&CancelScope::new(), "one"));
    tell(cancel_with(&CancelScope::new(), "two"));
    tell(cancel_with(&CancelScope::new(), ""));
    let mut told = told.into_inner();
    let by_main = told.split_off(6);
    let by_others = [("first", "one"), ("second", "one"), ("second", "two")];
    for ((task, reason), expected) in told.iter().zip(by_others.iter().flat_map(|it| [it, it])) {
        assert_eq!((task.as_str(), reason.as_str()), *expected);
    }
    let reasons: Vec<_> = by_main.iter().map(|(_, reason)| reason.as_str()).collect();
    assert_eq!(reasons, ["one", "two", ""]);
    assert!(by_main.iter().all(|(task, _)| task == &by_main[0].0));
    assert!(!["first", "second"].contains(&by_main[0].0.as_str()));
    Ok(())
}

/// Cancels as a task of a type of its own, which is its name.
async fn of_one_type(told: &RefCell<Vec<Cancelled>>) -> Result<()> {
    told.borrow_mut()
        .push(cancel_with(&CancelScope::new(), "one"));
    Ok(())
}

/// The same as a task of another type.
async fn of_another_type(told: &RefCell<Vec<Cancelled>>) -> Result<()> {
    of_one_type(told).await
}

#[trio::test]
async fn l6_names_of_types_and_names_that_were_made_while_running_are_told_apart() -> Result<()> {
    let told = RefCell::new(Vec::new());
    // One after the other, so that the next has its name, of the same length, at the address of the
    // last.
    for name in ["task 1", "task 2"] {
        open_nursery(async |nursery| {
            nursery.start_soon_named(name.to_owned(), of_one_type(&told));
            Ok(())
        })
        .await?;
    }
    open_nursery(async |nursery| {
        nursery.start_soon(of_one_type(&told));
        nursery.start_soon(of_another_type(&told));
        nursery.start_soon(of_one_type(&told));
        Ok(())
    })
    .await?;
    let told = told.into_inner();
    let tasks: Vec<_> = told.iter().map(|it| it.source_task().unwrap()).collect();
    assert_eq!(tasks[..2], ["task 1", "task 2"]);
    let endings = ["of_one_type", "of_another_type", "of_one_type"];
    for (task, ending) in tasks[2..].iter().zip(endings) {
        assert!(task.ends_with(ending), "{task} is called {ending}");
    }
    Ok(())
}
