//! Watches: told when to look again, with nothing lent to the driver. A driver may refuse them, and
//! then there is nothing to see.

use std::io;

use trio_platform::{Descriptor, Direction, Token};

use crate::kit::{Kit, Pair};

/// A connection that has received before, so that every driver that watches at all does.
fn warm(kit: &mut Kit<'_>) -> Pair {
    let pair = kit.pair();
    for byte in [b'1', b'2', b'3'] {
        kit.send_all(&pair.client, vec![byte]);
        kit.expect_byte(&pair.server, byte);
    }
    pair
}

/// Watches `stream`, which has nothing; the token of the watch, if the driver watches.
fn watch(kit: &mut Kit<'_>, stream: &Descriptor) -> Option<Token> {
    assert!(stream.stashed_receive().is_none());
    if kit.driver.likely_readable(stream) {
        let nothing = kit.driver.try_receive(stream, &mut [0]).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
    }
    let token = kit.token();
    kit.driver
        .watch(stream, Direction::Receive, token)
        .then_some(token)
}

/// What a look gives, without waiting.
fn look(kit: &mut Kit<'_>, stream: &Descriptor) -> Option<Vec<u8>> {
    if let Some(stashed) = stream.stashed_receive() {
        return Some(stashed.unwrap().to_vec());
    }
    let mut buffer = [0; 64];
    match kit.driver.try_receive(stream, &mut buffer) {
        Ok(count) => Some(buffer[..count].to_vec()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
        Err(error) => panic!("{error}"),
    }
}

pub(crate) fn a_watch_tells_once_when_bytes_are_there(kit: &mut Kit<'_>) {
    let Pair { client, server } = warm(kit);
    let Some(token) = watch(kit, &server) else {
        return;
    };
    kit.settle();
    assert!(!kit.reported(token), "nothing is there");
    kit.send_all(&client, &b"x"[..]);
    kit.run_until("the watch", |kit| kit.reported(token));
    assert_eq!(look(kit, &server).as_deref(), Some(&b"x"[..]));
    // It is over: what comes now is told to the next one.
    let next = watch(kit, &server).unwrap();
    kit.send_all(&client, &b"y"[..]);
    kit.run_until("the next watch", |kit| kit.reported(next));
    assert_eq!(look(kit, &server).as_deref(), Some(&b"y"[..]));
}

pub(crate) fn a_watch_without_a_look_misses_nothing(kit: &mut Kit<'_>) {
    let Pair { client, server } = warm(kit);
    if watch(kit, &server).is_none() {
        return;
    }
    kit.driver.unwatch(&server);
    // Nothing is there, and the driver knows.
    let token = kit.token();
    assert!(kit.driver.watch_blocked(&server, Direction::Receive, token));
    kit.send_all(&client, &b"x"[..]);
    kit.run_until("the watch", |kit| kit.reported(token));
    // Something is there, and nobody has taken it: either it is in the stash, or it is told of, or the
    // driver refuses.
    if let Some(stashed) = server.stashed_receive() {
        server.unreceive(stashed.unwrap());
    } else {
        let next = kit.token();
        let watched = kit.driver.watch_blocked(&server, Direction::Receive, next);
        if watched {
            kit.run_until("the next watch", |kit| kit.reported(next));
        }
    }
    assert_eq!(look(kit, &server).as_deref(), Some(&b"x"[..]));
}

pub(crate) fn a_watch_tells_of_the_end_of_file(kit: &mut Kit<'_>) {
    let Pair { client, server } = warm(kit);
    let Some(token) = watch(kit, &server) else {
        return;
    };
    kit.driver.shutdown_send(&client).unwrap();
    kit.run_until("the watch", |kit| kit.reported(token));
    assert_eq!(look(kit, &server).as_deref(), Some(&b""[..]));
}

pub(crate) fn a_watch_that_was_taken_back_tells_nothing(kit: &mut Kit<'_>) {
    let Pair { client, server } = warm(kit);
    let Some(token) = watch(kit, &server) else {
        return;
    };
    kit.driver.unwatch(&server);
    kit.driver.unwatch(&server);
    kit.send_all(&client, &b"x"[..]);
    kit.settle();
    assert!(!kit.reported(token));
    kit.expect_byte(&server, b'x');
}

pub(crate) fn a_watch_is_taken_back_by_its_place_and_its_token(kit: &mut Kit<'_>) {
    let first = warm(kit);
    let second = warm(kit);
    let (Some(one), Some(two)) = (watch(kit, &first.server), watch(kit, &second.server)) else {
        return;
    };
    let place = |kit: &Kit<'_>, stream| kit.driver.watch_place(stream).unwrap();
    let (here, there) = (place(kit, &first.server), place(kit, &second.server));
    assert_ne!(here, there, "each descriptor has a place of its own");
    assert!(!kit.driver.unwatch_at(here, two), "that one is elsewhere");
    assert!(!kit.driver.unwatch_at(u32::MAX - 1, one), "nobody is there");
    assert!(kit.driver.unwatch_at(here, one));
    assert!(!kit.driver.unwatch_at(here, one), "it has been taken back");
    kit.send_all(&first.client, &b"x"[..]);
    kit.send_all(&second.client, &b"y"[..]);
    kit.run_until("the other watch", |kit| kit.reported(two));
    kit.settle();
    assert!(!kit.reported(one), "it was taken back");
    kit.expect_byte(&first.server, b'x');
    // A descriptor keeps its place from one watch to the next, and gives it up when it is closed.
    assert_eq!(look(kit, &second.server).as_deref(), Some(&b"y"[..]));
    let again = watch(kit, &second.server).unwrap();
    assert_eq!(place(kit, &second.server), there);
    assert!(kit.driver.unwatch_at(there, again));
    drop(second);
    kit.settle();
    assert!(!kit.driver.unwatch_at(there, again), "it has been closed");
}

pub(crate) fn a_watched_stream_can_be_closed(kit: &mut Kit<'_>) {
    let Pair { client, server } = warm(kit);
    if watch(kit, &server).is_none() {
        return;
    }
    kit.driver.unwatch(&server);
    drop(server);
    assert_eq!(kit.receive(&client).unwrap().len(), 0);
}

pub(crate) fn a_watched_listener_tells_of_each_connection(kit: &mut Kit<'_>) {
    let (listener, address) = kit.listener();
    // Some drivers watch those only that have accepted before.
    for _ in 0..3 {
        let client = kit.connect(address);
        drop((kit.accept(&listener), client));
    }
    for _ in 0..3 {
        let nothing = kit.driver.accept_now(&listener);
        assert!(nothing.is_none() && listener.stashed_accept().is_none());
        let token = kit.token();
        if !kit.driver.watch(&listener, Direction::Accept, token) {
            return;
        }
        kit.settle();
        assert!(!kit.reported(token), "nobody has connected");
        let client = kit.connect(address);
        kit.run_until("the watch", |kit| kit.reported(token));
        let stashed = listener.stashed_accept();
        let server = stashed.or_else(|| kit.driver.accept_now(&listener));
        let server = server.expect("somebody has connected").unwrap();
        kit.send_all(&client, &b"x"[..]);
        kit.expect_byte(&server, b'x');
    }
}

pub(crate) fn a_watched_listener_keeps_what_comes_later(kit: &mut Kit<'_>) {
    let (listener, address) = kit.listener();
    for _ in 0..3 {
        let client = kit.connect(address);
        drop((kit.accept(&listener), client));
    }
    let token = kit.token();
    if kit.driver.watch(&listener, Direction::Accept, token) {
        kit.driver.unwatch(&listener);
    }
    let clients: Vec<_> = (0..4).map(|_| kit.connect(address)).collect();
    kit.settle();
    assert!(!kit.reported(token));
    for client in &clients {
        let stashed = listener.stashed_accept();
        let server = match stashed.or_else(|| kit.driver.accept_now(&listener)) {
            Some(server) => server.unwrap(),
            None => kit.accept(&listener),
        };
        kit.send_all(client, &b"x"[..]);
        kit.expect_byte(&server, b'x');
    }
}
