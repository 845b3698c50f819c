//! Every value to every receiver (BR), and the latest value to whoever looks (WV).

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use trio::channel::{
    BroadcastError, Lagged, ReceiveError, SendError, TryBroadcastError, TrySendError,
};
use trio::testing::wait_all_tasks_blocked;
use trio::{
    CancelScope, Error, Result, checkpoint, move_on_after, open_broadcast_channel,
    open_lagging_broadcast_channel, open_nursery, open_watch_channel,
};

use crate::support::secs;

async fn settle() -> Result<()> {
    wait_all_tasks_blocked(Duration::ZERO).await
}

#[trio::test]
async fn br1_every_receiver_gets_every_value_in_order() -> Result<()> {
    let (send, receive) = open_broadcast_channel(3);
    let done = Cell::new(0);
    let done_ref = &done;
    open_nursery(async |nursery| {
        for (lazy, mut receive) in vec![receive; 4].into_iter().enumerate() {
            nursery.start_soon(async move {
                let mut next = 0;
                while let Some(n) = receive.next().await? {
                    assert_eq!(n, next);
                    next += 1;
                    for _ in 0..lazy {
                        checkpoint().await?;
                    }
                }
                assert_eq!(next, 100);
                done_ref.set(done_ref.get() + 1);
                Ok(())
            });
        }
        for n in 0..100 {
            assert_eq!(send.send(n).await?, 4);
        }
        drop(send);
        Ok(())
    })
    .await?;
    assert_eq!(done.get(), 4);
    Ok(())
}

#[trio::test]
async fn br1_the_slowest_receiver_sets_the_pace() -> Result<()> {
    let (send, mut fast) = open_broadcast_channel(2);
    let mut slow = fast.clone();
    send.try_send(1)?;
    send.try_send(2)?;
    assert_eq!((fast.receive().await?, fast.receive().await?), (1, 2));
    assert!(matches!(send.try_send(3), Err(TrySendError::WouldBlock(3))));
    let log = RefCell::new(Vec::new());
    let (send_ref, log_ref) = (&send, &log);
    open_nursery(async |nursery| {
        for n in [3, 4] {
            nursery.start_soon(async move {
                assert_eq!(send_ref.send(n).await?, 2);
                log_ref.borrow_mut().push(n);
                Ok(())
            });
            settle().await?;
        }
        assert_eq!(send.statistics().tasks_waiting_send, 2);
        assert_eq!(slow.receive().await?, 1);
        settle().await?;
        assert_eq!(*log.borrow(), [3], "one place, one sender, the first");
        assert_eq!(slow.try_receive(), Ok(2));
        assert_eq!(send.statistics().tasks_waiting_send, 0);
        settle().await?;
        assert_eq!(*log.borrow(), [3, 4]);
        Ok(())
    })
    .await?;
    assert_eq!((slow.len(), fast.len()), (2, 2));
    assert_eq!((fast.receive().await?, fast.receive().await?), (3, 4));
    assert_eq!(fast.try_receive(), Err(TryBroadcastError::WouldBlock));
    Ok(())
}

#[trio::test]
async fn br2_a_receiver_that_lags_is_told_how_much_it_has_missed() -> Result<()> {
    let (send, mut receive) = open_lagging_broadcast_channel(3);
    let mut quick = receive.clone();
    for n in 1..=3 {
        assert_eq!(send.send(n).await?, 2);
        assert_eq!(quick.receive().await?, n);
    }
    assert_eq!(receive.try_receive(), Ok(1));
    for n in 4..=8 {
        send.try_send(n)?;
    }
    let Err(lagged) = receive.receive().await else {
        panic!("2 to 5 are gone");
    };
    assert!(matches!(lagged, BroadcastError::Lagged(4)));
    assert_eq!(Error::from(lagged).downcast::<Lagged>()?, Lagged(4));
    assert_eq!(receive.len(), 3);
    for n in 6..=8 {
        assert_eq!(receive.receive().await?, n, "told once");
    }
    assert_eq!(quick.try_receive(), Err(TryBroadcastError::Lagged(2)));
    assert_eq!(quick.try_receive(), Ok(6));
    Ok(())
}

#[trio::test]
async fn br3_a_receiver_begins_where_it_comes_in() -> Result<()> {
    let (send, mut first) = open_broadcast_channel(4);
    send.try_send(1)?;
    let mut late = send.subscribe();
    let mut same = first.clone();
    send.try_send(2)?;
    assert_eq!((first.len(), same.len(), late.len()), (2, 2, 1));
    assert_eq!(late.receive().await?, 2);
    assert_eq!(same.receive().await?, 1);
    assert_eq!(first.receive().await?, 1);
    assert_eq!(send.statistics().current_buffer_used, 1);
    Ok(())
}

#[trio::test]
async fn br3_without_receivers_values_go_nowhere() -> Result<()> {
    let value = Rc::new(());
    let (send, receive) = open_broadcast_channel(1);
    drop(receive);
    assert_eq!(send.send(value.clone()).await?, 0);
    assert_eq!(send.try_send(value.clone())?, 0);
    assert_eq!(Rc::strong_count(&value), 1);
    let mut receive = send.subscribe();
    assert_eq!(send.send(value.clone()).await?, 1);
    drop(receive.receive().await?);
    assert_eq!(Rc::strong_count(&value), 1, "the last reader takes it out");
    Ok(())
}

#[trio::test]
async fn br4_receivers_get_what_is_left_and_then_the_end() -> Result<()> {
    let (send, mut receive) = open_broadcast_channel(4);
    let mut waiting = send.subscribe();
    let other = send.clone();
    send.try_send(1)?;
    drop(send);
    assert_eq!(waiting.receive().await?, 1);
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            assert_eq!(waiting.next().await?, None);
            Ok(())
        });
        settle().await?;
        other.aclose().await?;
        assert!(matches!(other.send(2).await, Err(SendError::Closed(2))));
        assert!(matches!(other.try_send(2), Err(TrySendError::Closed(2))));
        Ok(())
    })
    .await?;
    assert_eq!(receive.receive().await?, 1);
    assert_eq!(receive.try_receive(), Err(TryBroadcastError::EndOfChannel));
    receive.close();
    receive.close();
    assert_eq!(receive.try_receive(), Err(TryBroadcastError::Closed));
    assert!(matches!(
        receive.clone().receive().await,
        Err(BroadcastError::Closed)
    ));
    Ok(())
}

#[trio::test]
async fn br4_a_receiver_that_goes_makes_room() -> Result<()> {
    let value = Rc::new(());
    let (send, lazy) = open_broadcast_channel(1);
    let mut receive = send.subscribe();
    send.try_send(value.clone())?;
    drop(receive.receive().await?);
    let send_ref = &send;
    open_nursery(async |nursery| {
        for _ in 0..2 {
            let value = value.clone();
            nursery.start_soon(async move {
                send_ref.send(value).await?;
                Ok(())
            });
        }
        settle().await?;
        assert_eq!(send.statistics().tasks_waiting_send, 2);
        drop(lazy);
        settle().await?;
        assert_eq!(send.statistics().tasks_waiting_send, 1);
        drop(receive);
        Ok(())
    })
    .await?;
    assert_eq!(
        Rc::strong_count(&value),
        1,
        "nobody is left to read the rest"
    );
    assert_eq!(send.statistics().current_buffer_used, 0);
    Ok(())
}

#[trio::test]
async fn br5_cancelled_means_neither_sent_nor_received() -> Result<()> {
    let (send, mut receive) = open_broadcast_channel(1);
    send.try_send("first")?;
    let scope = CancelScope::new();
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            let refused = scope.enter(async { Ok(send.send("second").await) }).await?;
            assert!(matches!(
                refused,
                Some(Err(SendError::Cancelled("second", _)))
            ));
            Ok(())
        });
        settle().await?;
        scope.cancel("");
        Ok(())
    })
    .await?;
    let refused = move_on_after(secs(0), async { Ok(receive.receive().await) }).await?;
    assert!(matches!(refused, Some(Err(BroadcastError::Cancelled(_)))));
    assert_eq!(receive.receive().await?, "first");
    assert_eq!(receive.try_receive(), Err(TryBroadcastError::WouldBlock));
    Ok(())
}

#[test]
#[should_panic(expected = "its capacity must not be zero")]
fn br5_a_broadcast_without_room_is_refused() {
    drop(open_broadcast_channel::<()>(0));
}

#[trio::test]
async fn wv1_a_receiver_sees_the_latest_and_waits_for_the_next() -> Result<()> {
    let (send, mut receive) = open_watch_channel(0);
    assert_eq!(*receive.get(), 0);
    assert!(!receive.has_changed());
    send.send(1);
    send.send(2);
    assert!(receive.has_changed());
    assert_eq!(*receive.get(), 2);
    assert!(receive.has_changed(), "a look does not count");
    assert_eq!(*receive.changed().await?, 2);
    assert!(!receive.has_changed());
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            assert_eq!(*receive.changed().await?, 4, "the latest");
            Ok(())
        });
        settle().await?;
        assert_eq!(send.statistics().tasks_waiting, 1);
        send.send(3);
        send.modify(|n| *n += 1);
        Ok(())
    })
    .await?;
    assert_eq!(*receive.get_seen(), 4);
    assert_eq!(send.statistics().changes, 4);
    Ok(())
}

#[trio::test]
async fn wv1_every_receiver_sees_a_change() -> Result<()> {
    let (send, receive) = open_watch_channel("old");
    let seen = Cell::new(0);
    let seen_ref = &seen;
    open_nursery(async |nursery| {
        for mut receive in vec![receive; 5] {
            nursery.start_soon(async move {
                assert_eq!(*receive.changed().await?, "new");
                seen_ref.set(seen_ref.get() + 1);
                Ok(())
            });
        }
        settle().await?;
        send.send("new");
        assert!(
            !send.subscribe().has_changed(),
            "who comes later has seen it"
        );
        Ok(())
    })
    .await?;
    assert_eq!(seen.get(), 5);
    Ok(())
}

#[trio::test]
async fn wv2_waiting_for_a_value_looks_at_what_is_there_first() -> Result<()> {
    let (send, mut receive) = open_watch_channel(5);
    assert_eq!(*receive.wait_for(|n| *n == 5).await?, 5);
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            assert_eq!(*receive.wait_for(|n| *n > 7).await?, 8);
            assert!(!receive.has_changed());
            Ok(())
        });
        for n in 6..=8 {
            settle().await?;
            send.send(n);
        }
        Ok(())
    })
    .await
}

#[trio::test]
async fn wv2_a_value_that_is_set_while_it_is_looked_at_is_not_missed() -> Result<()> {
    let (send, mut receive) = open_watch_channel(0);
    let seen = receive
        .wait_for(|n| {
            if *n < 3 {
                send.send(*n + 1);
            }
            *n == 3
        })
        .await?;
    assert_eq!(*seen, 3);
    Ok(())
}

#[trio::test]
async fn wv3_after_the_last_sender_the_last_value_is_seen_and_then_the_end() -> Result<()> {
    let (send, mut receive) = open_watch_channel(0);
    let other = send.clone();
    send.send(1);
    send.close();
    send.close();
    send.send(2);
    assert_eq!(*receive.get(), 1, "a closed sender sets nothing");
    open_nursery(async |nursery| {
        let mut patient = receive.clone();
        nursery.start_soon(async move {
            let never = patient.wait_for(|n| *n == 7).await;
            assert!(matches!(never, Err(ReceiveError::EndOfChannel)));
            Ok(())
        });
        settle().await?;
        let now = receive.statistics();
        assert_eq!((now.open_senders, now.open_receivers), (1, 2));
        assert_eq!((now.tasks_waiting, now.changes), (1, 1));
        drop(other);
        Ok(())
    })
    .await?;
    assert_eq!(receive.statistics().open_senders, 0);
    assert_eq!(*receive.changed().await?, 1);
    assert!(matches!(
        receive.changed().await,
        Err(ReceiveError::EndOfChannel)
    ));
    assert_eq!(*receive.get(), 1, "the value stays");
    Ok(())
}

#[trio::test]
async fn wv4_who_keeps_a_value_is_in_nobodys_way() -> Result<()> {
    let (send, receive) = open_watch_channel(vec![1]);
    let kept = receive.get();
    send.modify(|list| list.push(2));
    send.send(vec![3]);
    assert_eq!((*kept).as_slice(), [1]);
    assert_eq!(*receive.get(), [3]);
    Ok(())
}

#[trio::test]
async fn wv4_a_cancelled_wait_has_seen_nothing() -> Result<()> {
    let (send, mut receive) = open_watch_channel(0);
    send.send(1);
    let refused = move_on_after(secs(0), async { Ok(receive.changed().await) }).await?;
    assert!(matches!(refused, Some(Err(ReceiveError::Cancelled(_)))));
    assert!(receive.has_changed());
    Ok(())
}
