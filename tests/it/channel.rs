//! The channel between tasks of a run (M).

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use trio::channel::{
    MemoryReceiveChannel, MemorySendChannel, ReceiveError, SendError, TryReceiveError,
    TrySendError, UNBOUNDED,
};
use trio::io::{ReceiveChannel, SendChannel};
use trio::lowlevel::cancel_shielded_checkpoint;
use trio::testing::wait_all_tasks_blocked;
use trio::{
    CancelScope, ClosedResource, EndOfChannel, Error, Result, WouldBlock, move_on_after,
    open_memory_channel, open_nursery,
};

use crate::support::{failure, secs};

/// A result in the words of `failure`.
#[track_caller]
fn refusal<T>(result: Result<T, impl Into<Error>>) -> String {
    failure(result.map_err(Into::into))
}

const CLOSED: &str = "this resource has been closed here";
const BROKEN: &str = "the resource was broken from the other side";

#[track_caller]
fn is_end<T>(result: Result<T, ReceiveError>) {
    assert!(matches!(result, Err(ReceiveError::EndOfChannel)));
}

/// Waits until all others wait.
async fn settle() -> Result<()> {
    wait_all_tasks_blocked(Duration::ZERO).await
}

#[trio::test]
async fn m1_a_cancelled_send_has_not_sent_and_gives_its_value_back() -> Result<()> {
    let (send, receive) = open_memory_channel(1);
    send.send("first").await?;
    let back = move_on_after(secs(0), async { Ok(send.send("second").await) }).await?;
    assert!(matches!(back, Some(Err(SendError::Cancelled("second", _)))));
    // The same for a receive that waited.
    let scope = CancelScope::new();
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            let error = scope.enter(async { Ok(send.send("third").await) }).await?;
            let error = error.expect("nothing left to catch").unwrap_err();
            assert!(matches!(&error, SendError::Cancelled("third", _)));
            assert_eq!(error.into_inner(), "third");
            Ok(())
        });
        settle().await?;
        scope.cancel("enough");
        settle().await
    })
    .await?;
    assert_eq!(receive.receive().await?, "first");
    assert_eq!(receive.try_receive(), Err(TryReceiveError::WouldBlock));
    Ok(())
}

#[trio::test]
async fn m1_a_cancelled_receive_has_taken_nothing() -> Result<()> {
    let (send, receive) = open_memory_channel(1);
    send.send(1).await?;
    let cancelled = move_on_after(secs(0), async { Ok(receive.receive().await) }).await?;
    assert!(matches!(cancelled, Some(Err(ReceiveError::Cancelled(_)))));
    assert_eq!(receive.receive().await?, 1);
    Ok(())
}

#[trio::test(clock = "autojump")]
async fn m1_a_receive_that_timed_out_leaves_no_ghost() -> Result<()> {
    let (send, receive) = open_memory_channel(1);
    assert!(
        move_on_after(secs(10), receive.receive_or_fail())
            .await?
            .is_none()
    );
    assert_eq!(receive.statistics().tasks_waiting_receive, 0);
    send.try_send("for the buffer")?;
    assert_eq!(send.statistics().current_buffer_used, 1);
    assert_eq!(receive.receive().await?, "for the buffer");
    Ok(())
}

trait OrFail<T> {
    fn receive_or_fail(&self) -> impl Future<Output = Result<T>>;
}

impl<T> OrFail<T> for MemoryReceiveChannel<T> {
    async fn receive_or_fail(&self) -> Result<T> {
        Ok(self.receive().await?)
    }
}

/// What happens to a value and a cancel that come in the same turn, in either order.
#[trio::test]
async fn m1_whichever_comes_first_decides_and_nothing_is_lost() -> Result<()> {
    for cancel_first in [false, true] {
        let (send, receive) = open_memory_channel(1);
        let scope = CancelScope::new();
        open_nursery(async |nursery| {
            nursery.start_soon(async {
                let received = scope.enter(receive.receive_or_fail()).await?;
                assert_eq!(received, (!cancel_first).then_some(7));
                assert_eq!(receive.try_receive().is_ok(), cancel_first);
                Ok(())
            });
            settle().await?;
            if cancel_first {
                scope.cancel("");
                send.try_send(7)?;
                assert_eq!(send.statistics().current_buffer_used, 1);
            } else {
                send.try_send(7)?;
                scope.cancel("");
                assert_eq!(send.statistics().current_buffer_used, 0);
            }
            Ok(())
        })
        .await?;
    }
    Ok(())
}

#[trio::test]
async fn m1_a_send_that_was_taken_before_the_cancel_has_succeeded() -> Result<()> {
    let (send, receive) = open_memory_channel(0);
    let scope = CancelScope::new();
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            let sent = scope.enter(async { Ok(send.send(5).await) }).await?;
            assert!(matches!(sent, Some(Ok(()))));
            Ok(())
        });
        settle().await?;
        assert_eq!(receive.try_receive(), Ok(5));
        scope.cancel("");
        Ok(())
    })
    .await
}

/// Polls a future once, with a waker that does nothing.
fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[trio::test]
async fn m1_a_receive_that_is_dropped_gives_back_what_it_was_handed() -> Result<()> {
    let (send, receive) = open_memory_channel(2);
    {
        let mut first = pin!(receive.receive());
        assert!(poll_once(first.as_mut()).is_pending());
        send.try_send(1)?;
        send.try_send(2)?;
        assert_eq!(
            send.statistics().current_buffer_used,
            1,
            "1 was handed over"
        );
    }
    // In order, and to the front.
    assert_eq!(receive.receive().await?, 1);
    assert_eq!(receive.receive().await?, 2);
    // To another receive that waits, if there is one.
    let mut second = {
        let mut first = pin!(receive.receive());
        assert!(poll_once(first.as_mut()).is_pending());
        let mut second = Box::pin(receive.receive());
        assert!(poll_once(second.as_mut()).is_pending());
        send.try_send(3)?;
        assert!(poll_once(second.as_mut()).is_pending());
        second
    };
    assert!(matches!(poll_once(second.as_mut()), Poll::Ready(Ok(3))));
    Ok(())
}

#[trio::test]
async fn m1_what_was_handed_over_is_not_hidden_by_the_end_of_the_channel() -> Result<()> {
    let (send, receive) = open_memory_channel(0);
    let mut second = Box::pin(receive.receive());
    {
        let mut first = pin!(receive.receive());
        assert!(poll_once(first.as_mut()).is_pending());
        assert!(poll_once(second.as_mut()).is_pending());
        send.try_send(9)?;
        drop(send);
    }
    assert!(matches!(poll_once(second.as_mut()), Poll::Ready(Ok(9))));
    is_end(receive.receive().await);
    Ok(())
}

#[trio::test]
async fn m1_a_send_can_be_given_up_with_its_value() -> Result<()> {
    let (send, receive) = open_memory_channel(0);
    let mut sending = send.send("mine");
    assert!(poll_once(pin!(&mut sending)).is_pending());
    assert_eq!(send.statistics().tasks_waiting_send, 1);
    assert_eq!(sending.into_inner(), Some("mine"));
    assert_eq!(send.statistics().tasks_waiting_send, 0);
    let mut sending = send.send("yours");
    assert!(poll_once(pin!(&mut sending)).is_pending());
    assert_eq!(receive.try_receive(), Ok("yours"));
    assert_eq!(sending.into_inner(), None);
    Ok(())
}

#[trio::test]
async fn m2_the_order_of_the_checks() -> Result<()> {
    // Closed is reported before broken, and both before anything that could be done.
    let (send, receive) = open_memory_channel(1);
    receive.close();
    assert!(matches!(send.try_send(1), Err(TrySendError::Broken(1))));
    assert!(matches!(send.send(1).await, Err(SendError::Broken(1))));
    send.close();
    assert!(matches!(send.try_send(1), Err(TrySendError::Closed(1))));
    assert!(matches!(send.send(1).await, Err(SendError::Closed(1))));
    // A closed end does not receive what is there.
    let (send, receive) = open_memory_channel(1);
    let other = receive.clone();
    send.try_send(1)?;
    receive.close();
    assert_eq!(receive.try_receive(), Err(TryReceiveError::Closed));
    assert!(matches!(receive.receive().await, Err(ReceiveError::Closed)));
    // What is there comes before the end of the channel.
    drop(send);
    assert_eq!(other.try_receive(), Ok(1));
    assert_eq!(other.try_receive(), Err(TryReceiveError::EndOfChannel));
    is_end(other.receive().await);
    assert_eq!(other.next().await?, None);
    // A cancel takes precedence over everything.
    let cancelled = move_on_after(secs(0), async { Ok(other.receive().await) }).await?;
    assert!(matches!(cancelled, Some(Err(ReceiveError::Cancelled(_)))));
    Ok(())
}

#[trio::test]
async fn m2_the_errors_of_a_channel_become_those_of_the_library() -> Result<()> {
    let (send, receive) = open_memory_channel::<u8>(1);
    assert!(Error::from(receive.try_receive().unwrap_err()).is::<WouldBlock>());
    send.try_send(1)?;
    assert!(Error::from(send.try_send(2).unwrap_err()).is::<WouldBlock>());
    receive.close();
    assert_eq!(refusal(send.send(2).await), BROKEN);
    assert_eq!(refusal(send.try_send(2)), BROKEN);
    send.close();
    assert!(Error::from(send.send(2).await.unwrap_err()).is::<ClosedResource>());
    let (send, receive) = open_memory_channel::<u8>(1);
    drop(send);
    assert!(Error::from(receive.receive().await.unwrap_err()).is::<EndOfChannel>());
    // Even a value that is neither `Send` nor `'static`.
    let local = Rc::new(1);
    let (send, _receive) = open_memory_channel::<Rc<&Rc<i32>>>(0);
    assert!(Error::from(send.try_send(Rc::new(&local)).unwrap_err()).is::<WouldBlock>());
    Ok(())
}

#[trio::test]
async fn m3_closing_a_sending_end_concerns_its_own_sends() -> Result<()> {
    let (send, receive) = open_memory_channel(0);
    let clone = send.clone();
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            let refused = send.send("mine").await;
            assert!(matches!(refused, Err(SendError::Closed("mine"))));
            Ok(())
        });
        nursery.start_soon(async { Ok(clone.send("of the clone").await?) });
        settle().await?;
        send.close();
        settle().await?;
        assert_eq!(nursery.child_count(), 1);
        assert_eq!(receive.receive().await?, "of the clone");
        Ok(())
    })
    .await
}

#[trio::test]
async fn m3_after_the_last_sending_end_receivers_find_the_end() -> Result<()> {
    let (send, receive) = open_memory_channel(3);
    let clone = send.clone();
    send.try_send(1)?;
    clone.try_send(2)?;
    drop(send);
    assert_eq!(receive.next().await?, Some(1));
    assert_eq!(receive.next().await?, Some(2));
    open_nursery(async |nursery| {
        for _ in 0..2 {
            nursery.start_soon(async {
                is_end(receive.receive().await);
                Ok(())
            });
        }
        settle().await?;
        assert_eq!(receive.statistics().tasks_waiting_receive, 2);
        clone.close();
        Ok(())
    })
    .await?;
    is_end(receive.receive().await);
    Ok(())
}

#[trio::test]
async fn m4_closing_a_receiving_end_concerns_its_own_receives() -> Result<()> {
    let (send, receive) = open_memory_channel(0);
    let clone = receive.clone();
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            assert!(matches!(receive.receive().await, Err(ReceiveError::Closed)));
            Ok(())
        });
        nursery.start_soon(async {
            assert_eq!(clone.receive().await?, 8);
            Ok(())
        });
        settle().await?;
        receive.close();
        settle().await?;
        assert_eq!(nursery.child_count(), 1);
        send.try_send(8)?;
        Ok(())
    })
    .await
}

#[trio::test]
async fn m4_after_the_last_receiving_end_senders_are_refused_and_the_buffer_goes() -> Result<()> {
    let value = Rc::new(());
    let (send, receive) = open_memory_channel(1);
    send.try_send(value.clone())?;
    let clone = receive.clone();
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            let refused = send.send(value.clone()).await;
            assert!(matches!(refused, Err(SendError::Broken(_))));
            Ok(())
        });
        settle().await?;
        drop(receive);
        settle().await?;
        assert_eq!(nursery.child_count(), 1, "the clone is open");
        drop(clone);
        settle().await
    })
    .await?;
    assert_eq!(Rc::strong_count(&value), 1, "nothing is kept for nobody");
    assert_eq!(refusal(send.send(value).await), BROKEN);
    Ok(())
}

/// A value that closes the channel it is in, when it is dropped.
struct Meddler(Cell<Option<MemorySendChannel<Self>>>);

impl Drop for Meddler {
    fn drop(&mut self) {
        if let Some(send) = self.0.take() {
            assert!(send.try_send(Self(Cell::new(None))).is_err());
            send.close();
        }
    }
}

#[trio::test]
async fn m4_a_value_may_use_the_channel_that_drops_it() -> Result<()> {
    let (send, receive) = open_memory_channel(1);
    send.try_send(Meddler(Cell::new(Some(send.clone()))))?;
    drop(receive);
    assert_eq!(send.statistics().open_send_channels, 1);
    Ok(())
}

#[trio::test]
async fn m5_closing_again_does_nothing_and_is_a_checkpoint_where_it_waits() -> Result<()> {
    let (send, receive) = open_memory_channel::<u8>(1);
    let statistics = |senders, receivers| {
        let now = send.statistics();
        assert_eq!(now.open_send_channels, senders);
        assert_eq!(now.open_receive_channels, receivers);
    };
    statistics(1, 1);
    send.close();
    send.close();
    send.aclose().await?;
    statistics(0, 1);
    receive.aclose().await?;
    receive.close();
    statistics(0, 0);
    // It closes whether or not it is cancelled.
    let (send, receive) = open_memory_channel::<u8>(1);
    let closed = move_on_after(secs(0), async {
        assert_eq!(refusal(send.aclose().await), "cancelled");
        assert_eq!(refusal(send.aclose().await), "cancelled");
        Ok(())
    });
    assert_eq!(closed.await?, Some(()));
    assert!(send.is_closed());
    is_end(receive.receive().await);
    Ok(())
}

#[trio::test]
async fn m5_the_clone_of_a_closed_end_is_closed() -> Result<()> {
    let (send, receive) = open_memory_channel(1);
    send.close();
    let clone = send.clone();
    assert_eq!(refusal(clone.send(1).await), CLOSED);
    drop(clone);
    assert_eq!(receive.statistics().open_send_channels, 0);
    receive.close();
    assert_eq!(refusal(receive.clone().receive().await), CLOSED);
    assert_eq!(receive.statistics().open_receive_channels, 0);
    Ok(())
}

#[trio::test]
async fn m5_an_end_that_is_dropped_is_closed() -> Result<()> {
    let (send, receive) = open_memory_channel(0);
    let mut got = Vec::new();
    open_nursery(async |nursery| {
        for task in 0..10 {
            let send = send.clone();
            nursery.start_soon(async move {
                for n in 0..3 {
                    send.send(task * 10 + n).await?;
                }
                Ok(())
            });
        }
        drop(send);
        while let Some(n) = receive.next().await? {
            got.push(n);
        }
        Ok(())
    })
    .await?;
    got.sort_unstable();
    let all: Vec<i32> = (0..10)
        .flat_map(|task| (0..3).map(move |n| task * 10 + n))
        .collect();
    assert_eq!(got, all);
    Ok(())
}

#[trio::test]
async fn m6_without_a_buffer_a_send_waits_for_its_receiver() -> Result<()> {
    let (send, receive) = open_memory_channel(0);
    let log = RefCell::new(Vec::new());
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            log.borrow_mut().push("send begins");
            send.send(1).await?;
            log.borrow_mut().push("send ends");
            Ok(())
        });
        settle().await?;
        assert!(matches!(send.try_send(2), Err(TrySendError::WouldBlock(2))));
        log.borrow_mut().push("receive");
        assert_eq!(receive.receive().await?, 1);
        settle().await?;
        assert_eq!(*log.borrow(), ["send begins", "receive", "send ends"]);
        // And the other way round: a receiver that waits is handed the value.
        nursery.start_soon(async {
            assert_eq!(receive.receive().await?, 3);
            Ok(())
        });
        settle().await?;
        send.try_send(3)?;
        assert!(matches!(send.try_send(4), Err(TrySendError::WouldBlock(4))));
        Ok(())
    })
    .await?;
    assert_eq!(send.statistics().peak_buffer_used, 0);
    Ok(())
}

#[trio::test]
async fn m6_without_a_bound_a_send_never_waits() -> Result<()> {
    let (send, receive) = open_memory_channel(UNBOUNDED);
    for n in 0..10_000 {
        send.try_send(n)?;
    }
    drop(send);
    for n in 0..10_000 {
        assert_eq!(receive.next().await?, Some(n));
    }
    assert_eq!(receive.next().await?, None);
    Ok(())
}

#[trio::test]
async fn m6_statistics_tell_how_the_channel_stands() -> Result<()> {
    let (send, receive) = open_memory_channel(2);
    let (send2, receive2) = (send.clone(), receive.clone());
    let scope = CancelScope::new();
    open_nursery(async |nursery| {
        let now = send.statistics();
        assert_eq!((now.max_buffer_size, now.current_buffer_used), (2, 0));
        assert_eq!((now.open_send_channels, now.open_receive_channels), (2, 2));
        assert_eq!((now.tasks_waiting_send, now.tasks_waiting_receive), (0, 0));
        assert_eq!(now.peak_buffer_used, 0);
        for end in [
            receive2.statistics(),
            send2.statistics(),
            receive.statistics(),
        ] {
            assert_eq!(end, now, "the same from every end");
        }
        nursery.start_soon(async {
            let inside = async {
                let ended = open_nursery(async |inner| {
                    for _ in 0..3 {
                        inner.start_soon(async {
                            receive.receive().await?;
                            Ok(())
                        });
                    }
                    Ok(())
                });
                ended.await
            };
            assert_eq!(scope.enter(inside).await?, None);
            Ok(())
        });
        settle().await?;
        assert_eq!(send.statistics().tasks_waiting_receive, 3);
        scope.cancel("");
        assert_eq!(
            send.statistics().tasks_waiting_receive,
            0,
            "as soon as they are cancelled"
        );
        settle().await?;
        assert_eq!(send.statistics().tasks_waiting_receive, 0);

        send.try_send(1)?;
        send.try_send(2)?;
        nursery.start_soon(async { Ok(send2.send(3).await?) });
        settle().await?;
        let now = send.statistics();
        assert_eq!((now.current_buffer_used, now.tasks_waiting_send), (2, 1));
        for n in 1..=3 {
            assert_eq!(receive.try_receive(), Ok(n));
        }
        let now = send.statistics();
        assert_eq!((now.current_buffer_used, now.tasks_waiting_send), (0, 0));
        assert_eq!(now.peak_buffer_used, 2, "a peak stays");
        Ok(())
    })
    .await
}

#[trio::test]
async fn m7_several_receivers_share_what_is_sent() -> Result<()> {
    let (send, receive) = open_memory_channel(1);
    let got = RefCell::new(vec![Vec::new(); 5]);
    let (receive, got_ref) = (&receive, &got);
    open_nursery(async |nursery| {
        for task in 0..5 {
            nursery.start_soon(async move {
                while let Some(n) = receive.next().await? {
                    got_ref.borrow_mut()[task].push(n);
                }
                Ok(())
            });
        }
        settle().await?;
        for n in 0..10 {
            send.send(n).await?;
        }
        drop(send);
        Ok(())
    })
    .await?;
    let got = got.into_inner();
    assert!(got.iter().all(|of_one| !of_one.is_empty()), "{got:?}");
    let mut all = got.concat();
    all.sort_unstable();
    assert_eq!(all, (0..10).collect::<Vec<_>>());
    Ok(())
}

#[trio::test]
async fn m7_nobody_passes_those_who_wait() -> Result<()> {
    // What is sent while a receiver waits belongs to that receiver.
    let (send, receive) = open_memory_channel(1);
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            assert_eq!(receive.receive().await?, 1);
            Ok(())
        });
        settle().await?;
        send.try_send(1)?;
        assert_eq!(receive.try_receive(), Err(TryReceiveError::WouldBlock));
        Ok(())
    })
    .await?;
    // And the room that is made while a sender waits belongs to that sender.
    send.try_send(2)?;
    open_nursery(async |nursery| {
        nursery.start_soon(async { Ok(send.send(3).await?) });
        settle().await?;
        assert_eq!(receive.try_receive(), Ok(2));
        let refused = send.try_send(4).unwrap_err();
        assert!(refused.is_would_block(), "there is no room");
        assert_eq!(refused.into_inner(), 4);
        Ok(())
    })
    .await?;
    assert_eq!(receive.try_receive(), Ok(3));
    Ok(())
}

#[trio::test]
async fn m7_senders_and_receivers_are_served_in_the_order_in_which_they_came() -> Result<()> {
    let (send, receive) = open_memory_channel(0);
    let order = RefCell::new(Vec::new());
    let (send_ref, receive_ref, order_ref) = (&send, &receive, &order);
    open_nursery(async |nursery| {
        for n in 0..5 {
            nursery.start_soon(async move { Ok(send_ref.send(n).await?) });
            settle().await?;
        }
        for n in 0..5 {
            assert_eq!(receive.receive().await?, n);
        }
        for task in 0..5 {
            nursery.start_soon(async move {
                let n = receive_ref.receive().await?;
                order_ref.borrow_mut().push((task, n));
                Ok(())
            });
            settle().await?;
        }
        for n in 0..5 {
            send.send(n).await?;
        }
        Ok(())
    })
    .await?;
    assert_eq!(
        order.into_inner(),
        (0..5).map(|n| (n, n)).collect::<Vec<_>>()
    );
    Ok(())
}

#[trio::test]
async fn m7_cancelled_waiters_leave_the_line_undisturbed() -> Result<()> {
    let (send, receive) = open_memory_channel(0);
    let scope = CancelScope::new();
    open_nursery(async |nursery| {
        nursery.start_soon(async { Ok(send.send("first").await?) });
        settle().await?;
        nursery.start_soon(async {
            scope
                .enter(async { Ok(send.send("cancelled").await?) })
                .await?;
            Ok(())
        });
        settle().await?;
        nursery.start_soon(async { Ok(send.send("last").await?) });
        settle().await?;
        scope.cancel("");
        assert_eq!(receive.try_receive(), Ok("first"));
        assert_eq!(receive.try_receive(), Ok("last"));
        Ok(())
    })
    .await
}

#[trio::test]
async fn m8_what_waits_in_a_task_that_has_ended_is_passed_over() -> Result<()> {
    let (send, receive) = open_memory_channel(1);
    let receive = &receive;
    open_nursery(async |nursery| {
        nursery.start_soon(async move {
            let mut forgotten = Box::pin(receive.receive());
            let polled = std::future::poll_fn(|context| {
                Poll::Ready(forgotten.as_mut().poll(context).is_pending())
            });
            assert!(polled.await);
            #[expect(clippy::mem_forget, reason = "that is what is tested")]
            std::mem::forget(forgotten);
            Ok(())
        });
        Ok(())
    })
    .await?;
    send.try_send(1)?;
    assert_eq!(receive.try_receive(), Ok(1));
    Ok(())
}

#[trio::test]
async fn m8_a_receive_goes_on_in_another_task() -> Result<()> {
    let (send, receive) = open_memory_channel(1);
    let moved = Cell::new(None);
    let (receive, moved_ref) = (&receive, &moved);
    open_nursery(async |nursery| {
        nursery.start_soon(async move {
            let mut begun = Box::pin(receive.receive());
            let first = std::future::poll_fn(|context| {
                Poll::Ready(begun.as_mut().poll(context).is_pending())
            });
            assert!(first.await);
            moved_ref.set(Some(begun));
            Ok(())
        });
        Ok(())
    })
    .await?;
    // Its task has ended, so it is passed over, even though it has not been dropped.
    send.try_send(1)?;
    assert_eq!(receive.statistics().current_buffer_used, 1);
    assert_eq!(moved.take().expect("it was moved").await?, 1);
    // The same if it is waited for in its new task first.
    let mut begun = Box::pin(receive.receive());
    open_nursery(async |nursery| {
        assert!(poll_once(begun.as_mut()).is_pending());
        nursery.start_soon(async {
            assert_eq!(begun.await?, 2);
            Ok(())
        });
        settle().await?;
        send.try_send(2)?;
        Ok(())
    })
    .await
}

#[trio::test]
async fn m9_every_operation_is_a_checkpoint() -> Result<()> {
    let (send, receive) = open_memory_channel(1_000);
    let steps = Cell::new(0_u32);
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            for _ in 0..1_000 {
                send.send(0).await?;
                receive.receive().await?;
            }
            nursery.cancel_scope().cancel("done");
            Ok(())
        });
        loop {
            cancel_shielded_checkpoint().await;
            if nursery.cancel_scope().cancel_called() {
                return Ok(());
            }
            steps.set(steps.get() + 1);
        }
    })
    .await?;
    assert!(
        steps.get() >= 1_000 * 2 / 128 - 1,
        "others ran {} times",
        steps.get()
    );
    Ok(())
}

#[test]
fn m9_values_that_stay_behind_are_dropped_with_the_run() {
    let value = Rc::new(());
    let kept = value.clone();
    let run = trio::run(async move {
        let (send, receive) = open_memory_channel(4);
        send.try_send(kept.clone())?;
        let mut sending = Box::pin(send.send(kept));
        assert!(poll_once(sending.as_mut()).is_ready());
        drop(sending);
        drop(receive);
        Ok::<(), Error>(())
    });
    run.unwrap();
    assert_eq!(Rc::strong_count(&value), 1);
}

/// What holds for every channel, through the traits alone.
async fn by_traits(
    mut send: impl SendChannel<u32>,
    mut receive: impl ReceiveChannel<u32>,
) -> Result<()> {
    for n in 0..3 {
        send.send(n).await?;
    }
    assert_eq!(receive.receive().await?, 0);
    let cancelled = move_on_after(secs(0), receive.receive()).await?;
    assert_eq!(cancelled, None);
    let cancelled = move_on_after(secs(0), send.send(9)).await?;
    assert_eq!(cancelled, None);
    send.aclose().await?;
    assert_eq!(refusal(send.send(3).await), CLOSED);
    assert_eq!(receive.next().await?, Some(1));
    assert_eq!(receive.next().await?, Some(2));
    assert_eq!(receive.next().await?, None);
    assert!(receive.receive().await.unwrap_err().is::<EndOfChannel>());
    receive.aclose().await?;
    receive.aclose().await?;
    assert_eq!(refusal(receive.next().await), CLOSED);
    Ok(())
}

#[trio::test]
async fn m10_every_channel_is_one_by_its_traits() -> Result<()> {
    let (send, receive) = open_memory_channel(4);
    by_traits(send, receive).await?;
    let (send, receive) = trio::open_thread_channel(4);
    by_traits(send, receive).await?;
    let (send, receive) = trio::open_broadcast_channel(4);
    by_traits(send, receive).await?;
    let (send, receive) = trio::open_lagging_broadcast_channel(4);
    by_traits(send, receive).await
}
