//! Many connections, long ones, short ones, broken ones, and one-sided ones.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::client::{Random, connect, connect_from, exchange, expect, part, ping, reset};
use crate::server::Server;

crate::on_both_backends! {
    a_thousand_connections_at_once,
    payloads_of_every_size_come_back_byte_for_byte,
    half_close,
    resets_in_the_middle_harm_nobody_else,
    a_client_that_never_reads_costs_no_memory,
    a_hundred_thousand_short_connections_leak_nothing,
    workers_share_a_port,
}

fn a_thousand_connections_at_once(backend: &str) {
    let server = Server::start(backend, &[]);
    part(connect(server.address)); // a server that has served one has all it needs for itself
    let (before, memory) = (server.descriptors(), server.resident());
    let mut random = Random(1);
    let clients: Vec<_> = (0..1000).map(|_| connect(server.address)).collect();
    for _ in 0..3 {
        let messages: Vec<_> = clients
            .iter()
            .map(|_| {
                let length = random.length(16 * 1024);
                random.bytes(length)
            })
            .collect();
        for (mut client, message) in clients.iter().zip(&messages) {
            client.write_all(message).unwrap();
        }
        for (client, message) in clients.iter().zip(&messages) {
            expect(client, message);
        }
    }
    assert_eq!(server.descriptors(), before + 1000);
    // All have been busy and are idle now: none keeps a buffer, which would be 16 KiB.
    let grown = server.resident().saturating_sub(memory);
    assert!(
        grown < 1000 * (8 << 10),
        "{grown} bytes for 1000 connections"
    );
    clients.into_iter().for_each(part);
    assert_eq!(server.descriptors(), before);
    let ended = server.stop();
    let told = "connections: 1001 (1001 ended, 0 failed, 0 cut off)";
    assert!(ended.output.contains(told), "{}", ended.output);
}

fn payloads_of_every_size_come_back_byte_for_byte(backend: &str) {
    const MOST: usize = 8 << 20;
    let server = Server::start(backend, &[]);
    let mut random = Random(2);
    let around = |size: usize| [size - 1, size, size + 1];
    let mut lengths: Vec<usize> = vec![0, 1, MOST];
    lengths.extend([16 << 10, 64 << 10, 1 << 20].into_iter().flat_map(around));
    lengths.extend((0..50).map(|_| random.length(MOST)));
    let queue = Mutex::new(lengths);
    thread::scope(|threads| {
        for seed in 0..8 {
            let (queue, server) = (&queue, &server);
            threads.spawn(move || {
                let mut random = Random(100 + seed);
                let next = || queue.lock().unwrap().pop();
                while let Some(length) = next() {
                    exchange(connect(server.address), &random.bytes(length));
                }
            });
        }
    });
    assert_eq!(server.stop().code, Some(0));
}

fn half_close(backend: &str) {
    let server = Server::start(backend, &[]);
    for length in [0, 1, 5000, 200_000] {
        let sent = Random(3).bytes(length);
        let mut client = connect(server.address);
        client.write_all(&sent).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut received = Vec::new();
        client.read_to_end(&mut received).unwrap();
        assert!(received == sent, "{length} bytes came back changed");
    }
    let ended = server.stop();
    let told = "connections: 4 (4 ended, 0 failed, 0 cut off), bytes: 205001";
    assert!(ended.output.contains(told), "{}", ended.output);
}

fn resets_in_the_middle_harm_nobody_else(backend: &str) {
    const ROUNDS: usize = 100;
    let server = Server::start(backend, &[]);
    let bystander = connect(server.address);
    ping(&bystander, b"here");
    let before = server.descriptors();
    let data = Random(4).bytes(64 * 1024);
    for _ in 0..ROUNDS {
        reset(connect(server.address));

        let idle = connect(server.address);
        ping(&idle, b"once");
        reset(idle);

        // With the answer on its way, of which no byte has been read.
        let mut busy = connect(server.address);
        busy.write_all(&data).unwrap();
        reset(busy);

        ping(&bystander, b"still here");
    }
    // The server notices the last ones in its own time, but it takes turns meanwhile.
    let mut turns = 0..10_000;
    while server.descriptors() != before && turns.next().is_some() {
        ping(&bystander, b"and now?");
    }
    assert_eq!(server.descriptors(), before);
    part(bystander);
    let ended = server.stop();
    assert_eq!(ended.code, Some(0));
    let told = format!(
        "connections: {} (1 ended, {} failed, 0 cut off)",
        3 * ROUNDS + 1,
        3 * ROUNDS
    );
    assert!(ended.output.contains(&told), "{}", ended.output);
}

fn a_client_that_never_reads_costs_no_memory(backend: &str) {
    let server = Server::start(backend, &[]);
    let bystander = connect(server.address);
    ping(&bystander, &Random(5).bytes(64 * 1024));
    let before = server.resident();
    let pattern = Random(6).bytes(1 << 20);
    // The kernel buffers some bytes for each, as many as it likes; so this many connections are
    // needed.
    let mut stuck = Vec::new();
    let mut taken = 0;
    while taken < 64 << 20 {
        let client = connect(server.address);
        let written = write_until_stuck(&client, &pattern);
        taken += written;
        stuck.push((client, written));
    }
    ping(&bystander, b"unharmed");
    // Only the blocks of the ring, which are 4 MiB, and one more block for each connection.
    let grown = server.resident().saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes for {taken}");
    // Nothing that was taken is lost.
    for (client, written) in stuck {
        let mut left = written;
        while left > 0 {
            let some = left.min(pattern.len());
            expect(&client, &pattern[..some]);
            left -= some;
        }
        part(client);
    }
    assert_eq!(server.stop().code, Some(0));
}

/// Sends `pattern` again and again until nothing has been taken for a while; returns how many bytes
/// were taken.
fn write_until_stuck(mut client: &std::net::TcpStream, pattern: &[u8]) -> usize {
    const QUIET: Duration = Duration::from_millis(200);
    let mut written = 0;
    client.set_nonblocking(true).unwrap();
    loop {
        match client.write(&pattern[written % pattern.len()..]) {
            Ok(count) => written += count,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                let quiet = Timespec::try_from(QUIET).unwrap();
                let mut room = [PollFd::new(client, PollFlags::OUT)];
                if poll(&mut room, Some(&quiet)).unwrap() == 0 {
                    break;
                }
            }
        }
    }
    client.set_nonblocking(false).unwrap();
    written
}

fn a_hundred_thousand_short_connections_leak_nothing(backend: &str) {
    const ALL: usize = 100_000;
    // By then every block of the ring has been touched, and the allocator has settled.
    let first = ALL / 10;
    let server = Server::start(backend, &[]);
    short_connections(&server, first);
    let (descriptors, memory) = (server.descriptors(), server.resident());
    short_connections(&server, ALL - first);
    assert_eq!(server.descriptors(), descriptors);
    let grown = server.resident().saturating_sub(memory);
    assert!(grown < 256 << 10, "{grown} bytes more");
    let ended = server.stop();
    let told = format!("connections: {ALL} ({ALL} ended, 0 failed, 0 cut off)");
    assert!(ended.output.contains(&told), "{}", ended.output);
}

/// Makes `count` connections for a message each, a few at a time.
fn short_connections(server: &Server, count: usize) {
    const THREADS: usize = 4;
    thread::scope(|threads| {
        for first in 0..THREADS {
            threads.spawn(move || {
                for number in (first..count).step_by(THREADS) {
                    // A port cannot be used for a while after its connection, so they come from
                    // several addresses, each of which has ports of its own.
                    let from = u8::try_from(2 + number % 32).unwrap();
                    let client = connect_from(from, server.address);
                    ping(&client, &number.to_le_bytes());
                    part(client);
                }
            });
        }
    });
}

fn workers_share_a_port(backend: &str) {
    let server = Server::start(backend, &["--workers", "3"]);
    let clients: Vec<_> = (0..100).map(|_| connect(server.address)).collect();
    for client in &clients {
        ping(client, b"to whichever it was");
    }
    clients.into_iter().for_each(part);
    let ended = server.stop();
    assert_eq!(ended.code, Some(0));
    let stops = ended
        .output
        .matches("SIGTERM: no new connections; 0 open")
        .count();
    assert_eq!(stops, 3, "{}", ended.output);
    let told = "connections: 100 (100 ended, 0 failed, 0 cut off)";
    assert!(ended.output.contains(told), "{}", ended.output);
}
