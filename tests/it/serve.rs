//! Listeners and servers: where they listen, what they do with errors, and how they end.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use trio::io::AsyncResource;
use trio::lowlevel::{Family, socket};
use trio::net::{
    Bind, Server, TcpListener, TcpStream, connect_tcp, open_tcp_listeners, serve_listeners,
};
use trio::testing::{Errno, Fault, Kind, Rule, Simulation, wait_all_tasks_blocked};
use trio::{
    CancelScope, ClosedResource, Error, Result, checkpoint, current_effective_deadline,
    current_time, move_on_after, open_nursery, serve_tcp, sleep, sleep_forever, until_draining,
};

use crate::network::{
    cancelled_when_blocked, in_flight, listen, receive_exactly, receive_to_end, simulate,
};

/// The kind of the `io::Error` that `result` failed with.
#[track_caller]
fn kind_of<T>(result: Result<T>) -> io::ErrorKind {
    let error = result.err().expect("it fails");
    let error = error.downcast_ref::<io::Error>();
    error.expect("the system has said why").kind()
}

// TL1: the queue of a listener.

#[test]
fn tl1_a_listener_lets_in_as_many_as_its_backlog_says() {
    let world = Simulation::new(1);
    simulate(&world, async {
        for backlog in [1, 5] {
            let on = Bind::from((Ipv4Addr::LOCALHOST, 0));
            let listener = TcpListener::open_all(on, backlog, false)?.remove(0);
            let address = listener.local_address()?;
            let mut clients = Vec::new();
            while let Some(client) = cancelled_when_blocked(connect_tcp(address)).await? {
                clients.push(client);
            }
            assert_eq!(clients.len(), backlog as usize);
            // Accepting one makes room for the next.
            listener.accept().await?;
            clients.push(connect_tcp(address).await?);
        }
        Ok(())
    });
}

#[trio::test(backend = "all")]
async fn tl1_a_backlog_that_the_system_does_not_know_is_cut_to_one_it_does() -> Result<()> {
    let on = Bind::from((Ipv4Addr::LOCALHOST, 0));
    for backlog in [0, 1, 65_535, 65_536, u32::MAX] {
        let listener = TcpListener::open_all(on, backlog, false)?.remove(0);
        let client = connect_tcp(listener.local_address()?).await?;
        let server = listener.accept().await?;
        assert_eq!(server.peer_address()?, client.local_address()?);
    }
    Ok(())
}

// TL2: which addresses.

#[trio::test(backend = "all")]
async fn tl2_a_port_alone_is_that_port_of_every_family() -> Result<()> {
    let listeners = open_tcp_listeners(0).await?;
    let addresses: Vec<SocketAddr> = listeners
        .iter()
        .map(TcpListener::local_address)
        .collect::<Result<_>>()?;
    assert!(
        addresses.iter().any(SocketAddr::is_ipv4),
        "IPv4 is everywhere"
    );
    assert!(
        addresses
            .iter()
            .all(|address| address.ip().is_unspecified())
    );
    assert!(addresses.iter().all(|address| address.port() != 0));
    for (listener, address) in listeners.iter().zip(&addresses) {
        let local = match address {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::LOCALHOST, address.port())),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::LOCALHOST, address.port())),
        };
        let client = connect_tcp(local).await?;
        // The port was somebody else's a moment ago, whose clients may still come: what is meant is that
        // ours arrives.
        let ours = client.local_address()?;
        while listener.accept().await?.peer_address().ok() != Some(ours) {}
    }
    Ok(())
}

#[trio::test(backend = "simulation")]
async fn tl2_without_a_port_each_family_asks_for_a_free_one_of_its_own() -> Result<()> {
    let listeners = open_tcp_listeners(0).await?;
    let ports: Vec<u16> = listeners
        .iter()
        .map(|listener| Ok(listener.local_address()?.port()))
        .collect::<Result<_>>()?;
    // A system may give the same number in both, now and then; the simulation counts.
    assert_eq!(ports.len(), 2);
    assert_ne!(ports[0], ports[1]);
    Ok(())
}

#[trio::test(backend = "simulation")]
async fn tl2_a_port_that_is_given_is_the_same_in_every_family() -> Result<()> {
    let listeners = open_tcp_listeners(8000).await?;
    assert_eq!(listeners.len(), 2);
    for listener in listeners {
        assert_eq!(listener.local_address()?.port(), 8000);
    }
    Ok(())
}

#[trio::test(backend = "all")]
async fn tl2_an_address_is_that_address_alone() -> Result<()> {
    let listeners = open_tcp_listeners((Ipv4Addr::LOCALHOST, 0)).await?;
    assert_eq!(listeners.len(), 1);
    let address = listeners[0].local_address()?;
    assert_eq!(address.ip(), Ipv4Addr::LOCALHOST);
    // The port is free on any other address.
    let other = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), address.port()));
    let listeners = open_tcp_listeners(other).await?;
    assert_eq!(listeners[0].local_address()?, other);
    Ok(())
}

// TL3: socket options, and missing families.

/// Listeners on the same port of both families, opened one after the other; `None` on a machine
/// without IPv6, which the simulation always has.
async fn one_port_in_both_families() -> Result<Option<(Vec<TcpListener>, Vec<TcpListener>)>> {
    // Another process on this machine may already have the port in the other family.
    for _ in 0..100 {
        let Ok(six) = open_tcp_listeners((Ipv6Addr::UNSPECIFIED, 0)).await else {
            return Ok(None);
        };
        let port = six[0].local_address()?.port();
        if let Ok(four) = open_tcp_listeners((Ipv4Addr::UNSPECIFIED, port)).await {
            return Ok(Some((six, four)));
        }
    }
    panic!("no port is free in both families");
}

#[trio::test(backend = "all")]
async fn tl3_an_ipv6_listener_leaves_the_port_of_ipv4_to_others() -> Result<()> {
    let Some((six, four)) = one_port_in_both_families().await? else {
        return Ok(());
    };
    let port = six[0].local_address()?.port();
    let client = connect_tcp((Ipv4Addr::LOCALHOST, port).into()).await?;
    let server = four[0].accept().await?;
    assert_eq!(server.peer_address()?, client.local_address()?);
    assert!(cancelled_when_blocked(six[0].accept()).await?.is_none());
    Ok(())
}

#[trio::test(backend = "all")]
async fn tl3_a_port_can_be_listened_on_again_at_once_and_not_before() -> Result<()> {
    let (listener, address) = listen().await?;
    let client = connect_tcp(address).await?;
    let server = listener.accept().await?;
    // One more, which this side closes first, so that it lingers in the system.
    let lingering = connect_tcp(address).await?;
    listener.accept().await?.aclose().await?;
    assert!(receive_to_end(&lingering).await?.is_empty());
    drop(lingering);
    // As many more as it takes until the kernel gets a standing order to accept.
    for _ in 0..4 {
        let client = connect_tcp(address).await?;
        drop((listener.accept().await?, client));
    }

    let busy = open_tcp_listeners(address).await;
    let busy = busy.expect_err("it is taken");
    let told = busy.to_string();
    assert!(
        told.starts_with(&format!("cannot listen on {address}: ")),
        "{told}"
    );
    assert_eq!(kind_of::<()>(Err(busy)), io::ErrorKind::AddrInUse);
    drop(listener);
    let again = open_tcp_listeners(address).await?;
    assert_eq!(again[0].local_address()?, address);
    // The connections of the first go on.
    client.send_all(b"x").await?;
    assert_eq!(receive_exactly(&server, 1).await?, b"x");
    Ok(())
}

#[trio::test(backend = "all")]
async fn tl3_listeners_share_a_port_only_if_both_say_so() -> Result<()> {
    let on = Bind::from((Ipv4Addr::LOCALHOST, 0));
    let first = TcpListener::open_all(on, 16, true)?.remove(0);
    let address = first.local_address()?;
    let second = TcpListener::open_all(address.into(), 16, true)?.remove(0);
    assert_eq!(second.local_address()?, address);
    let third = TcpListener::open_all(address.into(), 16, false);
    assert_eq!(kind_of(third), io::ErrorKind::AddrInUse);
    Ok(())
}

#[test]
fn tl3_a_family_that_the_machine_does_not_have_is_skipped() {
    for (missing, left) in [(Family::V6, Family::V4), (Family::V4, Family::V6)] {
        let world = Simulation::new(1).without_family(missing);
        simulate(&world, async {
            let listeners = open_tcp_listeners(0).await?;
            assert_eq!(listeners.len(), 1);
            assert_eq!(Family::of(&listeners[0].local_address()?), left);
            Ok(())
        });
    }
}

#[test]
fn tl3_without_any_family_the_error_is_a_group_that_says_so() {
    let world = Simulation::new(1)
        .without_family(Family::V4)
        .without_family(Family::V6);
    simulate(&world, async {
        let error = open_tcp_listeners(0).await.unwrap_err();
        let errors = error.as_group().expect("one for each family");
        assert_eq!(errors.len(), 2);
        assert!(errors.iter().all(|error| error.is::<io::Error>()));
        for (error, address) in errors.iter().zip(["0.0.0.0:0", "[::]:0"]) {
            let told = error.to_string();
            assert!(
                told.starts_with(&format!("cannot listen on {address}: ")),
                "{told}"
            );
        }
        // A group of one is still a group.
        let error = open_tcp_listeners((Ipv4Addr::LOCALHOST, 0))
            .await
            .unwrap_err();
        assert_eq!(error.as_group().unwrap().len(), 1);
        Ok(())
    });
}

// TL4: a failure leaves nothing open.

#[trio::test(backend = "all")]
async fn tl4_if_one_address_fails_those_before_it_are_closed() -> Result<()> {
    let Some((taken, four)) = one_port_in_both_families().await? else {
        return Ok(());
    };
    let port = taken[0].local_address()?.port();
    // Keeps the port of IPv4 from other processes meanwhile, but not from a listener.
    let client = connect_tcp((Ipv4Addr::LOCALHOST, port).into()).await?;
    let _server = four[0].accept().await?;
    drop(four);
    let failed = open_tcp_listeners(port).await;
    assert_eq!(kind_of(failed), io::ErrorKind::AddrInUse);
    // The listener of IPv4 was opened first, and its port is free again.
    let four = open_tcp_listeners((Ipv4Addr::UNSPECIFIED, port)).await?;
    assert_eq!(four.len(), 1);
    drop(client);
    Ok(())
}

#[test]
fn tl4_nothing_is_open_after_a_failure() {
    let world = Simulation::new(1);
    simulate(&world, async {
        let taken = open_tcp_listeners((Ipv6Addr::UNSPECIFIED, 80)).await?;
        assert_eq!(world.open_sockets(), 1);
        assert!(open_tcp_listeners(80).await.is_err());
        assert_eq!(world.open_sockets(), 1);
        drop(taken);
        Ok(())
    });
    assert_eq!(world.open_sockets(), 0);
}

// V1: who runs what.

async fn echo(stream: TcpStream) -> Result<()> {
    while let Some(data) = stream.receive().await? {
        stream.send_all(data).await?;
    }
    Ok(())
}

/// Sends `text` and reads it back, over a connection of its own.
async fn visit(address: SocketAddr, text: &str) -> Result<()> {
    let client = connect_tcp(address).await?;
    client.send_all(text).await?;
    client.send_eof().await?;
    assert_eq!(receive_to_end(&client).await?, text.as_bytes());
    Ok(())
}

#[trio::test(backend = "all")]
async fn v1_every_listener_is_served_and_connections_at_the_same_time() -> Result<()> {
    let (one, first) = listen().await?;
    let (two, second) = listen().await?;
    open_nursery(async |nursery| {
        nursery.start_soon(serve_listeners(echo, vec![one, two]));
        let held = connect_tcp(first).await?;
        for address in [first, second, first] {
            visit(address, "while another is there").await?;
        }
        held.send_all(b"still served").await?;
        assert_eq!(receive_exactly(&held, 12).await?, b"still served");
        nursery.cancel_scope().cancel("done");
        Ok(())
    })
    .await
}

#[trio::test(backend = "all")]
async fn v1_an_error_of_a_handler_takes_the_server_down() -> Result<()> {
    let (listener, address) = listen().await?;
    let handler = |stream: TcpStream| async move {
        match stream.receive().await? {
            Some(_) => Err(Error::msg("a handler failed")),
            None => Ok(()),
        }
    };
    let failed = Cell::new(false);
    let has_failed = &failed;
    open_nursery(async |nursery| {
        nursery.start_soon(async move {
            let error = serve_listeners(handler, vec![listener]).await.unwrap_err();
            let leaves: Vec<String> = error.leaves().map(ToString::to_string).collect();
            assert!(error.as_group().is_some());
            assert_eq!(leaves, ["a handler failed"]);
            has_failed.set(true);
            Ok(())
        });
        let bystander = connect_tcp(address).await?;
        let client = connect_tcp(address).await?;
        client.send_all(b"x").await?;
        // All connections are closed, and no more are accepted.
        drop(client.receive().await);
        drop(bystander.receive().await);
        Ok(())
    })
    .await?;
    assert!(failed.get());
    assert_eq!(
        kind_of(connect_tcp(address).await),
        io::ErrorKind::ConnectionRefused
    );
    Ok(())
}

#[trio::test(backend = "all")]
async fn v1_with_an_error_sink_a_connection_that_fails_ends_alone() -> Result<()> {
    let (listener, address) = listen().await?;
    let failures = RefCell::new(Vec::new());
    let collected = &failures;
    open_nursery(async |nursery| {
        let handler = |stream: TcpStream| async move {
            echo(stream).await?;
            Err(Error::msg("after the echo"))
        };
        let server = Server::new(handler).on_error(|error| {
            collected.borrow_mut().push(error.to_string());
            Ok(())
        });
        nursery.start_soon(server.serve(vec![listener]));
        for text in ["one", "two", "three"] {
            visit(address, text).await?;
        }
        wait_all_tasks_blocked(Duration::ZERO).await?;
        nursery.cancel_scope().cancel("done");
        Ok(())
    })
    .await?;
    assert_eq!(*failures.borrow(), ["after the echo"; 3]);
    Ok(())
}

#[trio::test(backend = "all")]
async fn v1_what_the_error_sink_returns_takes_the_server_down() -> Result<()> {
    let (listener, address) = listen().await?;
    open_nursery(async |nursery| {
        nursery.start_soon(async move {
            let handler = |_: TcpStream| async { Err(Error::msg("small")) };
            let server = Server::new(handler).on_error(|_| Err(Error::msg("grave")));
            let error = server.serve(vec![listener]).await.unwrap_err();
            assert_eq!(error.into_single()?.to_string(), "grave");
            Ok(())
        });
        drop(connect_tcp(address).await?.receive().await);
        Ok(())
    })
    .await
}

#[trio::test(backend = "all")]
async fn v1_handlers_in_a_nursery_of_the_callers_outlive_the_server() -> Result<()> {
    let (listener, address) = listen().await?;
    open_nursery(async |handlers| {
        let stop = CancelScope::new();
        let stopped = stop.clone();
        let mut serving = handlers.spawn(async move {
            stopped
                .enter(Server::new(echo).serve_in(handlers, vec![listener]))
                .await
        });
        let client = connect_tcp(address).await?;
        client.send_all(b"before").await?;
        assert_eq!(receive_exactly(&client, 6).await?, b"before");
        stop.cancel("no more connections");
        assert!(serving.join().await?.is_none());
        assert_eq!(
            kind_of(connect_tcp(address).await),
            io::ErrorKind::ConnectionRefused
        );
        client.send_all(b"after").await?;
        assert_eq!(receive_exactly(&client, 5).await?, b"after");
        client.send_eof().await?;
        assert!(receive_to_end(&client).await?.is_empty());
        Ok(())
    })
    .await
}

#[trio::test(backend = "all")]
async fn v1_an_error_of_a_handler_goes_to_the_nursery_that_it_is_in() -> Result<()> {
    let (listener, address) = listen().await?;
    let result = open_nursery(async |handlers| {
        handlers.start_soon(async move {
            let handler = |_: TcpStream| async { Err(Error::msg("a handler failed")) };
            Server::new(handler)
                .serve_in(handlers, vec![listener])
                .await
        });
        drop(connect_tcp(address).await?.receive().await);
        Ok(())
    })
    .await;
    assert_eq!(
        result.unwrap_err().into_single()?.to_string(),
        "a handler failed"
    );
    Ok(())
}

// V2: a server reports when it accepts.

#[trio::test(backend = "all")]
async fn v2_start_returns_when_the_server_accepts() -> Result<()> {
    let (listener, address) = listen().await?;
    open_nursery(async |nursery| {
        nursery
            .start(|status| Server::new(echo).serve_started(vec![listener], status))
            .await?;
        visit(address, "at once").await?;
        nursery.cancel_scope().cancel("done");
        Ok(())
    })
    .await
}

#[test]
fn v2_a_server_that_cannot_listen_fails_and_does_not_start() {
    let world = Simulation::new(1);
    simulate(&world, async {
        let taken = open_tcp_listeners((Ipv4Addr::UNSPECIFIED, 8000)).await?;
        let served = serve_tcp(echo, (Ipv4Addr::UNSPECIFIED, 8000)).await;
        assert_eq!(kind_of(served), io::ErrorKind::AddrInUse);
        drop(taken);
        let served = move_on_after(Duration::from_secs(1), serve_tcp(echo, 8000)).await?;
        assert!(served.is_none());
        Ok(())
    });
    assert_eq!(world.open_sockets(), 0);
}

#[trio::test]
async fn v2_a_server_without_listeners_fails_and_does_not_start() -> Result<()> {
    let told = "a server needs at least one listener to serve: open one with `open_tcp_listeners`";
    let none = Vec::<TcpListener>::new;
    let check = |result: Result<()>| {
        let error = result.expect_err("there is nothing to serve");
        assert!(error.to_string().contains(told), "{error}");
        let error = error.as_group().map_or(&error, |errors| &errors[0]);
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        assert_eq!(kind, Some(io::ErrorKind::InvalidInput));
    };
    check(serve_listeners(echo, none()).await);
    open_nursery(async |nursery| {
        let started = |status| Server::new(echo).serve_started(none(), status);
        check(nursery.start(started).await);
        check(Server::new(echo).serve_in(nursery, none()).await);
        Ok(())
    })
    .await
}

// V3: no room for another connection.

/// Fails the next `count` accepts of `world`.
fn fail_accepts(world: &Simulation, count: u64, errno: Errno) {
    for _ in 0..count {
        // If a rule is due at the same operation as another, it fires at the next one.
        world.inject(Rule::nth(1, Kind::Accept, Fault::Fail(errno)));
    }
}

#[test]
fn v3_a_server_without_room_tries_again_every_hundred_milliseconds() {
    for errno in [
        Errno::TooManyFiles,
        Errno::TooManyFilesInSystem,
        Errno::OutOfMemory,
    ] {
        let world = Simulation::new(1);
        simulate(&world, async {
            let (listener, address) = listen().await?;
            let _client = connect_tcp(address).await?;
            fail_accepts(&world, 1000, errno);
            let start = current_time();
            let times = RefCell::new(Vec::new());
            let server = Server::new(echo).on_overload(|error| {
                let error = error.downcast_ref::<io::Error>().unwrap();
                assert_eq!(error.raw_os_error(), io::Error::from(errno).raw_os_error());
                times.borrow_mut().push(current_time() - start);
            });
            let patience = Duration::from_millis(950);
            assert!(
                move_on_after(patience, server.serve(vec![listener]))
                    .await?
                    .is_none()
            );
            let expected: Vec<Duration> = (0..10).map(|n| Duration::from_millis(100) * n).collect();
            assert_eq!(*times.borrow(), expected);
            Ok(())
        });
    }
}

#[test]
fn v3_a_server_that_has_room_again_loses_no_connection() {
    let world = Simulation::new(1);
    simulate(&world, async {
        let (listener, address) = listen().await?;
        fail_accepts(&world, 3, Errno::TooManyFiles);
        let overloads = Rc::new(Cell::new(0));
        let counted = overloads.clone();
        open_nursery(async |nursery| {
            let server = Server::new(echo).on_overload(move |_| counted.set(counted.get() + 1));
            nursery.start_soon(server.serve(vec![listener]));
            let start = current_time();
            for text in ["first", "second"] {
                visit(address, text).await?;
            }
            assert_eq!(current_time() - start, Duration::from_millis(300));
            nursery.cancel_scope().cancel("done");
            Ok(())
        })
        .await?;
        assert_eq!(overloads.get(), 3);
        Ok(())
    });
    assert_eq!(world.open_sockets(), 0);
}

#[test]
fn v3_the_pause_of_one_listener_does_not_hold_up_another() {
    let world = Simulation::new(1);
    simulate(&world, async {
        let (full, crowded) = listen().await?;
        let (free, address) = listen().await?;
        for _ in 0..5 {
            let fault = Fault::Fail(Errno::TooManyFiles);
            world.inject(Rule::nth(1, Kind::Accept, fault).local(crowded));
        }
        open_nursery(async |nursery| {
            let server = Server::new(echo).on_overload(|_| {});
            nursery.start_soon(server.serve(vec![full, free]));
            nursery.start_soon(visit(crowded, "late"));
            let start = current_time();
            visit(address, "at once").await?;
            assert_eq!(current_time(), start);
            sleep(Duration::from_secs(1)).await?;
            nursery.cancel_scope().cancel("done");
            Ok(())
        })
        .await
    });
}

// V4: connections that died before they were accepted.

#[test]
fn v4_a_connection_that_died_in_the_queue_is_skipped() {
    for errno in [
        Errno::ConnectionAborted,
        Errno::ConnectionReset,
        Errno::TimedOut,
        Errno::HostUnreachable,
    ] {
        let world = Simulation::new(1);
        simulate(&world, async {
            let (listener, address) = listen().await?;
            let first = connect_tcp(address).await?;
            let second = connect_tcp(address).await?;
            fail_accepts(&world, 1, errno);
            let start = current_time();
            let server = listener.accept().await?;
            assert_eq!(current_time(), start, "nothing is waited for");
            // What was aborted is lost; the other errors leave the connection in the queue.
            let expected = match errno {
                Errno::ConnectionAborted => &second,
                _ => &first,
            };
            assert_eq!(server.peer_address()?, expected.local_address()?);
            Ok(())
        });
    }
}

#[test]
fn v4_any_other_error_of_an_accept_ends_the_server_as_a_group() {
    let world = Simulation::new(1);
    simulate(&world, async {
        let (listener, address) = listen().await?;
        let _client = connect_tcp(address).await?;
        fail_accepts(&world, 1, Errno::Invalid);
        let error = serve_listeners(echo, vec![listener]).await.unwrap_err();
        assert_eq!(error.as_group().unwrap().len(), 1);
        let error = error.into_single()?.downcast::<io::Error>()?;
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        Ok(())
    });
    assert_eq!(world.open_sockets(), 0);
}

#[test]
fn v4_the_listener_itself_reports_a_lack_of_room() {
    let world = Simulation::new(1);
    simulate(&world, async {
        let (listener, address) = listen().await?;
        let client = connect_tcp(address).await?;
        for errno in [Errno::TooManyFiles, Errno::OutOfMemory] {
            fail_accepts(&world, 1, errno);
            let error = listener
                .accept()
                .await
                .unwrap_err()
                .downcast::<io::Error>()?;
            assert_eq!(error.raw_os_error(), io::Error::from(errno).raw_os_error());
        }
        // The connection is still in the queue.
        let server = listener.accept().await?;
        assert_eq!(server.peer_address()?, client.local_address()?);
        Ok(())
    });
}

#[trio::test(backend = "all")]
async fn v4_a_socket_that_is_no_listener_is_reported_and_not_skipped() -> Result<()> {
    let listener = TcpListener::from_descriptor(socket::stream(Family::V4)?);
    let kind = kind_of(listener.accept().await);
    assert_eq!(kind, io::ErrorKind::InvalidInput);
    Ok(())
}

// V5: what is closed, and when.

#[trio::test(backend = "all")]
async fn v5_a_connection_is_closed_when_its_handler_has_ended() -> Result<()> {
    let (listener, address) = listen().await?;
    open_nursery(async |nursery| {
        let handler = |stream: TcpStream| async move {
            stream.send_all(b"bye").await?;
            match stream.local_address()?.port() {
                0 => Ok(()),
                _ => Err(Error::msg("also if it failed")),
            }
        };
        let server = Server::new(handler).on_error(|_| Ok(()));
        nursery.start_soon(server.serve(vec![listener]));
        let client = connect_tcp(address).await?;
        assert_eq!(receive_to_end(&client).await?, b"bye");
        nursery.cancel_scope().cancel("done");
        Ok(())
    })
    .await
}

#[trio::test(backend = "all")]
async fn v5_a_stream_that_a_handler_has_moved_elsewhere_lives_on() -> Result<()> {
    let (listener, address) = listen().await?;
    let kept = RefCell::new(None);
    let keep = &kept;
    open_nursery(async |nursery| {
        let handler = |stream: TcpStream| async move {
            *keep.borrow_mut() = Some(stream);
            Ok(())
        };
        nursery.start_soon(serve_listeners(handler, vec![listener]));
        let client = connect_tcp(address).await?;
        while keep.borrow().is_none() {
            checkpoint().await?;
        }
        let server = keep.take().unwrap();
        nursery.cancel_scope().cancel("done");
        CancelScope::new()
            .shielded()
            .enter(async {
                server.send_all(b"alive").await?;
                assert_eq!(receive_exactly(&client, 5).await?, b"alive");
                Ok(())
            })
            .await?;
        Ok(())
    })
    .await
}

#[trio::test(backend = "all")]
async fn v5_listeners_are_closed_when_the_server_has_ended() -> Result<()> {
    let (one, first) = listen().await?;
    let (two, second) = listen().await?;
    let served = cancelled_when_blocked(serve_listeners(echo, vec![one, two]));
    assert!(served.await?.is_none());
    for address in [first, second] {
        assert_eq!(
            kind_of(connect_tcp(address).await),
            io::ErrorKind::ConnectionRefused
        );
    }
    assert_eq!(in_flight(), 0);
    Ok(())
}

#[trio::test(backend = "all")]
async fn v5_closing_a_listener_under_its_server_ends_the_server() -> Result<()> {
    let (mut listener, _) = listen().await?;
    listener.aclose().await?;
    let error = serve_listeners(echo, vec![listener]).await.unwrap_err();
    assert!(error.into_single()?.is::<ClosedResource>());
    Ok(())
}

// V6: cancelling.

#[trio::test(backend = "all")]
async fn v6_cancelling_a_server_cancels_every_connection() -> Result<()> {
    let (listener, address) = listen().await?;
    let cleaned = Cell::new(0);
    let counted = &cleaned;
    open_nursery(async |nursery| {
        let handler = |stream: TcpStream| async move {
            stream.send_all(b"x").await?;
            let error = stream.receive().await.unwrap_err();
            assert!(error.is_cancelled());
            assert_eq!(current_effective_deadline(), trio::Time::PAST);
            counted.set(counted.get() + 1);
            Err(error)
        };
        let stop = CancelScope::new();
        let stopped = stop.clone();
        let sink = |error: Error| panic!("a cancel is no error of a handler: {error}");
        let server = Server::new(handler).on_error(sink);
        let mut serving =
            nursery.spawn(async move { stopped.enter(server.serve(vec![listener])).await });
        let mut clients = Vec::new();
        for _ in 0..12 {
            let client = connect_tcp(address).await?;
            receive_exactly(&client, 1).await?;
            clients.push(client);
        }
        stop.cancel("closing time");
        assert!(serving.join().await?.is_none());
        assert_eq!(cleaned.get(), 12);
        assert_eq!(in_flight(), 0);
        for client in clients {
            assert!(receive_to_end(&client).await?.is_empty());
        }
        Ok(())
    })
    .await
}

#[trio::test(backend = "all")]
async fn v6_connections_in_the_queue_are_refused_or_closed_with_the_server() -> Result<()> {
    let (listener, address) = listen().await?;
    let client = connect_tcp(address).await?;
    let scope = CancelScope::new();
    scope.cancel("before it began");
    assert!(
        scope
            .enter(serve_listeners(echo, vec![listener]))
            .await?
            .is_none()
    );
    // An end of file or a reset: nobody will answer.
    drop(client.receive().await);
    Ok(())
}

#[test]
fn v6_a_server_leaves_no_socket_behind() {
    let world = Simulation::new(1);
    simulate(&world, async {
        let (listener, address) = listen().await?;
        open_nursery(async |nursery| {
            nursery.start_soon(serve_listeners(echo, vec![listener]));
            for _ in 0..5 {
                nursery.start_soon(async move {
                    let client = connect_tcp(address).await?;
                    client.send_all(b"x").await?;
                    receive_exactly(&client, 1).await?;
                    sleep_forever().await
                });
            }
            wait_all_tasks_blocked(Duration::ZERO).await?;
            assert_eq!(world.open_sockets(), 11);
            nursery.cancel_scope().cancel("done");
            Ok(())
        })
        .await
    });
    assert_eq!(world.open_sockets(), 0);
}

// V7: draining.

#[trio::test(backend = "all")]
async fn v7_a_server_that_is_drained_lets_its_handlers_finish_and_ends_well() -> Result<()> {
    let (listener, address) = listen().await?;
    let scope = CancelScope::new();
    open_nursery(async |nursery| {
        // A request is one byte; between two requests a handler has nothing to finish.
        let handler = |stream: TcpStream| async move {
            while let Some(Some(request)) = until_draining(stream.receive()).await? {
                stream.send_all(b"[").await?;
                stream.receive().await?;
                stream.send_all(request).await?;
            }
            stream.send_all(b"bye").await
        };
        let server = Server::new(handler).serve(vec![listener]);
        let mut serving = nursery.spawn(scope.enter(server));
        let (idle, busy) = (connect_tcp(address).await?, connect_tcp(address).await?);
        busy.send_all(b"x").await?;
        assert_eq!(receive_exactly(&busy, 1).await?, b"[");
        // Both handlers are there: that of the idle one answers as well.
        idle.send_all(b"y").await?;
        assert_eq!(receive_exactly(&idle, 1).await?, b"[");
        idle.send_all(b"!").await?;
        assert_eq!(receive_exactly(&idle, 1).await?, b"y");
        wait_all_tasks_blocked(Duration::ZERO).await?;

        scope.drain(Duration::from_secs(60), "closing time");
        assert_eq!(receive_to_end(&idle).await?, b"bye");
        assert!(!serving.is_finished());
        busy.send_all(b"!").await?;
        assert_eq!(receive_to_end(&busy).await?, b"xbye");
        assert_eq!(serving.join().await?, Some(()));
        assert!(connect_tcp(address).await.is_err(), "nobody listens");
        Ok(())
    })
    .await
}

#[trio::test(clock = "autojump")]
async fn v7_handlers_that_do_not_end_are_cancelled_after_the_grace_period() -> Result<()> {
    let start = current_time();
    let (listener, address) = listen().await?;
    let scope = CancelScope::new();
    open_nursery(async |nursery| {
        let handler = async |stream: TcpStream| {
            stream.send_all(b"x").await?;
            sleep_forever().await
        };
        let mut serving = nursery.spawn(scope.enter(serve_listeners(handler, vec![listener])));
        let client = connect_tcp(address).await?;
        receive_exactly(&client, 1).await?;
        scope.drain(Duration::from_secs(30), "closing time");
        assert!(serving.join().await?.is_none());
        assert!(current_time() - start >= Duration::from_secs(30));
        Ok(())
    })
    .await
}

#[trio::test(backend = "all")]
async fn v7_a_server_with_its_handlers_elsewhere_stops_accepting() -> Result<()> {
    let (listener, address) = listen().await?;
    let scope = CancelScope::new();
    open_nursery(async |nursery| {
        let server = Server::new(echo);
        let serving = scope.enter(server.serve_in(nursery, vec![listener]));
        let mut serving = nursery.spawn(serving);
        let client = connect_tcp(address).await?;
        client.send_all(b"one").await?;
        assert_eq!(receive_exactly(&client, 3).await?, b"one");
        scope.drain(Duration::MAX, "");
        assert_eq!(serving.join().await?, Some(()));
        client.send_all(b"two").await?;
        assert_eq!(
            receive_exactly(&client, 3).await?,
            b"two",
            "the handler goes on"
        );
        nursery.cancel_scope().cancel("done");
        Ok(())
    })
    .await
}
