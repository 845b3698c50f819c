//! What a TCP stream promises: the contract of every stream, over the network of every driver.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use trio::io::{
    AsyncResource, HalfCloseableStream, Outgoing, ReceiveStream, SendStream, Stream,
    aclose_forcefully,
};
use trio::lowlevel::{Connect, Family, Interest, Ready, Send, current_statistics, socket, submit};
use trio::net::{TcpListener, TcpStream, connect_tcp, open_tcp_listeners};
use trio::testing::{Errno, Fault, Kind, Rule, Simulation, wait_all_tasks_blocked};
use trio::{
    Backend, BrokenResource, BusyResource, CancelScope, ClosedResource, Error, Result, backend,
    checkpoint, current_time, move_on_after, open_nursery, sleep,
};

use crate::network::{
    cancelled_when_blocked, clogged_pair, in_flight, listen, numbered, pair, receive_exactly,
    receive_to_end, simulate,
};

#[track_caller]
fn assert_busy<T>(result: Result<T>) {
    let error = result.err().expect("the direction is in use");
    assert!(error.is::<BusyResource>(), "{error:?}");
}

#[track_caller]
fn assert_closed<T>(result: Result<T>) {
    let error = result.err().expect("this side has closed it");
    assert!(error.is::<ClosedResource>(), "{error:?}");
}

#[track_caller]
fn assert_broken<T>(result: Result<T>) {
    let error = result.err().expect("the other side has broken it");
    assert!(error.is::<BrokenResource>(), "{error:?}");
}

/// Starts `first`, and runs `second` while it waits. Returns the outcome of the first; `None` if it
/// was still waiting then, and was cancelled.
async fn while_waiting<T>(
    first: impl Future<Output = Result<T>>,
    second: impl Future<Output = Result<()>>,
) -> Result<Option<Result<T>>> {
    let scope = CancelScope::new();
    let result = RefCell::new(None);
    let (inside, outcome) = (&scope, &result);
    open_nursery(async |nursery| {
        nursery.start_soon(async move {
            let work = async {
                match first.await {
                    Err(error) if error.is_cancelled() => Err(error),
                    other => Ok(other),
                }
            };
            *outcome.borrow_mut() = inside.enter(work).await?;
            Ok(())
        });
        wait_all_tasks_blocked(Duration::ZERO).await?;
        assert!(outcome.borrow().is_none(), "the first has to wait");
        second.await?;
        wait_all_tasks_blocked(Duration::ZERO).await?;
        inside.cancel("the second has ended");
        Ok(())
    })
    .await?;
    Ok(result.take())
}

// One user in each direction.

#[trio::test(backend = "all")]
async fn a_second_receive_is_told_that_the_first_is_there() -> Result<()> {
    let (client, server) = pair().await?;
    let first = while_waiting(server.receive(), async {
        assert_busy(server.receive().await);
        assert_busy(server.receive_some(&mut [0]).await);
        // The other direction is free.
        server.send_all(b"x").await?;
        client.send_all(b"y").await
    });
    let lease = first.await?.expect("the byte has come")?.unwrap();
    assert_eq!(&*lease, b"y");

    // The second of them has not disturbed the next.
    client.send_all(b"z").await?;
    assert_eq!(receive_exactly(&server, 1).await?, b"z");
    Ok(())
}

#[trio::test(backend = "all")]
async fn a_second_send_is_told_that_the_first_is_there() -> Result<()> {
    let (client, server, clogged) = clogged_pair().await?;
    // More than there is room for, whatever the system does next.
    let data = vec![1; 1 << 20];
    let first = while_waiting(client.send_all(&data), async {
        assert_busy(client.send_all(b"x").await);
        assert_busy(client.send_all(b"").await);
        assert_busy(client.send_eof().await);
        assert_busy(client.wait_send_all_might_not_block().await);
        // The other direction is free.
        server.send_all(b"y").await?;
        assert_eq!(receive_exactly(&client, 1).await?, b"y");
        receive_exactly(&server, clogged + data.len())
            .await
            .map(drop)
    });
    first.await?.expect("there is room again")?;
    client.send_eof().await?;
    assert!(receive_to_end(&server).await?.is_empty());
    Ok(())
}

#[trio::test(backend = "all")]
async fn a_wait_for_room_keeps_others_from_sending() -> Result<()> {
    let (client, _server, _) = clogged_pair().await?;
    let first = while_waiting(client.wait_send_all_might_not_block(), async {
        assert_busy(client.send_all(b"x").await);
        assert_busy(client.wait_send_all_might_not_block().await);
        assert_busy(client.send_eof().await);
        Ok(())
    });
    assert!(first.await?.is_none());
    Ok(())
}

#[trio::test(backend = "all")]
async fn a_second_accept_is_told_that_the_first_is_there() -> Result<()> {
    let (listener, address) = listen().await?;
    let first = while_waiting(listener.accept(), async {
        assert_busy(listener.accept().await);
        connect_tcp(address).await.map(drop)
    });
    first.await?.expect("somebody has connected")?;
    Ok(())
}

#[trio::test(backend = "all")]
async fn a_direction_is_free_again_after_a_cancel_and_after_a_drop() -> Result<()> {
    let (client, server) = pair().await?;
    assert!(cancelled_when_blocked(server.receive()).await?.is_none());
    {
        let mut dropped = Box::pin(server.receive());
        assert!(futures::poll!(&mut dropped).is_pending());
        assert_busy(server.receive().await);
    }
    client.send_all(b"x").await?;
    assert_eq!(receive_exactly(&server, 1).await?, b"x");
    Ok(())
}

/// A stream keeps the place of its last wait. The next to wait may be another task, under another
/// scope, which may be cancelled while nobody waits.
#[trio::test(backend = "all")]
async fn a_stream_is_received_from_by_task_after_task_in_scope_after_scope() -> Result<()> {
    let (client, server) = pair().await?;
    let stream = &server;
    for round in 0..3 {
        open_nursery(async |nursery| {
            nursery.start_soon(async move {
                for _ in 0..4 {
                    let byte = receive_exactly(stream, 1).await?;
                    assert_eq!(byte, [round]);
                }
                Ok(())
            });
            for _ in 0..4 {
                wait_all_tasks_blocked(Duration::ZERO).await?;
                client.send_all(&[round]).await?;
            }
            Ok(())
        })
        .await?;
        assert_eq!(in_flight(), 0, "the task has left nothing behind");
        // A scope that is cancelled after its wait was over, and one that ends the wait.
        let scope = CancelScope::new();
        let body = async {
            client.send_all(b"x").await?;
            assert_eq!(receive_exactly(stream, 1).await?, b"x");
            scope.cancel("nobody waits");
            assert!(
                stream
                    .receive()
                    .await
                    .is_err_and(|error| error.is_cancelled())
            );
            checkpoint().await
        };
        let caught: Option<()> = scope.enter(body).await?;
        assert!(caught.is_none());
        assert!(cancelled_when_blocked(stream.receive()).await?.is_none());
    }
    client.send_all(b"y").await?;
    assert_eq!(receive_exactly(stream, 1).await?, b"y");
    Ok(())
}

// Closed by this side.

#[trio::test(backend = "all")]
async fn closing_wakes_a_receive_with_closed_resource() -> Result<()> {
    for forcefully in [false, true] {
        let (_client, server) = pair().await?;
        let waiting = while_waiting(server.receive(), async {
            match forcefully {
                false => server.aclose().await,
                true => aclose_forcefully(&mut &server).await,
            }
        });
        assert_closed(waiting.await?.expect("it was woken"));
        assert_closed(server.receive().await);
        assert_eq!(in_flight(), 0);
    }
    Ok(())
}

/// Lets turns pass until another task is about to run.
async fn until_somebody_is_woken() -> Result<()> {
    while current_statistics().tasks_runnable == 0 {
        checkpoint().await?;
    }
    Ok(())
}

#[trio::test(backend = "all")]
async fn d9_closing_between_the_wake_of_a_receive_and_its_step_ends_it() -> Result<()> {
    // By an operation, from a feed or after a watch: each driver uses these after so many receives.
    for received_before in [0, 1, 2, 5] {
        let (client, server) = pair().await?;
        for _ in 0..received_before {
            client.send_all(b"x").await?;
            assert_eq!(server.receive().await?.as_deref(), Some(&b"x"[..]));
        }
        let mut next = None;
        let waiting = while_waiting(server.receive(), async {
            client.send_all(b"in time").await?;
            until_somebody_is_woken().await?;
            server.close();
            // Takes the number, if it is free: it must not be received from.
            next = Some(socket::stream(Family::V4)?);
            Ok(())
        });
        assert_closed(waiting.await?.expect("it was woken"));
        assert!(next.is_some());
        assert_closed(server.receive().await);
        assert_eq!(in_flight(), 0);
    }
    Ok(())
}

#[trio::test(backend = "all")]
async fn d9_closing_between_the_wake_of_an_accept_and_its_step_ends_it() -> Result<()> {
    if backend().backend() == Backend::Simulation {
        return Ok(()); // nobody can connect there within one step
    }
    for accepted_before in [0, 1, 2, 5] {
        let (listener, address) = listen().await?;
        for _ in 0..accepted_before {
            drop((connect_tcp(address).await?, listener.accept().await?));
        }
        let mut client = None;
        let waiting = while_waiting(listener.accept(), async {
            client = Some(std::net::TcpStream::connect(address)?);
            until_somebody_is_woken().await?;
            listener.close();
            Ok(())
        });
        assert_closed(waiting.await?.expect("it was woken"));
        assert!(client.is_some());
    }
    Ok(())
}

#[trio::test(backend = "all")]
async fn closing_between_the_wake_of_a_send_and_its_step_ends_it() -> Result<()> {
    let (client, server, clogged) = clogged_pair().await?;
    let data = vec![0; 1 << 20];
    let waiting = while_waiting(client.send_all(&data), async {
        receive_exactly(&server, clogged).await?;
        until_somebody_is_woken().await?;
        client.close();
        Ok(())
    });
    assert_closed(waiting.await?.expect("it was woken"));
    assert_closed(client.send_all(b"x").await);
    assert_eq!(in_flight(), 0);
    // What had been sent before is a part from the front, and then comes the end.
    assert!(receive_to_end(&server).await?.len() < data.len());
    Ok(())
}

#[trio::test(backend = "all")]
async fn closing_wakes_a_send_with_closed_resource() -> Result<()> {
    for owned in [false, true] {
        let (client, _server, _) = clogged_pair().await?;
        let data = vec![0; 1 << 20];
        let send = async {
            match owned {
                false => client.send_all(&data).await,
                true => client.send_all(data.clone()).await,
            }
        };
        let waiting = while_waiting(send, async { client.aclose().await });
        assert_closed(waiting.await?.expect("it was woken"));
    }
    Ok(())
}

#[trio::test(backend = "all")]
async fn closing_wakes_a_wait_for_room_with_closed_resource() -> Result<()> {
    let (client, _server, _) = clogged_pair().await?;
    let waiting = while_waiting(client.wait_send_all_might_not_block(), async {
        client.aclose().await
    });
    assert_closed(waiting.await?.expect("it was woken"));
    Ok(())
}

#[trio::test(backend = "all")]
async fn closing_wakes_an_accept_with_closed_resource() -> Result<()> {
    let (listener, address) = listen().await?;
    let waiting = while_waiting(listener.accept(), async {
        listener.close();
        Ok(())
    });
    assert_closed(waiting.await?.expect("it was woken"));
    assert_closed(listener.accept().await);
    assert_closed(listener.local_address());
    let refused = connect_tcp(address).await.unwrap_err();
    let told = format!("cannot connect to {address}: ");
    assert!(refused.to_string().starts_with(&told), "{refused}");
    let refused = refused.downcast::<io::Error>()?;
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    Ok(())
}

#[trio::test(backend = "all")]
async fn everything_on_a_closed_stream_says_closed_resource() -> Result<()> {
    let (client, server) = pair().await?;
    client.send_all(b"unread").await?;
    server.close();
    assert_closed(server.receive().await);
    assert_closed(server.receive_some(&mut [0]).await);
    assert_closed(server.send_all(b"x").await);
    assert_closed(server.send_all(b"").await);
    assert_closed(server.send_eof().await);
    assert_closed(server.wait_send_all_might_not_block().await);
    assert_closed(server.local_address());
    assert_closed(server.peer_address());
    assert_closed(server.reset_on_close());
    Ok(())
}

#[trio::test(backend = "all")]
async fn closing_again_does_nothing() -> Result<()> {
    let (client, mut server) = pair().await?;
    for _ in 0..3 {
        server.aclose().await?;
        server.close();
        aclose_forcefully(&mut server).await?;
    }
    assert!(receive_to_end(&client).await?.is_empty());
    let (mut listener, _) = listen().await?;
    for _ in 0..3 {
        listener.aclose().await?;
        listener.close();
    }
    Ok(())
}

#[trio::test(backend = "all")]
async fn a_cancelled_close_closes_all_the_same() -> Result<()> {
    let (client, server) = pair().await?;
    let scope = CancelScope::new();
    scope.cancel("before the close");
    assert!(scope.enter(server.aclose()).await?.is_none());
    assert!(scope.cancelled_caught());
    assert!(receive_to_end(&client).await?.is_empty());
    assert_closed(server.receive().await);

    let (mut listener, address) = listen().await?;
    let scope = CancelScope::new();
    scope.cancel("before the close");
    assert!(scope.enter(listener.aclose()).await?.is_none());
    assert!(connect_tcp(address).await.is_err());
    Ok(())
}

#[trio::test(backend = "all")]
async fn a_stream_can_be_closed_after_a_cancelled_send_and_receive() -> Result<()> {
    let (client, server, clogged) = clogged_pair().await?;
    assert!(cancelled_when_blocked(client.receive()).await?.is_none());
    client.aclose().await?;
    assert_eq!(receive_to_end(&server).await?.len(), clogged);
    Ok(())
}

#[trio::test(backend = "all")]
async fn dropping_a_stream_closes_it() -> Result<()> {
    let (client, server) = pair().await?;
    client.send_all(b"last words").await?;
    drop(client);
    assert_eq!(receive_to_end(&server).await?, b"last words");
    Ok(())
}

// Broken by the other side.

#[trio::test(backend = "all")]
async fn a_reset_wakes_a_receive_with_broken_resource_and_its_cause() -> Result<()> {
    let (client, server) = pair().await?;
    let waiting = while_waiting(server.receive(), async {
        client.reset_on_close()?;
        client.aclose().await
    });
    let error = waiting.await?.expect("it was woken").err().unwrap();
    let broken = error.downcast_ref::<BrokenResource>().unwrap();
    let cause = broken.cause().expect("the system has said why");
    assert_eq!(cause.kind(), io::ErrorKind::ConnectionReset);
    Ok(())
}

#[trio::test(backend = "all")]
async fn a_reset_wakes_a_send_with_broken_resource() -> Result<()> {
    for owned in [false, true] {
        let (client, server, _) = clogged_pair().await?;
        let data = vec![0; 1 << 20];
        let send = async {
            match owned {
                false => client.send_all(&data).await,
                true => client.send_all(data.clone()).await,
            }
        };
        let waiting = while_waiting(send, async {
            server.reset_on_close()?;
            server.aclose().await
        });
        assert_broken(waiting.await?.expect("it was woken"));
        assert_broken(client.send_all(b"x").await);
    }
    Ok(())
}

#[trio::test(backend = "all")]
async fn sending_to_somebody_who_has_closed_breaks_before_long_and_stays_broken() -> Result<()> {
    let (client, server) = pair().await?;
    drop(server);
    let mut error = None;
    for _ in 0..1000 {
        if let Err(broken) = client.send_all(&[0; 4096]).await {
            error = Some(broken);
            break;
        }
        checkpoint().await?;
    }
    assert_broken::<()>(Err(error.expect("nobody reads this")));
    assert_broken(client.send_all(b"x").await);
    assert_broken(client.send_all(b"x").await);
    // So far nothing has reported `ClosedResource`: this side has not closed it.
    client.aclose().await?;
    assert_closed(client.send_all(b"x").await);
    Ok(())
}

#[trio::test(backend = "all")]
async fn the_other_side_closing_lets_a_wait_for_room_go_on() -> Result<()> {
    let (client, server, _) = clogged_pair().await?;
    let waiting = while_waiting(client.wait_send_all_might_not_block(), async {
        server.aclose().await
    });
    match waiting.await?.expect("it was woken") {
        Ok(()) => {}
        Err(error) => assert!(error.is::<BrokenResource>(), "{error:?}"),
    }
    Ok(())
}

#[trio::test(backend = "all")]
async fn a_connection_whose_peer_has_gone_before_it_was_accepted_works_as_far_as_it_can()
-> Result<()> {
    let (listener, address) = listen().await?;
    let client = connect_tcp(address).await?;
    client.send_all(b"x").await?;
    client.aclose().await?;
    let server = listener.accept().await?;
    assert_eq!(receive_to_end(&server).await?, b"x");
    Ok(())
}

#[trio::test(backend = "all")]
async fn a_connect_to_nobody_says_what_the_system_said() -> Result<()> {
    let (listener, address) = listen().await?;
    drop(listener);
    let error = connect_tcp(address).await.unwrap_err();
    let told = error.to_string();
    assert!(
        told.ends_with("; nobody listens there: start the server first"),
        "{told}"
    );
    let error = error.downcast::<io::Error>()?;
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    Ok(())
}

#[test]
fn a_connect_that_gets_no_socket_says_to_which_address() {
    let world = Simulation::new(1).without_family(Family::V6);
    simulate(&world, async {
        let error = connect_tcp((Ipv6Addr::LOCALHOST, 80).into()).await;
        let told = error.unwrap_err().to_string();
        assert!(told.starts_with("cannot connect to [::1]:80: "), "{told}");
        Ok(())
    });
}

// The end of file.

#[trio::test(backend = "all")]
async fn the_end_of_file_comes_after_the_data_and_stays() -> Result<()> {
    let (client, server) = pair().await?;
    client.send_all(b"data").await?;
    client.send_eof().await?;
    assert_eq!(receive_to_end(&server).await?, b"data");
    for _ in 0..3 {
        assert!(server.receive().await?.is_none());
        assert_eq!(server.receive_some(&mut [0; 8]).await?, 0);
    }
    Ok(())
}

#[trio::test(backend = "all")]
async fn after_the_end_of_file_nothing_is_sent_and_everything_received() -> Result<()> {
    let (client, server) = pair().await?;
    client.send_eof().await?;
    client.send_eof().await?;
    assert_closed(client.send_all(b"x").await);
    assert_closed(client.send_all(b"").await);
    assert_closed(client.wait_send_all_might_not_block().await);
    assert!(receive_to_end(&server).await?.is_empty());
    server.send_all(b"the other way").await?;
    server.send_eof().await?;
    assert_eq!(receive_to_end(&client).await?, b"the other way");
    Ok(())
}

#[trio::test(backend = "all")]
async fn a_cancelled_end_of_file_has_not_been_sent() -> Result<()> {
    let (client, server) = pair().await?;
    let scope = CancelScope::new();
    scope.cancel("before");
    assert!(scope.enter(client.send_eof()).await?.is_none());
    client.send_all(b"still open").await?;
    client.send_eof().await?;
    assert_eq!(receive_to_end(&server).await?, b"still open");
    Ok(())
}

#[trio::test(backend = "all")]
async fn the_end_of_file_wakes_a_receive() -> Result<()> {
    let (client, server) = pair().await?;
    let waiting = while_waiting(server.receive(), async { client.send_eof().await });
    assert!(waiting.await?.expect("it was woken")?.is_none());
    Ok(())
}

// Sending.

#[trio::test(backend = "all")]
async fn whatever_can_be_sent_arrives() -> Result<()> {
    let (client, server) = pair().await?;
    client.send_all(b"array ").await?;
    client.send_all(&b"slice "[..]).await?;
    client.send_all("text ").await?;
    client.send_all(vec![b'v', b' ']).await?;
    let kept = vec![b'w', b' '];
    client.send_all(&kept).await?;
    assert_eq!(kept, b"w ", "what is lent is still there");
    let mut lease = socket::buffer();
    lease.extend(b"lease ");
    client.send_all(&lease).await?;
    client.send_all(lease).await?;
    client.send_all(Outgoing::Borrowed(b"outgoing")).await?;
    client.send_eof().await?;
    let received = receive_to_end(&server).await?;
    assert_eq!(received, b"array slice text v w lease lease outgoing");
    Ok(())
}

#[trio::test(backend = "all")]
async fn an_empty_send_sends_nothing() -> Result<()> {
    let (client, server) = pair().await?;
    client.send_all(b"").await?;
    client.send_all(Vec::new()).await?;
    assert!(cancelled_when_blocked(server.receive()).await?.is_none());
    client.send_all(b"x").await?;
    client.send_all(b"").await?;
    client.send_eof().await?;
    assert_eq!(receive_to_end(&server).await?, b"x");
    Ok(())
}

#[trio::test(backend = "all")]
async fn every_operation_looks_for_a_cancellation_also_if_it_need_not_wait() -> Result<()> {
    let (client, server) = pair().await?;
    server.send_all(b"x").await?;
    let scope = CancelScope::new();
    scope.cancel("before everything");
    let nothing = scope.enter(async {
        for result in [
            client.send_all(b"").await,
            client.send_all(b"y").await,
            client.wait_send_all_might_not_block().await,
            client.send_eof().await,
            client.receive().await.map(drop),
            client.receive_some(&mut [0]).await.map(drop),
            connect_tcp(client.peer_address()?).await.map(drop),
            open_tcp_listeners((Ipv4Addr::LOCALHOST, 0)).await.map(drop),
        ] {
            let error = result.expect_err("the scope is cancelled");
            assert!(error.is_cancelled(), "{error:?}");
        }
        checkpoint().await
    });
    assert!(nothing.await?.is_none());
    client.send_eof().await?;
    assert!(receive_to_end(&server).await?.is_empty());
    assert_eq!(receive_exactly(&client, 1).await?, b"x");
    Ok(())
}

#[trio::test(backend = "all")]
async fn a_send_waits_for_a_peer_that_does_not_read() -> Result<()> {
    for owned in [false, true] {
        let (client, server, clogged) = clogged_pair().await?;
        let data = numbered(2 * clogged);
        let send = async {
            match owned {
                false => client.send_all(&data).await,
                true => client.send_all(data.clone()).await,
            }
        };
        let waiting = while_waiting(send, async {
            receive_exactly(&server, clogged).await?;
            let received = receive_exactly(&server, data.len()).await?;
            assert!(received == data, "bytes came changed");
            Ok(())
        });
        waiting.await?.expect("everything was read")?;
    }
    Ok(())
}

/// A caller that gives up after a turn or two, while others keep the loop from ever waiting.
#[trio::test(backend = "all")]
async fn a_receive_that_is_dropped_again_and_again_has_its_turn() -> Result<()> {
    let (client, server) = pair().await?;
    open_nursery(async |nursery| {
        nursery.start_soon(async {
            loop {
                checkpoint().await?;
            }
        });
        for patience in [0, 1, 2] {
            client.send_all("late").await?;
            let received = try_for(&server, patience, 1_000).await?;
            assert!(received, "{patience} turns of patience, a thousand times");
        }
        nursery.cancel_scope().cancel("all of it has come");
        Ok(())
    })
    .await
}

/// Whether any of `times` receives returned something, each of them dropped after `patience` turns.
async fn try_for(stream: &TcpStream, patience: u32, times: u32) -> Result<bool> {
    for _ in 0..times {
        let mut receive = pin!(stream.receive());
        for turn in 0..=patience {
            if turn > 0 {
                checkpoint().await?;
            }
            let polled = poll_fn(|context| Poll::Ready(receive.as_mut().poll(context))).await;
            if let Poll::Ready(data) = polled {
                return Ok(data?.is_some_and(|data| &*data == b"late"));
            }
        }
        checkpoint().await?;
    }
    Ok(false)
}

#[trio::test(backend = "all")]
async fn a_wait_for_room_ends_when_the_peer_has_read() -> Result<()> {
    let (client, _server) = pair().await?;
    // At once, while there is room.
    client.wait_send_all_might_not_block().await?;
    let (client, server, clogged) = clogged_pair().await?;
    let waiting = while_waiting(client.wait_send_all_might_not_block(), async {
        receive_exactly(&server, clogged).await.map(drop)
    });
    waiting.await?.expect("there is room again")?;
    client.send_all(b"x").await?;
    assert_eq!(receive_exactly(&server, 1).await?, b"x");
    Ok(())
}

#[trio::test(backend = "all")]
async fn a_cancelled_send_has_sent_a_part_from_the_front() -> Result<()> {
    for owned in [false, true] {
        let (client, server, clogged) = clogged_pair().await?;
        // More than there is room for, whatever is read meanwhile.
        let data = numbered(2 * clogged);
        let send = async {
            match owned {
                false => client.send_all(&data).await,
                true => client.send_all(data.clone()).await,
            }
        };
        let waiting = while_waiting(send, async {
            receive_exactly(&server, clogged).await.map(drop)
        });
        assert!(waiting.await?.is_none(), "it was cancelled");
        client.aclose().await?;
        let received = receive_to_end(&server).await?;
        assert!(!received.is_empty());
        assert!(data.starts_with(&received), "what came is the front of it");
    }
    Ok(())
}

#[trio::test(backend = "all")]
async fn ten_megabytes_go_both_ways_at_once() -> Result<()> {
    let (client, server) = pair().await?;
    let there = numbered(10_000_000);
    let back: Vec<u8> = there.iter().map(|byte| !byte).collect();
    let (there, back, client, server) = (&there, &back, &client, &server);
    open_nursery(async |nursery| {
        for (stream, data) in [(client, there), (server, back)] {
            nursery.start_soon(async move {
                // Pieces of many sizes, alternately lent and given away.
                for (index, piece) in data.chunks(77_777).enumerate() {
                    match index % 2 {
                        0 => stream.send_all(piece).await?,
                        _ => stream.send_all(piece.to_vec()).await?,
                    }
                }
                stream.send_eof().await
            });
        }
        nursery.start_soon(async move {
            assert!(
                receive_to_end(server).await? == *there,
                "bytes came changed"
            );
            Ok(())
        });
        nursery.start_soon(async move {
            let received = receive_exactly(client, back.len()).await?;
            assert!(received == *back, "bytes came changed");
            assert!(client.receive().await?.is_none());
            Ok(())
        });
        Ok(())
    })
    .await
}

// Receiving.

#[trio::test(backend = "all")]
async fn an_empty_buffer_to_receive_into_is_refused() -> Result<()> {
    let (client, server) = pair().await?;
    client.send_all(b"x").await?;
    let error = server.receive_some(&mut []).await.unwrap_err();
    let error = error.downcast::<io::Error>()?;
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert_eq!(receive_exactly(&server, 1).await?, b"x");
    Ok(())
}

#[trio::test(backend = "all")]
async fn a_small_buffer_leaves_the_rest_in_order() -> Result<()> {
    let (client, server) = pair().await?;
    let data = numbered(1000);
    for wait_first in [false, true] {
        let read = async {
            let mut received = Vec::new();
            let mut buffer = [0; 7];
            while received.len() < data.len() {
                // Small, large and lent, in turn.
                match received.len() % 3 {
                    0 => {
                        let count = server.receive_some(&mut buffer[..1]).await?;
                        received.extend_from_slice(&buffer[..count]);
                    }
                    1 => {
                        let count = server.receive_some(&mut buffer).await?;
                        received.extend_from_slice(&buffer[..count]);
                    }
                    _ if received.len() > 900 => {
                        received.extend_from_slice(&server.receive().await?.unwrap());
                    }
                    _ => {
                        let count = server.receive_some(&mut buffer[..3]).await?;
                        received.extend_from_slice(&buffer[..count]);
                    }
                }
            }
            assert_eq!(received, data);
            Ok(())
        };
        if wait_first {
            let waiting = while_waiting(read, async { client.send_all(&data).await });
            waiting.await?.expect("everything has come")?;
        } else {
            client.send_all(&data).await?;
            read.await?;
        }
    }
    Ok(())
}

#[trio::test(backend = "all")]
async fn a_lease_outlives_its_stream() -> Result<()> {
    let (client, server) = pair().await?;
    client.send_all(b"kept").await?;
    let lease = server.receive().await?.unwrap();
    drop((client, server));
    for _ in 0..10 {
        let (client, server) = pair().await?;
        client.send_all(b"something else").await?;
        drop(server.receive().await?);
    }
    assert_eq!(&*lease, b"kept");
    Ok(())
}

#[trio::test(backend = "all")]
async fn more_leases_than_the_kernel_has_blocks_can_be_held() -> Result<()> {
    let (client, server) = pair().await?;
    let mut leases = Vec::new();
    for number in 0..600u16 {
        let waiting = while_waiting(server.receive(), async {
            client.send_all(number.to_be_bytes().to_vec()).await
        });
        leases.push(waiting.await?.expect("it has come")?.unwrap());
    }
    for (number, lease) in (0..600u16).zip(&leases) {
        assert_eq!(**lease, number.to_be_bytes());
    }
    Ok(())
}

#[trio::test(backend = "all")]
async fn a_stream_knows_both_addresses() -> Result<()> {
    let (client, server) = pair().await?;
    assert_eq!(client.local_address()?, server.peer_address()?);
    assert_eq!(client.peer_address()?, server.local_address()?);
    assert_ne!(client.local_address()?.port(), 0);
    Ok(())
}

// Through the traits.

/// What holds for every stream that can be half-closed.
async fn check_half_closeable_stream(
    mut one: impl HalfCloseableStream,
    mut two: impl HalfCloseableStream,
) -> Result<()> {
    check_transfer(&mut one, &mut two).await?;
    check_transfer(&mut two, &mut one).await?;
    one.send_eof().await?;
    one.send_eof().await?;
    assert!(two.receive().await?.is_none());
    assert_closed(one.send_all(b"x").await);
    check_transfer(&mut two, &mut one).await?;
    two.aclose().await?;
    two.aclose().await?;
    assert_closed(two.receive().await);
    assert_closed(two.send_all(b"").await);
    assert_eq!(one.receive_some(&mut [0; 4]).await?, 0);
    aclose_forcefully(&mut one).await?;
    assert_closed(one.receive_some(&mut [0; 4]).await);
    Ok(())
}

async fn check_transfer(from: &mut impl Stream, to: &mut impl Stream) -> Result<()> {
    from.wait_send_all_might_not_block().await?;
    from.send_all(b"").await?;
    from.send_all(b"xyz").await?;
    let mut buffer = [0; 2];
    let count = to.receive_some(&mut buffer).await?;
    let mut received = buffer[..count].to_vec();
    while received.len() < 3 {
        received.extend_from_slice(&to.receive().await?.unwrap());
    }
    assert_eq!(received, b"xyz");
    assert!(to.receive_some(&mut []).await.is_err());
    Ok(())
}

#[trio::test(backend = "all")]
async fn a_stream_and_a_reference_to_one_keep_the_contract_of_the_traits() -> Result<()> {
    let (client, server) = pair().await?;
    check_half_closeable_stream(&client, &server).await?;
    let (client, server) = pair().await?;
    check_half_closeable_stream(client, server).await
}

/// Copies what `from` receives, until its end.
async fn copy(mut from: impl ReceiveStream, mut to: impl SendStream) -> Result<u64> {
    let mut count = 0;
    while let Some(data) = from.receive().await? {
        count += data.len() as u64;
        to.send_all(data).await?;
    }
    Ok(count)
}

#[trio::test(backend = "all")]
async fn generic_code_splits_a_stream_between_two_tasks_by_reference() -> Result<()> {
    let (client, left) = pair().await?;
    let (right, server) = pair().await?;
    let copied = Cell::new(0);
    let (left, right, total) = (&left, &right, &copied);
    open_nursery(async |nursery| {
        for (from, to) in [(left, right), (right, left)] {
            nursery.start_soon(async move {
                let count = copy(from, to).await?;
                total.set(total.get() + count);
                (&mut &*to).send_eof().await
            });
        }
        client.send_all(b"there").await?;
        assert_eq!(receive_exactly(&server, 5).await?, b"there");
        server.send_all(b"and back").await?;
        assert_eq!(receive_exactly(&client, 8).await?, b"and back");
        client.send_eof().await?;
        server.send_eof().await?;
        assert!(receive_to_end(&server).await?.is_empty());
        assert!(receive_to_end(&client).await?.is_empty());
        Ok(())
    })
    .await?;
    assert_eq!(copied.get(), 13);
    Ok(())
}

// In the simulation: faults of the world.

#[test]
fn whatever_the_system_says_of_a_transfer_breaks_the_stream() {
    let world = Simulation::new(1);
    simulate(&world, async {
        for errno in [
            Errno::TimedOut,
            Errno::HostUnreachable,
            Errno::ConnectionReset,
        ] {
            let (client, server) = pair().await?;
            client.send_all(b"x").await?;
            world.inject(Rule::nth(1, Kind::Receive, Fault::Fail(errno)));
            let error = server.receive().await.unwrap_err();
            let broken = error.downcast_ref::<BrokenResource>().unwrap();
            let said = io::Error::from(errno);
            assert_eq!(broken.cause().unwrap().raw_os_error(), said.raw_os_error());
            world.inject(Rule::nth(1, Kind::Send, Fault::Fail(errno)));
            assert_broken(server.send_all(b"x").await);
        }
        Ok(())
    });
}

#[test]
fn a_slow_network_delays_what_is_sent_and_nothing_else() {
    let way = Duration::from_millis(30);
    let world = Simulation::new(1).latency(way..=way);
    simulate(&world, async {
        let (client, server) = pair().await?;
        let start = current_time();
        client.send_all(b"ping").await?;
        assert_eq!(current_time(), start);
        assert_eq!(receive_exactly(&server, 4).await?, b"ping");
        assert_eq!(current_time() - start, way);
        Ok(())
    });
}

#[test]
fn a_timeout_in_the_middle_of_a_stream_loses_nothing() {
    let world = Simulation::new(1);
    simulate(&world, async {
        let (client, server) = pair().await?;
        let data = numbered(500);
        let sent = &data;
        open_nursery(async |nursery| {
            nursery.start_soon(async {
                for chunk in sent.chunks(5) {
                    sleep(Duration::from_millis(3)).await?;
                    client.send_all(chunk).await?;
                }
                client.send_eof().await
            });
            let mut received = Vec::new();
            let mut late = 0;
            loop {
                let patience = Duration::from_millis(2);
                match move_on_after(patience, server.receive()).await? {
                    None => late += 1,
                    Some(None) => break,
                    Some(Some(data)) => received.extend_from_slice(&data),
                }
            }
            assert_eq!(&received, sent);
            assert!(late >= 100, "only {late} receives were cancelled");
            Ok(())
        })
        .await
    });
}

// An operation belongs to its descriptor until it ends, and the number is not reused before that.

#[trio::test(backend = "all")]
async fn closing_while_an_operation_waits_does_not_touch_the_next_connection() -> Result<()> {
    for _ in 0..20 {
        let (_client, server) = pair().await?;
        let mut waiting = Box::pin(server.receive());
        assert!(futures::poll!(&mut waiting).is_pending());
        server.close();
        // Takes the number, if it is free.
        let (other, next) = pair().await?;
        other.send_all(b"for the next").await?;
        assert_closed(waiting.await);
        assert_eq!(receive_exactly(&next, 12).await?, b"for the next");
    }
    Ok(())
}

#[trio::test(backend = "all")]
async fn a_descriptor_is_closed_when_its_last_operation_has_ended() -> Result<()> {
    let (listener, address) = listen().await?;
    let connect = Connect::new(socket::stream(Family::V4)?, address);
    let descriptor = submit(connect).await?.into_connected()?;
    let server = listener.accept().await?;
    let mut waiting = Box::pin(submit(Ready::new(descriptor.clone(), Interest::Readable)));
    assert!(futures::poll!(&mut waiting).is_pending());
    submit(Send::new(descriptor, vec![b'x']))
        .await?
        .into_sent()
        .1?;
    assert_eq!(receive_exactly(&server, 1).await?, b"x");
    // The operation that waits holds the descriptor's last handle.
    assert!(cancelled_when_blocked(server.receive()).await?.is_none());
    drop(waiting);
    assert!(receive_to_end(&server).await?.is_empty());
    Ok(())
}

#[trio::test(backend = "all")]
async fn streams_are_made_of_descriptors() -> Result<()> {
    let (listener, address) = listen().await?;
    let connect = Connect::new(socket::stream(Family::V4)?, address);
    let client = TcpStream::from_descriptor(submit(connect).await?.into_connected()?);
    let server = listener.accept().await?;
    client.send_all(b"x").await?;
    assert_eq!(receive_exactly(&server, 1).await?, b"x");

    let descriptor = socket::stream(Family::V4)?;
    let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    socket::bind(&descriptor, &anywhere, false)?;
    socket::listen(&descriptor, 4)?;
    let listener = TcpListener::from_descriptor(descriptor);
    let client = connect_tcp(listener.local_address()?).await?;
    let server = listener.accept().await?;
    assert_eq!(client.local_address()?, server.peer_address()?);
    Ok::<(), Error>(())
}
