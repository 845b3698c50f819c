//! Connections: how they are made, what goes through them, and how they end.

use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use trio_platform::{Accept, Connect, Family, Receive, Send};

use crate::kit::{Kit, Pair, assert_broken};

pub(crate) fn receive_gives_what_was_sent(kit: &mut Kit<'_>) {
    let (listener, address) = kit.listener();
    let accept = kit.start(Accept::new(listener));
    let socket = kit.driver.socket(Family::V4).unwrap();
    let connect = kit.start(Connect::new(socket, address));
    let client = kit.finish(connect).into_connected().unwrap();
    let server = kit.finish(accept).into_accepted().unwrap();

    let receive = kit.start(Receive::new(server.clone()));
    kit.send_all(&client, &b"h"[..]);
    let lease = kit.finish(receive).into_received().unwrap();
    assert_eq!(&*lease, b"h");

    kit.send_all(&server, b"hello".to_vec());
    assert_eq!(kit.receive_exactly(&client, 5), b"hello");
}

pub(crate) fn a_connection_is_made_before_it_is_accepted(kit: &mut Kit<'_>) {
    let (listener, address) = kit.listener();
    let client = kit.connect(address);
    kit.send_all(&client, &b"early"[..]);
    let server = kit.accept(&listener);
    assert_eq!(kit.receive_exactly(&server, 5), b"early");
}

/// What a listener is spared of a call for each connection by.
pub(crate) fn under_linux_a_connection_has_the_options_of_its_listener(kit: &mut Kit<'_>) {
    let (listener, address) = kit.listener();
    kit.driver.prepare_stream(&listener);
    let _client = kit.connect(address);
    let server = kit.accept(&listener);
    // The simulation has no options.
    if let Ok(socket) = server.socket() {
        assert!(!cfg!(target_os = "linux") || socket.tcp_nodelay().unwrap());
    }
}

pub(crate) fn both_ends_agree_on_the_addresses(kit: &mut Kit<'_>) {
    let (listener, address) = kit.listener();
    let client = kit.connect(address);
    let server = kit.accept(&listener);
    let local = |kit: &Kit<'_>, of| kit.driver.local_address(of).unwrap();
    let peer = |kit: &Kit<'_>, of| kit.driver.peer_address(of).unwrap();
    assert_eq!(peer(kit, &client), address);
    assert_eq!(local(kit, &server), address);
    assert_eq!(peer(kit, &server), local(kit, &client));
    assert_ne!(local(kit, &client).port(), 0);
    let error = kit.driver.peer_address(&listener).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotConnected);
}

pub(crate) fn ipv6_works_like_ipv4(kit: &mut Kit<'_>) {
    let here: SocketAddr = (Ipv6Addr::LOCALHOST, 0).into();
    let Ok(listener) = kit.driver.socket(Family::V6) else {
        return;
    };
    if kit.driver.bind(&listener, &here, false).is_err() {
        eprintln!("skipped: there is no IPv6 here");
        return;
    }
    kit.driver.listen(&listener, 1).unwrap();
    let address = kit.driver.local_address(&listener).unwrap();
    let client = kit.connect(address);
    let server = kit.accept(&listener);
    kit.send_all(&client, &b"six"[..]);
    assert_eq!(kit.receive_exactly(&server, 3), b"six");
}

pub(crate) fn a_megabyte_arrives_in_order(kit: &mut Kit<'_>) {
    let Pair { client, server } = kit.pair();
    // A period that divides no buffer, so that a block out of place shows.
    let data: Vec<u8> = (0..1 << 20).map(|index: u32| (index % 251) as u8).collect();
    let mut send = Some(kit.start(Send::new(client, data.clone())));
    let mut receive = kit.start(Receive::new(server.clone()));
    let mut received = Vec::new();
    while received.len() < data.len() {
        let ended = |kit: &Kit<'_>, ticket| kit.report(ticket).is_some();
        kit.run_until("a transfer", |kit| {
            ended(kit, receive) || send.is_some_and(|send| ended(kit, send))
        });
        if let Some(sent) = send.take_if(|send| ended(kit, *send)) {
            let (mut rest, count) = kit.finish(sent).into_sent();
            rest.start += count.unwrap() as usize;
            if rest.start < data.len() {
                send = Some(kit.start(rest));
            }
        }
        if ended(kit, receive) {
            let lease = kit.finish(receive).into_received().unwrap();
            assert!(!lease.is_empty(), "the end came early");
            received.extend_from_slice(&lease);
            receive = kit.start(Receive::new(server.clone()));
        }
    }
    assert!(received == data, "what was received differs");
}

pub(crate) fn the_end_of_file_is_zero_bytes_and_stays(kit: &mut Kit<'_>) {
    let Pair { client, server } = kit.pair();
    kit.send_all(&client, &b"last"[..]);
    drop(client);
    assert_eq!(kit.receive_exactly(&server, 4), b"last");
    assert_eq!(kit.receive(&server).unwrap().len(), 0);
    assert_eq!(kit.receive(&server).unwrap().len(), 0);
}

pub(crate) fn half_close_leaves_the_other_half(kit: &mut Kit<'_>) {
    let Pair { client, server } = kit.pair();
    kit.driver.shutdown_send(&client).unwrap();
    assert_eq!(kit.receive(&server).unwrap().len(), 0);
    kit.send_all(&server, &b"answer"[..]);
    assert_eq!(kit.receive_exactly(&client, 6), b"answer");
    let (_, sent) = kit.run(Send::new(client, &b"more"[..])).into_sent();
    assert_broken(&sent.unwrap_err());
}

pub(crate) fn send_waits_while_the_peer_does_not_read(kit: &mut Kit<'_>) {
    let Pair { client, server } = kit.pair();
    let chunk = || Send::new(client.clone(), vec![7; 64 * 1024]);
    let mut sent = 0;
    let mut pending = kit.start(chunk());
    loop {
        kit.run_for(Duration::from_millis(30));
        if kit.report(pending).is_none() {
            break;
        }
        sent += kit.finish(pending).into_sent().1.unwrap() as usize;
        assert!(sent < 1 << 30, "a connection does not hold a gigabyte");
        pending = kit.start(chunk());
    }

    let mut received = 0;
    while kit.report(pending).is_none() {
        received += kit.receive(&server).unwrap().len();
    }
    sent += kit.finish(pending).into_sent().1.unwrap() as usize;
    while received < sent {
        received += kit.receive(&server).unwrap().len();
    }
    assert_eq!(received, sent);
}

pub(crate) fn both_directions_work_at_once(kit: &mut Kit<'_>) {
    let Pair { client, server } = kit.pair();
    let receive = kit.start(Receive::new(server.clone()));
    kit.settle();
    kit.send_all(&server, &b"down"[..]);
    assert!(kit.report(receive).is_none(), "nothing was sent up");
    assert_eq!(kit.receive_exactly(&client, 4), b"down");
    kit.send_all(&client, &b"u"[..]);
    let lease = kit.finish(receive).into_received().unwrap();
    assert_eq!(&*lease, b"u");
}

pub(crate) fn close_ends_the_receive_of_the_peer(kit: &mut Kit<'_>) {
    let Pair { client, server } = kit.pair();
    let receive = kit.start(Receive::new(server));
    kit.settle();
    drop(client);
    let lease = kit.finish(receive).into_received().unwrap();
    assert_eq!(lease.len(), 0);
}

pub(crate) fn a_reset_is_an_error(kit: &mut Kit<'_>) {
    let Pair { client, server } = kit.pair();
    let receive = kit.start(Receive::new(client.clone()));
    kit.settle();
    kit.driver.reset_on_close(&server).unwrap();
    drop(server);
    assert_broken(&kit.finish(receive).into_received().unwrap_err());
    let (_, sent) = kit.run(Send::new(client, &b"more"[..])).into_sent();
    assert_broken(&sent.unwrap_err());
}

pub(crate) fn send_to_a_closed_peer_fails_in_the_end(kit: &mut Kit<'_>) {
    let Pair { client, server } = kit.pair();
    drop(server);
    for _ in 0..100 {
        let (_, sent) = kit
            .run(Send::new(client.clone(), &b"anybody?"[..]))
            .into_sent();
        if let Err(error) = sent {
            return assert_broken(&error);
        }
        kit.settle();
    }
    panic!("nobody reads, and every send succeeds");
}

pub(crate) fn connect_to_nobody_is_refused(kit: &mut Kit<'_>) {
    let (listener, address) = kit.listener();
    drop(listener);
    let socket = kit.driver.socket(Family::V4).unwrap();
    let error = kit.run(Connect::new(socket, address)).into_connected();
    assert_eq!(error.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
}

pub(crate) fn an_address_is_listened_on_once(kit: &mut Kit<'_>) {
    let (listener, address) = kit.listener();
    let other = kit.driver.socket(Family::V4).unwrap();
    // Systems differ in who says so, the one or the other.
    let bound = kit.driver.bind(&other, &address, false);
    let listens = bound.and_then(|()| kit.driver.listen(&other, 16));
    assert_eq!(listens.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    drop((listener, other));

    let again = kit.driver.socket(Family::V4).unwrap();
    kit.driver.bind(&again, &address, false).unwrap();
    kit.driver.listen(&again, 16).unwrap();
}

pub(crate) fn an_attempt_that_would_wait_says_so(kit: &mut Kit<'_>) {
    let Pair { client, server } = kit.pair();
    let mut into = [0; 8];
    let error = kit.driver.try_receive(&server, &mut into).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);

    let sent = kit.driver.try_send(&client, b"now").unwrap();
    assert!((1..=3).contains(&sent));
    kit.wait_readable(&server);
    let count = kit.driver.try_receive(&server, &mut into).unwrap();
    assert!((1..=sent).contains(&count));
    assert_eq!(into[..count], b"now"[..count]);

    let Pair { client, server } = kit.pair();
    drop(client);
    kit.wait_readable(&server);
    assert_eq!(kit.driver.try_receive(&server, &mut into).unwrap(), 0);

    let Pair { client, server } = kit.pair();
    let flood = vec![0; 1 << 20];
    let error = loop {
        if let Err(error) = kit.driver.try_send(&client, &flood) {
            break error;
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    drop(server);
}
