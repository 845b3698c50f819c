//! Collecting completions, and what each kind of operation makes of its own.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd, OwnedFd};

use io_uring::cqueue;

use super::feed::is_feed;
use super::{CANCEL, Uring, WAKE};
use crate::driver::{Completed, Key};
use crate::op::{Operation, cancelled};

/// Completions that are taken from the queue at once, so that what the later ones need can be asked for
/// while the earlier ones are dealt with.
const AT_ONCE: usize = 32;

impl Uring {
    /// Collects what the kernel has posted. What it posts meanwhile may be left for the next turn, which
    /// looks before it waits.
    #[inline]
    pub(super) fn reap(&mut self, completed: &mut Vec<Completed>) {
        // One that has a turn to itself comes after a sleep, which has taken this code out of the first
        // cache: so there is little of it, and nothing is asked for that would not come before it is needed.
        let mut queue = self.ring.completions();
        if queue.len() > 1 {
            drop(queue);
            return self.reap_several(completed);
        }
        let entry = queue.next();
        drop(queue);
        if let Some(entry) = entry {
            self.react(&entry, completed);
        }
    }

    #[inline(never)]
    fn reap_several(&mut self, completed: &mut Vec<Completed>) {
        let mut room = [const { MaybeUninit::uninit() }; AT_ONCE];
        loop {
            let entries = self.ring.completions().fill(&mut room);
            self.foresee_feeds(entries);
            for entry in entries.iter() {
                self.react(entry, completed);
            }
            if entries.len() < AT_ONCE {
                return;
            }
        }
    }

    /// Asks for the memory that the completions of feeds are going to need. A wake looks like one here,
    /// and names none that there is.
    fn foresee_feeds(&self, entries: &[cqueue::Entry]) {
        let feeds = || {
            let all = entries.iter().map(cqueue::Entry::user_data);
            all.filter(|user_data| is_feed(*user_data))
        };
        feeds().for_each(|feed| self.feeds.foresee(feed));
        feeds().for_each(|feed| self.feeds.foresee_stream(feed));
    }

    /// One completion.
    #[inline(never)]
    fn react(&mut self, entry: &cqueue::Entry, completed: &mut Vec<Completed>) {
        let user_data = entry.user_data();
        // A wake and a cancel look like one too.
        if is_feed(user_data) && user_data != WAKE && user_data != CANCEL {
            return self.feed_completed(entry, completed);
        }
        self.react_rarely(entry, completed);
    }

    /// One that is not of a feed.
    #[inline(never)]
    fn react_rarely(&mut self, entry: &cqueue::Entry, completed: &mut Vec<Completed>) {
        match entry.user_data() {
            // That there was a wake is all there is to know. Without MORE the poll has ended,
            // by a full queue or by a cancel of everything.
            WAKE => {
                if !cqueue::more(entry.flags()) {
                    self.arm_wakeup();
                }
            }
            // The cancel came too late (`ENOENT`) or could not stop it (`EALREADY`): the
            // operation ends in its own way. A cancel that works says nothing.
            CANCEL => {}
            key => completed.extend(self.complete(Key(key), entry)),
        }
    }

    /// The last completion of an operation: every kind has just one. `None` if the operation goes
    /// on after all.
    fn complete(&mut self, key: Key, entry: &cqueue::Entry) -> Option<Completed> {
        // Taken before anything else is looked at: whatever the result, the block is ours now.
        let block = cqueue::buffer_select(entry.flags()).map(|id| self.blocks.lend(id));
        let cancelling = entry.result() < 0 && self.table.is_cancelling(key);
        // Nothing is found if a drain had to leak the operation; its memory was never freed.
        let operation = self.table.in_flight_mut(key)?;
        let mut result = outcome(entry.result());
        if cancelling && result.as_ref().is_err_and(is_interrupted) {
            // What a thread of the kernel says that our cancel has stopped.
            result = Err(cancelled());
        }
        match operation {
            Operation::Receive(receive) => {
                if block.is_some() {
                    receive.into = block;
                }
                match &result {
                    Ok(_) => {
                        let more = cqueue::sock_nonempty(entry.flags());
                        receive.from.set_likely_readable(more);
                        // An end of file needs no block, and some kernels give none; but every
                        // result has one to show.
                        if receive.into.is_none() {
                            receive.into = Some(self.pool.lease());
                        }
                    }
                    Err(error) if receive.into.is_none() && is_exhausted(error) => {
                        self.blocks.widen();
                        if !cancelling {
                            self.receive_again(key);
                            return None;
                        }
                        // The cancel may have come and gone between the two attempts.
                        result = Err(cancelled());
                    }
                    Err(_) => {}
                }
            }
            Operation::Accept(accept) => {
                if let Ok(number) = result {
                    let number = i32::try_from(number).expect("it came as a positive `i32`");
                    // SAFETY: the kernel has just opened it for this operation, whose one
                    // completion is taken once, so nobody else owns it.
                    let connection = unsafe { OwnedFd::from_raw_fd(number) };
                    accept.accepted(connection);
                    accept.on.count_taken();
                    result = Ok(0);
                }
            }
            // The kernel says what it is ready for, the caller only wanted to know that it is.
            Operation::Ready(_) => result = result.map(|_| 0),
            Operation::Send(_) | Operation::Connect(_) => {}
        }
        Some(self.table.complete(key, result))
    }

    /// The kernel had no block to receive into: gives it one from the heap.
    ///
    /// Leases may be held for ever, so waiting for one could be for ever too.
    pub(super) fn receive_again(&mut self, key: Key) {
        self.table.statistics.buffers_exhausted += 1;
        let lease = self.pool.lease();
        let Some(operation) = self.table.in_flight_mut(key) else {
            unreachable!("the operation was found a moment ago");
        };
        if let Operation::Receive(receive) = operation {
            receive.into = Some(lease);
        }
        operation.poison();
        let entry = operation.entry(true).user_data(key.0);
        self.push(entry);
    }
}

pub(super) fn outcome(raw: i32) -> io::Result<u32> {
    u32::try_from(raw).map_err(|_| io::Error::from_raw_os_error(-raw))
}

fn is_interrupted(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EINTR)
}

pub(super) fn is_exhausted(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOBUFS)
}
