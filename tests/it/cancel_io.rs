//! I/O that is cancelled, dropped, forgotten, or in flight when a task panics.
//!
//! In none of these cases is anything lost or left behind.

use std::cell::{Cell, RefCell};
use std::future::{Future, ready};
use std::net::{Ipv4Addr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use futures::future::{FutureExt, join};
use futures::stream::{FuturesUnordered, StreamExt};
use socket2::Socket;
use trio::lowlevel::{
    Accept, Connect, Descriptor, Family, Send, driver_statistics, socket, submit,
};
use trio::net::{Bind, TcpListener, TcpStream, connect_tcp};
use trio::testing::{Fault, Kind, Outcome, Rule, Simulation, What, wait_all_tasks_blocked};
use trio::{
    Backend, Builder, CancelScope, Result, backend, checkpoint, current_time, fail_after,
    move_on_after, open_nursery, sleep,
};

use crate::network::{
    cancelled_behind_completion, cancelled_when_blocked, dropped_after, in_flight, listen,
    numbered, pair, receive_exactly, receive_to_end, simulate,
};
use crate::support::{builders, on_every_driver};

/// A descriptor of its own for the same socket, as another process may have.
fn another(socket: impl Into<Socket>) -> Result<Descriptor> {
    Ok(Descriptor::from_socket(socket.into())?)
}

/// Waits in both, calls `come`, and has the first that gets something cancel the other. Both may have been
/// told of it by then.
async fn first_of_two<T>(
    waiting: [impl Future<Output = Result<T>>; 2],
    come: impl AsyncFnOnce() -> Result<()>,
) -> Result<()> {
    let scopes = [CancelScope::new(), CancelScope::new()];
    let came = Cell::new(0);
    let both = open_nursery(async |nursery| {
        for (own, future) in waiting.into_iter().enumerate() {
            let (scopes, came) = (&scopes, &came);
            nursery.start_soon(async move {
                if scopes[own].enter(future).await?.is_some() {
                    came.set(came.get() + 1);
                    scopes[1 - own].cancel("the other was first");
                }
                Ok(())
            });
        }
        wait_all_tasks_blocked(Duration::ZERO).await?;
        come().await
    });
    fail_after(secs(10), both).await?;
    assert_eq!(came.get(), 1, "one of them got it, and the other ended");
    Ok(())
}

#[test]
fn l1_who_was_woken_for_nothing_is_cancelled_all_the_same() {
    for backend in [Backend::IoUring, Backend::Polling] {
        let accepted = Builder::new().backend(backend).run(async {
            let shared = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            let listener =
                || -> Result<_> { Ok(TcpListener::from_descriptor(another(shared.try_clone()?)?)) };
            let (first, second) = (listener()?, listener()?);
            let address = shared.local_addr()?;
            let client = Cell::new(None);
            let come = async || {
                client.set(Some(std::net::TcpStream::connect(address)?));
                Ok(())
            };
            first_of_two([first.accept(), second.accept()], come).await?;

            let (far, near) = connected()?;
            let stream =
                || -> Result<_> { Ok(TcpStream::from_descriptor(another(near.try_clone()?)?)) };
            let (first, second) = (stream()?, stream()?);
            let come = async || Ok(std::io::Write::write_all(&mut &far, b"once")?);
            first_of_two([first.receive(), second.receive()], come).await
        });
        accepted.unwrap_or_else(|error| panic!("on {backend:?}: {error:?}"));
    }
}

/// Two ends of a connection that no run has made.
fn connected() -> Result<(std::net::TcpStream, std::net::TcpStream)> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let far = std::net::TcpStream::connect(listener.local_addr()?)?;
    Ok((far, listener.accept()?.0))
}

// D1: an operation that has happened is returned, whatever was cancelled meanwhile.

#[trio::test(backend = "all")]
async fn d1_a_receive_that_has_completed_is_returned_although_cancelled() -> Result<()> {
    let (client, server) = pair().await?;
    let kick = async {
        wait_all_tasks_blocked(Duration::ZERO).await?;
        client.send_all(b"lease").await
    };
    let lease = cancelled_behind_completion(server.receive(), kick).await?;
    assert_eq!(&*lease.unwrap(), b"lease");

    let mut buffer = [0; 16];
    let kick = async {
        wait_all_tasks_blocked(Duration::ZERO).await?;
        client.send_all(b"slice").await
    };
    let count = cancelled_behind_completion(server.receive_some(&mut buffer), kick).await?;
    assert_eq!(&buffer[..count], b"slice");
    Ok(())
}

#[trio::test(backend = "all")]
async fn d1_an_end_of_file_that_has_been_received_is_returned_although_cancelled() -> Result<()> {
    let (client, server) = pair().await?;
    let kick = async {
        wait_all_tasks_blocked(Duration::ZERO).await?;
        client.send_eof().await
    };
    let end = cancelled_behind_completion(server.receive(), kick).await?;
    assert!(end.is_none());
    Ok(())
}

#[trio::test(backend = "all")]
async fn d1_a_connection_that_has_been_accepted_is_returned_although_cancelled() -> Result<()> {
    let (listener, address) = listen().await?;
    let client = connect_tcp(address).await?;
    let server = cancelled_behind_completion(listener.accept(), ready(Ok(()))).await?;
    assert_eq!(server.peer_address()?, client.local_address()?);
    Ok(())
}

#[trio::test(backend = "all")]
async fn d1_a_connection_that_has_been_made_is_returned_although_cancelled() -> Result<()> {
    let (listener, address) = listen().await?;
    let client = cancelled_behind_completion(connect_tcp(address), ready(Ok(()))).await?;
    let server = listener.accept().await?;
    assert_eq!(server.peer_address()?, client.local_address()?);
    Ok(())
}

/// A descriptor and the stream at the other end of its connection.
async fn raw_pair() -> Result<(Descriptor, TcpStream)> {
    let (listener, address) = listen().await?;
    let connect = Connect::new(socket::stream(Family::V4)?, address);
    let descriptor = submit(connect).await?.into_connected()?;
    Ok((descriptor, listener.accept().await?))
}

#[trio::test(backend = "all")]
async fn d1_a_send_that_has_completed_is_returned_although_cancelled() -> Result<()> {
    let (descriptor, peer) = raw_pair().await?;
    let send = Send::new(descriptor, &b"sent"[..]);
    let finished = cancelled_behind_completion(submit(send), ready(Ok(()))).await?;
    assert_eq!(finished.into_sent().1?, 4);
    assert_eq!(receive_exactly(&peer, 4).await?, b"sent");
    Ok(())
}

/// Makes the first operation of `kind` that starts from now on end at once and be reported after
/// ten milliseconds.
fn late_report(world: &Simulation, kind: Kind) {
    world.inject(Rule::nth(1, kind, Fault::LateCompletion(ms(10))));
}

/// Cancels `operation` after five milliseconds, when it has ended but has not been reported.
async fn cancelled_too_late<T>(operation: impl Future<Output = Result<T>>) -> Result<T> {
    let start = current_time();
    let value = move_on_after(ms(5), async {
        let value = operation.await?;
        assert!(checkpoint().await.unwrap_err().is_cancelled());
        Ok(value)
    })
    .await?;
    assert_eq!(current_time() - start, ms(10), "a cancel hurries nothing");
    Ok(value.expect("success wins over the cancel"))
}

#[test]
fn d1_a_cancel_that_comes_too_late_changes_nothing_for_any_operation() {
    let world = Simulation::new(1);
    simulate(&world, async {
        let (listener, address) = listen().await?;
        late_report(&world, Kind::Connect);
        let client = cancelled_too_late(connect_tcp(address)).await?;
        late_report(&world, Kind::Accept);
        let server = cancelled_too_late(listener.accept()).await?;

        client.send_all(b"x").await?;
        late_report(&world, Kind::Receive);
        assert_eq!(&*cancelled_too_late(server.receive()).await?.unwrap(), b"x");

        let (descriptor, peer) = raw_pair().await?;
        late_report(&world, Kind::Send);
        let send = submit(Send::new(descriptor, &b"y"[..]));
        let finished = cancelled_too_late(send).await?;
        assert_eq!(finished.into_sent().1?, 1);
        assert_eq!(receive_exactly(&peer, 1).await?, b"y");
        Ok(())
    });
    assert_eq!(world.open_sockets(), 0);
}

#[test]
fn d1_what_comes_before_a_slow_cancel_takes_effect_is_returned() {
    let world = Simulation::new(1);
    simulate(&world, async {
        let (client, server) = pair().await?;
        // Requested after 5 ms, the cancel takes effect after 15; the byte comes after 10.
        world.inject(Rule::nth(1, Kind::Cancel, Fault::LateStart(ms(10))));
        open_nursery(async |nursery| {
            nursery.start_soon(async {
                sleep(ms(10)).await?;
                client.send_all(b"x").await
            });
            let received = move_on_after(ms(5), server.receive()).await?;
            assert_eq!(&*received.unwrap().unwrap(), b"x");
            Ok(())
        })
        .await
    });
}

/// A receive that is cancelled at the moment when a byte comes. Returns whether it got the byte.
async fn race(order: Order) -> Result<bool> {
    let (client, server) = pair().await?;
    let scope = CancelScope::new();
    let won = Cell::new(None);
    let (inside, receiver, got) = (&scope, &server, &won);
    open_nursery(async |nursery| {
        nursery.start_soon(async move {
            got.set(inside.enter(receiver.receive()).await?.flatten());
            Ok(())
        });
        wait_all_tasks_blocked(Duration::ZERO).await?;
        if order == Order::CancelFirst {
            inside.cancel("first");
        }
        // Does not wait: there is room.
        client.send_all(b"x").await?;
        if order == Order::ByteFirst {
            inside.cancel("second");
        }
        Ok(())
    })
    .await?;
    client.send_eof().await?;
    let rest = receive_to_end(&server).await?;
    match won.take() {
        Some(lease) => {
            assert_eq!(&*lease, b"x");
            assert!(rest.is_empty(), "a byte comes once");
            Ok(true)
        }
        None => {
            assert_eq!(rest, b"x", "a cancelled receive takes nothing");
            Ok(false)
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    CancelFirst,
    ByteFirst,
}

#[trio::test(backend = "all")]
async fn d1_a_receive_cancelled_in_the_turn_of_its_byte_gives_the_byte_once() -> Result<()> {
    for _ in 0..20 {
        race(Order::CancelFirst).await?;
        race(Order::ByteFirst).await?;
    }
    Ok(())
}

#[test]
fn d1_both_orders_happen_under_the_first_hundred_seeds() {
    let mut outcomes = [0, 0];
    for seed in crate::network::seeds(100) {
        let won = simulate(&Simulation::new(seed), race(Order::ByteFirst));
        outcomes[usize::from(won)] += 1;
    }
    assert!(outcomes.iter().all(|&count| count > 0), "{outcomes:?}");
}

// D2: `Cancelled` means that nothing was taken.

#[trio::test(backend = "all")]
async fn d2_a_cancelled_receive_leaves_the_bytes_to_the_next() -> Result<()> {
    let (client, server) = pair().await?;
    let mut buffer = [0; 8];
    for byte in 0..10 {
        let receive = async {
            match byte % 2 {
                0 => server.receive().await.map(drop),
                _ => server.receive_some(&mut buffer).await.map(drop),
            }
        };
        assert!(cancelled_when_blocked(receive).await?.is_none());
        client.send_all(vec![byte]).await?;
        assert_eq!(receive_exactly(&server, 1).await?, [byte]);
    }
    Ok(())
}

#[trio::test(backend = "all")]
async fn d2_a_receive_in_a_cancelled_scope_takes_nothing_of_what_is_there() -> Result<()> {
    let (client, server) = pair().await?;
    client.send_all(b"abc").await?;
    let scope = CancelScope::new();
    scope.cancel("before anything");
    assert!(scope.enter(server.receive()).await?.is_none());
    assert_eq!(receive_exactly(&server, 1).await?, b"a");

    // Even when the stream knows that there is more.
    let scope = CancelScope::new();
    scope.cancel("before anything");
    assert!(scope.enter(server.receive()).await?.is_none());
    assert_eq!(receive_exactly(&server, 2).await?, b"bc");
    Ok(())
}

#[trio::test(backend = "all")]
async fn d2_a_cancelled_accept_leaves_the_connection_to_the_next() -> Result<()> {
    let (listener, address) = listen().await?;
    for _ in 0..5 {
        assert!(cancelled_when_blocked(listener.accept()).await?.is_none());
        let client = connect_tcp(address).await?;
        let scope = CancelScope::new();
        scope.cancel("before anything");
        assert!(scope.enter(listener.accept()).await?.is_none());
        let server = listener.accept().await?;
        assert_eq!(server.peer_address()?, client.local_address()?);
    }
    Ok(())
}

#[trio::test(backend = "all")]
async fn d2_a_cancelled_send_operation_has_sent_nothing() -> Result<()> {
    let (descriptor, peer) = raw_pair().await?;
    let mut sent = 0;
    loop {
        let send = submit(Send::new(descriptor.clone(), vec![7; 32 * 1024]));
        match cancelled_when_blocked(send).await? {
            // A part is reported as a part, even by a send that was cancelled.
            Some(finished) => sent += finished.into_sent().1? as usize,
            None => break,
        }
    }
    drop(descriptor);
    assert_eq!(receive_to_end(&peer).await?.len(), sent);
    Ok(())
}

#[trio::test(backend = "all")]
async fn d2_a_connect_that_waits_can_be_cancelled() -> Result<()> {
    // When its queue is full a listener lets nobody in.
    let on = Bind::from((Ipv4Addr::LOCALHOST, 0));
    let listener = TcpListener::open_all(on, 1, false)?.remove(0);
    let address = listener.local_address()?;
    let mut clients = Vec::new();
    while let Some(client) = cancelled_when_blocked(connect_tcp(address)).await? {
        clients.push(client);
        assert!(clients.len() < 100, "the queue is never full");
    }
    assert_eq!(in_flight(), 0);
    for client in &clients {
        let server = listener.accept().await?;
        assert_eq!(server.peer_address()?, client.local_address()?);
    }
    Ok(())
}

// D3: no cancel is lost.

/// Hundreds of receives that are cancelled at once, over a queue with room for two.
async fn many_cancels() -> Result<()> {
    let mut streams = Vec::new();
    for _ in 0..100 {
        let (client, server) = pair().await?;
        streams.extend([client, server]);
    }
    let streams = &streams;
    open_nursery(async |nursery| {
        for stream in streams {
            nursery.start_soon(async {
                stream.receive().await?;
                panic!("nobody sends anything");
            });
        }
        wait_all_tasks_blocked(Duration::ZERO).await?;
        assert_eq!(in_flight(), 200);
        nursery.cancel_scope().cancel("all at once");
        Ok(())
    })
    .await?;
    assert_eq!(in_flight(), 0);
    if backend().backend() != Backend::Polling {
        let overflowed = driver_statistics().overflowed;
        assert!(overflowed > 300, "only {overflowed} requests had to wait");
    }
    for two in streams.chunks(2) {
        two[0].send_all(b"x").await?;
        assert_eq!(receive_exactly(&two[1], 1).await?, b"x");
    }
    Ok(())
}

#[test]
fn d3_a_cancel_that_finds_the_queue_full_is_not_lost() {
    for (name, builder) in [
        (
            "io_uring",
            Builder::new().backend(Backend::IoUring).entries(2),
        ),
        ("polling", Builder::new().backend(Backend::Polling)),
        (
            "simulation",
            Builder::new().simulation(Simulation::new(1).queue_entries(2)),
        ),
    ] {
        if let Err(error) = builder.run(many_cancels()) {
            panic!("on {name}: {error:?}");
        }
    }
}

#[test]
fn d3_an_operation_that_is_cancelled_before_the_kernel_knows_of_it_ends() {
    for (name, builder) in [
        (
            "io_uring",
            Builder::new().backend(Backend::IoUring).entries(2),
        ),
        ("polling", Builder::new().backend(Backend::Polling)),
        (
            "simulation",
            Builder::new().simulation(Simulation::new(1).queue_entries(2)),
        ),
    ] {
        let result = builder.run(async {
            let (client, server) = pair().await?;
            let servers: Vec<TcpStream> = {
                let mut streams = Vec::new();
                for _ in 0..20 {
                    streams.push(pair().await?);
                }
                streams
                    .into_iter()
                    .flat_map(|(one, two)| [one, two])
                    .collect()
            };
            // All of them are submitted, and cancelled, in one turn.
            open_nursery(async |nursery| {
                for stream in &servers {
                    nursery.start_soon(async { stream.receive().await.map(drop) });
                }
                let scope = nursery.cancel_scope();
                nursery.start_soon(async move {
                    scope.cancel("in the turn of the submissions");
                    Ok(())
                });
                Ok(())
            })
            .await?;
            assert_eq!(in_flight(), 0);
            client.send_all(b"x").await?;
            assert_eq!(receive_exactly(&server, 1).await?, b"x");
            Ok::<(), trio::Error>(())
        });
        if let Err(error) = result {
            panic!("on {name}: {error:?}");
        }
    }
}

// D4: a future that others drop half-way loses nothing.

#[trio::test(backend = "all")]
async fn d4_receives_dropped_in_the_middle_lose_no_byte_and_keep_the_order() -> Result<()> {
    let (client, server) = pair().await?;
    let data = numbered(20_000);
    let sent = &data;
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            for (index, chunk) in sent.chunks(13).enumerate() {
                client.send_all(chunk).await?;
                for _ in 0..index * 5 % 24 {
                    checkpoint().await?;
                }
            }
            client.send_eof().await
        });
        let mut received = Vec::new();
        let mut dropped = 0;
        let mut small = [0; 5];
        for round in 0.. {
            // A busy run asks its driver in some of its turns only.
            let turns = round * 7 % 40;
            let more = match round % 2 {
                0 => match dropped_after(turns, server.receive()).await {
                    Some(lease) => lease?.map(|lease| lease.to_vec()),
                    None => Some(Vec::new()),
                },
                _ => match dropped_after(turns, server.receive_some(&mut small)).await {
                    Some(Ok(0)) => None,
                    Some(count) => Some(small[..count?].to_vec()),
                    None => Some(Vec::new()),
                },
            };
            let Some(more) = more else { break };
            dropped += usize::from(more.is_empty());
            received.extend(more);
        }
        assert!(
            &received == sent,
            "bytes were lost or came in another order"
        );
        assert!(dropped > 50, "only {dropped} receives were dropped");
        Ok(())
    })
    .await
}

#[trio::test(backend = "all")]
async fn d4_the_losers_of_a_select_lose_no_byte() -> Result<()> {
    let (client, server) = pair().await?;
    let (other, quiet) = pair().await?;
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            for byte in 0..=99 {
                client.send_all(vec![byte]).await?;
                other.send_all(vec![byte]).await?;
                checkpoint().await?;
            }
            client.send_eof().await?;
            other.send_eof().await
        });
        let (mut one, mut two) = (Vec::new(), Vec::new());
        let mut open = 2;
        while open > 0 {
            futures::select! {
                data = server.receive().fuse() => match data? {
                    Some(data) => one.extend_from_slice(&data),
                    None => open -= 1,
                },
                data = quiet.receive().fuse() => match data? {
                    Some(data) => two.extend_from_slice(&data),
                    None => open -= 1,
                },
            }
            // A stream at its end is always ready, so the other gets its turn by chance.
        }
        one.extend(receive_to_end(&server).await?);
        two.extend(receive_to_end(&quiet).await?);
        let all: Vec<u8> = (0..=99).collect();
        assert_eq!(one, all);
        assert_eq!(two, all);
        Ok(())
    })
    .await
}

#[trio::test(backend = "all")]
async fn d4_a_crowd_of_receives_dropped_for_the_first_loses_no_byte() -> Result<()> {
    const STREAMS: usize = 8;
    const BYTES: u8 = 50;
    let mut pairs = Vec::new();
    for _ in 0..STREAMS {
        pairs.push(pair().await?);
    }
    let pairs = &pairs;
    open_nursery(async |nursery| {
        for (index, (client, _)) in pairs.iter().enumerate() {
            nursery.start_soon(async move {
                for byte in 0..BYTES {
                    client.send_all(vec![byte]).await?;
                    for _ in 0..index % 3 {
                        checkpoint().await?;
                    }
                }
                Ok(())
            });
        }
        let mut received = vec![Vec::new(); STREAMS];
        while received
            .iter()
            .any(|bytes| bytes.len() < usize::from(BYTES))
        {
            let mut crowd: FuturesUnordered<_> = pairs
                .iter()
                .enumerate()
                .map(|(index, (_, server))| async move { (index, server.receive().await) })
                .collect();
            let (index, data) = crowd.next().await.expect("the crowd is not empty");
            received[index].extend_from_slice(&data?.expect("nobody has closed"));
        }
        let all: Vec<u8> = (0..BYTES).collect();
        assert!(received.iter().all(|bytes| *bytes == all), "{received:?}");
        Ok(())
    })
    .await
}

#[trio::test(backend = "all")]
async fn d4_accepts_dropped_in_the_middle_lose_no_connection() -> Result<()> {
    const CLIENTS: usize = 40;
    let (listener, address) = listen().await?;
    open_nursery(async |nursery| {
        nursery.start_soon(async move {
            for number in 0..CLIENTS {
                let client = connect_tcp(address).await?;
                client.send_all(vec![u8::try_from(number).unwrap()]).await?;
                for _ in 0..number % 3 {
                    checkpoint().await?;
                }
            }
            Ok(())
        });
        let mut numbers = Vec::new();
        for round in 0.. {
            if numbers.len() == CLIENTS {
                break;
            }
            if let Some(server) = dropped_after(round * 7 % 40, listener.accept()).await {
                numbers.extend(receive_to_end(&server?).await?);
            }
        }
        numbers.sort_unstable();
        assert_eq!(numbers, (0..40).collect::<Vec<u8>>());
        Ok(())
    })
    .await
}

#[trio::test(backend = "all")]
async fn d4_a_connection_that_a_dropped_accept_won_goes_with_the_listener() -> Result<()> {
    let (listener, address) = listen().await?;
    let client = connect_tcp(address).await?;
    let before = driver_statistics().completed;
    {
        let mut accept = Box::pin(listener.accept());
        assert!(futures::poll!(&mut accept).is_pending());
        // Reported, but not seen by the future, which is dropped here.
        while driver_statistics().completed == before {
            checkpoint().await?;
        }
    }
    drop(listener);
    // Either the end of file or a reset: an end in any case.
    drop(client.receive().await);
    assert_eq!(in_flight(), 0);
    Ok(())
}

#[test]
fn d4_what_is_dropped_in_the_middle_leaves_no_socket_behind() {
    let world = Simulation::new(1);
    simulate(&world, async {
        let (listener, address) = listen().await?;
        for turns in 0..6 {
            // Both at once, and both dropped: each may have won by then.
            let both = join(listener.accept(), connect_tcp(address));
            drop(dropped_after(turns, both).await);
        }
        Ok(())
    });
    assert_eq!(world.open_sockets(), 0);
}

// D5: forgetting a future half-way is safe.

/// Starts `future`, and forgets it while it waits.
#[allow(clippy::mem_forget)] // that is what is tested
async fn start_and_forget(future: impl Future) {
    let mut future = Box::pin(future);
    assert!(futures::poll!(&mut future).is_pending());
    std::mem::forget(future);
}

#[trio::test(backend = "all")]
async fn d5_an_operation_of_a_forgotten_future_ends_with_its_task() -> Result<()> {
    let (_client, server) = pair().await?;
    let (listener, _) = listen().await?;
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            start_and_forget(server.receive()).await;
            start_and_forget(listener.accept()).await;
            // In flight in the kernel, not only on the way there.
            wait_all_tasks_blocked(Duration::ZERO).await?;
            assert_eq!(in_flight(), 2);
            Ok(())
        });
        Ok(())
    })
    .await?;
    assert_eq!(in_flight(), 0);
    Ok(())
}

#[trio::test(backend = "all")]
async fn d5_an_operation_forgotten_in_a_body_ends_with_the_nursery() -> Result<()> {
    let (_client, server) = pair().await?;
    open_nursery(async |_| {
        start_and_forget(server.receive()).await;
        wait_all_tasks_blocked(Duration::ZERO).await
    })
    .await?;
    assert_eq!(in_flight(), 0);
    Ok(())
}

/// Receives until the connection is watched, forgets a receive, and drops the stream: its readiness
/// is not reported any more, in particular not to whatever waits in the same place next.
async fn forget_a_watch_and_its_stream() -> Result<()> {
    let (client, server) = pair().await?;
    for byte in 0..4 {
        client.send_all(vec![byte]).await?;
        assert_eq!(&*server.receive().await?.unwrap(), [byte]);
    }
    let before = in_flight();
    start_and_forget(server.receive()).await;
    wait_all_tasks_blocked(Duration::ZERO).await?;
    assert_eq!(in_flight(), before + 1);
    drop(server);
    assert_eq!(in_flight(), before);
    assert_eq!(client.receive().await?.map(|data| data.len()), None);
    Ok(())
}

#[trio::test(backend = "polling")]
async fn d5_a_forgotten_watch_ends_with_its_stream() -> Result<()> {
    forget_a_watch_and_its_stream().await
}

#[cfg(target_os = "linux")]
#[trio::test(backend = "io_uring")]
async fn d5_a_forgotten_watch_over_io_uring_ends_with_its_stream() -> Result<()> {
    forget_a_watch_and_its_stream().await
}

#[test]
fn d5_a_forgotten_operation_does_not_keep_the_run_from_ending() {
    on_every_driver(|| async {
        let (_client, server) = pair().await?;
        start_and_forget(server.receive()).await;
        checkpoint().await
    });
}

#[trio::test(backend = "all")]
async fn d5_a_forgotten_receive_that_has_ended_keeps_its_memory_to_itself() -> Result<()> {
    let (client, server) = pair().await?;
    let (other, beside) = pair().await?;
    start_and_forget(server.receive()).await;
    client.send_all(b"for nobody").await?;
    wait_all_tasks_blocked(Duration::ZERO).await?;
    for byte in 0..100 {
        other.send_all(vec![byte]).await?;
        assert_eq!(&*beside.receive().await?.unwrap(), [byte]);
    }
    Ok(())
}

#[trio::test(backend = "all")]
async fn d5_a_forgotten_nursery_leaves_nothing_in_flight() -> Result<()> {
    let (_client, server) = pair().await?;
    let server = std::rc::Rc::new(server);
    open_nursery(async |nursery| {
        let server = server.clone();
        nursery.start_soon(async move {
            start_and_forget(open_nursery(async move |inner| {
                inner.start_soon(async move { server.receive().await.map(drop) });
                Ok(())
            }))
            .await;
            Ok(())
        });
        Ok(())
    })
    .await
}

// D6: a panic with operations in flight leaves none behind.

/// Runs `task` in a nursery beside a task that receives, until `task` panics.
async fn panic_beside_a_receive(task: impl Future<Output = Result<()>>) -> Result<()> {
    let (client, server) = pair().await?;
    let receiver = &server;
    let ended = Cell::new(false);
    let has_ended = &ended;
    let nursery = open_nursery(async |nursery| {
        nursery.start_soon(async move {
            let error = receiver.receive().await.unwrap_err();
            assert!(error.is_cancelled());
            has_ended.set(true);
            Err(error)
        });
        nursery.start_soon(task);
        Ok(())
    });
    let panic = AssertUnwindSafe(nursery).catch_unwind().await.unwrap_err();
    assert_eq!(*panic.downcast_ref::<&str>().unwrap(), "on purpose");
    assert!(ended.get(), "the sibling was cancelled and waited for");
    assert_eq!(in_flight(), 0);
    client.send_all(b"x").await?;
    assert_eq!(receive_exactly(&server, 1).await?, b"x");
    Ok(())
}

/// Panics once all tasks wait.
async fn panic_on_purpose() -> Result<()> {
    wait_all_tasks_blocked(Duration::ZERO).await?;
    panic!("on purpose");
}

#[trio::test(backend = "all")]
async fn d6_a_panic_in_a_sibling_takes_back_what_is_in_flight() -> Result<()> {
    panic_beside_a_receive(panic_on_purpose()).await
}

#[trio::test(backend = "all")]
async fn d6_a_panic_in_the_task_itself_takes_back_what_is_in_flight() -> Result<()> {
    let (client, server) = pair().await?;
    let (listener, _) = listen().await?;
    panic_beside_a_receive(async {
        let waits = join(server.receive(), listener.accept());
        let (_, panicked) = join(waits, panic_on_purpose()).await;
        panicked
    })
    .await?;
    client.send_all(b"y").await?;
    assert_eq!(receive_exactly(&server, 1).await?, b"y");
    Ok(())
}

#[trio::test(backend = "all")]
async fn d6_a_panic_in_a_task_with_a_forgotten_operation_waits_for_it() -> Result<()> {
    let (_client, server) = pair().await?;
    panic_beside_a_receive(async {
        start_and_forget(server.receive()).await;
        panic_on_purpose().await
    })
    .await
}

#[test]
fn d6_a_panic_in_main_takes_back_what_is_in_flight() {
    for (name, builder) in builders() {
        let address = Cell::new(None);
        let run = || {
            builder.run(async {
                let (listener, own) = listen().await?;
                address.set(Some(own));
                let (_client, server) = pair().await?;
                let waits = join(server.receive(), listener.accept());
                join(waits, panic_on_purpose()).await.1
            })
        };
        let panic = catch_unwind(AssertUnwindSafe(run)).unwrap_err();
        assert_eq!(
            *panic.downcast_ref::<&str>().unwrap(),
            "on purpose",
            "on {name}"
        );
        if name != "simulation" {
            assert_free(address.get().unwrap());
        }
    }

    let world = Simulation::new(1);
    let run = || {
        Builder::new().simulation(world.clone()).run(async {
            let (_client, server) = pair().await?;
            join(server.receive(), panic_on_purpose()).await.1
        })
    };
    catch_unwind(AssertUnwindSafe(run)).unwrap_err();
    assert_all_ended(&world);
}

/// Checks that nobody listens on `address` any more.
fn assert_free(address: SocketAddr) {
    let refused = std::net::TcpStream::connect(address).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
}

/// Checks that whatever started in `world` has ended, and nothing is open.
fn assert_all_ended(world: &Simulation) {
    let trace = world.trace();
    let count =
        |wanted: fn(&What) -> bool| trace.iter().filter(|event| wanted(&event.what)).count();
    let started = count(|what| matches!(what, What::Started { .. }));
    let ended = count(|what| matches!(what, What::Ended { .. }));
    assert_eq!(started, ended);
    assert_eq!(world.open_sockets(), 0);
}

// D7: `run` returns when nothing is in flight.

#[test]
fn d7_run_returns_only_when_nothing_is_in_flight() {
    let world = Simulation::new(1);
    // The operation that is dropped ends three seconds after everything else.
    world.inject(Rule::nth(1, Kind::Cancel, Fault::LateStart(secs(3))));
    let start = world.now();
    let client = simulate(&world, async {
        let (client, server) = pair().await?;
        drop(dropped_after(3, server.receive()).await);
        assert_eq!(in_flight(), 1);
        Ok(client)
    });
    assert_eq!(world.now() - start, secs(3));
    drop(client);
    assert_all_ended(&world);
}

#[test]
fn d7_what_a_run_took_back_is_closed_when_it_returns() {
    for (name, builder) in builders().into_iter().take(2) {
        let address = builder.run(async {
            let listener = socket::stream(Family::V4)?;
            socket::bind(&listener, &(Ipv4Addr::LOCALHOST, 0).into(), false)?;
            socket::listen(&listener, 8)?;
            let address = socket::local_address(&listener)?;
            // The operation holds the last handle to the listener.
            start_and_forget(submit(Accept::new(listener))).await;
            checkpoint().await?;
            Ok::<_, trio::Error>(address)
        });
        println!("on {name}");
        assert_free(address.unwrap());
    }
}

#[test]
fn d7_what_the_kernel_does_not_give_back_is_leaked_and_not_waited_for_longer() {
    let world = Simulation::new(1);
    world.inject(Rule::nth(1, Kind::Cancel, Fault::LateStart(secs(3600))));
    let start = world.now();
    let client = simulate(&world, async {
        let (client, server) = pair().await?;
        drop(dropped_after(3, server.receive()).await);
        Ok(client)
    });
    assert_eq!(world.now() - start, secs(5));
    drop(client);
    assert_eq!(
        world.open_sockets(),
        1,
        "the leaked operation keeps its socket"
    );
}

// D8: a nursery does not end while an orphan of one of its tasks is in flight.

/// How long the orphans of these tests take to end.
fn slow_cancel(world: &Simulation) {
    world.inject(Rule::nth(1, Kind::Cancel, Fault::LateStart(secs(2))));
}

#[test]
fn d8_a_nursery_waits_for_the_orphan_of_a_task_that_has_ended() {
    let world = Simulation::new(1);
    simulate(&world, async {
        let (client, server) = pair().await?;
        slow_cancel(&world);
        let start = current_time();
        open_nursery(async |nursery| {
            nursery.start_soon(async {
                drop(dropped_after(3, server.receive()).await);
                Ok(())
            });
            Ok(())
        })
        .await?;
        assert_eq!(current_time() - start, secs(2));
        assert_eq!(in_flight(), 0);
        client.send_all(b"x").await?;
        assert_eq!(receive_exactly(&server, 1).await?, b"x");
        Ok(())
    });
}

#[test]
fn d8_a_nursery_waits_for_the_orphan_of_its_body() {
    let world = Simulation::new(1);
    simulate(&world, async {
        let (_client, server) = pair().await?;
        slow_cancel(&world);
        let start = current_time();
        open_nursery(async |_| {
            drop(dropped_after(3, server.receive()).await);
            Ok(())
        })
        .await?;
        assert_eq!(current_time() - start, secs(2));
        Ok(())
    });
}

#[test]
fn d8_a_nursery_waits_for_the_orphan_of_a_nursery_dropped_in_it() {
    let world = Simulation::new(1);
    simulate(&world, async {
        let (_client, server) = pair().await?;
        let server = &server;
        slow_cancel(&world);
        let start = current_time();
        open_nursery(async |_| {
            let inner = open_nursery(async |inner| {
                inner.start_soon(async { server.receive().await.map(drop) });
                Ok(())
            });
            drop(dropped_after(5, inner).await);
            assert_eq!(in_flight(), 1);
            Ok(())
        })
        .await?;
        assert_eq!(current_time() - start, secs(2));
        Ok(())
    });
}

#[trio::test(backend = "all")]
async fn d8_a_nursery_dropped_after_the_one_that_it_was_opened_in_leaves_nothing() -> Result<()> {
    let (_client, server) = pair().await?;
    let server = &server;
    let mut moved = None;
    open_nursery(async |_| {
        let mut inner = Box::pin(open_nursery(async |inner| {
            inner.start_soon(async { server.receive().await.map(drop) });
            Ok(())
        }));
        for _ in 0..5 {
            assert!(futures::poll!(&mut inner).is_pending());
            checkpoint().await?;
        }
        moved = Some(inner);
        Ok(())
    })
    .await?;
    assert_eq!(in_flight(), 1);
    drop(moved);
    wait_all_tasks_blocked(Duration::ZERO).await?;
    assert_eq!(in_flight(), 0);
    Ok(())
}

#[test]
fn d8_a_nursery_waits_for_an_operation_that_was_forgotten() {
    let world = Simulation::new(1);
    simulate(&world, async {
        let (_client, server) = pair().await?;
        slow_cancel(&world);
        let start = current_time();
        open_nursery(async |nursery| {
            nursery.start_soon(async {
                start_and_forget(server.receive()).await;
                checkpoint().await
            });
            Ok(())
        })
        .await?;
        assert_eq!(current_time() - start, secs(2));
        Ok(())
    });
}

#[test]
fn d8_what_an_orphan_wins_is_there_for_the_next_receive() {
    let world = Simulation::new(1);
    simulate(&world, async {
        let (client, server) = pair().await?;
        slow_cancel(&world);
        drop(dropped_after(3, server.receive()).await);
        client.send_all(b"won ").await?;
        client.send_all(b"by an orphan").await?;
        client.send_eof().await?;
        assert_eq!(receive_to_end(&server).await?, b"won by an orphan");
        Ok(())
    });
    let outcomes = |wanted: Outcome| {
        let ended = |event: &&trio::testing::TraceEvent| matches!(event.what, What::Ended { outcome, .. } if outcome == wanted);
        world.trace().iter().filter(ended).count()
    };
    assert_eq!(outcomes(Outcome::Cancelled), 0, "the orphan has won");
}

#[trio::test(backend = "all")]
async fn d8_nothing_is_in_flight_when_a_nursery_has_ended() -> Result<()> {
    let results = RefCell::new(Vec::new());
    let collected = &results;
    for turns in 0..6 {
        let (client, server) = pair().await?;
        let (listener, address) = listen().await?;
        open_nursery(async |nursery| {
            nursery.start_soon(async {
                drop(dropped_after(turns, server.receive()).await);
                Ok(())
            });
            nursery.start_soon(async {
                drop(dropped_after(turns, listener.accept()).await);
                Ok(())
            });
            nursery.start_soon(async {
                let connection = connect_tcp(address).await?;
                collected.borrow_mut().push(connection);
                client.send_all(b"x").await
            });
            Ok(())
        })
        .await?;
        assert_eq!(in_flight(), 0);
    }
    assert_eq!(results.borrow().len(), 6);
    Ok(())
}

/// An accept of the driver's own, without a listener around it, leaves its connection too.
#[trio::test(backend = "all")]
async fn d8_an_accept_that_was_dropped_is_counted_until_it_ends() -> Result<()> {
    let descriptor = socket::stream(Family::V4)?;
    socket::bind(&descriptor, &(Ipv4Addr::LOCALHOST, 0).into(), false)?;
    socket::listen(&descriptor, 8)?;
    open_nursery(async |_| {
        drop(dropped_after(2, submit(Accept::new(descriptor.clone()))).await);
        Ok(())
    })
    .await?;
    assert_eq!(in_flight(), 0);
    Ok(())
}

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}
