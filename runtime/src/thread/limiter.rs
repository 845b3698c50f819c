//! Who may have a thread: the bound on how many blocking functions run at once.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use crate::context;
use crate::error::{Error, Result};
use crate::wait::Parked;

/// Bounds how many threads work at once for those who name it; see
/// [`RunSync::limiter`](super::call::RunSync::limiter).
///
/// A bound of your own needs two methods, and nothing else is asked of it: whoever wants a thread
/// takes a token on behalf of a borrower that is made for the call, and the token is given back on
/// behalf of the same borrower, on the thread of the run, when the function has really ended.
pub trait ThreadLimiter {
    /// Takes a token for `borrower`, as soon as there is one. May fail for its own reasons: then no
    /// thread is begun, and the call fails with that.
    fn acquire_on_behalf_of(
        self: Rc<Self>,
        borrower: ThreadBorrower,
    ) -> Pin<Box<dyn Future<Output = Result<()>>>>;

    /// Takes the token back that `borrower` has.
    ///
    /// # Errors
    ///
    /// Becomes the error of the call, in place of what the function has returned.
    fn release_on_behalf_of(&self, borrower: ThreadBorrower) -> Result<()>;

    /// Takes a token for `borrower` if that needs no waiting. A limiter that always says no works as
    /// well, and costs an allocation a call.
    fn try_acquire_on_behalf_of(&self, borrower: ThreadBorrower) -> bool {
        let _ = borrower;
        false
    }
}

/// One call of `to_thread::run_sync`, as its limiter knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ThreadBorrower(u64);

impl ThreadBorrower {
    pub(super) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl fmt::Debug for dyn ThreadLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ThreadLimiter")
    }
}

/// The limiter of calls that name none: forty at once, first come, first served.
pub(super) struct DefaultLimiter {
    free: Cell<usize>,
    queue: RefCell<VecDeque<Rc<Waiter>>>,
}

struct Waiter {
    wait: u32,
    /// Whether a token has been handed over.
    granted: Cell<bool>,
}

/// As many as Trio: enough to hide the latency of disks, few enough for the memory of their stacks.
const THREADS: usize = 40;

impl DefaultLimiter {
    pub(super) fn new() -> Self {
        Self {
            free: Cell::new(THREADS),
            queue: RefCell::default(),
        }
    }

    fn release(&self) {
        let next = self.queue.borrow_mut().pop_front();
        match next {
            None => self.free.set(self.free.get() + 1),
            Some(waiter) => {
                waiter.granted.set(true);
                context::with(|run| run.finish_wait(waiter.wait));
            }
        }
    }
}

impl ThreadLimiter for DefaultLimiter {
    fn acquire_on_behalf_of(
        self: Rc<Self>,
        _: ThreadBorrower,
    ) -> Pin<Box<dyn Future<Output = Result<()>>>> {
        Box::pin(Turn {
            limiter: self,
            parked: None,
        })
    }

    fn release_on_behalf_of(&self, _: ThreadBorrower) -> Result<()> {
        self.release();
        Ok(())
    }

    fn try_acquire_on_behalf_of(&self, _: ThreadBorrower) -> bool {
        let free = self.free.get();
        // While somebody queues nothing is free: a token goes from hand to hand.
        self.free.set(free.saturating_sub(1));
        free > 0
    }
}

struct Turn {
    limiter: Rc<DefaultLimiter>,
    parked: Option<(Parked, Rc<Waiter>)>,
}

impl Future for Turn {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let this = &mut *self;
        let Some((parked, waiter)) = &this.parked else {
            let parked = Parked::new(context, "a thread for to_thread::run_sync");
            let waiter = Rc::new(Waiter {
                wait: parked.wait(),
                granted: Cell::new(false),
            });
            this.limiter.queue.borrow_mut().push_back(waiter.clone());
            this.parked = Some((parked, waiter));
            return Poll::Pending;
        };
        let woken = parked.poll_woken(context);
        if waiter.granted.replace(false) {
            this.parked = None;
            return Poll::Ready(Ok(()));
        }
        match ready!(woken) {
            None => unreachable!("a waiter is woken with a token, or by a cancel"),
            Some(cancelled) => Poll::Ready(Err(Error::cancelled(cancelled))),
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some((parked, waiter)) = self.parked.take() {
            if waiter.granted.get() {
                parked.with(|_| self.limiter.release());
            } else {
                let mut queue = self.limiter.queue.borrow_mut();
                queue.retain(|other| !Rc::ptr_eq(other, &waiter));
            }
        }
    }
}
