//! Large messages and streams: taken, told of, or received by one call into several blocks, as the
//! driver sees fit. What it sees fit changes with what comes, and none of that may show.
//!
//! These cases receive as a task does: from the stash, then by an attempt, and if both give nothing by a
//! watch, or by an operation where the driver does not watch.

use std::io;

use trio_platform::buf::Lease;
use trio_platform::{Descriptor, Direction, Receive, Send};

use crate::kit::{Kit, Pair};

/// The most that a block holds, in every driver.
const BLOCK: usize = 16 * 1024;

/// Bytes of which each stretch is another, so that one that is lost, doubled or out of place shows.
fn pattern(start: usize, length: usize) -> Vec<u8> {
    let byte = |place: usize| (place ^ (place >> 8) ^ (place >> 16)) as u8;
    (start..start + length).map(byte).collect()
}

/// What is there, without waiting.
fn look(kit: &mut Kit<'_>, from: &Descriptor) -> Option<Lease> {
    assert_eq!(from.orphans(Direction::Receive), 0, "or order is lost");
    let stashed = from.stashed_receive();
    let lease = stashed.or_else(|| kit.driver.receive_block_now(from))?;
    Some(lease.unwrap())
}

/// Receives once.
fn receive(kit: &mut Kit<'_>, from: &Descriptor) -> Lease {
    loop {
        if let Some(lease) = look(kit, from) {
            assert!(lease.len() <= BLOCK, "a lease is one block");
            return lease;
        }
        let token = kit.token();
        if !kit.driver.watch(from, Direction::Receive, token) {
            let received = kit.run(Receive::new(from.clone()));
            return received.into_received().unwrap();
        }
        kit.run_until("something to receive", |kit| kit.reported(token));
    }
}

/// Receives `count` bytes, which are those of the pattern from `start` on.
#[track_caller]
fn expect(kit: &mut Kit<'_>, from: &Descriptor, start: usize, count: usize) {
    let mut place = start;
    while place < start + count {
        let lease = receive(kit, from);
        assert!(!lease.is_empty(), "the end came after {}", place - start);
        assert!(*lease == pattern(place, lease.len()), "at {place}");
        place += lease.len();
    }
    assert_eq!(place, start + count, "more came than was sent");
}

/// Sends a message of `size` bytes, and receives it; the pattern goes on at `place`.
fn exchange(kit: &mut Kit<'_>, pair: &Pair, place: usize, size: usize) {
    let mut send = Send::new(pair.client.clone(), pattern(place, size));
    while send.start < size {
        let (rest, count) = kit.run(send).into_sent();
        let count = count.unwrap() as usize;
        expect(kit, &pair.server, place + rest.start, count);
        send = rest;
        send.start += count;
    }
}

/// Sends of the pattern from `place` on up to `end` as much as there is room for on the way; where it
/// goes on.
fn fill(kit: &mut Kit<'_>, to: &Descriptor, mut place: usize, end: usize) -> usize {
    while place < end {
        match kit
            .driver
            .try_send(to, &pattern(place, BLOCK.min(end - place)))
        {
            Ok(count) => place += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    kit.settle();
    place
}

pub(crate) fn large_messages_come_whole_and_in_order(kit: &mut Kit<'_>) {
    let pair = kit.pair();
    let mut place = 0;
    for size in [BLOCK; 8].into_iter().chain([5 * BLOCK + 7; 3]) {
        exchange(kit, &pair, place, size);
        place += size;
    }
    assert!(
        look(kit, &pair.server).is_none(),
        "nothing is left anywhere"
    );
}

pub(crate) fn messages_that_grow_and_shrink_stay_in_order(kit: &mut Kit<'_>) {
    let pair = kit.pair();
    let mut place = 0;
    for size in [BLOCK + 1, 3, 5 * BLOCK, 1] {
        for _ in 0..5 {
            exchange(kit, &pair, place, size);
            place += size;
        }
    }
}

pub(crate) fn a_stream_comes_in_blocks_and_in_order_up_to_its_end(kit: &mut Kit<'_>) {
    let Pair { client, server } = kit.pair();
    let (mut sent, mut received) = (0, 0);
    let total = 24 * BLOCK + 5;
    while received < total {
        sent = fill(kit, &client, sent, total);
        while received < sent {
            let lease = receive(kit, &server);
            assert!(!lease.is_empty(), "the end came after {received}");
            assert!(*lease == pattern(received, lease.len()), "at {received}");
            received += lease.len();
        }
    }
    kit.driver.shutdown_send(&client).unwrap();
    assert_eq!(receive(kit, &server).len(), 0);
    assert_eq!(receive(kit, &server).len(), 0, "the end stays");
}

pub(crate) fn a_slice_goes_on_where_blocks_have_ended(kit: &mut Kit<'_>) {
    let Pair { client, server } = kit.pair();
    let (mut sent, mut received) = (0, 0);
    let mut slice = vec![0; 3 * BLOCK];
    while received < 24 * BLOCK {
        sent = fill(kit, &client, sent, 24 * BLOCK);
        // Some blocks, then a slice for what no stash has, and so on.
        for turn in 0.. {
            if received == sent {
                break;
            }
            let stashed = server.stashed_receive();
            if turn % 7 < 4 || stashed.is_some() {
                stashed
                    .into_iter()
                    .for_each(|stashed| server.unreceive(stashed.unwrap()));
                let lease = receive(kit, &server);
                assert!(*lease == pattern(received, lease.len()), "at {received}");
                received += lease.len();
            } else if let Some(count) = kit.driver.receive_now(&server, &mut slice) {
                let count = count.unwrap();
                assert!(slice[..count] == pattern(received, count), "at {received}");
                received += count;
            }
        }
    }
}

pub(crate) fn a_stream_may_be_closed_in_the_middle(kit: &mut Kit<'_>) {
    let Pair { client, server } = kit.pair();
    let (mut sent, mut received) = (0, 0);
    while received < 12 * BLOCK {
        sent = fill(kit, &client, sent, 24 * BLOCK);
        let lease = receive(kit, &server);
        assert!(*lease == pattern(received, lease.len()), "at {received}");
        received += lease.len();
    }
    drop(server);
    // The end or a reset, by whether the system still had bytes that nobody will receive.
    let end = kit.receive(&client);
    assert!(end.is_err() || end.unwrap().is_empty());
}
