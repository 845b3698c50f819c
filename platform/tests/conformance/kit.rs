//! What the cases work with: a driver, and the waiting for it.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use trio_platform::buf::{Lease, SendData};
use trio_platform::{
    Accept, Completed, Connect, Descriptor, Direction, Driver, Family, Finished, Key, Operation,
    Receive, Send, SystemClock, Time, Token, Wait, is_cancelled,
};

/// A driver under test, and what it has reported.
pub(crate) struct Kit<'a> {
    pub(crate) driver: Box<dyn Driver>,
    /// Whether the case calls from other threads, so that no seed decides what it does.
    pub(crate) uses_threads: bool,
    make: &'a dyn Fn() -> Option<Box<dyn Driver>>,
    clock: SystemClock,
    submitted: u64,
    reports: HashMap<Token, Completed>,
}

/// An operation that was submitted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket {
    pub(crate) key: Key,
    pub(crate) token: Token,
}

/// The two ends of a connection.
pub(crate) struct Pair {
    pub(crate) client: Descriptor,
    pub(crate) server: Descriptor,
}

impl<'a> Kit<'a> {
    pub(crate) fn new(make: &'a dyn Fn() -> Option<Box<dyn Driver>>) -> Option<Self> {
        Some(Self {
            driver: make()?,
            uses_threads: false,
            make,
            clock: SystemClock::new(),
            submitted: 0,
            reports: HashMap::new(),
        })
    }

    /// Drops the driver, and goes on with another.
    pub(crate) fn renew(&mut self) {
        self.driver = (self.make)().expect("the driver could be had before");
        self.reports.clear();
    }

    /// What must hold whatever the case was.
    pub(crate) fn end(&mut self) {
        assert_eq!(self.driver.drain(Duration::from_secs(10)).leaked, 0);
        assert_eq!(self.driver.in_flight(), 0);
        let statistics = self.driver.statistics();
        assert_eq!(statistics.submitted, statistics.completed);
    }

    // Operations.

    pub(crate) fn start(&mut self, operation: impl Into<Operation>) -> Ticket {
        let token = self.token();
        let key = self.driver.submit(operation.into(), token);
        Ticket { key, token }
    }

    /// A token that has not been used.
    pub(crate) fn token(&mut self) -> Token {
        self.submitted += 1;
        Token(self.submitted)
    }

    /// One turn. A token is reported once, and only if it was submitted.
    pub(crate) fn turn(&mut self, wait: Wait) {
        let mut completed = Vec::new();
        self.driver.turn(wait, &mut completed).unwrap();
        for report in completed {
            assert!(report.token.0 <= self.submitted, "{report:?} is unknown");
            let before = self.reports.insert(report.token, report);
            assert_eq!(before, None, "{report:?} is reported once");
        }
    }

    pub(crate) fn report(&self, ticket: Ticket) -> Option<Completed> {
        self.reports.get(&ticket.token).copied()
    }

    pub(crate) fn reported(&self, token: Token) -> bool {
        self.reports.contains_key(&token)
    }

    /// Takes turns until `done`, and gives up after many in which nothing happened.
    pub(crate) fn run_until(&mut self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let mut idle = 0;
        while !done(self) {
            let before = self.reports.len();
            self.turn(Wait::For(TURN));
            idle = if self.reports.len() > before {
                0
            } else {
                idle + 1
            };
            assert!(idle < IDLE_TURNS_MAX, "waited in vain for {what}");
        }
    }

    /// Waits until the operation is reported.
    pub(crate) fn wait_report(&mut self, ticket: Ticket) -> Completed {
        self.run_until("a report", |kit| kit.report(ticket).is_some());
        self.reports[&ticket.token]
    }

    /// Waits for the end of an operation that was not abandoned, and takes it.
    pub(crate) fn finish(&mut self, ticket: Ticket) -> Finished {
        let report = self.wait_report(ticket);
        assert!(!report.orphan, "it was not abandoned");
        let finished = self.driver.take(ticket.key);
        assert!(self.driver.take(ticket.key).is_none(), "it is taken once");
        finished.expect("what was reported can be taken")
    }

    /// Submits an operation, and waits for its end.
    pub(crate) fn run(&mut self, operation: impl Into<Operation>) -> Finished {
        let ticket = self.start(operation);
        self.finish(ticket)
    }

    /// Takes turns for a while, in which something may happen and need not.
    pub(crate) fn run_for(&mut self, duration: Duration) {
        let end = self.now() + duration;
        loop {
            let left = end - self.now();
            self.turn(Wait::For(left));
            if left.is_zero() {
                return;
            }
        }
    }

    /// Lets the driver hand over what it was given.
    pub(crate) fn settle(&mut self) {
        self.run_for(Duration::from_millis(1));
    }

    /// The time of the driver: virtual if it has such, real otherwise.
    pub(crate) fn now(&self) -> Time {
        let real = self.clock.now();
        self.driver.virtual_time().unwrap_or(real)
    }

    // Connections.

    pub(crate) fn listener(&mut self) -> (Descriptor, SocketAddr) {
        let listener = self.driver.socket(Family::V4).unwrap();
        self.driver.bind(&listener, &anywhere(), false).unwrap();
        self.driver.listen(&listener, 16).unwrap();
        let address = self.driver.local_address(&listener).unwrap();
        (listener, address)
    }

    pub(crate) fn connect(&mut self, address: SocketAddr) -> Descriptor {
        let socket = self.driver.socket(Family::of(&address)).unwrap();
        let connected = self.run(Connect::new(socket, address));
        connected.into_connected().unwrap()
    }

    pub(crate) fn accept(&mut self, listener: &Descriptor) -> Descriptor {
        let accepted = self.run(Accept::new(listener.clone()));
        accepted.into_accepted().unwrap()
    }

    pub(crate) fn pair(&mut self) -> Pair {
        let (listener, address) = self.listener();
        let client = self.connect(address);
        let server = self.accept(&listener);
        self.driver.prepare_stream(&client);
        self.driver.prepare_stream(&server);
        Pair { client, server }
    }

    // Bytes.

    /// Receives once, from the stash first.
    pub(crate) fn receive(&mut self, from: &Descriptor) -> io::Result<Lease> {
        assert_eq!(from.orphans(Direction::Receive), 0, "or order is lost");
        match from.stashed_receive() {
            Some(stashed) => stashed,
            None => self.run(Receive::new(from.clone())).into_received(),
        }
    }

    pub(crate) fn receive_exactly(&mut self, from: &Descriptor, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < count {
            let lease = self.receive(from).unwrap();
            assert!(!lease.is_empty(), "the end came after {}", bytes.len());
            bytes.extend_from_slice(&lease);
        }
        assert_eq!(bytes.len(), count, "more came than was sent");
        bytes
    }

    pub(crate) fn send_all(&mut self, to: &Descriptor, data: impl Into<SendData>) {
        let mut send = Send::new(to.clone(), data);
        while send.start < send.data.len() {
            let (rest, count) = self.run(send).into_sent();
            send = rest;
            send.start += count.unwrap() as usize;
        }
    }

    /// Waits until something that was sent to `on` can be received.
    pub(crate) fn wait_readable(&mut self, on: &Descriptor) {
        use trio_platform::{Interest, Ready};
        let ready = Ready::new(on.clone(), Interest::Readable);
        self.run(ready).into_ready().unwrap();
    }

    /// Asserts that the next byte on `from` is `byte`.
    #[track_caller]
    pub(crate) fn expect_byte(&mut self, from: &Descriptor, byte: u8) {
        assert_eq!(self.receive_exactly(from, 1), [byte]);
    }
}

/// The operation ended as cancelled.
#[track_caller]
pub(crate) fn assert_cancelled<T: std::fmt::Debug>(result: &io::Result<T>) {
    assert!(
        result.as_ref().is_err_and(is_cancelled),
        "expected a cancelled operation, and got {result:?}"
    );
}

/// The connection is broken, in one of the words that systems have for it.
#[track_caller]
pub(crate) fn assert_broken(error: &io::Error) {
    let broken = [
        io::ErrorKind::BrokenPipe,
        io::ErrorKind::ConnectionAborted,
        io::ErrorKind::ConnectionReset,
    ];
    assert!(broken.contains(&error.kind()), "{error:?}");
}

pub(crate) fn anywhere() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

const TURN: Duration = Duration::from_millis(20);
const IDLE_TURNS_MAX: u32 = 1000;

/// More than any connection holds.
pub(crate) static FLOOD: [u8; 32 << 20] = [0; 32 << 20];
