//! The load: it plays the clients, on the core that the server does not have.
//!
//! It costs less than any server: no tasks, no allocation, one reading of the clock a message. Each
//! byte that comes back is compared with what was sent.
//!
//! A load keeps its connections as long as its server lives, and sleeps most of that time: of all
//! the servers that are alive, one is measured at a time. The one who steers it holds a [`Load`];
//! the load itself holds a [`Phase`]. A load that fails reports the error, and ends.

mod closed;
mod connections;
mod idle;
mod stream;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

pub(crate) use closed::closed_loop;
pub(crate) use connections::one_message_each;
use hdrhistogram::Histogram;
pub(crate) use idle::idle;
pub(crate) use stream::one_way;

use crate::machine::{Cores, Delay};

/// What the load has seen.
#[derive(Debug)]
pub(crate) struct Seen {
    /// Messages sent; as many came back, if replies are expected.
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    pub(crate) connections: u64,
    /// Nanoseconds from sending a message to having received all of the reply, for the messages
    /// sent while measuring since the load last slept.
    pub(crate) latency: Histogram<u64>,
}

impl Seen {
    fn new() -> Self {
        Self {
            messages: 0,
            bytes: 0,
            connections: 0,
            latency: latencies(),
        }
    }
}

pub(crate) fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 2).expect("bounds in order")
}

/// A load that runs on a thread of its own, and sleeps until it is told to go on. Dropping it ends
/// it, once the replies that it waits for have arrived.
#[derive(Debug)]
pub(crate) struct Load {
    flags: Arc<Flags>,
    orders: Sender<Order>,
    news: Receiver<News>,
}

/// What a load checks between two messages.
#[derive(Debug)]
pub(crate) struct Phase {
    flags: Arc<Flags>,
    orders: Receiver<Order>,
    news: Sender<News>,
}

#[derive(Debug, Default)]
struct Flags {
    measuring: AtomicBool,
    resting: AtomicBool,
    /// The system's number for its thread.
    thread: AtomicU32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Go,
    End,
}

#[derive(Debug)]
enum News {
    /// All replies have arrived.
    Asleep(Rest),
    Ended(io::Result<Seen>),
}

/// The report of a load that falls asleep.
#[derive(Debug)]
pub(crate) struct Rest {
    /// The latencies of the messages that counted since it last slept.
    pub(crate) latency: Histogram<u64>,
    /// The bytes that it has sent in its whole life.
    pub(crate) bytes: u64,
}

impl Load {
    /// Starts `load` on the core `core`. It connects, and then waits for [`run`](Self::run).
    pub(crate) fn start(
        core: usize,
        load: impl FnOnce(&Phase) -> io::Result<Seen> + Send + 'static,
    ) -> Result<Self, String> {
        let flags = Arc::new(Flags::default());
        flags.resting.store(true, Ordering::Relaxed);
        let (orders, told) = channel();
        let (says, news) = channel();
        let phase = Phase {
            flags: Arc::clone(&flags),
            orders: told,
            news: says.clone(),
        };
        std::thread::spawn(move || {
            let thread = rustix::thread::gettid().as_raw_nonzero().get();
            let known = &phase.flags.thread;
            known.store(thread.unsigned_abs(), Ordering::Relaxed);
            let result = Cores::pin(core).and_then(|()| load(&phase));
            // Fails if the one who steers has given up.
            says.send(News::Ended(result)).ok();
        });
        let load = Self {
            flags,
            orders,
            news,
        };
        load.asleep()?;
        Ok(load)
    }

    /// How long it has had to wait for the processor.
    pub(crate) fn delay(&self) -> Delay {
        // The load stored it before it first slept.
        Delay::of_thread(self.flags.thread.load(Ordering::Relaxed))
    }

    /// Lets the load run for `time`.
    pub(crate) fn run(&self, time: Duration) -> Result<(), String> {
        if self.flags.resting.swap(false, Ordering::Relaxed) {
            // Fails if the load has ended, which the next line reports.
            self.orders.send(Order::Go).ok();
        }
        match self.news.recv_timeout(time) {
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Ok(News::Ended(Err(error))) => Err(error.to_string()),
            _ => Err("the load ended early".to_owned()),
        }
    }

    /// Whether latencies count from now on.
    pub(crate) fn measure(&self, measuring: bool) {
        self.flags.measuring.store(measuring, Ordering::Relaxed);
    }

    /// Lets the load finish what it has begun, and puts it to sleep.
    pub(crate) fn rest(&self) -> Result<Rest, String> {
        self.flags.resting.store(true, Ordering::Relaxed);
        self.asleep()
    }

    /// Ends a load that sleeps; returns what it saw in its whole life.
    pub(crate) fn end(self) -> Result<Seen, String> {
        self.orders.send(Order::End).ok();
        match self.news.recv_timeout(PATIENCE) {
            Ok(News::Ended(result)) => result.map_err(|error| error.to_string()),
            _ => Err("the load does not end".to_owned()),
        }
    }

    fn asleep(&self) -> Result<Rest, String> {
        match self.news.recv_timeout(PATIENCE) {
            Ok(News::Asleep(rest)) => Ok(rest),
            Ok(News::Ended(Err(error))) => Err(error.to_string()),
            Ok(News::Ended(Ok(_))) => Err("the load ended early".to_owned()),
            Err(_) => Err("replies are missing".to_owned()),
        }
    }
}

impl Phase {
    /// Sleeps until there is something to do; returns `false` at the end.
    fn wait(&self, seen: &mut Seen) -> bool {
        let latency = std::mem::replace(&mut seen.latency, latencies());
        let bytes = seen.bytes;
        self.news.send(News::Asleep(Rest { latency, bytes })).ok();
        self.orders.recv() == Ok(Order::Go)
    }

    fn is_measuring(&self) -> bool {
        self.flags.measuring.load(Ordering::Relaxed)
    }

    /// Whether no new message should be begun.
    fn is_resting(&self) -> bool {
        self.flags.resting.load(Ordering::Relaxed)
    }
}

/// Bytes without a period, so that a message out of place is noticed.
pub(crate) struct Pattern(Vec<u8>);

impl Pattern {
    /// A pattern for messages of `size` bytes.
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

    /// Message `number` of connection `connection`: different bytes each time, without computing
    /// any.
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
/// How long connecting may take, and the last replies.
const PATIENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    /// Accepts `count` connections and echoes; returns the number of all bytes, when they are
    /// closed.
    fn echo(count: usize) -> (u16, std::thread::JoinHandle<u64>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let serve = move || {
            let streams = (0..count).map(|_| listener.accept().unwrap().0);
            let streams: Vec<TcpStream> = streams.collect();
            let handlers = streams.into_iter().map(|mut stream| {
                std::thread::spawn(move || {
                    let mut bytes = 0;
                    let mut buffer = [0; 4096];
                    loop {
                        match stream.read(&mut buffer).unwrap() {
                            0 => return bytes,
                            count => {
                                stream.write_all(&buffer[..count]).unwrap();
                                bytes += count as u64;
                            }
                        }
                    }
                })
            });
            let handlers: Vec<_> = handlers.collect();
            handlers.into_iter().map(|one| one.join().unwrap()).sum()
        };
        (port, std::thread::spawn(serve))
    }

    #[test]
    fn a_load_that_rests_has_all_its_replies_and_goes_on() {
        let (port, server) = echo(3);
        let core = Cores::pick().load;
        let load = Load::start(core, move |phase| closed_loop(port, 3, 100, phase)).unwrap();
        load.run(Duration::from_millis(1)).unwrap();
        assert!(
            load.rest().unwrap().latency.is_empty(),
            "nothing counted yet"
        );
        load.measure(true);
        load.run(Duration::from_millis(1)).unwrap();
        let rest = load.rest().unwrap();
        assert!(!rest.latency.is_empty());
        let seen = load.end().unwrap();
        assert!(seen.latency.is_empty(), "it was handed over");
        assert_eq!(seen.bytes, rest.bytes);
        assert_eq!(seen.bytes, server.join().unwrap());
        assert_eq!(seen.connections, 3);
    }

    #[test]
    fn a_load_that_fails_says_why() {
        let failing = |_: &Phase| Err(hung_up());
        let error = Load::start(Cores::pick().load, failing).unwrap_err();
        assert_eq!(error, hung_up().to_string());
    }
}
