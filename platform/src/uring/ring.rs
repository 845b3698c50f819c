//! The two queues shared with the kernel, and the one call that tells it to look.

use std::fmt;
use std::io;
use std::ptr::NonNull;
use std::time::Duration;

use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{CompletionQueue, EnterFlags, IoUring, Parameters, SubmissionQueue, Submitter};

use crate::driver::Wait;

/// A ring whose number is registered with the thread, so that a call finds it without a look into
/// the table of open files.
pub(super) struct Ring {
    /// Remembers the registration. `None` only while `drop` runs.
    submitter: Option<Submitter<'static>>,
    /// Comes from `Box::into_raw`, and is freed by `drop` only.
    ring: NonNull<IoUring>,
    /// Flags of every call that waits.
    waiting: EnterFlags,
    /// How many more calls are to fail with `EAGAIN`, as they do when the kernel has no memory.
    #[cfg(test)]
    pub(super) refuse: u32,
}

impl Ring {
    pub(super) fn new(ring: IoUring) -> Self {
        let ring = NonNull::from(Box::leak(Box::new(ring)));
        // SAFETY: the ring is initialised, and `drop` frees it after the last use of this
        // reference: it ends the life of the submitter first. Only shared references to the ring
        // are made, here and in `Ring::ring`.
        let lasting: &'static IoUring = unsafe { ring.as_ref() };
        let mut submitter = lasting.submitter();
        // Without a registration each call is a little slower, and nothing else: a thread may have
        // no more than sixteen.
        drop(submitter.register_ring_fd());
        let mut waiting = EnterFlags::empty();
        if lasting.params().is_feature_no_iowait() {
            // Else an idle thread that waits for a socket counts as one that waits for a disk.
            waiting = EnterFlags::NO_IOWAIT;
        }
        Self {
            submitter: Some(submitter),
            ring,
            waiting,
            #[cfg(test)]
            refuse: 0,
        }
    }

    fn ring(&self) -> &IoUring {
        // SAFETY: the ring is initialised and lives until `drop`; only shared references are made.
        unsafe { self.ring.as_ref() }
    }

    pub(super) fn parameters(&self) -> &Parameters {
        self.ring().params()
    }

    /// The half that registers things, and calls.
    pub(super) fn submitter(&self) -> &Submitter<'static> {
        self.submitter
            .as_ref()
            .expect("the submitter is there until the ring is dropped")
    }

    /// The queue to the kernel.
    pub(super) fn submissions(&mut self) -> SubmissionQueue<'_> {
        // SAFETY: `&mut self` is held as long as the queue, so there is no other.
        unsafe { self.ring().submission_shared() }
    }

    /// The queue from the kernel.
    pub(super) fn completions(&mut self) -> CompletionQueue<'_> {
        // SAFETY: `&mut self` is held as long as the queue, so there is no other.
        unsafe { self.ring().completion_shared() }
    }

    /// Gives `count` submissions to the kernel, lets it do what it has put off until now, and then
    /// waits as `wait` says, unless there is a completion to collect or a submission was left.
    ///
    /// # Errors
    ///
    /// `ETIME` when the time is up, `EINTR` after a signal, and what goes wrong. In any case a
    /// submission that the kernel has not taken stays in the queue.
    // The two without a time are one call, and the third is elsewhere: the code of most turns is short.
    #[inline]
    pub(super) fn enter(&mut self, count: usize, wait: Wait) -> io::Result<()> {
        let (least, flags) = match wait {
            Wait::Poll => (0, EnterFlags::empty()),
            Wait::Forever => (1, self.waiting),
            Wait::For(patience) => return self.call_for(count, 1, self.waiting, patience),
        };
        #[cfg(test)]
        self.refuse(count)?;
        let (count, flags) = (number(count), flags | COLLECT);
        // SAFETY: nothing but numbers is passed. What the submissions point to belongs to the operations
        // in the table (rule 1 of `op/mod.rs`).
        unsafe {
            self.submitter()
                .enter::<()>(count, least, flags.bits(), None)
        }?;
        Ok(())
    }

    /// Gives `count` submissions to the kernel, and lets it do as much of what it has put off as there are
    /// submissions, without waiting for more. Unless it is to wait for more, a kernel stops after twenty
    /// (since 6.12).
    ///
    /// # Errors
    ///
    /// As for [`Ring::enter`].
    pub(super) fn enter_at_length(&mut self, count: usize) -> io::Result<()> {
        self.call_for(count, number(count), EnterFlags::empty(), Duration::ZERO)
    }

    #[inline(never)]
    fn call_for(
        &mut self,
        count: usize,
        least: u32,
        flags: EnterFlags,
        patience: Duration,
    ) -> io::Result<()> {
        #[cfg(test)]
        self.refuse(count)?;
        let (count, flags) = (number(count), flags | COLLECT | EnterFlags::EXT_ARG);
        let timeout = timespec(patience);
        let arguments = SubmitArgs::new().timespec(&timeout);
        // SAFETY: `EXT_ARG` announces the type of `arguments`, which like the timeout lives until
        // the call returns. Of the submissions as above.
        unsafe {
            self.submitter()
                .enter(count, least, flags.bits(), Some(&arguments))
        }?;
        Ok(())
    }

    /// Fails as a call does of a kernel that has no memory, if the test wants it.
    #[cfg(test)]
    fn refuse(&mut self, count: usize) -> io::Result<()> {
        if self.refuse > 0 && count > 0 {
            self.refuse -= 1;
            return Err(io::Error::from_raw_os_error(libc::EAGAIN));
        }
        Ok(())
    }
}

/// What makes the kernel do the work that `DEFER_TASKRUN` has put off.
const COLLECT: EnterFlags = EnterFlags::GETEVENTS;

fn number(count: usize) -> u32 {
    u32::try_from(count).expect("a queue has at most 32,768 entries")
}

impl Drop for Ring {
    fn drop(&mut self) {
        if let Some(mut submitter) = self.submitter.take() {
            // The registration holds the ring open, so without this it would live as long as the
            // thread. Fails if there is none.
            drop(submitter.unregister_ring_fd());
        }
        // SAFETY: the pointer is that of a box that `new` has leaked, and is freed here only. The
        // submitter, the one reference to it that could be left, has ended.
        drop(unsafe { Box::from_raw(self.ring.as_ptr()) });
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ring").field(self.parameters()).finish()
    }
}

/// The kernel refuses what does not fit into 63 bits, and nobody waits 68 years.
fn timespec(patience: Duration) -> Timespec {
    Timespec::from(patience.min(Duration::from_secs(i32::MAX as u64)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_gives_its_registration_back() {
        // A thread may have sixteen.
        for _ in 0..40 {
            let mut ring = Ring::new(IoUring::new(2).unwrap());
            let again = ring.submitter.as_mut().unwrap().register_ring_fd();
            assert_eq!(again.unwrap_err().raw_os_error(), Some(libc::EEXIST));
        }
    }

    #[test]
    fn the_longest_wait_is_one_that_the_kernel_takes() {
        let mut ring = Ring::new(IoUring::new(2).unwrap());
        let nop = io_uring::opcode::Nop::new().build();
        // SAFETY: it points to nothing.
        unsafe { ring.submissions().push(&nop) }.unwrap();
        ring.enter(1, Wait::For(Duration::MAX)).unwrap();
        assert!(ring.completions().next().is_some());
    }
}
