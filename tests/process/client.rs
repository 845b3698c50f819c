//! Clients on plain sockets and threads, which share no code with what they test.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::lines::PATIENCE;

/// Connects, with a time limit for each read and each write.
#[track_caller]
pub(crate) fn connect(to: SocketAddr) -> TcpStream {
    prepared(TcpStream::connect(to).unwrap())
}

/// Connects from 127.0.0.`from`: each address of this machine has ports of its own.
#[track_caller]
pub(crate) fn connect_from(from: u8, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let from = SocketAddr::from((Ipv4Addr::new(127, 0, 0, from), 0));
    socket.bind(&from.into()).unwrap();
    socket.connect(&to.into()).unwrap();
    prepared(socket.into())
}

fn prepared(stream: TcpStream) -> TcpStream {
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends `data`, which fits into the sockets' buffers, and reads it back.
#[track_caller]
pub(crate) fn ping(mut stream: &TcpStream, data: &[u8]) {
    stream.write_all(data).unwrap();
    expect(stream, data);
}

/// Reads `data`, and nothing more.
#[track_caller]
pub(crate) fn expect(mut stream: &TcpStream, data: &[u8]) {
    let mut received = vec![0; data.len()];
    stream.read_exact(&mut received).unwrap();
    assert!(received == data, "{} bytes came back changed", data.len());
}

/// Ends the sending direction, then reads the end of file and nothing before it.
#[track_caller]
pub(crate) fn part(mut stream: TcpStream) {
    stream.shutdown(Shutdown::Write).unwrap();
    let count = stream.read(&mut [0; 64]).unwrap();
    assert_eq!(count, 0, "something came back that nobody had sent");
}

/// Sends `data` and reads what comes back at the same time, to the end of file.
#[track_caller]
pub(crate) fn exchange(mut stream: TcpStream, data: &[u8]) {
    let received = thread::scope(|threads| {
        let mut sending = &stream;
        threads.spawn(move || {
            sending.write_all(data).unwrap();
            sending.shutdown(Shutdown::Write).unwrap();
        });
        let mut received = Vec::with_capacity(data.len());
        (&stream).read_to_end(&mut received).unwrap();
        received
    });
    assert!(received == data, "{} bytes came back changed", data.len());
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
}

/// Aborts the connection: the other side sees a reset.
pub(crate) fn reset(stream: TcpStream) {
    let socket = Socket::from(stream);
    socket.set_linger(Some(Duration::ZERO)).unwrap();
}

/// A sequence that is different for each seed (SplitMix64, by Steele, Lea and Flood).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// Any number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut hash = self.0;
        hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        hash ^ (hash >> 31)
    }

    /// A number up to `most`, as likely to have few digits as many.
    pub(crate) fn length(&mut self, most: usize) -> usize {
        let bits = self.next() % u64::from(most.ilog2() + 2);
        let below = 1_u64 << bits;
        usize::try_from(self.next() % below).unwrap().min(most)
    }

    /// This many random bytes.
    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        let words = std::iter::repeat_with(|| self.next().to_le_bytes());
        words.flatten().take(count).collect()
    }
}
