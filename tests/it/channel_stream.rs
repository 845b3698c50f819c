//! Receiving ends as streams of `futures` (M11).

use std::time::Duration;

use futures::{FutureExt, StreamExt, TryStreamExt};
use trio::channel::TryReceiveError;
use trio::testing::wait_all_tasks_blocked;
use trio::{
    CancelScope, Result, checkpoint, open_memory_channel, open_nursery, open_thread_channel,
};

use crate::support::shape;

async fn settle() -> Result<()> {
    wait_all_tasks_blocked(Duration::ZERO).await
}

#[trio::test(backend = "all")]
async fn m11_a_stream_has_every_value_and_ends_with_the_channel() -> Result<()> {
    let (send, receive) = open_memory_channel(0);
    let (send_far, receive_far) = open_thread_channel(0);
    open_nursery(async |nursery| {
        nursery.start_soon(async move {
            for n in 0..300 {
                send.send(n).await?;
                send_far.send(n).await?;
            }
            Ok(())
        });
        let streams = receive.into_stream().zip(receive_far.into_stream());
        let both: Vec<_> = streams
            .map(|(one, other)| Ok::<_, trio::Error>((one?, other?)))
            .try_collect()
            .await?;
        assert_eq!(both, (0..300).map(|n| (n, n)).collect::<Vec<_>>());
        Ok(())
    })
    .await
}

#[trio::test]
async fn m11_an_item_is_a_checkpoint_and_a_cancelled_one_takes_nothing() -> Result<()> {
    let (send, receive) = open_memory_channel(1);
    send.try_send(7)?;
    let mut stream = receive.into_stream();
    let scope = CancelScope::new();
    scope.cancel("enough");
    let seen = scope
        .enter(async {
            let item = stream.next().await.expect("the channel is open");
            assert_eq!(shape(&item.expect_err("it was cancelled")), "cancelled");
            assert!(
                stream.next().await.is_some_and(|item| item.is_err()),
                "again"
            );
            checkpoint().await
        })
        .await?;
    assert!(seen.is_none());
    assert_eq!(send.statistics().current_buffer_used, 1);
    assert_eq!(stream.next().await.transpose()?, Some(7));
    Ok(())
}

#[trio::test]
async fn m11_a_stream_that_waits_stands_in_line_and_leaves_it_when_dropped() -> Result<()> {
    let (send, receive) = open_memory_channel(1);
    let other = receive.clone();
    let mut stream = receive.into_stream();
    assert!(stream.next().now_or_never().is_none(), "nothing there");
    assert_eq!(
        send.statistics().tasks_waiting_receive,
        1,
        "between polls too"
    );
    send.try_send("handed over")?;
    assert_eq!(
        other.try_receive(),
        Err(TryReceiveError::WouldBlock),
        "it is the stream's"
    );
    assert_eq!(send.statistics().open_receive_channels, 2);
    drop(stream);
    assert_eq!(send.statistics().open_receive_channels, 1);
    assert_eq!(other.try_receive(), Ok("handed over"), "it has gone back");
    Ok(())
}

#[trio::test]
async fn m11_the_end_can_be_had_back() -> Result<()> {
    let (send, receive) = open_memory_channel(1);
    let mut stream = receive.into_stream();
    assert!(stream.next().now_or_never().is_none());
    send.try_send(1)?;
    let receive = stream.into_inner();
    assert_eq!(receive.try_receive(), Ok(1));
    let statistics = send.statistics();
    assert_eq!(statistics.open_receive_channels, 1);
    assert_eq!(statistics.tasks_waiting_receive, 0);
    receive.close();
    let mut closed = receive.into_stream();
    let item = closed.next().await.expect("an error");
    assert_eq!(
        shape(&item.expect_err("it is closed")),
        "this resource has been closed here"
    );
    Ok(())
}

#[trio::test]
async fn m11_a_stream_is_woken_wherever_a_combinator_polls_it() -> Result<()> {
    let (send, receive) = open_thread_channel(0);
    let (local, receive_local) = open_memory_channel(0);
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            settle().await?;
            let sent = crate::support::foreign_thread(move || send.send_blocking(1).is_ok());
            local.send(2).await?;
            drop(local);
            trio::to_thread::run_sync(move || assert!(sent.join().unwrap())).await
        });
        let far = receive.into_stream();
        let streams = futures::stream::select(far, receive_local.into_stream());
        let mut all: Vec<i32> = streams.try_collect().await?;
        all.sort_unstable();
        assert_eq!(all, [1, 2]);
        Ok(())
    })
    .await
}
