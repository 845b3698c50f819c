//! The network alone, at the pace of the test.

use std::net::SocketAddr;
use std::time::Duration;

use super::{Errno, Family, Network, Random, SocketId};
use crate::Time;
use crate::op::Interest;

fn network() -> Network {
    Network::new(Time::PAST, Random::new(1))
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn settle(network: &mut Network) {
    network.advance(network.now);
}

fn socket(network: &mut Network, at: &str) -> SocketId {
    network.socket(Family::of(&address(at)))
}

fn listen(network: &mut Network, at: &str, backlog: u32) -> SocketId {
    let id = socket(network, at);
    network.bind(id, address(at), false).unwrap();
    network.listen(id, backlog).unwrap();
    id
}

/// A client that has asked to be connected.
fn client(network: &mut Network, to: &str) -> SocketId {
    let id = socket(network, to);
    network.connect(id, address(to)).unwrap();
    settle(network);
    id
}

fn pair(network: &mut Network) -> (SocketId, SocketId) {
    let listener = listen(network, "10.0.0.1:80", 1);
    let client = client(network, "10.0.0.1:80");
    let server = network.accept(listener).unwrap();
    network.close(listener);
    assert_eq!(network.connected(client), Ok(()));
    (client, server)
}

fn send(network: &mut Network, id: SocketId, data: &[u8]) -> Result<usize, Errno> {
    let result = network.send(id, data);
    settle(network);
    result
}

fn receive(network: &mut Network, id: SocketId) -> Result<Vec<u8>, Errno> {
    let mut into = [0; 100];
    let count = network.receive(id, &mut into)?;
    Ok(into[..count].to_vec())
}

fn close(network: &mut Network, id: SocketId) {
    network.close(id);
    settle(network);
}

#[test]
fn a_wildcard_listener_hears_every_address_of_its_family() {
    let mut network = network();
    let listener = listen(&mut network, "0.0.0.0:80", 8);
    let near = client(&mut network, "127.0.0.1:80");
    let far = client(&mut network, "10.9.8.7:80");
    let six = client(&mut network, "[::1]:80");
    assert_eq!(network.connected(near), Ok(()));
    assert_eq!(network.peer_address(far), Ok(address("10.9.8.7:80")));
    assert_eq!(network.connected(six), Err(Errno::ConnectionRefused));
    network.accept(listener).unwrap();
    let far = network.accept(listener).unwrap();
    assert_eq!(network.local_address(far), address("10.9.8.7:80"));
}

#[test]
fn the_exact_address_goes_before_the_wildcard() {
    let mut network = network();
    let exact = socket(&mut network, "10.0.0.1:80");
    network.bind(exact, address("10.0.0.1:80"), true).unwrap();
    network.listen(exact, 8).unwrap();
    let everywhere = socket(&mut network, "0.0.0.0:80");
    network
        .bind(everywhere, address("0.0.0.0:80"), true)
        .unwrap();
    network.listen(everywhere, 8).unwrap();
    client(&mut network, "10.0.0.1:80");
    assert!(network.is_readable(exact));
    assert!(!network.is_readable(everywhere));
}

#[test]
fn a_connection_to_the_wildcard_goes_to_loopback() {
    let mut network = network();
    listen(&mut network, "127.0.0.1:80", 8);
    let client = client(&mut network, "0.0.0.0:80");
    assert_eq!(network.peer_address(client), Ok(address("127.0.0.1:80")));
    assert!(network.local_address(client).ip().is_loopback());
}

#[test]
fn an_address_is_taken_by_a_listener_unless_both_share() {
    let mut network = network();
    listen(&mut network, "10.0.0.1:80", 8);
    let other = socket(&mut network, "10.0.0.1:80");
    let bind = |network: &mut Network, at, share| network.bind(other, address(at), share);
    assert_eq!(
        bind(&mut network, "10.0.0.1:80", true),
        Err(Errno::AddressInUse)
    );
    assert_eq!(
        bind(&mut network, "0.0.0.0:80", false),
        Err(Errno::AddressInUse)
    );
    assert_eq!(bind(&mut network, "10.0.0.2:80", false), Ok(()));
    assert_eq!(
        bind(&mut network, "10.0.0.2:81", false),
        Err(Errno::Invalid)
    );
}

#[test]
fn listeners_that_share_a_port_share_its_connections() {
    let mut network = network();
    let listeners = [(); 2].map(|()| {
        let id = socket(&mut network, "10.0.0.1:80");
        network.bind(id, address("10.0.0.1:80"), true).unwrap();
        network.listen(id, 100).unwrap();
        id
    });
    for _ in 0..50 {
        client(&mut network, "10.0.0.1:80");
    }
    let counts = listeners.map(|listener| {
        let accepted = std::iter::from_fn(|| network.accept(listener).ok());
        accepted.count()
    });
    assert_eq!(counts.iter().sum::<usize>(), 50);
    assert!(counts.iter().all(|count| *count > 10), "{counts:?}");
}

#[test]
fn a_port_that_nobody_chose_is_free() {
    let mut network = network();
    let one = listen(&mut network, "10.0.0.1:0", 8);
    let two = listen(&mut network, "10.0.0.1:0", 8);
    let ports = [one, two].map(|id| network.local_address(id).port());
    assert_ne!(ports[0], 0);
    assert_ne!(ports[0], ports[1]);
    let taken: Vec<_> = std::iter::from_fn(|| {
        let id = network.socket(Family::V4);
        network.bind(id, address("10.0.0.1:0"), false).ok()
    })
    .collect();
    assert_eq!(taken.len(), super::PORTS.len() - 2);
}

#[test]
fn a_full_backlog_holds_clients_up_until_there_is_room() {
    let mut network = network();
    let listener = listen(&mut network, "10.0.0.1:80", 1);
    let clients = [(); 3].map(|()| client(&mut network, "10.0.0.1:80"));
    assert_eq!(network.connected(clients[0]), Ok(()));
    assert_eq!(network.connected(clients[1]), Err(Errno::Again));
    // One that gives up meanwhile does not keep the next one out.
    close(&mut network, clients[1]);
    network.accept(listener).unwrap();
    settle(&mut network);
    assert_eq!(network.connected(clients[2]), Ok(()));
}

#[test]
fn closing_a_listener_turns_everybody_away() {
    let mut network = network();
    let listener = listen(&mut network, "10.0.0.1:80", 1);
    let queued = client(&mut network, "10.0.0.1:80");
    let held_up = client(&mut network, "10.0.0.1:80");
    close(&mut network, listener);
    assert_eq!(receive(&mut network, queued), Err(Errno::ConnectionReset));
    assert_eq!(network.connected(held_up), Err(Errno::ConnectionRefused));
    assert_eq!(network.open_sockets(), 2);
}

#[test]
fn a_refused_socket_may_try_again() {
    let mut network = network();
    let client = client(&mut network, "10.0.0.1:80");
    assert_eq!(network.connected(client), Err(Errno::ConnectionRefused));
    listen(&mut network, "10.0.0.1:80", 1);
    network.connect(client, address("10.0.0.1:80")).unwrap();
    assert_eq!(
        network.connect(client, address("10.0.0.1:80")),
        Err(Errno::Already)
    );
    settle(&mut network);
    assert_eq!(network.connected(client), Ok(()));
    assert_eq!(
        network.connect(client, address("10.0.0.1:80")),
        Err(Errno::IsConnected)
    );
}

#[test]
fn a_close_is_an_end_and_a_later_send_is_answered_with_a_reset() {
    let mut network = network();
    let (client, server) = pair(&mut network);
    close(&mut network, server);
    assert_eq!(receive(&mut network, client), Ok(vec![]));
    assert_eq!(send(&mut network, client, b"lost"), Ok(4));
    assert_eq!(send(&mut network, client, b"more"), Err(Errno::BrokenPipe));
    assert_eq!(send(&mut network, client, b"more"), Err(Errno::BrokenPipe));
    assert_eq!(receive(&mut network, client), Ok(vec![]));
}

#[test]
fn a_close_with_unread_bytes_is_a_reset() {
    let mut network = network();
    let (client, server) = pair(&mut network);
    send(&mut network, client, b"unread").unwrap();
    send(&mut network, server, b"arrives").unwrap();
    close(&mut network, server);
    assert_eq!(receive(&mut network, client), Ok(b"arrives".to_vec()));
    assert_eq!(receive(&mut network, client), Err(Errno::ConnectionReset));
    assert_eq!(receive(&mut network, client), Ok(vec![]));
    assert_eq!(network.shutdown_send(client), Err(Errno::NotConnected));
}

#[test]
fn a_full_buffer_stops_the_sender_and_makes_it_writable_again() {
    let mut network = network();
    network.buffer_size = 4;
    let (client, server) = pair(&mut network);
    assert_eq!(send(&mut network, client, b"abcdef"), Ok(4));
    assert_eq!(send(&mut network, client, b"ef"), Err(Errno::Again));
    assert!(!network.is_writable(client));
    let mut into = [0; 1];
    assert_eq!(network.receive(server, &mut into), Ok(1));
    assert!(network.is_writable(client));
    assert_eq!(send(&mut network, client, b"ef"), Ok(1));
    close(&mut network, server);
    assert!(network.is_writable(client), "an error is to be had");
}

#[test]
fn what_is_sent_takes_its_time_and_keeps_its_order() {
    let mut network = network();
    network.latency = Duration::from_nanos(10)..=Duration::from_nanos(1000);
    let listener = listen(&mut network, "10.0.0.1:80", 1);
    let client = client(&mut network, "10.0.0.1:80");
    while let Some(next) = network.next_event() {
        network.advance(next);
    }
    let server = network.accept(listener).unwrap();
    let start = network.now;
    for byte in 0..100 {
        network.send(client, &[byte]).unwrap();
    }
    network.shutdown_send(client).unwrap();
    let mut received = Vec::new();
    while let Some(next) = network.next_event() {
        assert!(next.saturating_since(start) >= Duration::from_nanos(10));
        assert!(next.saturating_since(start) <= Duration::from_nanos(1000));
        network.advance(next);
        if network.is_readable(server) {
            received.extend(receive(&mut network, server).unwrap());
        }
    }
    assert_eq!(received, (0..100).collect::<Vec<u8>>());
    assert_eq!(receive(&mut network, server), Ok(vec![]));
}

#[test]
fn a_change_wakes_whom_it_concerns_once() {
    let mut network = network();
    let (client, server) = pair(&mut network);
    network.take_woken();
    let waiter = |number| super::Waiter {
        driver: 1,
        key: crate::driver::Key(number),
    };
    network.wait(server, Interest::Readable, waiter(1));
    network.wait(server, Interest::Readable, waiter(2));
    network.wait(server, Interest::Writable, waiter(3));
    network.forget(server, waiter(2));
    send(&mut network, client, b"x").unwrap();
    assert_eq!(network.take_woken(), [waiter(1)]);
    send(&mut network, client, b"y").unwrap();
    assert_eq!(network.take_woken(), []);
}
