//! The driver of Linux's `io_uring`.
//!
//! A turn submits, waits and collects, in that order, in one system call:
//!
//! - `submission.rs`: an operation becomes an entry in the queue to the kernel, or waits for room;
//! - `ring.rs`: the call that tells the kernel and waits;
//! - `completion.rs`: the kernel's answers, and what they mean for each kind of operation;
//! - `feed.rs`: one submission for all that comes, for connections and listeners that go on;
//! - `buffers.rs`: the blocks that the kernel receives into;
//! - `wakeup.rs`: how another thread ends the wait;
//! - `bell.rs`: how another thread waits in place of this one;
//! - `setup.rs`: how the ring is made, and why it may not be.
//!
//! A turn may return with nothing to report although its time is not up: after a signal, a wake, or
//! a completion that is the driver's own affair.

mod bell;
pub(crate) mod buffers;
mod completion;
mod feed;
mod ring;
mod setup;
mod submission;
#[cfg(test)]
mod tests;
mod wakeup;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use io_uring::types::CancelBuilder;
use io_uring::{opcode, squeue};

use self::bell::Bell;
use self::buffers::Blocks;
use self::feed::Feeds;
use self::ring::Ring;
use self::wakeup::Wakeup;
use crate::SystemClock;
use crate::buf::{Lease, Pool};
use crate::driver::{
    Backend, Completed, Drained, Driver, DriverStatistics, Key, Token, Unparker, Wait,
};
use crate::fd::{Descriptor, Direction, simulated};
use crate::op::table::{Abandon, Table};
use crate::op::{Finished, Operation, cancelled};
use crate::socket;
use crate::waiter::Waiter;

/// The user data of the poll that wakes the driver, and of all cancels. An operation's is its key,
/// whose lower half, the index, is never one of these (`op/table.rs` leaves the upper half free).
const WAKE: u64 = u32::MAX as u64;
const CANCEL: u64 = u32::MAX as u64 - 1;

/// Submissions that find room before the kernel must be told.
const ENTRIES: u32 = 256;

/// Blocks that the kernel may choose from: 4 MiB, of which the system gives what is used.
const BLOCKS: u16 = 256;

/// Blocks of the heap that are kept for the next use.
const SPARE_BLOCKS: usize = 64;

/// How long a driver that is dropped waits for operations that nobody has drained.
const DROP_BOUND: Duration = Duration::from_secs(1);

/// How often a drain asks again for what has not ended.
const DRAIN_INTERVAL: Duration = Duration::from_millis(10);

/// The driver of Linux's `io_uring`.
///
/// Dropping it cancels what is in flight and waits for it, for a second at most; what the kernel
/// has not given back by then is leaked.
// In this order in memory, so that what each turn looks at takes as few cache lines as possible.
#[repr(C)]
pub struct Uring {
    ring: Ring,
    /// Submissions that found the queue of the kernel full, oldest first.
    overflow: VecDeque<squeue::Entry>,
    /// What has ended without the kernel, for the next turn to complete.
    ended: Vec<(Key, io::Result<u32>)>,
    /// What ended in a drain, for the next turn to report.
    reports: Vec<Completed>,
    wakeup: Wakeup,
    blocks: Rc<Blocks>,
    feeds: Feeds,
    table: Table,
    pool: Pool,
    /// There if another thread waits in place of this one.
    bell: Option<Bell>,
}

impl Uring {
    /// A ring that holds `entries` submissions before the kernel must be told; 256 if not said.
    ///
    /// # Errors
    ///
    /// If the kernel gives no ring, or one that does not work; the text names cause and remedy.
    pub fn new(entries: Option<u32>) -> io::Result<Self> {
        let ring = setup::ring(entries.unwrap_or(ENTRIES))?;
        let mut driver = Self::over(ring, BLOCKS)?;
        setup::self_test(&mut driver)?;
        Ok(driver)
    }

    /// A driver over `ring`, whose kernel chooses among `blocks` blocks.
    fn over(ring: Ring, blocks: u16) -> io::Result<Self> {
        let mut driver = Self {
            ring,
            overflow: VecDeque::new(),
            table: Table::default(),
            blocks: Blocks::new(blocks)?,
            pool: Pool::new(buffers::BLOCK_SIZE, SPARE_BLOCKS),
            wakeup: Wakeup::new().map_err(|error| setup::explain(&error))?,
            bell: None,
            feeds: Feeds::new(),
            ended: Vec::new(),
            reports: Vec::new(),
        };
        setup::register(&driver)?;
        driver.arm_wakeup();
        Ok(driver)
    }

    fn arm_wakeup(&mut self) {
        let entry = self.wakeup.entry().user_data(WAKE);
        self.push(entry);
    }

    /// Passes a request to cancel on. Comes after what it cancels, for submissions keep their
    /// order.
    fn push_cancel(&mut self, key: Key) {
        self.table.statistics.cancels += 1;
        let cancel = opcode::AsyncCancel::new(key.0).build();
        self.push(quiet(cancel));
    }

    /// Tells the kernel of an operation.
    fn submit_now(&mut self, key: Key) {
        let starved = self.blocks.is_exhausted();
        let Some(operation) = self.table.in_flight_mut(key) else {
            unreachable!("only an operation in flight is submitted");
        };
        let entry = operation.entry(starved);
        self.push(entry.user_data(key.0));
    }

    /// Reports what is left of a drain, and completes what has ended without the kernel.
    #[inline(never)]
    fn complete_ended(&mut self, completed: &mut Vec<Completed>) {
        completed.append(&mut self.reports);
        for (key, result) in std::mem::take(&mut self.ended) {
            completed.push(self.table.complete(key, result));
        }
    }

    /// Ends the submissions that never reached the kernel, and forgets the cancels among them. Only a drain
    /// may do that, because it cancels everything.
    fn recall_overflow(&mut self, completed: &mut Vec<Completed>) {
        let mut rearm = false;
        for entry in std::mem::take(&mut self.overflow) {
            match entry.get_user_data() {
                WAKE => rearm = true,
                CANCEL => {}
                feed if feed::is_feed(feed) => self.recall_feed(feed),
                key => completed.push(self.table.complete(Key(key), Err(cancelled()))),
            }
        }
        if rearm {
            self.arm_wakeup();
        }
    }
}

/// A cancel whose success is seen by the end of what it cancelled, and needs no completion.
fn quiet(cancel: squeue::Entry) -> squeue::Entry {
    cancel.flags(squeue::Flags::SKIP_SUCCESS).user_data(CANCEL)
}

impl Driver for Uring {
    fn backend(&self) -> Backend {
        Backend::IoUring
    }

    fn submit(&mut self, operation: Operation, token: Token) -> Key {
        let foreign = operation.descriptor().is_simulated();
        let key = self.table.insert(operation, token);
        if foreign {
            self.ended.push((key, Err(simulated())));
        } else if !self.feed(key) {
            self.submit_now(key);
        }
        key
    }

    fn cancel(&mut self, key: Key) {
        if self.table.begin_cancel(key) && !self.unfeed(key) {
            self.push_cancel(key);
        }
    }

    fn abandon(&mut self, key: Key) -> bool {
        match self.table.abandon(key) {
            Abandon::Settled => false,
            Abandon::InFlight { cancel } => {
                if cancel && !self.unfeed(key) {
                    self.push_cancel(key);
                }
                true
            }
        }
    }

    fn take(&mut self, key: Key) -> Option<Finished> {
        self.table.take(key)
    }

    fn turn(&mut self, wait: Wait, completed: &mut Vec<Completed>) -> io::Result<()> {
        self.end_orphaned_feeds();
        let reported = !self.reports.is_empty() || !self.ended.is_empty();
        if reported {
            self.complete_ended(completed);
        }
        // What is there to report is reported now; a completion that is there ends any wait.
        let patient = !matches!(wait, Wait::Poll | Wait::For(Duration::ZERO));
        let asleep =
            patient && !reported && self.ring.completions().is_empty() && self.wakeup.fall_asleep();
        let entered = self.enter(if asleep { wait } else { Wait::Poll });
        if asleep {
            self.wakeup.be_awake();
        }
        self.reap(completed);
        entered
    }

    fn in_flight(&self) -> usize {
        self.table.in_flight() + self.feeds.armed()
    }

    #[allow(clippy::mem_forget)] // the kernel may still write to the blocks
    fn drain(&mut self, bound: Duration) -> Drained {
        let clock = SystemClock::new();
        let deadline = clock.now() + bound;
        let mut completed = std::mem::take(&mut self.reports);
        self.end_orphaned_feeds();
        self.recall_overflow(&mut completed);
        for key in self.table.keys_in_flight() {
            self.cancel(key);
        }
        let mut wait = Wait::Poll;
        while self.in_flight() > 0 {
            if self.overflow.is_empty() {
                let everything = opcode::AsyncCancel2::new(CancelBuilder::any().all()).build();
                self.push(quiet(everything));
            }
            // A wake is left for the turn that comes after: a drain ends when it ends.
            self.complete_ended(&mut completed);
            let entered = self.enter(wait);
            self.reap(&mut completed);
            let left = deadline - clock.now();
            if entered.is_err() || left.is_zero() {
                break;
            }
            wait = Wait::For(left.min(DRAIN_INTERVAL));
        }
        self.reports = completed;
        let leaked = self.table.leak() + self.feeds.armed();
        if leaked > 0 {
            std::mem::forget(self.blocks.clone());
        }
        Drained { leaked }
    }

    fn unparker(&self) -> Unparker {
        self.wakeup.unparker()
    }

    fn waiter(&mut self) -> io::Result<Waiter> {
        let bell = match self.bell.take() {
            Some(bell) => bell,
            None => Bell::register(&self.ring)?,
        };
        self.wakeup.ring_instead(bell.event());
        Ok(self.bell.insert(bell).waiter())
    }

    fn begin_wait(&mut self) -> bool {
        let Some(bell) = &self.bell else { return false };
        let busy = !self.reports.is_empty() || !self.ended.is_empty();
        if busy || !self.wakeup.fall_asleep() {
            return false;
        }
        // First the bell, then a look: what rang it is seen, and what comes later rings it again. A
        // wake that rang it has left a mark.
        if bell.rearm(&self.ring).is_err() || self.wakeup.is_called() {
            self.wakeup.be_awake();
            return false;
        }
        let entered = self.enter(Wait::Poll);
        let silent = entered.is_ok()
            && self.overflow.is_empty()
            && self.ring.submissions().is_empty()
            && self.ring.completions().is_empty();
        if !silent {
            self.wakeup.be_awake();
        }
        silent
    }

    fn end_wait(&mut self) {
        self.wakeup.be_awake();
    }

    fn statistics(&self) -> DriverStatistics {
        DriverStatistics {
            blocks_leased: self.pool.leased() + self.blocks.lent(),
            ..self.table.statistics
        }
    }

    fn bind(
        &mut self,
        socket: &Descriptor,
        address: &SocketAddr,
        share_port: bool,
    ) -> io::Result<()> {
        match socket::bind(socket, address, share_port) {
            // It may be that of a listener that was closed a moment ago.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                match self.let_go_of_closed()? {
                    true => socket::bind(socket, address, share_port),
                    false => Err(error),
                }
            }
            bound => bound,
        }
    }

    fn buffer(&mut self) -> Lease {
        self.pool.lease()
    }

    fn likely_readable(&self, on: &Descriptor) -> bool {
        self.feeds.likely_readable(on)
    }

    fn watch(&mut self, on: &Descriptor, direction: Direction, token: Token) -> bool {
        self.watch_feed(on, direction, token)
    }

    fn watch_blocked(&mut self, on: &Descriptor, direction: Direction, token: Token) -> bool {
        self.watch_blocked_feed(on, direction, token)
    }

    fn unwatch(&mut self, stream: &Descriptor) {
        self.unwatch_feed(stream);
    }

    fn watch_place(&self, on: &Descriptor) -> Option<u32> {
        self.feeds.place_of(on)
    }

    fn unwatch_at(&mut self, place: u32, token: Token) -> bool {
        self.unwatch_feed_at(place, token)
    }

    fn send_now(&mut self, to: &Descriptor, data: &[u8]) -> Option<io::Result<usize>> {
        socket::send(to, data)
    }

    fn try_receive(&mut self, from: &Descriptor, into: &mut [u8]) -> io::Result<usize> {
        if self.feeds.is_taking(from) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let received = socket::receive(from, into);
        match &received {
            Some(Ok(count)) => self.note_received(from, Some(*count), into.len()),
            Some(Err(_)) => {}
            None => self.note_received(from, None, into.len()),
        }
        received.unwrap_or_else(|| Err(io::ErrorKind::WouldBlock.into()))
    }

    fn receive_block_now(&mut self, from: &Descriptor) -> Option<io::Result<Lease>> {
        // While a feed takes, never (rule 5 of `feed.rs`).
        if !self.likely_readable(from) {
            return None;
        }
        let mut shown = None;
        let received = socket::receive_blocks(from, &self.pool, |by_call| shown = Some(by_call));
        if let Some(shown) = shown {
            self.note_received(from, shown.count, shown.room);
        }
        received
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        if self.in_flight() > 0 {
            self.drain(DROP_BOUND);
        }
        self.feeds.end();
        // Closing the ring would end the registration as well, but later, in a thread of the kernel, when
        // the blocks may be gone. Without a registration this fails, which does no harm.
        drop(self.ring.submitter().unregister_buf_ring(buffers::GROUP));
    }
}

impl fmt::Debug for Uring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Uring")
            .field("ring", &self.ring)
            .field("overflow", &self.overflow.len())
            .field("in_flight", &self.in_flight())
            .field("pool", &self.pool)
            .finish_non_exhaustive()
    }
}
