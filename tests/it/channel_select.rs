//! One of several operations (of channels, events and sleeps) and no other (SE).

use std::time::Duration;

use trio::channel::{ReceiveError, Selected, SendError};
use trio::testing::wait_all_tasks_blocked;
use trio::{
    Builder, CancelScope, Error, Event, Result, current_time, fail_after, move_on_after,
    open_broadcast_channel, open_memory_channel, open_nursery, open_thread_channel,
    open_watch_channel, select, sleep, sleep_until,
};

use crate::support::secs;

async fn settle() -> Result<()> {
    wait_all_tasks_blocked(Duration::ZERO).await
}

#[trio::test]
async fn se1_of_several_that_can_be_done_exactly_one_is() -> Result<()> {
    let (a, from_a) = open_memory_channel(1);
    let (b, from_b) = open_memory_channel(1);
    a.try_send(1)?;
    b.try_send(2)?;
    let first = match select((from_a.receive(), from_b.receive())).await? {
        Selected::First(n) | Selected::Second(n) => n?,
    };
    let rest = [from_a.try_receive(), from_b.try_receive()];
    let rest: Vec<i32> = rest.into_iter().filter_map(|one| one.ok()).collect();
    assert_eq!(rest, [3 - first], "the other is where it was");
    Ok(())
}

#[trio::test]
async fn se1_of_several_that_come_in_one_turn_exactly_one_is_taken() -> Result<()> {
    let (a, from_a) = open_memory_channel(1);
    let (b, from_b) = open_memory_channel(1);
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            let (case, value) = select([from_a.receive(), from_b.receive()]).await?;
            assert_eq!((case, value?), (1, "b"), "whichever came first");
            Ok(())
        });
        settle().await?;
        assert_eq!(a.statistics().tasks_waiting_receive, 1);
        assert_eq!(b.statistics().tasks_waiting_receive, 1);
        b.try_send("b")?;
        assert_eq!(
            a.statistics().tasks_waiting_receive,
            0,
            "it has been claimed"
        );
        a.try_send("a")?;
        assert_eq!(
            a.statistics().current_buffer_used,
            1,
            "so this is not for it"
        );
        Ok(())
    })
    .await?;
    assert_eq!(from_a.try_receive(), Ok("a"));
    Ok(())
}

#[trio::test]
async fn se1_sends_and_receives_mix() -> Result<()> {
    let (out, taken) = open_memory_channel(0);
    let (send, inbox) = open_memory_channel(0);
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            let chosen = select((out.send("out"), inbox.receive())).await?;
            assert!(matches!(chosen, Selected::First(Ok(()))));
            let chosen = select((out.send("again"), inbox.receive())).await?;
            assert!(matches!(chosen, Selected::Second(Ok("in"))));
            Ok(())
        });
        settle().await?;
        assert_eq!(taken.try_receive(), Ok("out"));
        settle().await?;
        send.try_send("in")?;
        assert!(
            taken.try_receive().is_err(),
            "the send that lost is no more"
        );
        Ok(())
    })
    .await
}

#[trio::test]
async fn se1_a_channel_does_not_meet_itself() -> Result<()> {
    let (send, receive) = open_memory_channel(0);
    let scope = CancelScope::new();
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            let both = async { select((send.send(1), receive.receive())).await };
            assert!(scope.enter(both).await?.is_none());
            Ok(())
        });
        settle().await?;
        scope.cancel("");
        Ok(())
    })
    .await?;
    let (send, receive) = open_thread_channel(0);
    let scope = CancelScope::new();
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            let both = async { select((send.send(1), receive.receive())).await };
            assert!(scope.enter(both).await?.is_none());
            Ok(())
        });
        settle().await?;
        scope.cancel("");
        Ok(())
    })
    .await
}

#[trio::test]
async fn se2_a_loser_has_not_happened_and_can_go_on() -> Result<()> {
    let (out, taken) = open_memory_channel(0);
    let (stop, stopped) = open_memory_channel(1);
    stop.try_send(())?;
    let mut sending = out.send("precious".to_owned());
    let chosen = select((&mut sending, stopped.receive())).await?;
    assert!(matches!(chosen, Selected::Second(Ok(()))));
    assert_eq!(out.statistics().tasks_waiting_send, 0);
    // On its own, then in another choice, then on its own to the end.
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            let timed_out = move_on_after(secs(0), async { select([&mut sending]).await }).await?;
            assert!(timed_out.is_none());
            Ok(sending.await?)
        });
        assert_eq!(taken.receive().await?, "precious");
        Ok(())
    })
    .await
}

#[trio::test]
async fn se2_a_send_that_won_while_its_choice_was_dropped_has_happened() -> Result<()> {
    let (out, taken) = open_memory_channel(0);
    let mut sending = out.send(7);
    {
        let mut choice = Box::pin(select([&mut sending]));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(choice.as_mut().poll(&mut context).is_pending());
        assert_eq!(taken.try_receive(), Ok(7));
    }
    sending.await?;
    let (send, receive) = open_memory_channel(0);
    {
        let mut receiving = receive.receive();
        let mut choice = Box::pin(select([&mut receiving]));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(choice.as_mut().poll(&mut context).is_pending());
        send.try_send(8)?;
        drop(choice);
        assert_eq!(receiving.await?, 8, "what it was handed went back");
    }
    Ok(())
}

#[test]
fn se3_the_choice_favours_nobody() {
    let counts = |biased: bool| {
        Builder::new().seed(3).run(async {
            let a = open_memory_channel(1_000);
            let b = open_memory_channel(1_000);
            for _ in 0..1_000 {
                a.0.try_send(())?;
                b.0.try_send(())?;
            }
            let mut counts = [0_u32; 2];
            for _ in 0..1_000 {
                let choice = select([a.1.receive(), b.1.receive()]);
                let choice = if biased { choice.biased() } else { choice };
                counts[choice.await?.0] += 1;
            }
            Ok::<_, Error>(counts)
        })
    };
    let fair = counts(false).unwrap();
    assert!(
        fair.iter().all(|count| (400..600).contains(count)),
        "{fair:?}"
    );
    assert_eq!(counts(false).unwrap(), fair, "the same for the same seed");
    assert_eq!(counts(true).unwrap(), [1_000, 0]);
}

#[trio::test]
async fn se4_a_cancelled_choice_has_done_nothing() -> Result<()> {
    let (a, from_a) = open_memory_channel(1);
    a.try_send(1)?;
    let cancelled = move_on_after(secs(0), async { select([from_a.receive()]).await }).await?;
    assert!(cancelled.is_none());
    assert_eq!(from_a.try_receive(), Ok(1));
    // And a send that waits.
    let (out, taken) = open_memory_channel(0);
    let scope = CancelScope::new();
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            let choice = async { select((from_a.receive(), out.send(2))).await };
            assert!(scope.enter(choice).await?.is_none());
            Ok(())
        });
        settle().await?;
        scope.cancel("");
        a.try_send(3)?;
        assert!(taken.try_receive().is_err());
        Ok(())
    })
    .await?;
    assert_eq!(from_a.try_receive(), Ok(3));
    Ok(())
}

#[trio::test]
async fn se4_closing_is_something_that_a_choice_sees() -> Result<()> {
    let (a, from_a) = open_memory_channel::<()>(0);
    let (b, from_b) = open_memory_channel::<()>(0);
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            let chosen = select((from_a.receive(), from_b.receive())).await?;
            assert!(matches!(
                chosen,
                Selected::Second(Err(ReceiveError::EndOfChannel))
            ));
            let chosen = select((from_a.receive(), a.send(()))).await?;
            assert!(matches!(chosen, Selected::First(Err(ReceiveError::Closed))));
            Ok(())
        });
        settle().await?;
        drop(b);
        settle().await?;
        from_a.close();
        Ok(())
    })
    .await?;
    let refused = select([a.send(())]).await?;
    assert!(matches!(refused, (0, Err(SendError::Broken(())))));
    Ok(())
}

#[trio::test]
async fn se5_everything_that_waits_in_a_channel_can_be_chosen() -> Result<()> {
    let (memory, from_memory) = open_memory_channel(0);
    let (broadcast, mut from_broadcast) = open_broadcast_channel(1);
    let (level, mut gauge) = open_watch_channel(0);
    let (thread, from_thread) = open_thread_channel(0);
    let mut wanted = level.subscribe();
    let mut seen = Vec::new();
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            for _ in 0..5 {
                let choice = select((
                    from_memory.receive(),
                    from_broadcast.receive(),
                    gauge.changed(),
                    from_thread.receive(),
                    wanted.wait_for(|level| *level == 9),
                ));
                seen.push(match choice.await? {
                    Selected::First(n) => n?,
                    Selected::Second(n) => n?,
                    Selected::Third(n) => *n?,
                    Selected::Fourth(n) => n?,
                    Selected::Fifth(n) => *n? * 10,
                });
            }
            Ok(())
        });
        settle().await?;
        thread.try_send(4)?;
        settle().await?;
        broadcast.try_send(2)?;
        settle().await?;
        level.send(3);
        settle().await?;
        memory.try_send(1)?;
        settle().await?;
        level.send(9);
        settle().await?;
        Ok(())
    })
    .await?;
    assert!(
        seen == [4, 2, 3, 1, 90] || seen == [4, 2, 3, 1, 9],
        "{seen:?}"
    );
    Ok(())
}

#[trio::test]
async fn se5_lists_may_be_of_any_length() -> Result<()> {
    let channels: Vec<_> = (0..50).map(|_| open_memory_channel(1)).collect();
    for wanted in [49, 0, 25] {
        let choice = || {
            select(
                channels
                    .iter()
                    .map(|(_, from)| from.receive())
                    .collect::<Vec<_>>(),
            )
        };
        open_nursery(async |nursery| {
            nursery.start_soon(async {
                let (case, value) = choice().await?;
                assert_eq!((case, value?), (wanted, wanted));
                Ok(())
            });
            settle().await?;
            channels[wanted].0.try_send(wanted)?;
            Ok(())
        })
        .await?;
    }
    // Of no operations, none can be done.
    let none: Vec<trio::channel::Receiving<'_, ()>> = Vec::new();
    assert!(
        move_on_after(secs(0), async { select(none).await })
            .await?
            .is_none()
    );
    Ok(())
}

#[trio::test]
async fn se6_an_event_is_chosen_and_takes_nothing() -> Result<()> {
    let (send, receive) = open_memory_channel::<u8>(1);
    let stop = Event::new();
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            let chosen = select((receive.receive(), stop.wait())).await?;
            assert!(matches!(chosen, Selected::Second(Ok(()))), "{chosen:?}");
            Ok(())
        });
        settle().await?;
        assert_eq!(stop.statistics().tasks_waiting, 1);
        stop.set();
        settle().await?;
        assert_eq!(send.statistics().tasks_waiting_receive, 0, "it has chosen");
        Ok(())
    })
    .await?;
    let chosen = select((receive.receive(), stop.wait())).await?;
    assert!(matches!(chosen, Selected::Second(Ok(()))), "it stays set");
    Ok(())
}

#[trio::test]
async fn se6_an_event_gives_way_to_what_comes_in_the_same_turn() -> Result<()> {
    let (send, receive) = open_memory_channel(0);
    let stop = Event::new();
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            let chosen = select((stop.wait(), receive.receive())).biased().await?;
            assert!(
                matches!(chosen, Selected::Second(Ok("a job"))),
                "{chosen:?}"
            );
            let chosen = select((stop.wait(), receive.receive())).await?;
            assert!(
                matches!(chosen, Selected::First(Ok(()))),
                "it has not got lost"
            );
            Ok(())
        });
        settle().await?;
        stop.set();
        send.try_send("a job")?;
        Ok(())
    })
    .await
}

#[trio::test]
async fn se6_an_event_that_comes_too_late_is_not_chosen() -> Result<()> {
    let (send, receive) = open_memory_channel(0);
    let stop = Event::new();
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            let chosen = select((stop.wait(), receive.receive())).biased().await?;
            assert!(
                matches!(chosen, Selected::Second(Ok("a job"))),
                "{chosen:?}"
            );
            assert_eq!(stop.statistics().tasks_waiting, 0, "it has left the line");
            Ok(())
        });
        settle().await?;
        send.try_send("a job")?;
        stop.set();
        Ok(())
    })
    .await
}

#[trio::test]
async fn se6_an_event_and_another_thread_are_not_both_chosen() -> Result<()> {
    let (send, receive) = open_thread_channel(1);
    let stop = Event::new();
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            match select((stop.wait(), receive.receive())).await? {
                Selected::First(stopped) => {
                    stopped?;
                    assert_eq!(receive.try_receive(), Ok(7), "nobody has taken it");
                }
                // The thread found the task still waiting.
                Selected::Second(value) => {
                    assert_eq!(value?, 7);
                    assert!(receive.try_receive().is_err(), "it came once");
                }
            }
            Ok(())
        });
        settle().await?;
        stop.set();
        let sent = crate::support::foreign_thread(move || send.try_send(7));
        assert!(sent.join().unwrap().is_ok());
        Ok(())
    })
    .await
}

#[trio::test]
async fn se6_a_wait_for_an_event_that_lost_can_go_on_by_itself() -> Result<()> {
    let (send, receive) = open_memory_channel(1);
    let stop = Event::new();
    let mut stopped = stop.wait();
    send.try_send(1)?;
    let chosen = select((&mut stopped, receive.receive())).await?;
    assert!(matches!(chosen, Selected::Second(Ok(1))));
    open_nursery(async |nursery| {
        nursery.start_soon(stopped);
        settle().await?;
        assert_eq!(stop.statistics().tasks_waiting, 1);
        stop.set();
        Ok(())
    })
    .await
}

#[trio::test]
async fn se6_a_choice_that_is_cancelled_leaves_event_and_sleep() -> Result<()> {
    let (_send, receive) = open_memory_channel::<u8>(0);
    let stop = Event::new();
    let waiting = async { select((stop.wait(), receive.receive(), sleep(secs(100)))).await };
    let scope = CancelScope::new();
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            assert!(scope.enter(waiting).await?.is_none());
            Ok(())
        });
        settle().await?;
        scope.cancel("");
        assert_eq!(stop.statistics().tasks_waiting, 0);
        Ok(())
    })
    .await?;
    let statistics = trio::lowlevel::current_statistics();
    assert_eq!(statistics.time_to_next_deadline, None, "nobody sleeps");
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn se7_a_sleep_is_chosen_when_nothing_else_has_come() -> Result<()> {
    let (send, receive) = open_memory_channel(0);
    let start = current_time();
    let chosen = select((receive.receive(), sleep(secs(5)))).await?;
    assert!(matches!(chosen, Selected::Second(Ok(()))), "{chosen:?}");
    assert_eq!(current_time() - start, secs(5));
    let chosen = select((receive.receive(), sleep_until(start))).await?;
    assert!(matches!(chosen, Selected::Second(Ok(()))), "it is over");
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            sleep(secs(2)).await?;
            Ok(send.send(1).await?)
        });
        let chosen = select((receive.receive(), sleep(secs(5)), sleep(secs(3)))).await?;
        assert!(matches!(chosen, Selected::First(Ok(1))), "{chosen:?}");
        let chosen = select((receive.receive(), sleep(secs(5)), sleep(secs(3)))).await?;
        assert!(matches!(chosen, Selected::Third(Ok(()))), "{chosen:?}");
        Ok(())
    })
    .await?;
    assert_eq!(current_time() - start, secs(10));
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn se7_a_sleep_goes_on_from_one_choice_to_the_next() -> Result<()> {
    let (send, receive) = open_memory_channel(0);
    let start = current_time();
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            for n in 0..10 {
                sleep(secs(3)).await?;
                if send.send(n).await.is_err() {
                    break;
                }
            }
            Ok(())
        });
        let mut patience = sleep(secs(10));
        let mut received = Vec::new();
        loop {
            match select((receive.receive(), &mut patience)).await? {
                Selected::First(n) => received.push(n?),
                Selected::Second(over) => break over?,
            }
        }
        assert_eq!(
            (received, current_time() - start),
            (vec![0, 1, 2], secs(10))
        );
        let chosen = select((receive.receive(), &mut patience)).await?;
        assert!(matches!(chosen, Selected::Second(Ok(()))), "it stays over");
        receive.close();
        Ok(())
    })
    .await
}

#[trio::test(clock = "autojump")]
async fn se7_a_sleep_gives_way_to_what_comes_in_the_same_turn() -> Result<()> {
    let (send, receive) = open_memory_channel(0);
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            sleep(secs(5)).await?;
            Ok(send.try_send("in time")?)
        });
        nursery.start_soon(async {
            let chosen = select((sleep(secs(5)), receive.receive())).biased().await?;
            assert!(
                matches!(chosen, Selected::Second(Ok("in time"))),
                "{chosen:?}"
            );
            Ok(())
        });
        Ok(())
    })
    .await
}

#[trio::test(clock = "autojump")]
async fn se7_a_sleep_may_be_among_things_of_other_threads() -> Result<()> {
    let (send, receive) = open_thread_channel(0);
    let chosen = select((receive.receive(), sleep(secs(1)))).await?;
    assert!(matches!(chosen, Selected::Second(Ok(()))), "{chosen:?}");
    open_nursery(async |nursery| {
        nursery.start_soon(async { Ok(send.send(1).await?) });
        let mut pause = sleep(secs(1));
        let chosen = select((receive.receive(), &mut pause)).await?;
        assert!(matches!(chosen, Selected::First(Ok(1))), "{chosen:?}");
        pause.await
    })
    .await
}

#[trio::test]
async fn se7_a_sleep_counts_on_the_clock_of_the_system_too() -> Result<()> {
    let (_send, receive) = open_memory_channel::<()>(0);
    let before = current_time();
    let chosen = select((receive.receive(), sleep(Duration::from_millis(5)))).await?;
    assert!(matches!(chosen, Selected::Second(Ok(()))), "{chosen:?}");
    assert!(current_time() - before >= Duration::from_millis(5));
    Ok(())
}

#[test]
fn m8_what_waited_in_a_run_that_has_ended_begins_anew_in_another() {
    let (send, receive) = open_memory_channel(0);
    let done = Event::new();
    let mut receiving = receive.receive();
    let mut done_waiting = done.wait();
    trio::run(async {
        crate::support::begin(&mut receiving).await;
        crate::support::begin(&mut done_waiting).await;
    });
    let clock = trio::testing::MockClock::autojump();
    let result = Builder::new().clock(clock).run(fail_after(secs(1), async {
        open_nursery(async |nursery| {
            nursery.start_soon(async {
                settle().await?;
                send.send(7).await?;
                done.set();
                Ok(())
            });
            assert_eq!(receiving.await?, 7);
            done_waiting.await
        })
        .await
    }));
    assert!(result.is_ok(), "{result:?}");
}
