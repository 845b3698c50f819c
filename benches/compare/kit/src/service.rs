//! What a server does with what it receives, and what it counts: a few instructions, the same in
//! every program.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::Orders;

/// The size of a receive buffer, in every server. Data arrives in buffers of this size; a runtime
/// with buffers of its own may fill several of them by one call.
pub const BUFFER: usize = 16 * 1024;

/// What a server does with each connection.
#[derive(Clone, Copy, Debug)]
pub struct Service {
    tally: &'static Tally,
    reply: bool,
    /// The number of bytes after which the server closes the connection.
    last: u64,
    compute: Duration,
}

/// A connection that is being served.
#[derive(Debug)]
pub struct Connection {
    service: Service,
    received: u64,
}

/// What to do with the bytes received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Send them back.
    Reply,
    /// Discard them.
    Take,
}

impl Service {
    /// The service that `orders` ask for, with a tally of its own.
    pub(crate) fn new(orders: &Orders) -> Self {
        let tally: &'static Tally = Box::leak(Box::default());
        TALLIES.lock().expect("nobody panics with it").push(tally);
        let (reply, last) = match orders.job() {
            "echo" => (true, u64::MAX),
            "once" => (true, orders.number("size", 64) as u64),
            "sink" => (false, u64::MAX),
            _ => orders.refuse("no such service"),
        };
        Self {
            tally,
            reply,
            last,
            compute: Duration::from_nanos(orders.number("compute", 0) as u64),
        }
    }

    /// Counts a connection.
    pub fn accept(&self) -> Connection {
        add(&self.tally.accepted, 1);
        Connection {
            service: *self,
            received: 0,
        }
    }
}

impl Connection {
    /// Counts what has been received, and returns what to do with it.
    #[inline]
    pub fn received(&mut self, bytes: usize) -> Next {
        add(&self.service.tally.bytes, bytes as u64);
        self.received += bytes as u64;
        if !self.service.compute.is_zero() {
            compute(self.service.compute);
        }
        if self.service.reply {
            Next::Reply
        } else {
            Next::Take
        }
    }

    /// Whether the server closes the connection now.
    #[inline]
    pub fn is_over(&self) -> bool {
        self.received >= self.service.last
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        add(&self.service.tally.ended, 1);
    }
}

/// Keeps the processor busy for as long as the work of a real request would.
fn compute(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        std::hint::spin_loop();
    }
}

/// Written by one worker and read by the thread that reports; on a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Tally {
    pub(crate) accepted: AtomicU64,
    pub(crate) ended: AtomicU64,
    pub(crate) bytes: AtomicU64,
}

/// Adds by a load and a store: there is one writer, so the bus need not be locked.
#[inline]
fn add(counter: &AtomicU64, amount: u64) {
    let value = counter.load(Ordering::Relaxed);
    counter.store(value + amount, Ordering::Relaxed);
}

/// The tallies of all workers of this process.
pub(crate) static TALLIES: Mutex<Vec<&'static Tally>> = Mutex::new(Vec::new());
