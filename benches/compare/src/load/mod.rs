//! The load: what plays the clients, on the core that the server does not have.
//!
//! It costs less than any server: no tasks, no allocation, one look at the clock a message. Each byte
//! that comes back is compared with what was sent.

mod closed;
mod connections;
mod idle;
mod stream;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) use closed::closed_loop;
pub(crate) use connections::one_message_each;
use hdrhistogram::Histogram;
pub(crate) use idle::idle;
pub(crate) use stream::one_way;

/// What the load saw.
#[derive(Debug)]
pub(crate) struct Seen {
    /// Messages sent, and as many came back if replies are expected.
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    pub(crate) connections: u64,
    /// Nanoseconds from sending a message to having all of the reply, while measuring.
    pub(crate) latency: Histogram<u64>,
}

impl Seen {
    fn new() -> Self {
        Self {
            messages: 0,
            bytes: 0,
            connections: 0,
            latency: Histogram::new_with_bounds(1, 60_000_000_000, 2).expect("bounds in order"),
        }
    }
}

/// How the harness steers a load that runs on another thread.
#[derive(Debug, Default)]
pub(crate) struct Phase {
    measuring: AtomicBool,
    over: AtomicBool,
}

impl Phase {
    /// From now on the latencies count, or no more.
    pub(crate) fn measure(&self, measuring: bool) {
        self.measuring.store(measuring, Ordering::Relaxed);
    }

    /// The load finishes what it has begun, and returns.
    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    fn is_measuring(&self) -> bool {
        self.measuring.load(Ordering::Relaxed)
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

/// Bytes without a period that a message could hide in.
pub(crate) struct Pattern(Vec<u8>);

impl Pattern {
    /// For messages of `size` bytes.
    pub(crate) fn new(size: usize) -> Self {
        // SplitMix64, by Steele, Lea and Flood.
        let mut state = 1_u64;
        let mut bytes = Vec::with_capacity(size + OFFSETS + 8);
        while bytes.len() < size + OFFSETS {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut hash = state;
            hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            bytes.extend_from_slice(&(hash ^ (hash >> 31)).to_le_bytes());
        }
        Self(bytes)
    }

    /// Message `number` of connection `connection`: other bytes each time, and nothing to compute.
    fn message(&self, connection: usize, number: u64, size: usize) -> &[u8] {
        let offset = (connection * 37 + number as usize * 11) % OFFSETS;
        &self.0[offset..offset + size]
    }
}

fn connect(port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

fn differs() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "the server sent other bytes than it got",
    )
}

fn hung_up() -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "the server closed a connection",
    )
}

const OFFSETS: usize = 4096;
