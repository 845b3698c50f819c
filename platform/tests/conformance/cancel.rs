//! Rule 3: a cancel is a request, and the operation ends by its own last completion.

use std::time::Duration;

use trio_platform::{Accept, Connect, Descriptor, Direction, Family, Receive, Send, is_cancelled};

use crate::kit::{Kit, Pair, Ticket, anywhere, assert_cancelled};

pub(crate) fn a_cancelled_receive_takes_nothing(kit: &mut Kit<'_>) {
    let Pair { client, server } = kit.pair();
    let receive = kit.start(Receive::new(server.clone()));
    kit.settle();
    kit.driver.cancel(receive.key);
    assert!(kit.driver.take(receive.key).is_none(), "it has not ended");
    assert_cancelled(&kit.finish(receive).into_received());
    kit.send_all(&client, &b"x"[..]);
    kit.expect_byte(&server, b'x');
}

pub(crate) fn a_cancel_in_the_turn_of_its_operation_works(kit: &mut Kit<'_>) {
    let Pair { client, server } = kit.pair();
    let receive = kit.start(Receive::new(server.clone()));
    kit.driver.cancel(receive.key);
    assert_cancelled(&kit.finish(receive).into_received());
    kit.send_all(&client, &b"x"[..]);
    kit.expect_byte(&server, b'x');
}

pub(crate) fn a_cancelled_accept_takes_no_connection(kit: &mut Kit<'_>) {
    let (listener, address) = kit.listener();
    let accept = kit.start(Accept::new(listener.clone()));
    kit.settle();
    kit.driver.cancel(accept.key);
    assert_cancelled(&kit.finish(accept).into_accepted());
    let client = kit.connect(address);
    let server = kit.accept(&listener);
    kit.send_all(&client, &b"x"[..]);
    kit.expect_byte(&server, b'x');
}

pub(crate) fn a_cancelled_send_sends_nothing(kit: &mut Kit<'_>) {
    let Pair { client, server } = kit.pair();
    let chunk = vec![7; 64 * 1024];
    let mut sent = 0;
    // Fills the connection, until a send waits.
    let waiting = loop {
        let send = kit.start(Send::new(client.clone(), chunk.clone()));
        kit.run_for(Duration::from_millis(30));
        if kit.report(send).is_none() {
            break send;
        }
        sent += kit.finish(send).into_sent().1.unwrap() as usize;
    };
    kit.driver.cancel(waiting.key);
    match kit.finish(waiting).into_sent().1 {
        // A send that had sent a part reports the part.
        Ok(part) => sent += part as usize,
        Err(error) => assert!(is_cancelled(&error), "{error:?}"),
    }
    drop(client);
    let mut received = 0;
    loop {
        let count = kit.receive(&server).unwrap().len();
        received += count;
        if count == 0 {
            break;
        }
    }
    assert_eq!(received, sent);
}

/// Connects of which the last is not answered, because the backlog is full; `None` where the system
/// answers all the same.
fn unanswered_connect(kit: &mut Kit<'_>) -> Option<(Ticket, Vec<Descriptor>)> {
    let listener = kit.driver.socket(Family::V4).unwrap();
    kit.driver.bind(&listener, &anywhere(), false).unwrap();
    kit.driver.listen(&listener, 1).unwrap();
    let address = kit.driver.local_address(&listener).unwrap();
    let mut open = vec![listener];
    for _ in 0..20 {
        let socket = kit.driver.socket(Family::V4).unwrap();
        let connect = kit.start(Connect::new(socket, address));
        kit.run_for(Duration::from_millis(30));
        if kit.report(connect).is_none() {
            return Some((connect, open));
        }
        open.push(kit.finish(connect).into_connected().unwrap());
    }
    None
}

pub(crate) fn a_cancelled_connect_ends(kit: &mut Kit<'_>) {
    let Some((connect, open)) = unanswered_connect(kit) else {
        return;
    };
    kit.driver.cancel(connect.key);
    assert_cancelled(&kit.finish(connect).into_connected());
    drop(open);
}

pub(crate) fn an_abandoned_connect_ends(kit: &mut Kit<'_>) {
    let Some((connect, open)) = unanswered_connect(kit) else {
        return;
    };
    assert!(kit.driver.abandon(connect.key));
    assert!(kit.wait_report(connect).orphan);
    drop(open);
}

pub(crate) fn success_wins_over_a_later_cancel(kit: &mut Kit<'_>) {
    let Pair { client, server } = kit.pair();
    kit.send_all(&client, &b"x"[..]);
    let receive = kit.start(Receive::new(server.clone()));
    kit.wait_report(receive);
    kit.driver.cancel(receive.key);
    kit.run_for(Duration::from_millis(10));
    let lease = kit.finish(receive).into_received().unwrap();
    assert_eq!(&*lease, b"x");
}

pub(crate) fn a_race_of_cancel_and_success_loses_nothing(kit: &mut Kit<'_>) {
    let Pair { client, server } = kit.pair();
    for byte in 0..20 {
        let receive = kit.start(Receive::new(server.clone()));
        // Half of them wait in the kernel when the byte comes; the others have yet to be looked at.
        if byte % 2 == 0 {
            kit.settle();
        }
        kit.send_all(&client, vec![byte]);
        kit.driver.cancel(receive.key);
        match kit.finish(receive).into_received() {
            Ok(lease) => assert_eq!(*lease, [byte]),
            Err(error) => {
                assert!(is_cancelled(&error), "{error:?}");
                kit.expect_byte(&server, byte);
            }
        }
    }
}

pub(crate) fn a_race_for_a_connection_loses_nothing(kit: &mut Kit<'_>) {
    let (listener, address) = kit.listener();
    for byte in 0..10 {
        let accept = kit.start(Accept::new(listener.clone()));
        let client = kit.connect(address);
        kit.driver.cancel(accept.key);
        let server = match kit.finish(accept).into_accepted() {
            Ok(server) => server,
            Err(error) => {
                assert!(is_cancelled(&error), "{error:?}");
                kit.accept(&listener)
            }
        };
        kit.send_all(&client, vec![byte]);
        kit.expect_byte(&server, byte);
    }
}

pub(crate) fn a_second_cancel_does_nothing(kit: &mut Kit<'_>) {
    let Pair { client, server } = kit.pair();
    let receive = kit.start(Receive::new(server.clone()));
    kit.settle();
    kit.driver.cancel(receive.key);
    kit.driver.cancel(receive.key);
    kit.wait_report(receive);
    kit.driver.cancel(receive.key);
    kit.run_for(Duration::from_millis(10));
    assert_cancelled(&kit.finish(receive).into_received());
    kit.send_all(&client, &b"x"[..]);
    kit.expect_byte(&server, b'x');
}

pub(crate) fn a_cancel_of_what_has_ended_does_nothing(kit: &mut Kit<'_>) {
    let Pair { client, server } = kit.pair();
    kit.send_all(&client, &b"x"[..]);
    let receive = kit.start(Receive::new(server.clone()));
    let lease = kit.finish(receive).into_received().unwrap();
    assert_eq!(&*lease, b"x");
    kit.driver.cancel(receive.key);
    assert!(!kit.driver.abandon(receive.key), "it is not in flight");
    kit.run_for(Duration::from_millis(10));
    assert_eq!(server.orphans(Direction::Receive), 0);
    assert_eq!(kit.driver.in_flight(), 0);
}

pub(crate) fn an_old_key_never_names_a_new_operation(kit: &mut Kit<'_>) {
    let Pair { client, server } = kit.pair();
    kit.send_all(&client, &b"x"[..]);
    let old = kit.start(Receive::new(server.clone()));
    drop(kit.finish(old));
    // The new operation has taken the place of the old one, if places are used again.
    let new = kit.start(Receive::new(server.clone()));
    assert_ne!(old.key, new.key);
    kit.driver.cancel(old.key);
    assert!(!kit.driver.abandon(old.key));
    assert!(kit.driver.take(old.key).is_none());
    kit.run_for(Duration::from_millis(10));
    kit.send_all(&client, &b"y"[..]);
    let lease = kit.finish(new).into_received().unwrap();
    assert_eq!(&*lease, b"y");
}

pub(crate) fn a_cancel_spares_the_other_direction(kit: &mut Kit<'_>) {
    let Pair { client, server } = kit.pair();
    let here = kit.start(Receive::new(server.clone()));
    let there = kit.start(Receive::new(client.clone()));
    kit.settle();
    kit.driver.cancel(here.key);
    assert_cancelled(&kit.finish(here).into_received());
    kit.send_all(&server, &b"x"[..]);
    let lease = kit.finish(there).into_received().unwrap();
    assert_eq!(&*lease, b"x");
}
