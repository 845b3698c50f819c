//! Channels between threads, and between runs (TC).

#![expect(clippy::disallowed_methods, reason = "threads that are in no run")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use trio::channel::{ReceiveError, Selected, SendError, TryReceiveError, TrySendError};
use trio::testing::wait_all_tasks_blocked;
use trio::{
    CancelScope, Error, Result, checkpoint, move_on_after, open_memory_channel, open_nursery,
    open_thread_channel, select,
};

use crate::support::{on_every_driver, secs};

async fn settle() -> Result<()> {
    wait_all_tasks_blocked(Duration::ZERO).await
}

#[test]
fn tc1_values_go_from_a_thread_to_a_run_and_back_in_order() {
    on_every_driver(|| async {
        for capacity in [0, 1, 16] {
            let (send, there) = open_thread_channel(capacity);
            let (answer, back) = open_thread_channel(capacity);
            let echo = thread::spawn(move || {
                for n in there.iter_blocking() {
                    answer.send_blocking(n).unwrap();
                }
            });
            open_nursery(async |nursery| {
                nursery.start_soon(async move {
                    for n in 0..500 {
                        send.send(n).await?;
                    }
                    Ok(())
                });
                for n in 0..500 {
                    assert_eq!(back.receive().await?, n);
                }
                assert_eq!(back.next().await?, None);
                Ok(())
            })
            .await?;
            echo.join().unwrap();
        }
        Ok(())
    });
}

#[test]
fn tc1_two_runs_talk() {
    let (send, there) = open_thread_channel::<u32>(1);
    let (answer, back) = open_thread_channel::<u32>(1);
    let other = thread::spawn(move || {
        trio::run(async move {
            while let Some(n) = there.next().await? {
                answer.send(n * 2).await?;
            }
            Ok::<(), Error>(())
        })
    });
    let here = trio::run(async move {
        for n in 0..200 {
            send.send(n).await?;
            assert_eq!(back.receive().await?, n * 2);
        }
        drop(send);
        assert_eq!(back.next().await?, None);
        Ok::<(), Error>(())
    });
    here.unwrap();
    other.join().unwrap().unwrap();
}

#[test]
fn tc1_many_threads_share_a_channel() {
    let (send, receive) = open_thread_channel(2);
    let senders: Vec<_> = (0..4)
        .map(|task| {
            let send = send.clone();
            thread::spawn(move || {
                for n in 0..250 {
                    send.send_blocking(task * 250 + n).unwrap();
                }
            })
        })
        .collect();
    let receivers: Vec<_> = (0..2)
        .map(|_| {
            let receive = receive.clone();
            thread::spawn(move || receive.iter_blocking().collect::<Vec<u32>>())
        })
        .collect();
    drop((send, receive));
    for sender in senders {
        sender.join().unwrap();
    }
    let each: Vec<Vec<u32>> = receivers
        .into_iter()
        .map(|one| one.join().unwrap())
        .collect();
    for of_one in &each {
        for task in 0..4 {
            let from = of_one.iter().filter(|n| **n / 250 == task);
            assert!(from.is_sorted(), "what one has sent stays in order");
        }
    }
    let mut all = each.concat();
    all.sort_unstable();
    assert_eq!(all, (0..1000).collect::<Vec<_>>());
}

#[trio::test]
async fn tc2_the_promises_of_a_channel_hold() -> Result<()> {
    let (send, receive) = open_thread_channel(1);
    send.try_send(1)?;
    assert!(matches!(send.try_send(2), Err(TrySendError::WouldBlock(2))));
    open_nursery(async |nursery| {
        nursery.start_soon(async { Ok(send.send(3).await?) });
        settle().await?;
        assert_eq!(receive.try_receive(), Ok(1));
        assert!(matches!(send.try_send(4), Err(TrySendError::WouldBlock(4))));
        assert_eq!(receive.try_receive(), Ok(3));
        assert_eq!(receive.try_receive(), Err(TryReceiveError::WouldBlock));
        Ok(())
    })
    .await?;
    let clone = receive.clone();
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            assert!(matches!(receive.receive().await, Err(ReceiveError::Closed)));
            assert_eq!(clone.receive().await?, 5);
            Ok(())
        });
        settle().await?;
        receive.close();
        settle().await?;
        assert_eq!(send.statistics().tasks_waiting_receive, 1);
        send.try_send(5)?;
        Ok(())
    })
    .await?;
    send.try_send(6)?;
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            assert!(matches!(send.send(7).await, Err(SendError::Broken(7))));
            Ok(())
        });
        settle().await?;
        clone.aclose().await?;
        Ok(())
    })
    .await?;
    send.close();
    assert!(matches!(send.try_send(8), Err(TrySendError::Closed(8))));
    assert_eq!(send.statistics().current_buffer_used, 0);
    assert_eq!(send.statistics().peak_buffer_used, 1);
    Ok(())
}

#[trio::test]
async fn tc2_cancelled_means_neither_sent_nor_received() -> Result<()> {
    let (send, receive) = open_thread_channel(0);
    let scope = CancelScope::new();
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            let refused = scope.enter(async { Ok(send.send("mine").await) }).await?;
            assert!(matches!(
                refused,
                Some(Err(SendError::Cancelled("mine", _)))
            ));
            Ok(())
        });
        settle().await?;
        scope.cancel("");
        settle().await?;
        assert_eq!(receive.try_receive(), Err(TryReceiveError::WouldBlock));
        Ok(())
    })
    .await?;
    // What was handed over before the cancel was noticed is received.
    let scope = CancelScope::new();
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            let received = scope.enter(async { Ok(receive.receive().await?) }).await?;
            assert_eq!(received, Some("handed over"));
            Ok(())
        });
        settle().await?;
        send.try_send("handed over")?;
        scope.cancel("");
        Ok(())
    })
    .await
}

#[test]
fn tc2_against_another_thread_a_cancel_loses_and_doubles_nothing() {
    const VALUES: u32 = 2_000;
    let (send, receive) = open_thread_channel(1);
    let sender = thread::spawn(move || {
        for n in 0..VALUES {
            send.send_blocking(n).unwrap();
        }
    });
    let run = trio::run(async {
        let mut next = 0;
        let mut turns = 0_u32;
        while next < VALUES {
            let scope = CancelScope::new();
            turns += 1;
            open_nursery(async |nursery| {
                nursery.start_soon(async {
                    let received = scope.enter(async { Ok(receive.receive().await?) }).await?;
                    if let Some(n) = received {
                        assert_eq!(n, next);
                        next += 1;
                    }
                    Ok(())
                });
                for _ in 0..turns % 3 {
                    checkpoint().await?;
                }
                scope.cancel("");
                Ok(())
            })
            .await?;
        }
        Ok::<(), Error>(())
    });
    run.unwrap();
    sender.join().unwrap();
}

#[test]
fn tc2_against_other_threads_a_choice_takes_exactly_one() {
    const VALUES: u32 = 1_000;
    let sent = Arc::new(AtomicU32::new(0));
    let ends: Vec<_> = (0..2)
        .map(|_| {
            let (send, receive) = open_thread_channel(0);
            let sent = sent.clone();
            let sender = thread::spawn(move || {
                for n in 0..VALUES {
                    send.send_blocking(n).unwrap();
                    sent.fetch_add(1, Ordering::SeqCst);
                }
            });
            (receive, sender)
        })
        .collect();
    let run = trio::run(async {
        let (local, from_local) = open_memory_channel(1);
        let mut next = [0_u32; 3];
        open_nursery(async |nursery| {
            nursery.start_soon(async move {
                for n in 0..VALUES {
                    local.send(n).await?;
                    checkpoint().await?;
                }
                Ok(())
            });
            while next.iter().sum::<u32>() < 3 * VALUES {
                // Ends that have nothing more to send are left out.
                let left = |end: usize| next[end] < VALUES;
                let chosen = match (left(0), left(1), left(2)) {
                    (true, true, true) => {
                        let three = select((
                            ends[0].0.receive(),
                            ends[1].0.receive(),
                            from_local.receive(),
                        ));
                        match three.await? {
                            Selected::First(n) => (0, n?),
                            Selected::Second(n) => (1, n?),
                            Selected::Third(n) => (2, n?),
                        }
                    }
                    (true, ..) => (0, ends[0].0.receive().await?),
                    (_, true, _) => (1, ends[1].0.receive().await?),
                    _ => (2, from_local.receive().await?),
                };
                assert_eq!(chosen.1, next[chosen.0], "of end {}", chosen.0);
                next[chosen.0] += 1;
            }
            Ok(())
        })
        .await
    });
    run.unwrap();
    for (_, sender) in ends {
        sender.join().unwrap();
    }
    assert_eq!(sent.load(Ordering::SeqCst), 2 * VALUES);
}

#[test]
fn tc3_a_thread_waits_as_a_whole_and_a_run_refuses_to() {
    let (send, receive) = open_thread_channel(0);
    let waiting = thread::spawn(move || (receive.receive_blocking().ok(), receive));
    send.send_blocking(1).unwrap();
    let (received, receive) = waiting.join().unwrap();
    assert_eq!(received, Some(1));
    let refused = trio::run(async {
        let blocked = catch_unwind(AssertUnwindSafe(|| send.send_blocking(2)));
        let text = *blocked.unwrap_err().downcast::<String>().unwrap();
        assert!(text.contains("await `send` instead"), "{text}");
        let blocked = catch_unwind(AssertUnwindSafe(|| receive.receive_blocking()));
        assert!(blocked.is_err());
        Ok::<(), Error>(())
    });
    refused.unwrap();
    drop(receive);
    assert!(matches!(send.send_blocking(3), Err(SendError::Broken(3))));
}

#[test]
fn tc4_a_run_that_ends_closes_what_it_holds() {
    let (send, receive) = open_thread_channel::<u8>(0);
    let waiting = thread::spawn(move || receive.receive_blocking());
    trio::run(async move {
        let gone = move_on_after(secs(0), async { Ok(send.send(1).await?) }).await?;
        assert!(gone.is_none());
        Ok::<(), Error>(())
    })
    .unwrap();
    assert!(matches!(
        waiting.join().unwrap(),
        Err(ReceiveError::EndOfChannel)
    ));
}

#[test]
fn tc4_a_wait_that_outlives_its_run_is_woken_in_vain() {
    let (send, receive) = open_thread_channel(1);
    let receive = Arc::new(receive);
    let inside = receive.clone();
    trio::run(async move {
        let mut forgotten = Box::pin(async move { inside.receive().await });
        let first = std::future::poll_fn(|context| {
            std::task::Poll::Ready(forgotten.as_mut().poll(context).is_pending())
        });
        assert!(first.await);
        #[expect(clippy::mem_forget, reason = "that is what is tested")]
        std::mem::forget(forgotten);
    });
    // It keeps its place, so the first value is its own.
    send.try_send(1).unwrap();
    send.try_send(2).unwrap();
    assert_eq!(receive.receive_blocking().unwrap(), 2);
}
