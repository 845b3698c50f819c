//! The driver against the real kernel: what is the ring's own, beside what the conformance suite
//! asks of every driver.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc;

use socket2::{Domain, Socket, Type};

use super::feed::LARGE;
use super::*;
use crate::driver::Family;
use crate::op::{Accept, Connect, Interest, Ready, Receive, Send, is_cancelled};

/// More turns than anything here takes, and longer ones.
const TURNS: usize = 1000;
const PATIENCE: Duration = Duration::from_secs(10);

fn driver(entries: u32, blocks: u16) -> Uring {
    Uring::over(setup::ring(entries).unwrap(), blocks).unwrap()
}

fn pair() -> (Descriptor, Descriptor) {
    let (near, far) = Socket::pair(Domain::UNIX, Type::STREAM, None).unwrap();
    (
        Descriptor::from_socket(near).unwrap(),
        Descriptor::from_socket(far).unwrap(),
    )
}

fn listener(driver: &mut Uring) -> (Descriptor, SocketAddr) {
    let listener = driver.socket(Family::V4).unwrap();
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    driver.bind(&listener, &any, false).unwrap();
    driver.listen(&listener, 16).unwrap();
    let address = driver.local_address(&listener).unwrap();
    (listener, address)
}

/// Both ends of a connection over the loopback.
fn connection(driver: &mut Uring) -> (Descriptor, Descriptor) {
    let (listener, address) = listener(driver);
    let socket = driver.socket(Family::V4).unwrap();
    let accept = submit(driver, Accept::new(listener));
    let connect = submit(driver, Connect::new(socket, address));
    let client = finish(driver, connect).into_connected().unwrap();
    let server = finish(driver, accept).into_accepted().unwrap();
    (client, server)
}

fn submit(driver: &mut Uring, operation: impl Into<Operation>) -> Key {
    driver.submit(operation.into(), Token(0))
}

/// Turns until `count` operations have ended.
fn turn_until(driver: &mut Uring, count: usize) -> Vec<Completed> {
    let mut completed = Vec::new();
    for _ in 0..TURNS {
        if completed.len() >= count {
            break;
        }
        driver.turn(Wait::For(PATIENCE), &mut completed).unwrap();
    }
    assert_eq!(completed.len(), count);
    completed
}

/// Turns until the operation has ended, and takes it.
fn finish(driver: &mut Uring, key: Key) -> Finished {
    let mut completed = Vec::new();
    for _ in 0..TURNS {
        if let Some(finished) = driver.take(key) {
            return finished;
        }
        driver.turn(Wait::For(PATIENCE), &mut completed).unwrap();
    }
    panic!("{key:?} does not end");
}

/// Lets the kernel take what was submitted.
fn settle_in(driver: &mut Uring) {
    let mut completed = Vec::new();
    driver.turn(Wait::Poll, &mut completed).unwrap();
    assert_eq!(completed, []);
}

fn send_now(driver: &mut Uring, to: &Descriptor, data: &[u8]) {
    assert_eq!(driver.try_send(to, data).unwrap(), data.len());
}

#[test]
fn bytes_cross_a_connection_over_the_loopback() {
    let mut driver = Uring::new(None).unwrap();
    let (client, server) = connection(&mut driver);
    for end in [&client, &server] {
        assert!(end.socket().unwrap().nonblocking().unwrap());
        let flags = rustix::io::fcntl_getfd(end).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    }
    let send = submit(&mut driver, Send::new(client.clone(), b"over".as_slice()));
    let (_, sent) = finish(&mut driver, send).into_sent();
    assert_eq!(sent.unwrap(), 4);
    let receive = submit(&mut driver, Receive::new(server.clone()));
    let bytes = finish(&mut driver, receive).into_received().unwrap();
    assert_eq!(&*bytes, b"over");
    driver.shutdown_send(&client).unwrap();
    let receive = submit(&mut driver, Receive::new(server));
    let bytes = finish(&mut driver, receive).into_received().unwrap();
    assert_eq!(&*bytes, b"", "an end of file is an empty lease");
    assert_eq!(driver.statistics().buffers_exhausted, 0);
}

#[test]
fn a_refused_connect_says_so() {
    let mut driver = driver(8, 4);
    let closed = driver.socket(Family::V4).unwrap();
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    driver.bind(&closed, &any, false).unwrap();
    let address = driver.local_address(&closed).unwrap();
    let socket = driver.socket(Family::V4).unwrap();
    let connect = submit(&mut driver, Connect::new(socket, address));
    let error = finish(&mut driver, connect).into_connected().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
}

#[test]
fn a_send_goes_on_until_all_is_sent() {
    let mut driver = driver(8, 4);
    let (client, server) = connection(&mut driver);
    let data: Vec<u8> = (0..4_000_000_u32).map(|n| n as u8).collect();
    let send = submit(&mut driver, Send::new(client, data.clone()));
    let mut received = Vec::new();
    while received.len() < data.len() {
        let receive = submit(&mut driver, Receive::new(server.clone()));
        received.extend_from_slice(&finish(&mut driver, receive).into_received().unwrap());
    }
    let (_, sent) = finish(&mut driver, send).into_sent();
    assert_eq!(sent.unwrap() as usize, data.len());
    assert!(received == data);
}

#[test]
fn a_poll_with_nothing_to_do_makes_no_system_call() {
    let mut driver = driver(8, 4);
    let (near, _far) = pair();
    submit(&mut driver, Receive::new(near));
    settle_in(&mut driver);
    let before = driver.statistics().enters;
    for _ in 0..10 {
        settle_in(&mut driver);
    }
    assert_eq!(driver.statistics().enters, before);
    assert_eq!(driver.in_flight(), 1);
}

#[test]
fn a_poll_finds_what_has_come_since() {
    let mut driver = driver(8, 4);
    let (near, far) = pair();
    let receive = submit(&mut driver, Receive::new(near));
    settle_in(&mut driver);
    send_now(&mut driver, &far, b"x");
    let mut completed = Vec::new();
    driver.turn(Wait::Poll, &mut completed).unwrap();
    assert_eq!(completed.len(), 1);
    let bytes = driver.take(receive).unwrap().into_received().unwrap();
    assert_eq!(&*bytes, b"x");
}

#[test]
fn a_wait_is_over_when_its_time_is_up() {
    let mut driver = driver(8, 4);
    let mut completed = Vec::new();
    let before = driver.statistics().enters;
    driver
        .turn(Wait::For(Duration::from_nanos(1)), &mut completed)
        .unwrap();
    assert_eq!(completed, []);
    assert_eq!(driver.statistics().enters, before + 1);
}

#[test]
fn one_call_submits_and_waits() {
    let mut driver = driver(8, 4);
    settle_in(&mut driver);
    let (near, far) = pair();
    send_now(&mut driver, &far, b"x");
    let before = driver.statistics().enters;
    submit(&mut driver, Receive::new(near));
    turn_until(&mut driver, 1);
    assert_eq!(driver.statistics().enters, before + 1);
}

#[test]
fn a_full_queue_loses_no_submission() {
    let mut driver = driver(2, 4);
    let (near, _far) = pair();
    for number in 0..500 {
        let ready = Ready::new(near.clone(), Interest::Writable);
        driver.submit(ready.into(), Token(number));
    }
    let completed = turn_until(&mut driver, 500);
    let mut tokens: Vec<u64> = completed.iter().map(|done| done.token.0).collect();
    tokens.sort_unstable();
    assert!(tokens.into_iter().eq(0..500));
    assert!(driver.statistics().overflowed > 0);
    assert_eq!(driver.in_flight(), 0);
}

#[test]
fn a_full_queue_loses_no_cancel() {
    let mut driver = driver(2, 4);
    let (near, _far) = pair();
    let keys: Vec<Key> = (0..300)
        .map(|_| submit(&mut driver, Receive::new(near.clone())))
        .collect();
    // Half of the cancels follow their submission into the overflow, half come when it is parked.
    let (early, late) = keys.split_at(150);
    for &key in early {
        driver.cancel(key);
    }
    turn_until(&mut driver, 150);
    for &key in late {
        driver.cancel(key);
    }
    turn_until(&mut driver, 150);
    for key in keys {
        let error = driver.take(key).unwrap().into_received().unwrap_err();
        assert!(is_cancelled(&error));
    }
    let statistics = driver.statistics();
    assert_eq!(statistics.cancels, 300);
    assert_eq!(statistics.cancelled, 300);
}

#[test]
fn a_crowd_of_cancels_ends_by_the_queueful() {
    let mut driver = driver(256, 4);
    let (near, _far) = pair();
    let keys: Vec<Key> = (0..2000)
        .map(|_| submit(&mut driver, Receive::new(near.clone())))
        .collect();
    settle_in(&mut driver);
    keys.iter().for_each(|key| driver.cancel(*key));
    let mut completed = Vec::new();
    driver.turn(Wait::Poll, &mut completed).unwrap();
    let first = completed.len();
    assert!(first > 0, "a turn reports what has ended");
    assert!(first < 1000, "and does not wait for the rest: {first}");
    turn_until(&mut driver, 2000 - first);
    for key in keys {
        let error = driver.take(key).unwrap().into_received().unwrap_err();
        assert!(is_cancelled(&error));
    }
}

#[test]
fn more_completions_than_the_queue_holds_are_all_reported() {
    let mut driver = driver(64, 4);
    let (near, _far) = pair();
    let count = 3 * driver.ring.parameters().cq_entries() as usize;
    for _ in 0..count {
        submit(&mut driver, Ready::new(near.clone(), Interest::Writable));
    }
    turn_until(&mut driver, count);
    assert_eq!(driver.in_flight(), 0);
}

#[test]
fn a_refused_call_leaves_its_submissions_in_the_queue() {
    let mut driver = driver(4, 4);
    let (near, far) = pair();
    let receive = submit(&mut driver, Receive::new(near));
    send_now(&mut driver, &far, b"patience");
    driver.ring.refuse = 3;
    let bytes = finish(&mut driver, receive).into_received().unwrap();
    assert_eq!(&*bytes, b"patience");
    assert_eq!(driver.ring.refuse, 0);
}

#[test]
fn success_wins_over_a_cancel_that_comes_with_it() {
    let mut driver = driver(8, 4);
    let (near, far) = pair();
    send_now(&mut driver, &far, b"first");
    let receive = submit(&mut driver, Receive::new(near));
    driver.cancel(receive);
    let bytes = finish(&mut driver, receive).into_received().unwrap();
    assert_eq!(&*bytes, b"first");
}

#[test]
fn a_cancelled_receive_takes_nothing_from_the_socket() {
    let mut driver = driver(8, 4);
    let (near, far) = pair();
    let receive = submit(&mut driver, Receive::new(near.clone()));
    settle_in(&mut driver);
    // Both are on their way now: the kernel may decide either way, but only one way.
    send_now(&mut driver, &far, b"either");
    driver.cancel(receive);
    let bytes = match finish(&mut driver, receive).into_received() {
        Ok(bytes) => bytes.to_vec(),
        Err(error) => {
            assert!(is_cancelled(&error));
            let mut bytes = [0; 16];
            let count = driver.try_receive(&near, &mut bytes).unwrap();
            bytes[..count].to_vec()
        }
    };
    assert_eq!(bytes, b"either");
}

#[test]
fn a_cancel_ends_every_kind_of_wait() {
    let mut driver = driver(8, 4);
    let (near, _far) = pair();
    let (listener, _) = listener(&mut driver);
    let waits: [Operation; 3] = [
        Receive::new(near.clone()).into(),
        Ready::new(near, Interest::Readable).into(),
        Accept::new(listener).into(),
    ];
    let keys = waits.map(|wait| submit(&mut driver, wait));
    settle_in(&mut driver);
    for key in keys {
        driver.cancel(key);
        driver.cancel(key);
    }
    turn_until(&mut driver, 3);
    for key in keys {
        let finished = driver.take(key).unwrap();
        assert!(is_cancelled(&finished.result.unwrap_err()));
        assert!(driver.take(key).is_none());
    }
    assert_eq!(driver.statistics().cancels, 3, "each is asked for once");
}

#[test]
fn a_receive_gets_a_block_although_every_lease_is_held() {
    let mut driver = driver(8, 2);
    let (near, far) = pair();
    let mut held = Vec::new();
    for round in 0..5_u8 {
        send_now(&mut driver, &far, &[round; 100]);
        let receive = submit(&mut driver, Receive::new(near.clone()));
        held.push(finish(&mut driver, receive).into_received().unwrap());
    }
    for (round, lease) in (0..).zip(&held) {
        assert_eq!(&**lease, [round; 100]);
    }
    assert_eq!(driver.statistics().buffers_exhausted, 3);
    // What is given back is used again.
    held.clear();
    send_now(&mut driver, &far, b"again");
    let receive = submit(&mut driver, Receive::new(near));
    let bytes = finish(&mut driver, receive).into_received().unwrap();
    assert_eq!(&*bytes, b"again");
    assert_eq!(driver.statistics().buffers_exhausted, 3);
}

#[test]
fn waiting_receives_hold_no_block() {
    let mut driver = driver(64, 2);
    let pairs: Vec<_> = (0..50).map(|_| pair()).collect();
    let keys: Vec<_> = pairs
        .iter()
        .map(|(near, _)| submit(&mut driver, Receive::new(near.clone())))
        .collect();
    settle_in(&mut driver);
    assert_eq!(driver.statistics().buffers_exhausted, 0);
    for ((_, far), key) in pairs.iter().zip(keys) {
        send_now(&mut driver, far, b"one at a time");
        let bytes = finish(&mut driver, key).into_received().unwrap();
        assert_eq!(&*bytes, b"one at a time");
    }
    assert_eq!(driver.statistics().buffers_exhausted, 0);
}

#[test]
fn a_receive_without_blocks_can_be_cancelled() {
    let mut driver = driver(8, 1);
    let (near, far) = pair();
    send_now(&mut driver, &far, b"x");
    let receive = submit(&mut driver, Receive::new(near.clone()));
    let _held = finish(&mut driver, receive).into_received().unwrap();
    let receive = submit(&mut driver, Receive::new(near.clone()));
    settle_in(&mut driver);
    driver.cancel(receive);
    let error = finish(&mut driver, receive).into_received().unwrap_err();
    assert!(is_cancelled(&error));
}

#[test]
fn a_receive_uses_the_block_that_it_brings() {
    let mut driver = driver(8, 1);
    let (near, far) = pair();
    let mut receive = Receive::new(near);
    let own = Pool::new(100, 1);
    receive.into = Some(own.lease());
    let receive = submit(&mut driver, receive);
    settle_in(&mut driver);
    send_now(&mut driver, &far, b"mine");
    let bytes = finish(&mut driver, receive).into_received().unwrap();
    assert_eq!(&*bytes, b"mine");
    assert_eq!(bytes.capacity(), 100);
    drop(bytes);
    assert_eq!(own.leased(), 0);
}

#[test]
fn what_an_abandoned_receive_won_is_stashed() {
    let mut driver = driver(8, 4);
    let (near, far) = pair();
    send_now(&mut driver, &far, b"won");
    // Forgetting the key is all that a submitter who forgets its future does.
    let receive = submit(&mut driver, Receive::new(near.clone()));
    assert!(driver.abandon(receive));
    assert_eq!(near.orphans(Direction::Receive), 1);
    let completed = turn_until(&mut driver, 1);
    assert!(completed[0].orphan);
    assert_eq!(near.orphans(Direction::Receive), 0);
    let bytes = near.stashed_receive().unwrap().unwrap();
    assert_eq!(&*bytes, b"won");
    assert!(driver.take(receive).is_none());
}

#[test]
fn an_abandoned_receive_that_won_nothing_leaves_nothing() {
    let mut driver = driver(8, 4);
    let (near, far) = pair();
    let receive = submit(&mut driver, Receive::new(near.clone()));
    settle_in(&mut driver);
    assert!(driver.abandon(receive));
    let completed = turn_until(&mut driver, 1);
    assert!(completed[0].orphan);
    assert!(near.stashed_receive().is_none());
    send_now(&mut driver, &far, b"later");
    let mut bytes = [0; 16];
    assert_eq!(driver.try_receive(&near, &mut bytes).unwrap(), 5);
}

#[test]
fn what_an_abandoned_accept_won_is_stashed() {
    let mut driver = driver(8, 4);
    let (listener, address) = listener(&mut driver);
    let socket = driver.socket(Family::V4).unwrap();
    let connect = submit(&mut driver, Connect::new(socket, address));
    let client = finish(&mut driver, connect).into_connected().unwrap();
    let accept = submit(&mut driver, Accept::new(listener.clone()));
    assert!(driver.abandon(accept));
    turn_until(&mut driver, 1);
    let server = listener.stashed_accept().unwrap().unwrap();
    assert_eq!(
        driver.peer_address(&server).unwrap(),
        driver.local_address(&client).unwrap()
    );
}

#[test]
fn a_receive_tells_whether_more_is_waiting() {
    let mut driver = driver(8, 4);
    let (client, server) = connection(&mut driver);
    let data = vec![7; buffers::BLOCK_SIZE as usize + 1];
    let send = submit(&mut driver, Send::new(client.clone(), data));
    finish(&mut driver, send).into_sent().1.unwrap();
    assert!(!driver.likely_readable(&server));
    let receive = submit(&mut driver, Receive::new(server.clone()));
    let first = finish(&mut driver, receive).into_received().unwrap();
    assert_eq!(first.len(), buffers::BLOCK_SIZE as usize);
    assert!(driver.likely_readable(&server));
    let receive = submit(&mut driver, Receive::new(server.clone()));
    let rest = finish(&mut driver, receive).into_received().unwrap();
    assert_eq!(rest.len(), 1);
    assert!(!driver.likely_readable(&server));
    // On a socket known to be empty the next receive waits before it tries, and still comes back.
    let receive = submit(&mut driver, Receive::new(server.clone()));
    settle_in(&mut driver);
    send_now(&mut driver, &client, b"more");
    let bytes = finish(&mut driver, receive).into_received().unwrap();
    assert_eq!(&*bytes, b"more");
}

#[test]
fn another_thread_ends_a_wait() {
    const ROUNDS: usize = 200;
    let mut driver = driver(8, 4);
    let unparker = driver.unparker();
    let (ask, asked) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for () in asked {
                unparker.unpark();
            }
        });
        for _ in 0..ROUNDS {
            ask.send(()).unwrap();
            // Returns only because of the wake, whether that came before the wait or in it.
            driver.turn(Wait::Forever, &mut Vec::new()).unwrap();
        }
        drop(ask);
    });
}

#[test]
fn a_wake_before_the_wait_ends_it() {
    let mut driver = driver(8, 4);
    driver.unparker().unpark();
    driver.turn(Wait::Poll, &mut Vec::new()).unwrap();
    // A poll is no wait, so the wake is still due.
    driver
        .turn(Wait::For(Duration::MAX), &mut Vec::new())
        .unwrap();
}

#[test]
fn a_wake_is_heard_again_after_a_cancel_of_everything() {
    let mut driver = driver(8, 4);
    let (near, _far) = pair();
    submit(&mut driver, Receive::new(near));
    assert_eq!(driver.drain(PATIENCE).leaked, 0);
    turn_until(&mut driver, 1);
    let unparker = driver.unparker();
    std::thread::scope(|scope| {
        scope.spawn(|| unparker.unpark());
        driver.turn(Wait::Forever, &mut Vec::new()).unwrap();
    });
}

#[test]
fn a_drain_leaves_nothing_in_flight() {
    let mut driver = driver(2, 4);
    let (near, _far) = pair();
    let (listener, _) = listener(&mut driver);
    let early = submit(&mut driver, Receive::new(near.clone()));
    settle_in(&mut driver);
    let mut keys = vec![early, submit(&mut driver, Accept::new(listener))];
    // Some of these the kernel has never heard of.
    for _ in 0..20 {
        keys.push(submit(&mut driver, Receive::new(near.clone())));
    }
    assert!(driver.abandon(early));
    let drained = driver.drain(PATIENCE);
    assert_eq!(drained.leaked, 0);
    assert_eq!(driver.in_flight(), 0);
    let mut completed = Vec::new();
    driver.turn(Wait::Forever, &mut completed).unwrap();
    assert_eq!(completed.len(), keys.len(), "each token is still reported");
    assert_eq!(completed.iter().filter(|done| done.orphan).count(), 1);
    for &key in &keys[1..] {
        let finished = driver.take(key).unwrap();
        assert!(is_cancelled(&finished.result.unwrap_err()));
    }
    assert_eq!(driver.drain(PATIENCE).leaked, 0);
}

// The sanitizer would report the leak that this test is about.
#[cfg(not(asan))]
#[test]
fn what_the_kernel_does_not_give_back_is_leaked() {
    let mut driver = driver(4, 4);
    let (near, far) = pair();
    submit(&mut driver, Receive::new(near.clone()));
    driver.ring.refuse = u32::MAX;
    let drained = driver.drain(Duration::from_millis(3));
    assert_eq!(drained.leaked, 1);
    assert_eq!(driver.in_flight(), 0);
    // When the kernel comes round after all, the late completion is nobody's.
    driver.ring.refuse = 0;
    send_now(&mut driver, &far, b"late");
    let mut completed = Vec::new();
    driver
        .turn(Wait::For(Duration::from_millis(1)), &mut completed)
        .unwrap();
    assert_eq!(completed, []);
}

#[test]
fn dropping_a_driver_ends_what_is_in_flight() {
    let mut driver = driver(2, 4);
    let (near, far) = pair();
    for _ in 0..10 {
        submit(&mut driver, Receive::new(near.clone()));
    }
    settle_in(&mut driver);
    submit(&mut driver, Send::new(near.clone(), vec![1; 10_000_000]));
    drop(driver);
    // The operations have let go of the descriptor, so this closes it.
    drop(near);
    let mut driver = self::driver(2, 4);
    loop {
        let receive = submit(&mut driver, Receive::new(far.clone()));
        if finish(&mut driver, receive)
            .into_received()
            .unwrap()
            .is_empty()
        {
            break;
        }
    }
}

#[test]
fn a_lease_outlives_its_driver() {
    let mut driver = driver(8, 2);
    let (near, far) = pair();
    send_now(&mut driver, &far, b"kept");
    let receive = submit(&mut driver, Receive::new(near));
    let bytes = finish(&mut driver, receive).into_received().unwrap();
    drop(driver);
    assert_eq!(&*bytes, b"kept");
}

/// A connection whose server end has a feed: it has received, and waits again.
fn fed(driver: &mut Uring) -> (Descriptor, Descriptor, Key) {
    let (client, server) = connection(driver);
    send_now(driver, &client, b"1");
    let receive = submit(driver, Receive::new(server.clone()));
    finish(driver, receive).into_received().unwrap();
    let receive = submit(driver, Receive::new(server.clone()));
    settle_in(driver);
    assert!(driver.feeds.is_taking(&server));
    (client, server, receive)
}

/// Turns until no feed is armed.
fn feeds_end(driver: &mut Uring) {
    let mut completed = Vec::new();
    for _ in 0..TURNS {
        if driver.feeds.armed() == 0 {
            return;
        }
        let wait = Wait::For(Duration::from_millis(10));
        driver.turn(wait, &mut completed).unwrap();
    }
    panic!("a feed does not end");
}

#[test]
fn a_connection_that_goes_on_is_fed_in_order_by_one_submission() {
    let mut driver = driver(8, 64);
    let (client, server, mut receive) = fed(&mut driver);
    for n in 0..100_u8 {
        send_now(&mut driver, &client, &[n]);
        let bytes = finish(&mut driver, receive).into_received().unwrap();
        assert_eq!(&*bytes, [n]);
        receive = submit(&mut driver, Receive::new(server.clone()));
    }
    assert_eq!(driver.feeds.armed(), 1);
    driver.shutdown_send(&client).unwrap();
    let end = finish(&mut driver, receive).into_received().unwrap();
    assert!(end.is_empty());
    assert_eq!(driver.feeds.armed(), 0, "an end of file ends the feed");
    assert_eq!(driver.in_flight(), 0);
}

#[test]
fn a_receive_that_waits_in_a_feed_is_cancelled_at_once_and_takes_nothing() {
    let mut driver = driver(8, 4);
    let (client, server, receive) = fed(&mut driver);
    let cancels = driver.statistics().cancels;
    driver.cancel(receive);
    let error = finish(&mut driver, receive).into_received().unwrap_err();
    assert!(is_cancelled(&error));
    assert_eq!(
        driver.statistics().cancels,
        cancels,
        "the kernel is not asked"
    );
    send_now(&mut driver, &client, b"kept");
    driver.turn(Wait::For(PATIENCE), &mut Vec::new()).unwrap();
    let kept = server.stashed_receive().unwrap().unwrap();
    assert_eq!(&*kept, b"kept");
}

#[test]
fn a_receive_that_is_abandoned_in_a_feed_leaves_its_bytes_to_the_next() {
    let mut driver = driver(8, 4);
    let (client, server, receive) = fed(&mut driver);
    assert!(driver.abandon(receive));
    let report = turn_until(&mut driver, 1);
    assert!(report[0].orphan);
    assert_eq!(server.orphans(Direction::Receive), 0);
    send_now(&mut driver, &client, b"next");
    let receive = submit(&mut driver, Receive::new(server));
    let bytes = finish(&mut driver, receive).into_received().unwrap();
    assert_eq!(&*bytes, b"next");
}

#[test]
fn a_peer_that_is_not_read_is_held_back_and_loses_nothing() {
    let mut driver = driver(8, 64);
    let (client, server, receive) = fed(&mut driver);
    driver.cancel(receive);
    let mut sent: u64 = 0;
    let mut refused = 0;
    // Until the buffers of the kernel are full, and stay so.
    while refused < 20 {
        let chunk: Vec<u8> = (0..50_000).map(|n| (sent + n) as u8).collect();
        match driver.try_send(&client, &chunk) {
            Ok(count) => sent += count as u64,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => refused += 1,
            Err(error) => panic!("{error}"),
        }
        driver
            .turn(Wait::For(Duration::from_micros(100)), &mut Vec::new())
            .unwrap();
    }
    feeds_end(&mut driver);
    // What was in the kernel's hands when the feed was stopped comes on top.
    assert!(
        server.stashed_receives() < 64,
        "{}",
        server.stashed_receives()
    );
    let mut received: u64 = 0;
    while received < sent {
        let receive = submit(&mut driver, Receive::new(server.clone()));
        let bytes = finish(&mut driver, receive).into_received().unwrap();
        for &byte in &*bytes {
            assert_eq!(byte, received as u8);
            received += 1;
        }
    }
}

#[test]
fn a_feed_ends_with_its_descriptor_and_the_peer_sees_it() {
    let mut driver = driver(8, 4);
    let (client, server, receive) = fed(&mut driver);
    driver.cancel(receive);
    drop(finish(&mut driver, receive));
    drop(server);
    let receive = submit(&mut driver, Receive::new(client));
    let end = finish(&mut driver, receive).into_received().unwrap();
    assert!(end.is_empty());
    assert_eq!(driver.in_flight(), 0);
}

#[test]
fn nothing_overtakes_what_a_feed_has_taken() {
    let mut driver = driver(8, 4);
    let (client, server, receive) = fed(&mut driver);
    send_now(&mut driver, &client, b"first");
    let error = driver.try_receive(&server, &mut [0; 16]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    assert!(!driver.likely_readable(&server));
    let bytes = finish(&mut driver, receive).into_received().unwrap();
    assert_eq!(&*bytes, b"first");
}

#[test]
fn a_feed_goes_on_although_every_lease_is_held() {
    let mut driver = driver(8, 4);
    let (client, server, mut receive) = fed(&mut driver);
    let mut held = Vec::new();
    for n in 0..20_u8 {
        send_now(&mut driver, &client, &[n]);
        let bytes = finish(&mut driver, receive).into_received().unwrap();
        assert_eq!(&*bytes, [n]);
        held.push(bytes);
        receive = submit(&mut driver, Receive::new(server.clone()));
    }
    assert!(driver.statistics().buffers_exhausted > 0);
}

#[test]
fn a_drain_ends_feeds_that_are_armed_or_not_yet_told_of() {
    let mut driver = driver(4, 4);
    let (_client, server, receive) = fed(&mut driver);
    let other = fed(&mut driver);
    driver.cancel(other.2);
    assert_eq!(driver.drain(PATIENCE).leaked, 0);
    assert_eq!(driver.in_flight(), 0);
    turn_until(&mut driver, 2);
    assert!(driver.take(receive).is_some());
    drop(server);
    drop(other);
}

#[test]
fn a_descriptor_outlives_the_driver_of_its_feed() {
    let mut driver = driver(8, 4);
    let (client, server, receive) = fed(&mut driver);
    driver.cancel(receive);
    drop(driver);
    let mut next = self::driver(8, 4);
    send_now(&mut next, &client, b"later");
    let receive = submit(&mut next, Receive::new(server.clone()));
    let bytes = finish(&mut next, receive).into_received().unwrap();
    assert_eq!(&*bytes, b"later");
}

/// A connection whose server end has a feed that tells, and is watched: large messages have come.
fn told_of(driver: &mut Uring) -> (Descriptor, Descriptor) {
    let (client, server, receive) = fed(driver);
    driver.cancel(receive);
    drop(finish(driver, receive));
    let large = [7; LARGE];
    while driver.feeds.is_taking(&server) {
        send_now(driver, &client, &large);
        let mut received = 0;
        while received < LARGE {
            let receive = submit(driver, Receive::new(server.clone()));
            received += finish(driver, receive).into_received().unwrap().len();
        }
        // If the feed has been stopped, until it has ended.
        driver.turn(Wait::Poll, &mut Vec::new()).unwrap();
        driver.turn(Wait::Poll, &mut Vec::new()).unwrap();
    }
    watch(driver, &server);
    settle_in(driver);
    assert_eq!(driver.feeds.armed(), 1);
    (client, server)
}

/// Watches `stream`, which has been found empty.
fn watch(driver: &mut Uring, stream: &Descriptor) {
    assert_eq!(receive_now(driver, stream), None);
    assert!(driver.watch(stream, Direction::Receive, WATCH));
}

/// Turns until the watch is told.
fn wait_told(driver: &mut Uring) {
    assert_eq!(turn_until(driver, 1)[0].token, WATCH);
}

/// What is there to receive at once, if anything is.
fn receive_now(driver: &mut Uring, stream: &Descriptor) -> Option<Vec<u8>> {
    let received = driver.receive_block_now(stream)?;
    Some(received.unwrap().to_vec())
}

const WATCH: Token = Token(77);

#[test]
fn a_feed_that_tells_is_one_submission_and_takes_nothing() {
    let mut driver = driver(8, 64);
    let (client, server) = told_of(&mut driver);
    let begun = driver.feeds.generation;
    for n in 0..100_u8 {
        send_now(&mut driver, &client, &[n; LARGE]);
        wait_told(&mut driver);
        assert!(server.stashed_receive().is_none());
        assert!(driver.likely_readable(&server));
        let mut bytes = [0; LARGE];
        assert_eq!(driver.try_receive(&server, &mut bytes).unwrap(), LARGE);
        assert_eq!(bytes, [n; LARGE], "into the slice, without a block");
        watch(&mut driver, &server);
    }
    assert_eq!(driver.feeds.generation, begun);
    assert!(!driver.likely_readable(&server));
}

#[test]
fn a_connection_of_small_messages_is_taken_from_again() {
    let mut driver = driver(8, 64);
    let (client, server) = told_of(&mut driver);
    let mut taken = 0;
    for n in 0..20_u8 {
        send_now(&mut driver, &client, &[n]);
        wait_told(&mut driver);
        let bytes = match server.stashed_receive() {
            Some(stashed) => stashed.unwrap().to_vec(),
            None => receive_now(&mut driver, &server).unwrap(),
        };
        assert_eq!(bytes, [n]);
        taken += u32::from(driver.feeds.is_taking(&server));
        watch(&mut driver, &server);
    }
    assert!((10..20).contains(&taken), "{taken}");
}

#[test]
fn receiving_in_small_pieces_does_not_make_messages_small() {
    let mut driver = driver(8, 64);
    let (client, server) = told_of(&mut driver);
    let begun = driver.feeds.generation;
    for _ in 0..10 {
        send_now(&mut driver, &client, &[1; LARGE]);
        wait_told(&mut driver);
        let mut piece = [0; 64];
        for _ in 0..LARGE / piece.len() {
            assert_eq!(driver.try_receive(&server, &mut piece).unwrap(), 64);
        }
        watch(&mut driver, &server);
    }
    settle_in(&mut driver);
    assert_eq!(driver.feeds.generation, begun);
}

#[test]
fn an_end_that_comes_with_the_last_bytes_needs_no_telling() {
    let mut driver = driver(8, 64);
    let (client, server) = told_of(&mut driver);
    send_now(&mut driver, &client, b"last");
    driver.shutdown_send(&client).unwrap();
    wait_told(&mut driver);
    assert_eq!(receive_now(&mut driver, &server), Some(b"last".to_vec()));
    for _ in 0..2 {
        assert_eq!(receive_now(&mut driver, &server), Some(Vec::new()));
    }
}

#[test]
fn what_stands_behind_urgent_data_is_found() {
    let mut driver = driver(8, 64);
    let (client, server) = told_of(&mut driver);
    send_now(&mut driver, &client, b"before");
    assert_eq!(client.socket().unwrap().send_out_of_band(b"!").unwrap(), 1);
    send_now(&mut driver, &client, b"behind");
    let mut bytes = Vec::new();
    wait_told(&mut driver);
    while bytes.len() < 12 {
        if let Some(more) = receive_now(&mut driver, &server) {
            bytes.extend(more);
        } else {
            assert!(driver.watch(&server, Direction::Receive, WATCH));
            wait_told(&mut driver);
        }
    }
    assert_eq!(bytes, b"beforebehind");
}

#[test]
fn what_has_been_told_of_is_not_waited_for() {
    let mut driver = driver(8, 64);
    let (client, server) = told_of(&mut driver);
    driver.unwatch(&server);
    send_now(&mut driver, &client, b"kept");
    let mut completed = Vec::new();
    while !driver.likely_readable(&server) {
        driver.turn(Wait::For(PATIENCE), &mut completed).unwrap();
    }
    assert_eq!(completed, [], "a watch that was taken back tells nothing");
    // Whoever does not look gets an operation, and not a watch.
    assert!(!driver.watch(&server, Direction::Receive, WATCH));
    let receive = submit(&mut driver, Receive::new(server.clone()));
    let bytes = finish(&mut driver, receive).into_received().unwrap();
    assert_eq!(&*bytes, b"kept");
    watch(&mut driver, &server);
}

#[test]
fn receives_that_wait_when_a_feed_changes_go_on() {
    let mut driver = driver(16, 64);
    let (client, server, first) = fed(&mut driver);
    let mut waiting = vec![first];
    for _ in 1..12 {
        waiting.push(submit(&mut driver, Receive::new(server.clone())));
    }
    // The fourth that is large ends the feed in which the others wait.
    while !waiting.is_empty() {
        send_now(&mut driver, &client, &[9; LARGE]);
        let mut received = 0;
        while received < LARGE {
            driver.turn(Wait::For(PATIENCE), &mut Vec::new()).unwrap();
            waiting.retain(|key| match driver.take(*key) {
                Some(finished) => {
                    received += finished.into_received().unwrap().len();
                    false
                }
                None => true,
            });
        }
    }
    assert!(!driver.feeds.is_taking(&server));
}

/// Receives until all that was sent is there, in order.
fn receive_until(driver: &mut Uring, stream: &Descriptor, received: &mut u64, sent: u64) {
    let mut watching = false;
    while *received < sent {
        if watching {
            wait_told(driver);
            watching = false;
        }
        let stashed = stream.stashed_receive();
        if let Some(taken) = stashed.or_else(|| driver.receive_block_now(stream)) {
            for &byte in &*taken.unwrap() {
                assert_eq!(u64::from(byte), *received % 251);
                *received += 1;
            }
        } else {
            watching = driver.watch(stream, Direction::Receive, WATCH);
            assert!(watching, "there is nothing, and blocks are left");
        }
    }
}

#[test]
fn what_comes_stays_in_order_whichever_feed_it_comes_through() {
    let mut driver = driver(8, 64);
    let (client, server, receive) = fed(&mut driver);
    driver.cancel(receive);
    drop(finish(&mut driver, receive));
    let (mut sent, mut received) = (0, 0);
    let begun = driver.feeds.generation;
    for _ in 0..10 {
        for length in [[100_000; 10], [10; 10]].concat() {
            let chunk: Vec<u8> = (0..length).map(|n| ((sent + n) % 251) as u8).collect();
            sent += driver.try_send(&client, &chunk).unwrap() as u64;
            receive_until(&mut driver, &server, &mut received, sent);
            driver.turn(Wait::Poll, &mut Vec::new()).unwrap();
        }
    }
    assert!(driver.feeds.generation > begun + 10, "it has changed");
}

/// A listener with a feed, and its address.
fn fed_listener(driver: &mut Uring) -> (Descriptor, SocketAddr) {
    let (listener, address) = listener(driver);
    for _ in 0..3 {
        let client = std::net::TcpStream::connect(address).unwrap();
        let accept = submit(driver, Accept::new(listener.clone()));
        drop((finish(driver, accept).into_accepted().unwrap(), client));
    }
    assert!(driver.watch(&listener, Direction::Accept, Token(7)));
    settle_in(driver);
    (listener, address)
}

#[test]
fn a_listener_that_goes_on_is_one_submission() {
    let mut driver = driver(8, 4);
    let (listener, address) = fed_listener(&mut driver);
    for _ in 0..10 {
        let client = std::net::TcpStream::connect(address).unwrap();
        let told = turn_until(&mut driver, 1);
        assert_eq!(told[0].token, Token(7));
        let server = listener.stashed_accept().unwrap().unwrap();
        assert!(server.socket().unwrap().nonblocking().unwrap());
        assert_eq!(
            driver.peer_address(&server).unwrap(),
            client.local_addr().unwrap()
        );
        assert!(driver.watch(&listener, Direction::Accept, Token(7)));
        assert!(driver.ring.submissions().is_empty(), "nothing to tell");
    }
}

#[test]
fn a_listener_that_nobody_accepts_from_is_left_to_the_kernel() {
    let mut driver = driver(8, 4);
    let (listener, address) = fed_listener(&mut driver);
    driver.listen(&listener, 1000).unwrap();
    let mut clients = Vec::new();
    let mut completed = Vec::new();
    for _ in 0..2 {
        let more = (0..100).map(|_| std::net::TcpStream::connect(address).unwrap());
        clients.extend(more);
        for _ in 0..20 {
            driver.turn(Wait::Poll, &mut completed).unwrap();
        }
    }
    // What is queued already is taken in one go; what comes afterwards is left.
    let kept = listener.stashed_accepts();
    assert!((64..200).contains(&kept), "{kept}");
    // None is lost.
    let mut taken = 0;
    while taken < clients.len() {
        while let Some(server) = listener.stashed_accept() {
            drop(server.unwrap());
            taken += 1;
        }
        if taken < clients.len() && driver.watch(&listener, Direction::Accept, Token(8)) {
            completed.clear();
            driver.turn(Wait::For(PATIENCE), &mut completed).unwrap();
        }
        driver.unwatch(&listener);
    }
}

#[test]
fn a_feed_of_connections_ends_with_its_listener() {
    let mut driver = driver(8, 4);
    let (listener, address) = fed_listener(&mut driver);
    let waiting = std::net::TcpStream::connect(address).unwrap();
    turn_until(&mut driver, 1);
    drop(listener);
    let mut completed = Vec::new();
    for _ in 0..TURNS {
        if driver.in_flight() == 0 {
            break;
        }
        driver.turn(Wait::For(PATIENCE), &mut completed).unwrap();
    }
    assert_eq!(driver.in_flight(), 0);
    // What nobody has accepted is closed.
    let end = io::Read::read(&mut &waiting, &mut [0]);
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    assert!(std::net::TcpStream::connect(address).is_err());
}
