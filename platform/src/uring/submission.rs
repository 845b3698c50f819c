//! Getting submissions to the kernel, and what happens when its queue is full.
//!
//! A submission goes straight into the queue of the kernel if there is room, and otherwise into a queue
//! of our own, which has no bound. While that queue holds anything, every submission goes through it. So
//! the order of submissions never changes: a cancel reaches the kernel after what it cancels.
//!
//! A call that fails has taken nothing from the queue: what was in it is still going to happen, and
//! its memory stays the kernel's. So after a failure nothing is undone, and the next call tries
//! again.

use std::io;
use std::time::Duration;

use io_uring::squeue;

use super::Uring;
use crate::driver::Wait;

/// How long to give a kernel that is out of memory before it is asked again.
const RESPITE: Duration = Duration::from_millis(1);

/// Where more waits to be submitted than the queue holds, a turn goes on submitting until it has this many
/// completions to collect.
const ENOUGH: usize = 128;

impl Uring {
    /// Hands a submission over; the kernel learns of it in the next [`Uring::enter`].
    pub(super) fn push(&mut self, entry: squeue::Entry) {
        if self.overflow.is_empty() && self.try_push(&entry) {
            return;
        }
        self.table.statistics.overflowed += 1;
        self.overflow.push_back(entry);
    }

    fn try_push(&mut self, entry: &squeue::Entry) -> bool {
        let mut queue = self.ring.submissions();
        // SAFETY: what the entry points to belongs to an operation that is in the table already and
        // stays there until its last completion (rule 1 of `op/mod.rs`), or it points to nothing.
        unsafe { queue.push(entry) }.is_ok()
    }

    /// Moves what had to wait into the queue of the kernel, as far as there is room.
    fn flush(&mut self) {
        while let Some(entry) = self.overflow.pop_front() {
            if !self.try_push(&entry) {
                self.overflow.push_front(entry);
                return;
            }
        }
    }

    /// Tells the kernel of all submissions, and waits as `wait` says unless there is a completion
    /// to collect.
    ///
    /// Makes no call if it is not to wait, nothing is to be submitted, and the kernel has put nothing off.
    /// Makes one, which both submits and waits, unless more is waiting than the queue holds. Then it makes
    /// as many as it takes until there is [`ENOUGH`] to collect, and leaves the rest to the next turn. So
    /// thousands of operations that are cancelled at once end by the queueful: what the kernel touches of
    /// each for the cancel is still in the cache when the operation completes, and when its task, which
    /// wakes, closes its socket.
    // Inlined, and without the rare part, because it is most of a turn.
    #[inline(always)]
    pub(super) fn enter(&mut self, wait: Wait) -> io::Result<()> {
        if !self.overflow.is_empty() {
            return self.enter_crowded(wait);
        }
        let queue = self.ring.submissions();
        let count = queue.len();
        // Work that was put off, or completions that found their queue full.
        let idle = wait == Wait::Poll && count == 0 && !queue.taskrun() && !queue.cq_overflow();
        drop(queue);
        if idle {
            return Ok(());
        }
        self.table.statistics.enters += 1;
        match self.ring.enter(count, wait) {
            Ok(()) => Ok(()),
            Err(error) => self.refused(error, wait),
        }
    }

    /// The same while more is waiting than the queue holds.
    #[cold]
    fn enter_crowded(&mut self, wait: Wait) -> io::Result<()> {
        loop {
            self.flush();
            if self.overflow.is_empty() {
                return self.enter(wait);
            }
            let count = self.ring.submissions().len();
            self.table.statistics.enters += 1;
            if let Err(error) = self.ring.enter_at_length(count) {
                return self.refused(error, wait);
            }
            if self.ring.completions().len() >= ENOUGH {
                return Ok(());
            }
        }
    }

    /// A call has failed.
    #[cold]
    fn refused(&mut self, error: io::Error, wait: Wait) -> io::Result<()> {
        match error.raw_os_error() {
            // The time is up, or a signal came, whose handler may have called for us.
            Some(libc::ETIME | libc::EINTR) => Ok(()),
            // No memory for a submission, or no room for its completion (before 6.0). To collect
            // completions helps against both.
            Some(libc::EAGAIN | libc::EBUSY) => self.back_off(wait),
            _ => Err(error),
        }
    }

    /// After a refusal: waits a little for a completion, without submitting anything, so that a
    /// driver that has nothing else to do does not ask again at once and for ever.
    fn back_off(&mut self, wait: Wait) -> io::Result<()> {
        let respite = match wait {
            Wait::Poll => return Ok(()),
            Wait::For(patience) => patience.min(RESPITE),
            Wait::Forever => RESPITE,
        };
        self.table.statistics.enters += 1;
        match self.ring.enter(0, Wait::For(respite)) {
            Ok(()) => Ok(()),
            Err(error) => match error.raw_os_error() {
                Some(libc::ETIME | libc::EINTR | libc::EAGAIN | libc::EBUSY) => Ok(()),
                _ => Err(error),
            },
        }
    }
}
