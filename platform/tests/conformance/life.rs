//! The life of a driver: full queues, waiting, being woken, and the end.

use std::thread;
use std::time::Duration;

use trio_platform::{Accept, Interest, Ready, Receive, Send, Wait};

use crate::kit::{FLOOD, Kit, Pair, Ticket, assert_cancelled};

pub(crate) fn more_operations_than_the_queue_holds_all_run(kit: &mut Kit<'_>) {
    let Pair { client, server } = kit.pair();
    let waits: Vec<Ticket> = (0..500)
        .map(|_| kit.start(Ready::new(client.clone(), Interest::Writable)))
        .collect();
    assert_eq!(kit.driver.in_flight(), 500);
    for ready in waits {
        kit.finish(ready).into_ready().unwrap();
    }
    assert_eq!(kit.driver.in_flight(), 0);
    drop(server);
}

pub(crate) fn more_cancels_than_the_queue_holds_all_arrive(kit: &mut Kit<'_>) {
    let listeners: Vec<_> = (0..100).map(|_| kit.listener()).collect();
    for round in 0..3 {
        let accepts: Vec<Ticket> = listeners
            .iter()
            .map(|(listener, _)| kit.start(Accept::new(listener.clone())))
            .collect();
        // Sometimes the cancels come while most of the operations are still in the queue.
        if round > 0 {
            kit.settle();
        }
        for accept in &accepts {
            kit.driver.cancel(accept.key);
        }
        for accept in accepts {
            assert_cancelled(&kit.finish(accept).into_accepted());
        }
    }
}

pub(crate) fn an_unparker_that_has_called_ends_the_next_wait(kit: &mut Kit<'_>) {
    let Pair {
        client: _client,
        server,
    } = kit.pair();
    let receive = kit.start(Receive::new(server));
    kit.settle();
    let unparker = kit.driver.unparker();
    for _ in 0..3 {
        unparker.unpark();
        unparker.clone().unpark();
        kit.turn(Wait::Forever);
    }
    assert!(kit.report(receive).is_none());
}

pub(crate) fn an_unparker_ends_a_wait_from_another_thread(kit: &mut Kit<'_>) {
    kit.uses_threads = true;
    let Pair {
        client: _client,
        server,
    } = kit.pair();
    let receive = kit.start(Receive::new(server));
    kit.settle();
    for _ in 0..20 {
        let unparker = kit.driver.unparker();
        thread::scope(|threads| {
            threads.spawn(move || unparker.unpark());
            kit.turn(Wait::Forever);
        });
        // A call that came after the turn had ended for another reason ends the next wait; it must
        // not be there for ever.
        kit.turn(Wait::Poll);
    }
    assert!(kit.report(receive).is_none());
}

pub(crate) fn a_wait_ends_when_its_time_is_over(kit: &mut Kit<'_>) {
    let (listener, _) = kit.listener();
    let accept = kit.start(Accept::new(listener));
    kit.settle();
    let start = kit.now();
    let wait = Duration::from_millis(25);
    let mut turns = 0;
    while kit.now() - start < wait {
        let left = wait - (kit.now() - start);
        kit.turn(Wait::For(left));
        turns += 1;
        assert!(turns < 100, "a wait is a wait");
    }
    assert!(kit.report(accept).is_none());
}

pub(crate) fn a_poll_does_not_wait(kit: &mut Kit<'_>) {
    let (listener, _) = kit.listener();
    let accept = kit.start(Accept::new(listener));
    for _ in 0..100 {
        kit.turn(Wait::Poll);
    }
    assert!(kit.report(accept).is_none());
}

pub(crate) fn drain_leaves_nothing_in_flight(kit: &mut Kit<'_>) {
    let Pair { client, server } = kit.pair();
    let (listener, _) = kit.listener();
    kit.send_all(&client, &b"x"[..]);
    let done = kit.start(Receive::new(server.clone()));
    kit.wait_report(done);
    let tickets = [
        kit.start(Receive::new(server.clone())),
        kit.start(Receive::new(client.clone())),
        kit.start(Accept::new(listener)),
        kit.start(Ready::new(server, Interest::Readable)),
    ];
    kit.settle();
    // Some have not even been handed over.
    kit.start(Receive::new(client.clone()));
    kit.start(Send::new(client, &b"y"[..]));
    kit.driver.cancel(tickets[0].key);
    assert!(kit.driver.abandon(tickets[1].key));
    assert_eq!(kit.driver.drain(Duration::from_secs(10)).leaked, 0);
    assert_eq!(kit.driver.in_flight(), 0);
    // What had ended before can still be taken.
    let finished = kit.driver.take(done.key).unwrap();
    assert_eq!(&*finished.into_received().unwrap(), b"x");
}

pub(crate) fn a_driver_may_be_dropped_with_operations_in_flight(kit: &mut Kit<'_>) {
    let Pair { client, server } = kit.pair();
    let (listener, _) = kit.listener();
    kit.start(Receive::new(server.clone()));
    kit.start(Accept::new(listener.clone()));
    kit.start(Ready::new(client.clone(), Interest::Readable));
    kit.settle();
    kit.start(Send::new(client.clone(), &FLOOD[..]));
    let abandoned = kit.start(Receive::new(client.clone()));
    assert!(kit.driver.abandon(abandoned.key));
    kit.renew();
    // The descriptors are still whole, and close afterwards.
    drop((client, server, listener));
    kit.pair();
}

pub(crate) fn an_operation_keeps_its_descriptor_open(kit: &mut Kit<'_>) {
    let Pair { client, server } = kit.pair();
    let receive = kit.start(Receive::new(server));
    kit.settle();
    // Nobody but the operation has the descriptor now.
    let end = kit.start(Receive::new(client));
    kit.run_for(Duration::from_millis(10));
    assert!(kit.report(end).is_none(), "the server is open");
    kit.driver.cancel(receive.key);
    assert_cancelled(&kit.finish(receive).into_received());
    let lease = kit.finish(end).into_received().unwrap();
    assert_eq!(lease.len(), 0, "the server is closed");
}

pub(crate) fn a_key_may_be_forgotten(kit: &mut Kit<'_>) {
    let Pair { client, server } = kit.pair();
    let completes = kit.start(Receive::new(server.clone())).token;
    kit.start(Receive::new(client.clone()));
    kit.send_all(&client, &b"x"[..]);
    kit.run_until("the report", |kit| kit.reported(completes));
    // The kernel may write into what nobody can take any more: the driver owns it.
    kit.send_all(&server, &b"y"[..]);
    kit.settle();
}

pub(crate) fn statistics_count_what_was_done(kit: &mut Kit<'_>) {
    let before = kit.driver.statistics();
    let Pair { client, server } = kit.pair();
    let receive = kit.start(Receive::new(server));
    kit.settle();
    kit.driver.cancel(receive.key);
    assert_cancelled(&kit.finish(receive).into_received());
    drop(client);
    let after = kit.driver.statistics();
    assert_eq!(after.submitted - before.submitted, 3);
    assert_eq!(after.completed - before.completed, 3);
    assert_eq!(after.cancels - before.cancels, 1);
    assert_eq!(after.cancelled - before.cancelled, 1);
    assert!(after.enters > before.enters);
}
