//! The readiness driver: operations run to completion on a kernel that only says when to try.
//!
//! An operation is attempted when it is submitted, unless the descriptor is known not to be ready.
//! If it would block, it waits in the queue of its descriptor, and is attempted again when the
//! system reports readiness. What has ended is kept, and reported by the next turn.
//!
//! 1. An attempt is made by this thread, inside a call of the driver. So the kernel never holds
//!    memory of an operation, a cancel takes effect at once, and nothing is ever leaked.
//! 2. A descriptor is registered when an operation first has to wait for it, and each direction is
//!    added when an operation first has to wait for that direction. Where the system can watch for
//!    edges, these are the only calls; elsewhere each wait costs one more.
//! 3. Between a `WouldBlock` and the registration the descriptor may become ready. All systems
//!    report a descriptor that is ready when it is registered, so nothing is missed.
//! 4. Readiness is remembered, and cleared by `WouldBlock` only, or by what is proved to mean the
//!    same (`epoll.rs`).
//!
//! `source.rs` says what is remembered about a descriptor.

#[cfg(target_os = "linux")]
mod epoll;
#[cfg(any(test, not(target_os = "linux")))]
mod portable;
mod selector;
mod source;
mod wake;

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
#[cfg(unix)]
use std::sync::Arc;
use std::time::Duration;

use self::selector::{Report, Selector};
use self::source::{Registry, Side, Source, Sources, raw};
use crate::buf::{Lease, Pool};
use crate::clock::SystemClock;
use crate::driver::{
    Backend, Completed, Drained, Driver, DriverStatistics, Key, Token, Unparker, Wait,
};
use crate::fd::{Descriptor, Direction, DriverId};
use crate::op::table::{Abandon, Table};
use crate::op::{Finished, Interest, Operation, cancelled};
use crate::socket;
#[cfg(unix)]
use crate::waiter::Waiter;

/// A driver that waits for readiness, by epoll, kqueue or IOCP, and then does the work itself.
///
/// # Examples
///
/// ```
/// use trio_platform::{Backend, Driver, polling::Polling};
///
/// let driver = Polling::new()?;
/// assert_eq!(driver.backend(), Backend::Polling);
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug)]
pub struct Polling {
    id: DriverId,
    selector: Rc<Selector>,
    sources: Rc<RefCell<Sources>>,
    registry: Rc<Registry>,
    table: Table,
    /// Operations that have ended and not been reported, in the order in which they ended.
    ended: Vec<(Key, io::Result<u32>)>,
    /// Whether anybody has ever watched: then there may be something to report although no operation
    /// waits.
    watched: bool,
    pool: Pool,
    clock: SystemClock,
}

impl Polling {
    /// A driver with nothing in flight.
    ///
    /// # Errors
    ///
    /// If the system gives no selector, most likely for want of descriptors; the error then says what to do.
    pub fn new() -> io::Result<Self> {
        match Selector::new() {
            Ok(selector) => Ok(Self::with_selector(selector)),
            Err(error) if socket::lacks_descriptors(&error) => Err(io::Error::new(
                error.kind(),
                "no descriptor is left to poll with: raise the limit of open files (`ulimit -n`)",
            )),
            Err(error) => Err(error),
        }
    }

    fn with_selector(selector: Selector) -> Self {
        let (selector, sources) = (Rc::new(selector), Rc::default());
        let registry = Registry {
            selector: Rc::clone(&selector),
            sources: Rc::downgrade(&sources),
        };
        Self {
            id: DriverId::new(),
            selector,
            sources,
            registry: Rc::new(registry),
            table: Table::default(),
            ended: Vec::new(),
            watched: false,
            pool: Pool::new(BLOCK_SIZE, BLOCKS_SPARE),
            clock: SystemClock::new(),
        }
    }

    /// Attempts the operation if that may succeed, and sees to it that readiness is reported if it
    /// has to wait. `None` says that it has.
    fn begin(&mut self, operation: &mut Operation) -> Option<io::Result<u32>> {
        match self.try_begin(operation) {
            Ok(count) => count.map(Ok),
            Err(error) => Some(Err(error)),
        }
    }

    fn try_begin(&mut self, operation: &mut Operation) -> io::Result<Option<u32>> {
        let interest = operation.interest();
        let registered = self.find(operation.descriptor())?;
        // Somebody else may have read or written since the last report, so only a new report will
        // do, which is what arming afresh asks for.
        let watches = matches!(operation, Operation::Ready(_));
        if !watches {
            let mut sources = self.sources.borrow_mut();
            let mut source = registered.map(|index| sources.get_mut(index));
            let blocked = source
                .as_deref_mut()
                .is_some_and(|source| source.side(interest).is_blocked());
            if !blocked {
                let result = attempt(operation, &self.pool);
                let blocks = would_block(&result);
                if let Some(source) = source {
                    let shown = (!blocks).then(|| is_short(operation, &result));
                    source.note(interest, shown);
                }
                if !blocks {
                    return result.map(Some);
                }
            }
        }
        self.arm(operation.descriptor(), registered, interest, watches)?;
        Ok(None)
    }

    /// Sees to it that the selector reports `interest` of `descriptor`. Asks it `afresh` even if it
    /// is going to, so that it says so at once if it is already met.
    fn arm(
        &mut self,
        descriptor: &Descriptor,
        registered: Option<usize>,
        interest: Interest,
        afresh: bool,
    ) -> io::Result<()> {
        let mut sources = self.sources.borrow_mut();
        let index = match registered {
            Some(index) => index,
            None => {
                let drains = self.selector.drains(descriptor);
                sources.insert(Source::new(raw(descriptor)?, drains))?
            }
        };
        let key = sources.key(index);
        let source = sources.get_mut(index);
        let armed = source.armed();
        let side = source.side(interest);
        if side.armed && !afresh {
            return Ok(());
        }
        side.armed = true;
        if !afresh {
            side.ready = false;
        }
        let interests = source.armed();
        self.table.statistics.enters += 1;
        if registered.is_some() {
            let result = self.selector.modify(descriptor, key, interests);
            if result.is_err() {
                source.readable.armed = armed.readable;
                source.writable.armed = armed.writable;
            }
            return result;
        }
        let raw = source.raw;
        if let Err(error) = self.selector.add(descriptor, raw, key, interests) {
            sources.remove(index);
            return Err(error);
        }
        descriptor.register(self.id, index, self.registry.clone());
        Ok(())
    }

    /// Watches a stream that the selector may not have been asked about.
    #[cold]
    fn watch_first(&mut self, stream: &Descriptor, token: Token) -> bool {
        let armed = self
            .find(stream)
            .and_then(|registered| self.arm(stream, registered, Interest::Readable, false));
        let index = stream.index_in(self.id).filter(|_| armed.is_ok());
        index.is_some_and(|index| self.sources.borrow_mut().get_mut(index).watch(token))
    }

    /// Puts an operation that has to wait into the queue of its descriptor, which is armed.
    fn park(&mut self, operation: Operation, token: Token) -> Key {
        let index = operation.descriptor().index_in(self.id);
        let interest = operation.interest();
        let watches = matches!(operation, Operation::Ready(_));
        let key = self.table.insert(operation, token);
        let mut sources = self.sources.borrow_mut();
        let source = sources.get_mut(index.expect("who waits is registered"));
        let side = source.side(interest);
        debug_assert!(side.armed, "who waits is going to be told");
        if watches {
            side.queue().watching.push(key);
        } else {
            debug_assert!(!side.ready, "who waits has seen the side blocked");
            side.queue().waiting.push_back(key);
        }
        key
    }

    /// The index of the source of `descriptor`, if it is registered here.
    ///
    /// # Errors
    ///
    /// If it is not the system's, or is registered with another driver that still runs.
    fn find(&self, descriptor: &Descriptor) -> io::Result<Option<usize>> {
        if let Some(index) = descriptor.index_in(self.id) {
            return Ok(Some(index));
        }
        raw(descriptor)?;
        if descriptor.is_registered() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the descriptor belongs to another run, which has not ended",
            ));
        }
        Ok(None)
    }

    /// Waits for reports, as `wait` says, until one of them ends an operation or a watch, or the waker
    /// calls.
    #[inline]
    fn wait(&mut self, wait: Wait, completed: &mut Vec<Completed>) -> io::Result<()> {
        let timeout = match wait {
            Wait::Forever => None,
            Wait::Poll => Some(Duration::ZERO),
            Wait::For(time) => return self.wait_for(time, completed),
        };
        while !self.wait_once(timeout, completed)? && timeout.is_none() {}
        Ok(())
    }

    /// The same for a time. When that is over nothing is looked at again: the next turn does it.
    #[inline(never)]
    fn wait_for(&mut self, time: Duration, completed: &mut Vec<Completed>) -> io::Result<()> {
        let deadline = self.clock.now() + time;
        let mut rest = time;
        loop {
            if self.wait_once(Some(rest), completed)? {
                return Ok(());
            }
            rest = deadline - self.clock.now();
            if rest.is_zero() {
                return Ok(());
            }
        }
    }

    /// Waits for reports and deals with each; returns whether there is something to return for. Always
    /// inlined, because it is most of a turn.
    #[inline(always)]
    fn wait_once(
        &mut self,
        timeout: Option<Duration>,
        completed: &mut Vec<Completed>,
    ) -> io::Result<bool> {
        self.table.statistics.enters += 1;
        let before = completed.len();
        let selector = Rc::clone(&self.selector);
        selector.wait(timeout, |report| self.react(report, completed))?;
        let called = selector.wake().take();
        Ok(called || completed.len() > before || !self.ended.is_empty())
    }

    /// Attempts what has waited for the report, as far as the readiness goes, and tells whoever watches.
    #[inline]
    fn react(&mut self, report: Report, completed: &mut Vec<Completed>) {
        let mut sources = self.sources.borrow_mut();
        // Closed since.
        let Some((index, source)) = sources.find(report.key) else {
            return;
        };
        if self.selector.is_one_shot() {
            source.readable.armed = false;
            source.writable.armed = false;
        }
        source.drains &= report.plain;
        let drains = source.drains;
        let (table, ended) = (&mut self.table, &mut self.ended);
        if report.readable {
            serve(&mut source.readable, drains, table, &self.pool, ended);
            if let Some(token) = source.watcher.take() {
                table.statistics.completed += 1;
                let orphan = false;
                completed.push(Completed { token, orphan });
            }
        }
        if report.writable {
            serve(&mut source.writable, drains, table, &self.pool, ended);
        }
        drop(sources);
        if self.selector.is_one_shot() {
            self.arm_again(index);
        }
    }

    /// Asks for the next report for those who still wait, where a report is the last one.
    fn arm_again(&mut self, index: usize) {
        let mut sources = self.sources.borrow_mut();
        let key = sources.key(index);
        let source = sources.get_mut(index);
        let interests = source.wanted();
        let Some(waiting) = source.keys().next() else {
            return;
        };
        source.readable.armed = interests.readable;
        source.writable.armed = interests.writable;
        self.table.statistics.enters += 1;
        let operation = self.table.in_flight_mut(waiting);
        let descriptor = operation.expect(IN_FLIGHT).descriptor();
        if let Err(error) = self.selector.modify(descriptor, key, interests) {
            let left: Vec<Key> = source.keys().collect();
            *source = Source::new(source.raw, source.drains);
            let failed = left.into_iter().map(|key| (key, Err(copy(&error))));
            self.ended.extend(failed);
        }
    }

    /// Takes an operation out of the queue in which it waits, if it does, as cancelled.
    fn withdraw(&mut self, key: Key) {
        self.table.statistics.cancels += 1;
        let Some(operation) = self.table.in_flight_mut(key) else {
            return;
        };
        let (descriptor, interest) = (operation.descriptor().clone(), operation.interest());
        let Ok(Some(index)) = self.find(&descriptor) else {
            return;
        };
        let mut sources = self.sources.borrow_mut();
        if sources.get_mut(index).side(interest).withdraw(key) {
            self.ended.push((key, Err(cancelled())));
        }
    }

    /// Reports what has ended.
    #[inline(never)]
    fn deliver(&mut self, completed: &mut Vec<Completed>) {
        for (key, result) in self.ended.drain(..) {
            completed.push(self.table.complete(key, result));
        }
    }

    /// Makes an attempt on behalf of somebody who does not wait, unless it is known to fail. `None`
    /// says that nothing could be transferred, `wanted` how much was to be.
    #[inline(always)]
    fn transfer_now(
        &mut self,
        descriptor: &Descriptor,
        interest: Interest,
        transfer: impl FnOnce(&Pool) -> (Option<io::Result<usize>>, usize),
    ) -> Option<io::Result<usize>> {
        let Some(index) = descriptor.index_in(self.id) else {
            return transfer(&self.pool).0;
        };
        let mut sources = self.sources.borrow_mut();
        let source = sources.get_mut(index);
        if source.side(interest).is_blocked() {
            return None;
        }
        let (result, wanted) = transfer(&self.pool);
        let is_short = result
            .as_ref()
            .map(|result| matches!(result, Ok(count) if *count > 0 && *count < wanted));
        source.note(interest, is_short);
        result
    }
}

impl Driver for Polling {
    fn backend(&self) -> Backend {
        Backend::Polling
    }

    fn submit(&mut self, mut operation: Operation, token: Token) -> Key {
        match self.begin(&mut operation) {
            Some(result) => {
                let key = self.table.insert(operation, token);
                self.ended.push((key, result));
                key
            }
            None => self.park(operation, token),
        }
    }

    fn cancel(&mut self, key: Key) {
        if self.table.begin_cancel(key) {
            self.withdraw(key);
        }
    }

    fn abandon(&mut self, key: Key) -> bool {
        match self.table.abandon(key) {
            Abandon::InFlight { cancel } => {
                if cancel {
                    self.withdraw(key);
                }
                true
            }
            Abandon::Settled => false,
        }
    }

    fn take(&mut self, key: Key) -> Option<Finished> {
        self.table.take(key)
    }

    fn watch(&mut self, stream: &Descriptor, direction: Direction, token: Token) -> bool {
        if self.watch_blocked(stream, direction, token) {
            return true;
        }
        // Where a report is the last one, there must be an operation to ask for the next.
        if self.selector.is_one_shot() || !self.watch_first(stream, token) {
            return false;
        }
        self.table.statistics.submitted += 1;
        self.watched = true;
        true
    }

    #[inline]
    fn watch_blocked(&mut self, on: &Descriptor, _direction: Direction, token: Token) -> bool {
        let Some(index) = on.index_in(self.id) else {
            return false;
        };
        // Where a report is the last one, only an operation asks for the next.
        let watched =
            !self.selector.is_one_shot() && self.sources.borrow_mut().get_mut(index).watch(token);
        if watched {
            self.table.statistics.submitted += 1;
            self.watched = true;
        }
        watched
    }

    fn unwatch(&mut self, stream: &Descriptor) {
        if let Some(index) = stream.index_in(self.id) {
            let watcher = self.sources.borrow_mut().get_mut(index).watcher.take();
            if watcher.is_some() {
                self.table.statistics.watch_cancelled();
            }
        }
    }

    fn watch_place(&self, on: &Descriptor) -> Option<u32> {
        on.index_in(self.id)
            .map(|index| u32::try_from(index).expect("it was kept as a `u32`"))
    }

    fn unwatch_at(&mut self, place: u32, token: Token) -> bool {
        let taken = self.sources.borrow_mut().take_watch(place, token);
        if taken {
            self.table.statistics.watch_cancelled();
        }
        taken
    }

    fn turn(&mut self, wait: Wait, completed: &mut Vec<Completed>) -> io::Result<()> {
        let wait = match self.ended.is_empty() {
            true => wait,
            false => Wait::Poll,
        };
        let somebody_waits = self.watched || self.table.in_flight() > self.ended.len();
        if somebody_waits || wait != Wait::Poll {
            self.wait(wait, completed)?;
        }
        // With nothing but watches, as in a server, nothing ends.
        if !self.ended.is_empty() {
            self.deliver(completed);
        }
        Ok(())
    }

    fn in_flight(&self) -> usize {
        self.table.in_flight()
    }

    /// Ends at once: nothing here has to be waited for (rule 1).
    fn drain(&mut self, _bound: Duration) -> Drained {
        for key in self.table.keys_in_flight() {
            self.cancel(key);
        }
        self.deliver(&mut Vec::new());
        debug_assert_eq!(self.table.in_flight(), 0, "a cancel takes effect at once");
        Drained { leaked: 0 }
    }

    fn unparker(&self) -> Unparker {
        Unparker::new(self.selector.wake().clone())
    }

    #[cfg(unix)]
    fn waiter(&mut self) -> io::Result<Waiter> {
        // The selector itself is readable while it has reports, and looking takes none away.
        let bell = self.selector.try_clone_descriptor()?;
        Ok(Waiter::new(Arc::new(bell), self.selector.wake().clone()))
    }

    /// What the selector reports meanwhile stays there for the next turn that looks.
    fn begin_wait(&mut self) -> bool {
        cfg!(unix) && self.ended.is_empty()
    }

    fn statistics(&self) -> DriverStatistics {
        DriverStatistics {
            blocks_leased: self.pool.leased(),
            ..self.table.statistics
        }
    }

    fn buffer(&mut self) -> Lease {
        self.pool.lease()
    }

    fn likely_readable(&self, on: &Descriptor) -> bool {
        let index = on.index_in(self.id);
        index.is_none_or(|index| {
            !self
                .sources
                .borrow_mut()
                .get_mut(index)
                .readable
                .is_blocked()
        })
    }

    fn try_receive(&mut self, from: &Descriptor, into: &mut [u8]) -> io::Result<usize> {
        let received = self.receive_now(from, into);
        received.unwrap_or_else(|| Err(io::ErrorKind::WouldBlock.into()))
    }

    fn try_send(&mut self, to: &Descriptor, data: &[u8]) -> io::Result<usize> {
        let sent = self.send_now(to, data);
        sent.unwrap_or_else(|| Err(io::ErrorKind::WouldBlock.into()))
    }

    fn send_now(&mut self, to: &Descriptor, data: &[u8]) -> Option<io::Result<usize>> {
        self.transfer_now(to, Interest::Writable, |_| {
            (socket::send(to, data), data.len())
        })
    }

    fn accept_now(&mut self, listener: &Descriptor) -> Option<io::Result<Descriptor>> {
        // Who watches has the listener registered.
        let index = listener.index_in(self.id)?;
        let mut sources = self.sources.borrow_mut();
        let source = sources.get_mut(index);
        if source.readable.is_blocked() || source.readable.is_wanted() {
            return None;
        }
        let accepted = socket::accept(listener);
        if would_block(&accepted) {
            source.note(Interest::Readable, None);
            return None;
        }
        Some(accepted)
    }

    fn receive_now(&mut self, from: &Descriptor, into: &mut [u8]) -> Option<io::Result<usize>> {
        self.transfer_now(from, Interest::Readable, |_| {
            (socket::receive(from, into), into.len())
        })
    }

    fn receive_block_now(&mut self, from: &Descriptor) -> Option<io::Result<Lease>> {
        let index = from.index_in(self.id);
        let mut sources = self.sources.borrow_mut();
        let source = index.map(|index| sources.get_mut(index));
        if source
            .as_ref()
            .is_some_and(|source| source.readable.is_blocked())
        {
            return None;
        }
        socket::receive_blocks(from, &self.pool, |shown| {
            if let Some(source) = source {
                let is_short = |count| count > 0 && count < shown.room;
                source.note(Interest::Readable, shown.count.map(is_short));
            }
        })
    }
}

impl Drop for Polling {
    /// Settles what was abandoned, so that what it won reaches its descriptor.
    fn drop(&mut self) {
        self.drain(Duration::ZERO);
    }
}

/// Attempts those who wait on `side`, which has been reported, as far as the readiness goes.
#[inline]
fn serve(
    side: &mut Side,
    drains: bool,
    table: &mut Table,
    pool: &Pool,
    ended: &mut Vec<(Key, io::Result<u32>)>,
) {
    side.ready = true;
    if side.waiting().is_some() {
        serve_waiting(side, drains, table, pool, ended);
    }
}

/// The same on a side that has a queue.
fn serve_waiting(
    side: &mut Side,
    drains: bool,
    table: &mut Table,
    pool: &Pool,
    ended: &mut Vec<(Key, io::Result<u32>)>,
) {
    let Some(queue) = side.waiting() else {
        return;
    };
    for key in queue.watching.drain(..) {
        let operation = table.in_flight_mut(key).expect(IN_FLIGHT);
        if let Operation::Ready(ready) = operation {
            ready.reported = true;
        }
        ended.push((key, operation.attempt()));
    }
    while let Some(&key) = queue.waiting.front() {
        let operation = table.in_flight_mut(key).expect(IN_FLIGHT);
        operation.unpoison();
        let result = attempt(operation, pool);
        operation.poison();
        let blocks = would_block(&result);
        let drained = drains && is_short(operation, &result);
        if !blocks {
            queue.waiting.pop_front();
            ended.push((key, result));
        }
        if blocks || drained {
            side.ready = false;
            return;
        }
    }
}

/// Attempts `operation`. A receive has a block for the attempt, and keeps it if there was something
/// to put into it.
fn attempt(operation: &mut Operation, pool: &Pool) -> io::Result<u32> {
    let Operation::Receive(receive) = operation else {
        return operation.attempt();
    };
    let brought_none = receive.into.is_none();
    if brought_none {
        receive.into = Some(pool.lease());
    }
    let result = operation.attempt();
    if let (Operation::Receive(receive), true, Err(_)) = (operation, brought_none, &result) {
        receive.into = None;
    }
    result
}

/// Whether `operation` transferred something, but less than it could have.
fn is_short(operation: &Operation, result: &io::Result<u32>) -> bool {
    let wanted = match operation {
        Operation::Receive(receive) => receive.into.as_ref().map_or(0, Lease::capacity),
        Operation::Send(send) => send.remaining().len(),
        _ => return false,
    };
    matches!(*result, Ok(count) if count > 0 && (count as usize) < wanted)
}

fn would_block<T>(result: &io::Result<T>) -> bool {
    matches!(result, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

/// The same error once more, for another who suffers from it.
fn copy(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => error.kind().into(),
    }
}

const IN_FLIGHT: &str = "who waits is in flight";

/// The size of a block in bytes.
const BLOCK_SIZE: u32 = 16 * 1024;

/// How many unused blocks are kept: twice what one wait can fill.
const BLOCKS_SPARE: usize = 2 * selector::EVENTS_MAX.get();

#[cfg(test)]
mod tests;
