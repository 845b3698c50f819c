//! Leases: whose the memory is, and how long.

use trio_platform::{Receive, Send};

use crate::kit::{Kit, Pair};

pub(crate) fn leases_do_not_block_receives(kit: &mut Kit<'_>) {
    let Pair { client, server } = kit.pair();
    let mut leases = Vec::new();
    for number in 0..600_u32 {
        let data = number.to_le_bytes();
        kit.send_all(&client, data.to_vec());
        let mut count = 0;
        while count < data.len() {
            let lease = kit.receive(&server).unwrap();
            assert_eq!(*lease, data[count..count + lease.len()]);
            count += lease.len();
            leases.push(lease);
        }
    }
    // No later receive has written into an earlier lease.
    let all: Vec<u8> = leases.iter().flat_map(|lease| lease.to_vec()).collect();
    let expected: Vec<u8> = (0..600_u32).flat_map(u32::to_le_bytes).collect();
    assert_eq!(all, expected);
}

pub(crate) fn a_lease_outlives_its_driver(kit: &mut Kit<'_>) {
    let Pair { client, server } = kit.pair();
    kit.send_all(&client, &b"x"[..]);
    let received = kit.receive(&server).unwrap();
    let mut empty = kit.driver.buffer();
    drop((client, server));
    kit.renew();
    assert_eq!(&*received, b"x");
    assert_eq!(empty.extend(b"still mine"), 10);
    assert_eq!(&*empty, b"still mine");
}

pub(crate) fn a_buffer_of_the_driver_can_be_sent(kit: &mut Kit<'_>) {
    let Pair { client, server } = kit.pair();
    let mut buffer = kit.driver.buffer();
    assert_eq!(buffer.extend(b"__hello"), 7);
    buffer.advance(2);
    kit.send_all(&client, buffer);
    assert_eq!(kit.receive_exactly(&server, 5), b"hello");
}

pub(crate) fn received_bytes_can_be_sent_on(kit: &mut Kit<'_>) {
    let Pair { client, server } = kit.pair();
    for byte in 0..50 {
        kit.send_all(&client, vec![byte]);
        let lease = kit.receive(&server).unwrap();
        kit.send_all(&server, lease);
        kit.expect_byte(&client, byte);
    }
}

pub(crate) fn an_idle_receive_needs_no_room_for_others(kit: &mut Kit<'_>) {
    // Every connection waits; then one of them gets something, and later all the others do.
    let pairs: Vec<Pair> = (0..30).map(|_| kit.pair()).collect();
    let idle: Vec<_> = pairs
        .iter()
        .map(|pair| kit.start(Receive::new(pair.server.clone())))
        .collect();
    kit.settle();
    kit.send_all(&pairs[29].client, &b"x"[..]);
    let lease = kit.finish(idle[29]).into_received().unwrap();
    assert_eq!(&*lease, b"x");
    for (index, pair) in pairs[..29].iter().enumerate() {
        let (_, sent) = kit
            .run(Send::new(pair.client.clone(), &b"y"[..]))
            .into_sent();
        assert_eq!(sent.unwrap(), 1);
        let lease = kit.finish(idle[index]).into_received().unwrap();
        assert_eq!(&*lease, b"y");
    }
}
