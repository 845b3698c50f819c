//! Limits how many blocking functions run at the same time.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use crate::error::Result;
use crate::sync::{Borrower, CapacityLimiter};

/// Limits how many threads work at the same time for the calls that name it; see
/// [`RunSync::limiter`](super::call::RunSync::limiter).
///
/// As a rule this is a [`CapacityLimiter`]. A limiter of your own needs two methods. Each call takes a
/// token on behalf of a borrower made for it, and gives the token back on behalf of the same borrower,
/// on the thread of the run, when the function has really ended.
pub trait ThreadLimiter {
    /// Takes a token for `borrower`, as soon as there is one. It may fail for reasons of its own:
    /// then no thread is started, and the call fails with that error.
    fn acquire_on_behalf_of(
        self: Rc<Self>,
        borrower: Borrower,
    ) -> Pin<Box<dyn Future<Output = Result<()>>>>;

    /// Takes back the token that `borrower` has.
    ///
    /// # Errors
    ///
    /// Becomes the error of the call, in place of what the function has returned.
    fn release_on_behalf_of(&self, borrower: Borrower) -> Result<()>;

    /// Takes a token for `borrower` if that is possible without waiting. A limiter that always
    /// refuses works too, and costs an allocation for each call.
    fn try_acquire_on_behalf_of(&self, borrower: Borrower) -> bool {
        let _ = borrower;
        false
    }
}

impl ThreadLimiter for CapacityLimiter {
    fn acquire_on_behalf_of(
        self: Rc<Self>,
        borrower: Borrower,
    ) -> Pin<Box<dyn Future<Output = Result<()>>>> {
        Box::pin(async move {
            let token = Self::acquire_on_behalf_of(&self, borrower).await?;
            token.forget();
            Ok(())
        })
    }

    fn release_on_behalf_of(&self, borrower: Borrower) -> Result<()> {
        Self::release_on_behalf_of(self, borrower)
    }

    fn try_acquire_on_behalf_of(&self, borrower: Borrower) -> bool {
        let token = Self::try_acquire_on_behalf_of(self, borrower);
        token.map(|token| token.forget()).is_ok()
    }
}

/// How many calls of a run that name no limiter may be at work. As many as with Trio: enough to
/// hide the latency of disks, and few enough for the memory of their stacks.
pub(super) const THREADS: usize = 40;

impl fmt::Debug for dyn ThreadLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ThreadLimiter")
    }
}
