//! A driver whose waits are done by another thread, as in a run on the loop of another library. A driver
//! may say that it cannot be waited for so, and then never asks for it.

use std::io;
use std::thread;
use std::time::Duration;

use trio_platform::{Interest, Ready, Receive, SystemClock, Wait, Waiter};

use crate::kit::{Kit, Pair, Ticket, assert_cancelled};

/// What another thread waits with, if the driver has it.
fn waiter(kit: &mut Kit<'_>) -> Option<Waiter> {
    match kit.driver.waiter() {
        Ok(waiter) => Some(waiter),
        Err(error) => {
            assert_eq!(error.kind(), io::ErrorKind::Unsupported, "{error}");
            assert!(!kit.driver.begin_wait(), "nobody can wait");
            kit.driver.end_wait();
            None
        }
    }
}

/// Turns that take no time, until the driver has nothing left to do but to be waited for.
fn begin_wait(kit: &mut Kit<'_>) {
    for _ in 0..IDLE_TURNS_MAX {
        kit.turn(Wait::Poll);
        if kit.driver.begin_wait() {
            return;
        }
    }
    panic!("there is always something to do first");
}

/// Has another thread wait while `meanwhile` happens, which ends that wait.
fn wait_elsewhere(kit: &mut Kit<'_>, waiter: &Waiter, meanwhile: impl FnOnce(&mut Kit<'_>)) {
    kit.uses_threads = true;
    begin_wait(kit);
    let waiter = waiter.clone();
    let clock = SystemClock::new();
    let begin = clock.now();
    thread::scope(|threads| {
        let waiting = threads.spawn(move || waiter.wait(Some(TOO_LONG)));
        meanwhile(kit);
        waiting.join().unwrap().unwrap();
    });
    assert!(clock.now() - begin < TOO_LONG, "it was ended");
    kit.driver.end_wait();
}

/// Waits for an operation as a host does: by turns that take no time, and waits elsewhere.
fn finish_as_guest(kit: &mut Kit<'_>, waiter: &Waiter, ticket: Ticket) {
    let mut turns = 0;
    while kit.report(ticket).is_none() {
        kit.turn(Wait::Poll);
        if kit.report(ticket).is_none() && kit.driver.begin_wait() {
            waiter.wait(Some(TOO_LONG)).unwrap();
            kit.driver.end_wait();
        }
        turns += 1;
        assert!(turns < IDLE_TURNS_MAX, "waited in vain");
    }
}

pub(crate) fn a_wait_elsewhere_ends_when_an_operation_does(kit: &mut Kit<'_>) {
    let Pair { client, server } = kit.pair();
    let Some(waiter) = waiter(kit) else { return };
    for byte in 0..20 {
        let receive = kit.start(Receive::new(server.clone()));
        wait_elsewhere(kit, &waiter, |kit| {
            // At once, and not by way of the driver, which is being waited for.
            assert_eq!(kit.driver.try_send(&client, &[byte]).unwrap(), 1);
        });
        finish_as_guest(kit, &waiter, receive);
        let lease = kit.finish(receive).into_received().unwrap();
        assert_eq!(&*lease, [byte]);
    }
}

pub(crate) fn an_unparker_ends_a_wait_elsewhere(kit: &mut Kit<'_>) {
    let Some(waiter) = waiter(kit) else { return };
    let Pair {
        client: _client,
        server,
    } = kit.pair();
    let receive = kit.start(Receive::new(server));
    for _ in 0..20 {
        let unparker = kit.driver.unparker();
        wait_elsewhere(kit, &waiter, |_| unparker.unpark());
    }
    assert!(kit.report(receive).is_none(), "to be woken is no result");
    kit.driver.cancel(receive.key);
    assert_cancelled(&kit.finish(receive).into_received());
}

pub(crate) fn an_unparker_that_has_called_is_not_slept_over_elsewhere(kit: &mut Kit<'_>) {
    let Some(waiter) = waiter(kit) else { return };
    for _ in 0..20 {
        kit.turn(Wait::Poll);
        kit.driver.unparker().unpark();
        // Either there is something to do first, or the wait is over at once.
        if kit.driver.begin_wait() {
            let clock = SystemClock::new();
            let begin = clock.now();
            waiter.wait(Some(TOO_LONG)).unwrap();
            assert!(clock.now() - begin < TOO_LONG, "the call came before");
            kit.driver.end_wait();
        }
    }
    kit.uses_threads = true;
}

pub(crate) fn a_wait_elsewhere_ends_when_its_time_is_over(kit: &mut Kit<'_>) {
    let Some(waiter) = waiter(kit) else { return };
    begin_wait(kit);
    let clock = SystemClock::new();
    let (begin, time) = (clock.now(), Duration::from_millis(25));
    let mut waits = 0;
    while clock.now() - begin < time {
        waiter.wait(Some(time - (clock.now() - begin))).unwrap();
        waits += 1;
        assert!(waits < 100, "a wait is a wait");
    }
    kit.driver.end_wait();
}

pub(crate) fn polls_and_waits_elsewhere_do_everything(kit: &mut Kit<'_>) {
    let Pair { client, server } = kit.pair();
    let Some(waiter) = waiter(kit) else { return };
    // More than the queue holds.
    let waits: Vec<Ticket> = (0..100)
        .map(|_| kit.start(Ready::new(client.clone(), Interest::Writable)))
        .collect();
    let receive = kit.start(Receive::new(server));
    for ready in waits {
        finish_as_guest(kit, &waiter, ready);
        kit.finish(ready).into_ready().unwrap();
    }
    assert!(kit.report(receive).is_none());
    kit.driver.cancel(receive.key);
    finish_as_guest(kit, &waiter, receive);
    assert_cancelled(&kit.finish(receive).into_received());
}

pub(crate) fn a_wait_elsewhere_may_be_ended_again_and_without_a_begin(kit: &mut Kit<'_>) {
    let has_waiter = waiter(kit).is_some();
    kit.driver.end_wait();
    if has_waiter {
        begin_wait(kit);
        kit.driver.end_wait();
        kit.driver.end_wait();
    }
    let Pair { client, server } = kit.pair();
    kit.send_all(&client, &b"x"[..]);
    kit.expect_byte(&server, b'x');
}

pub(crate) fn a_waiter_outlives_its_driver(kit: &mut Kit<'_>) {
    let Some(waiter) = waiter(kit) else { return };
    begin_wait(kit);
    kit.renew();
    waiter.wait(Some(Duration::from_millis(1))).unwrap();
}

/// Nothing here takes as long.
const TOO_LONG: Duration = Duration::from_secs(20);
const IDLE_TURNS_MAX: u32 = 10_000;
