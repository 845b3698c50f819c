//! What the drivers of one simulation share: the time, the network, the faults, and what is going
//! to happen to their operations.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::errno::Errno;
use super::fault::{Fault, Faults};
use super::network::{Network, Waiter};
use super::parker::Parker;
use super::random::Random;
use super::script::{Kind, Script};
use super::timeline::Timeline;
use super::trace::{Trace, TraceEvent, What};
use crate::Time;
use crate::driver::Key;

/// A simulated world, but for the operations: those belong to their drivers.
#[derive(Debug)]
pub(super) struct World {
    pub(super) seed: u64,
    pub(super) now: Time,
    pub(super) network: Network,
    pub(super) faults: Faults,
    pub(super) script: Script,
    pub(super) trace: Trace,
    /// How many requests a driver hands over at once.
    pub(super) queue_entries: usize,
    pub(super) block_size: u32,
    /// Those who keep time from passing.
    pub(super) holds: usize,
    /// What every driver's turn fails with.
    pub(super) broken: Option<Errno>,
    random: Random,
    timeline: Timeline<(u32, Due)>,
    drivers: BTreeMap<u32, Mailbox>,
    drivers_made: u32,
}

/// What waits for one driver.
#[derive(Debug)]
struct Mailbox {
    /// Requests of the driver that the kernel has not been told of: the submission queue, and the
    /// overflow behind it.
    requests: VecDeque<Request>,
    /// What the driver has to see to now.
    due: Vec<Due>,
    parker: Arc<Parker>,
}

/// What a driver asks of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    Start(Key),
    Cancel(Key),
}

/// What happens to an operation.
#[derive(Debug)]
pub(super) enum Due {
    /// It may go on: its start was late, or its socket has changed.
    Run(Key),
    /// A cancel takes effect.
    Cancel(Key),
    /// Its end is reported.
    Report(Key, io::Result<u32>),
}

/// What there is to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passed {
    /// Time has gone on to the next event.
    ToEvent,
    /// Time has gone on to the limit.
    ToLimit,
    /// Time stands still: somebody holds it, or nothing is going to happen.
    Not,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        // The network draws from a sequence of its own, so that another fault leaves the latencies
        // as they were.
        let network = Network::new(ORIGIN, Random::new(random.next()));
        Self {
            seed,
            now: ORIGIN,
            network,
            faults: Faults::none(),
            script: Script::default(),
            trace: Trace::new(),
            queue_entries: 256,
            block_size: 16 * 1024,
            holds: 0,
            broken: None,
            random,
            timeline: Timeline::new(),
            drivers: BTreeMap::new(),
            drivers_made: 0,
        }
    }

    pub(super) fn add_driver(&mut self, parker: Arc<Parker>) -> u32 {
        self.drivers_made += 1;
        let mailbox = Mailbox {
            requests: VecDeque::new(),
            due: Vec::new(),
            parker,
        };
        self.drivers.insert(self.drivers_made, mailbox);
        self.drivers_made
    }

    /// Forgets a driver; what still is to happen to its operations does not.
    pub(super) fn remove_driver(&mut self, driver: u32) {
        self.drivers.remove(&driver);
    }

    pub(super) fn record(&mut self, what: What) {
        let at = self.now;
        self.trace.record(TraceEvent { at, what });
    }

    /// The fault for the next of `kind`: the script's, or else one of chance.
    pub(super) fn fault(
        &mut self,
        kind: Kind,
        local: Option<SocketAddr>,
        peer: Option<SocketAddr>,
    ) -> Option<Fault> {
        let fault = self
            .script
            .next(kind, local, peer)
            .or_else(|| self.faults.draw(kind, &mut self.random))?;
        self.record(What::Injected { kind, fault });
        Some(fault)
    }

    /// Queues a request, and returns whether it has to wait because the queue is full.
    pub(super) fn queue(&mut self, driver: u32, request: Request) -> bool {
        let full = self.queue_entries;
        let requests = &mut self.mailbox(driver).requests;
        requests.push_back(request);
        requests.len() > full
    }

    /// Takes the requests that fit into one call.
    pub(super) fn take_requests(&mut self, driver: u32) -> Vec<Request> {
        let most = self.queue_entries;
        let requests = &mut self.mailbox(driver).requests;
        let count = requests.len().min(most);
        requests.drain(..count).collect()
    }

    pub(super) fn has_requests(&self, driver: u32) -> bool {
        let mailbox = self.drivers.get(&driver);
        mailbox.is_some_and(|mailbox| !mailbox.requests.is_empty())
    }

    /// Lets `due` happen to an operation of `driver` after `delay`.
    pub(super) fn schedule(&mut self, delay: Duration, driver: u32, due: Due) {
        let at = self.now + delay;
        self.timeline.push(at, (driver, due), &mut self.random);
    }

    /// Lets happen what happens now, and hands everything to the driver whose it is.
    pub(super) fn settle(&mut self) {
        self.network.advance(self.now);
        for Waiter { driver, key } in self.network.take_woken() {
            self.deliver(driver, Due::Run(key));
        }
        while let Some((driver, due)) = self.timeline.pop_due(self.now) {
            self.deliver(driver, due);
        }
    }

    /// What `driver` has to see to now, in an order of chance.
    pub(super) fn take_due(&mut self, driver: u32) -> Vec<Due> {
        self.settle();
        let mut due = std::mem::take(&mut self.mailbox(driver).due);
        self.random.shuffle(&mut due);
        due
    }

    /// Lets time pass, for nothing is left to do now: until the next event, or until `limit`.
    pub(super) fn pass(&mut self, driver: u32, limit: Time) -> Passed {
        let next = self.next_event().unwrap_or(Time::NEVER);
        let target = next.min(limit);
        if target == Time::NEVER || self.holds > 0 {
            self.mailbox(driver).parker.announce();
            return Passed::Not;
        }
        // A driver on another thread may have brought the clock further already.
        if target > self.now {
            self.now = target;
            self.record(What::TimePassed);
        }
        if next <= limit {
            Passed::ToEvent
        } else {
            Passed::ToLimit
        }
    }

    /// Whether nothing is going to happen unless a driver is given something to do.
    pub(super) fn is_idle(&self) -> bool {
        let quiet = |mailbox: &Mailbox| mailbox.requests.is_empty() && mailbox.due.is_empty();
        self.holds == 0 && self.next_event().is_none() && self.drivers.values().all(quiet)
    }

    /// Lets every driver that waits look at the world again.
    pub(super) fn nudge(&self) {
        for mailbox in self.drivers.values() {
            mailbox.parker.nudge();
        }
    }

    fn next_event(&self) -> Option<Time> {
        let network = self.network.next_event();
        let drivers = self.timeline.next();
        network.into_iter().chain(drivers).min()
    }

    /// What happens to an operation of a driver that is gone, happens to nobody.
    fn deliver(&mut self, driver: u32, due: Due) {
        if let Some(mailbox) = self.drivers.get_mut(&driver) {
            mailbox.due.push(due);
            mailbox.parker.nudge();
        }
    }

    fn mailbox(&mut self, driver: u32) -> &mut Mailbox {
        self.drivers
            .get_mut(&driver)
            .expect("a driver is in its world until it is dropped")
    }
}

/// When every world begins: far from zero, so that a program which takes a time for a duration is
/// found out.
const ORIGIN: Time = Time::from_nanos(100_000 * 1_000_000_000);
