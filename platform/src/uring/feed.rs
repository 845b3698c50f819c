//! One submission that serves a descriptor for good, instead of one submission for each result.
//!
//! A connection that has received before is likely to receive again, and a listener to accept again.
//! For such a descriptor a single submission asks the kernel to go on until it is cancelled
//! (`IORING_RECV_MULTISHOT`, Linux 6.0; `IORING_ACCEPT_MULTISHOT`, 5.19). Whenever bytes arrive, the
//! kernel picks a block and posts a completion; whenever a connection arrives, it posts a completion
//! too. This is a *feed*. It belongs to the descriptor rather than to an operation, and an idle
//! connection costs no block.
//!
//! 1. A receive that is submitted while its descriptor has a feed that takes never reaches the kernel.
//!    It waits in the feed, and the next completion ends it. Cancelling it only removes it from the
//!    feed: nothing has been taken from the socket for it, and what arrives later is kept.
//! 2. What arrives while no receive waits goes, in order, to the stash of the descriptor, from which
//!    the next receive or accept takes it (`fd.rs`). At [`STASH_MAX`] results, or [`ACCEPTED_MAX`]
//!    connections, the feed is stopped: a peer that sends faster than it is read fills the buffers of
//!    the kernel and then has to wait, and connections wait in the queue of the listener
//!    (backpressure). The limit is not exact, because the kernel takes everything that is queued at
//!    the moment when it looks.
//! 3. A feed holds its descriptor weakly. When the last handle is dropped, the registrar ([`Closing`])
//!    has the next turn cancel the feed, and the descriptor is closed once the kernel lets go of it.
//!    Until then the feed counts as in flight, and connections that arrive are closed.
//! 4. A feed that ends for another reason (end of the stream, no block left, no descriptor left, a full
//!    completion queue) is started again by the next receive or accept that has to wait.
//! 5. While a feed that takes is armed, nothing else receives from the socket. Otherwise bytes would
//!    overtake those that the kernel has taken but not yet reported.
//! 6. Where messages are large, the feed does not take; it *tells*. It reports each arrival
//!    (`IORING_POLL_ADD_MULTI`, 5.13), and whoever watches receives by a call: into the block that was
//!    used last, into several blocks if it is a stream (`socket.rs`), or into the caller's slice. A
//!    feed that takes fills as many blocks as there is data before anybody looks at the first of them.
//!    For small messages this saves a call each; for large ones it means memory that has left the
//!    cache (decision 13 has the figures). [`Weight`] decides which kind a feed is; when that
//!    changes, the feed is stopped and started again.
//! 7. An arrival is an *edge*: the kernel reports it once. So the feed remembers it until a receive has
//!    found nothing. A receive that found less than it had room for proves nothing, because a receive
//!    also stops short where urgent data begins.
//! 8. A task that does not want to lend an operation to each receive or accept watches instead: results
//!    go to the stash, and the token of the watch is reported.
//!
//! Once a kernel has refused a feed, none is tried again: every receive, or every accept, is then a
//! submission of its own.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::num::NonZeroU64;
use std::os::fd::{FromRawFd, OwnedFd};
use std::rc::Rc;

use io_uring::{cqueue, opcode};
use slab::Slab;

use super::{Uring, buffers, quiet};
use crate::buf::Lease;
use crate::driver::{Completed, Key, Token, Wait};
use crate::fd::{Descriptor, Direction, DriverId, Object, Registrar, WeakDescriptor};
use crate::op::{self, Operation, cancelled, is_cancelled};
use crate::prefetch::prefetch;

/// Set in the lower half of the user data of a feed, whose other bits are its index. The index of an
/// operation is smaller (`op/table.rs`).
const FEED: u64 = 1 << 31;

/// How many receives are made one by one before a connection is expected to go on. A client that has been
/// answered and stays is going to say more, and a feed takes less memory than an operation.
const RECEIVES_ONE_BY_ONE: u8 = 1;

/// How many accepts are made one by one before a listener is expected to go on.
const ACCEPTS_ONE_BY_ONE: u8 = 2;

/// Messages of this size or more are received by a call each, always into the same block: that costs less
/// than saving the call.
pub(super) const LARGE: usize = buffers::BLOCK_SIZE as usize / 2;

/// A feed changes its kind after this many messages in a row that ask for the other one, because a change
/// costs two submissions.
const IN_A_ROW: u8 = 4;

/// The events that a feed that tells asks for; the kernel adds errors unasked. Urgent data makes the bytes
/// before it readable.
const ARRIVALS: u32 = (libc::POLLIN | libc::POLLRDHUP) as u32;

/// Results that are kept for a connection before its feed is stopped.
const STASH_MAX: usize = 8;

/// Connections that are kept for a listener before its feed is stopped.
const ACCEPTED_MAX: usize = 64;

/// The feeds of one ring.
pub(super) struct Feeds {
    id: DriverId,
    slots: Slab<Feed>,
    /// The generation of the next feed, for the upper half of its user data.
    pub(super) generation: u32,
    /// Feeds that the kernel has not ended.
    armed: usize,
    /// Whether the kernel knows what a feed is, of bytes and of connections.
    receives: bool,
    accepts: bool,
    closing: Rc<Closing>,
}

/// Smaller than a cache line, because each message passes it twice.
struct Feed {
    stream: WeakDescriptor,
    /// The token to report when something has been stashed, or when the feed cannot go on.
    watcher: Option<Token>,
    /// Its user data, while it is armed.
    armed: Option<NonZeroU64>,
    direction: Direction,
    /// Whether the kernel has been asked to end it.
    stopping: bool,
    /// Whether the descriptor has gone.
    orphan: bool,
    /// Whether it takes, or only tells (rule 6), since it was last armed.
    takes: bool,
    /// Of a feed that tells: whether there was an arrival since a receive last found nothing (rule 7).
    readable: bool,
    weight: Weight,
    /// Receives that wait for what comes next, oldest first. `None` until there was one: most streams
    /// are watched.
    #[expect(clippy::box_collection, reason = "a word instead of four")]
    waiting: Option<Box<VecDeque<Key>>>,
}

// With the tag of the slab.
const _: () = assert!(size_of::<Feed>() <= 56, "a feed takes a cache line");

impl Feed {
    fn is_waited_for(&self) -> bool {
        self.waiting
            .as_ref()
            .is_some_and(|waiting| !waiting.is_empty())
    }

    /// Whether it only tells (rule 6).
    #[inline]
    fn tells(&self) -> bool {
        !self.takes && self.direction == Direction::Receive
    }

    /// The receive that has waited for longest.
    #[inline]
    fn pop_waiting(&mut self) -> Option<Key> {
        self.waiting.as_mut()?.pop_front()
    }
}

/// Whether messages are large, which decides the kind of the next feed (rule 6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Weight {
    heavy: bool,
    /// How many messages in a row asked for the other kind.
    contrary: u8,
}

impl Weight {
    /// Counts a receive of `count` bytes; returns whether that has changed the kind.
    #[inline]
    fn add(&mut self, count: usize) -> bool {
        if (count >= LARGE) == self.heavy {
            self.contrary = 0;
            return false;
        }
        self.contrary += 1;
        if self.contrary < IN_A_ROW {
            return false;
        }
        *self = Self {
            heavy: !self.heavy,
            contrary: 0,
        };
        true
    }
}

/// Feeds whose descriptor has gone, for the driver to end.
struct Closing {
    feeds: RefCell<Vec<usize>>,
    live: Cell<bool>,
}

impl Registrar for Closing {
    fn is_live(&self) -> bool {
        self.live.get()
    }

    fn forget(&self, feed: usize, _: &Object) {
        if self.is_live() {
            self.feeds.borrow_mut().push(feed);
        }
    }
}

/// Whether `user_data` is that of a feed.
pub(super) fn is_feed(user_data: u64) -> bool {
    user_data & FEED != 0
}

fn index_of(user_data: u64) -> usize {
    usize::try_from(user_data & (FEED - 1)).expect("an index of the slab")
}

impl Feeds {
    pub(super) fn new() -> Self {
        let closing = Closing {
            feeds: RefCell::default(),
            live: Cell::new(true),
        };
        Self {
            id: DriverId::new(),
            slots: Slab::new(),
            generation: 0,
            armed: 0,
            receives: true,
            accepts: true,
            closing: Rc::new(closing),
        }
    }

    /// Feeds that the kernel has not ended.
    pub(super) fn armed(&self) -> usize {
        self.armed
    }

    /// The index of the feed of `stream`, if it has one.
    pub(super) fn place_of(&self, stream: &Descriptor) -> Option<u32> {
        stream
            .index_in(self.id)
            .map(|index| u32::try_from(index).expect("it was kept as a `u32`"))
    }

    /// The feed of `stream`, if it is armed.
    #[inline]
    fn armed_at(&self, stream: &Descriptor) -> Option<usize> {
        let index = stream.index_in(self.id)?;
        self.slots[index].armed.is_some().then_some(index)
    }

    /// Whether the kernel may have taken bytes of `stream` that it has not reported (rule 5).
    pub(super) fn is_taking(&self, stream: &Descriptor) -> bool {
        self.armed_at(stream)
            .is_some_and(|index| self.slots[index].takes)
    }

    /// Whether a receive from `stream` is likely to find something that it may take.
    pub(super) fn likely_readable(&self, stream: &Descriptor) -> bool {
        match self.armed_at(stream).map(|index| &self.slots[index]) {
            Some(feed) => !feed.takes && feed.readable,
            None => stream.likely_readable(),
        }
    }

    /// The feed of `stream`, if a receive or an accept is known to find nothing that it may take, and the next
    /// arrival will be reported.
    #[inline]
    fn blocked_at(&self, stream: &Descriptor, direction: Direction) -> Option<usize> {
        self.armed_at(stream).filter(|index| {
            let feed = &self.slots[*index];
            feed.direction == direction && (feed.takes || !feed.readable)
        })
    }

    /// Whether the kernel knows what a feed is.
    #[inline]
    fn are_known(&self, direction: Direction) -> bool {
        match direction {
            Direction::Receive => self.receives,
            Direction::Accept => self.accepts,
        }
    }

    /// Prefetches a feed whose completion is about to be handled.
    #[inline]
    pub(super) fn foresee(&self, user_data: u64) {
        if let Some(feed) = self.slots.get(index_of(user_data)) {
            prefetch(feed, size_of::<Feed>());
        }
    }

    /// Prefetches its stream, once the feed itself is there.
    #[inline]
    pub(super) fn foresee_stream(&self, user_data: u64) {
        if let Some(feed) = self.slots.get(index_of(user_data)) {
            feed.stream.foresee();
        }
    }

    /// The feed of `stream`, if it has one or is to have one.
    fn of(&mut self, stream: &Descriptor, direction: Direction) -> Option<usize> {
        let one_by_one = match direction {
            Direction::Receive => RECEIVES_ONE_BY_ONE,
            Direction::Accept => ACCEPTS_ONE_BY_ONE,
        };
        if !self.are_known(direction) {
            return None;
        }
        if let Some(index) = stream.index_in(self.id) {
            return Some(index).filter(|index| self.slots[*index].direction == direction);
        }
        // Another driver that still exists may have registered it.
        if stream.taken() < one_by_one || stream.is_simulated() || stream.is_registered() {
            return None;
        }
        let feed = self.slots.insert(Feed {
            stream: stream.downgrade(),
            direction,
            armed: None,
            stopping: false,
            orphan: false,
            takes: direction == Direction::Receive,
            readable: false,
            weight: Weight::default(),
            waiting: None,
            watcher: None,
        });
        stream.register(self.id, feed, self.closing.clone());
        Some(feed)
    }

    /// The driver ends: registrations are void.
    pub(super) fn end(&self) {
        self.closing.live.set(false);
    }
}

impl Uring {
    /// Lets the receive `key` wait in the feed of its descriptor, if that has one or is to have one.
    pub(super) fn feed(&mut self, key: Key) -> bool {
        let Some(Operation::Receive(receive)) = self.table.in_flight_mut(key) else {
            return false;
        };
        if receive.into.is_some() {
            return false;
        }
        let stream = receive.from.clone();
        let Some(index) = self.feeds.of(&stream, Direction::Receive) else {
            return false;
        };
        let Some(Operation::Receive(receive)) = self.table.in_flight_mut(key) else {
            unreachable!("it was there a moment ago");
        };
        let feed = &mut self.feeds.slots[index];
        if !feed.is_waited_for() {
            if let Some(stashed) = stream.stashed_receive() {
                self.ended.push((key, receive.bring(stashed)));
                return true;
            }
        }
        if feed.weight.heavy && !(feed.takes && feed.armed.is_some()) {
            return false;
        }
        feed.waiting.get_or_insert_default().push_back(key);
        if feed.armed.is_none() {
            self.arm(index, &stream);
        }
        true
    }

    /// From now on reports `token` when something arrives for `stream`; `false` if that has no feed.
    pub(super) fn watch_feed(
        &mut self,
        stream: &Descriptor,
        direction: Direction,
        token: Token,
    ) -> bool {
        match self.feeds.of(stream, direction) {
            Some(index) => self.watch_at(index, stream, token),
            None => false,
        }
    }

    /// The same if it is known that nothing is there. Every message takes this way once it has been answered,
    /// so no feed is looked for or made.
    #[inline]
    pub(super) fn watch_blocked_feed(
        &mut self,
        stream: &Descriptor,
        direction: Direction,
        token: Token,
    ) -> bool {
        match self.feeds.blocked_at(stream, direction) {
            Some(index) if self.feeds.are_known(direction) => self.watch_at(index, stream, token),
            _ => false,
        }
    }

    #[inline]
    fn watch_at(&mut self, index: usize, stream: &Descriptor, token: Token) -> bool {
        let feed = &mut self.feeds.slots[index];
        // Without a block a feed that takes would end at once, and what one that tells has reported it does
        // not report again. An operation brings a block of its own, and looks.
        let starved = !feed.weight.heavy && self.blocks.is_exhausted();
        if feed.direction == Direction::Receive && (starved || feed.readable) {
            return false;
        }
        let before = feed.watcher.replace(token);
        debug_assert!(before.is_none(), "a stream is watched by one at a time");
        self.table.statistics.submitted += 1;
        if feed.armed.is_none() {
            self.arm(index, stream);
        }
        true
    }

    pub(super) fn unwatch_feed(&mut self, stream: &Descriptor) {
        let feed = stream.index_in(self.feeds.id);
        if feed.is_some_and(|index| self.feeds.slots[index].watcher.take().is_some()) {
            self.table.statistics.watch_cancelled();
        }
    }

    /// Takes back the watch of `token` if it is that of the feed in this place, which may have gone.
    pub(super) fn unwatch_feed_at(&mut self, place: u32, token: Token) -> bool {
        let feed = self.feeds.slots.get_mut(place as usize);
        let watcher = feed.map(|feed| &mut feed.watcher);
        let own = watcher.filter(|watcher| **watcher == Some(token));
        let taken = own.is_some_and(|watcher| watcher.take().is_some());
        if taken {
            self.table.statistics.watch_cancelled();
        }
        taken
    }

    #[inline(never)]
    fn arm(&mut self, index: usize, stream: &Descriptor) {
        self.feeds.generation = self.feeds.generation.wrapping_add(1);
        let user_data = u64::from(self.feeds.generation) << 32 | FEED | index as u64;
        let feed = &mut self.feeds.slots[index];
        feed.armed = NonZeroU64::new(user_data);
        feed.stopping = false;
        feed.takes = !feed.weight.heavy;
        debug_assert!(!feed.readable, "what is there when it is armed is told of");
        self.feeds.armed += 1;
        let number = op::number(stream);
        let entry = match feed.direction {
            Direction::Receive if feed.takes => {
                opcode::RecvMulti::new(number, buffers::GROUP).build()
            }
            Direction::Receive => opcode::PollAdd::new(number, ARRIVALS).multi(true).build(),
            Direction::Accept => op::accept::multishot_entry(stream),
        };
        self.push(entry.user_data(user_data));
    }

    /// Takes a receive out of the feed that it waits in; `false` if it waits in none.
    pub(super) fn unfeed(&mut self, key: Key) -> bool {
        let Some(operation) = self.table.in_flight_mut(key) else {
            return false;
        };
        let Some(index) = operation.descriptor().index_in(self.feeds.id) else {
            return false;
        };
        let Some(waiting) = &mut self.feeds.slots[index].waiting else {
            return false;
        };
        let before = waiting.len();
        waiting.retain(|waiting| *waiting != key);
        if waiting.len() == before {
            return false;
        }
        self.ended.push((key, Err(cancelled())));
        true
    }

    /// Ends the feeds whose descriptors have gone (rule 3).
    #[inline]
    pub(super) fn end_orphaned_feeds(&mut self) {
        if !self.feeds.closing.feeds.borrow().is_empty() {
            self.end_orphans();
        }
    }

    #[inline(never)]
    fn end_orphans(&mut self) {
        let closing = self.feeds.closing.feeds.take();
        for index in closing {
            let feed = &mut self.feeds.slots[index];
            debug_assert!(!feed.is_waited_for(), "a receive keeps its descriptor");
            feed.orphan = true;
            if feed.armed.is_none() {
                self.feeds.slots.remove(index);
            } else {
                self.stop(index);
            }
        }
    }

    /// Makes the kernel let go of what has been closed. It keeps the descriptor of a feed until the feed is
    /// cancelled, and with that of a listener also its port. Returns whether there was anything.
    #[cold]
    pub(super) fn let_go_of_closed(&mut self) -> io::Result<bool> {
        self.end_orphaned_feeds();
        let any = self.feeds.slots.iter().any(|(_, feed)| feed.orphan);
        if any {
            // The next turn collects the completions.
            self.enter(Wait::Poll)?;
        }
        Ok(any)
    }

    fn stop(&mut self, index: usize) {
        let feed = &mut self.feeds.slots[index];
        let Some(user_data) = feed.armed.filter(|_| !feed.stopping) else {
            return;
        };
        feed.stopping = true;
        self.table.statistics.cancels += 1;
        let cancel = opcode::AsyncCancel::new(user_data.get()).build();
        self.push(quiet(cancel));
    }

    /// Ends a feed whose submission never reached the kernel (only a drain recalls submissions).
    pub(super) fn recall_feed(&mut self, user_data: u64) {
        self.feed_ended(index_of(user_data));
    }

    /// One completion of a feed.
    #[inline]
    pub(super) fn feed_completed(&mut self, entry: &cqueue::Entry, completed: &mut Vec<Completed>) {
        let index = index_of(entry.user_data());
        // Taken before anything else is looked at: whatever the result, the block is ours now.
        let block = cqueue::buffer_select(entry.flags()).map(|id| self.blocks.lend(id));
        let more = cqueue::more(entry.flags());
        match (block, entry.result()) {
            // Every small message. A feed that goes on still has its slot.
            (Some(block), count @ 1..) if more => {
                let count = count.unsigned_abs() as usize;
                self.feed_brought(index, block, count, completed);
                self.weigh(index, count);
            }
            // Every large message.
            (None, 0..) if more && self.feeds.slots[index].tells() => {
                self.feeds.slots[index].readable = true;
                self.tell_watcher(index, completed);
            }
            (block, result) => self.feed_changed(index, more, block, result, completed),
        }
    }

    /// A completion that brings something other than bytes.
    #[cold]
    fn feed_changed(
        &mut self,
        index: usize,
        more: bool,
        block: Option<Lease>,
        result: i32,
        completed: &mut Vec<Completed>,
    ) {
        let result = super::completion::outcome(result);
        let feed = &self.feeds.slots[index];
        let (direction, told) = (feed.direction, feed.tells());
        if !more {
            self.feed_ended(index);
        }
        match direction {
            Direction::Receive if told => self.telling_ended(index, result, completed),
            Direction::Receive => self.receive_completed(index, block, result, completed),
            Direction::Accept => self.accept_completed(index, result, completed),
        }
    }

    fn receive_completed(
        &mut self,
        index: usize,
        block: Option<Lease>,
        result: io::Result<u32>,
        completed: &mut Vec<Completed>,
    ) {
        if !self.feeds.slots.contains(index) {
            return;
        }
        match result {
            Ok(count) => {
                let block = block.unwrap_or_else(|| self.pool.lease());
                self.feed_won(index, Ok((block, count)), completed);
            }
            Err(error) if super::completion::is_exhausted(&error) => {
                self.blocks.widen();
                self.tell_watcher(index, completed);
                self.feed_one(index);
            }
            Err(error) if is_cancelled(&error) => self.feed_again(index),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                self.feeds.receives = false;
                self.tell_watcher(index, completed);
                self.feed_one_by_one(index);
            }
            Err(error) => self.feed_won(index, Err(error), completed),
        }
    }

    /// A feed that tells has ended.
    fn telling_ended(
        &mut self,
        index: usize,
        result: io::Result<u32>,
        completed: &mut Vec<Completed>,
    ) {
        let Some(feed) = self.feeds.slots.get(index) else {
            return;
        };
        match result {
            Err(error) if is_cancelled(&error) => return self.feed_again(index),
            // There was an arrival, but no room in its queue to report it.
            Ok(_) => {
                if let Some(stream) = feed.stream.upgrade() {
                    stream.set_likely_readable(true);
                }
            }
            Err(_) => self.feeds.receives = false,
        }
        self.tell_watcher(index, completed);
    }

    fn accept_completed(
        &mut self,
        index: usize,
        result: io::Result<u32>,
        completed: &mut Vec<Completed>,
    ) {
        let accepted = result.map(|number| {
            let number = i32::try_from(number).expect("it came as a positive `i32`");
            // SAFETY: the kernel has just opened it for this feed, each of whose completions is
            // taken once, so nobody else owns it.
            let connection = unsafe { OwnedFd::from_raw_fd(number) };
            op::accept::connection_from_ring(connection)
        });
        let Some(feed) = self.feeds.slots.get(index) else {
            return;
        };
        match accepted {
            Err(error) if is_cancelled(&error) => return self.feed_again(index),
            // A socket that does not listen gives this error too: then an operation will report it.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                self.feeds.accepts = false;
            }
            accepted => {
                let Some(listener) = feed.stream.upgrade() else {
                    return;
                };
                listener.stash_accept(accepted);
                if listener.stashed_accepts() >= ACCEPTED_MAX {
                    self.stop(index);
                }
            }
        }
        self.tell_watcher(index, completed);
    }

    fn feed_ended(&mut self, index: usize) {
        let feed = &mut self.feeds.slots[index];
        assert!(feed.armed.take().is_some(), "a feed ends once");
        feed.readable = false;
        self.feeds.armed -= 1;
        if feed.orphan {
            self.feeds.slots.remove(index);
        }
    }

    /// Bytes have arrived. Mostly no operation waits for them.
    #[inline]
    fn feed_brought(
        &mut self,
        index: usize,
        mut block: Lease,
        count: usize,
        completed: &mut Vec<Completed>,
    ) {
        if self.feeds.slots[index].is_waited_for() {
            let count = u32::try_from(count).expect("a block is shorter");
            return self.feed_won(index, Ok((block, count)), completed);
        }
        block.fill_to(count);
        self.stash(index, Ok(block), completed);
    }

    /// Hands on what has arrived: to the oldest receive that waits, or to the stash (rule 2).
    #[inline(never)]
    fn feed_won(
        &mut self,
        index: usize,
        won: io::Result<(Lease, u32)>,
        completed: &mut Vec<Completed>,
    ) {
        let feed = &mut self.feeds.slots[index];
        if let Some(key) = feed.pop_waiting() {
            let result = won.map(|(block, count)| {
                if let Some(Operation::Receive(receive)) = self.table.in_flight_mut(key) {
                    receive.into = Some(block);
                }
                count
            });
            completed.push(self.table.complete(key, result));
            return;
        }
        let won = won.map(|(mut block, count)| {
            block.fill_to(count as usize);
            block
        });
        self.stash(index, won, completed);
    }

    /// Keeps what has arrived while no operation waits, and reports it to the task that watches.
    #[inline]
    fn stash(&mut self, index: usize, won: io::Result<Lease>, completed: &mut Vec<Completed>) {
        let feed = &mut self.feeds.slots[index];
        let Some(stream) = feed.stream.upgrade() else {
            return;
        };
        if let Some(token) = feed.watcher.take() {
            let orphan = false;
            self.table.statistics.completed += 1;
            completed.push(Completed { token, orphan });
        }
        stream.stash_receive(won);
        if stream.stashed_receives() >= STASH_MAX {
            self.stop(index);
        }
    }

    /// Counts a receive of `count` bytes, and stops the feed if it is to be of the other kind.
    #[inline]
    fn weigh(&mut self, index: usize, count: usize) {
        if self.feeds.slots[index].weight.add(count) {
            self.stop(index);
        }
    }

    /// Notes that a call has received `count` bytes from `stream`, into room for `room`; `None` if there
    /// was nothing.
    #[inline]
    pub(super) fn note_received(&mut self, stream: &Descriptor, count: Option<usize>, room: usize) {
        // What did not fit is still there.
        stream.set_likely_readable(count == Some(room));
        let Some(index) = self.feeds.armed_at(stream) else {
            return;
        };
        match count {
            // A small buffer that is full does not show how much there was.
            Some(count) if count < room || count >= LARGE => self.weigh(index, count),
            Some(_) => {}
            None => self.feeds.slots[index].readable = false,
        }
    }

    fn tell_watcher(&mut self, index: usize, completed: &mut Vec<Completed>) {
        if let Some(token) = self.feeds.slots[index].watcher.take() {
            let orphan = false;
            self.table.statistics.completed += 1;
            completed.push(Completed { token, orphan });
        }
    }

    /// Starts a feed again that was stopped, for lack of readers or to change its kind.
    fn feed_again(&mut self, index: usize) {
        if self.feeds.slots[index].weight.heavy {
            // No operation waits in a feed that tells.
            self.feed_one_by_one(index);
        }
        let feed = &self.feeds.slots[index];
        let wanted = feed.watcher.is_some() || feed.is_waited_for();
        if !wanted || feed.armed.is_some() {
            return;
        }
        if let Some(stream) = feed.stream.upgrade() {
            self.arm(index, &stream);
        }
    }

    /// No block is left: the oldest receive gets one of its own; the others, if there are any, wait
    /// for the feed, which the next receive begins again.
    fn feed_one(&mut self, index: usize) {
        let feed = &mut self.feeds.slots[index];
        if let Some(key) = feed.pop_waiting() {
            self.receive_again(key);
        }
        self.feed_again(index);
    }

    /// There is no feed to wait in: what waits becomes submissions of its own.
    fn feed_one_by_one(&mut self, index: usize) {
        let waiting = self.feeds.slots[index].waiting.take();
        for key in waiting.into_iter().flat_map(|waiting| *waiting) {
            self.submit_now(key);
        }
    }
}
