//! Rule 4: an operation that is given up leaves what it won with its descriptor.

use trio_platform::{Accept, Descriptor, Direction, Receive, Send};

use crate::kit::{FLOOD, Kit, Pair, Ticket};

/// Waits for the end of an operation that was abandoned in flight.
fn wait_orphan(kit: &mut Kit<'_>, ticket: Ticket) {
    assert!(kit.wait_report(ticket).orphan, "it was abandoned");
    assert!(kit.driver.take(ticket.key).is_none(), "nothing is to take");
}

/// Accepts, from the stash first.
fn accept(kit: &mut Kit<'_>, listener: &Descriptor) -> Descriptor {
    assert_eq!(listener.orphans(Direction::Accept), 0);
    let stashed = listener.stashed_accept().transpose().unwrap();
    stashed.unwrap_or_else(|| kit.accept(listener))
}

pub(crate) fn an_abandoned_receive_that_lost_takes_nothing(kit: &mut Kit<'_>) {
    let Pair { client, server } = kit.pair();
    let receive = kit.start(Receive::new(server.clone()));
    kit.settle();
    assert!(kit.driver.abandon(receive.key), "it is in flight");
    wait_orphan(kit, receive);
    assert!(server.stashed_receive().is_none());
    kit.send_all(&client, &b"x"[..]);
    kit.expect_byte(&server, b'x');
}

pub(crate) fn an_abandoned_receive_that_won_leaves_its_bytes(kit: &mut Kit<'_>) {
    let Pair { client, server } = kit.pair();
    kit.send_all(&client, &b"x"[..]);
    let receive = kit.start(Receive::new(server.clone()));
    kit.wait_report(receive);
    assert!(!kit.driver.abandon(receive.key), "it has been reported");
    let lease = server.stashed_receive().unwrap().unwrap();
    assert_eq!(&*lease, b"x");
    assert!(server.stashed_receive().is_none());
    assert!(kit.driver.take(receive.key).is_none());
}

pub(crate) fn an_abandoned_receive_leaves_the_end_of_file(kit: &mut Kit<'_>) {
    let Pair { client, server } = kit.pair();
    drop(client);
    let receive = kit.start(Receive::new(server.clone()));
    kit.wait_report(receive);
    assert!(!kit.driver.abandon(receive.key));
    assert_eq!(kit.receive(&server).unwrap().len(), 0);
}

pub(crate) fn a_receive_abandoned_in_a_race_loses_nothing(kit: &mut Kit<'_>) {
    let Pair { client, server } = kit.pair();
    for byte in 0..20 {
        let receive = kit.start(Receive::new(server.clone()));
        if byte % 2 == 0 {
            kit.settle();
        }
        kit.send_all(&client, vec![byte]);
        if kit.driver.abandon(receive.key) {
            wait_orphan(kit, receive);
        }
        kit.expect_byte(&server, byte);
    }
}

pub(crate) fn an_abandoned_accept_that_lost_takes_nothing(kit: &mut Kit<'_>) {
    let (listener, address) = kit.listener();
    let lost = kit.start(Accept::new(listener.clone()));
    kit.settle();
    assert!(kit.driver.abandon(lost.key));
    wait_orphan(kit, lost);
    assert!(listener.stashed_accept().is_none());
    let client = kit.connect(address);
    let server = kit.accept(&listener);
    kit.send_all(&client, &b"x"[..]);
    kit.expect_byte(&server, b'x');
}

pub(crate) fn an_abandoned_accept_that_won_leaves_its_connection(kit: &mut Kit<'_>) {
    let (listener, address) = kit.listener();
    let client = kit.connect(address);
    let won = kit.start(Accept::new(listener.clone()));
    kit.wait_report(won);
    assert!(!kit.driver.abandon(won.key));
    let server = listener.stashed_accept().unwrap().unwrap();
    assert!(listener.stashed_accept().is_none());
    kit.send_all(&client, &b"x"[..]);
    kit.expect_byte(&server, b'x');
}

pub(crate) fn an_accept_abandoned_in_a_race_loses_nothing(kit: &mut Kit<'_>) {
    let (listener, address) = kit.listener();
    for byte in 0..10 {
        let abandoned = kit.start(Accept::new(listener.clone()));
        let client = kit.connect(address);
        if kit.driver.abandon(abandoned.key) {
            wait_orphan(kit, abandoned);
        }
        let server = accept(kit, &listener);
        kit.send_all(&client, vec![byte]);
        kit.expect_byte(&server, byte);
    }
}

pub(crate) fn an_operation_may_be_cancelled_and_then_abandoned(kit: &mut Kit<'_>) {
    let Pair { client, server } = kit.pair();
    let receive = kit.start(Receive::new(server.clone()));
    kit.settle();
    kit.driver.cancel(receive.key);
    assert!(kit.driver.abandon(receive.key));
    wait_orphan(kit, receive);
    kit.send_all(&client, &b"x"[..]);
    kit.expect_byte(&server, b'x');
}

pub(crate) fn an_abandoned_send_ends(kit: &mut Kit<'_>) {
    let Pair { client, server } = kit.pair();
    let send = kit.start(Send::new(client, &FLOOD[..]));
    kit.settle();
    if kit.driver.abandon(send.key) {
        wait_orphan(kit, send);
    }
    assert_eq!(kit.driver.in_flight(), 0);
    drop(server);
}

pub(crate) fn orphans_are_counted_by_direction(kit: &mut Kit<'_>) {
    let Pair {
        client: _client,
        server,
    } = kit.pair();
    let (listener, _) = kit.listener();
    let receives = [0; 3].map(|_| kit.start(Receive::new(server.clone())));
    let accept = kit.start(Accept::new(listener.clone()));
    kit.settle();
    assert_eq!(server.orphans(Direction::Receive), 0);
    for (index, receive) in receives.into_iter().enumerate() {
        assert!(kit.driver.abandon(receive.key));
        assert_eq!(server.orphans(Direction::Receive), index as u32 + 1);
    }
    assert!(kit.driver.abandon(accept.key));
    assert_eq!(listener.orphans(Direction::Accept), 1);
    assert_eq!(listener.orphans(Direction::Receive), 0);

    let mut counted = 3;
    kit.run_until("the orphans to end", |_| {
        let left = server.orphans(Direction::Receive);
        assert!(left <= counted, "orphans only end");
        counted = left;
        left == 0 && listener.orphans(Direction::Accept) == 0
    });
    for ticket in receives.into_iter().chain([accept]) {
        wait_orphan(kit, ticket);
    }
}

pub(crate) fn unreceived_bytes_come_first(kit: &mut Kit<'_>) {
    let Pair { client, server } = kit.pair();
    kit.send_all(&client, &b"ab"[..]);
    let mut lease = kit.receive(&server).unwrap();
    assert_eq!(lease[0], b'a');
    lease.truncate(1);
    if server.stashed_receive().is_none() {
        server.unreceive(lease);
    }
    kit.expect_byte(&server, b'a');
}
