//! Streams for tests, and the check that every stream has to pass (Z2 to Z6).

use std::cell::{Cell, RefCell};
use std::net::Ipv4Addr;
use std::rc::Rc;

use futures::FutureExt;
use trio::io::{AsyncResource, HalfCloseableStream, ReceiveStream, SendStream, StapledStream};
use trio::net::open_tcp_listeners;
use trio::testing::{
    MemoryReceiveStream, MemorySendStream, check_half_closeable_stream, check_one_way_stream,
    check_two_way_stream, lockstep_stream_one_way_pair, lockstep_stream_pair,
    memory_stream_one_way_pair, memory_stream_pair, memory_stream_pump,
    open_stream_to_socket_listener, wait_all_tasks_blocked,
};
use trio::{
    BrokenResource, BusyResource, CancelScope, ClosedResource, Result, WouldBlock, checkpoint,
    move_on_after, open_nursery,
};

use crate::network::clogged_both_ways;
use crate::support::{connection, failure, oops, secs};

#[track_caller]
fn fails_with<E: std::error::Error + 'static>(result: Result<()>) {
    let error = result.expect_err("this must fail");
    assert!(error.is::<E>(), "{error:?}");
}

#[trio::test(backend = "all")]
async fn z2_what_is_sent_can_be_taken_out() -> Result<()> {
    let mut stream = MemorySendStream::new();
    let sent = stream.outlet();
    assert_eq!(sent.try_get_data(None), Err(WouldBlock::new()));
    stream.send_all(b"123").await?;
    assert_eq!(sent.try_get_data(None)?, b"123");
    stream.send_all(b"456").await?;
    stream.send_all(b"7").await?;
    assert_eq!(sent.try_get_data(Some(1))?, b"4");
    assert_eq!(sent.get_data(Some(2)).await?, b"56");
    assert_eq!(sent.get_data(None).await?, b"7");
    stream.wait_send_all_might_not_block().await?;
    open_nursery(async |nursery| {
        let waits = sent.clone();
        nursery.start_soon(async move {
            assert_eq!(waits.get_data(None).await?, b"late");
            assert_eq!(waits.get_data(None).await?, b"", "it was closed");
            Ok(())
        });
        wait_all_tasks_blocked(secs(0)).await?;
        fails_with::<BusyResource>(sent.get_data(None).await.map(drop));
        stream.send_all(b"late").await?;
        checkpoint().await?;
        stream.aclose().await
    })
    .await?;
    fails_with::<ClosedResource>(stream.send_all(b"x").await);
    fails_with::<ClosedResource>(stream.wait_send_all_might_not_block().await);
    assert!(sent.is_closed());
    assert_eq!(sent.try_get_data(None)?, b"", "and stays at its end");
    Ok(())
}

#[trio::test]
async fn z2_two_senders_meet() -> Result<()> {
    let stream = MemorySendStream::new();
    let (mut one, mut two) = (&stream, &stream);
    let (first, second) = futures::join!(one.send_all(b"1"), two.send_all(b"2"));
    first?;
    fails_with::<BusyResource>(second);
    let (first, second) = futures::join!(one.wait_send_all_might_not_block(), two.send_all(b"2"));
    first?;
    fails_with::<BusyResource>(second);
    assert_eq!(stream.outlet().try_get_data(None)?, b"1");
    Ok(())
}

#[trio::test]
async fn z2_send_hooks_are_called_at_their_moments() -> Result<()> {
    let mut stream = MemorySendStream::new();
    let sent = stream.outlet();
    let log = Rc::new(RefCell::new(Vec::new()));
    let note = |what: &'static str| {
        let log = log.clone();
        move || log.borrow_mut().push(what)
    };
    let on_send = note("sent");
    sent.set_send_all_hook(async move |sent| {
        assert_eq!(sent.try_get_data(None)?, b"data", "it is there by now");
        checkpoint().await?;
        on_send();
        Ok(())
    });
    let on_wait = note("waited");
    sent.set_wait_send_all_might_not_block_hook(async move |_| {
        on_wait();
        Ok(())
    });
    let on_close = note("closed");
    sent.set_close_hook(move |sent| {
        assert!(sent.is_closed());
        on_close();
    });
    stream.send_all(b"data").await?;
    stream.wait_send_all_might_not_block().await?;
    stream.aclose().await?;
    stream.aclose().await?;
    drop(stream);
    assert_eq!(log.take(), ["sent", "waited", "closed", "closed", "closed"]);

    let mut stream = MemorySendStream::new();
    stream
        .outlet()
        .set_send_all_hook(async |_| oops("by the hook"));
    assert_eq!(failure(stream.send_all(b"x").await), "by the hook");
    stream.outlet().clear_hooks();
    stream.send_all(b"y").await?;
    assert_eq!(stream.outlet().try_get_data(None)?, b"xy");
    Ok(())
}

#[trio::test(backend = "all")]
async fn z2_what_is_put_in_can_be_received() -> Result<()> {
    let mut stream = MemoryReceiveStream::new();
    let inlet = stream.inlet();
    inlet.put_data(b"abc")?;
    let mut buffer = [0; 16];
    assert_eq!(stream.receive_some(&mut buffer[..1]).await?, 1);
    let lease = stream.receive().await?;
    assert_eq!(lease.as_deref(), Some(&b"bc"[..]));
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            assert_eq!(stream.receive_some(&mut buffer).await?, 4);
            assert_eq!(stream.receive_some(&mut buffer).await?, 0);
            Ok(())
        });
        wait_all_tasks_blocked(secs(0)).await?;
        inlet.put_data(b"late")?;
        wait_all_tasks_blocked(secs(0)).await?;
        inlet.put_eof();
        inlet.put_eof();
        Ok(())
    })
    .await?;
    assert_eq!(
        inlet.put_data(b"x"),
        Err(ClosedResource::new()),
        "after the end"
    );
    Ok(())
}

#[trio::test]
async fn z2_closing_a_receiver_discards_what_is_in_it_and_wakes_who_waits() -> Result<()> {
    let stream = MemoryReceiveStream::new();
    let inlet = stream.inlet();
    let closed = Rc::new(Cell::new(0));
    let count = closed.clone();
    inlet.set_close_hook(move |inlet| {
        assert!(inlet.is_closed());
        count.set(count.get() + 1);
    });
    open_nursery(async |nursery| {
        let mut shared = &stream;
        nursery.start_soon(async move {
            let mut buffer = [0; 16];
            fails_with::<ClosedResource>(shared.receive_some(&mut buffer).await.map(drop));
            Ok(())
        });
        wait_all_tasks_blocked(secs(0)).await?;
        let mut buffer = [0; 16];
        fails_with::<BusyResource>((&mut &stream).receive_some(&mut buffer).await.map(drop));
        stream.close();
        Ok(())
    })
    .await?;
    assert_eq!(inlet.put_data(b"x"), Err(ClosedResource::new()));
    (&mut &stream).aclose().await?;
    drop(stream);
    assert_eq!(closed.get(), 3, "each time");

    let mut stream = MemoryReceiveStream::new();
    stream.inlet().put_data(b"left")?;
    stream.aclose().await?;
    fails_with::<ClosedResource>(stream.receive().await.map(drop));
    Ok(())
}

#[trio::test]
async fn z2_the_receive_hook_is_called_before_the_wait() -> Result<()> {
    let mut stream = MemoryReceiveStream::new();
    let inlet = stream.inlet();
    inlet.set_receive_some_hook(async |inlet| {
        checkpoint().await?;
        inlet.put_data(b"by the hook")?;
        Ok(())
    });
    let lease = stream.receive().await?;
    assert_eq!(lease.as_deref(), Some(&b"by the hook"[..]));
    inlet.set_receive_some_hook(async |_| oops("it fails"));
    assert_eq!(failure(stream.receive().await), "it fails");
    inlet.clear_hooks();
    inlet.put_eof();
    assert!(stream.receive().await?.is_none());
    Ok(())
}

#[trio::test]
async fn z2_nothing_is_taken_by_what_is_cancelled_or_dropped() -> Result<()> {
    let mut stream = MemoryReceiveStream::new();
    let inlet = stream.inlet();
    let mut buffer = [0; 16];
    assert!(
        move_on_after(secs(0), stream.receive_some(&mut buffer))
            .await?
            .is_none()
    );
    assert!(stream.receive_some(&mut buffer).now_or_never().is_none());
    inlet.put_data(b"x")?;
    assert_eq!(stream.receive_some(&mut buffer).await?, 1, "nor is it busy");
    let send = MemorySendStream::new();
    let scope = CancelScope::new();
    let waits = send.outlet();
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            assert_eq!(scope.enter(waits.get_data(None)).await?, None);
            Ok(())
        });
        wait_all_tasks_blocked(secs(0)).await?;
        scope.cancel("");
        Ok(())
    })
    .await?;
    (&mut &send).send_all(b"y").await?;
    assert_eq!(send.outlet().try_get_data(None)?, b"y");
    Ok(())
}

#[trio::test]
async fn z3_the_pump_carries_bytes_and_the_end() -> Result<()> {
    let (mut send, mut receive) = (MemorySendStream::new(), MemoryReceiveStream::new());
    let (from, to) = (send.outlet(), receive.inlet());
    assert!(!memory_stream_pump(&from, &to, None)?, "there is nothing");
    send.send_all(b"12345").await?;
    let mut buffer = [0; 16];
    for (max, moved) in [(Some(1), 1), (Some(3), 3), (None, 1)] {
        assert!(memory_stream_pump(&from, &to, max)?);
        assert_eq!(receive.receive_some(&mut buffer).await?, moved);
    }
    assert!(!memory_stream_pump(&from, &to, None)?);
    send.aclose().await?;
    assert!(memory_stream_pump(&from, &to, None)?, "the end");
    assert_eq!(receive.receive_some(&mut buffer).await?, 0);

    let (mut send, mut receive) = (MemorySendStream::new(), MemoryReceiveStream::new());
    send.send_all(b"x").await?;
    receive.aclose().await?;
    let broken = memory_stream_pump(&send.outlet(), &receive.inlet(), None);
    assert!(broken.is_err(), "nobody receives");
    Ok(())
}

#[trio::test]
async fn z3_a_pair_is_two_streams_with_hooks_that_can_be_replaced() -> Result<()> {
    let (mut send, mut receive) = memory_stream_one_way_pair();
    send.send_all(b"123").await?;
    let mut buffer = [0; 16];
    assert_eq!(receive.receive_some(&mut buffer).await?, 3);
    // A network that carries one byte at a time, and only on request.
    send.outlet().clear_hooks();
    send.send_all(b"456").await?;
    let (from, to) = (send.outlet(), receive.inlet());
    for expected in [b"4", b"5", b"6"] {
        assert!(memory_stream_pump(&from, &to, Some(1))?);
        assert_eq!(receive.receive_some(&mut buffer).await?, 1);
        assert_eq!(&buffer[..1], expected);
    }
    drop(send);
    assert!(memory_stream_pump(&from, &to, None)?);
    assert!(receive.receive().await?.is_none());

    let (mut send, receive) = memory_stream_one_way_pair();
    drop(receive);
    fails_with::<BrokenResource>(send.send_all(b"x").await);
    send.aclose().await
}

#[trio::test]
async fn z3_a_pair_leaves_nothing_behind() -> Result<()> {
    let kept = Rc::new(());
    let (send, receive) = memory_stream_one_way_pair();
    let (inside, close) = (kept.clone(), kept.clone());
    receive.inlet().set_receive_some_hook(async move |_| {
        assert!(Rc::strong_count(&inside) > 1);
        Ok(())
    });
    send.outlet()
        .set_wait_send_all_might_not_block_hook(async move |_| {
            assert!(Rc::strong_count(&close) > 1);
            Ok(())
        });
    drop((send, receive));
    assert_eq!(Rc::strong_count(&kept), 1, "no circle keeps the hooks");
    Ok(())
}

#[trio::test]
async fn z4_a_lockstep_send_returns_when_all_has_been_taken() -> Result<()> {
    let (send, receive) = lockstep_stream_one_way_pair();
    let sent = Cell::new(false);
    open_nursery(async |nursery| {
        let (sent, mut send) = (&sent, &send);
        nursery.start_soon(async move {
            send.send_all(b"123").await?;
            sent.set(true);
            send.wait_send_all_might_not_block().await?;
            sent.set(false);
            Ok(())
        });
        let mut receive = &receive;
        let mut buffer = [0; 16];
        wait_all_tasks_blocked(secs(0)).await?;
        assert_eq!(receive.receive_some(&mut buffer[..2]).await?, 2);
        wait_all_tasks_blocked(secs(0)).await?;
        assert!(!sent.get(), "one byte is left");
        assert_eq!(receive.receive_some(&mut buffer).await?, 1);
        wait_all_tasks_blocked(secs(0)).await?;
        assert!(sent.get());
        // The next wait ends only when somebody waits to receive.
        let nobody = move_on_after(secs(0), receive.receive_some(&mut buffer)).await?;
        assert_eq!(nobody, None);
        wait_all_tasks_blocked(secs(0)).await?;
        assert!(sent.get(), "nobody is waiting any more");
        nursery.start_soon(async move {
            fails_with::<ClosedResource>(receive.receive_some(&mut buffer).await.map(drop));
            Ok(())
        });
        wait_all_tasks_blocked(secs(0)).await?;
        assert!(!sent.get());
        receive.aclose().await
    })
    .await
}

#[trio::test]
async fn z4_closing_either_side_of_a_lockstep_pair_ends_the_other() -> Result<()> {
    let (send, receive) = lockstep_stream_one_way_pair();
    open_nursery(async |nursery| {
        let mut shared = &send;
        nursery.start_soon(async move {
            fails_with::<BrokenResource>(shared.send_all(b"123").await);
            shared.send_all(b"").await.expect_err("and stays so");
            shared.wait_send_all_might_not_block().await
        });
        wait_all_tasks_blocked(secs(0)).await?;
        (&mut &receive).receive_some(&mut [0; 2]).await?;
        receive.close();
        Ok(())
    })
    .await?;
    let (send, mut receive) = lockstep_stream_one_way_pair();
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            assert!(receive.receive().await?.is_none());
            Ok(())
        });
        wait_all_tasks_blocked(secs(0)).await?;
        drop(send);
        Ok(())
    })
    .await
}

#[trio::test]
async fn z4_what_a_lockstep_send_leaves_behind_is_gone() -> Result<()> {
    let (mut send, mut receive) = lockstep_stream_one_way_pair();
    assert!(send.send_all(b"dropped").now_or_never().is_none());
    let scope = CancelScope::new();
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            assert_eq!(scope.enter(send.send_all(b"cancelled")).await?, None);
            send.send_all(b"x").await
        });
        wait_all_tasks_blocked(secs(0)).await?;
        scope.cancel("");
        let mut buffer = [0; 16];
        wait_all_tasks_blocked(secs(0)).await?;
        assert_eq!(receive.receive_some(&mut buffer).await?, 1);
        assert_eq!(buffer[0], b'x');
        Ok(())
    })
    .await
}

#[trio::test(backend = "all")]
async fn z5_streams_that_go_one_way_keep_the_rules() -> Result<()> {
    check_one_way_stream(async || Ok(memory_stream_one_way_pair()), async || Ok(None)).await?;
    check_one_way_stream(
        async || Ok(lockstep_stream_one_way_pair()),
        // Without a buffer, every fresh stream is clogged.
        async || Ok(Some(lockstep_stream_one_way_pair())),
    )
    .await
}

#[trio::test(backend = "all")]
async fn z6_streams_in_memory_that_go_both_ways_keep_the_rules() -> Result<()> {
    check_two_way_stream(async || Ok(memory_stream_pair()), async || Ok(None)).await?;
    check_half_closeable_stream(async || Ok(memory_stream_pair()), async || Ok(None)).await?;
    check_half_closeable_stream(
        async || Ok(lockstep_stream_pair()),
        async || Ok(Some(lockstep_stream_pair())),
    )
    .await
}

#[trio::test(backend = "all")]
async fn z6_tcp_streams_keep_the_rules() -> Result<()> {
    check_half_closeable_stream(
        async || connection().await,
        async || Ok(Some(clogged_both_ways().await?)),
    )
    .await
}

#[trio::test]
async fn z6_a_check_can_be_cancelled_and_reports_what_cannot_be_made() -> Result<()> {
    let check = check_one_way_stream(
        async || {
            checkpoint().await?;
            Ok(lockstep_stream_one_way_pair())
        },
        async || Ok(None),
    );
    assert!(move_on_after(secs(0), check).await?.is_none());
    let check = check_one_way_stream(
        async || {
            oops::<()>("no stream to be had")?;
            Ok(memory_stream_one_way_pair())
        },
        async || Ok(None),
    );
    assert_eq!(failure(check.await), "no stream to be had");
    Ok(())
}

#[trio::test]
async fn stapled_streams_use_each_half_for_its_part() -> Result<()> {
    let (send, receive) = (MemorySendStream::new(), MemoryReceiveStream::new());
    let (sent, inlet) = (send.outlet(), receive.inlet());
    let mut stream = StapledStream::new(send, receive);
    stream.wait_send_all_might_not_block().await?;
    stream.send_all(b"foo").await?;
    assert_eq!(sent.try_get_data(None)?, b"foo");
    inlet.put_data(b"bar")?;
    let lease = stream.receive().await?;
    assert_eq!(lease.as_deref(), Some(&b"bar"[..]));
    stream.send_eof().await?;
    stream.send_eof().await?;
    assert!(sent.is_closed() && !inlet.is_closed());
    assert!(stream.send_half().outlet().is_closed());
    assert!(!stream.receive_half().inlet().is_closed());
    fails_with::<ClosedResource>(stream.send_all(b"x").await);
    stream.aclose().await?;
    assert!(inlet.is_closed());
    let (send, receive) = stream.into_halves();
    drop((send, receive));
    Ok(())
}

/// A half whose closing fails.
struct Failing<S>(S, &'static str);

impl<S: AsyncResource> AsyncResource for Failing<S> {
    async fn aclose(&mut self) -> Result<()> {
        self.0.aclose().await?;
        oops(self.1)
    }
}

impl<S: SendStream> SendStream for Failing<S> {
    async fn send_all<'a>(&mut self, data: impl Into<trio::io::Outgoing<'a>>) -> Result<()> {
        self.0.send_all(data).await
    }

    async fn wait_send_all_might_not_block(&mut self) -> Result<()> {
        self.0.wait_send_all_might_not_block().await
    }
}

impl<S: ReceiveStream> ReceiveStream for Failing<S> {
    async fn receive_some(&mut self, buffer: &mut [u8]) -> Result<usize> {
        self.0.receive_some(buffer).await
    }

    async fn receive(&mut self) -> Result<Option<trio::io::Lease>> {
        self.0.receive().await
    }
}

#[trio::test]
async fn stapled_streams_close_both_halves_and_tell_both_errors() -> Result<()> {
    let (send, receive) = (MemorySendStream::new(), MemoryReceiveStream::new());
    let (sent, inlet) = (send.outlet(), receive.inlet());
    let mut stream = StapledStream::new(Failing(send, "one"), receive);
    assert_eq!(failure(stream.aclose().await), "one");
    assert!(sent.is_closed() && inlet.is_closed());
    let (send, receive) = (MemorySendStream::new(), MemoryReceiveStream::new());
    let mut stream = StapledStream::new(Failing(send, "one"), Failing(receive, "two"));
    assert_eq!(failure(stream.aclose().await), "[one two]");
    Ok(())
}

#[trio::test(backend = "all")]
async fn z10_a_listener_can_be_reached_wherever_it_listens() -> Result<()> {
    let everywhere = open_tcp_listeners(0).await?;
    let here = open_tcp_listeners((Ipv4Addr::LOCALHOST, 0)).await?;
    for listener in everywhere.iter().chain(&here) {
        let client = open_stream_to_socket_listener(listener).await?;
        let server = listener.accept().await?;
        client.send_all(b"x").await?;
        let lease = server.receive().await?;
        assert_eq!(lease.as_deref(), Some(&b"x"[..]));
    }
    here[0].close();
    let closed = open_stream_to_socket_listener(&here[0]).await;
    fails_with::<ClosedResource>(closed.map(drop));
    Ok(())
}
