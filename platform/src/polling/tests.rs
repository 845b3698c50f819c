//! The readiness driver over real sockets: every rule of `driver.rs`, and what edges make hard.
//!
//! Each case runs over every selector that this system offers, so that under Linux the one-shot
//! reports of Windows are tested too.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};

use super::portable::Portable;
use super::*;
use crate::op::{Accept, Connect, Ready, Receive, Send, is_cancelled};

#[test]
fn an_operation_that_ends_at_once_is_in_flight_until_it_is_reported() {
    check(|driver| {
        let (ours, mut theirs) = pair();
        theirs.write_all(b"hello").unwrap();
        wait_until_readable(&ours);
        let key = driver.submit(Receive::new(ours).into(), Token(7));
        assert_eq!(driver.in_flight(), 1);
        assert!(driver.take(key).is_none());
        let token = Token(7);
        let orphan = false;
        assert_eq!(poll(driver), [Completed { token, orphan }]);
        assert_eq!(driver.in_flight(), 0);
        assert_eq!(received(driver, key), b"hello");
        assert!(driver.take(key).is_none());
    });
}

#[test]
fn an_operation_that_waits_ends_when_the_descriptor_becomes_ready() {
    check(|driver| {
        let (ours, mut theirs) = pair();
        let key = receive(driver, &ours);
        assert_eq!(poll(driver), []);
        theirs.write_all(b"hello").unwrap();
        forever(driver);
        assert_eq!(received(driver, key), b"hello");
    });
}

#[test]
fn a_receive_that_waits_holds_no_block() {
    check(|driver| {
        let (ours, mut theirs) = pair();
        let key = receive(driver, &ours);
        poll(driver);
        assert_eq!(driver.pool.leased(), 0);
        theirs.write_all(b"hello").unwrap();
        forever(driver);
        assert_eq!(driver.pool.leased(), 1);
        drop(driver.take(key));
        assert_eq!(driver.pool.leased(), 0);
    });
}

#[test]
fn data_between_the_attempt_and_the_registration_is_not_missed() {
    check(|driver| {
        let (ours, mut theirs) = pair();
        // What `submit` does, with the data arriving in between.
        let mut operation = Receive::new(ours.clone()).into();
        assert!(would_block(&attempt(&mut operation, &driver.pool)));
        theirs.write_all(b"hello").unwrap();
        wait_until_readable(&ours);
        driver.arm(&ours, None, Interest::Readable, false).unwrap();
        let key = driver.park(operation, Token(0));
        forever(driver);
        assert_eq!(received(driver, key), b"hello");
    });
}

#[test]
fn one_report_serves_all_who_wait_in_order() {
    check(|driver| {
        driver.pool = Pool::new(4, 8);
        let (ours, mut theirs) = pair();
        let keys: Vec<Key> = (0..4).map(|_| receive(driver, &ours)).collect();
        theirs.write_all(b"one.two.three").unwrap();
        let mut completed = Vec::new();
        while completed.len() < 4 {
            driver.turn(Wait::Forever, &mut completed).unwrap();
        }
        let bytes: Vec<Vec<u8>> = keys.iter().map(|&key| received(driver, key)).collect();
        assert_eq!(bytes, [&b"one."[..], b"two.", b"thre", b"e"]);
    });
}

#[test]
fn what_a_full_block_left_behind_is_received_without_another_report() {
    check(|driver| {
        driver.pool = Pool::new(4, 8);
        let (ours, mut theirs) = pair();
        let key = receive(driver, &ours);
        theirs.write_all(b"one.two.").unwrap();
        wait_until_arrived(&ours, 8);
        forever(driver);
        assert_eq!(received(driver, key), b"one.");
        let key = receive(driver, &ours);
        poll(driver);
        assert_eq!(received(driver, key), b"two.");
    });
}

#[test]
fn an_end_that_came_with_the_data_is_not_missed() {
    check(|driver| {
        let (ours, mut theirs) = pair();
        let key = receive(driver, &ours);
        poll(driver);
        theirs.write_all(b"last").unwrap();
        drop(theirs);
        #[cfg(target_os = "linux")]
        wait_until_ended(&ours);
        forever(driver);
        assert_eq!(received(driver, key), b"last");
        let key = receive(driver, &ours);
        forever(driver);
        assert_eq!(received(driver, key), b"");
    });
}

#[test]
fn an_end_after_the_data_is_not_missed() {
    check(|driver| {
        let (ours, mut theirs) = pair();
        let key = receive(driver, &ours);
        theirs.write_all(b"last").unwrap();
        forever(driver);
        // The report has been taken and the data read; the end is an edge of its own.
        assert_eq!(received(driver, key), b"last");
        theirs.shutdown(Shutdown::Write).unwrap();
        let key = receive(driver, &ours);
        forever(driver);
        assert_eq!(received(driver, key), b"");
    });
}

#[test]
fn a_reset_ends_a_receive() {
    check(|driver| {
        let (ours, theirs) = pair();
        let key = receive(driver, &ours);
        poll(driver);
        let theirs = socket2::Socket::from(theirs);
        theirs.set_linger(Some(Duration::ZERO)).unwrap();
        drop(theirs);
        forever(driver);
        let result = driver.take(key).unwrap().into_received();
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    });
}

/// A read stops at the mark of urgent data with more behind it, and so looks drained.
#[cfg(target_os = "linux")]
#[test]
fn what_lies_behind_urgent_data_is_received() {
    check(|driver| {
        let (ours, theirs) = pair();
        let key = receive(driver, &ours);
        poll(driver);
        let theirs = socket2::Socket::from(theirs);
        theirs.send(b"before").unwrap();
        theirs.send_out_of_band(b"!").unwrap();
        theirs.send(b"behind").unwrap();
        wait_until_arrived(&ours, 6);
        let mut bytes = Vec::new();
        forever(driver);
        bytes.extend(received(driver, key));
        while bytes.len() < 12 {
            let key = receive(driver, &ours);
            forever(driver);
            bytes.extend(received(driver, key));
        }
        assert_eq!(bytes, b"beforebehind");
    });
}

#[test]
fn a_cancelled_receive_takes_nothing() {
    check(|driver| {
        let (ours, mut theirs) = pair();
        let key = receive(driver, &ours);
        poll(driver);
        driver.cancel(key);
        driver.cancel(key);
        theirs.write_all(b"hello").unwrap();
        wait_until_readable(&ours);
        assert_eq!(driver.in_flight(), 1);
        assert_eq!(poll(driver).len(), 1);
        let result = driver.take(key).unwrap().into_received();
        assert!(is_cancelled(&result.unwrap_err()));
        let key = receive(driver, &ours);
        forever(driver);
        assert_eq!(received(driver, key), b"hello");
        assert_eq!(driver.statistics().cancelled, 1);
    });
}

#[test]
fn a_cancel_after_the_end_changes_nothing() {
    check(|driver| {
        let (ours, mut theirs) = pair();
        theirs.write_all(b"hello").unwrap();
        wait_until_readable(&ours);
        let key = receive(driver, &ours);
        driver.cancel(key);
        poll(driver);
        assert_eq!(received(driver, key), b"hello");
        driver.cancel(key);
        assert_eq!(poll(driver), []);
    });
}

#[test]
fn a_cancel_in_the_middle_of_a_queue_leaves_the_others_in_order() {
    check(|driver| {
        driver.pool = Pool::new(4, 8);
        let (ours, mut theirs) = pair();
        let keys: Vec<Key> = (0..3).map(|_| receive(driver, &ours)).collect();
        driver.cancel(keys[1]);
        assert_eq!(poll(driver).len(), 1);
        theirs.write_all(b"one.two.").unwrap();
        let mut completed = Vec::new();
        while completed.len() < 2 {
            driver.turn(Wait::Forever, &mut completed).unwrap();
        }
        assert_eq!(received(driver, keys[0]), b"one.");
        assert_eq!(received(driver, keys[2]), b"two.");
    });
}

#[test]
fn an_abandoned_receive_that_waits_ends_as_an_orphan() {
    check(|driver| {
        let (ours, _theirs) = pair();
        let key = driver.submit(Receive::new(ours.clone()).into(), Token(3));
        assert!(driver.abandon(key));
        assert_eq!(ours.orphans(Direction::Receive), 1);
        let token = Token(3);
        let orphan = true;
        assert_eq!(poll(driver), [Completed { token, orphan }]);
        assert_eq!(ours.orphans(Direction::Receive), 0);
        assert!(ours.stashed_receive().is_none());
        assert!(driver.take(key).is_none());
    });
}

#[test]
fn an_abandoned_receive_that_has_won_leaves_its_bytes_in_the_stash() {
    check(|driver| {
        let (ours, mut theirs) = pair();
        theirs.write_all(b"hello").unwrap();
        wait_until_readable(&ours);
        let key = receive(driver, &ours);
        assert!(driver.abandon(key));
        assert!(poll(driver)[0].orphan);
        let stashed = ours.stashed_receive().unwrap().unwrap();
        assert_eq!(&*stashed, b"hello");
    });
}

#[test]
fn an_operation_abandoned_after_its_report_is_settled_at_once() {
    check(|driver| {
        let (ours, mut theirs) = pair();
        theirs.write_all(b"hello").unwrap();
        wait_until_readable(&ours);
        let key = receive(driver, &ours);
        poll(driver);
        assert!(!driver.abandon(key));
        assert_eq!(&*ours.stashed_receive().unwrap().unwrap(), b"hello");
        assert_eq!(poll(driver), []);
    });
}

#[test]
fn an_accept_takes_as_many_connections_as_there_are() {
    check(|driver| {
        let (listener, address) = listener(driver);
        let keys: Vec<Key> = (0..3)
            .map(|token| driver.submit(Accept::new(listener.clone()).into(), Token(token)))
            .collect();
        assert_eq!(poll(driver), []);
        let _connections: Vec<TcpStream> = (0..2)
            .map(|_| TcpStream::connect(address).unwrap())
            .collect();
        let mut completed = Vec::new();
        while completed.len() < 2 {
            driver.turn(Wait::Forever, &mut completed).unwrap();
        }
        assert_eq!(completed[0].token, Token(0));
        assert_eq!(completed[1].token, Token(1));
        for &key in &keys[..2] {
            let accepted = driver.take(key).unwrap().into_accepted().unwrap();
            assert!(driver.peer_address(&accepted).is_ok());
            let mut byte = [0];
            let nothing = driver.try_receive(&accepted, &mut byte).unwrap_err();
            assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        }
        assert_eq!(driver.in_flight(), 1);
    });
}

#[test]
fn an_abandoned_accept_that_has_won_leaves_its_connection_in_the_stash() {
    check(|driver| {
        let (listener, address) = listener(driver);
        let _connection = TcpStream::connect(address).unwrap();
        wait_until_readable(&listener);
        let key = driver.submit(Accept::new(listener.clone()).into(), Token(0));
        assert!(driver.abandon(key));
        poll(driver);
        assert!(listener.stashed_accept().is_some());
    });
}

#[test]
fn a_connect_ends_when_the_peer_answers() {
    check(|driver| {
        let (_listener, address) = listener(driver);
        let socket = driver.socket(crate::Family::V4).unwrap();
        let key = driver.submit(Connect::new(socket, address).into(), Token(0));
        forever(driver);
        let socket = driver.take(key).unwrap().into_connected().unwrap();
        assert_eq!(driver.peer_address(&socket).unwrap(), address);
        assert_eq!(driver.try_send(&socket, b"hello").unwrap(), 5);
    });
}

#[test]
fn a_connect_that_is_refused_says_so() {
    check(|driver| {
        let (listener, address) = listener(driver);
        drop(listener);
        let socket = driver.socket(crate::Family::V4).unwrap();
        let key = driver.submit(Connect::new(socket, address).into(), Token(0));
        forever(driver);
        let error = driver.take(key).unwrap().into_connected().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    });
}

/// Epoll reports an unconnected socket as hung up, which a connect must not take for its end.
#[test]
fn a_connect_on_a_socket_that_was_watched_before_still_connects() {
    check(|driver| {
        let (_listener, address) = listener(driver);
        let socket = driver.socket(crate::Family::V4).unwrap();
        let watch = driver.submit(
            Ready::new(socket.clone(), Interest::Writable).into(),
            Token(0),
        );
        let key = driver.submit(Connect::new(socket, address).into(), Token(1));
        let mut completed = Vec::new();
        while completed.len() < 2 {
            driver.turn(Wait::Forever, &mut completed).unwrap();
        }
        driver.take(watch).unwrap().into_ready().unwrap();
        let socket = driver.take(key).unwrap().into_connected().unwrap();
        assert_eq!(driver.peer_address(&socket).unwrap(), address);
    });
}

#[cfg(unix)]
#[test]
fn a_send_waits_for_room() {
    check(|driver| {
        let (ours, mut theirs, filled) = full_pair();
        let key = driver.submit(Send::new(ours, &b"last"[..]).into(), Token(0));
        assert_eq!(poll(driver), []);
        let mut taken = vec![0; filled];
        theirs.read_exact(&mut taken).unwrap();
        forever(driver);
        let (_, sent) = driver.take(key).unwrap().into_sent();
        assert_eq!(sent.unwrap(), 4);
        let mut last = [0; 4];
        theirs.read_exact(&mut last).unwrap();
        assert_eq!(&last, b"last");
    });
}

/// The data goes out in parts, each of them short, and after each the room is reported again.
#[test]
fn a_send_in_parts_gets_through() {
    check(|driver| {
        let (ours, mut theirs) = pair();
        let size = 8 << 20;
        let reader = std::thread::Builder::new()
            .spawn(move || {
                let mut bytes = Vec::new();
                theirs.read_to_end(&mut bytes).unwrap();
                bytes
            })
            .unwrap();
        let data: Vec<u8> = (0..size).map(|byte| byte as u8).collect();
        let mut send = Send::new(ours, data.clone());
        while send.start < size {
            let key = driver.submit(send.into(), Token(0));
            forever(driver);
            let (rest, sent) = driver.take(key).unwrap().into_sent();
            send = rest;
            send.start += sent.unwrap() as usize;
        }
        drop(send);
        assert!(reader.join().unwrap() == data);
    });
}

#[cfg(unix)]
#[test]
fn both_directions_of_a_descriptor_wait_independently() {
    check(|driver| {
        let (ours, mut theirs, filled) = full_pair();
        let reading = receive(driver, &ours);
        let writing = driver.submit(Send::new(ours, &b"last"[..]).into(), Token(1));
        assert_eq!(poll(driver), []);
        theirs.write_all(b"hello").unwrap();
        assert_eq!(forever(driver)[0].token, Token(0));
        assert_eq!(received(driver, reading), b"hello");
        let mut taken = vec![0; filled];
        theirs.read_exact(&mut taken).unwrap();
        assert_eq!(forever(driver)[0].token, Token(1));
        assert!(driver.take(writing).is_some());
    });
}

#[test]
fn all_who_watch_are_told_and_nothing_is_taken() {
    check(|driver| {
        let (ours, mut theirs) = pair();
        let watch = |driver: &mut Polling, token| {
            let ready = Ready::new(ours.clone(), Interest::Readable);
            driver.submit(ready.into(), Token(token))
        };
        let first = watch(driver, 0);
        let second = watch(driver, 1);
        assert_eq!(poll(driver), []);
        theirs.write_all(b"hello").unwrap();
        assert_eq!(forever(driver).len(), 2);
        driver.take(first).unwrap().into_ready().unwrap();
        driver.take(second).unwrap().into_ready().unwrap();
        // The bytes are still there, so a third is told as well, without an edge.
        let third = watch(driver, 2);
        assert_eq!(forever(driver)[0].token, Token(2));
        driver.take(third).unwrap().into_ready().unwrap();
        let mut bytes = [0; 8];
        assert_eq!(driver.try_receive(&ours, &mut bytes).unwrap(), 5);
    });
}

#[test]
fn who_watches_sees_what_others_have_read() {
    check(|driver| {
        let (ours, mut theirs) = pair();
        theirs.write_all(b"hello").unwrap();
        wait_until_readable(&ours);
        let watch = Ready::new(ours.clone(), Interest::Readable);
        let key = driver.submit(watch.into(), Token(0));
        forever(driver);
        driver.take(key).unwrap().into_ready().unwrap();
        // Read behind the back of the driver, as the code that waits for readiness does.
        let mut bytes = [0; 8];
        assert_eq!((&mut ours.socket().unwrap()).read(&mut bytes).unwrap(), 5);
        let watch = Ready::new(ours.clone(), Interest::Readable);
        driver.submit(watch.into(), Token(1));
        assert_eq!(poll(driver), []);
        theirs.write_all(b"again").unwrap();
        assert_eq!(forever(driver)[0].token, Token(1));
    });
}

#[cfg(unix)]
#[test]
fn a_file_can_be_watched_but_not_received_from() {
    check(|driver| {
        let (reader, mut writer) = std::os::unix::net::UnixStream::pair().unwrap();
        let reader = Descriptor::from_file(reader.into());
        let watch = Ready::new(reader.clone(), Interest::Readable);
        let key = driver.submit(watch.into(), Token(0));
        assert_eq!(poll(driver), []);
        writer.write_all(b"x").unwrap();
        forever(driver);
        driver.take(key).unwrap().into_ready().unwrap();
        let key = receive(driver, &reader);
        poll(driver);
        let error = driver.take(key).unwrap().into_received().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    });
}

#[cfg(target_os = "linux")]
#[test]
fn what_cannot_be_watched_ends_with_the_reason() {
    check(|driver| {
        let file = Descriptor::from_file(std::fs::File::open("/proc/self/stat").unwrap().into());
        let key = driver.submit(Ready::new(file, Interest::Readable).into(), Token(0));
        poll(driver);
        let error = driver.take(key).unwrap().into_ready().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert!(driver.sources.borrow().is_empty());
    });
}

#[test]
fn no_system_call_is_made_for_what_is_known_to_block() {
    check(|driver| {
        let (ours, mut theirs) = pair();
        assert!(driver.likely_readable(&ours));
        let key = receive(driver, &ours);
        driver.cancel(key);
        poll(driver);
        assert!(!driver.likely_readable(&ours));
        theirs.write_all(b"hello").unwrap();
        wait_until_readable(&ours);
        // The data is there, but the report of it has not been taken: proof that nobody looked.
        let mut bytes = [0; 8];
        let error = driver.try_receive(&ours, &mut bytes).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        while !driver.likely_readable(&ours) {
            poll_once_more(driver);
        }
        assert_eq!(driver.try_receive(&ours, &mut bytes).unwrap(), 5);
    });
}

#[test]
fn an_unregistered_descriptor_is_always_tried() {
    check(|driver| {
        let (ours, mut theirs) = pair();
        let mut bytes = [0; 8];
        for _ in 0..2 {
            let error = driver.try_receive(&ours, &mut bytes).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
            assert!(driver.likely_readable(&ours));
        }
        theirs.write_all(b"hello").unwrap();
        wait_until_readable(&ours);
        assert_eq!(driver.try_receive(&ours, &mut bytes).unwrap(), 5);
    });
}

/// A short read is as good as `WouldBlock` where that is proved, and spares the call that says so.
#[cfg(target_os = "linux")]
#[test]
fn a_short_read_shows_that_nothing_is_left_under_epoll() {
    let driver = &mut Polling::new().unwrap();
    let (ours, mut theirs) = pair();
    let key = receive(driver, &ours);
    theirs.write_all(b"hello").unwrap();
    forever(driver);
    assert_eq!(received(driver, key), b"hello");
    assert!(!driver.likely_readable(&ours));
    drop(theirs);
    let key = receive(driver, &ours);
    forever(driver);
    assert_eq!(received(driver, key), b"");
    assert!(driver.likely_readable(&ours), "an end stays readable");
}

#[cfg(target_os = "linux")]
#[test]
fn a_short_read_shows_nothing_on_other_sockets() {
    let driver = &mut Polling::new().unwrap();
    let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let ours = Descriptor::from_socket(std::os::fd::OwnedFd::from(ours).into()).unwrap();
    let key = receive(driver, &ours);
    theirs.write_all(b"hello").unwrap();
    forever(driver);
    assert_eq!(received(driver, key), b"hello");
    assert!(driver.likely_readable(&ours));
}

/// The number of a closed descriptor goes to the next one that is opened, while a report of the
/// old one is still in the kernel.
#[cfg(target_os = "linux")]
#[test]
fn a_report_of_a_closed_descriptor_does_not_reach_its_successor() {
    check(|driver| {
        // High numbers, which no other test of this process takes meanwhile.
        let numbered = |stream: TcpStream| {
            let fd = rustix::io::fcntl_dupfd_cloexec(&stream, 900).unwrap();
            Descriptor::from_socket(fd.into()).unwrap()
        };
        let (first, mut first_peer) = streams();
        let first = numbered(first);
        let key = receive(driver, &first);
        driver.cancel(key);
        poll(driver);
        driver.take(key);
        first_peer.write_all(b"for the first").unwrap();
        wait_until_readable(&first);
        let before = raw(&first).unwrap();
        drop(first);
        assert!(driver.sources.borrow().is_empty());

        let (second, mut second_peer) = streams();
        let second = numbered(second);
        assert_eq!(raw(&second).unwrap(), before);
        let key = receive(driver, &second);
        assert_eq!(poll(driver), []);
        assert!(!driver.likely_readable(&second));
        second_peer.write_all(b"for the second").unwrap();
        forever(driver);
        assert_eq!(received(driver, key), b"for the second");
    });
}

/// Epoll forgets a descriptor of its own accord only when the last duplicate is closed.
#[cfg(target_os = "linux")]
#[test]
fn a_closed_descriptor_is_forgotten_even_if_a_duplicate_is_open() {
    check(|driver| {
        let (stream, mut peer) = streams();
        for _ in 0..2 {
            let fd = rustix::io::fcntl_dupfd_cloexec(&stream, 950).unwrap();
            let ours = Descriptor::from_socket(fd.into()).unwrap();
            let key = receive(driver, &ours);
            assert_eq!(poll(driver), []);
            peer.write_all(b"hello").unwrap();
            forever(driver);
            assert_eq!(received(driver, key), b"hello");
        }
    });
}

#[test]
fn a_late_report_of_a_closed_descriptor_is_ignored() {
    check(|driver| {
        let (first, _first_peer) = pair();
        let key = receive(driver, &first);
        let late = driver
            .sources
            .borrow()
            .key(first.index_in(driver.id).unwrap());
        driver.cancel(key);
        poll(driver);
        driver.take(key);
        drop(first);
        let (second, _second_peer) = pair();
        let key = receive(driver, &second);
        driver.cancel(key);
        poll(driver);
        let report = Report {
            key: late,
            readable: true,
            writable: true,
            plain: true,
        };
        driver.react(report, &mut Vec::new());
        let sources = driver.sources.borrow();
        let source = sources.get(second.index_in(driver.id).unwrap()).unwrap();
        assert!(
            source.readable.is_blocked(),
            "nothing was reported of this one"
        );
    });
}

#[test]
fn a_descriptor_goes_from_a_driver_that_has_ended_to_the_next() {
    check(|driver| {
        let (ours, mut theirs) = pair();
        let mut before = Polling::new().unwrap();
        let key = receive(&mut before, &ours);
        before.drain(Duration::ZERO);
        before.take(key);
        // Another descriptor has the same index in this driver.
        let (other, _other_peer) = pair();
        receive(driver, &other);

        let key = receive(driver, &ours);
        poll(driver);
        let error = driver.take(key).unwrap().into_received().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        driver.cancel(key);

        drop(before);
        let key = receive(driver, &ours);
        assert_eq!(poll(driver), []);
        theirs.write_all(b"hello").unwrap();
        forever(driver);
        assert_eq!(received(driver, key), b"hello");
    });
}

#[test]
fn a_turn_that_has_nothing_to_do_makes_no_system_call() {
    check(|driver| {
        let enters = driver.statistics().enters;
        assert_eq!(poll(driver), []);
        assert_eq!(driver.statistics().enters, enters);
        let (ours, mut theirs) = pair();
        theirs.write_all(b"hello").unwrap();
        wait_until_readable(&ours);
        receive(driver, &ours);
        assert_eq!(poll(driver).len(), 1);
        assert_eq!(driver.statistics().enters, enters);
    });
}

#[test]
fn a_wait_lasts_as_long_as_it_was_asked_to() {
    check(|driver| {
        let (ours, _theirs) = pair();
        receive(driver, &ours);
        for time in [Duration::from_micros(300), Duration::from_millis(17)] {
            let clock = SystemClock::new();
            let (start, enters) = (clock.now(), driver.statistics().enters);
            let mut completed = Vec::new();
            driver.turn(Wait::For(time), &mut completed).unwrap();
            assert!(clock.now() - start >= time);
            assert_eq!(completed, []);
            assert!(driver.statistics().enters - enters <= 3, "it spins");
        }
    });
}

#[cfg(target_os = "linux")]
#[test]
fn a_short_wait_that_nothing_ends_is_one_look() {
    check(|driver| {
        // The other selector may come back before its time.
        if !matches!(*driver.selector, Selector::Epoll(_)) {
            return;
        }
        let (ours, _theirs) = pair();
        receive(driver, &ours);
        let enters = driver.statistics().enters;
        let mut completed = Vec::new();
        let time = Duration::from_micros(300);
        driver.turn(Wait::For(time), &mut completed).unwrap();
        assert_eq!(driver.statistics().enters - enters, 1);
    });
}

#[test]
fn an_unparker_ends_a_wait() {
    check(|driver| {
        let (ours, _theirs) = pair();
        receive(driver, &ours);
        let unparker = driver.unparker();
        for round in 0..100 {
            std::thread::scope(|scope| {
                scope.spawn(|| unparker.unpark());
                if round % 2 == 0 {
                    unparker.unpark();
                }
                assert_eq!(forever(driver), []);
            });
        }
    });
}

#[test]
fn an_unpark_before_the_wait_ends_it() {
    check(|driver| {
        let unparker = driver.unparker();
        for _ in 0..3 {
            unparker.unpark();
            unparker.unpark();
            assert_eq!(forever(driver), []);
        }
    });
}

#[test]
fn an_unpark_is_not_lost_in_a_turn_that_does_not_wait() {
    check(|driver| {
        driver.unparker().unpark();
        assert_eq!(poll(driver), []);
        // That turn had no reason to ask the system, so the next one that has is ended.
        assert_eq!(forever(driver), []);
    });
}

#[test]
fn an_unparker_outlives_its_driver() {
    check(|driver| {
        let unparker = driver.unparker();
        *driver = Polling::new().unwrap();
        unparker.unpark();
        unparker.clone().unpark();
    });
}

/// The handler does what a handler of the runtime does, in the midst of whatever it interrupts.
#[cfg(unix)]
#[test]
fn a_signal_ends_a_wait_through_the_unparker_and_is_no_error() {
    static UNPARKER: std::sync::OnceLock<Unparker> = std::sync::OnceLock::new();
    extern "C" fn handle(_signal: libc::c_int) {
        if let Some(unparker) = UNPARKER.get() {
            unparker.unpark();
        }
    }
    let driver = &mut Polling::new().unwrap();
    UNPARKER.set(driver.unparker()).unwrap();
    let handler: extern "C" fn(libc::c_int) = handle;
    // SAFETY: the handler makes one atomic exchange and one write to a descriptor that the static
    // keeps open, both of which a handler may do. Nobody else in this process uses the signal.
    unsafe { libc::signal(libc::SIGUSR2, handler as libc::sighandler_t) };
    // SAFETY: has no requirements.
    let this_thread = unsafe { libc::pthread_self() };
    let (ours, _theirs) = pair();
    receive(driver, &ours);
    for _ in 0..100 {
        std::thread::scope(|scope| {
            scope.spawn(move || {
                // SAFETY: the thread is this test's, which joins the scope before it ends.
                unsafe { libc::pthread_kill(this_thread, libc::SIGUSR2) }
            });
            assert_eq!(forever(driver), []);
        });
    }
}

#[test]
fn a_drain_leaves_nothing_in_flight() {
    check(|driver| {
        let (ours, mut theirs) = pair();
        let (won, mut winner) = pair();
        winner.write_all(b"hello").unwrap();
        wait_until_readable(&won);
        let waiting = receive(driver, &ours);
        let ended = receive(driver, &won);
        let orphan = receive(driver, &won);
        driver.abandon(orphan);
        let watching = driver.submit(
            Ready::new(ours.clone(), Interest::Readable).into(),
            Token(0),
        );
        let drained = driver.drain(Duration::from_secs(1));
        assert_eq!(drained, Drained { leaked: 0 });
        assert_eq!(driver.in_flight(), 0);
        let result = driver.take(waiting).unwrap().into_received();
        assert!(is_cancelled(&result.unwrap_err()));
        let result = driver.take(watching).unwrap().into_ready();
        assert!(is_cancelled(&result.unwrap_err()));
        assert_eq!(received(driver, ended), b"hello");
        theirs.write_all(b"still open").unwrap();
    });
}

#[test]
fn a_driver_dropped_in_the_midst_of_it_stashes_what_its_orphans_won() {
    check(|driver| {
        let (ours, mut theirs) = pair();
        theirs.write_all(b"hello").unwrap();
        wait_until_readable(&ours);
        let key = receive(driver, &ours);
        driver.abandon(key);
        let (waiting, _peer) = pair();
        receive(driver, &waiting);
        *driver = Polling::new().unwrap();
        assert_eq!(&*ours.stashed_receive().unwrap().unwrap(), b"hello");
    });
}

#[test]
fn hundreds_of_connections_are_served() {
    check(|driver| {
        const CONNECTIONS: usize = 200;
        const ROUNDS: usize = 5;
        let (ours, theirs): (Vec<Descriptor>, Vec<TcpStream>) =
            (0..CONNECTIONS).map(|_| pair()).unzip();
        let client = std::thread::Builder::new()
            .spawn(move || {
                for round in 0..ROUNDS {
                    for (number, mut stream) in theirs.iter().enumerate() {
                        write!(stream, "{round:8}{number:8}").unwrap();
                    }
                    for (number, mut stream) in theirs.iter().enumerate() {
                        let mut echo = [0; 16];
                        stream.read_exact(&mut echo).unwrap();
                        assert_eq!(echo[..], *format!("{round:8}{number:8}").as_bytes());
                    }
                }
            })
            .unwrap();
        let submit = |driver: &mut Polling, number: usize| {
            let receive = Receive::new(ours[number].clone());
            driver.submit(receive.into(), Token(number as u64))
        };
        let mut keys: Vec<Key> = (0..CONNECTIONS)
            .map(|number| submit(driver, number))
            .collect();
        let mut ended = 0;
        while ended < CONNECTIONS {
            for completed in forever(driver) {
                let number = completed.token.0 as usize;
                let lease = driver.take(keys[number]).unwrap().into_received().unwrap();
                if lease.is_empty() {
                    ended += 1;
                    continue;
                }
                let length = lease.len();
                assert_eq!(driver.try_send(&ours[number], &lease).unwrap(), length);
                keys[number] = submit(driver, number);
            }
        }
        client.join().unwrap();
        assert_eq!(driver.in_flight(), 0);
        assert_eq!(driver.pool.leased(), 0);
        drop(ours);
        assert!(driver.sources.borrow().is_empty());
    });
}

/// Runs a case over every selector.
fn check(case: impl Fn(&mut Polling)) {
    case(&mut Polling::new().unwrap());
    for edges in [true, false] {
        let portable = Portable::new(edges).unwrap();
        case(&mut Polling::with_selector(Selector::Portable(portable)));
    }
}

fn receive(driver: &mut Polling, from: &Descriptor) -> Key {
    driver.submit(Receive::new(from.clone()).into(), Token(0))
}

fn received(driver: &mut Polling, key: Key) -> Vec<u8> {
    driver.take(key).unwrap().into_received().unwrap().to_vec()
}

fn poll(driver: &mut Polling) -> Vec<Completed> {
    let mut completed = Vec::new();
    driver.turn(Wait::Poll, &mut completed).unwrap();
    completed
}

fn forever(driver: &mut Polling) -> Vec<Completed> {
    let mut completed = Vec::new();
    driver.turn(Wait::Forever, &mut completed).unwrap();
    completed
}

/// A turn that asks the system, although nobody waits.
fn poll_once_more(driver: &mut Polling) {
    driver.unparker().unpark();
    forever(driver);
}

fn streams() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let theirs = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    theirs.set_nodelay(true).unwrap();
    (listener.accept().unwrap().0, theirs)
}

fn pair() -> (Descriptor, TcpStream) {
    let (ours, theirs) = streams();
    (Descriptor::from_socket(ours.into()).unwrap(), theirs)
}

fn listener(driver: &mut Polling) -> (Descriptor, SocketAddr) {
    let listener = driver.socket(crate::Family::V4).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    driver.bind(&listener, &any, false).unwrap();
    driver.listen(&listener, 16).unwrap();
    let address = driver.local_address(&listener).unwrap();
    (listener, address)
}

/// A pair with no room left, and how much has to be read to make some. A Unix pair, for what is
/// full there stays full until somebody reads, without timers of TCP in between.
#[cfg(unix)]
fn full_pair() -> (Descriptor, std::os::unix::net::UnixStream, usize) {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let ours = Descriptor::from_socket(std::os::fd::OwnedFd::from(ours).into()).unwrap();
    let mut filled = 0;
    loop {
        match socket::try_send(&ours, &[0; 1024]) {
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    (ours, theirs, filled)
}

/// Waits for it by means of another driver, which the one under test does not notice.
fn wait_until_readable(descriptor: &Descriptor) {
    let other = descriptor.socket().unwrap().try_clone().unwrap();
    let other = Descriptor::from_socket(other).unwrap();
    let mut driver = Polling::new().unwrap();
    driver.submit(Ready::new(other, Interest::Readable).into(), Token(0));
    assert_eq!(forever(&mut driver).len(), 1);
}

/// Waits until `count` bytes have arrived.
fn wait_until_arrived(descriptor: &Descriptor, count: usize) {
    let mut bytes = [std::mem::MaybeUninit::uninit(); 64];
    loop {
        wait_until_readable(descriptor);
        let socket = descriptor.socket().unwrap();
        if socket.peek(&mut bytes).unwrap() >= count {
            return;
        }
    }
}

/// Waits until the end of what the peer sends has arrived, data before it or not.
#[cfg(target_os = "linux")]
fn wait_until_ended(descriptor: &Descriptor) {
    use rustix::event::{PollFd, PollFlags};
    let mut ended = [PollFd::new(descriptor, PollFlags::RDHUP)];
    assert_eq!(rustix::event::poll(&mut ended, None), Ok(1));
}
